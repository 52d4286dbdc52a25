//! The journal: what happened in Qlik Sense, so that a load script can ask for it afterwards.
//!
//! It lives beside the file because it is nothing but what the program keeps. Who notes something has a [`Sink`], who asks has the
//! [`Journal`]; between them stands the [`Scribe`], one task. Invariants: a note never waits, what finds no room is dropped and counted; an
//! event is shown as soon as the scribe has it, and is handed to the file in the same step, where it is on disk a moment later (a kill loses
//! that moment, and never something older than what it leaves); one end of one execution is there once, whoever told it first; bounded by
//! number, bytes and age, the oldest go first and are counted. What arrives together is one record on disk, so that a storm costs few writes.

mod metrics;
mod record;
mod state;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use self::{metrics::JournalMetrics, state::State};
pub use self::{
    record::{Entry, Texts},
    state::{Ask, Order},
};
use super::{Keep, KeepError, Shelf, values::Clock};

/// Its shelf in the file.
const SHELF: &str = "events";
/// Notes that wait for the scribe.
const ROOM: usize = 8_192;
/// Notes of one record at most. With the pause it bounds what a storm can cost: 12,800 events a second are taken in, which is far beyond what
/// Sense sends, and the rest is dropped before anything is made of it.
const BATCH: usize = 256;
/// The pause between two records: what comes meanwhile is one.
const GATHER: Duration = Duration::from_millis(20);
/// So often what is too old is looked for, and what the file refused is written again.
const TEND: Duration = Duration::from_secs(1);
/// How long after a stop the scribe waits for those who still have something to note.
const DRAIN: Duration = Duration::from_millis(900);

/// What is kept, and how much of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct JournalSettings {
    /// Whether there is a journal at all.
    pub enable: bool,
    /// Whether it has what users do: sessions and connections.
    pub sessions: bool,
    /// Events.
    pub max_entries: usize,
    /// How long an event is kept.
    pub max_age: Duration,
    /// Bytes of all events, with what belongs to each.
    pub max_bytes: usize,
}

impl Default for JournalSettings {
    fn default() -> Self {
        Self {
            enable: true,
            sessions: false,
            max_entries: 50_000,
            max_age: Duration::from_secs(14 * 24 * 3_600),
            max_bytes: 32 << 20,
        }
    }
}

/// Something that happened. Texts are empty where nothing is known; long ones are cut when they are noted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Note {
    /// When it happened, as far as that is known; milliseconds since 1970.
    pub at: u64,
    /// What, e.g. `sense.task.succeeded`.
    pub kind: &'static str,
    /// Task.
    pub task_id: String,
    /// Execution. One end of one execution is kept once.
    pub execution_id: String,
    /// App.
    pub app_id: String,
    /// The task's name.
    pub task_name: String,
    /// The app's name.
    pub app_name: String,
    /// User.
    pub user: String,
    /// Node.
    pub host: String,
    /// Who told of it.
    pub source: &'static str,
    /// Its time as it was told.
    pub log_time: String,
    /// What was told with it.
    pub message: String,
}

/// The journal as whoever asks sees it. Cheap to clone.
#[derive(Clone)]
pub struct Journal(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    shelf: Shelf,
    metrics: JournalMetrics,
    clock: Clock,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Journal")
    }
}

/// Where something is noted. Cheap to clone; when the last one is dropped, the scribe has nothing more to wait for.
#[derive(Debug, Clone)]
pub struct Sink {
    notes: mpsc::Sender<Note>,
    metrics: JournalMetrics,
}

/// Takes the notes into the journal.
#[derive(Debug)]
pub struct Scribe {
    notes: mpsc::Receiver<Note>,
    journal: Journal,
}

