//! What a commit does to the tables: changes, progress, rows with their messages.
//!
//! Invariants: nothing is written for a session that has ended; a message is written if a row names it, and goes with the last of these rows;
//! the ledger says at any time what the tables of this transaction say.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use redb::ReadableTable;

use super::{
    Change, Group, Owner, Progress, Row, SessionRecord, Sid,
    ledger::{Ledger, as_u64},
    quota::Quota,
    record::{
        Kind,
        batch::{self, Packed},
        queue::{self, Queued, Source, Summary},
        seal, session,
    },
    tables::{Fault, META_NEXT_SID, Tables},
};
use crate::broker::envelope::Message;

/// Rows, with the bytes each counts for quotas.
type SizedRows<'g> = Vec<(&'g Row, u64)>;

/// What a transaction added that must not be there if its promises were broken: its end may fail although it is on disk.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub queues: Vec<(Sid, u64)>,
    pub received: Vec<(Sid, u16)>,
    /// Queues that were handed over: their progress before, and how far they may be trimmed once it is sure that they were.
    pub advanced: Vec<(Sid, Option<Vec<u8>>, u64)>,
}

impl Written {
    pub(super) fn append(&mut self, mut later: Self) {
        self.queues.append(&mut later.queues);
        self.received.append(&mut later.received);
        self.advanced.append(&mut later.advanced);
    }
}

/// One transaction's work. [`Applying::finish`] ends it.
pub(super) struct Applying<'a, 't> {
    pub tables: &'a mut Tables<'t>,
    pub ledger: &'a mut Ledger,
    pub written: &'a mut Written,
    unused: Vec<u64>,
    next_sid: u64,
}

impl<'a, 't> Applying<'a, 't> {
    pub(super) fn new(tables: &'a mut Tables<'t>, ledger: &'a mut Ledger, written: &'a mut Written) -> Self {
        let next_sid = ledger.next_sid;
        Self { tables, ledger, written, unused: Vec::new(), next_sid }
    }

    pub(super) fn change(&mut self, change: &Change) -> Result<(), Fault> {
        match change {
            Change::Session(sid, record) => self.session(*sid, record),
            Change::End(sid, _) => match self.written.advanced.iter_mut().find(|(advanced, ..)| advanced == sid) {
                // As its rows, it stays until it is sure that they were handed over.
                Some((.., floor)) => {
                    *floor = u64::MAX;
                    Ok(())
                }
                None => self.end(*sid),
            },
            Change::Subscribe(sid, filter, asked) => {
                if self.ledger.sessions.contains_key(sid) {
                    let record = session::write_subscription(*sid, filter.as_str(), asked);
                    self.tables.sub()?.insert((sid.0, filter.as_str()), record.as_slice())?;
                }
                Ok(())
            }
            Change::Unsubscribe(sid, filter) => {
                self.tables.sub()?.remove((sid.0, filter.as_str()))?;
                Ok(())
            }
            Change::Retain(message) => self.retain(message),
            Change::Received(sid, id) => self.received(*sid, *id),
            Change::Advance(sid, floor) => self.advance(*sid, *floor),
        }
    }

    fn session(&mut self, sid: Sid, record: &SessionRecord) -> Result<(), Fault> {
        let bytes = session::write_session(sid, record);
        self.tables.session()?.insert(sid.0, bytes.as_slice())?;
        self.ledger.sessions.entry(sid).or_default().spared = record.owner == Owner::Part;
        self.ledger.next_sid = self.ledger.next_sid.max(sid.0.saturating_add(1));
        Ok(())
    }

    /// Removes everything of a session.
    pub(super) fn end(&mut self, sid: Sid) -> Result<(), Fault> {
        self.tables.session()?.remove(sid.0)?;
        self.tables.acked()?.remove(sid.0)?;
        let after = sid.0.saturating_add(1);
        self.tables.sub()?.retain_in((sid.0, "")..(after, ""), |_, _| false)?;
        self.tables.in2()?.retain_in((sid.0, 0)..=(sid.0, u16::MAX), |_, _| false)?;
        self.trim(sid, u64::MAX)?;
        self.ledger.sessions.remove(&sid);
        Ok(())
    }

