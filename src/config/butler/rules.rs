//! Rules between keys of `butler.yaml`: the closed doors, and topics that would go in a circle.

use std::sync::Arc;

use super::Context;
use crate::{
    broker,
    config::{
        address::{HostPort, addresses_of, is_loopback, is_this_machine},
        broker_file::no_such,
        diagnostic::Report,
        settings::{MqttSettings, QrsVerify, Settings, StartTopic, UserFilter},
    },
    names::TopicName,
};

pub(super) fn check(settings: &Settings, cx: &Context<'_>) {
    if settings.mqtt.enable {
        topics(&settings.mqtt, cx);
        start_topics(settings, cx);
    }
    rest(settings, cx);
    udp(settings, cx);
    circles(settings, cx);
    qrs(settings, cx);
    sources(settings, cx);
    for words in &settings.not_offered {
        cx.report.warn("", words);
    }
}

/// Both other sources ask QRS.
fn sources(settings: &Settings, cx: &Context<'_>) {
    let sources = &settings.sources;
    let on = [("polling", sources.polling.is_some()), ("notifications", sources.notifications.is_some())];
    for (name, _) in on.iter().filter(|(_, on)| *on && settings.qrs.host.is_none()) {
        let message = "this source asks the Qlik Sense Repository Service; write `configQRS.host`, or switch it off";
        cx.report.error(&format!("Butler.eventSources.{name}.enable"), message);
    }
}

fn topics(mqtt: &MqttSettings, cx: &Context<'_>) {
    const START: &str = "Butler.mqttConfig.taskStartTopic";
    if !mqtt.subscription_root.matches(mqtt.task_start.as_str()) {
        let message = format!(
            "\"{}\" is outside subscriptionRootTopic \"{}\", so no start message would ever arrive; change one of the two",
            mqtt.task_start, mqtt.subscription_root
        );
        cx.report.error(START, message);
    }
    if below(&mqtt.task_start, &mqtt.own_topics) {
        let message =
            format!("\"{}\" is below \"{}\", where only this program publishes", mqtt.task_start, mqtt.own_topics);
        cx.report.error(START, message);
    }
    let published = published_topics(mqtt);
    for (key, topic) in &published {
        if *topic == mqtt.task_start {
            let message =
                format!("\"{topic}\" is also taskStartTopic: every such message would be taken for a start request");
            cx.report.error(&format!("Butler.mqttConfig.{key}"), message);
        }
    }
    for (position, (key, topic)) in published.iter().enumerate() {
        if let Some((other, _)) = published.iter().skip(position + 1).find(|(_, other)| other == topic) {
            let key = format!("Butler.mqttConfig.{key}");
            cx.report
                .warn(&key, format!("\"{topic}\" is also the topic of {other}; subscribers cannot tell the two apart"));
        }
    }
}

/// Lists of users whom `broker.toml` does not know: most likely misspelt, and then they bound nobody.
pub(in crate::config) fn users(settings: &Settings, broker: &broker::settings::Settings, report: &Report) {
    let known: Vec<_> = broker.users.iter().map(|user| Arc::clone(&user.name)).collect();
    for (position, UserFilter { user, .. }) in settings.start.users.iter().enumerate() {
        if !known.iter().any(|name| **name == **user) {
            let why = format!("this list bounds nobody: in broker.toml {}", no_such("user", user, &known));
            report.warn(&format!("Butler.startTask.users[{position}].user"), why);
        }
    }
}

/// Start topics beside the first one: each its own, none where the program itself speaks.
fn start_topics(settings: &Settings, cx: &Context<'_>) {
    let mqtt = &settings.mqtt;
    let published = published_topics(mqtt);
    for (position, StartTopic { topic, .. }) in settings.start.topics.iter().enumerate() {
        let before = settings.start.topics.iter().take(position);
        let published = published.iter().find(|(_, other)| other == topic);
        let why = if *topic == mqtt.task_start {
            "it is taskStartTopic already".to_owned()
        } else if below(topic, &mqtt.own_topics) {
            format!("it is below \"{}\", where only this program publishes", mqtt.own_topics)
        } else if let Some((key, _)) = published {
            format!("it is also the topic of {key}: every such message would be taken for a start request")
        } else if before.into_iter().any(|other| other.topic == *topic) {
            "it stands there twice".to_owned()
        } else {
            continue;
        };
        let key = format!("Butler.startTask.topics[{position}]");
        cx.report.error(&key, format!("\"{topic}\" cannot be a start topic: {why}"));
    }
}

