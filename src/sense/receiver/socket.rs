//! Opening UDP sockets: which addresses a host setting means, how large a receive buffer the kernel grants, and what to say when not.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
};

use socket2::{Domain, Protocol, Socket, Type};
use tracing::{info, warn};

use crate::{
    config::{address, settings::UdpSettings},
    net::bind::{self, BindError},
};

/// The longest datagram UDP can carry over IPv4 is 65,507 bytes; over IPv6 a little more.
pub(super) const MAX_DATAGRAM: usize = 65_536;

/// Which of the two ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Port {
    /// Task events, `portTaskFailure`.
    Task,
    /// Session and connection events, `portSessionConnectionEvents`.
    Session,
}

impl Port {
    /// The word used in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Task => "task",
            Self::Session => "session",
        }
    }

    const fn key(self) -> &'static str {
        match self {
            Self::Task => "udpServerConfig.portTaskFailure",
            Self::Session => "udpServerConfig.portSessionConnectionEvents",
        }
    }
}

/// An open socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listening {
    /// Which port it serves.
    pub port: Port,
    /// Where.
    pub address: SocketAddr,
    /// Receive buffer the kernel granted, bytes.
    pub receive_buffer: usize,
}

/// Why the receiver could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum ReceiverError {
    /// Somebody else has the port.
    #[error(
        "UDP port {} ({key}) on {} is used by another program; stop that program (another Butler?) or set another port",
        address.port(), address.ip()
    )]
    PortTaken {
        /// Address that was to be bound.
        address: SocketAddr,
        /// Key of the configuration it comes from.
        key: &'static str,
    },
    /// The host is no address of this machine.
    #[error(
        "udpServerConfig.serverHost `{host}` cannot be resolved: {source}; write `localhost`, `0.0.0.0` or an address of this machine"
    )]
    Host {
        /// As written.
        host: String,
        /// What the system says.
        source: io::Error,
    },
    /// Datagrams would be sent on to where they came from.
    #[error(
        "udpServerConfig.forwardTo: {target} is a port of this program itself, and every datagram would come back for ever; write the port of \
         the other program"
    )]
    Loop {
        /// As written.
        target: String,
    },
    /// The system gives no thread.
    #[error("no thread could be started to receive datagrams: {0}")]
    Thread(io::Error),
    /// A receiving thread ended although nobody asked it to.
    #[error("a thread that receives datagrams ended by itself; the log says more")]
    Deaf,
    /// Anything else.
    #[error(
        "UDP {address} ({key}) cannot be opened: {source}; is udpServerConfig.serverHost an address of this machine?"
    )]
    Socket {
        /// Address that was to be bound.
        address: SocketAddr,
        /// Key of the configuration it comes from.
        key: &'static str,
        /// What the system says.
        source: io::Error,
    },
}

/// A socket ready to receive.
#[derive(Debug)]
pub(super) struct Bound {
    pub socket: UdpSocket,
    pub listening: Listening,
}

/// Opens all sockets the settings ask for.
pub(super) fn bind_all(settings: &UdpSettings) -> Result<Vec<Bound>, ReceiverError> {
    let ports = [(Port::Task, Some(settings.task_port)), (Port::Session, settings.session_port)];
    let mut bound = Vec::new();
    for (port, number) in ports {
        if let Some(number) = number {
            bound.extend(bind_port(settings, port, number)?);
        }
    }
    tell(&bound, settings.receive_buffer);
    Ok(bound)
}

fn bind_port(settings: &UdpSettings, port: Port, number: u16) -> Result<Vec<Bound>, ReceiverError> {
    let host = |source| ReceiverError::Host { host: settings.host.clone(), source };
    let addresses = address::look_up(&settings.host).map_err(host)?;
    let addresses: Vec<_> = addresses.into_iter().map(|ip| SocketAddr::new(ip, number)).collect();
    let open = |address| {
        let (socket, address, receive_buffer) = open(address, settings.receive_buffer)?;
        Ok((Bound { socket, listening: Listening { port, address, receive_buffer } }, address))
    };
    bind::each(&addresses, open).map_err(|BindError { address, source }| match source.kind() {
        io::ErrorKind::AddrInUse => ReceiverError::PortTaken { address, key: port.key() },
        _ => ReceiverError::Socket { address, key: port.key(), source },
    })
}

fn open(address: SocketAddr, receive_buffer: usize) -> io::Result<(UdpSocket, SocketAddr, usize)> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if let IpAddr::V6(ip) = address.ip() {
        // `::` takes IPv4, too: log4net sends to whatever address a name resolves to first.
        socket.set_only_v6(!ip.is_unspecified())?;
    }
    // Refused or cut: what was granted is asked for below.
    let _ = socket.set_recv_buffer_size(receive_buffer);
    let granted = granted(socket.recv_buffer_size()?);
    socket.bind(&address.into())?;
    socket.set_read_timeout(Some(super::TICK))?;
    let socket = UdpSocket::from(socket);
    let bound = socket.local_addr()?;
    Ok((socket, bound, granted))
}

/// Linux tells twice what was asked for: the other half is its own bookkeeping.
const fn granted(told: usize) -> usize {
    if cfg!(target_os = "linux") { told / 2 } else { told }
}

fn tell(bound: &[Bound], asked: usize) {
    for Bound { listening, .. } in bound {
        let Listening { port, address, receive_buffer } = listening;
        info!(port = port.as_str(), %address, receive_buffer, "listening for datagrams");
    }
    let least = bound.iter().map(|bound| bound.listening.receive_buffer).min();
    if let Some(granted) = least.filter(|granted| *granted < asked) {
        warn!(
            code = "receive_buffer_small",
            granted,
            asked,
            "the system grants a smaller receive buffer than asked for; bursts of datagrams may be lost. On Linux: \
             `sysctl -w net.core.rmem_max={asked}` (and in /etc/sysctl.d/), then restart; Windows needs no setting for it"
        );
    }
}

/// Whether a receive ended only because nothing came. Windows tells a sender's closed port as a reset; a receiver has nothing to reset.
pub(super) fn is_quiet(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionReset, Interrupted, TimedOut, WouldBlock};
    matches!(error.kind(), WouldBlock | TimedOut | Interrupted | ConnectionReset)
}
