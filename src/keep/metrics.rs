//! What the file tells of itself: counters, and log lines that do not flood.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::KeepError;
use crate::telemetry::throttle::Throttle;

const EVERY: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(super) struct KeepMetrics {
    commits: Counter,
    failures: Counter,
    duration: Histogram,
    queued: Gauge,
    failed_writes: Family<[(&'static str, &'static str); 1], Counter>,
    set_aside: Counter,
    lost_line: Throttle,
}

impl KeepMetrics {
    pub(super) fn new(registry: &mut Registry) -> Arc<Self> {
        // Seconds: fast disks take 0.0001, slow ones 0.01; beyond that something is wrong.
        let duration = [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0];
        let metrics = Self {
            commits: Counter::default(),
            failures: Counter::default(),
            duration: Histogram::new(duration),
            queued: Gauge::default(),
            failed_writes: Family::default(),
            set_aside: Counter::default(),
            lost_line: Throttle::every(EVERY),
        };
        metrics.register(registry);
        Arc::new(metrics)
    }

    fn register(&self, registry: &mut Registry) {
        registry.register("sense_butler_keep_commits", "Commits of sense.redb", self.commits.clone());
        registry.register(
            "sense_butler_keep_failures",
            "Commits of sense.redb that failed, and attempts to open it again",
            self.failures.clone(),
        );
        let duration = self.duration.clone();
        registry.register("sense_butler_keep_commit_seconds", "Duration of commits of sense.redb, seconds", duration);
        registry.register(
            "sense_butler_keep_queued_bytes",
            "Bytes of changes that wait to be written to sense.redb",
            self.queued.clone(),
        );
        registry.register(
            "sense_butler_keep_failed_writes",
            "Writes to sense.redb that failed, by reason",
            self.failed_writes.clone(),
        );
        registry.register(
            "sense_butler_keep_set_aside",
            "Files sense.redb that could not be opened and were set aside",
            self.set_aside.clone(),
        );
    }

    pub(super) fn committed(&self, took: Duration) {
        self.commits.inc();
        self.duration.observe(took.as_secs_f64());
    }

    pub(super) fn failed(&self) {
        self.failures.inc();
    }

    /// So many bytes wait.
    pub(super) fn queued(&self, bytes: usize) {
        self.queued.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// A write failed.
    pub(super) fn refused(&self, error: &KeepError) {
        self.failed_writes.get_or_create(&[("reason", error.reason())]).inc();
    }

    /// A write failed that nobody waits for.
    pub(super) fn lost(&self, shelf: &str, error: &KeepError) {
        if let Some(suppressed) = self.lost_line.pass() {
            tracing::error!(
                code = "keep_write_failed",
                shelf,
                suppressed,
                "a change is not on disk: {error}; check the disk with the data directory"
            );
        }
    }

    pub(super) fn set_aside(&self) {
        self.set_aside.inc();
    }
}
