//! Assembly: [`App::build`] binds every socket, [`App::run`] supervises every task and stops them in order.
//!
//! Invariants: nothing is sent or accepted before everything is bound, so a program that cannot do its work does none of it; no peer is
//! needed to start; stopping goes doors, work, broker, and `offline` is said before the broker goes.

mod audit;
mod carrier;
mod configuration;
mod console;
mod directory;
mod disk;
mod error;
mod health;
pub mod holder;
mod keep;
mod last_good;
#[cfg(test)]
mod metrics_table;
mod probe;
mod reload;
mod rest;
mod signal;
mod sources;
pub mod supervise;

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use tokio::sync::watch;

use self::{
    carrier::{Buses, Carrier},
    configuration::{Configuration, Live},
    keep::Kept,
    rest::Rest,
    supervise::{FatalEnds, Stage, Supervisor},
};
pub use self::{
    error::BuildError,
    signal::signal,
    supervise::{Fatal, STOP_DEADLINE},
};
use crate::{
    api,
    bridge::{
        actions::{ActionSettings, Actions},
        active_users::ActiveUsers,
        executions::Executions,
        forward::Forwarder,
        status::{Status, StatusHandle, StatusSettings},
    },
    broker::BrokerHandle,
    bus::Bus,
    config::{Loaded, settings::Settings, tokens::TokenFile},
    console::Console,
    names::{NameError, TopicFilter},
    net::certificates::Certificates,
    sense::{
        directory::{Cache, TaskDirectory},
        qrs::Qrs,
        receiver::{Listening, Receiver},
        tasks::{Patience, Starter},
    },
    telemetry::{
        logfile::Closer,
        metrics::{self, Registry},
        readiness::{Latch, Readiness},
    },
};

/// Between two looks at a peer's health.
const LOOK: Duration = Duration::from_secs(2);
/// How long a stop waits for starts that QRS was asked for.
const STARTS_END: Duration = Duration::from_millis(900);
/// Events between the receiver and the forwarder; more wait in the receiver's queue, which is bounded in bytes.
const EVENTS: usize = 4_096;

/// Where everything listens.
#[derive(Debug, Clone, Default)]
pub struct Addresses {
    /// MQTT, with the listener's name; empty with an external broker.
    pub mqtt: Vec<(Arc<str>, SocketAddr)>,
    /// REST.
    pub rest: Vec<SocketAddr>,
    /// UDP.
    pub udp: Vec<Listening>,
    /// Docker health check.
    pub health: Vec<SocketAddr>,
    /// Notifications of QRS.
    pub notifications: Vec<SocketAddr>,
}

/// The program, bound and not yet running.
pub struct App {
    settings: Settings,
    protected: Vec<TopicFilter>,
    tokens: TokenFile,
    carrier: Carrier,
    buses: Buses,
    receiver: Option<Receiver>,
    asked: Option<sources::Asked>,
    api: Option<api::Server>,
    docker_health: Option<api::DockerHealth>,
    qrs: Qrs,
    starter: Starter,
    actions: Actions,
    forwarder: Forwarder,
    executions: Option<Executions>,
    audit: Option<Closer>,
    status: Status,
    users: ActiveUsers,
    kept: Kept,
    counters: api::counters::Counters,
    console: Option<Arc<Console>>,
    readiness: Readiness,
    certificates: Certificates,
    registry: Registry,
    supervisor: Supervisor,
    fatal: FatalEnds,
    reloads: Option<reload::Reloads>,
    configuration: Configuration,
    hangups: signal::Hangups,
}

