//! `udpServerConfig`

use std::{net::IpAddr, time::Duration};

use super::Context;
use crate::config::{
    address::{HostPort, check_host},
    settings::{Forwarding, Generation, UdpSettings},
    walk::{Item, Section},
};

/// Most places of one list to which datagrams are sent on.
const MOST_TARGETS: usize = 8;

/// Whether the file asks for the session port.
pub(super) fn names_session_port(butler: &Section<'_>) -> bool {
    butler.section("udpServerConfig").has("portSessionConnectionEvents")
}

pub(super) fn decode(section: Section<'_>, cx: &Context<'_>) -> Option<UdpSettings> {
    let enable = section.flag("enable", true);
    let section = section.used(enable);
    let udp = UdpSettings {
        enable,
        host: host(&section),
        task_port: section.port("portTaskFailure", 9998),
        session_port: section
            .number_if_written("portSessionConnectionEvents", 1..=65_535)
            .or(cx.built_in.then_some(9997)),
        max_message_size: section.number("maxMessageSize", 1..=65_535, 65_507),
        allowed_sources: sources(&section),
        rate_limit: rate_limit(section.section("rateLimit")),
        deduplication: deduplication(section.section("deduplication"), cx.generation),
        queue_max_bytes: section.number("queueMaxBytes", 65_536..=(4 << 30), 64 << 20),
        receive_buffer: section.number("receiveBuffer", 8_192..=(1 << 30), 4 << 20),
        forward: forwarding(&section),
    };
    without_effect(&section);
    section.finish();
    overridden(udp, cx)
}

/// `serverHost` of a server section: an address, `localhost`, or a name of this machine; `localhost` when absent.
pub(super) fn host(section: &Section<'_>) -> String {
    let Some(text) = section.text("serverHost") else { return "localhost".to_owned() };
    if let Err(error) = check_host(text) {
        section.report().error(&section.path_of("serverHost"), error.to_string());
    }
    text.to_owned()
}

/// With validation on, an empty or unusable list admits nobody.
fn sources(section: &Section<'_>) -> Option<Vec<String>> {
    let list = section.list("allowedSources");
    let texts: Vec<_> = list.iter().filter_map(|item| item.text().map(str::to_owned)).collect();
    section.flag("enableSourceValidation", false).then_some(texts)
}

fn rate_limit(section: Section<'_>) -> Option<u32> {
    let enable = section.flag("enable", false);
    let limit = section.number("maxMessagesPerMinute", 1..=u64::from(u32::MAX), 600);
    section.finish();
    enable.then_some(limit)
}

fn deduplication(section: Section<'_>, generation: Generation) -> Option<Duration> {
    let enable = section.flag("enable", generation == Generation::Head);
    let minutes: u64 = section.number("ttlMinutes", 1..=10_080, 10);
    section.finish();
    enable.then_some(Duration::from_secs(minutes * 60))
}

/// Session datagrams go where the others go, unless their own list is written; an empty one sends them nowhere.
fn forwarding(section: &Section<'_>) -> Forwarding {
    let task = targets(section, "forwardTo").unwrap_or_default();
    let session = targets(section, "forwardSessionsTo").unwrap_or_else(|| task.clone());
    Forwarding { task, session }
}

fn targets(section: &Section<'_>, key: &'static str) -> Option<Vec<HostPort>> {
    let mut targets: Vec<HostPort> = Vec::new();
    for item in section.list_if_written(key)? {
        let Some(target) = target(&item) else { continue };
        if targets.contains(&target) {
            item.error(format!("{target} stands there twice; it would get every datagram twice"));
        } else if targets.len() == MOST_TARGETS {
            item.error(format!("at most {MOST_TARGETS} places can be named"));
            break;
        }
        targets.push(target);
    }
    Some(targets)
}

fn target(item: &Item<'_>) -> Option<HostPort> {
    let parsed = item.text()?.parse::<HostPort>().map_err(|error| error.to_string());
    let usable = parsed.and_then(|target| match target.host.parse::<IpAddr>() {
        _ if target.port == 0 => Err("0 is no port to send to".to_owned()),
        Ok(address) if address.is_unspecified() || address.is_multicast() => {
            Err(format!("{address} is no address of one program; write e.g. 127.0.0.1:{}", target.port))
        }
        _ => Ok(target),
    });
    usable.inspect_err(|message| item.error(message.as_str())).ok()
}

/// Butler's own queue and its metrics: obeyed, they would bring its burst loss back.
fn without_effect(section: &Section<'_>) {
    let queue = section.section("messageQueue");
    queue.accept(&["maxConcurrent", "maxSize", "backpressureThreshold"]);
    if queue.is_written() {
        let message = "these keys have no effect: the queue is bounded in bytes by `queueMaxBytes`";
        section.report().warn(&section.path_of("messageQueue"), message);
    }
    queue.finish();
    let metrics = section.section("queueMetrics");
    let influx = metrics.section("influxdb");
    influx.accept(&["enable", "writeFrequency", "measurementName", "tags"]);
    influx.finish();
    metrics.finish();
}

fn overridden(mut udp: UdpSettings, cx: &Context<'_>) -> Option<UdpSettings> {
    if let Some(address) = &cx.overrides.udp {
        udp.host.clone_from(&address.host);
        udp.task_port = address.port;
        udp.enable = true;
    }
    if let Some(address) = &cx.overrides.udp_sessions {
        if address.host != udp.host {
            let message = format!("--udp-sessions {address} needs the host of the task port, {}", udp.host);
            cx.report.error("", message);
            return None;
        }
        udp.session_port = Some(address.port);
        udp.enable = true;
    }
    Some(udp)
}
