//! What the console counts.

use prometheus_client::{
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Log-ins by how they ended.
pub(super) type LoginCounts = Family<[(&'static str, &'static str); 1], Counter>;

/// The counters. Clones count together.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics {
    /// By `result`.
    pub(super) logins: LoginCounts,
    /// Live streams that are open.
    pub(super) streams: Gauge,
    /// Messages by `outcome`: `shown`, `not_shown`.
    messages: Family<[(&'static str, &'static str); 1], Counter>,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register("sense_butler_console_logins", "Log-ins to the console, by result", metrics.logins.clone());
        registry.register("sense_butler_console_streams", "Live streams that are open", metrics.streams.clone());
        registry.register(
            "sense_butler_console_messages",
            "Messages that matched the filter of a live stream, by whether they were shown or only counted",
            metrics.messages.clone(),
        );
        metrics
    }

    pub(super) fn passed(&self, shown: usize, missed: u64) {
        let of = |outcome| self.messages.get_or_create(&[("outcome", outcome)]).clone();
        of("shown").inc_by(u64::try_from(shown).unwrap_or(u64::MAX));
        of("not_shown").inc_by(missed);
    }
}
