//! The embedded MQTT broker: MQTT 3.1.1 and 5.0 on every listener. Knows nothing of Qlik Sense.
//!
//! How a message goes through: a connection ([`connection`]) reads, checks and parks it; admission ([`admission`]) lets it onto the bus; the
//! engine ([`engine`]) carries it in one order to the dispatcher ([`dispatcher`]), which applies it to the stream ([`stream`]), fills the
//! outboxes of the sessions ([`session`]), has the store commit what is promised ([`store`]), and acknowledges.
//!
//! Promise: an acknowledgement means that the message is in the outbox of every live matching session and, for every persistent session with
//! QoS 1 or 2 and for retention, committed to disk.

pub mod access;
mod admission;
mod auth;
mod cargo;
pub mod codec;
mod connection;
mod departures;
mod dispatcher;
mod doorstep;
mod engine;
mod envelope;
mod hub;
mod identity;
mod internal;
mod kept;
mod listener;
mod logins;
pub mod message;
mod metrics;
mod peer;
mod promise;
pub mod seen;
mod session;
pub mod settings;
mod store;
mod stream;
mod wake;
pub mod websocket;

use std::{collections::VecDeque, io, net::SocketAddr, sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use tokio::{
    io::DuplexStream,
    sync::{Notify, Semaphore, mpsc, oneshot::error::RecvError},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    access::Policies,
    admission::Window,
    auth::Authenticator,
    cargo::Cargo,
    connection::Entrance,
    dispatcher::{Dispatcher, Dispatching},
    doorstep::Doorstep,
    engine::{Engine, Outgoing},
    envelope::{Draft, now_ms},
    hub::Hub,
    listener::Bound,
    message::{Delivery, Door, KeptDelivery},
    metrics::Metrics,
    seen::Desk,
    settings::{QueuePolicy, Settings},
    store::Store,
    stream::{Effects, State},
};
pub use self::{
    auth::NoRandom,
    cargo::Taken,
    dispatcher::DispatcherError,
    internal::{InternalError, Pending, Publisher},
    logins::{LoginError, Logins, Member},
    store::{StoreError, StoreHealth, walk_store_record},
};
use crate::{
    names::TopicFilter,
    net::{certificates::Certificates, pem::FileError},
};

/// How often time enters the stream.
const TICK: Duration = Duration::from_millis(500);
/// What connections may take to say goodbye at the stop.
const FAREWELL: Duration = Duration::from_secs(2);
/// Clients that are let in at a time.
const ENTERING: usize = 8;
/// Clients that may wait to be let in; others are refused (MQTT 5: "Server busy").
const WAITING: usize = 2_000;
/// Buffer of an in-memory connection, bytes each way.
const MEMORY_PIPE: usize = 16 << 10;

/// Why the broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// An address is taken or does not exist.
    #[error("listener `{listener}` cannot listen on {address}: {source}")]
    Bind {
        /// Its name in `broker.toml`.
        listener: String,
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// A certificate or key cannot be used.
    #[error("listener `{listener}`: {error}")]
    Certificate {
        /// Its name in `broker.toml`.
        listener: String,
        /// The file, and what is wrong with it.
        error: FileError,
    },
    /// The engine's thread does not start.
    #[error("{0}")]
    Engine(String),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No log-in without random numbers.
    #[error(transparent)]
    Random(#[from] NoRandom),
}

/// The broker, bound to its addresses and not yet serving.
pub struct Broker {
    hub: Hub,
    bound: Vec<Bound>,
    dispatcher: Dispatcher,
    /// Certificates nobody else looks after.
    certificates: Option<Certificates>,
}

/// What the rest of the program holds of a running broker. Cheap to clone.
#[derive(Clone)]
pub struct BrokerHandle {
    hub: Hub,
}

impl Broker {
    /// Binds every listener and starts the engine. The certificates follow their files while the broker runs.
    ///
    /// # Errors
    /// If an address cannot be bound, a certificate cannot be used, or the engine does not start.
    pub fn bind(settings: &Settings, registry: &mut Registry) -> Result<Self, BrokerError> {
        let certificates = Certificates::new(registry);
        Ok(Self { certificates: Some(certificates.clone()), ..Self::bind_with(settings, registry, &certificates)? })
    }

    /// As [`Broker::bind`], with certificates that somebody else lets follow their files.
    ///
    /// # Errors
    /// As there.
    pub fn bind_with(
        settings: &Settings,
        registry: &mut Registry,
        certificates: &Certificates,
    ) -> Result<Self, BrokerError> {
        let mut bound = Vec::new();
        for listener in &settings.listeners {
            bound.extend(listener::bind(&Arc::new(listener.clone()), certificates)?);
        }
        let (engine, egress) =
            Engine::start(settings.engine_test_hook).map_err(|error| BrokerError::Engine(error.to_string()))?;
        let metrics = Metrics::new(registry);
        let limits = Arc::new(settings.limits.clone());
        let (store, recovered) = Store::open(&settings.storage, registry)?;
        let policies = Arc::new(Policies::new(settings));
        let hub = Hub {
            engine: Arc::clone(&engine),
            window: Window::new(admission::WINDOW),
            store_window: Window::new(admission::STORE_WINDOW),
            store: Arc::clone(&store),
            auth: Arc::new(Authenticator::new(&settings.limits)?),
            policies,
            metrics: Arc::clone(&metrics),
            attention: Arc::new(Notify::new()),
            places: Arc::new(Semaphore::new(limits.clients)),
            departures: Arc::default(),
            taps: Arc::default(),
            entering: Arc::new(Semaphore::new(ENTERING)),
            waiting: Arc::new(Semaphore::new(WAITING)),
            crowd: Arc::default(),
            doorstep: Doorstep::new(limits.handshakes, limits.handshakes_per_address),
            limits,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        let mut effects = Effects::starting_at(recovered.next_batch);
        let mut state = State::new(
            settings.limits.clone(),
            settings.start_topics.clone(),
            hub.store_window.clone(),
            Arc::clone(&hub.attention),
            metrics,
        )
        .guarded(Arc::clone(&hub.policies));
        state.rejects = settings.storage.policy == QueuePolicy::Reject;
        state.taps = Arc::clone(&hub.taps);
        state.recover(recovered, now_ms(), &mut effects);
        state.replace_retained(&settings.replaced_at_start, now_ms(), &mut effects);
        let dispatcher = Dispatcher {
            engine,
            egress,
            state,
            effects,
            store,
            window: hub.window.clone(),
            store_window: hub.store_window.clone(),
            attention: Arc::clone(&hub.attention),
            deaths: VecDeque::new(),
            patience: if settings.engine_test_hook { usize::MAX } else { dispatcher::PATIENCE },
        };
        Ok(Self { hub, bound, dispatcher, certificates: None })
    }

    /// Where it listens, with the listener's name.
    pub fn addresses(&self) -> Vec<(Arc<str>, SocketAddr)> {
        self.bound.iter().map(|bound| (bound.name(), bound.address)).collect()
    }

    /// A handle, usable at once; messages move when the broker runs.
    pub fn handle(&self) -> BrokerHandle {
        BrokerHandle { hub: self.hub.clone() }
    }

    /// Serves until `stop`, then says goodbye: no more reading, the bus is emptied, clients are disconnected, within two seconds.
    ///
    /// # Errors
    /// If the engine cannot be kept alive.
    pub async fn run(self, stop: CancellationToken) -> Result<(), DispatcherError> {
        let Self { hub, bound, dispatcher, certificates } = self;
        let drained = CancellationToken::new();
        // Whoever drops this future ends the dispatcher's thread, too.
        let _ends = drained.clone().drop_guard();
        let mut stream = dispatcher.start(drained.clone())?;
        let accepting = TaskTracker::new();
        for door in bound {
            accepting.spawn(door.run(hub.clone(), hub.tasks.clone()));
        }
        accepting.spawn(tick(hub.clone()));
        if let Some(certificates) = certificates {
            accepting.spawn(certificates.watch(hub.stop.clone()));
        }
        let ended = tokio::select! {
            ended = &mut stream => Some(ended),
            () = stop.cancelled() => None,
        };
        hub.stop.cancel();
        accepting.close();
        hub.tasks.close();
        // Connections report their ends to the stream while they go, so it is stopped after them.
        let _ = tokio::time::timeout(FAREWELL, async { tokio::join!(accepting.wait(), hub.tasks.wait()) }).await;
        hub.engine.stop();
        drained.cancel();
        let ended = match ended {
            Some(ended) => finish(ended),
            None => finish(emptied(&mut stream, &hub).await),
        };
        let store = Arc::clone(&hub.store);
        // The last group is committed before the program ends; waiting for a disk is no work for the runtime's threads.
        let _ = tokio::task::spawn_blocking(move || store.stop()).await;
        ended
    }
}

/// Waits for the last envelopes. An engine that falls silent now is replaced like at any other time.
async fn emptied(stream: &mut Dispatching, hub: &Hub) -> Result<Result<State, DispatcherError>, RecvError> {
    loop {
        match tokio::time::timeout(TICK, &mut *stream).await {
            Ok(ended) => return ended,
            Err(_) if hub.engine.is_deaf() => hub.attention.notify_one(),
            Err(_) => {}
        }
    }
}

fn finish(ended: Result<Result<State, DispatcherError>, RecvError>) -> Result<(), DispatcherError> {
    match ended {
        Ok(result) => result.map(drop),
        Err(_) => Err(DispatcherError::Engine("the dispatcher panicked; the log says where".to_owned())),
    }
}

/// Lets time into the stream, and looks after the engine.
async fn tick(hub: Hub) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = interval.tick() => {}
            () = hub.stop.cancelled() => return,
        }
        if hub
            .engine
            .submit(None, [Outgoing { draft: Draft::control(), cost: 0, stored: 0, cargo: Cargo::Tick }])
            .is_err()
        {
            return;
        }
        if hub.engine.is_deaf() {
            hub.attention.notify_one();
        }
    }
}