impl App {
    /// Binds everything. Must be called inside a Tokio runtime.
    ///
    /// # Errors
    /// What could not be bound, and who holds it where the system tells.
    pub fn build(loaded: &Loaded) -> Result<Self, BuildError> {
        let settings = loaded.settings.clone();
        let mut registry = metrics::registry();
        let (supervisor, fatal) = Supervisor::new();
        supervisor.register(&mut registry);
        let readiness = Readiness::new();
        readiness.register(&mut registry);
        disk::register(loaded, &mut registry);
        let certificates = Certificates::new(&mut registry);
        let carrier = Carrier::build(loaded, health::offline(&settings.mqtt)?, &mut registry, &certificates)?;
        let configuration = Configuration::new(loaded, &mut registry);
        let reloads = carrier.broker().and_then(|_| reload::Reloads::new(loaded, &mut registry));
        let receiver = settings
            .udp
            .enable
            .then(|| Receiver::bind(&settings.udp, settings.generation, &mut registry))
            .transpose()?;
        let api = settings.rest.enable.then(|| api::Server::bind(&settings.rest, &certificates)).transpose()?;
        let docker_health =
            settings.docker_health.enable.then(|| api::DockerHealth::bind(settings.docker_health)).transpose()?;
        let kept = Kept::open(loaded, &mut registry)?;
        let qrs = Qrs::new(&settings.qrs);
        qrs.metrics().register(&mut registry);
        qrs.tell_certificates(&certificates);
        let starter = Starter::open(
            qrs.clone(),
            configuration::rules(&settings, &kept.stores.values),
            kept.keep.shelf("starts"),
            Patience::default(),
        )?;
        starter.metrics().register(&mut registry);
        let audit = audit::open(loaded, starter.audit(), &mut registry)?;
        let buses = carrier.buses();
        let actions = actions(loaded, &buses.bridge, &starter, &mut registry)?;
        let users = ActiveUsers::new();
        let cache = Arc::new(Cache::default());
        let asked = sources::Asked::build(&settings, &qrs, &kept.keep, &cache, &mut registry)?;
        let directory = directory::QrsDirectory::new(qrs.clone(), cache, settings.mqtt.enrichment_wait);
        let directory: Arc<dyn TaskDirectory> = Arc::new(directory);
        let directory = qrs.is_configured().then_some(directory);
        let forwarder = Forwarder::new(
            &settings.mqtt,
            settings.generation,
            buses.bridge.clone(),
            directory,
            users.clone(),
            &mut registry,
        )?
        .hinting(starter.follower().clone())
        .noting(kept.chronicler());
        let executions = executions(&settings, &buses.bridge, &starter, &mut registry)?;
        let counters = api::counters::Counters::register(&mut registry);
        let console = console::build(loaded, &carrier, &buses.bridge, receiver.as_ref(), &mut registry)?;
        let report = health::Report::new(loaded, &readiness, &qrs, &certificates);
        let (broker, client) = carrier::identity(&settings.mqtt, &carrier.addresses());
        let listening = health::listening(&carrier.addresses(), api.as_ref(), receiver.as_ref());
        let status_settings = StatusSettings::new(
            &settings.mqtt,
            &broker,
            &client,
            report.info(&listening),
            Arc::new(move || report.health()),
        )?;
        let status = Status::new(status_settings, buses.bridge.clone());
        Ok(Self {
            settings,
            protected: loaded.broker.protected_topics.clone(),
            tokens: TokenFile::of(&loaded.data_dir),
            carrier,
            buses,
            receiver,
            asked,
            api,
            docker_health,
            qrs,
            starter,
            actions,
            forwarder,
            executions,
            audit,
            status,
            users,
            kept,
            counters,
            console,
            readiness,
            certificates,
            registry,
            supervisor,
            fatal,
            reloads,
            configuration,
            hangups: signal::Hangups::new(),
        })
    }

    /// Where everything listens; the true ports where 0 was asked for.
    pub fn addresses(&self) -> Addresses {
        Addresses {
            mqtt: self.carrier.addresses(),
            rest: self.api.as_ref().map(api::Server::addresses).unwrap_or_default(),
            udp: self.receiver.as_ref().map(Receiver::listening).unwrap_or_default(),
            health: self.docker_health.as_ref().map(api::DockerHealth::addresses).unwrap_or_default(),
            notifications: self.asked.as_ref().map(|asked| asked.sources.addresses()).unwrap_or_default(),
        }
    }

    /// A bus of the program's own, e.g. to watch what passes.
    pub fn bus(&self) -> Bus {
        self.buses.bridge.clone()
    }

