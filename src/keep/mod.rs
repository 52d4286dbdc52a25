//! What the program itself keeps on disk: start requests and their journal, key-value pairs, events. One file, `sense.redb`, beside the broker's.
//!
//! How it goes: whoever keeps something has a [`Shelf`], a named table of bytes. A write is handed to the `inbox` when it is called, so the
//! order of calls is the order on disk; the `writer`, a thread of its own, takes everything that arrived while its last commit ran, and
//! commits it in one transaction that is on disk when it returns. Every value carries a checksum (`record`). [`values`] is the key-value
//! store that stands on it, [`keys`] are idempotency keys, [`journal`] is what happened in Qlik Sense. `disk`, `fault` and `vault` serve the broker's store, too.
//!
//! A commit that fails fails the writes in it and nothing else: the file is closed and opened again every second, what the commit may have
//! left is taken back first, and until then every write fails with a sentence that says what to do. A file that cannot be opened at the
//! start is set aside, never deleted.

pub(crate) mod disk;
pub(crate) mod fault;
mod handle;
mod health;
mod inbox;
pub mod journal;
pub mod keys;
mod metrics;
mod record;
#[cfg(test)]
pub(crate) mod tests;
pub mod values;
pub(crate) mod vault;
mod writer;

pub use self::{
    handle::{Change, Keep, KeepError, Shelf},
    health::KeepHealth,
};