impl BrokerHandle {
    /// A publisher with a lane of its own; there may be three.
    pub fn publisher(&self, door: Door) -> Publisher {
        Publisher::new(self.hub.clone(), door)
    }

    /// Subscribes a part of this program.
    ///
    /// # Errors
    /// If the broker is stopping.
    pub async fn subscribe(
        &self,
        name: &str,
        filters: Vec<TopicFilter>,
    ) -> Result<mpsc::Receiver<Delivery>, InternalError> {
        internal::subscribe(&self.hub, name, filters).await
    }

    /// Subscribes a part of this program for good: what is acknowledged to publishers is kept until it is settled, also over restarts. `name` is
    /// the session's in every life of the program; who subscribes again takes its place.
    ///
    /// # Errors
    /// If the broker is stopping.
    pub async fn subscribe_kept(
        &self,
        name: &str,
        filters: Vec<TopicFilter>,
    ) -> Result<mpsc::Receiver<KeptDelivery>, InternalError> {
        kept::subscribe(&self.hub, name, filters).await
    }

    /// A connection through the accept path in memory, with an internal identity: for the self-probe.
    pub fn connect_in_memory(&self) -> DuplexStream {
        let (near, far) = tokio::io::duplex(MEMORY_PIPE);
        self.hub.tasks.spawn(connection::serve(self.hub.clone(), far, Entrance::Probe, None));
        near
    }

