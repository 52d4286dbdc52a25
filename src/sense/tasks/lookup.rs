//! Executions nobody here has started: asked of QRS once, and followed from then on.
//!
//! Invariant: nobody's end is guessed. An execution has ended when it has no session and its last attempt is final; a failure that is younger
//! than [`SETTLED`] may be the pause before a retry, so it is followed until that is known.

use std::time::Duration;

use time::OffsetDateTime;
use tokio::sync::watch;

use super::{
    end::{ExecutionEnd, verdict},
    follow::{Execution, Follower, LINES},
    request::StartStatus,
};
use crate::{
    names::ExecutionId,
    sense::qrs::{Attempt, ExecutionStatus, QrsError},
};

/// After so long without a change, a failure is the end.
const SETTLED: Duration = Duration::from_secs(60);
/// How long whoever asks may be kept waiting for a script log.
const LOG_TIME: Duration = Duration::from_secs(5);

impl Follower {
    /// An execution, as it changes: a known one, or what QRS knows of it, which is followed from now on. `None`: QRS has no trace of it.
    ///
    /// # Errors
    /// If it is not known here and QRS gives no usable answer.
    pub async fn find(&self, id: ExecutionId) -> Result<Option<watch::Receiver<Execution>>, QrsError> {
        if let Some(known) = self.get(id) {
            return Ok(Some(known));
        }
        // Sessions first: an execution that ends in between is found ended.
        let sessions = self.qrs().sessions(&[id]).await?;
        let mut attempts = self.qrs().attempts(&[id]).await?;
        attempts.retain(|attempt| attempt.execution == Some(id));
        let (session, last) = (sessions.iter().find(|session| session.id == id), attempts.last());
        let task = session.and_then(|session| session.task).or_else(|| last.and_then(|last| last.task));
        let Some(task) = task else { return Ok(None) };
        let status = last.map(|last| last.status).or_else(|| session.and_then(|session| session.status));
        // Without its name it can be followed all the same.
        let task_name = self.qrs().task(task).await.ok().flatten().map(|task| task.name);
        let mut execution = Execution { id, task, task_name, started_by: None, status, end: None, over: false };
        if session.is_none() && last.is_some_and(has_settled) {
            (execution.end, execution.over) = (self.end_of(&attempts).await, true);
            return Ok(Some(watch::channel(execution).1));
        }
        // Where too many are followed already, what is known now is all there will be.
        Ok(Some(self.follow(execution.clone()).unwrap_or_else(|| watch::channel(execution).1)))
    }

    /// How an execution ended, with the end of its script log if it failed.
    async fn end_of(&self, attempts: &[Attempt]) -> Option<ExecutionEnd> {
        let (mut end, last) = (ExecutionEnd::of(attempts)?, attempts.last()?);
        if let Some(task) = last.task.filter(|_| verdict(last.status) == StartStatus::Failed) {
            let fetched = tokio::time::timeout(LOG_TIME, self.qrs().script_log(task, last, LINES)).await;
            end.log_tail = fetched.ok().and_then(Result::ok).flatten().unwrap_or_default();
        }
        Some(end)
    }
}

/// Whether the last attempt of an execution without a session is its end.
fn has_settled(last: &Attempt) -> bool {
    let quiet = last.modified.or(last.stopped).is_some_and(|at| OffsetDateTime::now_utc() - at > SETTLED);
    last.status == ExecutionStatus::FinishedSuccess || (last.status.is_final() && quiet)
}
