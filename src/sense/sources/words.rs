//! What QRS knows of an end, as the event a datagram would have brought.
//!
//! The fields are filled truthfully, not imitated: `host` is the name of the node as QRS has it (a datagram has the machine's name), `user` the
//! account for which QRS changed the result last (that of the scheduler; a datagram has the user of the task), `log_time` the time of that
//! change in UTC and RFC 3339 (a datagram has the local time of its host), `log_level` always `INFO` as in every datagram of the scheduler, and
//! `message` what the scheduler wrote about the attempt last, without its changes of state where it wrote something else.

use std::time::SystemTime;

use serde_json::Value;

use crate::sense::{
    event::{Origin, TaskEvent, TaskEventKind},
    qrs::{Attempt, ExecutionStatus, TaskType},
    tasks::end::timestamp,
};

/// What the scheduler notes at every step.
const STEP: &str = "Changing task state";

/// What an end is to whoever listens; `None`: nothing, as when a policy of Sense left the run out.
pub(super) fn kind(status: ExecutionStatus, task: Option<&Value>) -> Option<TaskEventKind> {
    let distributes = task.and_then(|task| task.get("taskType")).and_then(Value::as_i64).map(TaskType::from_number)
        == Some(TaskType::Distribute);
    match status {
        ExecutionStatus::Aborted => Some(TaskEventKind::Aborted),
        // Its event does not tell the outcome: the same as of the appender.
        ExecutionStatus::FinishedSuccess | ExecutionStatus::FinishedFail if distributes => {
            Some(TaskEventKind::Distributed)
        }
        ExecutionStatus::FinishedSuccess => Some(TaskEventKind::Succeeded),
        ExecutionStatus::FinishedFail | ExecutionStatus::Error | ExecutionStatus::Reset => Some(TaskEventKind::Failed),
        _ => None,
    }
}

/// The event of an attempt that was the last of its execution. `task`: its object, if QRS still has it.
pub(super) fn event(attempt: &Attempt, task: Option<&Value>, origin: Origin) -> Option<TaskEvent> {
    let app = task.and_then(|task| task.get("app")).filter(|app| app.is_object());
    let text = |object: Option<&Value>, key: &str| Some(object?.get(key)?.as_str()?.to_owned());
    let app_id = attempt.app.filter(|id| !id.is_zero()).map(|id| id.to_string()).or_else(|| text(app, "id"));
    Some(TaskEvent {
        kind: kind(attempt.status, task)?,
        host: attempt.node.clone().unwrap_or_default(),
        task_name: Some(text(task, "name").unwrap_or_default()),
        app_name: Some(text(app, "name").unwrap_or_default()),
        user: Some(attempt.modified_by.clone().unwrap_or_default()),
        task_id: attempt.task.map(|id| id.to_string()),
        app_id: Some(app_id.unwrap_or_default()),
        log_time: Some(attempt.modified.or(attempt.stopped).map(timestamp).unwrap_or_default()),
        log_level: Some("INFO".to_owned()),
        execution_id: attempt.execution.map(|id| id.to_string()),
        message: Some(message(attempt)),
        received: SystemTime::now(),
        ambiguous: false,
        origin,
    })
}

fn message(attempt: &Attempt) -> String {
    let of_its_own = attempt.details.iter().rev().find(|line| !line.starts_with(STEP));
    // The reference to the log is no news of a run that went well.
    let chosen = if attempt.status == ExecutionStatus::FinishedSuccess { None } else { of_its_own };
    chosen.or(attempt.details.last()).cloned().unwrap_or_else(|| attempt.status.as_str().to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use serde_json::json;
    use time::macros::datetime;

    use super::*;
    use crate::names::{AppId, ExecutionId, ResultId, TaskId};

    /// The attempt `number` of an execution, changed `at` seconds after midnight.
    pub(in crate::sense::sources) fn attempt(
        number: u128,
        execution: u128,
        status: ExecutionStatus,
        at: i64,
    ) -> Attempt {
        Attempt {
            id: ResultId::from_u128(number),
            execution: Some(ExecutionId::from_u128(execution)),
            task: Some(TaskId::from_u128(7)),
            app: Some(AppId::from_u128(9)),
            status,
            started: None,
            stopped: None,
            duration_ms: None,
            node: Some("Central".into()),
            modified: Some(datetime!(2026-05-04 00:00 UTC) + time::Duration::seconds(at)),
            modified_by: Some(r"INTERNAL\sa_scheduler".into()),
            created: Some(datetime!(2026-05-04 00:00 UTC) + time::Duration::seconds(at)),
            script_log_available: false,
            file_reference: None,
            details: Vec::new(),
        }
    }

    #[test]
    fn each_end_has_its_kind() {
        use ExecutionStatus::{Aborted, Error, FinishedFail, FinishedSuccess, Reset, Retry, Skipped, Started};
        let (reload, distribute) = (json!({"taskType": 0}), json!({"taskType": 3}));
        let cases = [
            (FinishedSuccess, Some(TaskEventKind::Succeeded), Some(TaskEventKind::Distributed)),
            (FinishedFail, Some(TaskEventKind::Failed), Some(TaskEventKind::Distributed)),
            (Aborted, Some(TaskEventKind::Aborted), Some(TaskEventKind::Aborted)),
            (Error, Some(TaskEventKind::Failed), Some(TaskEventKind::Failed)),
            (Reset, Some(TaskEventKind::Failed), Some(TaskEventKind::Failed)),
            (Skipped, None, None),
            (Retry, None, None),
            (Started, None, None),
        ];
        for (status, of_reload, of_distribute) in cases {
            assert_eq!((kind(status, Some(&reload)), kind(status, Some(&distribute))), (of_reload, of_distribute));
            assert_eq!(kind(status, None), of_reload);
        }
        assert_eq!(cases.len(), 8);
    }

    #[test]
    fn fields_are_what_qrs_says() {
        let task = json!({"name": "Sales", "taskType": 0, "app": {"id": "0000aaaa-0000-4000-8000-000000000001", "name": "Sales app"}});
        let failed = Attempt {
            details: vec!["Error: no table".into(), "Changing task state from Started to FinishedFail".into()],
            ..attempt(1, 2, ExecutionStatus::FinishedFail, 3_600)
        };
        let event = event(&failed, Some(&task), Origin::Polling).unwrap();
        let fields = [&event.task_name, &event.app_name, &event.user, &event.log_time, &event.message];
        let expected = ["Sales", "Sales app", r"INTERNAL\sa_scheduler", "2026-05-04T01:00:00.000Z", "Error: no table"];
        assert_eq!(fields.map(|field| field.as_deref().unwrap()), expected);
        assert_eq!((event.host.as_str(), event.origin), ("Central", Origin::Polling));
        assert_eq!(event.task_id(), failed.task);
        let well = Attempt {
            details: vec!["Reference to scriptlog added".into(), "Changing task state to FinishedSuccess".into()],
            ..attempt(1, 2, ExecutionStatus::FinishedSuccess, 0)
        };
        assert_eq!(message(&well), "Changing task state to FinishedSuccess");
        assert_eq!(message(&attempt(1, 2, ExecutionStatus::Aborted, 0)), "Aborted");
    }
}
