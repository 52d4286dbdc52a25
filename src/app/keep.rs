//! What the program itself keeps on disk: opened with the rest, tended, and closed when the work has ended.

use tokio_util::sync::CancellationToken;

use super::{
    LOOK,
    supervise::{Stage, Supervisor},
};
use crate::{
    config::Loaded,
    keep::{Keep, KeepError, KeepHealth, keys::Keys, values::Values},
    telemetry::{
        metrics::Registry,
        readiness::{Latch, Readiness},
    },
};

/// The file, and what stands on it: the key-value store, idempotency keys.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) keep: Keep,
    pub(super) values: Values,
    pub(super) keys: Keys,
}

impl Kept {
    /// Opens the file in the data directory; in memory where the broker's store is in memory, too.
    pub(super) fn open(loaded: &Loaded, registry: &mut Registry) -> Result<Self, KeepError> {
        let keep = Keep::open(loaded.keep_dir(), registry)?;
        let values = Values::open(&keep, loaded.settings.values, registry)?;
        let keys = Keys::open(&keep, registry)?;
        Ok(Self { keep, values, keys })
    }

    /// Starts what tends it and what tells readiness how it is; the file is closed behind the work.
    pub(super) fn start(self, supervisor: &Supervisor, readiness: &Readiness) {
        let Self { keep, values, keys: _ } = self;
        supervisor.restarting(Stage::Work, "key-value store", move |stop| values.clone().run(stop));
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
