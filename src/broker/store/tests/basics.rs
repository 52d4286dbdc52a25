//! What is committed is there after a restart, and goes when it is done with.

use super::*;
use crate::{
    broker::{
        codec::Will,
        message::{Door, Origin},
        session::{Marks, Session},
    },
    names::TopicFilter,
};

fn progress(floor: u64, sent: u64) -> Progress {
    Progress { floor, sent, ..Progress::default() }
}

fn session(sid: Sid, client: &str) -> Arc<Session> {
    Arc::new(Session::new(ClientId::new(client).unwrap(), Marks::of(1 << 20, 1_000), Some(sid)))
}

/// A session whose progress is the given one.
fn session_at(sid: Sid, client: &str, progress: Progress) -> Arc<Session> {
    let kept = RecoveredSession {
        sid,
        record: *record(client, 60, None),
        filters: Vec::new(),
        progress,
        incoming: Vec::new(),
        next_qseq: 1_000,
    };
    Arc::new(Session::recovered(&kept, Marks::of(1 << 20, 1_000)))
}

#[test]
fn everything_is_there_after_a_restart() {
    let scratch = Scratch::new("restart");
    let (store, recovered) = open(&scratch.storage());
    assert_eq!((recovered.sessions.len(), recovered.retained.len(), recovered.next_sid), (0, 0, 1));
    let sid = Sid(4);
    let mut session = record("å client", 60, None);
    let will = Will {
        topic: "w".into(),
        payload: bytes::Bytes::from_static(b"gone"),
        qos: QoS::ExactlyOnce,
        retain: true,
        delay: 5,
        expiry: Some(9),
        properties: vec![1, 0],
    };
    let origin = Origin { door: Door::Mqtt, client: None, user: Some("u".into()), may_start: false };
    session.origin = Some(origin);
    session.will = Some(WillRecord { will: will.clone(), due: Some(77) });
    let filter = TopicFilter::new("$share/g/a/#").unwrap();
    let mut group = Group::new(3);
    group.changes = vec![
        Change::Session(sid, session),
        Change::Subscribe(sid, filter.clone(), asked(QoS::ExactlyOnce)),
        Change::Subscribe(sid, TopicFilter::new("b").unwrap(), asked(QoS::AtMostOnce)),
        Change::Received(sid, 9),
        Change::Retain(message("r", 1, 10)),
        Change::Retain(message("s", 2, 10)),
    ];
    queue(&mut group, sid, 11, &message("a/1", 100, 50));
    queue(&mut group, sid, 12, &message("a/2", 101, 5_000));
    assert!(commit(&store, group));
    let mut group = Group::new(4);
    group.changes = vec![
        Change::Unsubscribe(sid, TopicFilter::new("b").unwrap()),
        Change::Retain(plain("s", b"")),
        Change::Retain(message("r", 3, 10)),
    ];
    queue(&mut group, sid, 15, &message("a/3", 102, 8));
    assert!(commit(&store, group));
    store.stop();
    drop(store);

    let (store, recovered) = open(&scratch.storage());
    assert_eq!(store.health(), StoreHealth::Ok);
    assert_eq!((recovered.next_sid, recovered.next_batch), (5, 5));
    let [kept] = recovered.sessions.as_slice() else { panic!("{recovered:?}") };
    assert_eq!((kept.sid, kept.record.client.as_str(), kept.record.expiry), (sid, "å client", 60));
    let left = kept.record.will.as_ref().unwrap();
    assert_eq!((&left.will, left.due), (&will, Some(77)));
    assert_eq!(kept.record.origin.as_ref().unwrap().user.as_deref(), Some("u"));
    assert_eq!(kept.filters, [(filter, asked(QoS::ExactlyOnce))]);
    assert_eq!((kept.incoming.as_slice(), kept.next_qseq), ([9].as_slice(), 16));
    let [retained] = recovered.retained.as_slice() else { panic!("{recovered:?}") };
    assert_eq!((retained.topic_str(), number(retained)), ("r", 3));
    assert_eq!(read_back(&store, sid), [(11, 100), (12, 101), (15, 102)]);
    let page = store.page(sid, Wanted { from: 12, to: 14, turn: 0 }).unwrap();
    let [(row, message)] = page.rows.as_slice() else { panic!("{page:?}") };
    assert_eq!((row.qseq, row.place, page.next), (12, Place { batch: 3, index: 1 }, 15));
    assert_eq!(
        (message.topic_str(), message.payload().len(), row.ids.as_deref()),
        ("a/2", 5_000, Some([1, 2].as_slice()))
    );
}

#[cfg(unix)]
#[test]
fn its_files_are_for_their_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let scratch = Scratch::new("rights");
    let (store, _) = open(&scratch.storage());
    let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&scratch.0), 0o700);
    assert_eq!(scratch.files(), ["broker.redb", "store.ballast", "store.lock"]);
    for file in scratch.files() {
        assert_eq!(mode(&scratch.0.join(file)), 0o600);
    }
    drop(store);
}