fn below(topic: &TopicName, root: &TopicName) -> bool {
    topic.as_str().strip_prefix(root.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// Every topic this program publishes to, with the key that names it.
pub(in crate::config) fn published_topics(mqtt: &MqttSettings) -> Vec<(&'static str, TopicName)> {
    let mut topics = vec![
        ("taskFailureTopic", &mqtt.failed.basic),
        ("taskFailureFullTopic", &mqtt.failed.full),
        ("taskAbortedTopic", &mqtt.aborted.basic),
        ("taskAbortedFullTopic", &mqtt.aborted.full),
        ("taskSuccessTopic", &mqtt.succeeded.basic),
        ("taskSuccessFullTopic", &mqtt.succeeded.full),
        ("taskDistributeTopic", &mqtt.distributed.basic),
        ("taskDistributeFullTopic", &mqtt.distributed.full),
        ("taskFailureServerStatusTopic", &mqtt.failure_server_status),
    ];
    if let Some(session) = &mqtt.session {
        topics.extend([
            ("sessionStartTopic", &session.session_start),
            ("sessionStopTopic", &session.session_stop),
            ("connectionOpenTopic", &session.connection_open),
            ("connectionCloseTopic", &session.connection_close),
            ("sessionServerStatusTopic", &session.server_status),
            ("activeUserCountTopic", &session.active_user_count),
            ("activeUsersTopic", &session.active_users),
        ]);
    }
    topics.into_iter().map(|(key, topic)| (key, topic.clone())).collect()
}

/// Design: closed doors. Other machines reach REST only after two deliberate lines.
fn rest(settings: &Settings, cx: &Context<'_>) {
    let rest = &settings.rest;
    if !rest.enable || is_loopback(&rest.host) {
        return;
    }
    let mut lines = Vec::new();
    let mut reasons = Vec::new();
    if rest.tls.is_none() && !rest.allow_plaintext {
        reasons.push("messages and start requests would cross the network unencrypted (no `tls`)");
        lines.push("allowPlaintext: true");
    }
    if rest.allowed_sources.is_empty() && rest.tokens != Some(true) {
        reasons.push("nobody is named who may publish and start tasks");
        lines
            .push("allowedSources: [10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16]   # the networks of your Sense servers");
    }
    if !reasons.is_empty() {
        refuse_rest(&rest.host, &reasons.join("; "), &lines, cx);
    }
}

/// The lines are indented as the file is, so that they can be pasted below `serverHost`.
fn refuse_rest(host: &str, reasons: &str, lines: &[&str], cx: &Context<'_>) {
    const KEY: &str = "Butler.restServerConfig.serverHost";
    let (place, indent, head) = match cx.report.indent(KEY) {
        Some(indent) => ("below this line", indent, None),
        None => ("to butler.yaml, under `Butler:`", "    ".to_owned(), Some("  restServerConfig:".to_owned())),
    };
    let message = format!(
        "REST on {host}, which other machines can reach, is refused: {reasons}. Write localhost instead, or add {place}:"
    );
    let lines = head.into_iter().chain(lines.iter().map(|line| format!("{indent}{line}"))).collect();
    cx.report.error_with(KEY, message, lines);
}

fn udp(settings: &Settings, cx: &Context<'_>) {
    let udp = &settings.udp;
    if udp.enable && udp.allowed_sources.is_none() && !is_loopback(&udp.host) {
        let message = format!(
            "everybody who can reach {} can send events; to allow the Sense nodes alone, set enableSourceValidation: true and \
             allowedSources: [their addresses]",
            udp.host
        );
        cx.report.warn("Butler.udpServerConfig.serverHost", message);
    }
    if udp.enable && udp.session_port.is_none() && settings.mqtt.session.is_some() {
        let message = "session topics are named, but no port to receive session events on; add it, e.g. 9997";
        cx.report.warn("Butler.udpServerConfig.portSessionConnectionEvents", message);
    }
    if udp.enable && udp.session_port == Some(udp.task_port) && udp.task_port != 0 {
        cx.report.error(
            "Butler.udpServerConfig.portSessionConnectionEvents",
            "this is the port of portTaskFailure, too; they must differ",
        );
    }
}

/// What is sent on to a port of ours comes back for ever. A name that only the system knows is looked at when it was looked up.
fn circles(settings: &Settings, cx: &Context<'_>) {
    const SESSIONS: &str = "Butler.udpServerConfig.forwardSessionsTo";
    let udp = &settings.udp;
    if !udp.enable {
        return;
    }
    let own = [("portTaskFailure", Some(udp.task_port)), ("portSessionConnectionEvents", udp.session_port)];
    let lists = [("Butler.udpServerConfig.forwardTo", &udp.forward.task), (SESSIONS, &udp.forward.session)];
    for (key, targets) in lists.into_iter().filter(|(key, _)| *key != SESSIONS || cx.report.wrote(SESSIONS)) {
        for (position, target) in targets.iter().enumerate() {
            let port = own.iter().find(|(_, port)| *port == Some(target.port));
            if let Some((port, _)) = port.filter(|_| reaches(target, &udp.host, cx)) {
                let message = format!(
                    "{target} is this program's own {port}: every datagram would come back for ever; write the port of the other program"
                );
                cx.report.error(&format!("{key}[{position}]"), message);
            }
        }
    }
}

/// Whether what is sent to a host arrives at a socket of this machine that is bound to `bound`.
fn reaches(target: &HostPort, bound: &str, cx: &Context<'_>) -> bool {
    let same = |address: &std::net::IpAddr| address.to_canonical();
    match addresses_of(bound) {
        Some(bound) if bound.iter().any(std::net::IpAddr::is_unspecified) => {
            is_this_machine(&target.host, &cx.options.host_name, &cx.options.own_addresses)
        }
        Some(bound) => addresses_of(&target.host)
            .is_some_and(|targets| targets.iter().any(|one| bound.iter().any(|other| same(other) == same(one)))),
        None => target.host.eq_ignore_ascii_case(bound),
    }
}

fn qrs(settings: &Settings, cx: &Context<'_>) {
    let qrs = &settings.qrs;
    if qrs.host.is_none() {
        cx.report.warn("Butler.configQRS.host", "it is absent: no Qlik Sense is known, so no task can be started");
        return;
    }
    if qrs.verify == QrsVerify::Insecure && qrs.use_tls {
        let message =
            "the certificate of QRS is not checked; anybody in between can read and change what is sent there";
        cx.report.warn("Butler.configQRS.rejectUnauthorized", message);
    }
    let missing = [("clientCert", &qrs.client_cert), ("clientCertKey", &qrs.client_key), ("clientCertCA", &qrs.ca)];
    for (key, file) in missing {
        let needed = key != "clientCertCA" || matches!(qrs.verify, QrsVerify::Ca { .. });
        if file.is_none() && needed && qrs.use_tls {
            let message = "it is absent; until it names the file Qlik Sense exported, no task can be started";
            cx.report.warn(&format!("Butler.cert.{key}"), message);
        }
    }
}
