//! The open database, shared by writer and reader, and taken away from both while it has to be opened anew.

use parking_lot::RwLock;
use redb::Database;

use super::tables::{Fault, guarded};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Vault(RwLock<Option<Database>>);

impl Vault {
    /// Works with the database, while it is open.
    pub(super) fn read<T>(&self, work: impl FnOnce(&Database) -> Result<T, Fault>) -> Result<T, Fault> {
        self.0.read().as_ref().map_or(Err(Fault::Closed), work)
    }

    pub(super) fn put(&self, database: Database) {
        *self.0.write() = Some(database);
    }

    /// Closes it. What goes wrong at that, a panic included, changes nothing: it is gone.
    pub(super) fn close(&self) {
        let database = self.0.write().take();
        let closed = guarded(|| database.map_or(Ok(()), |database| Ok(database.close()?)));
        if let Err(fault) = closed {
            tracing::warn!("the store was not closed cleanly, which costs nothing but time: {fault}");
        }
    }
}
