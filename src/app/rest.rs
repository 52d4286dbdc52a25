//! What the REST room is given: the parts of the house, put together.

use std::sync::Arc;

use super::{configuration::Reloader, keep::Stores};
use crate::{
    api::{self, answer::Request, start_task, tasks::TasksState},
    bridge::active_users::ActiveUsers,
    bus::{Bus, desk::Desk},
    config::{settings::Settings, tokens::TokenFile},
    console::Console,
    names::TopicFilter,
    sense::tasks::Starter,
    telemetry::{metrics::Registry, readiness::Readiness},
};

/// What REST is made of.
pub(super) struct Rest {
    pub(super) settings: Settings,
    pub(super) protected_topics: Vec<TopicFilter>,
    pub(super) bus: Bus,
    pub(super) desk: Option<Desk>,
    pub(super) starter: Starter,
    pub(super) users: ActiveUsers,
    pub(super) stores: Stores,
    pub(super) tokens: TokenFile,
    pub(super) readiness: Readiness,
    pub(super) registry: Registry,
    pub(super) counters: api::counters::Counters,
    pub(super) console: Option<Arc<Console>>,
    pub(super) reloader: Reloader,
}

impl Rest {
    pub(super) fn setup(self) -> api::Setup {
        let Self { settings, users, stores: Stores { values, keys, journal }, .. } = self;
        let start = Arc::new(start_task::StartTaskState {
            generation: settings.generation,
            starter: self.starter.clone(),
            values: values.clone(),
        });
        let tokens = (settings.rest.tokens != Some(false)).then_some(self.tokens);
        let reloader = self.reloader;
        let tasks = TasksState { starter: self.starter };
        api::Setup {
            generation: settings.generation,
            rest_qos_retain: settings.mqtt.rest_qos_retain,
            start_topics: settings.start_topics(),
            protected_topics: self.protected_topics,
            broker: settings.mqtt.broker_reason.clone(),
            rest: settings.rest,
            bus: self.bus,
            desk: self.desk,
            start_task: Arc::new(move |request: Request| {
                let start = Arc::clone(&start);
                Box::pin(async move { start_task::handle(&start, &request).await })
            }),
            tasks,
            active_users: Arc::new(move || users.names().iter().map(ToString::to_string).collect()),
            values,
            keys,
            journal,
            tokens,
            readiness: self.readiness,
            registry: Arc::new(self.registry),
            counters: self.counters,
            console: self.console,
            reload: Arc::new(move |whence| {
                let reloader = reloader.clone();
                Box::pin(async move { reloader.reload(&whence).await })
            }),
        }
    }
}
