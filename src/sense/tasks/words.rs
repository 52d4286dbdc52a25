//! The words on start requests: one function per reason.

use super::request::{StartOutcome, StartRequest, StartStatus, StartTarget};
use crate::{
    keep::{KeepError, values::ValuesError},
    names::ExecutionId,
    sense::qrs::QrsError,
};

/// A wait for QRS, said to whoever asked.
pub(super) fn accepted_for(target: &StartTarget, error: &QrsError) -> StartOutcome {
    let why = format!("the request waits: {error}");
    StartOutcome::failed(StartStatus::Accepted, "qrs_unreachable", why).of(target)
}

/// The last word on a target nobody could be asked about in time.
pub(super) fn too_late(waited: bool, target: &StartTarget, error: &QrsError) -> StartOutcome {
    if waited {
        return expired(&error.to_string()).of(target);
    }
    not_found_out(error).of(target)
}

pub(super) fn expired(why: &str) -> StartOutcome {
    let why = format!("the deadline of the request has passed and nothing was started: {why}");
    StartOutcome::failed(StartStatus::Expired, "deadline", why)
}

pub(super) fn started(execution: Option<ExecutionId>) -> StartOutcome {
    StartOutcome { execution_id: execution, ..StartOutcome::of_status(StartStatus::Started) }
}

pub(super) fn undecided(why: &str) -> StartOutcome {
    let why = format!("whether the task started is not known: {why}. Look in the QMC before starting it again");
    StartOutcome::failed(StartStatus::Unknown, "undecided", why)
}

/// It started, and its end will not be known.
pub(super) fn unfollowed(why: &str, started: &StartOutcome) -> StartOutcome {
    let why = format!("the task started, but how it ends is not known: {why}. Look in the QMC");
    let unknown = StartOutcome::failed(StartStatus::Unknown, "not_followed", why);
    StartOutcome { status: unknown.status, error: unknown.error, ..started.clone() }
}

/// Whether asking again later may bring an answer.
pub(super) const fn may_pass(error: &QrsError) -> bool {
    match error {
        QrsError::NotConfigured | QrsError::CertificateFile { .. } | QrsError::Settings(_) | QrsError::Filter(_) => {
            false
        }
        QrsError::Status { status, .. } => matches!(status, 500..=599 | 429),
        _ => true,
    }
}

/// The outcome when the task could not be looked up: nothing was started.
pub(super) fn not_found_out(error: &QrsError) -> StartOutcome {
    let (status, code) = match error {
        QrsError::Filter(_) => (StartStatus::Invalid, "bad_name"),
        QrsError::Status { .. } => (StartStatus::Unreachable, "qrs_refused"),
        _ => (StartStatus::Unreachable, "qrs_unreachable"),
    };
    StartOutcome::failed(status, code, format!("nothing was started: {error}"))
}

/// The outcome when the start itself failed.
pub(super) fn not_started(error: &QrsError) -> StartOutcome {
    if error.may_have_arrived() {
        let why = format!("whether the task started is not known: {error}. Look in the QMC before starting it again");
        return StartOutcome::failed(StartStatus::Unknown, "undecided", why);
    }
    let (status, code) = match error {
        QrsError::Status { status: 404, .. } => (StartStatus::UnknownTask, "qrs_refused"),
        QrsError::Status { status: 401 | 403, .. } => (StartStatus::Unreachable, "qrs_refused"),
        QrsError::Status { .. } => (StartStatus::NotStarted, "qrs_refused"),
        _ => (StartStatus::Unreachable, "qrs_unreachable"),
    };
    StartOutcome::failed(status, code, format!("the task was not started: {error}"))
}

pub(super) fn unknown(target: &StartTarget) -> StartOutcome {
    let (code, message) = match target {
        StartTarget::Id(id) => {
            ("unknown_task", format!("Qlik Sense has no task {id}, or hides it from the user of `configQRS`"))
        }
        StartTarget::Tag(tag) => ("no_match", format!("no task has the tag `{tag}` (upper and lower case count)")),
        StartTarget::CustomProperty { name, value } => (
            "no_match",
            format!("no task has the value `{value}` of the custom property `{name}` (upper and lower case count)"),
        ),
    };
    StartOutcome::failed(StartStatus::UnknownTask, code, message)
}

/// One line per task and request: who started what by which door.
pub(super) fn audit(outcome: &StartOutcome, request: &StartRequest) {
    let (door, requested_by) = (request.door, request.requested_by.as_str());
    let task = outcome.task_id.map(|id| id.to_string()).unwrap_or_default();
    let execution = outcome.execution_id.map(|id| id.to_string()).unwrap_or_default();
    let (name, status) = (outcome.task_name.as_deref().unwrap_or_default(), outcome.status.as_str());
    let why = outcome.error.as_ref().map(|error| error.message.as_str()).unwrap_or_default();
    tracing::info!(door, requested_by, task, name, execution, status, why, "start request");
}

pub(super) fn skipped(execution: Option<ExecutionId>, code: &'static str, why: &str) -> StartOutcome {
    let outcome = StartOutcome::failed(StartStatus::Skipped, code, format!("{why}; nothing was started"));
    StartOutcome { execution_id: execution, ..outcome }
}

/// The code of [`not_kept`]: nothing was started, so the same may be asked for again.
pub(super) const NOT_KEPT: &str = "not_kept";

/// Without a note nothing is started: after a crash nobody would know of it.
pub(super) fn not_kept(error: &KeepError) -> StartOutcome {
    StartOutcome::failed(StartStatus::NotStarted, NOT_KEPT, format!("nothing was started: {error}"))
}

/// Without its parameters the load script would do something else than was asked for.
pub(super) fn not_stored(error: &ValuesError) -> StartOutcome {
    let why = format!("nothing was started, because its parameters could not be stored: {error}");
    StartOutcome::failed(StartStatus::NotStarted, "parameters_not_stored", why)
}
