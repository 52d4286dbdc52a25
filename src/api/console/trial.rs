//! `POST /console/test-event`: sends an event as a Sense node does, and says whether it arrived.

use serde::Deserialize;
use serde_json::json;

use super::{console, error};
use crate::{
    api::{
        answer::{Answer, Request},
        fault::{Fault, Kind},
        state::State,
    },
    console::trial::{Ending, PATIENCE, TASK, TrialError},
};

/// What is sent to ask for one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    kind: String,
}

/// # Errors
/// 400 for what is no wish, 503 when it cannot be sent.
pub(in crate::api) async fn trial(state: &State, request: &Request) -> Result<Answer, Fault> {
    let wish = serde_json::from_slice::<Wish>(&request.body).ok();
    let ending = match wish.as_ref().map(|wish| wish.kind.as_str()) {
        Some("succeeded") => Ending::Succeeded,
        Some("failed") => Ending::Failed,
        _ => {
            let message = r#"the body must be {"kind":"succeeded"} or {"kind":"failed"}"#;
            return Err(Fault::new(Kind::Value, message));
        }
    };
    let user = request.visitor_name();
    tracing::info!(peer = %request.peer, user = user.as_deref(), ?ending, "a test event was asked for in the console");
    match console(state)?.trial.send(ending).await {
        Ok(report) => {
            let remedy = report.took.is_none().then(|| {
                format!(
                    "it did not arrive within {} s. Does udpServerConfig.allowedSources let {} pass, are events published (mqttConfig.enable), \
                     and does the log say why it was dropped?",
                    PATIENCE.as_secs(),
                    report.to.ip()
                )
            });
            let body = json!({
                "sentTo": report.to,
                "task": TASK,
                "arrived": report.took.is_some(),
                "milliseconds": report.took.map(|took| took.as_secs_f64() * 1_000.0),
                "remedy": remedy,
            });
            Ok(Answer::json(200, body.to_string()).with("cache-control", "no-store"))
        }
        Err(why @ TrialError::Deaf) => Ok(error(409, "no_datagrams", &why.to_string())),
        Err(why) => Ok(error(503, "not_sent", &why.to_string())),
    }
}
