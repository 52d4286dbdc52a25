//! The broker's counters and gauges, and the log lines that go with drops.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};

use super::seen::{LOADS, Stats, Totals};
use crate::{
    names::ClientId,
    telemetry::throttle::{Throttle, Throttles},
};

/// Why a message is not delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub(super) enum Lost {
    NotAuthorized,
    SessionLagging,
    QueueFull,
    Expired,
    TooLargeForClient,
    RetainedFull,
    GroupLeft,
    NotReceivable,
}

impl Lost {
    const COUNT: usize = 8;
    const ALL: [Self; Self::COUNT] = [
        Self::NotAuthorized,
        Self::SessionLagging,
        Self::QueueFull,
        Self::Expired,
        Self::TooLargeForClient,
        Self::RetainedFull,
        Self::GroupLeft,
        Self::NotReceivable,
    ];

    const fn reason(self) -> &'static str {
        match self {
            Self::NotAuthorized => "not_authorized",
            Self::SessionLagging => "session_lagging",
            Self::QueueFull => "queue_full",
            Self::Expired => "expired",
            Self::TooLargeForClient => "too_large_for_client",
            Self::RetainedFull => "retained_full",
            Self::GroupLeft => "group_left",
            Self::NotReceivable => "not_receivable",
        }
    }

    const fn advice(self) -> &'static str {
        match self {
            Self::NotAuthorized => "a client published where it may not; see its rights in broker.toml",
            Self::SessionLagging => "a client reads too slowly",
            Self::QueueFull => {
                "the queue of a session is full; see limits.queue_bytes and limits.queue_messages in broker.toml"
            }
            Self::Expired => "their expiry interval passed before they could be sent",
            Self::TooLargeForClient => "they are larger than the receiving client accepts",
            Self::NotReceivable => "their subscriber may not receive them; see [[access]] in broker.toml",
            Self::RetainedFull => {
                "no room for more retained messages; see limits.retained_topics and limits.retained_bytes in broker.toml"
            }
            Self::GroupLeft => "the last member of a shared subscription left without acknowledging them",
        }
    }
}

/// A line about the same reason at most this often.
const EVERY: Duration = Duration::from_secs(10);
/// A line about the same thing that happens to one client after the other at most this often.
const EVERY_SUBJECT: Duration = Duration::from_secs(1);

/// Label of a drop or refusal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

/// What was denied to a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Denied {
    Publish,
    Subscribe,
    Will,
}

/// Label of a denial.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Action {
    action: &'static str,
}

/// Label of a log-in.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct As {
    r#as: &'static str,
}

/// Label of a listener.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByListener {
    listener: String,
}

/// Label of the QoS of a message.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByQos {
    qos: u8,
}

/// The broker's metrics.
#[derive(Debug)]
pub(super) struct Metrics {
    received: [Counter; 3],
    sent: [Counter; 3],
    unmatched: Counter,
    dropped: Family<Reason, Counter>,
    refused: Family<Reason, Counter>,
    closed: Family<Reason, Counter>,
    logins: Family<As, Counter>,
    denied: Family<Action, Counter>,
    connections: Family<ByListener, Gauge>,
    connected: AtomicUsize,
    most_connected: AtomicUsize,
    all_dropped: AtomicU64,
    sessions: Gauge,
    disconnected: Gauge,
    queued: Gauge,
    queued_bytes: Gauge,
    in_flight: Gauge,
    subscriptions: Gauge,
    retained: Gauge,
    retained_bytes: Gauge,
    expired: Counter,
    lagging: Counter,
    engine_restarts: Counter,
    /// What passes through all connections.
    pub totals: Arc<Totals>,
    lines: [Throttle; Lost::COUNT],
    subjects: Mutex<Throttles>,
    revoked: Family<Reason, Counter>,
}

