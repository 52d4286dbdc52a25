//! How the file is, for whoever watches it.

use std::{fmt, path::PathBuf, time::SystemTime};

use parking_lot::Mutex;

/// See the module. Its text says what it means and what to do.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum KeepHealth {
    /// It takes and gives.
    #[default]
    Ok,
    /// It could not be opened at the start: it lies under this name, and an empty one took its place.
    SetAside(PathBuf),
    /// It cannot be written now and is opened again every second; every write fails.
    Failing {
        /// What is wrong.
        why: String,
        /// Since when.
        since: SystemTime,
    },
}

impl fmt::Display for KeepHealth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::SetAside(file) => write!(
                f,
                "the file of start requests and key-value pairs could not be read at the start and was set aside as {}: what it held is not \
                 there; keep it for whoever looks into it, and check the disk",
                file.display()
            ),
            Self::Failing { why, .. } => write!(
                f,
                "start requests and key-value pairs cannot be stored: {why}; check the disk of the data directory (room, rights); it is tried \
                 again every second"
            ),
        }
    }
}

/// The health of an open file.
#[derive(Debug, Default)]
pub(super) struct Chart(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    set_aside: Option<PathBuf>,
    failing: Option<(String, SystemTime)>,
}

impl Chart {
    pub(super) fn get(&self) -> KeepHealth {
        let state = self.0.lock();
        match (&state.failing, &state.set_aside) {
            (Some((why, since)), _) => KeepHealth::Failing { why: why.clone(), since: *since },
            (None, Some(file)) => KeepHealth::SetAside(file.clone()),
            (None, None) => KeepHealth::Ok,
        }
    }

    pub(super) fn set_aside(&self, file: PathBuf) {
        self.0.lock().set_aside = Some(file);
    }

    /// It fails, since the first time this was said.
    pub(super) fn failing(&self, why: String) {
        let mut state = self.0.lock();
        let since = state.failing.as_ref().map_or_else(SystemTime::now, |(_, since)| *since);
        state.failing = Some((why, since));
    }

    /// It works; whether it did not before.
    pub(super) fn recovered(&self) -> bool {
        self.0.lock().failing.take().is_some()
    }
}
