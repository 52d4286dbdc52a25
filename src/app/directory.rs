//! QRS as the event path's directory of tasks and apps.

use serde_json::Value;

use crate::{
    names::{AppId, TaskId},
    sense::{
        directory::{BoxFuture, Enrichment, TaskDirectory},
        qrs::{Qrs, QrsError},
    },
};

/// Asks QRS; a part of the answer that fails is left out, and no answer at all is `None`.
pub(super) struct QrsDirectory(pub Qrs);

impl TaskDirectory for QrsDirectory {
    fn enrich<'a>(&'a self, task_id: &'a str, app_id: &'a str) -> BoxFuture<'a, Option<Enrichment>> {
        Box::pin(async move {
            let (task, app) = tokio::join!(self.task(task_id), self.app(app_id));
            match (task, app) {
                (Ok(task), Ok(app)) => Some(Enrichment { task, app }),
                (Ok(task), Err(_)) => Some(Enrichment { task, app: None }),
                (Err(_), _) => None,
            }
        })
    }
}

impl QrsDirectory {
    async fn task(&self, id: &str) -> Result<Option<Value>, QrsError> {
        match id.parse::<TaskId>() {
            Ok(id) => self.0.task_full(id).await,
            Err(_) => Ok(None),
        }
    }

    async fn app(&self, id: &str) -> Result<Option<Value>, QrsError> {
        match id.parse::<AppId>() {
            Ok(id) => self.0.app_full(id).await,
            Err(_) => Ok(None),
        }
    }
}
