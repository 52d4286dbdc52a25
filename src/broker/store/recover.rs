//! Opening: everything the file holds is taken up, what belongs to nobody is removed.
//!
//! Messages are not read here: queue values say where they lie and how large they are. A batch without rows can only be the trace of a defect,
//! and shows in the number of batches.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use redb::{Database, ReadTransaction, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableError};

use super::{
    Owner, Progress, Recovered, RecoveredSession, SessionRecord, Sid,
    apply::{Applying, Written},
    ledger::{Ledger, as_u64},
    record::{Damaged, Fields, Kind, is_older, queue::Queued, seal, session, unseal},
    tables::{
        ACKED, Fault, IN2, META, META_FORMAT, META_NEXT_SID, MSG, QUEUE, RETAINED, SESSION, SUB, Tables, consult,
        transact,
    },
};
use crate::broker::envelope::Message;

/// A session that never ends by itself.
const FOREVER: u32 = u32::MAX;

/// Makes the tables if the file is new.
///
/// # Errors
/// [`Damaged::Newer`] if a later version of the program made it.
pub(super) fn prepare(database: &Database) -> Result<(), Fault> {
    let format = consult(database, |txn| match txn.open_table(META) {
        Ok(table) => Ok(table.get(META_FORMAT)?.map(|record| record.value().to_vec())),
        Err(TableError::TableDoesNotExist(_)) => Ok(None),
        Err(error) => Err(error.into()),
    })?;
    if let Some(format) = format {
        unseal(Kind::Format, &[], &format)?;
        if is_older(&format) {
            // An older version of the program would take what is written from here on for damage.
            transact(database, 0, note_format)?;
        }
        return Ok(());
    }
    transact(database, 0, |tables: &mut Tables<'_>| {
        note_format(tables)?;
        tables.msg()?;
        tables.queue()?;
        tables.acked()?;
        // Opening makes them.
        drop((tables.session()?, tables.sub()?, tables.in2()?, tables.retained()?));
        Ok(())
    })
}

fn note_format(tables: &mut Tables<'_>) -> Result<(), Fault> {
    tables.meta()?.insert(META_FORMAT, seal(Kind::Format, &[], |_| {}).as_slice())?;
    Ok(())
}

/// Takes up what the file holds, and removes what belongs to nobody, and sessions that expired. `now`: milliseconds since 1970.
pub(super) fn recover(database: &Database, now: u64) -> Result<(Recovered, Ledger), Fault> {
    let (found, mut ledger) = consult(database, |txn| {
        let mut ledger = Ledger::default();
        let found = Found::read(txn, &mut ledger)?;
        Ok((found, ledger))
    })?;
    let gone = found.gone(&ledger, now);
    clean(database, &gone, &mut ledger)?;
    let Found { sessions, retained, .. } = found;
    let sessions: Vec<_> = sessions.into_values().filter(|session| !gone.contains(&session.sid)).collect();
    let recovered = Recovered { sessions, retained, next_sid: ledger.next_sid, next_batch: ledger.next_batch() };
    Ok((recovered, ledger))
}

/// What the writer has to know, when it opens the file again.
pub(super) fn ledger(database: &Database) -> Result<Ledger, Fault> {
    consult(database, |txn| {
        let mut ledger = Ledger::default();
        for entry in txn.open_table(SESSION)?.iter()? {
            let (sid, record) = entry?;
            let sid = Sid(sid.value());
            let owner = session::read_session(sid, record.value()).map(|session| session.owner);
            let spared = owner.is_ok_and(|owner| owner == Owner::Part);
            ledger.sessions.insert(sid, super::ledger::Queue { spared, ..super::ledger::Queue::default() });
        }
        count_queues(txn, &mut ledger, |_, _| {})?;
        for entry in txn.open_table(RETAINED)?.iter()? {
            ledger.bytes += as_u64(entry?.1.value().len());
        }
        ledger.next_sid = next_sid(txn, &ledger)?;
        Ok(ledger)
    })
}

/// Everything but messages.
#[derive(Default)]
struct Found {
    sessions: BTreeMap<Sid, RecoveredSession>,
    retained: Vec<Arc<Message>>,
    /// Sessions of which there is something, but not the session.
    orphans: BTreeSet<Sid>,
}

impl Found {
    fn read(txn: &ReadTransaction, ledger: &mut Ledger) -> Result<Self, Fault> {
        let mut found = Self::default();
        found.read_sessions(txn, ledger)?;
        found.read_subscriptions(txn)?;
        found.read_handshakes(txn)?;
        count_queues(txn, ledger, |sid, last| {
            if let Some(session) = found.of(sid) {
                session.next_qseq = session.next_qseq.max(last.saturating_add(1));
            }
        })?;
        for entry in txn.open_table(RETAINED)?.iter()? {
            let (topic, record) = entry?;
            let (topic, record) = (topic.value(), record.value());
            let envelope = unseal(Kind::Retained, topic.as_bytes(), record)?;
            let message = Message::read(Bytes::copy_from_slice(envelope));
            let message = message.ok_or(Damaged::Malformed("a retained message is none"))?;
            ledger.bytes += as_u64(record.len());
            found.retained.push(Arc::new(message));
        }
        for (sid, session) in &found.sessions {
            if let Some(queue) = ledger.sessions.get_mut(sid) {
                queue.sent = session.progress.sent;
            }
        }
        ledger.next_sid = next_sid(txn, ledger)?;
        Ok(found)
    }

