//! Numbers of the whole broker: for REST, and as `$SYS/broker/...` under the names mosquitto gave them, which MQTT Explorer, Home Assistant and
//! other programs know (mosquitto(8), "Broker status").
//!
//! Loads are averages over 1, 5 and 15 minutes of what happened per minute, exponentially damped: each step of ten seconds they move by
//! `1 - e^(-10 s / period)` towards its rate.

use std::{sync::Arc, time::Duration};

use super::traffic::Sums;

/// Averages over 1, 5 and 15 minutes, per minute.
pub type Averages = [f64; 3];

/// What loads are kept of, by mosquitto's names.
pub(in crate::broker) const LOADS: [&str; 9] = [
    "messages/received",
    "messages/sent",
    "publish/received",
    "publish/sent",
    "publish/dropped",
    "bytes/received",
    "bytes/sent",
    "sockets",
    "connections",
];
/// Their periods, minutes.
const PERIODS: [f64; 3] = [1.0, 5.0, 15.0];

/// The whole broker at one moment. Parts of this program count as clients nowhere here; their messages do.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Stats {
    /// How long it has been up.
    pub uptime: Duration,
    /// Milliseconds since 1970 when it began.
    pub since: u64,
    /// Clients connected.
    pub connected: usize,
    /// Clients away whose sessions are kept.
    pub disconnected: usize,
    /// Most clients connected at a time.
    pub maximum: usize,
    /// Sessions that ended by expiry.
    pub expired: u64,
    /// Subscriptions, those of this program included.
    pub subscriptions: usize,
    /// Those of them to shared groups.
    pub shared_subscriptions: usize,
    /// Retained messages.
    pub retained: usize,
    /// Memory they take, bytes.
    pub retained_bytes: usize,
    /// Messages waiting in the queues of sessions and stored groups; one that waits for two counts twice.
    pub queued: usize,
    /// Bytes of those in memory.
    pub queued_bytes: usize,
    /// Messages sent with QoS 1 and 2 and not acknowledged.
    pub in_flight: usize,
    /// Packets received, of all types.
    pub packets_in: u64,
    /// Packets sent, of all types.
    pub packets_out: u64,
    /// PUBLISH packets received.
    pub messages_in: u64,
    /// PUBLISH packets sent.
    pub messages_out: u64,
    /// Messages dropped, for any reason.
    pub dropped: u64,
    /// Messages nobody subscribed to.
    pub unmatched: u64,
    /// Payload of PUBLISH packets received, bytes.
    pub payload_in: u64,
    /// Payload of PUBLISH packets sent, bytes.
    pub payload_out: u64,
    /// Bytes received.
    pub bytes_in: u64,
    /// Bytes sent.
    pub bytes_out: u64,
    /// Name and averages.
    pub loads: Vec<(&'static str, Averages)>,
}

/// The averages, moved every ten seconds.
#[derive(Debug, Default)]
pub(in crate::broker) struct Load {
    before: [u64; LOADS.len()],
    averages: [Averages; LOADS.len()],
}

impl Load {
    /// A step of `seconds` ended with these totals.
    pub(in crate::broker) fn step(&mut self, totals: [u64; LOADS.len()], seconds: f64) {
        if seconds <= 0.0 {
            return;
        }
        for ((average, before), total) in self.averages.iter_mut().zip(&mut self.before).zip(totals) {
            #[expect(clippy::cast_precision_loss, reason = "a rate of more than 2^52 per step is not met")]
            let rate = total.saturating_sub(*before) as f64 * 60.0 / seconds;
            *before = total;
            for (value, minutes) in average.iter_mut().zip(PERIODS) {
                *value = rate + (-seconds / (minutes * 60.0)).exp() * (*value - rate);
            }
        }
    }

    pub(in crate::broker) fn averages(&self) -> Vec<(&'static str, Averages)> {
        LOADS.into_iter().zip(self.averages).collect()
    }
}

