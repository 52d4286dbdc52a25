//! The store: what is promised is handed over here, one group per dispatcher round, and only a committed group is acknowledged.
//!
//! How it goes: the dispatcher hands groups to the [`inbox`], connections hand over sessions whose clients acknowledged something. The
//! [`writer`], a thread of its own, takes everything that arrived while its last commit ran, [`apply`]s it to the [`tables`] in one
//! transaction that is on disk when it returns, and keeps the promises. The reader, another thread, reads queues back in [`pages`]. At the
//! start [`recover`] takes up what the file holds. Every value is a sealed [`record`].
//!
//! A commit that fails breaks its promises; the file is closed and opened again every second, and what memory has for good is owed to it
//! ([`debt`]). A full disk costs the [`ballast`]; then queues drain until there is room. A file that cannot be opened at the start is set
//! aside ([`disk`]), never deleted.

mod apply;
mod ballast;
mod compact;
mod debt;
mod disk;
mod group;
mod handle;
mod health;
mod inbox;
mod ledger;
#[cfg(test)]
mod memory;
mod metrics;
mod pages;
mod quota;
mod record;
mod recover;
mod tables;
#[cfg(test)]
mod tests;
mod writer;

#[cfg(test)]
pub(super) use self::memory::MemoryStore;
pub(super) use self::{
    group::{
        Change, Group, Owner, Page, Place, Progress, Recovered, RecoveredSession, Row, SessionRecord, Sid, Wanted,
        WillRecord,
    },
    handle::Store,
};
pub use self::{handle::StoreError, health::StoreHealth, record::walk as walk_store_record};
