//! Why a transaction did not succeed.

use std::{fmt, io};

/// See the module. `D`: what can be wrong with the records of a file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault<D: fmt::Debug + fmt::Display> {
    #[error("{0}")]
    Database(redb::Error),
    #[error("{0}")]
    Damaged(D),
    #[error("a defect: {0}")]
    Panic(String),
    #[error("the database is closed")]
    Closed,
    #[error("{0}")]
    TooLarge(&'static str),
}

macro_rules! from_redb {
    ($($error:ty),+) => { $(impl<D: fmt::Debug + fmt::Display> From<$error> for Fault<D> {
        fn from(error: $error) -> Self {
            Self::Database(error.into())
        }
    })+ };
}

from_redb!(
    redb::StorageError,
    redb::TableError,
    redb::TransactionError,
    redb::CommitError,
    redb::DatabaseError,
    redb::SetDurabilityError
);

impl<D: fmt::Debug + fmt::Display> From<io::Error> for Fault<D> {
    fn from(error: io::Error) -> Self {
        Self::Database(redb::Error::Io(error))
    }
}

impl<D: fmt::Debug + fmt::Display> Fault<D> {
    /// What the system said, if it was the system.
    pub(crate) fn io(&self) -> Option<io::ErrorKind> {
        match self {
            Self::Database(redb::Error::Io(error)) => Some(error.kind()),
            _ => None,
        }
    }

    /// After this the database refuses everything until it is opened again.
    pub(crate) fn latches(&self) -> bool {
        matches!(self, Self::Database(redb::Error::Io(_) | redb::Error::PreviousIo))
    }

    /// There is no room: the disk is full, or a quota of the system is used up.
    pub(crate) fn is_full(&self) -> bool {
        use io::ErrorKind::{FileTooLarge, QuotaExceeded, StorageFull};
        matches!(self.io(), Some(StorageFull | QuotaExceeded | FileTooLarge))
    }

    /// It says nothing about what is in the file: the administrator decides, and the file stays where it is.
    pub(crate) fn is_from_outside(&self) -> bool {
        use io::ErrorKind::{IsADirectory, NotADirectory, NotFound, PermissionDenied, ReadOnlyFilesystem};
        let outside =
            matches!(self.io(), Some(IsADirectory | NotADirectory | NotFound | PermissionDenied | ReadOnlyFilesystem));
        outside || self.is_full()
    }
}

/// Runs something that may panic: bytes that redb did not write can make it.
pub(crate) fn guarded<T, D: fmt::Debug + fmt::Display>(
    run: impl FnOnce() -> Result<T, Fault<D>>,
) -> Result<T, Fault<D>> {
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(run)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(Fault::Panic(text.unwrap_or_else(|| "a panic in the database".to_owned())))
    })
}

/// A write transaction that is on disk when its commit returns. `large`: the file opens at once after a crash, however large it is, which costs
/// each commit a second write to the disk.
pub(crate) fn begin<D: fmt::Debug + fmt::Display>(
    database: &redb::Database,
    large: bool,
) -> Result<redb::WriteTransaction, Fault<D>> {
    let mut txn = database.begin_write()?;
    txn.set_durability(redb::Durability::Immediate)?;
    txn.set_quick_repair(large);
    Ok(txn)
}