impl Sums {
    /// In the order of [`LOADS`].
    pub(in crate::broker) fn loads(&self, dropped: u64) -> [u64; LOADS.len()] {
        [
            self.packets_in,
            self.packets_out,
            self.messages_in,
            self.messages_out,
            dropped,
            self.bytes_in,
            self.bytes_out,
            self.sockets,
            self.connects,
        ]
    }
}

/// Topics below `$SYS/broker/` and their values.
pub(in crate::broker) fn sys_topics(stats: &Stats) -> Vec<(Arc<str>, String)> {
    let mut topics = fixed(stats);
    for (name, averages) in &stats.loads {
        for (value, period) in averages.iter().zip(["1min", "5min", "15min"]) {
            topics.push((Arc::from(format!("load/{name}/{period}")), format!("{value:.2}")));
        }
    }
    topics
}

fn fixed(stats: &Stats) -> Vec<(Arc<str>, String)> {
    let text = |name: &str, value: String| (Arc::from(name), value);
    let count = |name: &str, value: usize| (Arc::from(name), value.to_string());
    let total = |name: &str, value: u64| (Arc::from(name), value.to_string());
    vec![
        text("version", concat!("sense-butler version ", env!("CARGO_PKG_VERSION")).to_owned()),
        text("timestamp", super::rfc3339(stats.since)),
        text("uptime", format!("{} seconds", stats.uptime.as_secs())),
        count("clients/total", stats.connected + stats.disconnected),
        count("clients/connected", stats.connected),
        count("clients/active", stats.connected),
        count("clients/disconnected", stats.disconnected),
        count("clients/inactive", stats.disconnected),
        count("clients/maximum", stats.maximum),
        total("clients/expired", stats.expired),
        total("messages/received", stats.packets_in),
        total("messages/sent", stats.packets_out),
        count("messages/stored", stats.retained + stats.queued),
        count("messages/inflight", stats.in_flight),
        total("publish/messages/received", stats.messages_in),
        total("publish/messages/sent", stats.messages_out),
        total("publish/messages/dropped", stats.dropped),
        total("publish/bytes/received", stats.payload_in),
        total("publish/bytes/sent", stats.payload_out),
        total("bytes/received", stats.bytes_in),
        total("bytes/sent", stats.bytes_out),
        count("subscriptions/count", stats.subscriptions),
        count("shared_subscriptions/count", stats.shared_subscriptions),
        count("retained messages/count", stats.retained),
        count("store/messages/count", stats.retained + stats.queued),
        count("store/messages/bytes", stats.retained_bytes + stats.queued_bytes),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_rise_towards_the_rate_and_fall_after_it() {
        let (mut load, mut total) = (Load::default(), 0);
        for _ in 0..360 {
            total += 50;
            load.step([total; LOADS.len()], 10.0);
        }
        let (_, [one, five, fifteen]) = load.averages()[0];
        assert!((one - 300.0).abs() < 0.1 && (five - 300.0).abs() < 0.1, "{one} {five}");
        // After an hour, 1 - e^-4 of the rate.
        assert!((fifteen - 300.0 * (1.0 - (-4.0f64).exp())).abs() < 0.1, "{fifteen}");
        for _ in 0..6 {
            load.step([total; LOADS.len()], 10.0);
        }
        let (_, [one, five, fifteen]) = load.averages()[0];
        assert!((one - 300.0 * (-1.0f64).exp()).abs() < 0.1, "{one}");
        assert!(one < five && five < fifteen);
    }

    #[test]
    fn every_topic_is_said_once() {
        let stats = Stats { loads: Load::default().averages(), connected: 3, disconnected: 2, ..Stats::default() };
        let topics = sys_topics(&stats);
        let names: std::collections::BTreeSet<_> = topics.iter().map(|(name, _)| name).collect();
        assert_eq!((names.len(), topics.len()), (53, 53));
        let value = |name: &str| topics.iter().find(|(topic, _)| &**topic == name).map(|(_, value)| value.as_str());
        assert_eq!((value("clients/total"), value("load/bytes/sent/15min")), (Some("5"), Some("0.00")));
    }
}