    fn retain(&mut self, message: &Message) -> Result<(), Fault> {
        let topic = message.topic_str();
        let mut table = self.tables.retained()?;
        if message.payload().is_empty() {
            let before = table.remove(topic)?.map_or(0, |old| old.value().len());
            self.ledger.resized(before, 0);
        } else {
            let record = seal(Kind::Retained, topic.as_bytes(), |out| out.extend_from_slice(message.bytes()));
            let before = table.insert(topic, record.as_slice())?.map_or(0, |old| old.value().len());
            self.ledger.resized(before, record.len());
        }
        Ok(())
    }

    fn received(&mut self, sid: Sid, id: u16) -> Result<(), Fault> {
        if self.ledger.sessions.contains_key(&sid) {
            self.tables.in2()?.insert((sid.0, id), session::write_incoming(sid, id).as_slice())?;
            self.written.received.push((sid, id));
        }
        Ok(())
    }

    /// What a client acknowledged leaves its queue.
    pub(super) fn progress(&mut self, sid: Sid, progress: &Progress) -> Result<(), Fault> {
        let Some(queue) = self.ledger.sessions.get_mut(&sid) else { return Ok(()) };
        queue.sent = queue.sent.max(progress.sent);
        let empty = queue.rows == 0;
        self.tables.acked()?.insert(sid.0, session::write_progress(sid, progress).as_slice())?;
        if !progress.completed.is_empty() {
            let mut table = self.tables.in2()?;
            for id in &progress.completed {
                table.remove((sid.0, *id))?;
            }
        }
        if empty { Ok(()) } else { self.trim(sid, progress.floor) }
    }

    /// A queue was handed over up to a position. Its rows stay until the next commit: should this one fail at its very end, they are
    /// handed over again.
    fn advance(&mut self, sid: Sid, floor: u64) -> Result<(), Fault> {
        let Some(queue) = self.ledger.sessions.get(&sid) else { return Ok(()) };
        let sent = queue.sent;
        let before = self.tables.acked()?.get(sid.0)?.map(|record| record.value().to_vec());
        let mut progress = match &before {
            Some(record) => session::read_progress(sid, record)?,
            None => Progress { sent, ..Progress::default() },
        };
        progress.floor = progress.floor.max(floor);
        progress.above.retain(|position| *position >= floor);
        progress.released.retain(|position| *position >= floor);
        self.tables.acked()?.insert(sid.0, session::write_progress(sid, &progress).as_slice())?;
        self.written.advanced.push((sid, before, floor));
        Ok(())
    }

    /// What was handed over by the commit before goes: its rows, or (`u64::MAX`) all of its owner.
    pub(super) fn clear(&mut self, sid: Sid, floor: u64) -> Result<(), Fault> {
        if floor == u64::MAX { self.end(sid) } else { self.trim(sid, floor) }
    }

    /// Removes the queue values that end below a position.
    fn trim(&mut self, sid: Sid, floor: u64) -> Result<(), Fault> {
        let mut done = Vec::new();
        for value in self.tables.queue()?.range((sid.0, 0)..(sid.0, floor))? {
            let (key, value) = value?;
            let first = key.value().1;
            let summary = summary_of(sid, first, value.value());
            if summary.last >= floor {
                break;
            }
            done.push((first, summary, value.value().len()));
        }
        done.into_iter().try_for_each(|(first, summary, length)| self.remove(sid, first, &summary, length))
    }

    fn remove(&mut self, sid: Sid, first: u64, summary: &Summary, length: usize) -> Result<(), Fault> {
        self.tables.queue()?.remove((sid.0, first))?;
        self.ledger.removed(sid, first, summary, length, &mut self.unused);
        Ok(())
    }

