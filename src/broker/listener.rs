//! Doors: sockets that accept, and nothing else. Every handshake, of TLS and of WebSocket, happens in the connection's own task.
//!
//! Invariants: an accept loop never waits for a peer and never ends before the stop; a failing `accept` (out of file descriptors, say) is
//! retried with back-off; connections without CONNECT are bounded in time and number, in all and for one address; connections in all are
//! bounded.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    time::Instant,
};
use tokio_util::task::TaskTracker;

use super::{
    BrokerError,
    connection::{self, Entrance, Guest},
    doorstep::{Crowded, Doorstep, Place},
    hub::Hub,
    identity,
    settings::{CertificateName, Listener, ListenerTls},
    websocket::{self, NoUpgrade, Rules},
};
use crate::{
    net::{
        bind::{self, V6},
        certificates::Certificates,
        origin::{Allowed, Here},
        pace::Pace,
        tls::{Clients, Files, TlsDoor},
    },
    telemetry::throttle::Throttle,
};

/// Pause after a failed accept: doubled up to a second.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// A line about failed handshakes at most this often.
const LINES: Duration = Duration::from_secs(10);

/// A bound socket of a listener.
pub(super) struct Bound {
    door: Arc<Door>,
    socket: TcpListener,
    pub address: SocketAddr,
}

/// What the sockets of a listener share.
struct Door {
    listener: Arc<Listener>,
    tls: Option<Arc<TlsDoor>>,
    /// Web pages that may come in by WebSocket.
    allowed: Allowed,
}

/// Binds every address of a listener.
pub(super) fn bind(listener: &Arc<Listener>, certificates: &Certificates) -> Result<Vec<Bound>, BrokerError> {
    let tls = listener.tls.as_ref().map(|tls| tls_door(listener, tls, certificates)).transpose()?;
    let allowed = listener.websocket.as_ref().map_or_else(Allowed::default, |web| {
        let host = listener.written.rsplit_once(':').map_or(listener.written.as_str(), |(host, _)| host);
        Allowed::new(&web.allowed_origins, &web.allowed_hosts, host.trim_matches(['[', ']']))
    });
    let door = Arc::new(Door { listener: Arc::clone(listener), tls, allowed });
    let failed = |address, source| BrokerError::Bind { listener: listener.name.to_string(), address, source };
    let sockets = bind::tcp(&listener.addresses, V6::Only).map_err(|error| failed(error.address, error.source))?;
    let bound = sockets.into_iter().map(|socket| {
        let address = socket.local_addr()?;
        Ok(Bound { door: Arc::clone(&door), socket: TcpListener::from_std(socket)?, address })
    });
    let first = listener.addresses.first().copied().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)));
    bound.collect::<io::Result<_>>().map_err(|error| failed(first, error))
}

fn tls_door(listener: &Listener, tls: &ListenerTls, certificates: &Certificates) -> Result<Arc<TlsDoor>, BrokerError> {
    let clients = tls.clients.as_ref().map(|clients| Clients { ca: clients.ca.clone(), required: clients.required });
    let files = Files { cert: tls.cert.clone(), key: tls.key.clone(), clients, alpn: Vec::new() };
    certificates
        .door(&format!("MQTT listener {}", listener.name), files)
        .map_err(|error| BrokerError::Certificate { listener: listener.name.to_string(), error })
}

impl Bound {
    pub(super) fn name(&self) -> Arc<str> {
        Arc::clone(&self.door.listener.name)
    }

