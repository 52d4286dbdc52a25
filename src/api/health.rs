//! `GET /livez` and `/readyz`: for monitors and load balancers; open to everybody, without secrets.
//!
//! `/livez`: the process answers. `/readyz`: every part does its work (200), or which does not (503).

use serde_json::json;

use super::{answer::Answer, state::State};

pub(super) fn livez() -> Answer {
    Answer::json(200, r#"{"status":"ok"}"#).with("cache-control", "no-store")
}

pub(super) fn readyz(state: &State) -> Answer {
    let readiness = &state.setup.readiness;
    let ready = readiness.is_ready();
    let body = json!({"ready": ready, "parts": readiness.parts()});
    Answer::json(if ready { 200 } else { 503 }, body.to_string()).with("cache-control", "no-store")
}
