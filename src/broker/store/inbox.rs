//! What waits for the writer: groups in order, and sessions whose progress is to be written.
//!
//! Handing something over never blocks: one short lock, one wake. Bounded from outside: groups by the admission windows, whose permits publishers
//! wait for before a message reaches the stream; sessions, of which each is here at most once, by their number.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::Group;
use crate::broker::session::Session;

/// Progress nobody waits for is written this much later: a commit of its own per acknowledgement would halve what the disk gives ...
const LAZY: Duration = Duration::from_millis(10);
/// ... or, on a slow disk, so many times what the last commit took ...
const SHARE: u32 = 4;
/// ... but not later than this.
const LAZIEST: Duration = Duration::from_millis(200);
/// Messages of one commit ...
const MESSAGES: usize = 1_000;
/// ... and their bytes; a group of any size is taken if it is the first.
const BYTES: usize = 1 << 20;

#[derive(Debug, Default)]
struct State {
    groups: VecDeque<Group>,
    dirty: Vec<Arc<Session>>,
    /// When the oldest of `dirty` came.
    since: Option<Instant>,
    /// When the writer took the work it is at, and how long it was at the work before.
    begun: Option<Instant>,
    took: Duration,
    /// Somebody waits for progress to be written.
    urgent: bool,
    /// The writer works; what it works on is said before anything that comes now.
    busy: bool,
    /// The file is to be opened again.
    reopen: bool,
    /// It sleeps.
    asleep: bool,
    stopping: bool,
    closed: bool,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    state: Mutex<State>,
    wake: Condvar,
}

/// What the writer has to do.
#[derive(Debug, Default)]
pub(super) struct Work {
    pub groups: Vec<Group>,
    pub dirty: Vec<Arc<Session>>,
    /// The file is to be opened again first: the reader met an error after which it gives nothing.
    pub reopen: bool,
    /// Nothing more will come than what is there.
    pub stopping: bool,
    /// There was nothing else: this was the last.
    pub last: bool,
}

impl Inbox {
    /// Hands a group over.
    pub(super) fn submit(&self, group: Group) {
        let mut state = self.state.lock();
        if state.closed {
            drop(state);
            return group.promise.break_off();
        }
        if group.stores_nothing() && state.groups.is_empty() && !state.busy {
            // Everything before it is said: no need to wake anybody.
            drop(state);
            return group.promise.keep();
        }
        state.groups.push_back(group);
        self.awake(state);
    }

    /// Hands over sessions whose progress is to be written. `urgent`: somebody waits for it.
    pub(super) fn touch(&self, session: Option<&Arc<Session>>, urgent: bool) {
        let mut state = self.state.lock();
        if let Some(session) = session {
            state.dirty.push(Arc::clone(session));
            state.since.get_or_insert_with(Instant::now);
        }
        let first = state.dirty.len() == 1 && session.is_some();
        state.urgent |= urgent;
        if urgent || first {
            self.awake(state);
        }
    }

    /// The database refuses everything since a failed read: it is to be opened again, before a commit fails for that.
    pub(super) fn reopen(&self) {
        let mut state = self.state.lock();
        state.reopen = true;
        self.awake(state);
    }

    fn awake(&self, state: parking_lot::MutexGuard<'_, State>) {
        let asleep = state.asleep;
        drop(state);
        if asleep {
            self.wake.notify_one();
        }
    }

    /// Everything handed over is still worked on, and nothing is taken after that.
    pub(super) fn stop(&self) {
        let mut state = self.state.lock();
        state.stopping = true;
        self.awake(state);
    }

    /// The writer is gone: whatever is or comes is refused.
    pub(super) fn close(&self) {
        let groups = {
            let mut state = self.state.lock();
            state.closed = true;
            state.dirty.clear();
            std::mem::take(&mut state.groups)
        };
        groups.into_iter().for_each(|group| group.promise.break_off());
    }

    /// Waits for work, until `deadline` if there is one. With `down`, progress stays where it is.
    pub(super) fn take(&self, down: bool, deadline: Option<Instant>) -> Work {
        let mut state = self.state.lock();
        state.rest();
        loop {
            let due = state.since.filter(|_| !down).map(|since| since + state.lazy());
            let written = state.urgent || state.stopping || due.is_some_and(|due| due <= Instant::now());
            let progress = !down && !state.dirty.is_empty() && written;
            if !state.groups.is_empty() || progress || state.stopping || state.reopen {
                return state.take(progress);
            }
            let until = [deadline, due].into_iter().flatten().min();
            if until.is_some_and(|until| until <= Instant::now()) {
                state.busy = true;
                return Work::default();
            }
            state.asleep = true;
            match until {
                Some(until) => drop(self.wake.wait_until(&mut state, until)),
                None => self.wake.wait(&mut state),
            }
            state.asleep = false;
        }
    }
}

impl State {
    /// The writer is back.
    fn rest(&mut self) {
        self.busy = false;
        if let Some(begun) = self.begun.take() {
            self.took = begun.elapsed();
        }
    }

    fn lazy(&self) -> Duration {
        LAZY.max(self.took * SHARE).min(LAZIEST)
    }

    fn take(&mut self, progress: bool) -> Work {
        self.busy = true;
        self.begun = Some(Instant::now());
        let reopen = std::mem::take(&mut self.reopen);
        let mut work = Work { stopping: self.stopping, reopen, ..Work::default() };
        if progress {
            work.dirty = std::mem::take(&mut self.dirty);
            (self.since, self.urgent) = (None, false);
        }
        let (mut messages, mut bytes) = (0, 0);
        while let Some(group) = self.groups.front() {
            messages += group.messages.len();
            bytes += group.messages.iter().map(|message| message.size()).sum::<usize>();
            if !work.groups.is_empty() && (messages > MESSAGES || bytes > BYTES) {
                break;
            }
            work.groups.extend(self.groups.pop_front());
        }
        work.last = self.stopping && self.groups.is_empty();
        work
    }
}
