//! Batches: the messages of one commit, packed into one value.
//!
//! ```text
//! count u32 | count x (group u32, index u32, end u32) | envelopes
//! ```
//!
//! A message is named by the group it came with (relative to the batch's key, which is the first of them) and its index there; entries are
//! sorted by that, and `end` is where the envelope ends behind the table. Messages nobody waits for are left out, so there are gaps.

use super::{Damaged, Fields, Kind, put, seal, sid_key, unseal};

const ENTRY: usize = 12;

/// One message on its way into a batch.
#[derive(Debug, Clone, Copy)]
pub(in crate::broker::store) struct Packed<'a> {
    /// Number of its group, at least the batch's key.
    pub group: u64,
    pub index: u32,
    pub envelope: &'a [u8],
}

/// Packs messages, ascending by group and index. `None` if they do not fit into one value: more than 4 GiB, or groups too far apart.
pub(in crate::broker::store) fn write(key: u64, messages: &[Packed<'_>]) -> Option<Vec<u8>> {
    let mut end = 0_u32;
    let mut table = Vec::with_capacity(messages.len() * ENTRY);
    for message in messages {
        end = end.checked_add(u32::try_from(message.envelope.len()).ok()?)?;
        let group = u32::try_from(message.group.checked_sub(key)?).ok()?;
        for field in [group, message.index, end] {
            table.extend_from_slice(&field.to_le_bytes());
        }
    }
    let record = seal(Kind::Batch, &sid_key(key), |out| {
        out.reserve_exact(4 + table.len() + messages.iter().map(|message| message.envelope.len()).sum::<usize>());
        put::count(out, messages.len());
        out.extend_from_slice(&table);
        messages.iter().for_each(|message| out.extend_from_slice(message.envelope));
    });
    Some(record)
}

/// A batch that can be searched.
#[derive(Debug, Clone, Copy)]
pub(in crate::broker::store) struct Batch<'a> {
    key: u64,
    table: &'a [u8],
    envelopes: &'a [u8],
}

impl<'a> Batch<'a> {
    pub(in crate::broker::store) fn read(key: u64, record: &'a [u8]) -> Result<Self, Damaged> {
        let mut fields = Fields(unseal(Kind::Batch, &sid_key(key), record)?);
        let count = fields.count()?;
        let table = fields.bytes(count.saturating_mul(ENTRY))?;
        Ok(Self { key, table, envelopes: fields.0 })
    }

    pub(in crate::broker::store) fn len(&self) -> usize {
        self.table.len() / ENTRY
    }

    fn entry(&self, place: usize) -> Option<(u32, u32, u32)> {
        let mut fields = Fields(self.table.get(place.checked_mul(ENTRY)?..)?);
        Some((fields.u32().ok()?, fields.u32().ok()?, fields.u32().ok()?))
    }

    /// The envelope of a message; `None` if it is not here.
    pub(in crate::broker::store) fn find(&self, group: u64, index: u32) -> Option<&'a [u8]> {
        let wanted = (u32::try_from(group.checked_sub(self.key)?).ok()?, index);
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let middle = low + (high - low) / 2;
            let (group, index, end) = self.entry(middle)?;
            match (group, index).cmp(&wanted) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return self.envelope(middle, end),
            }
        }
        None
    }

    fn envelope(&self, place: usize, end: u32) -> Option<&'a [u8]> {
        let start = match place.checked_sub(1) {
            Some(before) => self.entry(before)?.2,
            None => 0,
        };
        self.envelopes.get(usize::try_from(start).ok()?..usize::try_from(end).ok()?)
    }
}
