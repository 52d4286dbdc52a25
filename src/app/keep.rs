//! What the program itself keeps on disk: opened with the rest, tended, and closed when the work has ended.

use tokio_util::sync::CancellationToken;

use super::{
    LOOK,
    supervise::{Stage, Supervisor},
};
use crate::{
    config::Loaded,
    keep::{
        Keep, KeepError, KeepHealth,
        journal::{Journal, Scribe},
        keys::Keys,
        values::Values,
    },
    sense::{chronicle::Chronicler, tasks::Follower},
    telemetry::{
        metrics::Registry,
        readiness::{Latch, Readiness},
    },
};

/// What stands on the file: the key-value store, idempotency keys, the journal of events. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Stores {
    pub(super) values: Values,
    pub(super) keys: Keys,
    pub(super) journal: Option<Journal>,
}

/// The file, what stands on it, and what writes the journal.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) keep: Keep,
    pub(super) stores: Stores,
    writing: Option<(Chronicler, Scribe)>,
}

impl Kept {
    /// Opens the file in the data directory; in memory where the broker's store is in memory, too.
    pub(super) fn open(loaded: &Loaded, registry: &mut Registry) -> Result<Self, KeepError> {
        let keep = Keep::open(loaded.keep_dir(), registry)?;
        let values = Values::open(&keep, loaded.settings.values, registry)?;
        let keys = Keys::open(&keep, registry)?;
        let settings = loaded.settings.journal;
        if !settings.enable {
            Journal::forget(&keep)?;
            return Ok(Self { keep, stores: Stores { values, keys, journal: None }, writing: None });
        }
        let (journal, sink, scribe) = Journal::open(&keep, settings, registry)?;
        let writing = Some((Chronicler::new(sink, settings.sessions), scribe));
        Ok(Self { keep, stores: Stores { values, keys, journal: Some(journal) }, writing })
    }

    /// Who notes events, where there is a journal.
    pub(super) fn chronicler(&self) -> Option<Chronicler> {
        self.writing.as_ref().map(|(chronicler, _)| chronicler.clone())
    }

    /// Starts what tends it and what tells readiness how it is; the file is closed behind the work.
    pub(super) fn start(self, supervisor: &Supervisor, readiness: &Readiness, follower: &Follower) {
        let Self { keep, stores: Stores { values, .. }, writing } = self;
        supervisor.restarting(Stage::Work, "key-value store", move |stop| values.clone().run(stop));
        if let Some((chronicler, scribe)) = writing {
            let follower = follower.clone();
            supervisor.essential(Stage::Work, "ends of executions", move |stop| chronicler.follow(follower, stop));
            supervisor.essential(Stage::Work, "event journal", move |stop| scribe.run(stop));
        }
        let (watched, latch) = (keep.clone(), readiness.note("sense.redb"));
        supervisor.essential(Stage::Work, "health of sense.redb", move |stop| watch(watched, latch, stop));
        supervisor.essential(Stage::Farewell, "sense.redb", move |stop| async move {
            stop.cancelled().await;
            tokio::task::spawn_blocking(move || keep.stop()).await.map_err(|error| error.to_string())
        });
    }
}

/// Tells how the file is.
async fn watch(keep: Keep, latch: Latch, stop: CancellationToken) {
    let mut every = tokio::time::interval(LOOK);
    while stop.run_until_cancelled(every.tick()).await.is_some() {
        match keep.health() {
            KeepHealth::Ok => latch.up(),
            other => latch.down(other.to_string()),
        }
    }
}
