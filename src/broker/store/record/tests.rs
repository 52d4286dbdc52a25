//! Records: what is written is read, and any bytes are read or refused.

use std::sync::Arc;

use proptest::prelude::*;

use super::{
    batch::{Batch, Packed},
    queue::{Queued, Source},
    *,
};
use crate::{
    broker::store::{Place, Progress, Row, Sid},
    names::QoS,
};

/// Reads bytes as every kind of record; how many of them could be read.
pub(crate) fn read_all(sid: Sid, number: u64, bytes: &[u8]) -> usize {
    let id = u16::try_from(number % 65_536).unwrap();
    let mut read = usize::from(session::read_session(sid, bytes).is_ok());
    read += usize::from(session::read_subscription(sid, "a/+", bytes).is_ok());
    read += usize::from(session::read_progress(sid, bytes).is_ok());
    read += usize::from(session::read_incoming(sid, id, bytes).is_ok());
    if let Ok(batch) = Batch::read(number, bytes) {
        read += 1;
        for index in 0..4 {
            let _ = (batch.find(number, index), batch.find(number + 1, index));
        }
    }
    if let Ok(queued) = Queued::read(sid, number, bytes) {
        read += 1;
        let _ = queued.filter(Result::is_ok).count();
    }
    read
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let row =
        (1..50_u64, 0..4_u64, any::<u32>(), any::<bool>(), any::<bool>(), prop::collection::vec(any::<u32>(), 0..4));
    prop::collection::vec(row, 1..40).prop_map(|rows| {
        let mut position = 0;
        let row = |(step, batch, index, two, retain, ids): (u64, u64, u32, bool, bool, Vec<u32>)| {
            position += step;
            let ids = Some(Arc::from(ids)).filter(|ids: &Arc<[u32]>| !ids.is_empty());
            let qos = if two { QoS::ExactlyOnce } else { QoS::AtLeastOnce };
            Row { qseq: position, place: Place { batch, index }, qos, retain, ids, pool: retain.then_some(Sid(batch)) }
        };
        rows.into_iter().map(row).collect()
    })
}

proptest! {
    #[test]
    fn rows_are_read_as_they_were_written(rows in rows(), bytes in any::<u64>()) {
        let sources: Vec<_> = (0..4).map(|group| Source { batch: group / 2, group, size: group * 10 }).collect();
        let first = rows[0].qseq;
        let refs: Vec<_> = rows.iter().collect();
        let record = queue::write(Sid(3), &refs, bytes, &sources).unwrap();
        let queued = Queued::read(Sid(3), first, &record).unwrap();
        prop_assert_eq!((queued.summary.last, queued.summary.bytes), (rows.last().unwrap().qseq, bytes));
        prop_assert_eq!(queued.summary.batches().map(|source| source.batch).collect::<Vec<_>>(), vec![0, 1]);
        let read: Vec<_> = queued.map(|row| row.unwrap()).collect();
        prop_assert_eq!(read.len(), rows.len());
        for ((read, batch), row) in read.iter().zip(&rows) {
            prop_assert_eq!((read, *batch), (row, row.place.batch / 2));
        }
        prop_assert!(Queued::read(Sid(4), first, &record).is_err());
        prop_assert!(Queued::read(Sid(3), first + 1, &record).is_err());
    }

    #[test]
    fn messages_are_found_where_they_were_put(
        messages in prop::collection::btree_map((5..9_u64, 0..9_u32), prop::collection::vec(any::<u8>(), 0..40), 0..20),
    ) {
        let packed: Vec<_> =
            messages.iter().map(|((group, index), envelope)| Packed { group: *group, index: *index, envelope }).collect();
        let record = batch::write(5, &packed).unwrap();
        let batch = Batch::read(5, &record).unwrap();
        prop_assert_eq!(batch.len(), messages.len());
        for group in 0..12 {
            for index in 0..10 {
                prop_assert_eq!(batch.find(group, index), messages.get(&(group, index)).map(Vec::as_slice));
            }
        }
        prop_assert!(Batch::read(6, &record).is_err());
    }

    #[test]
    fn any_bytes_are_read_or_refused(sid in any::<u64>(), number in 0..u64::MAX - 1, bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(read_all(Sid(sid), number, &bytes), 0, "no checksum is right by chance");
    }

    /// With a right seal around them, so that the readers behind it see them.
    #[test]
    fn any_sealed_bytes_are_read_or_refused(sid in any::<u64>(), number in 0..u64::MAX - 1, body in prop::collection::vec(any::<u8>(), 0..200)) {
        let keys = [
            (Kind::Session, sid_key(sid).to_vec()),
            (Kind::Progress, sid_key(sid).to_vec()),
            (Kind::Subscription, named_key(sid, "a/+")),
            (Kind::Incoming, pair_key(sid, number % 65_536).to_vec()),
            (Kind::Batch, sid_key(number).to_vec()),
            (Kind::Queue, pair_key(sid, number).to_vec()),
        ];
        for (kind, key) in keys {
            let record = seal(kind, &key, |out| out.extend_from_slice(&body));
            prop_assert_eq!(unseal(kind, &key, &record), Ok(body.as_slice()));
            read_all(Sid(sid), number, &record);
        }
    }

    #[test]
    fn a_flipped_bit_is_noticed(body in prop::collection::vec(any::<u8>(), 0..60), place in any::<prop::sample::Index>(), bit in 0..8) {
        let mut record = seal(Kind::Retained, b"topic", |out| out.extend_from_slice(&body));
        let place = place.index(record.len());
        record[place] ^= 1_u8 << bit;
        prop_assert!(unseal(Kind::Retained, b"topic", &record).is_err());
    }

    #[test]
    fn progress_is_read_as_it_was_written(
        floor in any::<u64>(), sent in any::<u64>(),
        above in prop::collection::vec(any::<u64>(), 0..20), released in prop::collection::vec(any::<u64>(), 0..20),
    ) {
        let progress = Progress { floor, sent, above, released, completed: vec![4] };
        let read = session::read_progress(Sid(1), &session::write_progress(Sid(1), &progress)).unwrap();
        prop_assert_eq!(read, Progress { completed: Vec::new(), ..progress });
    }
}

#[test]
fn a_later_format_is_named() {
    let mut record = seal(Kind::Format, &[], |_| {});
    record[0] = FORMAT + 1;
    assert_eq!(unseal(Kind::Format, &[], &record), Err(Damaged::Newer { kind: Kind::Format, found: FORMAT + 1 }));
    assert_eq!(unseal(Kind::Format, &[], &[]), Err(Damaged::Malformed("empty")));
}
