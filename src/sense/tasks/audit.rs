//! Who asked for what, by which door, what was decided and what became of it: every word of a request, and every request that was refused.
//!
//! Where that is written is the witness's affair; this room knows no files. Invariant: a witness never makes a start wait.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    answer::now,
    request::{StartOutcome, StartRequest, StartStatus, StartTarget},
};
use crate::names::{ExecutionId, TaskId};

/// Who asked, as far as the door knows.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asker {
    /// The user who was authenticated.
    pub user: Option<String>,
    /// MQTT client id.
    pub client: Option<String>,
    /// Network address.
    pub address: Option<String>,
}

/// One line of the audit log. Key order on the wire is the field order here.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditLine<'a> {
    /// UTC, RFC 3339 with milliseconds.
    pub at: String,
    /// `start`, or `stop` of an execution.
    pub event: &'static str,
    /// The request's number, unique in a data directory; `null`: it was refused before it got one.
    pub request: Option<u64>,
    /// Door it came by.
    pub door: &'a str,
    /// Who asked, as answers say it.
    pub requested_by: &'a str,
    #[serde(flatten)]
    who: &'a Asker,
    /// What was asked for.
    pub target: Option<&'a StartTarget>,
    /// The task it led to.
    pub task_id: Option<TaskId>,
    /// Its name.
    pub task_name: Option<&'a str>,
    /// The execution.
    pub execution_id: Option<ExecutionId>,
    /// The word; `null`: a duplicate, which gets the words of the first one.
    pub status: Option<&'static str>,
    /// Whether nothing more will be said about that task.
    #[serde(rename = "final")]
    pub is_final: bool,
    /// Why not, for programs.
    pub code: Option<&'a str>,
    /// Why not, for people.
    pub message: Option<&'a str>,
    /// The caller's own name for the request.
    pub transaction: Option<&'a Value>,
    /// The request was one that came before.
    pub duplicate: bool,
}

/// Who writes the lines down.
pub trait Witness: Send + Sync + 'static {
    /// Takes a line; never waits.
    fn note(&self, line: &AuditLine<'_>);
}

/// The way to the witness, if there is one. Cheap to clone.
#[derive(Clone, Default)]
pub struct Audit(Arc<OnceLock<Box<dyn Witness>>>);

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Audit({})", self.0.get().is_some())
    }
}

impl Audit {
    /// Names the witness. The first one stays.
    pub fn hear(&self, witness: impl Witness) {
        // A second one would be a defect of the assembly; the first has the whole story.
        let _ = self.0.set(Box::new(witness));
    }

    /// A word on a task of a request.
    pub(super) fn word(&self, number: u64, request: &StartRequest, is_final: bool, outcome: &StartOutcome) {
        self.tell(|| AuditLine {
            request: Some(number),
            transaction: request.transaction.as_ref(),
            is_final,
            ..of_outcome(request.door, &request.requested_by, &request.asker, outcome)
        });
    }

    /// A request that was one that came before.
    pub(super) fn repeated(&self, number: u64, request: &StartRequest) {
        self.tell(|| AuditLine {
            request: Some(number),
            target: request.targets.first().filter(|_| request.targets.len() == 1),
            transaction: request.transaction.as_ref(),
            is_final: true,
            duplicate: true,
            ..line("start", request.door, &request.requested_by, &request.asker)
        });
    }

    /// A request that was refused at the door: it cannot be read, or its sender has no right.
    pub fn refused(
        &self,
        (door, requested_by, asker): (&str, &str, &Asker),
        transaction: Option<&Value>,
        outcome: &StartOutcome,
    ) {
        self.tell(|| AuditLine { transaction, is_final: true, ..of_outcome(door, requested_by, asker, outcome) });
    }

    /// What became of a wish to stop an execution; `refusal`: code and sentence.
    pub(super) fn stop(
        &self,
        (door, requested_by, asker): (&str, &str, &Asker),
        execution: ExecutionId,
        task: Option<(TaskId, Option<&str>)>,
        refusal: Option<(&str, &str)>,
    ) {
        self.tell(|| AuditLine {
            task_id: task.map(|(id, _)| id),
            task_name: task.and_then(|(_, name)| name),
            execution_id: Some(execution),
            status: Some(if refusal.is_some() { "refused" } else { "accepted" }),
            is_final: true,
            code: refusal.map(|(code, _)| code),
            message: refusal.map(|(_, message)| message),
            ..line("stop", door, requested_by, asker)
        });
    }

    fn tell<'a>(&self, line: impl FnOnce() -> AuditLine<'a>) {
        if let Some(witness) = self.0.get() {
            witness.note(&line());
        }
    }
}

fn line<'a>(event: &'static str, door: &'a str, requested_by: &'a str, who: &'a Asker) -> AuditLine<'a> {
    AuditLine {
        at: now(),
        event,
        request: None,
        door,
        requested_by,
        who,
        target: None,
        task_id: None,
        task_name: None,
        execution_id: None,
        status: None,
        is_final: false,
        code: None,
        message: None,
        transaction: None,
        duplicate: false,
    }
}

fn of_outcome<'a>(door: &'a str, requested_by: &'a str, who: &'a Asker, outcome: &'a StartOutcome) -> AuditLine<'a> {
    AuditLine {
        target: outcome.target.as_ref(),
        task_id: outcome.task_id,
        task_name: outcome.task_name.as_deref(),
        execution_id: outcome.execution_id,
        status: Some(StartStatus::as_str(outcome.status)),
        code: outcome.error.as_ref().map(|error| &*error.code),
        message: outcome.error.as_ref().map(|error| error.message.as_str()),
        ..line("start", door, requested_by, who)
    }
}
