//! `GET /v4/configfile/endpointsenabled`: the keys of `restServerEndpointsEnable` that are on and offered, as one array.
//!
//! Order and spelling are those of each generation's template (v5.4 spells `apiListEnbledEndpoints`). Keys that are on and not offered are not
//! listed: a caller who reads the list must be able to rely on it.

use serde_json::json;

use super::{answer::Answer, state::State};
use crate::config::settings::Generation;

pub(super) fn handle(state: &State) -> Answer {
    let on = state.setup.rest.endpoints;
    let list_key = match state.setup.generation {
        Generation::V5_4 => "apiListEnbledEndpoints",
        Generation::Head => "apiListEnabledEndpoints",
    };
    let keys = [
        ("activeUserCount", on.active_user_count),
        ("activeUsers", on.active_users),
        (list_key, on.list_endpoints),
        ("butlerping", on.butlerping),
        ("keyValueStore", on.key_values),
        ("mqttPublishMessage", on.mqtt_publish),
        ("senseStartTask", on.start_task),
    ];
    let enabled: Vec<&str> = keys.into_iter().filter_map(|(key, on)| on.then_some(key)).collect();
    Answer::json(200, json!(enabled).to_string())
}
