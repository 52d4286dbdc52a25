//! Queue values: the rows one session got with one commit, packed into one value.
//!
//! ```text
//! last u64 | bytes u64 | rows u32 | sources u32
//! sources x (batch u64, group u64, size u64)
//! rows x (position - key u32, source u16, index u32, flags u8, [ids: count u16, count x u32], [group u64], [origin])
//! ```
//!
//! `last` is the position of the last row (the first is the key), `bytes` the size of the messages, as quotas count them; a source is a group
//! and the batch its messages lie in, with the size of that value: so references can be counted without reading a message. Flags: bits 0-1
//! QoS, 2 retain, 3 subscription ids follow, 4 the number of the shared group follows it was sent for, 5 (since format 2) who published
//! it follows, as in a session's record.

use std::sync::Arc;

use super::{
    Damaged, Fields, Kind, pair_key, put, seal,
    session::{read_origin, write_origin},
    unseal,
};
use crate::{
    broker::store::{Place, Row, Sid},
    names::QoS,
};

const RETAIN: u8 = 4;
const IDS: u8 = 8;
const POOL: u8 = 16;
const ORIGIN: u8 = 32;
const SOURCE: usize = 24;

/// Where messages of a queue value lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker::store) struct Source {
    /// Key of the batch.
    pub batch: u64,
    /// Number of the group.
    pub group: u64,
    /// Bytes of the batch's value.
    pub size: u64,
}

/// What a queue value says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::broker::store) struct Summary {
    pub last: u64,
    pub rows: u64,
    /// Bytes of the messages, as quotas count them.
    pub bytes: u64,
    pub sources: Vec<Source>,
}

impl Summary {
    /// The batches it keeps alive, each once, with their sizes and the last group seen of each.
    pub(in crate::broker::store) fn batches(&self) -> impl Iterator<Item = Source> {
        self.sources.chunk_by(|a, b| a.batch == b.batch).filter_map(|run| run.last().copied())
    }
}

/// Packs rows. `sources` must hold the group of every row, sorted by group (and so by batch: those of one commit follow each other).
pub(in crate::broker::store) fn write(sid: Sid, rows: &[&Row], bytes: u64, sources: &[Source]) -> Option<Vec<u8>> {
    let (first, last) = (rows.first()?.qseq, rows.last()?.qseq);
    let mut packed = Vec::with_capacity(rows.len() * 11);
    for row in rows {
        let offset = u32::try_from(row.qseq.checked_sub(first)?).ok()?;
        let source = sources.binary_search_by_key(&row.place.batch, |source| source.group).ok()?;
        packed.extend_from_slice(&offset.to_le_bytes());
        packed.extend_from_slice(&u16::try_from(source).ok()?.to_le_bytes());
        packed.extend_from_slice(&row.place.index.to_le_bytes());
        let ids = row.ids.as_deref().unwrap_or_default();
        let flag = |on: bool, flag: u8| if on { flag } else { 0 };
        let flags = flag(row.retain, RETAIN) | flag(!ids.is_empty(), IDS) | flag(row.pool.is_some(), POOL);
        packed.push(row.qos as u8 | flags | flag(row.origin.is_some(), ORIGIN));
        if !ids.is_empty() {
            packed.extend_from_slice(&u16::try_from(ids.len()).ok()?.to_le_bytes());
            ids.iter().for_each(|id| packed.extend_from_slice(&id.to_le_bytes()));
        }
        if let Some(pool) = row.pool {
            packed.extend_from_slice(&pool.0.to_le_bytes());
        }
        if let Some(origin) = &row.origin {
            write_origin(&mut packed, origin);
        }
    }
    let record = seal(Kind::Queue, &pair_key(sid.0, first), |out| {
        out.extend_from_slice(&last.to_le_bytes());
        out.extend_from_slice(&bytes.to_le_bytes());
        put::count(out, rows.len());
        put::count(out, sources.len());
        for source in sources {
            for field in [source.batch, source.group, source.size] {
                out.extend_from_slice(&field.to_le_bytes());
            }
        }
        out.extend_from_slice(&packed);
    });
    Some(record)
}

/// A queue value that can be walked through.
#[derive(Debug)]
pub(in crate::broker::store) struct Queued<'a> {
    first: u64,
    pub summary: Summary,
    rest: Fields<'a>,
    left: u64,
}

impl<'a> Queued<'a> {
    pub(in crate::broker::store) fn read(sid: Sid, first: u64, record: &'a [u8]) -> Result<Self, Damaged> {
        let mut fields = Fields(unseal(Kind::Queue, &pair_key(sid.0, first), record)?);
        let (last, bytes) = (fields.u64()?, fields.u64()?);
        let (rows, count) = (u64::from(fields.u32()?), fields.count()?);
        let mut table = Fields(fields.bytes(count.saturating_mul(SOURCE))?);
        let sources = (0..count).map(|_| Ok(Source { batch: table.u64()?, group: table.u64()?, size: table.u64()? }));
        let sources = sources.collect::<Result<_, Damaged>>()?;
        Ok(Self { first, summary: Summary { last, rows, bytes, sources }, rest: fields, left: rows })
    }

    fn row(&mut self) -> Result<(Row, u64), Damaged> {
        let fields = &mut self.rest;
        let qseq = self.first.saturating_add(u64::from(fields.u32()?));
        let source =
            self.summary.sources.get(usize::from(fields.u16()?)).ok_or(Damaged::Malformed("no such source"))?;
        let (index, flags) = (fields.u32()?, fields.u8()?);
        let qos = QoS::from_u8(flags & 3).ok_or(Damaged::Malformed("a QoS is none"))?;
        let ids = if flags & IDS == 0 {
            None
        } else {
            let count = usize::from(fields.u16()?);
            let mut bytes = Fields(fields.bytes(count * 4)?);
            Some((0..count).map(|_| bytes.u32()).collect::<Result<Arc<[u32]>, _>>()?)
        };
        let pool = if flags & POOL == 0 { None } else { Some(Sid(fields.u64()?)) };
        let origin = if flags & ORIGIN == 0 { None } else { Some(Arc::new(read_origin(fields)?)) };
        let place = Place { batch: source.group, index };
        Ok((Row { qseq, place, qos, retain: flags & RETAIN != 0, ids, pool, origin }, source.batch))
    }
}

/// Every row, with the key of the batch its message lies in. Ends at the first that cannot be read.
impl Iterator for Queued<'_> {
    type Item = Result<(Row, u64), Damaged>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let row = self.row();
        if row.is_err() {
            self.left = 0;
        }
        Some(row)
    }
}