    /// Accepts until the stop.
    pub(super) async fn run(self, hub: Hub, connections: TaskTracker) {
        let (mut pause, mut pace) = (FIRST_PAUSE, Pace::default());
        loop {
            let accepted = tokio::select! {
                accepted = self.socket.accept() => accepted,
                () = hub.stop.cancelled() => return,
            };
            match accepted {
                Ok((stream, remote)) => {
                    pause = FIRST_PAUSE;
                    self.welcome(&hub, &connections, stream, remote);
                    pace.next().await;
                }
                // Who hung up before being accepted is no reason to wait with the next.
                Err(error) if is_peers(&error) => {}
                Err(error) => {
                    let listener = &self.door.listener.name;
                    tracing::warn!(code = "mqtt_accept_failed", %listener, "cannot accept a connection: {error}; trying again in {pause:?}; look whether this machine is short of memory or open files");
                    if hub.stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                        return;
                    }
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
        let place = step_up(&hub.doorstep, remote, hub);
        let deadline = Instant::now() + Duration::from_secs(u64::from(hub.limits.connect_timeout));
        let visit = Visit { hub: hub.clone(), door: Arc::clone(&self.door), remote, deadline, place };
        connections.spawn(visit.greet(stream));
    }
}

fn is_peers(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

fn step_up(doorstep: &Doorstep, remote: SocketAddr, hub: &Hub) -> Place {
    let (place, crowded) = doorstep.enter(remote.ip());
    match crowded {
        Some(Crowded::Address) => hub.metrics.refused("handshakes_per_address"),
        Some(Crowded::All) => hub.metrics.refused("handshakes"),
        None => {}
    }
    place
}

/// A connection that has not sent its CONNECT.
struct Visit {
    hub: Hub,
    door: Arc<Door>,
    remote: SocketAddr,
    deadline: Instant,
    place: Place,
}

impl Visit {
    /// The handshakes below MQTT, then the service. Each kind of stream has its future on the heap: none pays for the largest.
    async fn greet(self, stream: TcpStream) {
        // Small packets go out at once; a peer that vanished is noticed also without keep-alive. Neither can fail in a way that matters.
        let _ = stream.set_nodelay(true);
        let _ = socket2::SockRef::from(&stream).set_keepalive(true);
        let Ok(local) = stream.local_addr() else { return };
        let Some(tls) = self.door.tls.clone() else { return Box::pin(self.enter(stream, local, None)).await };
        let shaken = self.in_time(Box::pin(tls.acceptor().accept(stream)), "tls_time").await;
        match shaken {
            Some(Ok(stream)) => {
                let names = self.names(stream.get_ref().1);
                Box::pin(self.enter(stream, local, names)).await;
            }
            Some(Err(error)) => {
                static LINE: Throttle = Throttle::every(LINES);
                self.hub.metrics.refused("tls");
                if let Some(suppressed) = LINE.pass() {
                    let listener = &self.door.listener.name;
                    tracing::info!(%listener, remote = %self.remote, suppressed, "TLS handshake failed: {error}");
                }
            }
            None => {}
        }
    }

    /// A stream of bytes is there; by WebSocket if the listener wants it.
    async fn enter<S: AsyncRead + AsyncWrite + Unpin>(
        self,
        stream: S,
        local: SocketAddr,
        names: Option<Arc<[String]>>,
    ) {
        let Some(web) = &self.door.listener.websocket else { return self.serve(stream, names).await };
        let here = Here { local, tls: self.door.tls.is_some() };
        let rules = Rules { path: web.path.clone(), allowed: self.door.allowed.clone(), here };
        let upgraded = self
            .in_time(Box::pin(websocket::accept(stream, &rules, self.hub.limits.packet_size)), "upgrade_time")
            .await;
        match upgraded {
            Some(Ok(stream)) => Box::pin(self.serve(stream, names)).await,
            Some(Err(NoUpgrade::Refused(refusal))) => {
                static LINE: Throttle = Throttle::every(LINES);
                self.hub.metrics.refused("upgrade");
                if let Some(suppressed) = LINE.pass() {
                    let (listener, status) = (&self.door.listener.name, refusal.status);
                    tracing::info!(%listener, remote = %self.remote, status, suppressed, "WebSocket refused: {}", refusal.text);
                }
            }
            Some(Err(NoUpgrade::Gone)) | None => {}
        }
    }

    async fn serve<S: AsyncRead + AsyncWrite + Unpin>(self, stream: S, names: Option<Arc<[String]>>) {
        let Self { hub, door, remote, deadline, place } = self;
        let guest =
            Guest { listener: Arc::clone(&door.listener), remote, names, deadline, evicted: place.evicted.clone() };
        connection::serve(hub, stream, Entrance::Listener(guest), Some(place)).await;
    }

    /// A handshake, while there is time, nobody needs the place and the broker runs.
    async fn in_time<T>(&self, handshake: impl Future<Output = T>, late: &'static str) -> Option<T> {
        tokio::select! {
            done = tokio::time::timeout_at(self.deadline, handshake) => {
                if done.is_err() {
                    self.hub.metrics.refused(late);
                }
                done.ok()
            }
            () = self.place.evicted.cancelled() => None,
            () = self.hub.stop.cancelled() => None,
        }
    }

    /// The names in the client's certificate, where such names are users.
    fn names(&self, connection: &rustls::ServerConnection) -> Option<Arc<[String]>> {
        let clients = self.door.listener.tls.as_ref()?.clients.as_ref()?;
        let shown = connection.peer_certificates()?.first()?;
        (clients.name != CertificateName::Nobody).then(|| identity::names(shown, clients.name))
    }
}
