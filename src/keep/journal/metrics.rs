//! What the journal tells of itself.

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::state::{State, Swept, Taken};
use crate::telemetry::throttle::Throttle;

type ByReason = Family<[(&'static str, &'static str); 1], Counter>;

/// See the module. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct JournalMetrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    entries: Gauge,
    bytes: Gauge,
    noted: Counter,
    duplicates: Counter,
    removed: ByReason,
    dropped: ByReason,
    line: Throttle,
}

impl JournalMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let inner = Inner {
            entries: Gauge::default(),
            bytes: Gauge::default(),
            noted: Counter::default(),
            duplicates: Counter::default(),
            removed: Family::default(),
            dropped: Family::default(),
            line: Throttle::every(Duration::from_secs(60)),
        };
        registry.register("sense_butler_journal_entries", "Events the journal has", inner.entries.clone());
        registry.register("sense_butler_journal_bytes", "Bytes of the events the journal has", inner.bytes.clone());
        registry.register("sense_butler_journal_noted", "Events taken into the journal", inner.noted.clone());
        registry.register(
            "sense_butler_journal_duplicates",
            "Ends of executions that the journal had already, told by somebody else",
            inner.duplicates.clone(),
        );
        registry.register(
            "sense_butler_journal_removed",
            "Events removed from the journal, by the bound they were beyond",
            inner.removed.clone(),
        );
        registry.register(
            "sense_butler_journal_dropped",
            "Events that did not come into the journal, by reason",
            inner.dropped.clone(),
        );
        let metrics = Self(Arc::new(inner));
        // There from the beginning, so that the first is seen as a change.
        for reason in ["busy", "lagged", "stopping"] {
            drop(metrics.0.dropped.get_or_create(&[("reason", reason)]));
        }
        for reason in ["age", "entries", "bytes"] {
            drop(metrics.0.removed.get_or_create(&[("reason", reason)]));
        }
        metrics
    }

    pub(super) fn level(&self, state: &State) {
        let (entries, bytes) = state.level();
        self.0.entries.set(i64::try_from(entries).unwrap_or(i64::MAX));
        self.0.bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    pub(super) fn taken(&self, taken: &Taken) {
        self.0.noted.inc_by(u64::try_from(taken.entries).unwrap_or(u64::MAX));
        self.0.duplicates.inc_by(u64::try_from(taken.duplicates).unwrap_or(u64::MAX));
    }

    pub(super) fn swept(&self, swept: &Swept) {
        for (reason, number) in [("age", swept.age), ("entries", swept.entries), ("bytes", swept.bytes)] {
            if number > 0 {
                self.0.removed.get_or_create(&[("reason", reason)]).inc_by(number);
            }
        }
    }

    pub(super) fn dropped(&self, reason: &'static str, number: u64) {
        self.0.dropped.get_or_create(&[("reason", reason)]).inc_by(number);
        if let Some(suppressed) = self.0.line.pass() {
            tracing::warn!(
                code = "journal_dropped",
                reason,
                number,
                suppressed,
                "events did not come into the journal and `/api/v1/events` does not show them; by MQTT they went out. There were too many at a time, or the program \
                 was stopping; if it goes on, find out what sends so many"
            );
        }
    }
}
