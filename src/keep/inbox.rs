//! What waits for the writer: writes, in the order they were called.
//!
//! What nobody waits for waits itself, at most [`LATER`], so that it goes into a commit of others: a commit of its own would only keep the next
//! one waiting. Handing something over never blocks: one short lock, one wake. Bounded in bytes, those of the commit under way included; what does not
//! fit is refused at once.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::{Change, KeepError, metrics::KeepMetrics};

/// Bytes that may wait.
pub(super) const ROOM: usize = 64 << 20;
/// Bytes of one commit; a write of any size is taken if it is the first.
const COMMIT: usize = 8 << 20;
/// How long what nobody waits for may wait for the commit of others.
const LATER: Duration = Duration::from_millis(20);
/// What a change takes beside its bytes.
const OVERHEAD: usize = 64;

/// Somebody who waits, or nobody.
pub(super) type Waiting = Option<oneshot::Sender<Result<(), KeepError>>>;

/// A write.
#[derive(Debug)]
pub(super) struct Job {
    pub shelf: &'static str,
    pub changes: Vec<Change>,
    pub waiting: Waiting,
    bytes: usize,
}

impl Job {
    pub(super) fn new(shelf: &'static str, changes: Vec<Change>, waiting: Waiting) -> Self {
        let bytes = changes.iter().map(|change| change.bytes() + OVERHEAD).sum();
        Self { shelf, changes, waiting, bytes }
    }
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    /// Of everything handed over and not decided yet.
    bytes: usize,
    /// Of those that wait, so many are waited for.
    urgent: usize,
    /// The others are due then.
    due: Option<Instant>,
    /// The writer sleeps.
    asleep: bool,
    stopping: bool,
    closed: bool,
}

impl State {
    /// Puts a job at the end; whether the writer has something else to wait for now.
    fn add(&mut self, job: Job) -> bool {
        let first = if job.waiting.is_some() {
            self.urgent += 1;
            true
        } else {
            let set = self.due.is_none();
            self.due.get_or_insert_with(|| Instant::now() + LATER);
            set || self.bytes > COMMIT
        };
        self.jobs.push_back(job);
        first
    }

    /// Whether there is a commit's work now.
    fn is_ready(&self) -> bool {
        self.stopping
            || self.urgent > 0
            || self.bytes > COMMIT && !self.jobs.is_empty()
            || self.due.is_some_and(|due| due <= Instant::now())
    }

    /// What the next commit takes.
    fn take(&mut self) -> Vec<Job> {
        let (mut jobs, mut bytes) = (Vec::new(), 0);
        while let Some(job) = self.jobs.front() {
            bytes += job.bytes;
            if !jobs.is_empty() && bytes > COMMIT {
                break;
            }
            self.urgent -= usize::from(job.waiting.is_some());
            jobs.extend(self.jobs.pop_front());
        }
        if self.jobs.is_empty() {
            self.due = None;
        }
        jobs
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Inbox {
    state: Mutex<State>,
    wake: Condvar,
    /// Writes that failed.
    failures: AtomicU64,
    metrics: Arc<KeepMetrics>,
}

/// What the writer has to do.
#[derive(Debug)]
pub(super) struct Work {
    pub jobs: Vec<Job>,
    /// Nothing will come after this.
    pub last: bool,
}

impl Inbox {
    pub(super) fn new(metrics: Arc<KeepMetrics>) -> Self {
        Self { state: Mutex::default(), wake: Condvar::new(), failures: AtomicU64::new(0), metrics }
    }

    /// Hands a write over; one that is not taken is answered here.
    pub(super) fn submit(&self, job: Job) {
        let mut state = self.state.lock();
        let refused = if state.stopping || state.closed {
            Some(KeepError::Stopped)
        } else if state.bytes.saturating_add(job.bytes) > ROOM {
            Some(KeepError::Busy)
        } else {
            None
        };
        if let Some(error) = refused {
            drop(state);
            return self.answer(job.waiting, job.shelf, Err(error));
        }
        state.bytes += job.bytes;
        self.metrics.queued(state.bytes);
        let first = state.add(job);
        let asleep = state.asleep && first;
        drop(state);
        if asleep {
            self.wake.notify_one();
        }
    }

    /// Waits for work, until `deadline` if there is one.
    pub(super) fn take(&self, deadline: Option<Instant>) -> Work {
        let mut state = self.state.lock();
        let is_over = |deadline: Option<Instant>| deadline.is_some_and(|deadline| deadline <= Instant::now());
        while !state.is_ready() && !is_over(deadline) {
            state.asleep = true;
            match deadline.into_iter().chain(state.due).min() {
                Some(until) => drop(self.wake.wait_until(&mut state, until)),
                None => self.wake.wait(&mut state),
            }
            state.asleep = false;
        }
        Work { jobs: state.take(), last: state.stopping && state.jobs.is_empty() }
    }

    /// Tells what became of writes, in their order, and gives their room back.
    pub(super) fn decide(&self, jobs: Vec<Job>, outcome: &Result<(), KeepError>) {
        let bytes: usize = jobs.iter().map(|job| job.bytes).sum();
        for job in jobs {
            self.answer(job.waiting, job.shelf, outcome.clone());
        }
        let mut state = self.state.lock();
        state.bytes = state.bytes.saturating_sub(bytes);
        self.metrics.queued(state.bytes);
    }

    fn answer(&self, waiting: Waiting, shelf: &str, outcome: Result<(), KeepError>) {
        if let Err(error) = &outcome {
            self.failures.fetch_add(1, Ordering::Relaxed);
            self.metrics.refused(error);
        }
        match (waiting, outcome) {
            // Whoever waited may have gone away.
            (Some(waiting), outcome) => drop(waiting.send(outcome)),
            (None, Err(error)) => self.metrics.lost(shelf, &error),
            (None, Ok(())) => {}
        }
    }

    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Everything handed over is still worked on, and nothing is taken after that.
    pub(super) fn stop(&self) {
        self.state.lock().stopping = true;
        self.wake.notify_one();
    }

    /// The writer is gone: whatever is or comes is refused.
    pub(super) fn close(&self) {
        let jobs = {
            let mut state = self.state.lock();
            state.closed = true;
            (state.urgent, state.due) = (0, None);
            std::mem::take(&mut state.jobs)
        };
        self.decide(jobs.into(), &Err(KeepError::Stopped));
    }

    /// Whether it takes nothing any more.
    pub(super) fn is_stopped(&self) -> bool {
        let state = self.state.lock();
        state.stopping || state.closed
    }
}
