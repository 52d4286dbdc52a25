//! Chains: composite events, which start a task when other tasks have ended as their rules say, all within a time.
//!
//! Invariants: an event fires when its last missing rule is fulfilled and the first was fulfilled no longer ago than the constraint; firing
//! forgets what was fulfilled. A task that runs or is disabled is not started by its event, and that is noted.

use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    SCHEDULER_USER, Site,
    starts::{NotStarted, Origin},
    task::{Task, named_guid},
};
use crate::{
    names::ExecutionId,
    sense::simulator::{
        clock::{Calendar, Moment},
        plan::{Plan, TaskKind},
    },
};

/// A rule: a task has ended this way.
#[derive(Debug)]
struct Rule {
    task: usize,
    success: bool,
    fulfilled: Option<Moment>,
}

/// A composite event.
#[derive(Debug)]
pub struct Event {
    id: Uuid,
    name: String,
    enabled: bool,
    /// Place of the task it starts.
    task: usize,
    within_minutes: u32,
    rules: Vec<Rule>,
}

impl Event {
    /// The events of a site, in the order of the tasks they start.
    pub fn of(plan: &Plan) -> Vec<Self> {
        let place = |id| plan.tasks.iter().position(|task| task.id == id);
        let mut events = Vec::new();
        for (task, planned) in plan.tasks.iter().enumerate() {
            for (number, after) in planned.after.iter().enumerate() {
                let rules = |ids: &[_], success| -> Vec<Rule> {
                    let places = ids.iter().filter_map(|id| place(*id));
                    places.map(|task| Rule { task, success, fulfilled: None }).collect()
                };
                let mut all = rules(&after.success, true);
                all.extend(rules(&after.fail, false));
                events.push(Self {
                    id: named_guid("event", &format!("{} {number}", planned.id)),
                    name: format!("After other tasks {}", number + 1),
                    enabled: after.enabled,
                    task,
                    within_minutes: after.within_minutes,
                    rules: all,
                });
            }
        }
        events
    }

    /// Whether this end of a task completes the event.
    fn learns(&mut self, task: usize, success: bool, now: Moment) -> bool {
        let mut concerned = false;
        for rule in self.rules.iter_mut().filter(|rule| rule.task == task && rule.success == success) {
            rule.fulfilled = Some(now);
            concerned = true;
        }
        let oldest = now.saturating_sub(u64::from(self.within_minutes) * 60_000);
        let complete = self.rules.iter().all(|rule| rule.fulfilled.is_some_and(|at| at >= oldest));
        let fires = self.enabled && concerned && complete;
        if fires {
            self.rules.iter_mut().for_each(|rule| rule.fulfilled = None);
        }
        fires
    }

    fn json(&self, tasks: &[Task], calendar: Calendar) -> Value {
        let minutes = self.within_minutes;
        let rules: Value = self.rules.iter().map(|rule| rule.json(self.id, tasks)).collect();
        event_json(self.id, &self.name, self.enabled, 1, tasks.get(self.task), calendar, |fields| {
            fields.insert(
                "timeConstraint".to_owned(),
                json!({ "id": named_guid("constraint", &self.id.to_string()).to_string(), "days": 0, "hours": 0,
                    "minutes": minutes, "seconds": 0, "privileges": null }),
            );
            fields.insert("compositeRules".to_owned(), rules);
            fields.insert("schemaPath".to_owned(), json!("CompositeEvent"));
        })
    }
}

impl Rule {
    fn json(&self, event: Uuid, tasks: &[Task]) -> Value {
        let state = if self.success { 1 } else { 2 };
        let id = named_guid("rule", &format!("{event} {} {state}", self.task));
        let mut value = json!({ "id": id.to_string(), "ruleState": state });
        if let Value::Object(fields) = &mut value {
            fields.extend(references(tasks.get(self.task)));
            fields.insert("privileges".to_owned(), Value::Null);
        }
        value
    }
}

