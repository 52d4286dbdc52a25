//! Counters of the sources.

use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

type Label = [(&'static str, &'static str); 1];

/// Handles of the counters. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics {
    polls: Family<Label, Counter>,
    notifications: Family<Label, Counter>,
    subscriptions: Family<Label, Counter>,
    given_up: Counter,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "sense_butler_polls",
            "Looks at what QRS keeps of executions, by result",
            metrics.polls.clone(),
        );
        registry.register(
            "sense_butler_notifications",
            "Changes of executions that QRS told, by what became of the word",
            metrics.notifications.clone(),
        );
        registry.register(
            "sense_butler_subscriptions_renewed",
            "Subscriptions to QRS's notifications made anew, by result",
            metrics.subscriptions.clone(),
        );
        registry.register(
            "sense_butler_executions_given_up",
            "Executions that seemed to fail and whose end QRS cannot tell, or that were too many to be watched",
            metrics.given_up.clone(),
        );
        metrics
    }

    pub(super) fn poll(&self, result: &'static str) {
        self.polls.get_or_create(&[("result", result)]).inc();
    }

    pub(super) fn notification(&self, result: &'static str, times: u64) {
        self.notifications.get_or_create(&[("result", result)]).inc_by(times);
    }

    pub(super) fn subscription(&self, result: &'static str) {
        self.subscriptions.get_or_create(&[("result", result)]).inc();
    }

    pub(super) fn give_up(&self, times: usize) {
        self.given_up.inc_by(u64::try_from(times).unwrap_or(u64::MAX));
    }
}