    /// Removes one queue value, if it is there; returns its rows.
    fn drop_value(&mut self, sid: Sid, first: u64) -> Result<u64, Fault> {
        let found = self.tables.queue()?.get((sid.0, first))?;
        let found = found.map(|value| (summary_of(sid, first, value.value()), value.value().len()));
        let Some((summary, length)) = found else { return Ok(0) };
        self.remove(sid, first, &summary, length)?;
        Ok(summary.rows)
    }

    /// Takes back what a transaction wrote whose promises were broken.
    pub(super) fn undo(&mut self, written: &Written) -> Result<(), Fault> {
        for (sid, first) in &written.queues {
            self.drop_value(*sid, *first)?;
        }
        for (sid, id) in &written.received {
            self.tables.in2()?.remove((sid.0, *id))?;
        }
        for (sid, before, _) in written.advanced.iter().rev() {
            if self.ledger.sessions.contains_key(sid) {
                match before {
                    Some(record) => drop(self.tables.acked()?.insert(sid.0, record.as_slice())?),
                    None => drop(self.tables.acked()?.remove(sid.0)?),
                }
            }
        }
        Ok(())
    }

    /// Queues the rows of several groups, with their messages. Returns how many were dropped by quota.
    pub(super) fn rows(&mut self, groups: &[&Group], quota: &Quota) -> Result<u64, Fault> {
        let arrivals = Arrivals::of(groups);
        let (mut admitted, mut dropped) = (Vec::new(), 0);
        for (sid, rows) in &arrivals.rows {
            if self.ledger.sessions.contains_key(sid) {
                let before = rows.len();
                let (rows, evicted) = self.admit(*sid, rows, groups, quota)?;
                dropped += as_u64(before - rows.len()) + evicted;
                admitted.push((*sid, rows));
            }
        }
        let batch = self.batch(&arrivals, admitted.iter().flat_map(|(_, rows)| rows))?;
        for (sid, rows) in admitted {
            self.queue(sid, &rows, &arrivals, batch)?;
        }
        Ok(dropped)
    }