    /// The built-in broker, if that is what carries the messages. For tests.
    pub fn broker(&self) -> Option<BrokerHandle> {
        self.carrier.broker()
    }

    /// Whether every part does its work.
    pub fn readiness(&self) -> Readiness {
        self.readiness.clone()
    }

    /// Runs until `asked` resolves (with the reason, for the log), then stops in order, within [`STOP_DEADLINE`].
    ///
    /// # Errors
    /// If a part that the program cannot do without ended by itself.
    pub async fn run(self, asked: impl Future<Output = &'static str>) -> Result<(), Fatal> {
        let Self { settings, carrier, supervisor, readiness, fatal, status, .. } = self;
        let (connections, desk) = (carrier.connections(), carrier.desk());
        let broker_file = reload::watch(&supervisor, carrier.broker(), self.reloads, &readiness);
        let live = Live {
            starter: self.starter.clone(),
            topics: self.actions.topics(),
            stores: self.kept.stores.clone(),
            events: self.forwarder.switches(),
            relay: self.receiver.as_ref().map(Receiver::relay),
        };
        let reloader = self.configuration.running(live, broker_file, &readiness);
        reloader.start(&supervisor, self.hangups).await;
        carrier.start(&supervisor, &readiness);
        let stores = self.kept.stores.clone();
        self.kept.start(&supervisor, &readiness, self.starter.follower());
        let certificates = self.certificates;
        supervisor.restarting(Stage::Doors, "certificates", move |stop| certificates.clone().watch(stop));
        // Also with `mqttConfig.enable: false`: then nothing is forwarded, but REST still tells who is active.
        sources::start(&supervisor, self.receiver, self.asked, self.forwarder, status.handle(), &readiness);
        if settings.mqtt.enable {
            start_actions(&supervisor, self.actions, &readiness);
        } else {
            let actions = self.actions;
            supervisor.essential(Stage::Work, "actions at rest", move |stop| actions.rest(stop));
        }
        if let Some(executions) = self.executions {
            supervisor.essential(Stage::Work, "execution topics", move |stop| executions.run(stop));
        }
        start_starter(&supervisor, self.starter.clone());
        start_qrs(&supervisor, self.qrs, &readiness);
        if let Some(server) = self.api {
            let rest = Rest {
                settings: settings.clone(),
                protected_topics: self.protected,
                bus: self.buses.rest,
                desk,
                starter: self.starter,
                users: self.users,
                stores,
                tokens: self.tokens,
                readiness: readiness.clone(),
                registry: self.registry,
                counters: self.counters,
                console: self.console,
                reloader,
            };
            let setup = rest.setup();
            let latch = readiness.latch("rest");
            supervisor.essential(Stage::Doors, "rest", move |stop| up(latch, server.run(api::State::new(setup), stop)));
        }
        if let Some(server) = self.docker_health {
            let generation = settings.generation;
            supervisor.essential(Stage::Doors, "docker health", move |stop| server.run(generation, stop));
        }
        // Last: by now every latch is there, so "ready" is the word of all of them.
        start_status(&supervisor, connections, status, &readiness);
        let outcome = supervisor.run(fatal, asked).await;
        // What was told last is in the file; the disk has its own pace.
        let _ = tokio::task::spawn_blocking(move || drop(self.audit)).await;
        outcome
    }
}

/// A task whose latch is up while it runs.
async fn up<T>(latch: Latch, task: impl Future<Output = T>) -> T {
    latch.up();
    let result = task.await;
    drop(latch);
    result
}

/// The topics of executions, where they are wanted.
fn executions(
    settings: &Settings,
    bus: &Bus,
    starter: &Starter,
    registry: &mut Registry,
) -> Result<Option<Executions>, NameError> {
    let wanted = settings.mqtt.enable && settings.start.execution_topics;
    let (own, follower) = (&settings.mqtt.own_topics, starter.follower().clone());
    wanted.then(|| Executions::new(own, bus.clone(), follower, registry)).transpose()
}