    fn read_sessions(&mut self, txn: &ReadTransaction, ledger: &mut Ledger) -> Result<(), Fault> {
        for entry in txn.open_table(SESSION)?.iter()? {
            let (sid, record) = entry?;
            let sid = Sid(sid.value());
            let record = session::read_session(sid, record.value())?;
            let spared = record.owner == Owner::Part;
            ledger.sessions.insert(sid, super::ledger::Queue { spared, ..super::ledger::Queue::default() });
            let session = RecoveredSession {
                sid,
                record,
                filters: Vec::new(),
                progress: Progress::default(),
                incoming: Vec::new(),
                next_qseq: 1,
            };
            self.sessions.insert(sid, session);
        }
        Ok(())
    }

    /// A session, or a note that there is none.
    fn of(&mut self, sid: Sid) -> Option<&mut RecoveredSession> {
        let found = self.sessions.get_mut(&sid);
        if found.is_none() {
            self.orphans.insert(sid);
        }
        found
    }

    fn read_subscriptions(&mut self, txn: &ReadTransaction) -> Result<(), Fault> {
        for entry in txn.open_table(SUB)?.iter()? {
            let (key, record) = entry?;
            let (sid, filter) = key.value();
            let subscription = session::read_subscription(Sid(sid), filter, record.value())?;
            if let Some(session) = self.of(Sid(sid)) {
                session.filters.push(subscription);
            }
        }
        Ok(())
    }

    fn read_handshakes(&mut self, txn: &ReadTransaction) -> Result<(), Fault> {
        for entry in txn.open_table(ACKED)?.iter()? {
            let (sid, record) = entry?;
            let sid = Sid(sid.value());
            let progress = session::read_progress(sid, record.value())?;
            if let Some(session) = self.of(sid) {
                session.next_qseq = progress.floor.max(progress.sent.saturating_add(1)).max(1);
                session.progress = progress;
            }
        }
        for entry in txn.open_table(IN2)?.iter()? {
            let (key, record) = entry?;
            let (sid, id) = key.value();
            session::read_incoming(Sid(sid), id, record.value())?;
            if let Some(session) = self.of(Sid(sid)) {
                session.incoming.push(id);
            }
        }
        Ok(())
    }

    /// Sessions that are to be removed: without a record, expired, or one of two of the same client (the later one stands). One that still
    /// has something queued is left to the stream, because it may owe that to a shared group.
    fn gone(&self, ledger: &Ledger, now: u64) -> BTreeSet<Sid> {
        let mut clients = BTreeSet::new();
        let own = self.sessions.iter().rev().filter(|(_, session)| session.record.owner == Owner::Client);
        let ended = own.filter(|(sid, session)| {
            let empty = ledger.sessions.get(sid).is_none_or(|queue| queue.rows == 0);
            (empty && is_over(&session.record, now)) || !clients.insert(&session.record.client)
        });
        ended.map(|(sid, _)| *sid).chain(self.orphans.iter().copied()).collect()
    }
}

/// Whether nothing is left of a session. One with a will is kept: the stream publishes it.
fn is_over(record: &SessionRecord, now: u64) -> bool {
    let expired = match (record.expiry, record.left_at) {
        (FOREVER, _) => false,
        (0, _) => true,
        (expiry, Some(left_at)) => left_at.saturating_add(u64::from(expiry) * 1000) < now,
        (_, None) => false,
    };
    expired && record.will.is_none()
}

/// Goes through all queue values; `seen` is told the session and the last position of each.
fn count_queues(txn: &ReadTransaction, ledger: &mut Ledger, mut seen: impl FnMut(Sid, u64)) -> Result<(), Fault> {
    for entry in txn.open_table(QUEUE)?.iter()? {
        let (key, record) = entry?;
        let ((sid, first), record) = (key.value(), record.value());
        let queued = Queued::read(Sid(sid), first, record)?;
        ledger.added(Sid(sid), first, &queued.summary, record.len());
        seen(Sid(sid), queued.summary.last);
    }
    ledger.find_sparse();
    Ok(())
}

fn next_sid(txn: &ReadTransaction, ledger: &Ledger) -> Result<u64, Fault> {
    let kept = match txn.open_table(META)?.get(META_NEXT_SID)? {
        Some(record) => Fields(unseal(Kind::NextSid, &[], record.value())?).u64()?,
        None => 1,
    };
    let last = ledger.sessions.keys().map(|sid| sid.0).max().unwrap_or(0);
    Ok(kept.max(last.saturating_add(1)))
}

/// Removes sessions, and batches that no row names.
fn clean(database: &Database, gone: &BTreeSet<Sid>, ledger: &mut Ledger) -> Result<(), Fault> {
    let batches = database.begin_read()?.open_table(MSG)?.len()?;
    if gone.is_empty() && batches <= as_u64(ledger.batches()) {
        return Ok(());
    }
    tracing::info!(sessions = gone.len(), "the store removes what ended or belongs to nobody");
    transact(database, ledger.bytes, |tables| {
        let mut written = Written::default();
        let mut applying = Applying::new(tables, ledger, &mut written);
        gone.iter().try_for_each(|sid| applying.end(*sid))?;
        applying.finish()?;
        let mut orphans = Vec::new();
        for entry in tables.msg()?.iter()? {
            let key = entry?.0.value();
            if !ledger.knows(key) {
                orphans.push(key);
            }
        }
        for key in orphans {
            tables.msg()?.remove(key)?;
        }
        Ok(())
    })
}
