//! Records: what is written is read, and any bytes are read or refused.

use std::sync::Arc;

use proptest::prelude::*;

use super::{
    batch::{Batch, Packed},
    queue::{Queued, Source},
    *,
};
use crate::{
    broker::{
        codec::{SubscribeOptions, Will},
        message::{Door, Origin},
        store::{Owner, Place, Progress, Row, SessionRecord, Sid, WillRecord},
        stream::Asked,
    },
    names::{ClientId, QoS, TopicFilter},
};

const CORPUS_FILES: usize = 6;
/// Records, rows and messages read from them.
const CORPUS_READ: usize = 16;

fn origin(number: u64) -> Origin {
    let doors = [Door::Mqtt, Door::Rest, Door::Internal, Door::External];
    let door = doors[usize::try_from(number).unwrap() % doors.len()];
    let client = (!number.is_multiple_of(3)).then(|| ClientId::new(format!("c{number}")).unwrap());
    Origin { door, client, user: (!number.is_multiple_of(5)).then(|| "ü".into()), may_start: number.is_multiple_of(2) }
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
            let origin = retain.then(|| Arc::new(origin(step)));
            let place = Place { batch, index };
            Row { qseq: position, place, qos, retain, ids, pool: two.then_some(Sid(step)), origin }
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
    fn any_bytes_are_read_or_refused(input in prop::collection::vec(any::<u8>(), 0..300)) {
        walk(&input);
    }

    #[test]
    fn no_checksum_is_right_by_chance(key in any::<u64>(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let kinds = [Kind::Session, Kind::Progress, Kind::Subscription, Kind::Incoming, Kind::Batch, Kind::Queue];
        for kind in kinds {
            prop_assert!(unseal(kind, &sid_key(key), &bytes).is_err());
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

/// A store of the first format is read as it is; only what may be in it differs.
#[test]
fn the_first_format_is_read() {
    let mut record = seal(Kind::Retained, b"topic", |out| out.extend_from_slice(b"body"));
    assert!(!is_older(&record));
    record[0] = 1;
    assert!(is_older(&record));
    assert_eq!(unseal(Kind::Retained, b"topic", &record), Ok(b"body".as_slice()));
    record[0] = 0;
    assert_eq!(unseal(Kind::Retained, b"topic", &record), Err(Damaged::Checksum(Kind::Retained)));
}

#[test]
fn a_later_format_is_named() {
    let mut record = seal(Kind::Format, &[], |_| {});
    record[0] = FORMAT + 1;
    assert_eq!(unseal(Kind::Format, &[], &record), Err(Damaged::Newer { kind: Kind::Format, found: FORMAT + 1 }));
    assert_eq!(unseal(Kind::Format, &[], &[]), Err(Damaged::Malformed("empty")));
}

/// The seeds of the fuzz target: what fuzzing starts from, and what it found.
#[test]
fn the_corpus_is_read() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/store_records");
    let mut paths: Vec<_> = std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read: usize = paths.iter().map(|path| walk(&std::fs::read(path).unwrap())).sum();
    assert_eq!((paths.len(), read), (CORPUS_FILES, CORPUS_READ));
}

/// Writes the seeds anew, with `BUTLER_WRITE_CORPUS` set.
#[test]
fn seeds() {
    let sid = Sid(7);
    let key = pair_key(sid.0, 3).to_vec();
    let seed = |record: Vec<u8>| {
        let mut seed = key.clone();
        seed.extend_from_slice(record.get(SEAL..).unwrap());
        assert!(walk(&seed) > 0);
        seed
    };
    let rows: Vec<_> = (3..9)
        .map(|qseq| Row {
            qseq,
            place: Place { batch: 4, index: u32::try_from(qseq).unwrap() },
            qos: QoS::ExactlyOnce,
            retain: qseq == 4,
            ids: (qseq == 5).then(|| Arc::from([1, 2, 3])),
            pool: (qseq == 6).then_some(Sid(1)),
            origin: (qseq == 7).then(|| Arc::new(origin(3))),
        })
        .collect();
    let rows: Vec<_> = rows.iter().collect();
    let packed = [Packed { group: 3, index: 0, envelope: b"one" }, Packed { group: 4, index: 2, envelope: b"three" }];
    let progress = Progress { floor: 3, sent: 9, above: vec![5], released: vec![6, 7], completed: Vec::new() };
    let record = SessionRecord {
        owner: Owner::Group(TopicFilter::new("$share/g/t").unwrap()),
        client: ClientId::new("c").unwrap(),
        origin: Some(Origin { door: Door::Mqtt, client: None, user: Some("u".into()), may_start: true }),
        expiry: 60,
        left_at: Some(1),
        will: Some(WillRecord {
            will: Will {
                topic: "w".into(),
                payload: bytes::Bytes::from_static(b"gone"),
                qos: QoS::AtLeastOnce,
                retain: true,
                delay: 5,
                expiry: Some(9),
                properties: vec![1, 0],
            },
            due: Some(77),
        }),
    };
    let options =
        SubscribeOptions { qos: QoS::AtLeastOnce, no_local: true, retain_as_published: false, retain_handling: 2 };
    let asked = Asked { options, id: Some(4), internal: false };
    let seeds = [
        ("queue", seed(queue::write(sid, &rows, 900, &[Source { batch: 3, group: 4, size: 80 }]).unwrap())),
        ("batch", seed(batch::write(3, &packed).unwrap())),
        ("progress", seed(session::write_progress(sid, &progress))),
        ("session", seed(session::write_session(sid, &record))),
        ("subscription", seed(session::write_subscription(sid, "a/+", &asked))),
        ("incoming", seed(session::write_incoming(sid, 3))),
    ];
    assert_eq!(seeds.len(), CORPUS_FILES);
    if std::env::var_os("BUTLER_WRITE_CORPUS").is_some() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/store_records");
        std::fs::create_dir_all(&folder).unwrap();
        seeds.iter().for_each(|(name, seed)| std::fs::write(folder.join(name), seed).unwrap());
    }
}
