//! What can be read of the site: tasks, results, sessions, apps. Rows are shared, so that readers filter and write them without holding the site.

use std::sync::Arc;

use serde_json::Value;

use super::{Site, Wanted};
use crate::{
    names::{ExecutionId, TaskId},
    sense::simulator::plan::TaskKind,
};

impl Site {
    /// The apps.
    pub fn apps(&self) -> Vec<Arc<Value>> {
        self.app_rows.clone()
    }

    /// One task.
    pub fn task(&mut self, id: TaskId) -> Option<Arc<Value>> {
        let index = *self.by_id.get(&id)?;
        let (results, calendar) = (&self.results, self.calendar);
        Some(self.tasks.get_mut(index)?.json(|last| Some(results.get(last)?.summary(calendar))))
    }

    /// The kind of a task.
    pub fn kind_of(&self, id: TaskId) -> Option<TaskKind> {
        self.tasks.get(*self.by_id.get(&id)?).map(|task| task.plan.kind)
    }

    /// The tasks of some kinds; `only`: none but these.
    pub fn tasks(&mut self, of: impl Fn(TaskKind) -> bool, only: Option<&[TaskId]>) -> Vec<Arc<Value>> {
        let wanted: Vec<usize> = match only {
            Some(ids) => ids.iter().filter_map(|id| self.by_id.get(id).copied()).collect(),
            None => (0..self.tasks.len()).collect(),
        };
        let ids = wanted.into_iter().filter_map(|index| {
            let task = self.tasks.get(index)?;
            (of(task.plan.kind) && !task.deleted).then_some(task.plan.id)
        });
        let ids: Vec<TaskId> = ids.collect();
        ids.into_iter().filter_map(|id| self.task(id)).collect()
    }

    /// The ids of the tasks with this name, whatever its case, in the order of the plan.
    pub fn tasks_named(&self, name: &str) -> Vec<TaskId> {
        let name = name.to_lowercase();
        let named = self.tasks.iter().filter(|task| !task.deleted && task.plan.name.to_lowercase() == name);
        named.map(|task| task.plan.id).collect()
    }

    /// The execution results that are worth a look, oldest first.
    pub fn results(&self, wanted: &Wanted) -> Vec<Arc<Value>> {
        let rows = self.results.select(wanted);
        rows.into_iter().map(|row| Arc::new(row.json(self.calendar))).collect()
    }

    /// The running executions; `only`: none but those of these tasks.
    pub fn sessions(&self, only: Option<&[TaskId]>) -> Vec<Arc<Value>> {
        let ids: Vec<ExecutionId> = match only {
            None => self.executions.keys().copied().collect(),
            Some(tasks) => {
                let places = tasks.iter().filter_map(|id| self.by_id.get(id));
                places.filter_map(|index| self.tasks.get(*index)).flat_map(|task| task.executions.clone()).collect()
            }
        };
        ids.into_iter().filter_map(|id| self.session(id)).map(Arc::new).collect()
    }

    /// The session of one running execution.
    pub fn session(&self, id: ExecutionId) -> Option<Value> {
        self.executions.get(&id).map(|execution| self.session_json(id, execution))
    }

    /// Every custom property and tag that a task has.
    pub fn used_names(&self) -> (Vec<(String, String)>, Vec<String>) {
        let present = || self.tasks.iter().filter(|task| !task.deleted);
        let properties = present().flat_map(|task| &task.plan.custom_properties);
        let pairs = properties.flat_map(|(name, values)| values.iter().map(|value| (name.clone(), value.clone())));
        (pairs.collect(), present().flat_map(|task| task.plan.tags.clone()).collect())
    }
}
