//! How far polling has come: the latest change seen, the ends seen shortly before it, and the executions in doubt. Kept over restarts.
//!
//! Each poll begins [`OVERLAP`] before the latest change: QRS dates a change before others can see it, so a change may appear behind later ones.
//! What was seen in that span is known by id and time of change. Invariant: what was not told is not counted as seen.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use time::{Duration, OffsetDateTime};

use crate::{
    keep::{Change, KeepError, Shelf},
    names::{ExecutionId, ResultId},
    sense::qrs::Attempt,
};

/// How far each poll looks back behind the latest change.
const OVERLAP: Duration = Duration::seconds(30);
/// How far the first poll of a life looks back at most: nobody wants the failures of last month.
const OLDEST: Duration = Duration::hours(24);
/// How far the very first poll looks back, to learn where QRS's clock is.
const FIRST: Duration = Duration::hours(1);
const KEY: &[u8] = b"position";

/// As it is kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Kept {
    /// Milliseconds since 1970.
    latest: i64,
    seen: HashMap<ResultId, i64>,
    doubted: Vec<ExecutionId>,
}

/// The position.
#[derive(Debug)]
pub(super) struct Position {
    shelf: Shelf,
    kept: Kept,
    /// What is on the shelf.
    stored: Kept,
    /// What changed before this is of the past: the program never ran before.
    began: Option<i64>,
}

fn millis(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

fn moment(millis: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

impl Position {
    /// Where the life before came to.
    ///
    /// # Errors
    /// If it cannot be read from disk.
    pub(super) fn open(shelf: Shelf, now: OffsetDateTime) -> Result<Self, KeepError> {
        let found = shelf.read_all()?.into_iter().find(|(key, _)| key == KEY);
        // What cannot be read is as good as none.
        let read = found.and_then(|(_, value)| serde_json::from_slice::<Kept>(&value).ok());
        let stored = read.clone().unwrap_or_default();
        let began = read.is_none().then(|| millis(now));
        let mut kept = read.unwrap_or_else(|| Kept { latest: millis(now - FIRST), ..Kept::default() });
        let oldest = millis(now - OLDEST);
        if kept.latest < oldest {
            tracing::warn!(
                code = "polling_gap",
                "polling was last done more than 24 hours ago; what ended in Qlik Sense until {} is not told any more; look in the QMC what you missed",
                moment(oldest)
            );
            kept = Kept { latest: oldest, doubted: kept.doubted, ..Kept::default() };
        }
        Ok(Self { shelf, kept, stored, began })
    }

    /// The executions that were in doubt.
    pub(super) fn doubted(&self) -> &[ExecutionId] {
        &self.kept.doubted
    }

    /// Where the next poll begins.
    pub(super) fn since(&self) -> OffsetDateTime {
        moment(self.kept.latest) - OVERLAP
    }

    /// Whether an attempt is news: it was not seen as it is now, and is not of the time before the program ran first.
    pub(super) fn is_news(&self, attempt: &Attempt) -> bool {
        let Some(at) = attempt.modified.map(millis) else { return true };
        self.began.is_none_or(|began| at >= began) && self.kept.seen.get(&attempt.id) != Some(&at)
    }

    /// An attempt was dealt with out of its order: the next poll need not.
    pub(super) fn settled(&mut self, attempt: &Attempt) {
        if let Some(at) = attempt.modified.map(millis).filter(|_| attempt.status.is_final()) {
            self.kept.seen.insert(attempt.id, at);
        }
    }

    /// An attempt was dealt with, and all that changed before it.
    pub(super) fn note(&mut self, attempt: &Attempt) {
        let Some(at) = attempt.modified.map(millis) else { return };
        self.kept.latest = self.kept.latest.max(at);
        self.settled(attempt);
    }

    /// A poll came to its end: what matters of the position is written down, if it changed.
    pub(super) fn store(&mut self, doubted: Vec<ExecutionId>) {
        let oldest = millis(self.since());
        self.kept.seen.retain(|_, at| *at >= oldest);
        self.kept.doubted = doubted;
        if self.kept != self.stored {
            // A struct of numbers and ids always serialises.
            let value = serde_json::to_vec(&self.kept).unwrap_or_default();
            self.shelf.write_later(vec![Change::Put(KEY.to_vec(), value)]);
            self.stored = self.kept.clone();
        }
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use time::macros::datetime;

    use super::{super::words::tests::attempt, *};
    use crate::{keep::Keep, sense::qrs::ExecutionStatus::FinishedSuccess};

    const NOON: OffsetDateTime = datetime!(2026-05-04 12:00 UTC);
    const NOON_SECONDS: i64 = 12 * 3_600;

    #[tokio::test]
    async fn the_next_life_goes_on_where_this_one_ended() {
        let keep = Keep::open(None, &mut Registry::default()).unwrap();
        let mut position = Position::open(keep.shelf("polling"), NOON).unwrap();
        assert_eq!(position.since(), NOON - FIRST - OVERLAP);
        let old = attempt(1, 1, FinishedSuccess, NOON_SECONDS - 1);
        assert!(!position.is_news(&old), "it ended before the program ran first");
        position.note(&old);
        let new = attempt(2, 2, FinishedSuccess, NOON_SECONDS + 60);
        assert!(position.is_news(&new));
        position.note(&new);
        assert!(!position.is_news(&new));
        assert!(position.is_news(&attempt(2, 2, FinishedSuccess, NOON_SECONDS + 61)), "it changed again");
        position.store(vec![ExecutionId::from_u128(5)]);
        keep.shelf("polling").write(Vec::new()).await.unwrap();

        let position = Position::open(keep.shelf("polling"), NOON + Duration::hours(23)).unwrap();
        assert_eq!(position.since(), NOON + Duration::seconds(60) - OVERLAP);
        assert_eq!(position.doubted(), [ExecutionId::from_u128(5)]);
        assert!(!position.is_news(&new) && position.is_news(&old), "what is older than the overlap is not kept");

        let late = Position::open(keep.shelf("polling"), NOON + Duration::hours(100)).unwrap();
        assert_eq!(late.since(), NOON + Duration::hours(76) - OVERLAP);
        assert_eq!(late.doubted().len(), 1);
    }
}
