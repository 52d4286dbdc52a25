//! What is counted about starting tasks.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use super::request::StartStatus;

/// Labels of `sense_butler_task_starts_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    door: &'static str,
    status: &'static str,
}

/// Label of `sense_butler_task_starts_refused_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    reason: &'static str,
}

/// Counters of the starter. Cheap to clone; all clones count into the same numbers.
#[derive(Debug, Clone, Default)]
pub struct StartMetrics {
    outcomes: Family<Labels, Counter>,
    duplicates: Counter,
    refused: Family<Why, Counter>,
}

impl StartMetrics {
    /// Hangs the metrics into a registry, under their full names.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Answers to start requests, one per task, by door and status";
        registry.register("sense_butler_task_starts", help, self.outcomes.clone());
        let help = "Start requests that were a duplicate and started nothing";
        registry.register("sense_butler_task_start_duplicates", help, self.duplicates.clone());
        let help = "Start requests refused because there were too many, by reason";
        registry.register("sense_butler_task_starts_refused", help, self.refused.clone());
    }

    /// Counts one answer.
    pub(super) fn count(&self, door: &'static str, status: StartStatus) {
        self.outcomes.get_or_create(&Labels { door, status: status.as_str() }).inc();
    }

    /// Counts one request that was too much.
    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Why { reason }).inc();
    }

    /// Counts one duplicate.
    pub(super) fn duplicate(&self) {
        self.duplicates.inc();
    }
}
