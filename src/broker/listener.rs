//! Doors: sockets that accept, and nothing else. Every handshake, TLS included, happens in the connection's own task.
//!
//! Invariants: an accept loop never waits for a peer and never ends before the stop; a failing `accept` (out of file descriptors, say) is
//! retried with back-off; connections without CONNECT and connections in all are bounded.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::{
    BrokerError,
    connection::{self, Entrance},
    hub::Hub,
    settings::{Listener, ListenerTls},
    tls,
};

/// Connections the kernel keeps waiting for us.
const BACKLOG: i32 = 1_024;
/// Pause after a failed accept: doubled up to a second.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// What a TLS handshake may take.
const TLS_TIME: Duration = Duration::from_secs(10);

/// A bound socket of a listener.
pub(super) struct Bound {
    listener: Arc<Listener>,
    socket: TcpListener,
    pub address: SocketAddr,
    acceptor: Option<TlsAcceptor>,
}

/// Binds every address of a listener.
pub(super) fn bind(listener: &Arc<Listener>) -> Result<Vec<Bound>, BrokerError> {
    let acceptor = listener.tls.as_ref().map(|tls: &ListenerTls| tls::acceptor(&listener.name, tls)).transpose()?;
    let mut bound = Vec::new();
    // With port 0 both loopback addresses get the port the first one was given.
    let mut port = 0;
    for address in &listener.addresses {
        let mut address = *address;
        if address.port() == 0 {
            address.set_port(port);
        }
        match bind_one(address) {
            Ok(socket) => {
                let address = socket.local_addr().map_err(|error| failed(listener, address, error))?;
                port = address.port();
                bound.push(Bound { listener: Arc::clone(listener), socket, address, acceptor: acceptor.clone() });
            }
            // A machine without IPv6 has no ::1; the other loopback serves alone.
            Err(error) if listener.addresses.len() > 1 && is_absent(&error) && address.is_ipv6() => {
                tracing::info!(%address, "not listening there: this machine has no IPv6");
            }
            Err(error) => return Err(failed(listener, address, error)),
        }
    }
    Ok(bound)
}

fn is_absent(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
        || error.raw_os_error() == Some(97)
}

fn failed(listener: &Listener, address: SocketAddr, source: io::Error) -> BrokerError {
    BrokerError::Bind { listener: listener.name.to_string(), address, source }
}

fn bind_one(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // On Windows this option would let another program share the port.
    #[cfg(unix)]
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

impl Bound {
    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.listener.name)
    }

    /// Accepts until the stop.
    pub(super) async fn run(self, hub: Hub, connections: TaskTracker) {
        let mut pause = FIRST_PAUSE;
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = hub.stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, remote)) => {
                    pause = FIRST_PAUSE;
                    self.welcome(&hub, &connections, stream, remote);
                }
                Err(error) => {
                    tracing::warn!(listener = %self.listener.name, "cannot accept a connection: {error}; trying again in {pause:?}");
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }

    fn welcome(&self, hub: &Hub, connections: &TaskTracker, stream: TcpStream, remote: SocketAddr) {
        if !hub.auth.may_connect(remote.ip()) {
            hub.metrics.refused("connect_rate");
            return;
        }
        let Ok(doorstep) = Arc::clone(&hub.doorstep).try_acquire_owned() else {
            hub.metrics.refused("handshakes");
            return;
        };
        let entrance = Entrance::Listener { listener: Arc::clone(&self.listener), remote };
        let (hub, acceptor) = (hub.clone(), self.acceptor.clone());
        connections.spawn(async move {
            // Small packets go out at once; a peer that vanished is noticed also without keep-alive. Neither can fail in a way that matters.
            let _ = stream.set_nodelay(true);
            let _ = socket2::SockRef::from(&stream).set_keepalive(true);
            match acceptor {
                None => connection::serve(hub, stream, entrance, Some(doorstep)).await,
                Some(acceptor) => match tokio::time::timeout(TLS_TIME, acceptor.accept(stream)).await {
                    Ok(Ok(stream)) => connection::serve(hub, stream, entrance, Some(doorstep)).await,
                    Ok(Err(error)) => {
                        hub.metrics.refused("tls");
                        tracing::info!(%remote, "TLS handshake failed: {error}");
                    }
                    Err(_) => hub.metrics.refused("tls_time"),
                },
            }
        });
    }
}