impl Metrics {
    pub(super) fn new(registry: &mut Registry) -> Arc<Self> {
        let by_qos = |registry: &mut Registry, name: &str, help: &str| {
            let family = Family::<ByQos, Counter>::default();
            registry.register(name, help, family.clone());
            [0, 1, 2].map(|qos| family.get_or_create(&ByQos { qos }).clone())
        };
        let received = by_qos(registry, "sense_butler_mqtt_messages_received", "PUBLISH packets taken from clients");
        let sent = by_qos(registry, "sense_butler_mqtt_messages_sent", "PUBLISH packets written to clients");
        let metrics = Self {
            received,
            sent,
            unmatched: Counter::default(),
            dropped: Family::default(),
            refused: Family::default(),
            closed: Family::default(),
            logins: Family::default(),
            denied: Family::default(),
            connections: Family::default(),
            connected: AtomicUsize::new(0),
            most_connected: AtomicUsize::new(0),
            all_dropped: AtomicU64::new(0),
            sessions: Gauge::default(),
            disconnected: Gauge::default(),
            queued: Gauge::default(),
            queued_bytes: Gauge::default(),
            in_flight: Gauge::default(),
            subscriptions: Gauge::default(),
            retained: Gauge::default(),
            retained_bytes: Gauge::default(),
            expired: Counter::default(),
            lagging: Counter::default(),
            engine_restarts: Counter::default(),
            totals: Totals::new(registry),
            lines: [const { Throttle::every(EVERY) }; Lost::COUNT],
            subjects: Mutex::new(Throttles::every(EVERY_SUBJECT)),
            revoked: Family::default(),
        };
        metrics.register(registry);
        Arc::new(metrics)
    }

    fn register(&self, registry: &mut Registry) {
        let mut counter = |name: &str, help: &str, metric: &Counter| registry.register(name, help, metric.clone());
        counter("sense_butler_mqtt_messages_unmatched", "Messages nobody subscribed to", &self.unmatched);
        counter("sense_butler_mqtt_sessions_expired", "Sessions that ended by expiry", &self.expired);
        counter(
            "sense_butler_mqtt_sessions_lagging",
            "Times a session stopped holding publishers because it was too slow",
            &self.lagging,
        );
        counter("sense_butler_mqtt_engine_restarts", "Times the routing engine was replaced", &self.engine_restarts);
        let mut gauge = |name: &str, help: &str, metric: &Gauge| registry.register(name, help, metric.clone());
        gauge(
            "sense_butler_mqtt_sessions",
            "Sessions, connected or kept, those of the program itself included",
            &self.sessions,
        );
        gauge("sense_butler_mqtt_sessions_disconnected", "Sessions kept for clients that are away", &self.disconnected);
        gauge("sense_butler_mqtt_queued_messages", "Messages waiting in the queues of sessions", &self.queued);
        gauge("sense_butler_mqtt_queued_bytes", "Bytes waiting in the queues of sessions", &self.queued_bytes);
        gauge(
            "sense_butler_mqtt_inflight_messages",
            "Messages sent to clients with QoS 1 or 2 and not acknowledged",
            &self.in_flight,
        );
        gauge("sense_butler_mqtt_subscriptions", "Subscriptions", &self.subscriptions);
        gauge("sense_butler_mqtt_retained_messages", "Retained messages", &self.retained);
        gauge("sense_butler_mqtt_retained_bytes", "Memory of retained messages, bytes", &self.retained_bytes);
        // All there from the beginning: monitoring sees the first of a reason as a change.
        for lost in Lost::ALL {
            drop(self.dropped.get_or_create(&Reason { reason: lost.reason() }));
        }
        registry.register(
            "sense_butler_mqtt_messages_dropped",
            "Messages not delivered, by reason",
            self.dropped.clone(),
        );
        registry.register(
            "sense_butler_mqtt_connections_refused",
            "Connections turned away, by reason",
            self.refused.clone(),
        );
        registry.register("sense_butler_mqtt_connections", "Connected clients, by listener", self.connections.clone());
        registry.register(
            "sense_butler_mqtt_logins",
            "Clients let in, with a user name or anonymous; who is turned away counts in connections_refused",
            self.logins.clone(),
        );
        registry.register(
            "sense_butler_mqtt_denied",
            "What the access rules denied to clients: publish, subscribe, will",
            self.denied.clone(),
        );
        registry.register(
            "sense_butler_mqtt_revoked",
            "Subscriptions and sessions ended because users or access rules changed",
            self.revoked.clone(),
        );
        registry.register("sense_butler_mqtt_connections_closed", "Connections ended, by reason", self.closed.clone());
    }

    pub(super) fn received(&self, qos: u8) {
        if let Some(counter) = self.received.get(usize::from(qos)) {
            counter.inc();
        }
    }

    pub(super) fn sent(&self, counts: [u64; 3]) {
        for (counter, count) in self.sent.iter().zip(counts) {
            counter.inc_by(count);
        }
    }

    pub(super) fn unmatched(&self) {
        self.unmatched.inc();
    }

