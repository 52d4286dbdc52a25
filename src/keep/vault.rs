//! The open database, shared by those who read and write it, and taken away from all of them while it has to be opened anew.

use std::fmt;

use parking_lot::RwLock;
use redb::Database;

use super::fault::{Fault, guarded};

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Vault(RwLock<Option<Database>>);

impl Vault {
    /// Works with the database, while it is open.
    pub(crate) fn read<T, D: fmt::Debug + fmt::Display>(
        &self,
        work: impl FnOnce(&Database) -> Result<T, Fault<D>>,
    ) -> Result<T, Fault<D>> {
        self.0.read().as_ref().map_or(Err(Fault::Closed), work)
    }

    pub(crate) fn put(&self, database: Database) {
        *self.0.write() = Some(database);
    }

    /// Closes it. What goes wrong at that, a panic included, changes nothing: it is gone.
    pub(crate) fn close(&self) {
        let database = self.0.write().take();
        let closed: Result<(), Fault<&str>> = guarded(|| database.map_or(Ok(()), |database| Ok(database.close()?)));
        if let Err(fault) = closed {
            tracing::warn!(
                code = "keep_not_closed",
                "a store was not closed cleanly, which costs nothing but time at the next start; nothing needs to be done: {fault}"
            );
        }
    }
}
