//! What the event path asks of whoever knows Sense's tasks and apps (the Repository Service, in practice).

use std::{
    collections::{HashMap, VecDeque},
    future::Future,
    hash::Hash,
    pin::Pin,
};

use parking_lot::Mutex;
use serde_json::Value;

use crate::names::{AppId, TaskId};

/// A boxed future, as trait objects need it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the Repository Service says about the task and app of an event, as it says it: whole objects, order of keys kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Enrichment {
    /// The task, from `task/full`; `None`: it answered that there is no such task.
    pub task: Option<Value>,
    /// The app, from `app/full`; `None`: there is none, it is not known, or this part of the answer did not come.
    pub app: Option<Value>,
}

/// Somebody who knows tasks and apps.
pub trait TaskDirectory: Send + Sync + 'static {
    /// Looks up a task and an app by the ids an event carries, as sent (any case; may be empty, `(null)` or no id at all).
    ///
    /// `None`: no answer (not reachable, refused, not configured). The caller waits only as long as it likes and then drops the future, so
    /// an implementation needs no time-out for the caller's sake. At most one call for a task id is under way at a time.
    fn enrich<'a>(&'a self, task_id: &'a str, app_id: &'a str) -> BoxFuture<'a, Option<Enrichment>>;
}

/// Tasks, and apps, that are known at most; an object has some KB.
const MOST: usize = 2_000;
/// What is true of a task, or an app, at one moment only: an older answer must not tell it.
const MOMENTARY: [&str; 2] = ["operational", "lastReloadTime"];

/// What was heard of tasks and apps last, for when QRS does not answer. Bounded: the oldest are forgotten first.
#[derive(Debug, Default)]
pub struct Cache {
    tasks: Mutex<Shelved<TaskId>>,
    apps: Mutex<Shelved<AppId>>,
}

#[derive(Debug)]
struct Shelved<K> {
    known: HashMap<K, Value>,
    /// In the order in which they became known.
    order: VecDeque<K>,
}

impl<K> Default for Shelved<K> {
    fn default() -> Self {
        Self { known: HashMap::new(), order: VecDeque::new() }
    }
}

impl<K: Copy + Eq + Hash> Shelved<K> {
    fn note(&mut self, id: K, object: &Value) {
        let mut object = object.clone();
        if let Value::Object(fields) = &mut object {
            fields.retain(|key, _| !MOMENTARY.contains(&key.as_str()));
        }
        if self.known.insert(id, object).is_some() {
            return;
        }
        self.order.push_back(id);
        if self.order.len() > MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
    }
}

impl Cache {
    /// QRS said this of a task just now.
    pub fn note_task(&self, id: TaskId, object: &Value) {
        self.tasks.lock().note(id, object);
    }

    /// QRS said this of an app just now.
    pub fn note_app(&self, id: AppId, object: &Value) {
        self.apps.lock().note(id, object);
    }

    /// What it said of a task last, without what was true at that moment only (`operational`).
    pub fn task(&self, id: TaskId) -> Option<Value> {
        self.tasks.lock().known.get(&id).cloned()
    }

    /// What it said of an app last, without `lastReloadTime`.
    pub fn app(&self, id: AppId) -> Option<Value> {
        self.apps.lock().known.get(&id).cloned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_was_heard_last_is_known_without_what_passes() {
        let cache = Cache::default();
        let id = TaskId::from_u128(1);
        assert_eq!(cache.task(id), None);
        cache.note_task(id, &json!({"z": 1, "operational": {"lastExecutionResult": {}}, "name": "old"}));
        cache.note_task(id, &json!({"z": 1, "name": "new"}));
        assert_eq!(cache.task(id), Some(json!({"z": 1, "name": "new"})));
        for number in 2..=MOST as u128 + 1 {
            cache.note_task(TaskId::from_u128(number), &json!({}));
        }
        assert_eq!((cache.task(id), cache.tasks.lock().order.len()), (None, MOST));
        cache.note_app(AppId::from_u128(1), &json!({"lastReloadTime": "x", "owner": {}}));
        assert_eq!(cache.app(AppId::from_u128(1)), Some(json!({"owner": {}})));
    }
}
