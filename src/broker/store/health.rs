//! How the store is, for whoever watches it.

use std::{collections::BTreeMap, path::PathBuf, time::SystemTime};

use parking_lot::Mutex;

use super::Sid;
use crate::names::ClientId;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum StoreHealth {
    /// It takes and gives.
    #[default]
    Ok,
    /// It could not be opened at the start: it lies under this name, and an empty one took its place.
    SetAside(PathBuf),
    /// It cannot be used now and is opened again every second; nothing that has to be stored is taken.
    Failing {
        /// What is wrong.
        why: String,
        /// Since when.
        since: SystemTime,
    },
    /// Queues cannot be read back now, although they are there. Their messages wait, and reading is tried again until it succeeds.
    Unreadable {
        /// Whose queue it is that was met first: a client's, or a shared group's.
        client: ClientId,
        /// How many more there are.
        others: usize,
        /// What is wrong.
        why: String,
        /// Since when.
        since: SystemTime,
    },
    /// There is no room: queues drain, and nothing new is taken until there is.
    Full,
}

/// The health of a running store.
#[derive(Debug, Default)]
pub(super) struct Chart {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    set_aside: Option<PathBuf>,
    failing: Option<(String, SystemTime)>,
    full: bool,
    unread: BTreeMap<Sid, Unread>,
}

/// A queue that cannot be read.
#[derive(Debug)]
struct Unread {
    client: ClientId,
    why: String,
    since: SystemTime,
    tries: u32,
}

impl Chart {
    pub(super) fn get(&self) -> StoreHealth {
        let state = self.state.lock();
        match (&state.failing, &state.set_aside) {
            (Some((why, since)), _) => StoreHealth::Failing { why: why.clone(), since: *since },
            (None, _) if !state.unread.is_empty() => state.unreadable(),
            (None, _) if state.full => StoreHealth::Full,
            (None, Some(file)) => StoreHealth::SetAside(file.clone()),
            (None, None) => StoreHealth::Ok,
        }
    }

    pub(super) fn set_aside(&self, file: PathBuf) {
        self.state.lock().set_aside = Some(file);
    }

    /// It fails, since the first time this was said.
    pub(super) fn failing(&self, why: String) {
        let mut state = self.state.lock();
        let since = state.failing.as_ref().map_or_else(SystemTime::now, |(_, since)| *since);
        state.failing = Some((why, since));
    }

    pub(super) fn recovered(&self) {
        self.state.lock().failing = None;
    }

    pub(super) fn full(&self, full: bool) {
        self.state.lock().full = full;
    }

    /// A queue could not be read; how often in a row that was.
    pub(super) fn unreadable(&self, sid: Sid, client: &ClientId, why: String) -> u32 {
        let mut state = self.state.lock();
        let new = || Unread { client: client.clone(), why: String::new(), since: SystemTime::now(), tries: 0 };
        let unread = state.unread.entry(sid).or_insert_with(new);
        unread.why = why;
        unread.tries = unread.tries.saturating_add(1);
        unread.tries
    }

    /// It was read, or is gone; whether it could not be read before.
    pub(super) fn readable(&self, sid: Sid) -> bool {
        self.state.lock().unread.remove(&sid).is_some()
    }

    pub(super) fn is_unreadable(&self, sid: Sid) -> bool {
        self.state.lock().unread.contains_key(&sid)
    }

    /// Forgets queues that are no more; returns how many cannot be read.
    pub(super) fn forget_unless(&self, there: impl Fn(Sid) -> bool) -> usize {
        let mut state = self.state.lock();
        state.unread.retain(|sid, _| there(*sid));
        state.unread.len()
    }

    /// How many queues cannot be read.
    pub(super) fn unread(&self) -> usize {
        self.state.lock().unread.len()
    }
}

impl State {
    fn unreadable(&self) -> StoreHealth {
        let first = self.unread.values().min_by_key(|unread| unread.since);
        first.map_or(StoreHealth::Ok, |unread| StoreHealth::Unreadable {
            client: unread.client.clone(),
            others: self.unread.len() - 1,
            why: unread.why.clone(),
            since: unread.since,
        })
    }
}