fn actions(loaded: &Loaded, bus: &Bus, starter: &Starter, registry: &mut Registry) -> Result<Actions, NameError> {
    let mqtt = &loaded.settings.mqtt;
    let settings = ActionSettings {
        start_topic: mqtt.task_start.clone(),
        start_topics: loaded.settings.start.topics.clone(),
        own_topics: mqtt.own_topics.clone(),
        protected: loaded.broker.protected_topics.clone(),
    };
    let actions = Actions::build(&settings, bus.clone(), starter.clone())?;
    actions.metrics().register(registry);
    Ok(actions)
}

/// `state` follows readiness; an external broker that came back is told everything again.
///
/// A `state` of an earlier run needs nothing here: the built-in broker replaces it before it opens its doors, and an external one has
/// published our will.
fn start_status(
    supervisor: &Supervisor,
    connections: Option<watch::Receiver<u64>>,
    status: Status,
    readiness: &Readiness,
) {
    let handle = status.handle();
    if let Some(connections) = connections {
        let again = handle.clone();
        supervisor.essential(Stage::Work, "status renewal", move |stop| {
            carrier::watch_connections(connections, move || again.reconnected(), stop)
        });
    }
    let readiness = readiness.clone();
    supervisor.restarting(Stage::Work, "readiness", move |stop| {
        let (readiness, handle) = (readiness.clone(), handle.clone());
        async move { stop.run_until_cancelled(tell_when_ready(readiness, handle)).await.unwrap_or(()) }
    });
    supervisor.essential(Stage::Farewell, "status", move |stop| status.run(stop));
}

async fn tell_when_ready(readiness: Readiness, handle: StatusHandle) {
    let mut changes = readiness.watch();
    while !readiness.is_ready() {
        changes.changed().await;
    }
    tracing::info!("ready");
    handle.ready();
    std::future::pending::<()>().await;
}

fn start_actions(supervisor: &Supervisor, actions: Actions, readiness: &Readiness) {
    let latch = readiness.latch("task starting");
    supervisor.essential(Stage::Work, "actions", move |stop| up(latch, actions.run(stop)));
}

/// Starts under way by any door are let end; executions are followed.
fn start_starter(supervisor: &Supervisor, starter: Starter) {
    let follower = starter.follower().clone();
    supervisor.restarting(Stage::Work, "executions", move |stop| follower.clone().run(stop));
    supervisor.essential(Stage::Work, "starter", move |stop| async move {
        stop.cancelled().await;
        if !starter.stop(STARTS_END).await {
            let told = "stopped before QRS answered every start; look in the QMC which of those tasks run";
            tracing::warn!(code = "starts_unanswered_at_stop", "{told}");
        }
    });
}

fn start_qrs(supervisor: &Supervisor, qrs: Qrs, readiness: &Readiness) {
    let latch = readiness.note("qrs");
    let watched = qrs.clone();
    supervisor.essential(Stage::Work, "qrs", move |stop| async move {
        let look = async {
            let mut every = tokio::time::interval(LOOK);
            loop {
                every.tick().await;
                health::note_qrs(&latch, &qrs);
            }
        };
        tokio::select! {
            () = watched.watch(stop.clone()) => stop.cancelled().await,
            () = look => {}
        }
    });
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::config::{self, LoadOptions};

    #[tokio::test]
    async fn every_metric_is_registered_once() {
        // Nothing is written beside the sources.
        let data_dir = std::env::temp_dir().join(format!("sense-butler-registered-{}", std::process::id()));
        let mut options = LoadOptions { data_dir: data_dir.clone(), ..LoadOptions::default() };
        let anywhere = || Some("127.0.0.1:0".parse().unwrap());
        options.overrides.mqtt = anywhere();
        options.overrides.rest = anywhere();
        options.overrides.udp = anywhere();
        options.overrides.udp_sessions = anywhere();
        let app = App::build(&config::built_in(&options).unwrap()).unwrap();
        let text = metrics::encode(&app.registry);
        drop(app);
        // The built-in broker makes its store there, where it has one.
        let _ = std::fs::remove_dir_all(&data_dir);
        let names: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        assert!(names.len() > 20, "only {} metrics", names.len());
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len(), "{text}");
    }
}
