//! What the writer knows of the file without looking: which sessions there are, how much each has queued, which batches are still needed.
//!
//! Rebuilt whenever the file is opened. Invariants: a session that is not here has ended, and nothing is written for it; a batch is here as
//! long as a queue value names it; of a large one it is known which values those are, so that what nobody waits for can be cut out.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::{Sid, record::queue::Summary};

/// Batches smaller than this are left as they are, bytes.
const LARGE: u64 = if cfg!(test) { 1 << 10 } else { 16 << 10 };
/// A batch is sparse if less than one part of so many is waited for ...
const PARTS: u64 = 8;
/// ... by no more queue values than this.
const NAMES: u64 = 64;

/// What a session has queued.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Queue {
    pub rows: u64,
    /// Bytes of its messages.
    pub bytes: u64,
    /// Its last position.
    pub last: u64,
    /// The highest position it was known to have sent.
    pub sent: u64,
    /// Its quota was exceeded and is not cleared yet.
    pub over: bool,
    /// It is of a part of this program: its quota turns publishers away, and drops nothing.
    pub spared: bool,
}

/// Messages of one commit.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Batch {
    /// The last of its groups.
    last: u64,
    /// Queue values that name it.
    values: u64,
    size: u64,
    /// Bytes of the messages those values name, each counted for each: at least what is waited for.
    live: u64,
}

impl Batch {
    fn is_sparse(&self) -> bool {
        self.size >= LARGE && (1..=NAMES).contains(&self.values) && self.live < self.size / PARTS
    }
}

/// See the module.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Ledger {
    pub sessions: HashMap<Sid, Queue>,
    batches: BTreeMap<u64, Batch>,
    /// Large batches with the queue values that name them.
    names: BTreeSet<(u64, Sid, u64)>,
    /// Batches that have become sparse.
    sparse: BTreeSet<u64>,
    /// Bytes of all batches, queues and retained messages.
    pub bytes: u64,
    /// Rows of all queues.
    pub rows: u64,
    /// The next session number to be given, as the file has it.
    pub next_sid: u64,
}

impl Ledger {
    /// A queue value is there.
    pub(super) fn added(&mut self, sid: Sid, first: u64, summary: &Summary, length: usize) {
        let queue = self.sessions.entry(sid).or_default();
        queue.rows += summary.rows;
        queue.bytes += summary.bytes;
        queue.last = queue.last.max(summary.last);
        self.rows += summary.rows;
        self.bytes += as_u64(length);
        for source in summary.batches() {
            let batch = self.batches.entry(source.batch).or_default();
            batch.values += 1;
            batch.last = batch.last.max(source.group);
            if batch.size == 0 {
                batch.size = source.size;
                self.bytes += source.size;
            }
            batch.live += summary.bytes;
            if batch.size >= LARGE {
                self.names.insert((source.batch, sid, first));
            }
        }
    }

    /// A queue value is gone. The batches it was the last to name are appended to `unused`; they go when nothing names them at the end of the
    /// commit ([`Ledger::sweep`]): a later group may still hand one of their messages on.
    pub(super) fn removed(&mut self, sid: Sid, first: u64, summary: &Summary, length: usize, unused: &mut Vec<u64>) {
        if let Some(queue) = self.sessions.get_mut(&sid) {
            queue.rows = queue.rows.saturating_sub(summary.rows);
            queue.bytes = queue.bytes.saturating_sub(summary.bytes);
        }
        self.rows = self.rows.saturating_sub(summary.rows);
        self.bytes = self.bytes.saturating_sub(as_u64(length));
        for source in summary.batches() {
            let Some(batch) = self.batches.get_mut(&source.batch) else { continue };
            batch.values = batch.values.saturating_sub(1);
            batch.live = batch.live.saturating_sub(summary.bytes);
            self.names.remove(&(source.batch, sid, first));
            if batch.values == 0 {
                unused.push(source.batch);
            } else if batch.is_sparse() {
                self.sparse.insert(source.batch);
            }
        }
    }

    /// Forgets a batch that nothing names any more; whether it is to be removed.
    pub(super) fn sweep(&mut self, batch: u64) -> bool {
        let Some(unused) = self.batches.get(&batch).filter(|batch| batch.values == 0) else { return false };
        self.bytes = self.bytes.saturating_sub(unused.size);
        self.batches.remove(&batch);
        true
    }

    /// Everything was counted: those of the batches that are sparse.
    pub(super) fn find_sparse(&mut self) {
        let sparse = self.batches.iter().filter(|(_, batch)| batch.is_sparse());
        self.sparse = sparse.map(|(key, _)| *key).collect();
    }

    pub(super) fn has_sparse(&self) -> bool {
        !self.sparse.is_empty()
    }

    /// A sparse batch and its size; each time it becomes sparse it comes once.
    pub(super) fn next_sparse(&mut self) -> Option<(u64, u64)> {
        while let Some(key) = self.sparse.pop_first() {
            if let Some(batch) = self.batches.get(&key).filter(|batch| batch.is_sparse()) {
                return Some((key, batch.size));
            }
        }
        None
    }

    /// The queue values that name a large batch.
    pub(super) fn names_of(&self, batch: u64) -> Vec<(Sid, u64)> {
        let names = self.names.range((batch, Sid(0), 0)..=(batch, Sid(u64::MAX), u64::MAX));
        names.map(|(_, sid, first)| (*sid, *first)).collect()
    }

    /// A batch was written anew.
    pub(super) fn shrunk(&mut self, key: u64, size: u64) {
        if let Some(batch) = self.batches.get_mut(&key) {
            self.bytes = self.bytes.saturating_sub(batch.size) + size;
            batch.size = size;
        }
    }

    /// The batch a group's messages lie in, and its size.
    pub(super) fn batch_of(&self, group: u64) -> Option<(u64, u64)> {
        let (key, batch) = self.batches.range(..=group).next_back()?;
        (group <= batch.last).then_some((*key, batch.size))
    }

    pub(super) fn knows(&self, batch: u64) -> bool {
        self.batches.contains_key(&batch)
    }

    pub(super) fn batches(&self) -> usize {
        self.batches.len()
    }

    /// The group after the last that is stored.
    pub(super) fn next_batch(&self) -> u64 {
        self.batches.last_key_value().map_or(0, |(_, batch)| batch.last + 1)
    }

    /// A value was replaced or removed (`now`: 0).
    pub(super) fn resized(&mut self, before: usize, now: usize) {
        self.bytes = self.bytes.saturating_sub(as_u64(before)) + as_u64(now);
    }
}

pub(super) fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
