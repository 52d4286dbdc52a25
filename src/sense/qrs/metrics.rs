//! What is counted about QRS: calls by operation and result, and how long they took.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::hosts::HostState;

/// Upper bounds of the buckets, seconds: a start within 5 ms on a good day, 30 s when the time runs out.
const BUCKETS: [f64; 13] = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// Labels of `sense_butler_qrs_requests_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    op: &'static str,
    result: &'static str,
}

/// Label of `sense_butler_qrs_request_duration_seconds`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Operation {
    op: &'static str,
}

/// Label of `sense_butler_qrs_host_in_use`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AtHost {
    host: String,
}

/// Counters of the QRS client. Cheap to clone; all clones count into the same numbers.
#[derive(Debug, Clone)]
pub struct QrsMetrics {
    requests: Family<Call, Counter>,
    duration: Family<Operation, Histogram, fn() -> Histogram>,
    skipped: Family<Operation, Counter>,
    moved: Counter,
    hosts: Family<AtHost, Gauge>,
}

impl Default for QrsMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            duration: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            skipped: Family::default(),
            moved: Counter::default(),
            hosts: Family::default(),
        }
    }
}

impl QrsMetrics {
    /// Hangs the metrics into a registry, under their full names.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Calls to the Qlik Repository Service, by operation and result";
        registry.register("sense_butler_qrs_requests", help, self.requests.clone());
        let help = "Time a call to the Qlik Repository Service took, seconds";
        registry.register("sense_butler_qrs_request_duration_seconds", help, self.duration.clone());
        let help = "Entries of lists of the Qlik Repository Service that could not be read, by operation";
        registry.register("sense_butler_qrs_entries_skipped", help, self.skipped.clone());
        let help = "Times another host of the Sense site was taken than the one before";
        registry.register("sense_butler_qrs_host_changes", help, self.moved.clone());
        let help = "1 for the host of the Sense site whose repository service is used, 0 for the others";
        registry.register("sense_butler_qrs_host_in_use", help, self.hosts.clone());
    }

    /// Counts one call.
    pub(super) fn count(&self, op: &'static str, result: &'static str, took: Duration) {
        self.requests.get_or_create(&Call { op, result }).inc();
        self.duration.get_or_create(&Operation { op }).observe(took.as_secs_f64());
    }

    /// Counts a change of host.
    pub(super) fn moved(&self, hosts: &[HostState]) {
        self.moved.inc();
        self.in_use(hosts);
    }

    /// Tells which host is used.
    pub(super) fn in_use(&self, hosts: &[HostState]) {
        for state in hosts {
            self.hosts.get_or_create(&AtHost { host: state.host.clone() }).set(i64::from(state.in_use));
        }
    }

    /// Changes of host so far.
    pub fn moves(&self) -> u64 {
        self.moved.get()
    }

    /// Counts entries of a list that could not be read.
    pub(super) fn skip(&self, op: &'static str, entries: usize) {
        self.skipped.get_or_create(&Operation { op }).inc_by(entries as u64);
    }

    /// Entries skipped so far by an operation.
    pub fn skipped(&self, op: &'static str) -> u64 {
        self.skipped.get_or_create(&Operation { op }).get()
    }

    /// Calls counted so far for an operation and a result.
    pub fn calls(&self, op: &'static str, result: &'static str) -> u64 {
        self.requests.get_or_create(&Call { op, result }).get()
    }
}
