//! Of which kind tasks are, as far as they were met: with it, executions of a task are asked for by one property instead of three.
//!
//! Whoever starts a task has just looked it up, so this is known when it is needed. Invariants: bounded ([`MOST`]); a task that is not known here
//! is asked for in every way there is; an id never changes its kind.

use std::collections::HashMap;

use parking_lot::Mutex;
use serde_json::Value;

use super::{fields, search::TaskType};
use crate::names::TaskId;

/// Tasks that are remembered, twice what large sites have; then it begins anew.
const MOST: usize = 20_000;

/// The properties of an execution session that refer to its task.
pub const REFERENCES: [&str; 3] = ["reloadTask", "externalProgramTask", "userSyncTask"];

/// Kinds of tasks.
#[derive(Debug, Default)]
pub struct Kinds(Mutex<HashMap<TaskId, TaskType>>);

impl Kinds {
    /// Takes note of task objects, condensed or full.
    pub fn note(&self, tasks: &[Value]) {
        let kind =
            |task: &Value| Some((fields::id(task, "id")?, TaskType::from_number(fields::number(task, "taskType")?)));
        let mut kinds = self.0.lock();
        if kinds.len() + tasks.len() > MOST {
            kinds.clear();
        }
        kinds.extend(tasks.iter().filter_map(kind).take(MOST));
    }

    /// The properties by which the executions of a task can be found.
    pub fn references(&self, task: TaskId) -> &'static [&'static str] {
        let kind = self.0.lock().get(&task).copied();
        match kind {
            // A distribution or a preload is a reload task there.
            Some(TaskType::Reload | TaskType::Distribute | TaskType::Preload) => &["reloadTask"],
            Some(TaskType::ExternalProgram) => &["externalProgramTask"],
            Some(TaskType::UserSync) => &["userSyncTask"],
            Some(TaskType::Other(_)) | None => &REFERENCES,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_met_is_remembered_and_bounded() {
        let (kinds, id) = (Kinds::default(), |number: usize| TaskId::from_u128(number as u128 + 1));
        let task = |number: usize, kind: i64| json!({ "id": id(number).to_string(), "taskType": kind });
        kinds.note(&[task(0, 0), task(1, 1), task(2, 2), task(3, 3), task(4, 4), task(5, 77), json!({ "id": 7 })]);
        let told: Vec<usize> = (0..7).map(|number| kinds.references(id(number)).len()).collect();
        assert_eq!(told, [1, 1, 1, 1, 1, 3, 3]);
        assert_eq!((kinds.references(id(2)), kinds.references(id(4))), (&["userSyncTask"][..], &["reloadTask"][..]));
        kinds.note(&(10..MOST + 10).map(|number| task(number, 0)).collect::<Vec<_>>());
        assert_eq!(kinds.0.lock().len(), MOST);
    }
}