    /// Where the broker is looked at and steered; ask once and clone it, its turns are counted.
    pub fn desk(&self) -> Desk {
        Desk::new(self.hub.clone())
    }

    /// Where users log in at other doors than MQTT's.
    pub fn logins(&self) -> Logins {
        Logins::new(Arc::clone(&self.hub.auth), Arc::clone(&self.hub.policies))
    }

    /// Puts the users and access rules of newer settings in force, at once and as a whole; of their listeners, only anonymous doors that they
    /// close. What else differs needs a restart: see [`Settings::needs_restart`]. Connections whose users are gone, have another password or may
    /// do nothing any more are ended; so are subscriptions that are not allowed any more.
    pub fn reload(&self, settings: &Settings) {
        self.hub.policies.replace(settings);
        self.hub.attention.notify_one();
    }

    /// The users in force, in the order of their names.
    pub fn user_names(&self) -> Vec<Arc<str>> {
        self.hub.policies.present().user_names()
    }

    /// How the store is.
    pub fn store_health(&self) -> StoreHealth {
        self.hub.store.health()
    }

    /// Whether it takes messages.
    pub fn is_up(&self) -> bool {
        !self.hub.stop.is_cancelled()
    }

    /// Kills the engine's thread, where the settings allow it. For tests.
    pub fn kill_engine(&self) {
        self.hub.engine.kill();
    }
}