#[test]
fn what_is_acknowledged_goes_and_what_ended_goes_altogether() {
    let (store, _) = open(&Storage::default());
    let (one, two) = (Sid(1), Sid(2));
    let mut group = Group::new(1);
    group.changes = vec![Change::Session(one, record("one", 60, None)), Change::Session(two, record("two", 60, None))];
    for qseq in 1..=3 {
        let shared = message("t", qseq, 100);
        queue(&mut group, one, qseq, &shared);
        queue(&mut group, two, qseq + 10, &shared);
    }
    assert!(commit(&store, group));
    let mut group = Group::new(2);
    queue(&mut group, one, 4, &message("t", 4, 100));
    assert!(commit(&store, group));

    // In the middle of a value nothing goes; behind it all of it.
    let (empty, full) = (store.counts(), 4);
    assert_eq!(empty, (2, 7));
    write_progress(&store, one, progress(3, 4));
    assert_eq!((store.counts(), read_back(&store, one).len()), ((2, 7), full));
    write_progress(&store, one, progress(4, 4));
    assert_eq!((store.counts(), read_back(&store, one)), ((2, 4), vec![(4, 4)]));
    write_progress(&store, one, progress(5, 4));
    assert_eq!((store.counts(), read_back(&store, one)), ((1, 3), Vec::new()));
    assert_eq!(read_back(&store, two).len(), 3, "the other session still has the shared messages");

    let mut group = Group::new(3);
    group.changes.push(Change::End(two, ClientId::new("two").unwrap()));
    queue(&mut group, two, 14, &message("t", 5, 100));
    assert!(commit(&store, group));
    assert_eq!(store.counts(), (0, 0));
    write_progress(&store, two, progress(15, 15));
    assert_eq!(store.counts(), (0, 0), "what comes for a session that ended is nobody's");
}

/// Has a progress written.
pub(super) fn write_progress(store: &Store, sid: Sid, progress: Progress) {
    store.touch(&session_at(sid, "any", progress));
    // Progress nobody waits for is written a moment later: a group behind it says when.
    std::thread::sleep(std::time::Duration::from_millis(12));
    let mut group = Group::new(1_000_000);
    group.changes.push(Change::Retain(plain("x", b"")));
    assert!(commit(store, group));
}

#[test]
fn a_promise_without_anything_to_store_waits_for_those_before_it() {
    let (store, _) = open(&Storage::default());
    let mut receivers = Vec::new();
    for batch in 1..200 {
        let mut group = Group::new(batch);
        if batch % 2 == 1 {
            group.changes.push(Change::Retain(message("r", batch, 2_000)));
        }
        receivers.push(submit(&store, group));
    }
    let last = receivers.pop().unwrap();
    assert!(matches!(last.blocking_recv(), Ok(Ok(_))));
    for receiver in &mut receivers {
        assert!(matches!(receiver.try_recv(), Ok(Ok(_))), "said later than one that came after it");
    }
}

#[test]
fn a_session_gets_its_queue_page_by_page() {
    let (store, _) = open(&Storage::default());
    let sid = Sid(1);
    let mut group = Group::new(1);
    group.changes.push(Change::Session(sid, record("one", 60, None)));
    for qseq in 1..=600 {
        queue(&mut group, sid, qseq, &message("t", qseq, 100));
    }
    assert!(commit(&store, group));
    let page = store.page(sid, Wanted { from: 1, to: 600, turn: 0 }).unwrap();
    assert_eq!((page.rows.len(), page.next), (256, 257));
    let mut group = Group::new(2);
    for qseq in 601..=604 {
        queue(&mut group, sid, qseq, &message("t", qseq, 600_000));
    }
    assert!(commit(&store, group));
    let page = store.page(sid, Wanted { from: 601, to: 604, turn: 0 }).unwrap();
    assert_eq!((page.rows.len(), page.next), (1, 602), "a megabyte at most, but one message always");
    assert_eq!(read_back(&store, sid).len(), 604);
}

#[test]
fn a_message_is_handed_on_to_another_session() {
    let (store, _) = open(&Storage::default());
    let mut group = Group::new(1);
    group.changes =
        vec![Change::Session(Sid(1), record("one", 60, None)), Change::Session(Sid(2), record("two", 60, None))];
    queue(&mut group, Sid(1), 1, &message("t", 1, 100));
    queue(&mut group, Sid(1), 2, &message("t", 2, 100));
    assert!(commit(&store, group));
    let mut group = Group::new(2);
    group.changes.push(Change::End(Sid(1), ClientId::new("one").unwrap()));
    let place = Place { batch: 1, index: 1 };
    let row = Row { qseq: 1, place, qos: QoS::AtLeastOnce, retain: false, ids: None, pool: None, origin: None };
    group.queues.push((Sid(2), vec![row]));
    assert!(commit(&store, group));
    assert_eq!((read_back(&store, Sid(2)), store.counts()), (vec![(1, 2)], (1, 1)));
}

#[test]
fn after_the_stop_nothing_is_taken() {
    let (store, _) = open(&Storage::default());
    let mut group = Group::new(1);
    group.changes.push(Change::Retain(message("r", 1, 10)));
    let before = submit(&store, group);
    store.stop();
    assert!(matches!(before.blocking_recv(), Ok(Ok(_))), "what was handed over is committed");
    let mut group = Group::new(2);
    group.changes.push(Change::Retain(message("r", 1, 10)));
    assert!(!commit(&store, group));
    store.load(&session(Sid(1), "x"));
}

