//! What the relay counts, by target as it is written in the file (their number is bounded there).

use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use crate::config::HostPort;

type TargetLabel = [(&'static str, String); 1];
type DropLabels = [(&'static str, String); 2];

/// Handles of the counters.
#[derive(Debug, Clone)]
pub(super) struct Metrics {
    sent: Family<TargetLabel, Counter>,
    dropped: Family<DropLabels, Counter>,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self { sent: Family::default(), dropped: Family::default() };
        let help = "Datagrams sent on to another program (udpServerConfig.forwardTo), by target";
        registry.register("sense_butler_udp_forwarded", help, metrics.sent.clone());
        let help = "Datagrams that did not go on to another program, by target and reason";
        registry.register("sense_butler_udp_forward_dropped", help, metrics.dropped.clone());
        metrics
    }

    /// The counter of what went to a target.
    pub(super) fn sent(&self, target: &HostPort) -> Counter {
        self.sent.get_or_create(&[("target", target.to_string())]).clone()
    }

    pub(super) fn dropped(&self, target: &HostPort, reason: &'static str) {
        self.dropped_many(target, reason, 1);
    }

    pub(super) fn dropped_many(&self, target: &HostPort, reason: &'static str, times: u64) {
        if times > 0 {
            let labels = [("target", target.to_string()), ("reason", reason.to_owned())];
            self.dropped.get_or_create(&labels).inc_by(times);
        }
    }
}
