//! What a Butler file switches on and this program does not do, in plain words.
//!
//! Invariant: a section of Butler is accepted whatever it holds; nothing of it is read but its switches and, for the scheduler, the number
//! of its jobs.

use std::fs;

use super::Context;
use crate::config::{
    tree::{Node, Value},
    walk::Section,
    yaml,
};

/// Butler's sections this program does not own, and what will not happen when they are on. `None`: nothing anybody would miss.
const SECTIONS: [(&str, Option<&str>); 30] = [
    ("scheduler", Some("its schedules will not run")),
    ("emailNotification", Some("no e-mails will be sent")),
    ("slackNotification", Some("no Slack messages will be sent")),
    ("slackConfig", Some("no Slack messages will be sent")),
    ("teamsNotification", Some("no Teams messages will be sent")),
    ("teamsConfig", Some("no Teams messages will be sent")),
    ("webhookNotification", Some("no outgoing webhooks will be called")),
    ("incidentTool", Some("no incidents will be opened")),
    ("influxDb", Some("nothing will be written to InfluxDB")),
    ("newRelic", Some("nothing will be sent to New Relic")),
    ("scriptLog", Some("script logs will not be stored")),
    ("heartbeat", Some("no heartbeats will be sent")),
    ("uptimeMonitor", Some("uptime will not be logged or stored")),
    ("serviceMonitor", Some("Windows services will not be watched")),
    ("qlikSenseLicense", Some("licences will not be watched")),
    ("qlikSenseVersion", Some("the version of Qlik Sense will not be watched")),
    ("qlikSenseCloud", Some("nothing of Qlik Cloud will be forwarded")),
    ("configVisualisation", Some("the configuration will not be shown on a web page")),
    ("restServerApiDocGenerate", None),
    ("restServerEndpointsConfig", None),
    ("thirdPartyToolsCredentials", None),
    ("qlikSenseUrls", None),
    ("appNames", None),
    ("configEngine", None),
    ("systemInfo", None),
    ("anonTelemetry", None),
    ("gitHub", None),
    ("fileCopyApprovedDirectories", None),
    ("fileMoveApprovedDirectories", None),
    ("fileDeleteApprovedDirectories", None),
];

pub(super) fn collect(butler: &Section<'_>, cx: &Context<'_>) -> Vec<String> {
    let mut found = Vec::new();
    for (name, words) in SECTIONS {
        let Some(node) = butler.find(name) else { continue };
        match words {
            Some(_) if name == "scheduler" && is_on(node) => found.push(schedules(node, cx)),
            Some(words) if is_on(node) => found.push(format!("{name} is on, but {words}; keep Butler for that")),
            _ => {}
        }
    }
    if butler.section("mqttConfig").find("qlikSenseCloud").is_some_and(is_on) {
        found.push(
            "mqttConfig.qlikSenseCloud is on, but nothing of Qlik Cloud will be forwarded; keep Butler for that".into(),
        );
    }
    if butler.section("udpServerConfig").section("queueMetrics").find("influxdb").is_some_and(is_on) {
        found
            .push("udpServerConfig.queueMetrics is on, but queue metrics will not go to InfluxDB; see /metrics".into());
    }
    found
}

/// Whether an `enable: true` holds here: one below an `enable: false` does not.
fn is_on(node: &Node) -> bool {
    match &node.value {
        Value::Map(entries) => {
            match entries.iter().find(|entry| entry.key == "enable").map(|entry| &entry.node.value) {
                Some(Value::Bool(on)) => *on,
                _ => entries.iter().any(|entry| is_on(&entry.node)),
            }
        }
        Value::List(items) => items.iter().any(is_on),
        _ => false,
    }
}

fn schedules(node: &Node, cx: &Context<'_>) -> String {
    match number_of_schedules(node, cx) {
        Some(number) => format!("scheduler is on, but {number} schedules will not run; keep Butler for them"),
        None => "scheduler is on, but its schedules will not run; keep Butler for them".to_owned(),
    }
}

/// Counts the jobs of `scheduler.configfile`, if it is there and readable.
fn number_of_schedules(node: &Node, cx: &Context<'_>) -> Option<usize> {
    let Value::Map(entries) = &node.value else { return None };
    let configfile = entries.iter().find(|entry| entry.key == "configfile")?;
    let Value::Text(name) = &configfile.node.value else { return None };
    // Butler reads it relative to its working directory, which is the parent of `config/`.
    let candidates = [cx.base.join(name), cx.base.join("..").join(name)];
    let text = candidates.iter().find_map(|file| fs::read_to_string(file).ok())?;
    let root = yaml::parse(&text).ok()??;
    let Value::Map(entries) = &root.value else { return None };
    match &entries.iter().find(|entry| entry.key == "butlerSchedule")?.node.value {
        Value::List(jobs) => Some(jobs.len()),
        Value::Null => Some(0),
        _ => None,
    }
}