    /// The rows a session's quota has room for, after the policy has made what room it may; and how many older ones it cost.
    fn admit<'g>(
        &mut self,
        sid: Sid,
        rows: &[(&'g Row, u64)],
        groups: &[&Group],
        quota: &Quota,
    ) -> Result<(SizedRows<'g>, u64), Fault> {
        if self.ledger.sessions.get(&sid).is_some_and(|queue| queue.spared) {
            // Whoever published is told that it was taken: it is. The quota is overdrawn by what is under way at most.
            return Ok((rows.to_vec(), 0));
        }
        let mut evicted = 0;
        while let Some(queue) = self.ledger.sessions.get(&sid).filter(|queue| quota.evicts(queue, rows)) {
            // What the client was sent stays until it acknowledges it.
            let sent = groups.iter().find_map(|group| group.promise.sent_to(sid)).unwrap_or(0).max(queue.sent);
            let after = (sid.0, sent.saturating_add(1));
            let oldest = self.tables.queue()?.range(after..=(sid.0, u64::MAX))?.next().transpose()?;
            let Some(first) = oldest.map(|(key, _)| key.value().1) else { break };
            evicted += self.drop_value(sid, first)?;
        }
        let kept = self.ledger.sessions.get(&sid).map_or_else(Vec::new, |queue| quota.admit(queue, rows));
        Ok((kept, evicted))
    }

    /// Packs the messages that rows of these groups name; returns the key and size of the value.
    fn batch<'g>(
        &mut self,
        arrivals: &Arrivals<'g>,
        rows: impl Iterator<Item = &'g (&'g Row, u64)>,
    ) -> Result<Option<(u64, u64)>, Fault> {
        let named: BTreeSet<(u64, u32)> = rows.map(|(row, _)| (row.place.batch, row.place.index)).collect();
        let packed = named.into_iter().filter_map(|(group, index)| {
            let envelope = arrivals.message(group, index)?.bytes();
            Some(Packed { group, index, envelope })
        });
        let packed: Vec<_> = packed.collect();
        let Some(key) = packed.first().map(|first| first.group) else { return Ok(None) };
        let record = batch::write(key, &packed).ok_or(Fault::TooLarge("a batch of messages is too large"))?;
        self.tables.msg()?.insert(key, record.as_slice())?;
        Ok(Some((key, as_u64(record.len()))))
    }

    fn queue(
        &mut self,
        sid: Sid,
        rows: &[(&Row, u64)],
        arrivals: &Arrivals<'_>,
        batch: Option<(u64, u64)>,
    ) -> Result<(), Fault> {
        let groups: BTreeSet<u64> = rows.iter().map(|(row, _)| row.place.batch).collect();
        let sources = groups.into_iter().filter_map(|group| {
            let own = batch.filter(|_| arrivals.messages.contains_key(&group));
            let (batch, size) = own.or_else(|| self.ledger.batch_of(group))?;
            Some(Source { batch, group, size })
        });
        let sources: Vec<_> = sources.collect();
        // A row whose message is nowhere has nothing to say.
        let stored = |row: &Row| sources.binary_search_by_key(&row.place.batch, |source| source.group).is_ok();
        let (rows, sizes): (Vec<&Row>, Vec<u64>) = rows.iter().filter(|(row, _)| stored(row)).copied().unzip();
        let (Some(first), Some(last)) = (rows.first(), rows.last()) else { return Ok(()) };
        let summary = Summary { last: last.qseq, rows: as_u64(rows.len()), bytes: sizes.iter().sum(), sources };
        let record = queue::write(sid, &rows, summary.bytes, &summary.sources)
            .ok_or(Fault::TooLarge("the rows of a session are too many"))?;
        self.written.queues.push((sid, first.qseq));
        self.tables.queue()?.insert((sid.0, first.qseq), record.as_slice())?;
        self.ledger.added(sid, first.qseq, &summary, record.len());
        Ok(())
    }

    /// Removes what nothing names any more.
    pub(super) fn finish(self) -> Result<(), Fault> {
        for batch in self.unused {
            if self.ledger.sweep(batch) {
                self.tables.msg()?.remove(batch)?;
            }
        }
        if self.ledger.next_sid != self.next_sid {
            let next = self.ledger.next_sid;
            let record = seal(Kind::NextSid, &[], |out| out.extend_from_slice(&next.to_le_bytes()));
            self.tables.meta()?.insert(META_NEXT_SID, record.as_slice())?;
        }
        Ok(())
    }
}

/// What a value says of itself; a damaged one counts as one position and names nothing: its rows cannot be read anyway.
fn summary_of(sid: Sid, first: u64, record: &[u8]) -> Summary {
    let damaged = || Summary { last: first, rows: 0, bytes: 0, sources: Vec::new() };
    Queued::read(sid, first, record).map_or_else(|_| damaged(), |queued| queued.summary)
}

/// Everything several groups bring.
struct Arrivals<'g> {
    /// Rows by session, with the bytes each counts for quotas.
    rows: BTreeMap<Sid, SizedRows<'g>>,
    /// Messages by group.
    messages: HashMap<u64, &'g [std::sync::Arc<Message>]>,
}

impl<'g> Arrivals<'g> {
    fn of(groups: &[&'g Group]) -> Self {
        let messages = groups.iter().map(|group| (group.batch, group.messages.as_slice())).collect();
        let mut arrivals = Self { rows: BTreeMap::new(), messages };
        for (sid, rows) in groups.iter().flat_map(|group| &group.queues) {
            let sized = rows.iter().map(|row| {
                // One that is handed on from an earlier commit counts as a row only.
                let size = arrivals.message(row.place.batch, row.place.index).map_or(0, Message::size);
                (row, as_u64(size))
            });
            let sized: Vec<_> = sized.collect();
            arrivals.rows.entry(*sid).or_default().extend(sized);
        }
        arrivals
    }

    fn message(&self, group: u64, index: u32) -> Option<&'g Message> {
        let messages = self.messages.get(&group)?;
        messages.get(usize::try_from(index).ok()?).map(AsRef::as_ref)
    }
}
