//! When each Sense node was heard last, for metrics and the doctor.
//!
//! Invariants: a node is what stands in the datagram, so anybody may claim to be one; therefore at most [`MOST`] names are kept for a port, the
//! rest is one node `others`, and a name holds nothing but letters, digits, `.`, `-` and `_`.

use std::{
    collections::HashMap,
    time::{SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    metrics::{family::Family, gauge::Gauge},
    registry::Registry,
};

use super::socket::Port;

/// Names that are kept for one port; sites have a dozen.
const MOST: usize = 64;
/// Longest name, bytes: the longest of DNS.
const LONGEST: usize = 253;
/// Stands for every name beyond them.
const OTHERS: &str = "others";

type Labels = [(&'static str, String); 2];

/// The nodes as they were heard.
#[derive(Debug)]
pub(super) struct Nodes {
    family: Family<Labels, Gauge>,
    task: HashMap<String, Gauge>,
    session: HashMap<String, Gauge>,
}

impl Nodes {
    /// Nobody was heard yet.
    pub(super) fn new(registry: &mut Registry) -> Self {
        let family = Family::default();
        let help = "When a node was heard last by a datagram that could be read, seconds since 1970 (UTC)";
        registry.register("sense_butler_udp_last_datagram_timestamp_seconds", help, family.clone());
        Self { family, task: HashMap::new(), session: HashMap::new() }
    }

    /// A node was heard.
    pub(super) fn heard(&mut self, port: Port, host: &str, at: SystemTime) {
        let known = match port {
            Port::Task => &mut self.task,
            Port::Session => &mut self.session,
        };
        let seconds = at.duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs());
        let seconds = i64::try_from(seconds).unwrap_or(i64::MAX);
        if let Some(gauge) = known.get(host) {
            gauge.set(seconds);
            return;
        }
        let is_kept = known.len() < MOST && host.len() <= LONGEST;
        let name = if is_kept { plain(host) } else { OTHERS.to_owned() };
        let gauge = self.family.get_or_create(&[("port", port.as_str().to_owned()), ("host", name)]).clone();
        gauge.set(seconds);
        if is_kept {
            known.insert(host.to_owned(), gauge);
        }
    }
}

fn plain(host: &str) -> String {
    let tame = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '-') { c } else { '_' };
    host.chars().map(tame).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn nodes_are_told_by_name_and_their_number_is_bounded() {
        let mut registry = Registry::default();
        let mut nodes = Nodes::new(&mut registry);
        let at = UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        for number in 0..100 {
            nodes.heard(Port::Task, &format!("sense-{number}"), at);
        }
        nodes.heard(Port::Session, "a\"b\nc", at);
        let text = crate::telemetry::metrics::encode(&registry);
        let rows = text.lines().filter(|line| line.starts_with("sense_butler_udp_last")).count();
        assert_eq!(rows, MOST + 2, "{text}");
        for row in [
            "{port=\"task\",host=\"sense-0\"} 1700000000",
            "{port=\"task\",host=\"others\"} 1700000000",
            "{port=\"session\",host=\"a_b_c\"} 1700000000",
        ] {
            assert!(text.contains(row), "{row}: {text}");
        }
    }
}
