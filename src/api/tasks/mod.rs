//! Tasks and executions of Qlik Sense, one file per resource: what there is, starting, following, stopping.
//!
//! What the files share: the state, how long a caller may wait, the words for what goes wrong. Invariants: a start by this door and one by MQTT
//! are the same request with the same answers; whoever hangs up stops nothing; nobody waits longer than [`LONGEST_WAIT`], nor beyond a stop
//! of the program.

mod execution;
mod executions;
mod list;
mod one;
mod soft;
mod start;
mod stop;

pub(super) use self::{
    execution::one as execution, executions::list as executions, list::list, one::one, soft::fault as soft_fault,
    soft::is_soft, start::start, stop::stop,
};

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    answer::{Answer, Request},
    broker_desk::Query,
    fault::{Fault, Kind, request_id},
    state::State,
};
use crate::{
    names::{ExecutionId, TaskId},
    sense::{
        qrs::QrsError,
        tasks::{
            Starter,
            audit::Asker,
            request::{StartOutcome, StartStatus},
        },
    },
};

/// `POST` starts tasks.
pub(super) const START: &str = "/api/v1/tasks/start";
/// Where single tasks are.
pub(super) const TASKS: &str = "/api/v1/tasks/";
/// Where single executions are.
pub(super) const EXECUTIONS: &str = "/api/v1/executions/";
/// Below an execution.
const STOP: &str = "/stop";
/// The door in answers and in the audit log.
pub(super) const DOOR: &str = "rest";
/// The longest a caller may wait for an answer.
pub(super) const LONGEST_WAIT: Duration = Duration::from_secs(1_000);
/// How long one waits who does not say.
const USUAL_WAIT: Duration = Duration::from_secs(60);

/// What these resources need.
#[derive(Clone)]
pub struct TasksState {
    /// Who starts, follows and stops.
    pub starter: Starter,
}

/// Writes down that a caller was refused who may not start or stop anything.
pub(super) fn refused(state: &State, (peer, user): (std::net::IpAddr, Option<&str>), fault: &Fault) {
    let (address, outcome) = (
        peer.to_canonical().to_string(),
        StartOutcome::failed(StartStatus::Denied, "forbidden", fault.message.as_str()),
    );
    let asker = Asker { user: user.map(str::to_owned), address: Some(address.clone()), ..Asker::default() };
    state.setup.tasks.starter.audit().refused((DOOR, user.unwrap_or(&address), &asker), None, &outcome);
}

/// The caller, as answers and the audit log tell it: by name who is logged in to the console or shows a
/// token, by address everybody else.
pub(super) fn asker(request: &Request) -> (String, Asker) {
    let token = || request.token.as_ref().map(|token| token.name.to_string());
    let user = request.visitor_name().map(|name| name.to_string()).or_else(token);
    (request.requester(), Asker { user, address: Some(request.address()), ..Asker::default() })
}

fn task_id(text: &str) -> Result<TaskId, Fault> {
    text.parse().map_err(|error: crate::names::GuidError| Fault::new(Kind::Value, error.to_string()))
}

fn execution_id(text: &str) -> Result<ExecutionId, Fault> {
    text.parse().map_err(|error: crate::names::GuidError| Fault::new(Kind::Value, error.to_string()))
}

/// `limit`: how many rows at most.
fn limit(query: &Query, most: usize, usual: usize) -> Result<usize, Fault> {
    let Some(text) = query.get("limit") else { return Ok(usual) };
    let number = text.parse().ok().filter(|limit| (1..=most).contains(limit));
    number.ok_or_else(|| Fault::new(Kind::Value, format!("`limit` must be a number from 1 to {most}")))
}

/// `timeout`: how many seconds the caller waits.
fn patience(query: &Query) -> Result<Duration, Fault> {
    let Some(text) = query.get("timeout") else { return Ok(USUAL_WAIT) };
    let seconds = text.parse().ok().map(Duration::from_secs).filter(|wait| *wait <= LONGEST_WAIT);
    let most = LONGEST_WAIT.as_secs();
    seconds.ok_or_else(|| Fault::new(Kind::Value, format!("`timeout` must be a number of seconds from 0 to {most}")))
}

/// Waits for something, as long as the caller wants and the program runs; whether it came.
async fn wait_for(state: &State, limit: Duration, what: impl Future<Output = ()>) -> bool {
    let waited = tokio::time::timeout(limit, what);
    matches!(state.stopping.run_until_cancelled(waited).await, Some(Ok(())))
}

/// What QRS's failures are to a caller who only looks.
fn not_seen(error: &QrsError) -> Fault {
    let kind = if matches!(error, QrsError::Filter(_)) { Kind::Value } else { Kind::SenseUnavailable };
    let remedy = error.remedy().map(|remedy| format!(". {remedy}")).unwrap_or_default();
    Fault::new(kind, format!("{error}{remedy}"))
}

/// An error with a code that other doors use, too.
fn error(status: u16, code: &str, message: &str) -> Answer {
    let body = json!({"error": {"code": code, "message": message, "request_id": request_id()}});
    answer(status, &body)
}

fn answer(status: u16, body: &Value) -> Answer {
    let answer = Answer::json(status, body.to_string()).with("cache-control", "no-store");
    match status {
        202 => answer.with("retry-after", "1"),
        // By then a minute's worth may be asked for again.
        429 => answer.with("retry-after", "60"),
        503 => answer.with("retry-after", "5"),
        _ => answer,
    }
}
