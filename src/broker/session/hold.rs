//! Publishers a session holds: they stop reading their sockets until it has drained, or until it has held them too long.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use crate::broker::peer::Peer;

/// A hold longer than this at a stretch is too long.
const LONGEST: Duration = Duration::from_secs(1);
/// As is this much within [`WINDOW`].
const MOST: Duration = Duration::from_secs(10);
const WINDOW: Duration = Duration::from_secs(60);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Holds {
    held: BTreeMap<u64, Arc<Peer>>,
    since: Option<Instant>,
    recently: Duration,
    window_start: Option<Instant>,
}

impl Holds {
    /// Holds everybody but the session's own connection; whether it holds anybody now.
    pub(super) fn hold<'a>(&mut self, own: u64, origins: impl Iterator<Item = &'a Arc<Peer>>, now: Instant) -> bool {
        for origin in origins.filter(|origin| origin.id != own) {
            self.held.entry(origin.id).or_insert_with(|| {
                origin.hold();
                Arc::clone(origin)
            });
        }
        if !self.held.is_empty() {
            self.since.get_or_insert(now);
        }
        !self.held.is_empty()
    }

    /// Whether the hold has lasted too long; `None`: nobody is held.
    pub(super) fn last(&mut self, now: Instant) -> Option<bool> {
        let since = self.since?;
        if self.window_start.is_none_or(|start| now.duration_since(start) > WINDOW) {
            self.window_start = Some(now);
            self.recently = Duration::ZERO;
        }
        let held = now.duration_since(since);
        Some(held > LONGEST || self.recently + held > MOST)
    }

    /// Lets everybody go: they are to be released by the caller, outside its lock.
    pub(super) fn release(&mut self) -> Vec<Arc<Peer>> {
        if let Some(since) = self.since.take() {
            self.recently += since.elapsed();
        }
        std::mem::take(&mut self.held).into_values().collect()
    }
}
