//! Executions, followed to their end.
//!
//! One task asks QRS about all of them at once, every [`LOOK`] while there are any: which sessions are under way, which attempts there are. An
//! execution has ended when its session is gone and its last attempt is final. Retries are attempts of the same execution; between two of them
//! a failure looks final, and a session may be missing in one answer, so an end that is no success is believed when it was seen twice.
//! A datagram about an execution is a reason to look at once.
//!
//! Invariants: bounded in number; every change of state is told once, in order; nobody's end is guessed: what QRS has no trace of for
//! [`LOST`] ends without a verdict.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::end::{ExecutionEnd, verdict};
use crate::{
    names::{ExecutionId, TaskId},
    sense::qrs::{Attempt, ExecutionStatus, Qrs, QrsError},
};

/// Between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// The longest pause while QRS does not answer.
const LONGEST: Duration = Duration::from_secs(30);
/// How long QRS may have no trace of an execution.
const LOST: Duration = Duration::from_secs(120);
/// Executions under way that are followed at a time.
const OPEN: usize = 10_000;
/// Executions that ended and are still known.
const ENDED: usize = 1_000;
/// Changes nobody has heard yet.
const CHANGES: usize = 1_024;
/// Lines of the script log of one that failed.
const LINES: usize = 20;

/// One execution, as far as it is known.
#[derive(Debug, Clone, PartialEq)]
pub struct Execution {
    /// Its id.
    pub id: ExecutionId,
    /// Its task.
    pub task: TaskId,
    /// The task's name, where known.
    pub task_name: Option<String>,
    /// By which door it was started and by whom.
    pub started_by: Option<(&'static str, String)>,
    /// Its state; `None`: not seen yet.
    pub status: Option<ExecutionStatus>,
    /// How it ended.
    pub end: Option<ExecutionEnd>,
    /// Nothing more will be known: it ended, or QRS has no trace of it.
    pub over: bool,
}

/// Follows executions. Cheap to clone.
#[derive(Clone)]
pub struct Follower(Arc<Inner>);

struct Inner {
    qrs: Qrs,
    known: Mutex<Known>,
    look: Notify,
    changes: broadcast::Sender<Execution>,
}

#[derive(Default)]
struct Known {
    open: HashMap<ExecutionId, Followed>,
    /// Oldest first.
    ended: std::collections::VecDeque<Execution>,
}

struct Followed {
    tell: watch::Sender<Execution>,
    /// When QRS had a trace of it last.
    seen: Instant,
    /// It looked ended at the last look.
    doubted: bool,
}

impl Follower {
    /// A follower that asks this QRS.
    pub fn new(qrs: Qrs) -> Self {
        let (changes, _) = broadcast::channel(CHANGES);
        Self(Arc::new(Inner { qrs, known: Mutex::default(), look: Notify::new(), changes }))
    }

    /// Follows an execution, if it is not followed already; `None`: there are too many.
    pub(super) fn follow(&self, execution: Execution) -> Option<watch::Receiver<Execution>> {
        let mut known = self.0.known.lock();
        if let Some(followed) = known.open.get(&execution.id) {
            return Some(followed.tell.subscribe());
        }
        if let Some(ended) = known.ended.iter().find(|ended| ended.id == execution.id) {
            return Some(watch::channel(ended.clone()).1);
        }
        if known.open.len() >= OPEN {
            return None;
        }
        let (tell, hear) = watch::channel(execution.clone());
        known.open.insert(execution.id, Followed { tell, seen: Instant::now(), doubted: false });
        drop(known);
        self.0.look.notify_one();
        Some(hear)
    }

    /// Something was heard about an execution: if it is followed, it is looked at now.
    pub fn hint(&self, id: ExecutionId) {
        if self.0.known.lock().open.contains_key(&id) {
            self.0.look.notify_one();
        }
    }

    /// Every change of every execution from now on. Who does not listen for long misses some, and is told so by the channel.
    pub fn changes(&self) -> broadcast::Receiver<Execution> {
        self.0.changes.subscribe()
    }

    /// Executions that are known: those under way, then those that ended, the latest first.
    pub fn all(&self) -> Vec<Execution> {
        let known = self.0.known.lock();
        let open = known.open.values().map(|followed| followed.tell.borrow().clone());
        open.chain(known.ended.iter().rev().cloned()).collect()
    }

