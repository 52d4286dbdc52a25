//! What the key-value store tells of itself.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::{ValuesError, state::State};

/// See the module.
#[derive(Debug)]
pub(super) struct ValueMetrics {
    namespaces: Gauge,
    keys: Gauge,
    bytes: Gauge,
    expired: Counter,
    refused: Family<[(&'static str, &'static str); 1], Counter>,
}

impl ValueMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self {
            namespaces: Gauge::default(),
            keys: Gauge::default(),
            bytes: Gauge::default(),
            expired: Counter::default(),
            refused: Family::default(),
        };
        let mut gauge = |name: &str, help: &str, gauge: &Gauge| registry.register(name, help, gauge.clone());
        gauge("sense_butler_values_namespaces", "Namespaces of the key-value store", &metrics.namespaces);
        gauge("sense_butler_values_keys", "Keys of the key-value store", &metrics.keys);
        gauge("sense_butler_values_bytes", "Bytes of names and values in the key-value store", &metrics.bytes);
        let expired = metrics.expired.clone();
        registry.register("sense_butler_values_expired", "Keys whose time to live was over", expired);
        registry.register(
            "sense_butler_values_refused",
            "Values that were not stored and deletions of what was not there, by reason",
            metrics.refused.clone(),
        );
        metrics
    }

    pub(super) fn level(&self, state: &State) {
        let (namespaces, keys, bytes) = state.level();
        for (gauge, number) in [(&self.namespaces, namespaces), (&self.keys, keys), (&self.bytes, bytes)] {
            gauge.set(i64::try_from(number).unwrap_or(i64::MAX));
        }
    }

    pub(super) fn expired(&self, keys: usize) {
        self.expired.inc_by(keys as u64);
    }

    pub(super) fn refused(&self, error: &ValuesError) {
        let reason = match error {
            ValuesError::UnknownNamespace(_) => "unknown_namespace",
            ValuesError::UnknownKey { .. } => "unknown_key",
            ValuesError::Name { .. } => "name",
            ValuesError::TooLarge { .. } => "too_large",
            ValuesError::Full { .. } => "full",
            ValuesError::Off => "off",
            ValuesError::Keep(_) => "keep",
        };
        self.refused.get_or_create(&[("reason", reason)]).inc();
    }
}