/// The three references to a task, of which two are null.
pub fn references(task: Option<&Task>) -> impl Iterator<Item = (String, Value)> {
    let kinds = [
        ("reloadTask", "ReloadTask"),
        ("userSyncTask", "UserSyncTask"),
        ("externalProgramTask", "ExternalProgramTask"),
    ];
    kinds.into_iter().map(move |(key, schema)| {
        let fits = task.filter(|task| task.plan.kind.schema_path() == schema);
        (key.to_owned(), fits.map_or(Value::Null, Task::reference))
    })
}

fn event_json(
    id: Uuid,
    name: &str,
    enabled: bool,
    kind: u8,
    task: Option<&Task>,
    calendar: Calendar,
    further: impl FnOnce(&mut serde_json::Map<String, Value>),
) -> Value {
    let mut value = json!({
        "id": id.to_string(),
        "createdDate": calendar.qrs(0),
        "modifiedDate": calendar.qrs(0),
        "modifiedByUserName": r"INTERNAL\sa_repository",
        "name": name,
        "enabled": enabled,
        "eventType": kind,
    });
    if let Value::Object(fields) = &mut value {
        fields.extend(references(task));
        fields.insert("privileges".to_owned(), Value::Null);
        further(fields);
    }
    value
}

/// The schema event of a task that starts by itself: the site's plan in the words of the repository.
fn schedule_json(task: &Task, calendar: Calendar) -> Option<Value> {
    let every = task.plan.every?;
    let id = named_guid("schedule", &task.id_text);
    let minutes = (every / 60.0).max(1.0) as u64;
    Some(event_json(id, "By schedule", true, 0, Some(task), calendar, |fields| {
        let further = json!({
            "timeZone": "UTC",
            "daylightSavingTime": 0,
            "startDate": calendar.qrs(0),
            "expirationDate": "9999-01-01T00:00:00.000Z",
            "schemaFilterDescription": ["* * - * * * * *"],
            "incrementDescription": format!("{minutes} 0 0 0"),
            "incrementOption": 1,
            "schemaPath": "SchemaEvent",
        });
        if let Value::Object(further) = further {
            fields.extend(further);
        }
    }))
}

impl Site {
    /// Starts what an end of a task starts.
    pub(super) fn task_ended(&mut self, index: usize, success: bool, after: ExecutionId) {
        let now = self.now;
        let fired: Vec<(Uuid, usize)> = self
            .events
            .iter_mut()
            .filter_map(|event| event.learns(index, success, now).then_some((event.id, event.task)))
            .collect();
        for (event, task) in fired {
            let by = Origin::Chain { event, after };
            match self.tasks.get(task).filter(|task| !task.deleted) {
                Some(found) if self.scheduler && found.plan.enabled && found.executions.is_empty() => {
                    self.begin(task, SCHEDULER_USER, by);
                }
                Some(found) => {
                    let reason = match (found.plan.enabled, self.scheduler) {
                        (false, _) => "disabled",
                        (true, false) => "no scheduler",
                        (true, true) => "running",
                    };
                    let wish = NotStarted { task: found.id_text.clone(), at: now, reason, by };
                    self.starts.add_not_started(wish);
                }
                None => {}
            }
        }
    }

    /// Every trigger: composite events, and schedules as schema events.
    pub fn events(&self) -> Vec<Value> {
        let present = |index: usize| self.tasks.get(index).is_some_and(|task| !task.deleted);
        let composite = self.events.iter().filter(|event| present(event.task));
        let composite = composite.map(|event| event.json(&self.tasks, self.calendar));
        let schedules = self.tasks.iter().filter(|task| !task.deleted);
        composite.chain(schedules.filter_map(|task| schedule_json(task, self.calendar))).collect()
    }

    /// Whether a task is of a kind.
    pub(super) fn is_kind(&self, index: usize, kind: TaskKind) -> bool {
        self.tasks.get(index).is_some_and(|task| task.plan.kind == kind)
    }
}
