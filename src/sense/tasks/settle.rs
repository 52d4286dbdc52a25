//! Finding out what became of a start call that nobody answered.
//!
//! The executions QRS knew of the task before the call were written down with it; one it knows now and did not know then is ours.
//! Invariants: the call is never repeated; `unknown` is said only after QRS was there and showed no trace of an execution for
//! [`Patience::settle`], or was away for [`Patience::away`].

use std::{collections::HashSet, time::Duration};

use time::OffsetDateTime;
use tokio::time::Instant;

use crate::{
    names::{ExecutionId, TaskId},
    sense::qrs::{Qrs, QrsError},
};

/// How far back executions of a task are looked for: longer than clocks differ.
const BACK: Duration = Duration::from_secs(10 * 60);

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

/// Executions of a task that QRS has attempts of, of the last while, oldest first.
///
/// # Errors
/// If QRS gives no usable answer.
pub(super) async fn attempted(qrs: &Qrs, task: TaskId) -> Result<Vec<ExecutionId>, QrsError> {
    let attempts = qrs.attempts_of(task, OffsetDateTime::now_utc() - BACK).await?;
    let mut seen = HashSet::new();
    Ok(attempts.into_iter().filter_map(|attempt| attempt.execution).filter(|id| seen.insert(*id)).collect())
}

/// The same, with those under way.
async fn executions(qrs: &Qrs, task: TaskId) -> Result<Vec<ExecutionId>, QrsError> {
    let (attempted, sessions) = tokio::try_join!(attempted(qrs, task), qrs.sessions_of(task))?;
    Ok(attempted.into_iter().chain(sessions.into_iter().map(|session| session.id)).collect())
}

/// The execution a call led to, if there is one.
pub(super) async fn find_out(
    qrs: &Qrs,
    task: TaskId,
    before: &[ExecutionId],
    patience: Patience,
) -> Option<ExecutionId> {
    let begun = Instant::now();
    let mut answered = None;
    loop {
        match executions(qrs, task).await {
            Ok(now) => {
                if let Some(new) = now.into_iter().find(|id| !before.contains(id)) {
                    return Some(new);
                }
                if answered.get_or_insert_with(Instant::now).elapsed() >= patience.settle {
                    return None;
                }
            }
            Err(error) if begun.elapsed() >= patience.away => {
                tracing::warn!(%task, %error, "what became of a start cannot be found out");
                return None;
            }
            Err(_) => {}
        }
        tokio::time::sleep(patience.look).await;
    }
}
