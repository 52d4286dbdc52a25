//! One place datagrams are sent on to, with the socket that leads there.
//!
//! The socket is connected, so the system tells when nobody listens; that word comes with a later datagram, which is then sent all the same.
//! Invariant: no target holds the others for long: a socket that does not take a datagram in time is not waited for again for a while.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket as StdSocket},
    time::Duration,
};

use prometheus_client::metrics::counter::Counter;
use tokio::{
    net::UdpSocket,
    time::{Instant, timeout},
};
use tracing::{error, info, warn};

use super::{super::LINE_EVERY, metrics::Metrics};
use crate::{config::HostPort, telemetry::throttle::Throttles};

/// How long a datagram waits for the socket ...
const PATIENCE: Duration = Duration::from_millis(20);
/// ... and how long none waits after one has waited in vain.
const HASTE: Duration = Duration::from_secs(1);
/// Buffer asked of the system for datagrams on their way out, bytes: a burst leaves as fast as it came.
const SEND_BUFFER: usize = 4 << 20;

/// See the module.
pub(super) struct Target {
    pub(super) written: HostPort,
    way: Way,
    in_haste_until: Option<Instant>,
    sent: Counter,
    metrics: Metrics,
    log: Throttles,
}

/// How it is reached.
enum Way {
    /// Its name was not found yet.
    Unknown,
    /// It is one of our own sockets.
    Own,
    /// There is no socket for it.
    Closed(SocketAddr, io::Error),
    Open(SocketAddr, UdpSocket),
}

impl Target {
    pub(super) fn new(written: HostPort, metrics: &Metrics) -> Self {
        let (sent, metrics) = (metrics.sent(&written), metrics.clone());
        Self { written, way: Way::Unknown, in_haste_until: None, sent, metrics, log: Throttles::every(LINE_EVERY) }
    }

    /// It is at this address. `own`: that is one of our own sockets.
    pub(super) fn lead_to(&mut self, address: SocketAddr, own: bool) {
        self.way = match &self.way {
            Way::Open(before, _) if *before == address && !own => return,
            Way::Own if own => return,
            _ if own => {
                error!(
                    code = "forward_to_itself",
                    "udpServerConfig.forwardTo: {} is {address}, a port of this program itself; nothing is sent there, or it would come back for ever; name the port of the other program",
                    self.written
                );
                Way::Own
            }
            _ => match open(address) {
                Ok(socket) => {
                    info!("datagrams are sent on to {} ({address})", self.written);
                    Way::Open(address, socket)
                }
                Err(error) => Way::Closed(address, error),
            },
        };
    }

    /// Sends one datagram, or counts why not.
    pub(super) async fn send(&mut self, bytes: &[u8]) {
        let (reason, why) = match &self.way {
            Way::Unknown => ("unresolved", "its name is not known (yet)".to_owned()),
            Way::Own => ("loop", "it is a port of this program itself".to_owned()),
            Way::Closed(address, error) => ("send", format!("no socket leads to {address}: {error}")),
            Way::Open(_, socket) => match pass(socket, bytes, self.in_haste_until).await {
                Passed::Sent => {
                    self.sent.inc();
                    return;
                }
                Passed::SentAfterRefusal => {
                    self.sent.inc();
                    ("refused", "nobody listens there".to_owned())
                }
                Passed::NoRoom => {
                    self.in_haste_until = Some(Instant::now() + HASTE);
                    ("busy", "the system takes no more for it".to_owned())
                }
                Passed::Failed(error) => ("send", error.to_string()),
            },
        };
        self.metrics.dropped(&self.written, reason);
        if let Some(suppressed) = self.log.pass(reason) {
            let to = &self.written;
            warn!(
                code = "forward_failed",
                suppressed,
                %to,
                reason,
                "a datagram did not go on (udpServerConfig.forwardTo): {why}; look whether the program there runs, or take it out"
            );
        }
    }
}

/// What became of a datagram.
enum Passed {
    Sent,
    /// One sent before was refused, and this one is on its way.
    SentAfterRefusal,
    NoRoom,
    Failed(io::Error),
}

async fn pass(socket: &UdpSocket, bytes: &[u8], in_haste_until: Option<Instant>) -> Passed {
    let patience = if in_haste_until.is_some_and(|until| Instant::now() < until) { Duration::ZERO } else { PATIENCE };
    match timeout(patience, socket.send(bytes)).await {
        Ok(Ok(_)) => Passed::Sent,
        Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => {
            match timeout(patience, socket.send(bytes)).await {
                Ok(Ok(_)) => Passed::SentAfterRefusal,
                Ok(Err(error)) => Passed::Failed(error),
                Err(_) => Passed::NoRoom,
            }
        }
        Ok(Err(error)) => Passed::Failed(error),
        Err(_) => Passed::NoRoom,
    }
}

fn open(address: SocketAddr) -> io::Result<UdpSocket> {
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = StdSocket::bind(any)?;
    // Refused or cut: then bursts are sent a little slower.
    let _ = socket2::SockRef::from(&socket).set_send_buffer_size(SEND_BUFFER);
    socket.connect(address)?;
    socket.set_nonblocking(true)?;
    UdpSocket::from_std(socket)
}
