//! Batches of which little is waited for are written anew without the rest: one message for a client that is away does not keep the space of
//! everything it was committed with.
//!
//! Invariants: a batch keeps its key, and its messages their places, so that rows need not change but for the size they note; every message
//! that any row names stays; what cannot be read is left as it is. The work of a commit is bounded, but enough to keep up: a commit makes one
//! batch at most.

use std::collections::BTreeSet;

use redb::ReadableTable as _;

use super::{
    Row, Sid,
    apply::Applying,
    ledger::as_u64,
    record::{
        batch::{self, Batch, Packed},
        queue::{self, Queued, Source},
    },
    tables::Fault,
};

/// Bytes of batches that are looked through in one commit; one of any size is.
const BYTES: u64 = 2 << 20;

/// A queue value: its key, quota bytes, sources and rows.
struct Value {
    sid: Sid,
    first: u64,
    bytes: u64,
    sources: Vec<Source>,
    rows: Vec<Row>,
}

impl Applying<'_, '_> {
    /// Writes sparse batches anew; returns how many.
    pub(super) fn compact(&mut self) -> Result<u64, Fault> {
        let (mut looked, mut done) = (0, 0);
        while looked < BYTES
            && let Some((batch, size)) = self.ledger.next_sparse()
        {
            looked += size;
            done += u64::from(self.shrink(batch, size)?);
        }
        Ok(done)
    }

    /// Writes one anew, if that is worth it.
    fn shrink(&mut self, key: u64, size: u64) -> Result<bool, Fault> {
        let mut values = Vec::new();
        for (sid, first) in self.ledger.names_of(key) {
            let Some(value) = self.value(sid, first)? else { return Ok(false) };
            values.push(value);
        }
        let Some(record) = self.rest(key, &values)? else { return Ok(false) };
        let now = as_u64(record.len());
        if now > size / 2 {
            return Ok(false);
        }
        self.tables.msg()?.insert(key, record.as_slice())?;
        for value in &mut values {
            value.sources.iter_mut().filter(|source| source.batch == key).for_each(|source| source.size = now);
            let rows: Vec<_> = value.rows.iter().collect();
            let record = queue::write(value.sid, &rows, value.bytes, &value.sources)
                .ok_or(Fault::TooLarge("the rows of a session are too many"))?;
            self.tables.queue()?.insert((value.sid.0, value.first), record.as_slice())?;
        }
        self.ledger.shrunk(key, now);
        Ok(true)
    }

    /// Reads a queue value; `None` if that is not possible in full.
    fn value(&mut self, sid: Sid, first: u64) -> Result<Option<Value>, Fault> {
        let record = self.tables.queue()?.get((sid.0, first))?;
        let queued = record.as_ref().and_then(|record| Queued::read(sid, first, record.value()).ok());
        let Some(queued) = queued else { return Ok(None) };
        let (bytes, sources) = (queued.summary.bytes, queued.summary.sources.clone());
        let rows = queued.map(|row| row.map(|(row, _)| row)).collect::<Result<_, _>>();
        Ok(rows.ok().map(|rows| Value { sid, first, bytes, sources, rows }))
    }

    /// What of a batch these values name, packed; `None` if it cannot be read.
    fn rest(&mut self, key: u64, values: &[Value]) -> Result<Option<Vec<u8>>, Fault> {
        let of_batch = |value: &Value, row: &Row| {
            value.sources.iter().any(|source| source.batch == key && source.group == row.place.batch)
        };
        let named = values.iter().flat_map(|value| value.rows.iter().filter(|row| of_batch(value, row)));
        let named: BTreeSet<_> = named.map(|row| (row.place.batch, row.place.index)).collect();
        let record = self.tables.msg()?.get(key)?;
        let batch = record.as_ref().and_then(|record| Batch::read(key, record.value()).ok());
        let Some(batch) = batch else { return Ok(None) };
        let packed = named.into_iter().map(|(group, index)| {
            let envelope = batch.find(group, index)?;
            Some(Packed { group, index, envelope })
        });
        Ok(packed.collect::<Option<Vec<_>>>().and_then(|packed| batch::write(key, &packed)))
    }
}