#[test]
fn sessions_that_expired_are_gone_and_wills_are_not() {
    let scratch = Scratch::new("expired");
    let (store, _) = open(&scratch.storage());
    let now = crate::broker::envelope::now_ms();
    let mut with_will = record("will", 0, Some(1));
    let will = Will {
        topic: "w".into(),
        payload: bytes::Bytes::new(),
        qos: QoS::AtMostOnce,
        retain: false,
        delay: 0,
        expiry: None,
        properties: Vec::new(),
    };
    with_will.will = Some(WillRecord { will, due: None });
    let kept =
        [record("away", 60, Some(now)), record("for ever", u32::MAX, Some(1)), record("here", 1, None), with_will];
    let gone = [
        record("expired", 1, Some(now - 2_000)),
        record("expired and empty", 1, Some(now - 2_000)),
        record("ended", 0, None),
    ];
    let mut group = Group::new(1);
    for (sid, record) in (1..).map(Sid).zip(kept.into_iter().chain(gone)) {
        group.changes.push(Change::Session(sid, record));
        if sid.0 <= 5 {
            queue(&mut group, sid, 1, &message("t", 1, 100));
        }
    }
    assert!(commit(&store, group));
    drop(store);
    let (store, recovered) = open(&scratch.storage());
    let clients: Vec<_> = recovered.sessions.iter().map(|session| session.record.client.as_str()).collect();
    let expected = ["away", "for ever", "here", "will", "expired"];
    assert_eq!(clients, expected, "what is queued may be owed to a group: the stream decides");
    assert_eq!((recovered.next_sid, store.counts()), (8, (1, 5)));
}

#[test]
fn a_queue_is_handed_over_with_the_rows_that_take_its_place() {
    let place = disk::place(None);
    let (store, _) = open_at(place.clone(), &Storage::default());
    let mut group = Group::new(1);
    let filter = TopicFilter::new("$share/g/t").unwrap();
    let mut pool = record("$share/g/t", u32::MAX, None);
    pool.owner = Owner::Group(filter.clone());
    group.changes = vec![Change::Session(Sid(1), pool), Change::Session(Sid(2), record("two", 60, None))];
    for qseq in 1..=3 {
        queue(&mut group, Sid(1), qseq, &message("t", qseq, 100));
    }
    assert!(commit(&store, group));
    let mut group = Group::new(2);
    group.changes.push(Change::Advance(Sid(1), 3));
    queue(&mut group, Sid(2), 1, &message("t", 1, 100));
    queue(&mut group, Sid(2), 2, &message("t", 2, 100));
    assert!(commit(&store, group));
    drop(store);
    let (store, recovered) = open_at(place, &Storage::default());
    assert_eq!((&recovered.sessions[0].record.owner, recovered.sessions[0].progress.floor), (&Owner::Group(filter), 3));
    assert_eq!(read_back(&store, Sid(2)), [(1, 1), (2, 2)]);
    let mut group = Group::new(3);
    group.changes.push(Change::Advance(Sid(1), 4));
    assert!(commit(&store, group));
    write_progress(&store, Sid(2), progress(1, 2));
    assert_eq!(store.counts(), (1, 2), "the next commit trims what was handed over");
}

#[test]
fn what_nobody_waits_for_does_not_keep_its_space() {
    let place = disk::place(None);
    let mut registry = Registry::default();
    let (store, _) = Store::open_at(place.clone(), &Storage::default(), &mut registry).unwrap();
    let (here, away) = (Sid(1), Sid(2));
    for batch in 1..=30 {
        let mut group = Group::new(batch);
        if batch == 1 {
            group.changes =
                vec![Change::Session(here, record("here", 60, None)), Change::Session(away, record("away", 60, None))];
        }
        for number in batch * 100..batch * 100 + 40 {
            let message = message("t", number, 3_000);
            queue(&mut group, here, number, &message);
            if number % 100 == 17 {
                queue(&mut group, away, number, &message);
            }
        }
        assert!(commit(&store, group));
    }
    let before = store.bytes();
    write_progress(&store, here, progress(5_000, 4_000));
    let began = std::time::Instant::now();
    while counter(&registry, "store_compacted_batches") < 30 {
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "{} of {before} bytes", store.bytes());
        std::thread::yield_now();
    }
    let after = store.bytes();
    assert!(after < before / 20, "{after} of {before} bytes");
    let expected: Vec<_> = (1..=30).map(|batch| (batch * 100 + 17, batch * 100 + 17)).collect();
    assert_eq!((store.counts(), read_back(&store, away)), ((30, 30), expected.clone()));
    drop(store);
    let (store, _) = open_at(place, &Storage::default());
    assert_eq!((store.bytes(), store.counts(), read_back(&store, away)), (after, (30, 30), expected));
    write_progress(&store, away, progress(5_000, 4_000));
    assert_eq!((store.bytes(), store.counts()), (0, (0, 0)));
}
