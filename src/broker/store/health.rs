//! How the store is, for whoever watches it.

use std::{path::PathBuf, time::SystemTime};

use parking_lot::Mutex;

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
}

impl Chart {
    pub(super) fn get(&self) -> StoreHealth {
        let state = self.state.lock();
        match (&state.failing, &state.set_aside) {
            (Some((why, since)), _) => StoreHealth::Failing { why: why.clone(), since: *since },
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
}
