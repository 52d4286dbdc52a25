//! QRS as the event path's directory of tasks and apps.

use std::{str::FromStr, sync::Arc, time::Duration};

use serde_json::Value;
use tokio::time::timeout;

use crate::{
    names::{AppId, TaskId},
    sense::{
        directory::{BoxFuture, Cache, Enrichment, TaskDirectory},
        qrs::Qrs,
    },
};

/// Asks QRS; what it does not answer in time is what it said last, and no answer at all about a task nobody knows is `None`.
pub(super) struct QrsDirectory {
    qrs: Qrs,
    cache: Arc<Cache>,
    /// How long to wait before what is known has to do.
    patience: Duration,
}

impl QrsDirectory {
    /// `wait`: how long whoever asks will wait.
    pub(super) fn new(qrs: Qrs, cache: Arc<Cache>, wait: Duration) -> Self {
        Self { qrs, cache, patience: wait * 4 / 5 }
    }
}

impl TaskDirectory for QrsDirectory {
    fn enrich<'a>(&'a self, task_id: &'a str, app_id: &'a str) -> BoxFuture<'a, Option<Enrichment>> {
        Box::pin(async move {
            let (task, app) = tokio::join!(self.task(task_id), self.app(app_id));
            task.map(|task| Enrichment { task, app: app.flatten() })
        })
    }
}

impl QrsDirectory {
    /// `None`: no answer, and nothing known.
    async fn task(&self, id: &str) -> Option<Option<Value>> {
        let Ok(id) = TaskId::from_str(id) else { return Some(None) };
        match timeout(self.patience, self.qrs.task_full(id)).await {
            Ok(Ok(task)) => {
                task.iter().for_each(|task| self.cache.note_task(id, task));
                Some(task)
            }
            _ => self.cache.task(id).map(Some),
        }
    }

    async fn app(&self, id: &str) -> Option<Option<Value>> {
        let Ok(id) = AppId::from_str(id) else { return Some(None) };
        match timeout(self.patience, self.qrs.app_full(id)).await {
            Ok(Ok(app)) => {
                app.iter().for_each(|app| self.cache.note_app(id, app));
                Some(app)
            }
            _ => self.cache.app(id).map(Some),
        }
    }
}