    /// One of them, as it changes.
    pub fn get(&self, id: ExecutionId) -> Option<watch::Receiver<Execution>> {
        let known = self.0.known.lock();
        if let Some(followed) = known.open.get(&id) {
            return Some(followed.tell.subscribe());
        }
        known.ended.iter().find(|ended| ended.id == id).map(|ended| watch::channel(ended.clone()).1)
    }

    /// Follows until told to stop.
    pub async fn run(self, stop: CancellationToken) {
        let mut pause = LOOK;
        while !stop.is_cancelled() {
            let open: Vec<ExecutionId> = self.0.known.lock().open.keys().copied().collect();
            if open.is_empty() {
                let _ = stop.run_until_cancelled(self.0.look.notified()).await;
                continue;
            }
            pause = match stop.run_until_cancelled(self.look(&open)).await {
                None => return,
                Some(Ok(())) => LOOK,
                Some(Err(_)) => (pause * 2).min(LONGEST),
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
                () = self.0.look.notified() => {}
            }
        }
    }

    async fn look(&self, open: &[ExecutionId]) -> Result<(), QrsError> {
        // Sessions first: an execution that ends in between is found ended at the next look, not missing.
        let sessions = self.0.qrs.sessions(open).await?;
        let attempts = self.0.qrs.attempts(open).await?;
        let mut by_execution: HashMap<ExecutionId, Vec<Attempt>> = HashMap::new();
        for attempt in attempts {
            if let Some(id) = attempt.execution {
                by_execution.entry(id).or_default().push(attempt);
            }
        }
        for id in open {
            let attempts = by_execution.remove(id).unwrap_or_default();
            let session = sessions.iter().find(|session| session.id == *id);
            self.note(*id, session.map(|session| session.status), &attempts).await;
        }
        Ok(())
    }

    /// What a look brought about one execution. `session`: it is under way, and the state its session tells.
    async fn note(&self, id: ExecutionId, session: Option<Option<ExecutionStatus>>, attempts: &[Attempt]) {
        let last = attempts.last();
        let status = last.map(|last| last.status).or(session.flatten());
        let looks_ended = session.is_none() && last.is_some_and(|last| last.status.is_final());
        let believed = looks_ended && {
            let mut known = self.0.known.lock();
            let Some(followed) = known.open.get_mut(&id) else { return };
            let before = std::mem::replace(&mut followed.doubted, true);
            before || last.is_some_and(|last| last.status == ExecutionStatus::FinishedSuccess)
        };
        if !believed {
            return self.note_state(id, status, session.is_some() || last.is_some(), looks_ended);
        }
        let mut end = ExecutionEnd::of(attempts);
        if let (Some(end), Some(last)) = (&mut end, last)
            && verdict(last.status) == super::request::StartStatus::Failed
            && let Some(task) = last.task
            && let Ok(Some(lines)) = self.0.qrs.script_log(task, last, LINES).await
        {
            end.log_tail = lines;
        }
        self.close(id, status, end);
    }

    fn note_state(&self, id: ExecutionId, status: Option<ExecutionStatus>, traced: bool, doubted: bool) {
        let lost = {
            let mut known = self.0.known.lock();
            let Some(followed) = known.open.get_mut(&id) else { return };
            followed.doubted = doubted;
            if traced {
                followed.seen = Instant::now();
            }
            // A state that may be the end, or the pause before a retry, is told when it is known which.
            let new = status.filter(|status| !doubted && followed.tell.borrow().status != Some(*status));
            if let Some(status) = new {
                followed.tell.send_modify(|execution| execution.status = Some(status));
                let _ = self.0.changes.send(followed.tell.borrow().clone());
            }
            followed.seen.elapsed() > LOST
        };
        if lost {
            tracing::warn!(execution = %id, "Qlik Sense has no trace of an execution any more; it is not followed further");
            self.close(id, status, None);
        }
    }

    fn close(&self, id: ExecutionId, status: Option<ExecutionStatus>, end: Option<ExecutionEnd>) {
        let mut known = self.0.known.lock();
        let Some(followed) = known.open.remove(&id) else { return };
        followed.tell.send_modify(|execution| {
            execution.status = status.or(execution.status);
            (execution.end, execution.over) = (end, true);
        });
        let ended = followed.tell.borrow().clone();
        // Nobody may be listening.
        let _ = self.0.changes.send(ended.clone());
        known.ended.push_back(ended);
        if known.ended.len() > ENDED {
            known.ended.pop_front();
        }
    }
}
