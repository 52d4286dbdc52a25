//! What the REST room counts. Names: `sense_butler_rest_...`.

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

/// Labels of `rest_requests_total`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    /// The resource, e.g. `mqttpublishmessage`; `none` where none was found.
    pub route: &'static str,
    /// HTTP status of the answer.
    pub status: u16,
}

/// Labels of a counter by reason.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Reason {
    /// Why.
    pub reason: &'static str,
}

/// The counters. Cheap to clone; all clones count together.
#[derive(Debug, Clone, Default)]
pub struct Counters {
    /// Answers by route and status.
    pub requests: Family<RequestLabels, Counter>,
    /// Handlers that panicked (answered 500).
    pub panics: Counter,
    /// Connections open right now.
    pub connections: Gauge,
    /// Connections that were closed before a request was read, by reason.
    pub connections_refused: Family<Reason, Counter>,
    /// Tokens that were shown and did not open what was asked for, by reason.
    pub tokens_refused: Family<Reason, Counter>,
}

impl Counters {
    /// The counters, registered under their whole names.
    pub fn register(registry: &mut Registry) -> Self {
        let counters = Self::default();
        registry.register("sense_butler_rest_requests", "Requests answered by the REST API", counters.requests.clone());
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

    /// Counts an answer.
    pub fn answered(&self, route: &'static str, status: u16) {
        self.requests.get_or_create(&RequestLabels { route, status }).inc();
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
