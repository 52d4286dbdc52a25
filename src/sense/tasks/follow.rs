//! Executions, followed to their end.
//!
//! One task asks QRS about all of them at once, every [`LOOK`] while there are any: which sessions are under way, which attempts there are. An
//! execution has ended when its session is gone and its last attempt is final. Retries are attempts of the same execution; between two of them
//! a failure looks final, and a session may be missing in one answer, so an end that is no success is believed when it still is one after
//! [`DOUBT`]. A new execution, and one that a datagram tells of, is looked at sooner, with all others of which that is true.
//!
//! Invariants: bounded in number; every change of state is told once, in order; nobody's end is guessed: what QRS has no trace of for
//! [`LOST`] ends without a verdict; however many there are, looking takes QRS a tenth of its time, and what is looked at sooner a fifth of a second's
//! worth of it.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, broadcast, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    end::{ExecutionEnd, verdict},
    request::StartStatus,
};
use crate::{
    names::{ExecutionId, TaskId},
    sense::qrs::{Attempt, ExecutionStatus, Qrs, QrsError, Session},
};

/// Between two looks at all of them, and longer if looking takes long: see [`SHARE`].
const LOOK: Duration = Duration::from_secs(1);
/// The pause after a look is so many times as long as it took.
const SHARE: u32 = 10;
/// Between two looks at those that are looked at sooner.
const SOON: Duration = Duration::from_millis(200);
/// How long an end that is no success must last until it is believed.
const DOUBT: Duration = Duration::from_millis(800);
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
/// Script logs fetched at a time.
const LOGS: usize = 8;
/// How long one may take, its turn included.
const LOG_TIME: Duration = Duration::from_secs(60);
/// Lines of the script log of one that failed.
pub(super) const LINES: usize = 20;

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
    /// Script logs that are fetched at a time.
    logs: Semaphore,
    fetching: TaskTracker,
    changes: broadcast::Sender<Execution>,
}

#[derive(Default)]
struct Known {
    open: HashMap<ExecutionId, Followed>,
    /// Those of them that are looked at sooner.
    soon: HashSet<ExecutionId>,
    /// Oldest first.
    ended: VecDeque<Execution>,
}

struct Followed {
    tell: watch::Sender<Execution>,
    /// When QRS had a trace of it last.
    seen: Instant,
    /// It has looked ended since.
    doubted: Option<Instant>,
    /// It has ended; its script log is being fetched.
    closing: bool,
}

impl Known {
    fn all(&mut self) -> Vec<ExecutionId> {
        self.soon.clear();
        self.open.iter().filter(|(_, followed)| !followed.closing).map(|(id, _)| *id).collect()
    }

    fn soon(&mut self) -> Vec<ExecutionId> {
        let soon = std::mem::take(&mut self.soon);
        soon.into_iter().filter(|id| self.open.get(id).is_some_and(|followed| !followed.closing)).collect()
    }
}

impl Follower {
    /// A follower that asks this QRS.
    pub fn new(qrs: Qrs) -> Self {
        let (changes, _) = broadcast::channel(CHANGES);
        Self(Arc::new(Inner {
            qrs,
            known: Mutex::default(),
            look: Notify::new(),
            logs: Semaphore::new(LOGS),
            fetching: TaskTracker::new(),
            changes,
        }))
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
        known.soon.insert(execution.id);
        known.open.insert(execution.id, Followed { tell, seen: Instant::now(), doubted: None, closing: false });
        drop(known);
        self.0.look.notify_one();
        Some(hear)
    }

    /// Whom it asks.
    pub(super) fn qrs(&self) -> &Qrs {
        &self.0.qrs
    }