impl Journal {
    /// Takes up what the file holds.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn open(
        keep: &Keep,
        settings: JournalSettings,
        registry: &mut Registry,
    ) -> Result<(Self, Sink, Scribe), KeepError> {
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Self::with_clock(keep, settings, Arc::new(move || u64::try_from(clock()).unwrap_or(u64::MAX)), registry)
    }

    fn with_clock(
        keep: &Keep,
        settings: JournalSettings,
        clock: Clock,
        registry: &mut Registry,
    ) -> Result<(Self, Sink, Scribe), KeepError> {
        let shelf = keep.shelf(SHELF);
        let mut state = State::new(settings);
        let left_out = state.load(shelf.read_all()?);
        if !left_out.is_empty() {
            tracing::error!(
                code = "journal_unreadable",
                count = left_out.len(),
                "records of the event journal cannot be read and are left out; check the disk with the data directory"
            );
            shelf.write_later(left_out);
        }
        let metrics = JournalMetrics::new(registry);
        let journal = Self(Arc::new(Inner { state: Mutex::new(state), shelf, metrics: metrics.clone(), clock }));
        journal.tend();
        let (sender, notes) = mpsc::channel(ROOM);
        Ok((journal.clone(), Sink { notes: sender, metrics }, Scribe { notes, journal }))
    }

    /// Removes what an earlier run kept: whoever switches the journal off wants nothing of it to stay.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn forget(keep: &Keep) -> Result<(), KeepError> {
        let shelf = keep.shelf(SHELF);
        let rest: Vec<_> = shelf.read_all()?.into_iter().map(|(key, _)| super::Change::Delete(key)).collect();
        if !rest.is_empty() {
            shelf.write_later(rest);
        }
        Ok(())
    }

    /// From now on these bounds hold; whether there is a journal and what is noted does not change.
    pub fn limit(&self, newer: JournalSettings) {
        self.0.state.lock().limit(newer);
        self.tend();
    }

    /// The events that fit, in the order and number that is asked for. Looks at each in turn: not for a thread that others wait for.
    pub fn find(&self, ask: &Ask) -> Vec<Entry> {
        self.0.state.lock().find(ask)
    }

    /// How many fit, whatever number is asked for.
    pub fn count(&self, ask: &Ask) -> usize {
        self.0.state.lock().count(ask)
    }

    /// Takes notes in, in one record.
    fn take(&self, notes: &mut Vec<Note>) {
        let (inner, now) = (&*self.0, (self.0.clock)());
        let mut state = inner.state.lock();
        let taken = state.add(notes.drain(..), now);
        inner.metrics.taken(&taken);
        let mut changes = taken.changes;
        let swept = state.sweep(now);
        inner.metrics.swept(&swept);
        changes.extend(swept.changes);
        inner.metrics.level(&state);
        // Under the lock, so that the file sees the same order.
        if !changes.is_empty() {
            inner.shelf.write_later(changes);
        }
    }

    /// Removes what is too old or too much.
    fn tend(&self) {
        let (inner, now) = (&*self.0, (self.0.clock)());
        let mut state = inner.state.lock();
        let swept = state.sweep(now);
        inner.metrics.swept(&swept);
        inner.metrics.level(&state);
        if !swept.changes.is_empty() {
            inner.shelf.write_later(swept.changes);
        }
    }

    /// Whether the file refused something that may be here.
    fn is_behind(&self) -> bool {
        self.0.shelf.failures() != self.0.state.lock().failures
    }

    /// Writes what the file refused. Reads it as a whole.
    fn catch_up(&self) {
        let inner = &*self.0;
        let mut state = inner.state.lock();
        let seen = inner.shelf.failures();
        // It cannot be read yet: the next time then. What waits for the writer now is written before this, so this has the last word.
        let Ok(there) = inner.shelf.read_all() else { return };
        for changes in state.difference(there.into_iter().map(|(key, _)| key)) {
            inner.shelf.write_later(changes);
        }
        state.failures = seen;
    }
}

impl Sink {
    /// Notes something, without waiting. Where there is no room for it, it is not made.
    pub fn note(&self, make: impl FnOnce() -> Note) {
        match self.notes.try_reserve() {
            Ok(place) => place.send(make()),
            Err(mpsc::error::TrySendError::Full(_)) => self.metrics.dropped("busy", 1),
            Err(mpsc::error::TrySendError::Closed(_)) => self.metrics.dropped("stopping", 1),
        }
    }

    /// So many were missed before they could be noted.
    pub fn missed(&self, number: u64) {
        self.metrics.dropped("lagged", number);
    }
}

impl Scribe {
    /// Works until nobody has anything more to note; after `stop` at most 0.9 s.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut every = tokio::time::interval(TEND);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut taken = Vec::new();
        let (mut end, far) = (None, Duration::from_secs(3_600));
        loop {
            let until = end.unwrap_or_else(|| Instant::now() + far);
            tokio::select! {
                () = stop.cancelled(), if end.is_none() => end = Some(Instant::now() + DRAIN),
                () = tokio::time::sleep_until(until), if end.is_some() => break,
                _ = every.tick() => self.tend().await,
                count = self.notes.recv_many(&mut taken, BATCH) => {
                    if count == 0 {
                        break;
                    }
                    self.journal.take(&mut taken);
                    // Whoever stops has no time for it.
                    let _ = stop.run_until_cancelled(tokio::time::sleep(GATHER)).await;
                }
            }
        }
    }

    async fn tend(&self) {
        self.journal.tend();
        if self.journal.is_behind() {
            // The file is read as a whole: not on a thread that others wait for. A panic there is named by the hook.
            let journal = self.journal.clone();
            drop(tokio::task::spawn_blocking(move || journal.catch_up()).await);
        }
    }
}
