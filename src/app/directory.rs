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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::{self, LoadOptions};

    /// A QRS nobody answers for.
    fn nobody() -> Qrs {
        let mut settings = config::built_in(&LoadOptions::default()).unwrap().settings.qrs;
        (settings.host, settings.port, settings.use_tls) = (Some("127.0.0.1".into()), 1, false);
        Qrs::new(&settings)
    }

    #[tokio::test]
    async fn what_was_heard_last_stands_in_for_a_qrs_that_is_away() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let cache = Arc::new(Cache::default());
        let directory = QrsDirectory::new(nobody(), cache.clone(), Duration::from_secs(10));
        let (task, app) = (TaskId::from_u128(1), AppId::from_u128(2));
        let asked = (task.to_string(), app.to_string());
        assert_eq!(directory.enrich(&asked.0, &asked.1).await, None, "nothing is known");
        cache.note_task(task, &json!({"name": "T", "operational": {"id": 1}}));
        let known = directory.enrich(&asked.0, &asked.1).await.unwrap();
        assert_eq!((known.task, known.app), (Some(json!({"name": "T"})), None));
        cache.note_app(app, &json!({"name": "A"}));
        assert_eq!(directory.enrich(&asked.0, &asked.1).await.unwrap().app, Some(json!({"name": "A"})));
        assert_eq!(directory.enrich("no id", "").await, Some(Enrichment::default()), "nobody is asked for that");
    }
}
