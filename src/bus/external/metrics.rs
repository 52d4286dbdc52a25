//! What can be seen of the connection to a broker elsewhere.

use std::{
    fmt,
    sync::{Arc, atomic::AtomicU64},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric as _},
    metrics::{counter::Counter, family::Family, gauge::ConstGauge},
    registry::Registry,
};

use super::Shared;

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Reason {
    reason: &'static str,
}

#[derive(Debug, Default)]
pub(super) struct Metrics {
    /// Acknowledged or refused: the broker works.
    pub answered: AtomicU64,
    pub acknowledged: Counter,
    pub received: Counter,
    pub connects: Counter,
    dropped: Family<Reason, Counter>,
}

impl Metrics {
    pub(super) fn dropped(&self, reason: &'static str, count: usize) {
        if count > 0 {
            self.dropped.get_or_create(&Reason { reason }).inc_by(u64::try_from(count).unwrap_or(u64::MAX));
        }
    }

    pub(super) fn dropped_by(&self, reason: &'static str) -> u64 {
        self.dropped.get_or_create(&Reason { reason }).get()
    }
}

/// Hangs the metrics of one external broker into the registry.
pub(super) fn register(shared: &Arc<Shared>, registry: &mut Registry) {
    let metrics = &shared.metrics;
    let acknowledged = "Messages the external broker took responsibility for";
    registry.register("sense_butler_external_acknowledged", acknowledged, metrics.acknowledged.clone());
    registry.register("sense_butler_external_received", "Messages from the external broker", metrics.received.clone());
    registry.register(
        "sense_butler_external_connects",
        "Connections made to the external broker",
        metrics.connects.clone(),
    );
    let dropped = "Messages to or from the external broker that were given up, by reason";
    registry.register("sense_butler_external_dropped", dropped, metrics.dropped.clone());
    registry.register_collector(Box::new(Levels(Arc::clone(shared))));
}

/// Values that are read when asked.
#[derive(Debug)]
struct Levels(Arc<Shared>);

impl Collector for Levels {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (fill, up) = {
            let outbox = self.0.outbox();
            (outbox.fill(), outbox.is_connected())
        };
        let whole = |value: usize| i64::try_from(value).unwrap_or(i64::MAX);
        let depth = "Messages waiting for the external broker's acknowledgement";
        for (name, help, value) in [
            ("sense_butler_outbox_depth", depth, whole(fill.messages)),
            ("sense_butler_outbox_bytes", "Bytes they take", whole(fill.bytes)),
            ("sense_butler_external_connected", "1 while the external broker is connected", i64::from(up)),
        ] {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)?;
        }
        let age = ConstGauge::new(fill.oldest.map_or(0.0, |since| since.elapsed().as_secs_f64()));
        let (name, help) = ("sense_butler_outbox_oldest_age_seconds", "Age of the oldest message that waits");
        age.encode(encoder.encode_descriptor(name, help, None, age.metric_type())?)
    }
}