    /// Messages that are not delivered: counted, and said at most every ten seconds per reason.
    pub(super) fn dropped(&self, lost: Lost, count: u64) {
        if count == 0 {
            return;
        }
        self.dropped.get_or_create(&Reason { reason: lost.reason() }).inc_by(count);
        self.all_dropped.fetch_add(count, Ordering::Relaxed);
        if let Some(suppressed) = self.lines.get(lost as usize).and_then(Throttle::pass) {
            tracing::warn!(
                code = "mqtt_dropped",
                reason = lost.reason(),
                count,
                suppressed,
                "MQTT messages dropped: {}",
                lost.advice()
            );
        }
    }

    pub(super) fn refused(&self, reason: &'static str) {
        self.refused.get_or_create(&Reason { reason }).inc();
    }

    /// The same for a client that is told why; `Some`: a line about it may be written, after so many that were not.
    pub(super) fn refused_client(&self, reason: &'static str) -> Option<u64> {
        self.refused(reason);
        self.may_say(reason)
    }

    /// Whether a line about a subject may be written now: then how many were not since the last.
    pub(super) fn may_say(&self, subject: &'static str) -> Option<u64> {
        self.subjects.lock().pass(subject)
    }

    /// Something a client had is ended because users or rules changed; as [`Self::may_say`].
    pub(super) fn revoked(&self, what: &'static str) -> Option<u64> {
        self.revoked.get_or_create(&Reason { reason: what }).inc();
        self.may_say(what)
    }

    /// The self-probe, which has no listener, is no client.
    pub(super) fn closed(&self, reason: &'static str, listener: Option<&Arc<str>>) {
        let Some(listener) = listener else { return };
        self.closed.get_or_create(&Reason { reason }).inc();
        self.connections.get_or_create(&ByListener { listener: listener.to_string() }).dec();
        self.connected.fetch_sub(1, Ordering::Relaxed);
    }

    pub(super) fn connected(&self, listener: Option<&Arc<str>>) {
        let Some(listener) = listener else { return };
        self.connections.get_or_create(&ByListener { listener: listener.to_string() }).inc();
        let now = self.connected.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_connected.fetch_max(now, Ordering::Relaxed);
    }

    pub(super) fn login(&self, r#as: &'static str) {
        self.logins.get_or_create(&As { r#as }).inc();
    }

    pub(super) fn denied(&self, what: Denied) {
        let action = match what {
            Denied::Publish => "publish",
            Denied::Subscribe => "subscribe",
            Denied::Will => "will",
        };
        self.denied.get_or_create(&Action { action }).inc();
    }

    /// What is counted here of the numbers of the whole broker.
    pub(super) fn stats(&self) -> Stats {
        let sums = self.totals.sums();
        Stats {
            maximum: self.most_connected.load(Ordering::Relaxed),
            expired: self.expired.get(),
            packets_in: sums.packets_in,
            packets_out: sums.packets_out,
            messages_in: sums.messages_in,
            messages_out: sums.messages_out,
            dropped: self.all_dropped.load(Ordering::Relaxed),
            unmatched: self.unmatched.get(),
            payload_in: sums.payload_in,
            payload_out: sums.payload_out,
            bytes_in: sums.bytes_in,
            bytes_out: sums.bytes_out,
            ..Stats::default()
        }
    }

    /// What the averages are made of.
    pub(super) fn loads(&self) -> [u64; LOADS.len()] {
        self.totals.sums().loads(self.all_dropped.load(Ordering::Relaxed))
    }

    /// Sets the gauges that are counted now and then.
    pub(super) fn counted(&self, stats: &Stats) {
        self.disconnected.set(as_i64(stats.disconnected));
        self.queued.set(as_i64(stats.queued));
        self.queued_bytes.set(as_i64(stats.queued_bytes));
        self.in_flight.set(as_i64(stats.in_flight));
    }

    pub(super) fn sessions(&self, count: usize) {
        self.sessions.set(as_i64(count));
    }

    pub(super) fn subscriptions(&self, count: usize) {
        self.subscriptions.set(as_i64(count));
    }

    pub(super) fn retained(&self, topics: usize, bytes: usize) {
        self.retained.set(as_i64(topics));
        self.retained_bytes.set(as_i64(bytes));
    }

    pub(super) fn session_expired(&self) {
        self.expired.inc();
    }

    pub(super) fn lagging(&self, client: &ClientId) {
        self.lagging.inc();
        tracing::warn!(code = "mqtt_client_lagging", client = %client, "MQTT client reads too slowly: publishers no longer wait for it, what it does not fetch is dropped; look why it is slow");
    }

    pub(super) fn engine_restarted(&self) {
        self.engine_restarts.inc();
    }
}

fn as_i64(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
