//! What the REST room counts. Names: `sense_butler_rest_...`.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Upper bounds of the buckets, seconds: a publish within a millisecond, a start within QRS's patience, a wait for an end in minutes.
const BUCKETS: [f64; 13] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 30.0, 300.0];

/// Labels of `rest_requests_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The resource, e.g. `mqttpublishmessage`; `none` where none was found.
    pub route: &'static str,
    /// HTTP status of the answer.
    pub status: u16,
}

/// Label of `rest_request_duration_seconds`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RouteLabel {
    /// The resource, as in [`RequestLabels`].
    pub route: &'static str,
}

/// Labels of a counter by reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// Why.
    pub reason: &'static str,
}

/// The counters. Cheap to clone; all clones count together.
#[derive(Debug, Clone)]
pub struct Counters {
    /// Answers by route and status.
    pub requests: Family<RequestLabels, Counter>,
    /// What they took.
    pub durations: Family<RouteLabel, Histogram, fn() -> Histogram>,
    /// Handlers that panicked (answered 500).
    pub panics: Counter,
    /// Connections open right now.
    pub connections: Gauge,
    /// Connections that were closed before a request was read, by reason.
    pub connections_refused: Family<Reason, Counter>,
    /// Tokens that were shown and did not open what was asked for, by reason.
    pub tokens_refused: Family<Reason, Counter>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            durations: Family::new_with_constructor(|| Histogram::new(BUCKETS)),
            panics: Counter::default(),
            connections: Gauge::default(),
            connections_refused: Family::default(),
            tokens_refused: Family::default(),
        }
    }
}

impl Counters {
    /// The counters, registered under their whole names.
    pub fn register(registry: &mut Registry) -> Self {
        let counters = Self::default();
        registry.register("sense_butler_rest_requests", "Requests answered by the REST API", counters.requests.clone());
        registry.register(
            "sense_butler_rest_request_duration_seconds",
            "Time from the head of a request to its answer, seconds",
            counters.durations.clone(),
        );
        registry.register(
            "sense_butler_rest_handler_panics",
            "Request handlers that panicked",
            counters.panics.clone(),
        );
        registry.register(
            "sense_butler_rest_connections",
            "Open connections to the REST API",
            counters.connections.clone(),
        );
        registry.register(
            "sense_butler_rest_connections_refused",
            "Connections to the REST API closed before a request was read",
            counters.connections_refused.clone(),
        );
        registry.register(
            "sense_butler_rest_tokens_refused",
            "Tokens shown to the REST API that did not open what was asked for",
            counters.tokens_refused.clone(),
        );
        counters
    }

    /// Counts an answer and what it took.
    pub fn answered(&self, route: &'static str, status: u16, took: Duration) {
        self.requests.get_or_create(&RequestLabels { route, status }).inc();
        self.durations.get_or_create(&RouteLabel { route }).observe(took.as_secs_f64());
    }

    /// Counts a token that did not open what was asked for.
    pub fn token_refused(&self, reason: &'static str) {
        self.tokens_refused.get_or_create(&Reason { reason }).inc();
    }

    /// Counts a connection that was not served.
    pub fn refused(&self, reason: &'static str) {
        self.connections_refused.get_or_create(&Reason { reason }).inc();
    }
}
