//! When the log appenders of each Sense node were heard last, as the running program counted it.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{
    finding::{Finding, Section},
    program::span,
    running::Running,
};
use crate::config::Loaded;

const HERE: Section = Section::Events;
/// The metric the receiver keeps.
const LAST: &str = "sense_butler_udp_last_datagram_timestamp_seconds{";
/// A node that was silent for so long is worth a look, seconds.
const LONG: u64 = 24 * 3600;
/// What can be done about silence.
const REMEDY: &str = "Is the log appender file on that node (docs/log-appenders.md), with this machine's address and port? An upgrade of Qlik Sense \
     removes it. Is the firewall open for UDP? `serverHost: localhost` hears this machine only.";

/// What was heard.
pub fn look(loaded: &Loaded, running: Option<&Running>) -> Vec<Finding> {
    if !loaded.settings.udp.enable {
        return vec![HERE.ok("udpServerConfig.enable is false: no datagrams are received")];
    }
    let Some(running) = running.filter(|running| !running.metrics.is_empty()) else {
        return vec![
            HERE.ok("the running program tells when each node was heard last; it is not running, or does not tell us"),
        ];
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |passed| passed.as_secs());
    let heard: Vec<Finding> = running.metrics.lines().filter_map(read).map(|last| judge(&last, now)).collect();
    if !heard.is_empty() {
        return heard;
    }
    let since = running
        .since
        .as_ref()
        .map_or_else(|| "it started".to_owned(), |(_, up)| format!("its start {} ago", span(*up)));
    vec![HERE.warning(format!("no Sense node was heard since {since}"), REMEDY)]
}

/// A line of the metric.
#[derive(Debug, PartialEq, Eq)]
struct Last {
    host: String,
    port: String,
    at: u64,
}

/// Reads one line of OpenMetrics text; label values escape `\`, `"` and line ends.
fn read(line: &str) -> Option<Last> {
    let (labels, value) = line.strip_prefix(LAST)?.rsplit_once("} ")?;
    let label = |name: &str| {
        let rest = labels.split_once(&format!("{name}=\""))?.1;
        let mut text = String::new();
        let mut characters = rest.chars();
        loop {
            match characters.next()? {
                '"' => return Some(text),
                '\\' => text.push(characters.next().map(|next| if next == 'n' { ' ' } else { next })?),
                other => text.push(other),
            }
        }
    };
    let at = value.split(['.', ' ']).next()?.parse().ok()?;
    Some(Last { host: label("host")?, port: label("port")?, at })
}

fn judge(last: &Last, now: u64) -> Finding {
    let age = now.saturating_sub(last.at);
    let what = format!("node {}: last datagram ({} events) {} ago", last.host, last.port, span(age));
    if age > LONG { HERE.warning(what, REMEDY) } else { HERE.ok(what) }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn a_line_of_the_metrics_is_read() {
        let line = r#"sense_butler_udp_last_datagram_timestamp_seconds{port="task",host="sense-1 \"x\""} 1700000000"#;
        let last = read(line).unwrap();
        assert_eq!(last, Last { host: "sense-1 \"x\"".into(), port: "task".into(), at: 1_700_000_000 });
        assert_eq!(judge(&last, 1_700_000_030).level, Level::Ok);
        assert_eq!(judge(&last, 1_700_100_000).level, Level::Warning);
        assert_eq!(read("sense_butler_udp_queue_bytes 0"), None);
        assert_eq!(read("sense_butler_udp_last_datagram_timestamp_seconds{port=\"task} x"), None);
    }
}
