//! `GET /api/v1/status`: what runs, since when, in which state, for people and scripts.

use serde_json::json;

use super::{answer::Answer, state::State};

pub(super) fn handle(state: &State) -> Answer {
    let setup = &state.setup;
    let body = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptimeSeconds": state.started.elapsed().as_secs(),
        "ready": setup.readiness.is_ready(),
        "broker": setup.broker,
        "brokerUp": setup.bus.is_up(),
        "parts": setup.readiness.parts(),
    });
    Answer::json(200, body.to_string()).with("cache-control", "no-store")
}
