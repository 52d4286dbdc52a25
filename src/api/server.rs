//! The listeners of the REST API: bound first, run later, stopped within two seconds.
//!
//! `localhost` is both 127.0.0.1 and ::1 (Windows resolves it to ::1 first, Butler's users write 127.0.0.1). Invariants: a connection never waits for
//! another one; when accepting fails (no file handles left) it is tried again with back-off, for ever; above [`MAX_CONNECTIONS`] the
//! connection that has had no request in hand for longest makes room; if all have, the caller is told so and closed, and counted.

use std::{
    io,
    net::{IpAddr, SocketAddr, TcpListener as StdListener},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    connection::{self, STOP_LIMIT, Site},
    counters::Counters,
    doors::Caller,
    idle::Idle,
    state::State,
};
use crate::{
    config::{address, settings::RestSettings},
    net::{
        bind::{self, BindError, V6},
        certificates::Certificates,
        pace::Pace,
        pem::FileError,
        tls::{Files, TlsDoor},
    },
    telemetry::throttle::Throttle,
};

/// Connections served at a time.
pub const MAX_CONNECTIONS: usize = 4_096;
/// How long a TLS handshake may take.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// How long a caller waits for a place, and how many may.
const WAIT: (Duration, usize) = (Duration::from_secs(1), 1_024);
/// After such a pause another connection is asked to make room for him.
const ASK_AGAIN: Duration = Duration::from_millis(50);
/// Shortest and longest pause after a failed accept.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));
/// How long work whose caller hung up may take after the last connection ended at a stop.
const ORPHANS_LIMIT: Duration = Duration::from_millis(300);
/// What a caller is told when there is no room.
const BUSY: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 1\r\ncontent-length: 0\r\n\r\n";

/// Why the REST server could not be bound.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// The address or port is not to be had.
    #[error("the REST server {0}")]
    Bind(#[from] BindError),
    /// `serverHost` is no address and no known name.
    #[error(
        "restServerConfig.serverHost is `{host}`, which is neither an address nor a name this machine knows: {why}; write localhost or an address of this machine"
    )]
    Host {
        /// As written.
        host: String,
        /// What the system said.
        why: String,
    },
    /// Certificate or key cannot be used.
    #[error("restServerConfig.tls: {0}")]
    Certificate(#[from] FileError),
    /// A bound listener could not be handed to the runtime.
    #[error("the REST server's listener cannot be used: {0}")]
    Listener(io::Error),
}

impl ApiError {
    /// Whether the configuration is at fault (exit code 64) and not the machine (exit code 1).
    pub const fn is_configuration(&self) -> bool {
        matches!(self, Self::Host { .. } | Self::Certificate(_))
    }
}

/// A bound REST server.
pub struct Server {
    listeners: Vec<StdListener>,
    tls: Option<Arc<TlsDoor>>,
    room: usize,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("addresses", &self.addresses()).field("tls", &self.tls.is_some()).finish()
    }
}

impl Server {
    /// Opens the listeners and reads the certificate, which follows its files while somebody lets `certificates` look at them. Touches no
    /// network beyond that.
    ///
    /// # Errors
    /// If an address, the host name or the certificate cannot be used.
    pub fn bind(settings: &RestSettings, certificates: &Certificates) -> Result<Self, ApiError> {
        let files = settings.tls.as_ref().map(|tls| Files {
            cert: tls.cert.clone(),
            key: tls.key.clone(),
            clients: None,
            alpn: vec![b"http/1.1".to_vec()],
        });
        let tls = files.map(|files| certificates.door("REST", files)).transpose()?;
        Ok(Self { tls, ..Self::bind_to(&settings.host, settings.port)? })
    }

    /// Opens the listeners of a host, without TLS.
    pub(super) fn bind_to(host: &str, port: u16) -> Result<Self, ApiError> {
        let ips = match address::addresses_of(host) {
            Some(known) => known,
            None => vec![resolve(host)?],
        };
        let addresses: Vec<_> = ips.into_iter().map(|ip| SocketAddr::new(ip, port)).collect();
        Ok(Self { listeners: bind::tcp(&addresses, V6::Dual)?, tls: None, room: MAX_CONNECTIONS })
    }

    /// With room for another number of connections. For tests.
    #[must_use]
    pub fn with_room(self, room: usize) -> Self {
        Self { room, ..self }
    }

    /// Where it listens; the true port where 0 was asked for.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.listeners.iter().filter_map(|listener| listener.local_addr().ok()).collect()
    }

    /// Serves until `stop`; then finishes what is in hand, at most two seconds.
    ///
    /// # Errors
    /// If a listener cannot be used.
    pub async fn run(self, state: State, stop: CancellationToken) -> Result<(), ApiError> {
        let state = Arc::new(State { stopping: stop.clone(), ..state });
        let outcome = self.run_site(Site::Api(state.clone()), stop).await;
        state.background.close();
        let _ = tokio::time::timeout(ORPHANS_LIMIT, state.background.wait()).await;
        outcome
    }

    pub(super) async fn run_site(self, site: Site, stop: CancellationToken) -> Result<(), ApiError> {
        let counters = match &site {
            Site::Api(state) => state.setup.counters.clone(),
            Site::DockerHealth(_) => Counters::default(),
        };
        let shared = Arc::new(Shared {
            site,
            counters,
            tls: self.tls,
            room: Arc::new(Semaphore::new(self.room)),
            idle: Arc::default(),
            queue: Arc::new(Semaphore::new(WAIT.1)),
            connections: TaskTracker::new(),
            stop: stop.clone(),
        });
        let mut doors = JoinSet::new();
        for listener in self.listeners {
            let listener = TcpListener::from_std(listener).map_err(ApiError::Listener)?;
            doors.spawn(accept(listener, shared.clone()));
        }
        while doors.join_next().await.is_some() {}
        shared.connections.close();
        let _ = tokio::time::timeout(STOP_LIMIT, shared.connections.wait()).await;
        Ok(())
    }
}

