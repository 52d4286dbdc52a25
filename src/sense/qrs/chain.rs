//! What QRS starts when a task ends: composite events ("task event triggers" in the QMC).
//!
//! `GET /qrs/event/full` lists all triggers of the site; those that wait for the task in question are picked out here. Invariant: a trigger
//! that is switched off is told, and told apart.

use serde_json::Value;

use super::{
    client::{Purpose, Qrs},
    error::QrsError,
    fields,
    kinds::REFERENCES,
};
use crate::names::TaskId;

/// How a task must end for a rule to hold (`RuleState` of QRS).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChainOn {
    /// 1
    Success,
    /// 2
    Failure,
    /// A number this program does not know.
    Other(i64),
}

impl ChainOn {
    /// `success`, `failure`, or `other`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Other(_) => "other",
        }
    }

    const fn from_number(number: i64) -> Self {
        match number {
            1 => Self::Success,
            2 => Self::Failure,
            other => Self::Other(other),
        }
    }
}

/// A task a trigger waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainRule {
    /// Its id.
    pub task: TaskId,
    /// Its name.
    pub name: String,
    /// How it must end.
    pub on: ChainOn,
}

/// A task that is started when another one ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChainLink {
    /// The task that is started.
    pub task: TaskId,
    /// Its name.
    pub name: String,
    /// How the task that was asked about must end.
    pub on: ChainOn,
    /// Name of the trigger.
    pub trigger: String,
    /// Whether the trigger and the task are switched on.
    pub enabled: bool,
    /// Other tasks that must have ended as well, within the trigger's time.
    pub also: Vec<ChainRule>,
}

/// The task an event or a rule refers to, with its name and whether it is enabled.
fn reference(object: &Value) -> Option<(TaskId, String, bool)> {
    let task = |kind: &&str| {
        let task = fields::field(object, kind)?;
        let name = fields::text(task, "name").unwrap_or_default();
        Some((fields::id(task, "id")?, name, fields::flag(task, "enabled").unwrap_or(true)))
    };
    REFERENCES.iter().find_map(task)
}

fn rule(object: &Value) -> Option<ChainRule> {
    let (task, name, _) = reference(object)?;
    Some(ChainRule { task, name, on: ChainOn::from_number(fields::number(object, "ruleState")?) })
}

/// What an event starts when `after` ends; `None`: it does not wait for that task.
fn link(event: &Value, after: TaskId) -> Option<ChainLink> {
    let (own, also): (Vec<_>, Vec<_>) =
        fields::items(event, "compositeRules").filter_map(rule).partition(|rule| rule.task == after);
    let on = own.first()?.on;
    let (task, name, task_enabled) = reference(event)?;
    Some(ChainLink {
        task,
        name,
        on,
        trigger: fields::text(event, "name").unwrap_or_default(),
        enabled: task_enabled && fields::flag(event, "enabled").unwrap_or(true),
        also,
    })
}

impl Qrs {
    /// What QRS starts next when this task ends, ordered by name. `GET /qrs/event/full`
    ///
    /// # Errors
    /// If QRS gives no usable answer.
    pub async fn next_in_chain(&self, id: TaskId) -> Result<Vec<ChainLink>, QrsError> {
        let events = self.list_at("chain", Purpose::Enrich, "event/full").await?;
        let mut links: Vec<ChainLink> = events.iter().filter_map(|event| link(event, id)).collect();
        links.sort_by_cached_key(|link| (link.name.to_lowercase(), link.task));
        Ok(links)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn task(number: u8, name: &str) -> Value {
        json!({ "id": format!("5a1e5000-0000-4000-8000-0000000000{number:02x}"), "name": name, "enabled": number != 9 })
    }

    #[test]
    fn events_are_read_whatever_they_leave_out() {
        let head: TaskId = "5a1e5000-0000-4000-8000-000000000001".parse().unwrap();
        let rule = |task: Value, state: i64| json!({ "ruleState": state, "reloadTask": task, "userSyncTask": null });
        let on_success = json!({ "eventType": 1, "name": "after sales", "enabled": true, "reloadTask": task(2, "Sales mart"),
            "compositeRules": [rule(task(1, "Sales"), 1), { "ruleState": 2, "externalProgramTask": task(3, "Extract") }] });
        let found = link(&on_success, head).unwrap();
        assert_eq!((found.name.as_str(), found.on, found.enabled), ("Sales mart", ChainOn::Success, true));
        assert_eq!((found.also.len(), found.also[0].name.as_str(), found.also[0].on), (1, "Extract", ChainOn::Failure));

        let disabled_task = json!({ "name": "x", "enabled": true, "externalProgramTask": task(9, "off"),
            "compositeRules": [rule(task(1, "Sales"), 7)] });
        let found = link(&disabled_task, head).unwrap();
        assert_eq!((found.enabled, found.on.as_str()), (false, "other"));

        let not_ours = [
            json!({ "eventType": 0, "name": "every night", "enabled": true, "reloadTask": task(1, "Sales") }),
            json!({ "eventType": 1, "reloadTask": task(2, "x"), "compositeRules": [rule(task(3, "y"), 1)] }),
            json!({ "eventType": 1, "reloadTask": null, "compositeRules": [rule(task(1, "y"), 1)] }),
            json!({ "compositeRules": [rule(json!(null), 1), rule(task(1, "y"), 1).as_object().unwrap().len()] }),
            json!([]),
        ];
        assert_eq!(not_ours.iter().filter(|event| link(event, head).is_none()).count(), 5);
    }
}
