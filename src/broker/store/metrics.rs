//! What the store tells of itself: counters, and log lines that do not flood.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

use super::ledger::Ledger;
use crate::telemetry::throttle::Throttle;

const EVERY: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Debug)]
pub(super) struct StoreMetrics {
    commits: Counter,
    failures: Counter,
    duration: Histogram,
    messages: Histogram,
    bytes: Gauge,
    rows: Gauge,
    refused: Counter,
    pages: Counter,
    damaged: Counter,
    dropped: Counter,
    set_aside: Counter,
    compacted: Counter,
    unreadable: Gauge,
    refused_line: Throttle,
    damaged_line: Throttle,
    dropped_line: Throttle,
}

impl StoreMetrics {
    pub(super) fn new(registry: &mut Registry) -> Arc<Self> {
        // Seconds: fast disks take 0.0001, slow ones 0.01; beyond that something is wrong.
        let duration = [0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 2.0];
        let sizes = [1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0];
        let metrics = Self {
            commits: Counter::default(),
            failures: Counter::default(),
            duration: Histogram::new(duration),
            messages: Histogram::new(sizes),
            bytes: Gauge::default(),
            rows: Gauge::default(),
            refused: Counter::default(),
            pages: Counter::default(),
            damaged: Counter::default(),
            dropped: Counter::default(),
            set_aside: Counter::default(),
            compacted: Counter::default(),
            unreadable: Gauge::default(),
            refused_line: Throttle::every(EVERY),
            damaged_line: Throttle::every(EVERY),
            dropped_line: Throttle::every(EVERY),
        };
        metrics.register(registry);
        Arc::new(metrics)
    }

    fn register(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, metric: &Counter| registry.register(name, help, metric.clone());
        counter("sense_butler_store_commits", "Commits of the store", &self.commits);
        counter(
            "sense_butler_store_failures",
            "Commits that failed, and attempts to open the store again",
            &self.failures,
        );
        counter("sense_butler_store_refused_groups", "Groups of messages the store did not take", &self.refused);
        counter("sense_butler_store_pages", "Pages of queues read back", &self.pages);
        counter("sense_butler_store_damaged_messages", "Stored messages that could not be read back", &self.damaged);
        counter("sense_butler_store_dropped_messages", "Stored messages dropped by a session's quota", &self.dropped);
        counter("sense_butler_store_set_aside", "Stores that could not be opened and were set aside", &self.set_aside);
        counter(
            "sense_butler_store_compacted_batches",
            "Batches of stored messages written anew without what nobody waits for",
            &self.compacted,
        );
        registry.register("sense_butler_store_commit_seconds", "Duration of commits, seconds", self.duration.clone());
        registry.register("sense_butler_store_commit_messages", "Messages per commit", self.messages.clone());
        registry.register("sense_butler_store_bytes", "Bytes of stored messages and their queues", self.bytes.clone());
        let unreadable = self.unreadable.clone();
        registry.register("sense_butler_store_unreadable_queues", "Queues that cannot be read back now", unreadable);
        registry.register("sense_butler_store_messages", "Messages in stored queues", self.rows.clone());
    }

    pub(super) fn committed(&self, took: Duration, messages: u64) {
        self.commits.inc();
        self.duration.observe(took.as_secs_f64());
        if messages > 0 {
            self.messages.observe(f64::from(u32::try_from(messages).unwrap_or(u32::MAX)));
        }
    }

    pub(super) fn level(&self, ledger: &Ledger) {
        self.bytes.set(i64::try_from(ledger.bytes).unwrap_or(i64::MAX));
        self.rows.set(i64::try_from(ledger.rows).unwrap_or(i64::MAX));
    }

    pub(super) fn failed(&self) {
        self.failures.inc();
    }

    pub(super) fn refused(&self, why: &'static str) {
        self.refused.inc();
        if let Some(suppressed) = self.refused_line.pass() {
            tracing::warn!(
                code = "store_refused",
                suppressed,
                "the store does not take messages ({why}): their publishers are told; the lines before say what to do about the store"
            );
        }
    }

    pub(super) fn page(&self, damaged: u64) {
        self.pages.inc();
        if damaged == 0 {
            return;
        }
        self.damaged.inc_by(damaged);
        if let Some(suppressed) = self.damaged_line.pass() {
            tracing::error!(
                code = "store_damaged",
                damaged,
                suppressed,
                "stored messages are missing or damaged and are left out; check the disk that holds the store"
            );
        }
    }

    pub(super) fn dropped(&self, count: u64) {
        if count == 0 {
            return;
        }
        self.dropped.inc_by(count);
        if let Some(suppressed) = self.dropped_line.pass() {
            tracing::warn!(
                code = "store_queue_full",
                count,
                suppressed,
                "the stored queue of a session is full and messages are dropped; see max_queue_bytes and max_queue_messages in broker.toml"
            );
        }
    }

    pub(super) fn compacted(&self, batches: u64) {
        self.compacted.inc_by(batches);
    }

    /// So many queues cannot be read.
    pub(super) fn unreadable(&self, queues: usize) {
        self.unreadable.set(i64::try_from(queues).unwrap_or(i64::MAX));
    }

    pub(super) fn set_aside(&self) {
        self.set_aside.inc();
    }
}