/// A caller's place: his already, or still to be made while he stands in the queue.
enum Place {
    Taken(OwnedSemaphorePermit),
    Awaited(OwnedSemaphorePermit),
}

/// What every connection of a server shares.
struct Shared {
    site: Site,
    counters: Counters,
    tls: Option<Arc<TlsDoor>>,
    room: Arc<Semaphore>,
    idle: Arc<Idle>,
    queue: Arc<Semaphore>,
    connections: TaskTracker,
    stop: CancellationToken,
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let (mut pause, mut pace) = (BACK_OFF.0, Pace::default());
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shared.stop.cancelled() => return,
        };
        match accepted {
            Ok((stream, peer)) => {
                pause = BACK_OFF.0;
                admit(&shared, stream, peer);
                pace.next().await;
            }
            Err(error) => {
                accept_failed(&shared.counters, &error);
                tokio::select! {
                    () = tokio::time::sleep(pause) => pause = (pause * 2).min(BACK_OFF.1),
                    () = shared.stop.cancelled() => return,
                }
            }
        }
    }
}

fn accept_failed(counters: &Counters, error: &io::Error) {
    static LINE: Throttle = Throttle::every(Duration::from_secs(10));
    counters.refused("accept_failed");
    if let Some(suppressed) = LINE.pass() {
        tracing::warn!(
            code = "rest_accept_failed",
            %error,
            suppressed,
            "the REST server could not accept a connection and tries again; look whether this machine is short of memory or open files"
        );
    }
}

fn admit(shared: &Arc<Shared>, stream: TcpStream, peer: SocketAddr) {
    let place = match shared.room.clone().try_acquire_owned() {
        Ok(place) => Place::Taken(place),
        Err(_) => match shared.queue.clone().try_acquire_owned() {
            Ok(waits) => Place::Awaited(waits),
            Err(_) => return refuse(&shared.counters, &stream),
        },
    };
    // Small answers must not wait for more to send with them. A socket that is gone already shows itself at the first read.
    let _ = stream.set_nodelay(true);
    let Ok(local) = stream.local_addr() else { return };
    let caller = Caller { peer, local, tls: shared.tls.is_some() };
    let owned = shared.clone();
    shared.connections.spawn(async move { owned.serve(stream, caller, place).await });
}

fn refuse(counters: &Counters, stream: &TcpStream) {
    static LINE: Throttle = Throttle::every(Duration::from_secs(10));
    counters.refused("too_many");
    if let Some(suppressed) = LINE.pass() {
        tracing::warn!(
            code = "rest_full",
            suppressed,
            "REST connection refused: too many are open, and all have a request in hand; look who calls so often, and let callers keep their connections"
        );
    }
    // Best effort: there is no room to wait for this caller.
    let _ = stream.try_write(BUSY);
}

impl Shared {
    /// A place that somebody made; `None`: all have requests in hand.
    async fn vacated(&self) -> Option<OwnedSemaphorePermit> {
        let until = Instant::now() + WAIT.0;
        while Instant::now() < until {
            self.idle.send_away();
            if let Ok(place) = tokio::time::timeout(ASK_AGAIN, self.room.clone().acquire_owned()).await {
                return place.ok();
            }
        }
        None
    }

    async fn serve(self: Arc<Self>, stream: TcpStream, caller: Caller, place: Place) {
        let permit = match place {
            Place::Taken(permit) => Some(permit),
            Place::Awaited(_waits) => self.vacated().await,
        };
        let Some(permit) = permit else { return refuse(&self.counters, &stream) };
        self.counters.connections.inc();
        // Also counts down when the connection's task panics.
        let _open = Open { counters: &self.counters, _permit: permit };
        let (site, stop, seat) = (self.site.clone(), self.stop.clone(), self.idle.seat());
        let Some(door) = &self.tls else { return connection::serve(stream, site, caller, seat, stop).await };
        let handshake = tokio::time::timeout(HANDSHAKE_LIMIT, door.acceptor().accept(stream));
        let shaken = tokio::select! {
            shaken = handshake => shaken,
            () = seat.told_to_leave() => return self.counters.refused("displaced"),
        };
        match shaken {
            Ok(Ok(stream)) => connection::serve(stream, site, caller, seat, stop).await,
            Ok(Err(error)) => {
                self.counters.refused("tls");
                tracing::debug!(peer = %caller.peer, %error, "TLS handshake failed");
            }
            Err(_) => self.counters.refused("tls_timeout"),
        }
    }
}

/// An open connection, for the gauge and the limit.
struct Open<'a> {
    counters: &'a Counters,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Open<'_> {
    fn drop(&mut self) {
        self.counters.connections.dec();
    }
}

/// One address: of several a name has, the first.
fn resolve(host: &str) -> Result<IpAddr, ApiError> {
    let unknown = |why: String| ApiError::Host { host: host.to_owned(), why };
    let found = address::look_up(host).map_err(|error| unknown(error.to_string()))?;
    found.first().copied().ok_or_else(|| unknown("no address".into()))
}
