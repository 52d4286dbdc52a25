//! Any bytes as any record, for the fuzz target and its corpus.

use super::{Kind, batch::Batch, named_key, pair_key, queue::Queued, seal, session, sid_key};
use crate::broker::store::Sid;

const FILTER: &str = "a/+";

/// Reads bytes as the body of every kind of record, under a right checksum, and as a record as they are; says how often that succeeded.
/// The first 16 bytes are the key.
pub fn walk(input: &[u8]) -> usize {
    let (key, body) = input.split_first_chunk::<16>().unwrap_or((&[0; 16], input));
    let (sid, number) = key.split_at(8);
    let long = |bytes: &[u8]| bytes.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let (sid, number) = (long(sid), long(number));
    let id = u16::try_from(number % 65_536).unwrap_or(0);
    let keys = [
        (Kind::Session, sid_key(sid).to_vec()),
        (Kind::Progress, sid_key(sid).to_vec()),
        (Kind::Subscription, named_key(sid, FILTER)),
        (Kind::Incoming, pair_key(sid, id.into()).to_vec()),
        (Kind::Batch, sid_key(number).to_vec()),
        (Kind::Queue, pair_key(sid, number).to_vec()),
    ];
    let sealed = keys.map(|(kind, key)| seal(kind, &key, |out| out.extend_from_slice(body)));
    let records = sealed.iter().map(Vec::as_slice).chain([body]);
    records.map(|record| read(Sid(sid), number, id, record)).sum()
}

fn read(sid: Sid, number: u64, id: u16, record: &[u8]) -> usize {
    let mut read = usize::from(session::read_session(sid, record).is_ok());
    read += usize::from(session::read_subscription(sid, FILTER, record).is_ok());
    read += usize::from(session::read_progress(sid, record).is_ok());
    read += usize::from(session::read_incoming(sid, id, record).is_ok());
    if let Ok(batch) = Batch::read(number, record) {
        let last = number.saturating_add(1);
        let found = (0..4).flat_map(|index| [batch.find(number, index), batch.find(last, index)]).flatten().count();
        read += 1 + found;
    }
    if let Ok(queued) = Queued::read(sid, number, record) {
        read += 1 + queued.filter(Result::is_ok).count();
    }
    read
}
