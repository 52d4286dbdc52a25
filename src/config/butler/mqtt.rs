//! `mqttConfig`: topics, switches and the choice of the broker.

use std::time::Duration;

use super::{Context, broker_choice, topics};
use crate::config::{
    settings::{Generation, MqttSettings},
    tree::Value,
    walk::{Item, Section},
};

/// QRS's names for its task types, by number.
const TASK_TYPES: [&str; 5] = ["reload", "externalProgram", "userSync", "distribute", "preload"];

pub(super) fn decode(section: Section<'_>, cx: &Context<'_>, session_port: bool) -> Option<MqttSettings> {
    let enable = section.flag("enable", true);
    let section = section.used(enable);
    let choice = broker_choice::decode(&section, cx);
    let topics = topics::decode(&section, cx, session_port);
    let wait = if cx.generation == Generation::V5_4 { 0 } else { 300 };
    let enrichment_wait = Duration::from_millis(section.number("qrsEnrichmentWaitMs", 0..=60_000, wait));
    let task_types = section.list_if_written("taskTypes").map(|items| items.iter().filter_map(task_type).collect());
    let rest_qos_retain = section.flag("restQosRetain", false);
    // Butler's service and licence monitors and its cloud forwarding: the switches are looked at where the unoffered parts are listed.
    section.accept(&[
        "serviceRunningTopic",
        "serviceStoppedTopic",
        "serviceStatusTopic",
        "qlikSenseServerLicenseTopic",
        "qlikSenseServerLicenseExpireTopic",
        "qlikSenseCloud",
    ]);
    section.finish();
    let (broker, broker_reason) = choice?;
    let topics = topics?;
    Some(MqttSettings {
        enable,
        broker,
        broker_reason,
        subscription_root: topics.subscription_root,
        task_start: topics.task_start,
        failed: topics.failed,
        aborted: topics.aborted,
        succeeded: topics.succeeded,
        distributed: topics.distributed,
        failure_server_status: topics.failure_server_status,
        session: topics.session,
        own_topics: topics.own_topics,
        task_types,
        enrichment_wait,
        rest_qos_retain,
    })
}

fn task_type(item: &Item<'_>) -> Option<u8> {
    let found = match item.value() {
        Value::Text(text) => TASK_TYPES.iter().position(|name| name.eq_ignore_ascii_case(text)),
        Value::Number(text) => text.parse().ok().filter(|number| *number < TASK_TYPES.len()),
        _ => None,
    };
    if found.is_none() {
        item.error(format!("a task type is one of {}", TASK_TYPES.join(", ")));
    }
    found.and_then(|number| u8::try_from(number).ok())
}
