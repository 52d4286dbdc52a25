//! The tables of the store, and what can go wrong with them.
//!
//! ```text
//! meta(name)                 format, next session number
//! session(sid)               client, expiry, left at, will
//! sub((sid, filter))         what was asked for
//! msg(first group)           the messages of a commit
//! queue((sid, position))     the rows a session got with a commit, from that position on
//! acked(sid)                 progress
//! in2((sid, packet id))      an incoming QoS 2 id that is open
//! retained(topic)            the topic's retained message
//! ```
//!
//! There is no table from client ids to sessions: a session's record names its client, and all of them are read at the start.

use redb::{ReadableDatabase, Table, TableDefinition, WriteTransaction};

use super::record::Damaged;
use crate::keep::fault;
pub(super) use crate::keep::fault::guarded;

/// A sealed record.
pub(super) type Record = &'static [u8];

pub(super) const META: TableDefinition<&str, Record> = TableDefinition::new("meta");
pub(super) const SESSION: TableDefinition<u64, Record> = TableDefinition::new("session");
pub(super) const SUB: TableDefinition<(u64, &str), Record> = TableDefinition::new("sub");
pub(super) const MSG: TableDefinition<u64, Record> = TableDefinition::new("msg");
pub(super) const QUEUE: TableDefinition<(u64, u64), Record> = TableDefinition::new("queue");
pub(super) const ACKED: TableDefinition<u64, Record> = TableDefinition::new("acked");
pub(super) const IN2: TableDefinition<(u64, u16), Record> = TableDefinition::new("in2");
pub(super) const RETAINED: TableDefinition<&str, Record> = TableDefinition::new("retained");

/// Keys of `meta`.
pub(super) const META_FORMAT: &str = "format";
pub(super) const META_NEXT_SID: &str = "next_sid";

/// Why a transaction did not succeed.
pub(super) type Fault = fault::Fault<Damaged>;

impl From<Damaged> for Fault {
    fn from(damaged: Damaged) -> Self {
        Self::Damaged(damaged)
    }
}

/// The tables of one write transaction; those every commit needs stay open.
pub(super) struct Tables<'t> {
    txn: &'t WriteTransaction,
    msg: Option<Table<'t, u64, Record>>,
    queue: Option<Table<'t, (u64, u64), Record>>,
    acked: Option<Table<'t, u64, Record>>,
}

macro_rules! kept_open {
    ($name:ident, $definition:ident, $key:ty) => {
        pub(super) fn $name(&mut self) -> Result<&mut Table<'t, $key, Record>, Fault> {
            match &mut self.$name {
                Some(table) => Ok(table),
                place => Ok(place.insert(self.txn.open_table($definition)?)),
            }
        }
    };
}

macro_rules! opened {
    ($name:ident, $definition:ident, $key:ty) => {
        pub(super) fn $name(&self) -> Result<Table<'t, $key, Record>, Fault> {
            Ok(self.txn.open_table($definition)?)
        }
    };
}

impl<'t> Tables<'t> {
    pub(super) fn new(txn: &'t WriteTransaction) -> Self {
        Self { txn, msg: None, queue: None, acked: None }
    }

    kept_open!(msg, MSG, u64);
    kept_open!(queue, QUEUE, (u64, u64));
    kept_open!(acked, ACKED, u64);
    opened!(meta, META, &'static str);
    opened!(session, SESSION, u64);
    opened!(sub, SUB, (u64, &'static str));
    opened!(in2, IN2, (u64, u16));
    opened!(retained, RETAINED, &'static str);
}

/// A store of more bytes opens at once after a crash, for a second write to the disk at each commit; a smaller one is looked through, which takes
/// some hundred milliseconds at most.
const LARGE: u64 = 64 << 20;

/// One write transaction, on disk when this returns. `stored`: bytes in the store.
///
/// # Errors
/// [`Fault`]: none of it is done, or, if the very end failed, perhaps all of it.
pub(super) fn transact<T>(
    database: &redb::Database,
    stored: u64,
    work: impl FnOnce(&mut Tables<'_>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let txn = fault::begin(database, stored >= LARGE)?;
    let mut tables = Tables::new(&txn);
    let done = work(&mut tables)?;
    drop(tables);
    txn.commit()?;
    Ok(done)
}

/// One read transaction.
pub(super) fn consult<T>(
    database: &redb::Database,
    work: impl FnOnce(&redb::ReadTransaction) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let txn = database.begin_read()?;
    work(&txn)
}
