//! Finding out what became of a start call that nobody answered.
//!
//! The executions QRS knew of the task before the call were written down with it; one it knows now and did not know then is ours.
//! Invariants: the call is never repeated; `unknown` is said only after QRS was there and showed no trace of an execution for
//! [`Patience::settle`], or was away for [`Patience::away`].

use std::time::Duration;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use tokio::time::Instant;

use crate::{
    names::{AppId, ExecutionId, ResultId, TaskId},
    sense::qrs::{Qrs, QrsError},
};

/// How long what became of a call is looked for.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// How long a QRS that answers may show no trace.
    pub settle: Duration,
    /// How long it may be away.
    pub away: Duration,
    /// Between two looks.
    pub look: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Self { settle: seconds(30), away: seconds(15 * 60), look: seconds(1) }
    }
}

/// What QRS knew of a task before it was called: what it knows later and did not know then is new. By QRS's own clock.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Before {
    /// Executions under way.
    running: Vec<ExecutionId>,
    /// The last attempt.
    last: Option<ResultId>,
    /// When that began, milliseconds since 1970; nothing new is older.
    since: Option<i64>,
}

impl Before {
    /// Asks QRS; with the app of the task, which the same answer tells.
    ///
    /// # Errors
    /// If QRS gives no usable answer.
    pub(super) async fn ask(qrs: &Qrs, task: TaskId) -> Result<(Self, Option<AppId>), QrsError> {
        let (sessions, last) = tokio::try_join!(qrs.sessions_of(task), qrs.last_attempt(task))?;
        let before = Self {
            running: sessions.iter().map(|session| session.id).collect(),
            last: last.id,
            since: last.started.map(|at| at.unix_timestamp() * 1_000 + i64::from(at.millisecond())),
        };
        Ok((before, last.app))
    }

    /// The execution under way.
    pub(super) fn running(&self) -> Option<ExecutionId> {
        self.running.first().copied()
    }

    /// An execution QRS knows now and did not know then.
    async fn new_one(&self, qrs: &Qrs, task: TaskId) -> Result<Option<ExecutionId>, QrsError> {
        let since = self.since.unwrap_or_default();
        let since = OffsetDateTime::UNIX_EPOCH + time::Duration::milliseconds(since);
        let (attempts, sessions) = tokio::try_join!(qrs.attempts_of(task, since), qrs.sessions_of(task))?;
        // Attempts come oldest first: what comes behind the last one known then is new, and the oldest of that is ours.
        let known = attempts.iter().position(|attempt| Some(attempt.id) == self.last).map_or(0, |last| last + 1);
        let all = attempts
            .iter()
            .skip(known)
            .filter_map(|attempt| attempt.execution)
            .chain(sessions.iter().map(|session| session.id));
        Ok(all.into_iter().find(|id| !self.running.contains(id)))
    }
}

/// The execution a call led to, if there is one.
pub(super) async fn find_out(qrs: &Qrs, task: TaskId, before: &Before, patience: Patience) -> Option<ExecutionId> {
    let begun = Instant::now();
    let mut answered = None;
    loop {
        match before.new_one(qrs, task).await {
            Ok(Some(new)) => return Some(new),
            Ok(None) if answered.get_or_insert_with(Instant::now).elapsed() >= patience.settle => return None,
            Err(error) if begun.elapsed() >= patience.away => {
                tracing::warn!(
                    code = "start_outcome_unknown",
                    %task,
                    %error,
                    "what became of a start cannot be found out; look in the QMC whether the task runs"
                );
                return None;
            }
            Ok(None) | Err(_) => {}
        }
        tokio::time::sleep(patience.look).await;
    }
}
