//! What the resources need, gathered once by the assembly and shared by every request.

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use bytes::Bytes;
use prometheus_client::registry::Registry;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    answer::{Answer, Request},
    bearer::Bearers,
    counters::Counters,
    doors::Doors,
    rate::Rate,
    tasks::{LONGEST_WAIT, TasksState},
};
use crate::{
    bus::{BoxFuture, Bus, desk::Desk},
    config::{
        ConfigErrors,
        reload::Reloaded,
        settings::{Generation, RestSettings},
        tokens::TokenFile,
    },
    console::Console,
    keep::{journal::Journal, keys::Keys, values::Values},
    names::{TopicFilter, TopicName},
    telemetry::readiness::Readiness,
};

/// The handler of `/v4/reloadtask/{id}/start`. It runs in a task of its own: a caller who hangs up does not cut it in half.
pub type StartHandler = Arc<dyn Fn(Request) -> BoxFuture<'static, Answer> + Send + Sync>;

/// The ids of the users active right now, in the order they came.
pub type ActiveUsers = Arc<dyn Fn() -> Vec<String> + Send + Sync>;

/// Reads the configuration again and takes what can be taken; it is given who asked, for the log.
pub type ReloadHandler = Arc<dyn Fn(String) -> BoxFuture<'static, Result<Reloaded, ConfigErrors>> + Send + Sync>;

/// Everything the REST room is given.
#[derive(Clone)]
pub struct Setup {
    /// Whose status codes and error bodies are spoken under `/v4`.
    pub generation: Generation,
    /// `restServerConfig`, `restServerEndpointsEnable`
    pub rest: RestSettings,
    /// `mqttConfig.restQosRetain`
    pub rest_qos_retain: bool,
    /// A publish to one of these is a start, and is written to the log with the caller's address.
    pub start_topics: Vec<TopicName>,
    /// Topics only the program itself publishes on; a REST publish to one is answered 403.
    pub protected_topics: Vec<TopicFilter>,
    /// Which broker and why, one line for `/api/v1/status`.
    pub broker: String,
    /// Where messages go.
    pub bus: Bus,
    /// Where the built-in broker is looked at and steered; `None` with a broker elsewhere.
    pub desk: Option<Desk>,
    /// Who starts tasks.
    pub start_task: StartHandler,
    /// Tasks and executions.
    pub tasks: TasksState,
    /// Who is active.
    pub active_users: ActiveUsers,
    /// The key-value store.
    pub values: Values,
    /// Idempotency keys.
    pub keys: Keys,
    /// What happened in Qlik Sense; `None`: switched off.
    pub journal: Option<Journal>,
    /// Tokens that let callers in; `None`: there are none.
    pub tokens: Option<TokenFile>,
    /// What `/readyz` says.
    pub readiness: Readiness,
    /// What `/metrics` says.
    pub registry: Arc<Registry>,
    /// What this room counts.
    pub counters: Counters,
    /// The web console; `None`: switched off.
    pub console: Option<Arc<Console>>,
    /// Who reads the configuration again.
    pub reload: ReloadHandler,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// A body, from its first byte to its last.
    pub(super) body: Duration,
    /// A handler; longer than a publish waits for the broker.
    pub(super) handler: Duration,
    /// A start: several tasks, each asked of QRS.
    pub(super) start: Duration,
    /// A caller who waits for an end; longer than the longest wait there is.
    pub(super) wait: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body: Duration::from_secs(30),
            handler: Duration::from_secs(15),
            start: Duration::from_secs(60),
            wait: LONGEST_WAIT + Duration::from_secs(60),
        }
    }
}

/// The shared state of the REST room.
pub struct State {
    /// What was given.
    pub setup: Setup,
    /// Who may come in.
    pub doors: Doors,
    /// When it was made.
    pub started: Instant,
    /// How long things may take.
    pub(super) limits: Limits,
    /// Who shows a token.
    pub(super) bearers: Bearers,
    /// How fast callers may publish.
    pub(super) rate: Rate,
    /// Work that outlives its request.
    pub(super) background: TaskTracker,
    /// The OpenAPI document, once somebody asked for it; `None` inside: it cannot be written.
    pub(super) description: OnceLock<Option<Bytes>>,
    /// The server stops: who waits for an end is told what is known.
    pub(super) stopping: CancellationToken,
}

impl State {
    /// Makes the state.
    pub fn new(setup: Setup) -> Self {
        let bearers = Bearers::new(setup.tokens.clone(), setup.counters.clone());
        let (doors, rate) = (Doors::new(&setup.rest), Rate::new(setup.rest.publish_per_second));
        Self {
            setup,
            doors,
            bearers,
            rate,
            started: Instant::now(),
            limits: Limits::default(),
            background: TaskTracker::new(),
            description: OnceLock::new(),
            stopping: CancellationToken::new(),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::{
        config::{
            LoadOptions, built_in,
            settings::{Settings, StartTaskFilter},
        },
        keep::{Keep, values::ValueSettings},
        sense::{
            qrs::Qrs,
            tasks::{Patience, Starter},
        },
    };

    /// What holds without a file.
    fn defaults() -> Settings {
        built_in(&LoadOptions::default()).unwrap().settings
    }

    /// Settings of a REST server on 127.0.0.1, port 0, with every endpoint on.
    pub(crate) fn rest_settings() -> RestSettings {
        RestSettings { host: "127.0.0.1".into(), port: 0, ..defaults().rest }
    }

    /// A state around a bus; starts are answered 200, nobody is active.
    pub(crate) fn state(rest: RestSettings, bus: Bus) -> State {
        let mut registry = Registry::default();
        let counters = Counters::register(&mut registry);
        let keep = Keep::open(None, &mut registry).unwrap();
        let values = Values::open(&keep, ValueSettings::default(), &mut registry).unwrap();
        let keys = Keys::open(&keep, &mut registry).unwrap();
        let (filter, patience) = (StartTaskFilter::default(), Patience::default());
        let starter = Starter::open(Qrs::new(&defaults().qrs), filter, keep.shelf("starts"), patience).unwrap();
        State::new(Setup {
            generation: Generation::Head,
            rest,
            rest_qos_retain: false,
            start_topics: vec![TopicName::new("qliksense/start_task").unwrap()],
            protected_topics: Vec::new(),
            broker: "embedded".into(),
            bus,
            desk: None,
            start_task: Arc::new(|_| Box::pin(async { Answer::json(200, "{}") })),
            tasks: TasksState { starter },
            active_users: Arc::new(Vec::new),
            values,
            keys,
            journal: None,
            tokens: None,
            readiness: Readiness::new(),
            registry: Arc::new(registry),
            counters,
            console: None,
            reload: Arc::new(|_| Box::pin(async { Ok(Reloaded::default()) })),
        })
    }
}
