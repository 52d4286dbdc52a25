//! `GET /api/v1/tasks?name=&tag=&property=Name:Value&limit=`: tasks of Qlik Sense that fit, ordered by name.

use serde_json::{Value, json};
use time::OffsetDateTime;

use super::{answer, limit, not_seen};
use crate::{
    api::{
        answer::{Answer, Request},
        broker_desk::Query,
        fault::{Fault, Kind},
        state::State,
    },
    sense::{
        qrs::{LastRun, TaskInfo, TaskSearch},
        tasks::end::timestamp,
    },
};

/// Rows if no other number is asked for, and the most.
const ROWS: (usize, usize) = (100, 1_000);

/// # Errors
/// 400 for a wrong query, 503 when QRS cannot be asked.
pub(in crate::api) async fn list(state: &State, request: &Request) -> Result<Answer, Fault> {
    let query = Query::read(request, &["name", "tag", "property", "limit"])?;
    let limit = limit(&query, ROWS.1, ROWS.0)?;
    let wanted = |name| query.get(name).filter(|text| !text.is_empty());
    let search = TaskSearch {
        name: wanted("name").map(str::to_owned),
        tag: wanted("tag").map(str::to_owned),
        property: wanted("property").map(property).transpose()?,
    };
    let found = state.setup.tasks.starter.qrs().search_tasks(&search, limit).await;
    let tasks: Vec<Value> = found.map_err(|error| not_seen(&error))?.iter().map(task).collect();
    Ok(answer(200, &json!({"tasks": tasks})))
}

/// `Name:Value`; the value may have colons.
fn property(text: &str) -> Result<(String, String), Fault> {
    let wrong = || Fault::new(Kind::Value, "`property` must be name and value with a colon between, e.g. StartBy:mqtt");
    let (name, value) = text.split_once(':').filter(|(name, _)| !name.is_empty()).ok_or_else(wrong)?;
    Ok((name.to_owned(), value.to_owned()))
}

/// A task as it stands in answers.
pub(super) fn task(task: &TaskInfo) -> Value {
    let at = |moment: Option<OffsetDateTime>| moment.map(timestamp);
    let last = |last: &LastRun| {
        json!({
            "qlikStatus": last.status.as_str(),
            "startedAt": at(last.started),
            "stoppedAt": at(last.stopped),
            "durationMs": last.duration_ms,
            "node": last.node,
        })
    };
    let properties = task.custom_properties.iter().map(|(name, value)| json!({"name": name, "value": value}));
    json!({
        "taskId": task.id,
        "taskName": task.name,
        "type": task.task_type.as_str(),
        "enabled": task.enabled,
        "app": task.app.as_ref().map(|app| json!({"id": app.id, "name": app.name})),
        "tags": task.tags,
        "customProperties": properties.collect::<Vec<_>>(),
        "last": task.last.as_ref().map(last),
        "nextExecution": at(task.next_execution),
        "maxRetries": task.max_retries,
        "timeoutMinutes": task.timeout_minutes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn properties() {
        let pair = |name: &str, value: &str| Ok((name.to_owned(), value.to_owned()));
        assert_eq!(property("StartBy:mqtt"), pair("StartBy", "mqtt"));
        assert_eq!(property("At:10:30"), pair("At", "10:30"));
        assert_eq!(property("Empty:"), pair("Empty", ""));
        for wrong in ["StartBy", ":mqtt"] {
            assert_eq!(property(wrong).unwrap_err().kind, Kind::Value, "{wrong}");
        }
    }
}
