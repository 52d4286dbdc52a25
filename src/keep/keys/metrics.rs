//! What the idempotency keys tell of themselves.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::Claim;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct KeyMetrics {
    keys: Gauge,
    requests: Family<[(&'static str, &'static str); 1], Counter>,
}

impl KeyMetrics {
    pub(super) fn new(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("sense_butler_idempotency_keys", "Idempotency keys that are known", metrics.keys.clone());
        registry.register(
            "sense_butler_idempotency_requests",
            "Requests with an idempotency key, by what was known of it",
            metrics.requests.clone(),
        );
        metrics
    }

    pub(super) fn level(&self, keys: usize) {
        self.keys.set(i64::try_from(keys).unwrap_or(i64::MAX));
    }

    pub(super) fn told(&self, claim: &Claim) {
        let known = match claim {
            Claim::Fresh(_) => "new",
            Claim::Known(_) => "repeated",
            Claim::Differs => "reused",
            Claim::Unknown => "unknown",
            Claim::Busy => "busy",
        };
        self.requests.get_or_create(&[("known", known)]).inc();
    }
}
