//! What the event path asks of whoever knows Sense's tasks and apps (the Repository Service, in practice).

use std::{future::Future, pin::Pin};

use serde_json::Value;

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
