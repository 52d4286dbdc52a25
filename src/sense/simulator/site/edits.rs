//! Changing tasks: `PUT`, `DELETE`, and the task that a reload of an app makes.
//!
//! Invariant: a change is taken only from a client that has seen the latest version (`modifiedDate`); places of tasks never move, a deleted
//! task keeps its place and its results.

use serde_json::Value;
use uuid::Uuid;

use super::{
    Origin, Site, StartAnswer,
    notifications::{ChangeType, Note, ObjectType},
    task::Task,
};
use crate::{
    names::{ExecutionId, TaskId},
    sense::simulator::plan::{Seconds, TaskPlan},
};

/// Most tasks of a site: those of the plan and those made by reloads of apps.
const MOST_TASKS: usize = 1_000_000;

/// Why a task is not changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// There is no such task.
    #[error("The object does not exist")]
    Unknown,
    /// The client's version is not the latest.
    #[error("The entity has been modified since it was read")]
    Conflict,
    /// It is no task.
    #[error("The body is not a task: id, name and modifiedDate are needed")]
    Malformed,
}

impl Site {
    /// Takes a new version of a task. Name, `enabled`, `maxRetries`, `taskSessionTimeout` and tags can be changed.
    pub fn change_task(&mut self, id: TaskId, user: &str, new: &Value) -> Result<(), EditError> {
        let index = *self.by_id.get(&id).ok_or(EditError::Unknown)?;
        let (now, calendar) = (self.now, self.calendar);
        let task = self.tasks.get_mut(index).ok_or(EditError::Unknown)?;
        let seen = new.get("modifiedDate").and_then(Value::as_str).ok_or(EditError::Malformed)?;
        let name = new.get("name").and_then(Value::as_str).filter(|name| !name.is_empty());
        let name = name.ok_or(EditError::Malformed)?;
        if seen != calendar.qrs(task.modified) {
            return Err(EditError::Conflict);
        }
        name.clone_into(&mut task.plan.name);
        take(new, "enabled", Value::as_bool, &mut task.plan.enabled);
        let small = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
        take(new, "maxRetries", |value| small(value).filter(|number| *number <= 20), &mut task.plan.max_retries);
        let minutes = |value: &Value| small(value).filter(|minutes| (1..=43_200).contains(minutes));
        take(new, "taskSessionTimeout", minutes, &mut task.plan.timeout_minutes);
        take(new, "tags", tags, &mut task.plan.tags);
        // A date that a client has seen once must never come again, however fast it is.
        task.modified = now.max(task.modified + 1);
        user.clone_into(&mut task.modified_by);
        task.render(calendar);
        self.note_task(id, ChangeType::Update);
        Ok(())
    }

    /// Removes a task; what runs of it is stopped.
    pub fn delete_task(&mut self, id: TaskId) -> Result<(), EditError> {
        let index = *self.by_id.get(&id).ok_or(EditError::Unknown)?;
        let executions = match self.tasks.get_mut(index) {
            Some(task) => {
                task.deleted = true;
                task.executions.clone()
            }
            None => return Err(EditError::Unknown),
        };
        for execution in executions {
            self.stop_deleted(execution);
        }
        self.by_id.remove(&id);
        self.note_task(id, ChangeType::Delete);
        Ok(())
    }

    /// Reloads an app by its task "Manually triggered reload of …", which is made when there is none; `None`: there is no such app.
    pub fn reload_app(&mut self, app: Uuid, user: &str, by: Origin) -> Option<StartAnswer> {
        let app = self.apps.iter().find(|known| known.id == app)?.clone();
        let mut of_app = self.tasks.iter().filter(|task| !task.deleted && task.app == Some(app.id));
        let known = of_app.clone().find(|task| task.manual).map(|task| task.plan.id);
        let sample = of_app.find(|task| !task.manual).map(|task| task.plan.clone());
        let id = match known {
            Some(id) => id,
            None if self.tasks.len() >= MOST_TASKS => return None,
            None => {
                let id = TaskId::from_u128(self.rng.guid().as_u128());
                let plan = TaskPlan {
                    id,
                    name: format!("Manually triggered reload of {}", app.name),
                    app: Some(app.name.clone()),
                    ..manual(sample)
                };
                let mut task = Task::new(Some(&app), &plan, self.calendar);
                task.manual = true;
                task.modified = self.now;
                task.created = self.now;
                task.render(self.calendar);
                self.by_id.insert(id, self.tasks.len());
                self.tasks.push(task);
                self.note_task(id, ChangeType::Add);
                id
            }
        };
        Some(self.start(id, user, by))
    }

    fn note_task(&mut self, id: TaskId, change: ChangeType) {
        let properties: &'static [&'static str] = match change {
            ChangeType::Update => &["modifiedDate", "name", "enabled"],
            ChangeType::Add | ChangeType::Delete => &[],
        };
        self.note(Note { object: ObjectType::ReloadTask, id: id.to_string(), change, properties });
    }

    fn stop_deleted(&mut self, id: ExecutionId) {
        self.abort(id, super::execution::DELETED_TASK);
    }
}

/// Runs as long and ends as the app's own task would; nothing else is taken over.
fn manual(sample: Option<TaskPlan>) -> TaskPlan {
    let (duration, outcome) = match sample {
        Some(sample) => (sample.duration, sample.outcome),
        None => (Seconds::default(), Default::default()),
    };
    TaskPlan { duration, outcome, ..TaskPlan::named(TaskId::ZERO, "") }
}

fn take<T>(from: &Value, key: &str, read: impl Fn(&Value) -> Option<T>, into: &mut T) {
    if let Some(value) = from.get(key).and_then(read) {
        *into = value;
    }
}

fn tags(value: &Value) -> Option<Vec<String>> {
    let name = |tag: &Value| Some(tag.get("name")?.as_str()?.to_owned());
    value.as_array()?.iter().map(name).collect()
}
