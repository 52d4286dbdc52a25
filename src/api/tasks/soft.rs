//! `POST /api/v1/tasks/start?soft=1`: the answer for load scripts, always 200 and with the same four flat fields as of a publish, whatever is
//! wrong, so that it never ends a reload.

use serde::Serialize;

use super::START;
use crate::{
    api::{
        answer::Answer,
        fault::{Fault, Space},
        publish,
    },
    sense::tasks::request::{StartOutcome, StartStatus},
};

/// `ok,status,error,id`
#[derive(Serialize)]
struct Soft<'a> {
    ok: bool,
    status: u16,
    error: &'a str,
    id: &'a str,
}

/// Whether a request wants this answer.
pub(in crate::api) fn is_soft(path: &str, query: &str) -> bool {
    path == START && publish::wants_soft(query)
}

/// What is wrong with a request.
pub(in crate::api) fn fault(fault: &Fault) -> Answer {
    refused(fault.kind.status(Space::Own), &fault.message)
}

/// What HTTP would have said of a request that started nothing.
pub(super) fn refused(status: u16, message: &str) -> Answer {
    answer(&Soft { ok: false, status, error: message, id: "" })
}

/// What became of the tasks: `ok` where HTTP said well and none of them fared badly; `id` is the execution of the first that has one.
pub(super) fn told(status: u16, outcomes: &[StartOutcome]) -> Answer {
    let error = outcomes.iter().find_map(trouble).unwrap_or_default();
    let id = outcomes.iter().find_map(|outcome| outcome.execution_id).map(|id| id.to_string()).unwrap_or_default();
    answer(&Soft { ok: status < 300 && error.is_empty(), status, error: &error, id: &id })
}

/// Why a task was not started, or did not end well.
fn trouble(outcome: &StartOutcome) -> Option<String> {
    if matches!(outcome.status, StartStatus::Accepted | StartStatus::Started | StartStatus::Finished) {
        return None;
    }
    let word = outcome.status.as_str();
    let last_line = || {
        let lines = &outcome.end.as_ref()?.log_tail;
        lines.iter().rev().find(|line| !line.trim().is_empty()).map(String::as_str)
    };
    let why = outcome.error.as_ref().map(|error| error.message.as_str()).or_else(last_line);
    Some(why.map_or_else(|| word.to_owned(), |why| format!("{word}: {why}")))
}

fn answer(soft: &Soft<'_>) -> Answer {
    // Texts and numbers: writing them as JSON cannot fail.
    Answer::json(200, serde_json::to_string(soft).unwrap_or_default()).with("cache-control", "no-store")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{names::ExecutionId, sense::tasks::end::ExecutionEnd};

    #[test]
    fn answers_are_flat_and_200() {
        let text = |answer: Answer| {
            assert_eq!(answer.status, 200);
            String::from_utf8(answer.body.to_vec()).unwrap()
        };
        let started = StartOutcome {
            execution_id: Some(ExecutionId::from_u128(1)),
            ..StartOutcome::of_status(StartStatus::Started)
        };
        let id = ExecutionId::from_u128(1);
        assert_eq!(
            text(told(202, std::slice::from_ref(&started))),
            format!(r#"{{"ok":true,"status":202,"error":"","id":"{id}"}}"#)
        );
        let denied = StartOutcome::failed(StartStatus::Denied, "task_filter", "not listed");
        assert_eq!(
            text(told(200, &[denied, started.clone()])),
            format!(r#"{{"ok":false,"status":200,"error":"denied: not listed","id":"{id}"}}"#)
        );
        let end = ExecutionEnd {
            status: "FinishedFail".into(),
            started_at: None,
            stopped_at: None,
            duration_ms: None,
            attempts: 1,
            node: None,
            log_tail: vec!["Error: no table".into(), String::new()],
        };
        let failed = StartOutcome { status: StartStatus::Failed, end: Some(Box::new(end)), ..started };
        assert_eq!(
            text(told(200, &[failed])),
            format!(r#"{{"ok":false,"status":200,"error":"failed: Error: no table","id":"{id}"}}"#)
        );
        let skipped = StartOutcome::of_status(StartStatus::Skipped);
        assert_eq!(text(told(200, &[skipped])), r#"{"ok":false,"status":200,"error":"skipped","id":""}"#);
        assert_eq!(text(refused(429, "too \"much\"")), r#"{"ok":false,"status":429,"error":"too \"much\"","id":""}"#);
        assert!(is_soft(START, "timeout=1&soft=1") && !is_soft(START, "soft=0") && !is_soft("/api/v1/tasks", "soft=1"));
    }
}