    /// Something was heard about an execution: if it is followed, it is looked at soon.
    pub fn hint(&self, id: ExecutionId) {
        let mut known = self.0.known.lock();
        if known.open.contains_key(&id) && known.soon.insert(id) {
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
        let _ = stop.run_until_cancelled(self.follow_all(&stop)).await;
    }

    async fn follow_all(&self, stop: &CancellationToken) {
        let (mut all_due, mut soon_due, mut failures) = (Instant::now(), Instant::now(), 0);
        loop {
            let (all, ids) = tokio::select! {
                () = tokio::time::sleep_until(all_due.into()) => (true, self.0.known.lock().all()),
                () = async {
                    self.0.look.notified().await;
                    tokio::time::sleep_until(soon_due.into()).await;
                } => (false, self.0.known.lock().soon()),
            };
            let began = Instant::now();
            let looked = self.look(&ids, stop).await;
            failures = looked.map_or((failures + 1).min(5), |()| 0);
            let pause = LOOK.max(began.elapsed() * SHARE) * 2_u32.pow(failures);
            if all || failures > 0 {
                all_due = Instant::now() + pause.min(LONGEST);
            }
            soon_due = Instant::now() + if failures > 0 { pause.min(LONGEST) } else { SOON };
        }
    }

    async fn look(&self, open: &[ExecutionId], stop: &CancellationToken) -> Result<(), QrsError> {
        if open.is_empty() {
            return Ok(());
        }
        // Sessions first: an execution that ends in between is found ended at the next look, not missing.
        let sessions = self.0.qrs.sessions(open).await?;
        let attempts = self.0.qrs.attempts(open).await?;
        let sessions: HashMap<ExecutionId, Session> =
            sessions.into_iter().map(|session| (session.id, session)).collect();
        let mut by_execution: HashMap<ExecutionId, Vec<Attempt>> = HashMap::new();
        for attempt in attempts {
            if let Some(id) = attempt.execution {
                by_execution.entry(id).or_default().push(attempt);
            }
        }
        for id in open {
            let attempts = by_execution.remove(id).unwrap_or_default();
            let session = sessions.get(id);
            self.note(*id, session.map(|session| session.status), attempts, stop);
        }
        Ok(())
    }

    /// What a look brought about one execution. `session`: it is under way, and the state its session tells.
    fn note(
        &self,
        id: ExecutionId,
        session: Option<Option<ExecutionStatus>>,
        attempts: Vec<Attempt>,
        stop: &CancellationToken,
    ) {
        let Some(last) = attempts.last() else {
            return self.note_state(id, session.flatten(), session.is_some(), false);
        };
        let looks_ended = session.is_none() && last.status.is_final();
        if !looks_ended || !self.believes(id, last.status) {
            return self.note_state(id, Some(last.status), true, looks_ended);
        }
        if verdict(last.status) != StartStatus::Failed {
            return self.close(id, Some(last.status), ExecutionEnd::of(&attempts));
        }
        // The log comes late and slowly; the others are looked at meanwhile.
        let (follower, stop) = (self.clone(), stop.clone());
        self.0.fetching.spawn(async move { stop.run_until_cancelled(follower.close_with_log(id, &attempts)).await });
    }

    /// Whether an end that was seen is one; if so, it is not looked at again.
    fn believes(&self, id: ExecutionId, status: ExecutionStatus) -> bool {
        let mut known = self.0.known.lock();
        let Some(followed) = known.open.get_mut(&id) else { return false };
        let since = *followed.doubted.get_or_insert_with(Instant::now);
        followed.closing = since.elapsed() >= DOUBT || status == ExecutionStatus::FinishedSuccess;
        followed.closing
    }

    async fn close_with_log(&self, id: ExecutionId, attempts: &[Attempt]) {
        let (Some(last), mut end) = (attempts.last(), ExecutionEnd::of(attempts)) else { return };
        let fetched = async {
            // The semaphore is never closed: this waits for a turn and cannot fail.
            let _turn = self.0.logs.acquire().await;
            self.0.qrs.script_log(last.task?, last, LINES).await.ok().flatten()
        };
        let lines = tokio::time::timeout(LOG_TIME, fetched).await.ok().flatten();
        if let (Some(end), Some(lines)) = (&mut end, lines) {
            end.log_tail = lines;
        }
        self.close(id, Some(last.status), end);
    }

    fn note_state(&self, id: ExecutionId, status: Option<ExecutionStatus>, traced: bool, doubted: bool) {
        let lost = {
            let mut known = self.0.known.lock();
            let Some(followed) = known.open.get_mut(&id) else { return };
            if !doubted {
                followed.doubted = None;
            }
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
            tracing::warn!(
                code = "execution_lost",
                execution = %id,
                "Qlik Sense has no trace of an execution any more; it is not followed further; look in the QMC how it ended"
            );
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
