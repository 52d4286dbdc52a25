//! Full disks, files that others hold, files that are damaged: the process goes on, and says what it does.

use std::time::{Duration, Instant};

use super::{
    disks::{Disk, Random},
    *,
};
use crate::broker::{
    message::{Door, Origin},
    peer::Peer,
    session::{Marks, Parcel, Session},
    settings::QueuePolicy,
};

const SID: Sid = Sid(1);

/// A group with one message for the session.
fn group(batch: u64, length: usize) -> Group {
    let mut group = Group::new(batch);
    if batch == 1 {
        group.changes.push(Change::Session(SID, record("one", 600, None)));
    }
    queue(&mut group, SID, batch, &message("t", batch, length));
    group
}

/// Hands over one group after the other until one is taken; how many were refused.
fn until_taken(store: &Store, batch: &mut u64) -> u64 {
    let (began, first) = (Instant::now(), *batch);
    loop {
        *batch += 1;
        if commit(store, group(*batch, 1_000)) {
            return *batch - first - 1;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "the store does not recover");
        std::thread::yield_now();
    }
}

#[test]
fn a_full_disk_refuses_and_recovers_without_a_restart() {
    let disk = Disk::default();
    let (store, _) = open_at(disk.place(), &Storage::default());
    let mut taken = Vec::new();
    let mut batch = 0;
    while batch < 10 {
        batch += 1;
        assert!(commit(&store, group(batch, 1_000)));
        taken.push(batch);
    }
    disk.set_room(disk.image().len() as u64);
    // It takes what fits; then a group is refused, and its subscription is owed.
    loop {
        batch += 1;
        let mut next = group(batch, 100_000);
        let filter = crate::names::TopicFilter::new(format!("f/{batch}")).unwrap();
        next.changes.push(Change::Subscribe(SID, filter, asked(QoS::AtLeastOnce)));
        if !commit(&store, next) {
            break;
        }
        taken.push(batch);
        assert!(batch < 1_000, "the disk does not fill up");
    }
    let refused = batch;
    assert!(commit(&store, Group::new(0)), "what stores nothing passes");
    disk.set_room(0);
    until_taken(&store, &mut batch);
    taken.push(batch);
    let expected: Vec<_> = taken.iter().map(|number| (*number, *number)).collect();
    assert_eq!(read_back(&store, SID), expected, "what was refused is not there, what was promised is");
    drop(store);
    let (store, recovered) = open_at(disk.place(), &Storage::default());
    assert_eq!(read_back(&store, SID), expected);
    let filters = &recovered.sessions[0].filters;
    assert!(
        filters.iter().any(|(filter, _)| filter.as_str() == format!("f/{refused}")),
        "what memory had is written later"
    );
}

#[test]
fn a_commit_whose_end_failed_is_taken_back() {
    let mut seen = 0;
    for operations in 0..40 {
        let disk = Disk::default();
        let (store, _) = open_at(disk.place(), &Storage::default());
        assert!(commit(&store, group(1, 1_000)));
        disk.cut_after(operations);
        let mut second = group(2, 1_000);
        second.changes.push(Change::Received(SID, 5));
        let kept = commit(&store, second);
        disk.power_on();
        let mut batch = 2;
        until_taken(&store, &mut batch);
        let expected: Vec<_> =
            [1, 2, batch].into_iter().filter(|number| kept || *number != 2).map(|n| (n, n)).collect();
        assert_eq!(read_back(&store, SID), expected, "after {operations} operations");
        drop(store);
        let (_, recovered) = open_at(disk.place(), &Storage::default());
        assert_eq!(recovered.sessions[0].incoming.is_empty(), !kept);
        seen += u64::from(!kept);
    }
    assert!(seen > 5, "the power went during {seen} commits only");
}

#[test]
fn max_bytes_refuses_until_it_drains() {
    let settings = Storage { max_bytes: 200_000, ..Storage::default() };
    let (store, _) = open(&settings);
    let mut batch = 0;
    loop {
        batch += 1;
        if !commit(&store, group(batch, 10_000)) {
            break;
        }
    }
    assert!((18..25).contains(&batch), "{batch}");
    assert_eq!(store.health(), StoreHealth::Full);
    let mut change = Group::new(batch);
    change.changes.push(Change::Subscribe(SID, crate::names::TopicFilter::new("a").unwrap(), asked(QoS::AtMostOnce)));
    assert!(commit(&store, change), "what does not grow by messages is taken");
    super::basics::write_progress(&store, SID, Progress { floor: 5, sent: 5, ..Progress::default() });
    assert!(commit(&store, group(batch + 1, 10_000)));
    assert_eq!(store.health(), StoreHealth::Ok);
}

/// Queues 30 messages where 10 have room, position 3 and below being in flight.
fn with_policy(policy: QueuePolicy) -> Vec<u64> {
    let (store, _) = open(&Storage { session_messages: 10, policy, ..Storage::default() });
    assert!(commit(&store, group(1, 100)));
    super::basics::write_progress(&store, SID, Progress { floor: 1, sent: 3, ..Progress::default() });
    for batch in 2..=30 {
        assert!(commit(&store, group(batch, 100)));
    }
    read_back(&store, SID).into_iter().map(|(position, _)| position).collect()
}

#[test]
fn the_queue_of_a_session_has_an_end() {
    assert_eq!(with_policy(QueuePolicy::DropOldest), [vec![1, 2, 3], (24..=30).collect()].concat());
    let oldest: Vec<_> = (1..=10).collect();
    assert_eq!((with_policy(QueuePolicy::DropNew), with_policy(QueuePolicy::Reject)), (oldest.clone(), oldest));
}

#[test]
fn a_store_in_use_is_left_alone() {
    let scratch = Scratch::new("in-use");
    let (store, _) = open(&scratch.storage());
    assert!(commit(&store, group(1, 10)));
    let second = Store::open(&scratch.storage(), &mut Registry::default());
    let error = second.err().unwrap();
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    assert!(error.to_string().contains(scratch.0.to_str().unwrap()));
    assert_eq!(scratch.files(), ["broker.redb", "store.ballast", "store.lock"]);
    assert!(commit(&store, group(2, 10)));
}

#[test]
fn what_cannot_be_opened_is_set_aside_and_never_overwritten() {
    let scratch = Scratch::new("aside");
    std::fs::create_dir_all(&scratch.0).unwrap();
    for damaged in 1..=2 {
        std::fs::write(scratch.0.join("broker.redb"), vec![0x5a; 20_000 * damaged]).unwrap();
        let (store, recovered) = open(&scratch.storage());
        let StoreHealth::SetAside(file) = store.health() else { panic!("{:?}", store.health()) };
        assert_eq!(std::fs::read(&file).unwrap(), vec![0x5a; 20_000 * damaged]);
        assert!(recovered.sessions.is_empty());
        assert!(commit(&store, group(1, 10)));
        drop(store);
    }
    assert_eq!(scratch.files().iter().filter(|name| name.starts_with("broker.redb.bad-")).count(), 2);
}

#[test]
fn a_store_that_was_not_finished_is_made_anew() {
    let scratch = Scratch::new("unfinished");
    std::fs::create_dir_all(&scratch.0).unwrap();
    std::fs::write(scratch.0.join("broker.redb.new"), vec![1; 5_000]).unwrap();
    let (store, _) = open(&scratch.storage());
    assert_eq!(store.health(), StoreHealth::Ok);
    assert_eq!(scratch.files(), ["broker.redb", "store.ballast", "store.lock"]);
}

#[test]
fn a_store_of_a_later_version_is_left_alone() {
    let scratch = Scratch::new("later");
    drop(open(&scratch.storage()));
    let database = redb::Database::open(scratch.0.join("broker.redb")).unwrap();
    super::super::tables::transact(&database, 0, |tables| {
        tables.meta()?.insert("format", [9, 1, 2, 3, 4].as_slice())?;
        Ok(())
    })
    .unwrap();
    drop(database);
    let error = Store::open(&scratch.storage(), &mut Registry::default()).err().unwrap();
    assert!(matches!(error, StoreError::Newer { found: 9, known: 2, .. }), "{error}");
    assert_eq!(scratch.files(), ["broker.redb", "store.ballast", "store.lock"]);
}

/// What an older program wrote is taken up as it is; from then on that program would refuse it.
#[test]
fn a_store_of_the_first_format_is_taken_up() {
    let scratch = Scratch::new("first");
    let (store, _) = open(&scratch.storage());
    assert!(commit(&store, group(1, 3)));
    drop(store);
    let format = |change: Option<u8>| {
        let database = redb::Database::open(scratch.0.join("broker.redb")).unwrap();
        super::super::tables::transact(&database, 0, |tables| {
            let mut record = redb::ReadableTable::get(&tables.meta()?, "format")?.unwrap().value().to_vec();
            record[0] = change.unwrap_or(record[0]);
            tables.meta()?.insert("format", record.as_slice())?;
            Ok(record[0])
        })
        .unwrap()
    };
    assert_eq!(format(Some(1)), 1);
    let (store, recovered) = open(&scratch.storage());
    assert_eq!((read_back(&store, SID), recovered.sessions.len()), (vec![(1, 1)], 1));
    drop((store, recovered));
    assert_eq!(format(None), 2);
}

/// The image of a closed store with sessions, queues and retained messages; the messages' numbers are positions, the retained ones' topics.
fn image() -> Vec<u8> {
    let disk = Disk::default();
    let (store, _) = open_at(disk.place(), &Storage::default());
    for batch in 1..=40 {
        let mut next = group(batch, 300);
        next.changes.push(Change::Retain(message(&format!("r/{batch}"), batch, 50)));
        next.changes.push(Change::Received(SID, u16::try_from(batch).unwrap()));
        assert!(commit(&store, next));
    }
    drop(store);
    disk.image()
}

#[test]
fn a_flipped_bit_never_changes_a_message() {
    let count = std::env::var("BUTLER_STORE_FLIPS").map_or(250, |count| count.parse().unwrap());
    let (image, mut random) = (image(), Random(3));
    // Places that are written at all, and the header.
    let places: Vec<_> = (0..image.len()).filter(|place| image[*place] != 0 || *place < 512).collect();
    let (mut opened, mut refused, mut left_out) = (0, 0, 0);
    for _ in 0..count {
        let place = places[usize::try_from(random.below(places.len() as u64)).unwrap()];
        let mut flipped = image.clone();
        flipped[place] ^= 1_u8 << random.below(8);
        let found = Store::open_at(Disk::of(flipped).place(), &Storage::default(), &mut Registry::default());
        let Ok((store, recovered)) = found else {
            refused += 1;
            continue;
        };
        opened += 1;
        for kept in &recovered.retained {
            assert_eq!(kept.topic_str(), format!("r/{}", number(kept)), "byte {place}");
        }
        let mut from = 1;
        while from <= 40 {
            let Ok(page) = store.page(SID, Wanted { from, to: 40, turn: 0 }) else { break };
            for (row, message) in &page.rows {
                assert_eq!((row.qseq, message.topic_str()), (number(message), "t"), "byte {place}");
            }
            left_out += 40 - page.rows.len();
            from = page.next;
        }
        // It may fail; it may not bring down anything.
        let _ = commit(&store, group(100, 10));
    }
    println!("{opened} opened, {refused} would be set aside, {left_out} messages left out");
    assert!(opened > 0 && refused > 0);
}

/// A client that reads its queue.
struct Client {
    session: Arc<Session>,
    peer: Arc<Peer>,
}

impl Client {
    fn of(kept: &RecoveredSession) -> Self {
        let origin = Origin { door: Door::Internal, client: None, user: None, may_start: false };
        let (session, peer) = (Session::recovered(kept, Marks::of(1 << 20, 1_000)), Peer::new(origin, None));
        session.attach(&peer);
        Self { session: Arc::new(session), peer }
    }

    /// What it gets now; a page is asked for if one is needed.
    fn take(&self, store: &Store) -> Vec<u64> {
        let mut out = Vec::new();
        let taken = self.session.take(self.peer.id, usize::MAX, 100, &mut out).unwrap();
        if taken.page {
            store.load(&self.session);
        }
        let numbers = out.iter().map(|parcel| match parcel {
            Parcel::Publish { entry, .. } => number(&entry.message),
            Parcel::PubRel(_) => panic!("nothing was released"),
        });
        numbers.collect()
    }
}

/// Waits until something holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(60), "{what}");
        std::thread::yield_now();
    }
}

/// A store on a disk with one message whose places (those of old pages among them) are named, opened anew, so that nothing of it is in memory.
fn with_a_place() -> (Disk, Vec<u64>, Arc<Store>, Client) {
    let disk = Disk::default();
    let (store, _) = open_at(disk.place(), &Storage::default());
    let mut first = Group::new(1);
    first.changes.push(Change::Session(SID, record("one", 600, None)));
    first.changes.push(Change::Session(Sid(2), record("two", 600, None)));
    queue(&mut first, SID, 1, &message("here", 1, 20_000));
    assert!(commit(&store, first));
    // Enough for the table to have a page of its own for that message.
    for batch in 2..=9 {
        assert!(commit(&store, for_the_other(batch, 20_000)));
    }
    drop(store);
    let image = disk.image();
    let (head, body) = (1_u64.to_be_bytes(), [b'.'; 1_000]);
    let places =
        (0_u64..).zip(image.windows(1_008)).filter(|(_, bytes)| bytes.starts_with(&head) && bytes.ends_with(&body));
    let places: Vec<_> = places.map(|(place, _)| place).collect();
    assert!(!places.is_empty());
    let (store, recovered) = open_at(disk.place(), &Storage::default());
    let client = Client::of(&recovered.sessions[0]);
    (disk, places, store, client)
}

/// A group for the other session.
fn for_the_other(batch: u64, length: usize) -> Group {
    let mut group = Group::new(batch);
    queue(&mut group, Sid(2), batch, &message("t", batch, length));
    group
}

#[test]
fn a_queue_that_cannot_be_read_is_told_until_it_can_be_read() {
    let (disk, places, store, client) = with_a_place();
    disk.set_bad(&places);
    assert_eq!(client.take(&store), [0_u64; 0]);
    until("it is told", || matches!(store.health(), StoreHealth::Unreadable { .. }));
    let StoreHealth::Unreadable { client: whose, others, why, .. } = store.health() else { unreachable!() };
    assert_eq!((whose.as_str(), others), ("one", 0));
    assert!(why.contains("a bad sector"), "{why}");
    // The database refuses everything after such an error: others do not feel it.
    let mut batch = 10;
    until("the others are served", || {
        batch += 1;
        commit(&store, for_the_other(batch, 100))
    });
    assert_eq!(client.take(&store), [0_u64; 0], "nothing is left out");
    disk.set_bad(&[]);
    until("it is read", || store.health() == StoreHealth::Ok);
    assert_eq!(client.take(&store), [1]);
}

/// With `BUTLER_SMALL_DISK`, a directory on a file system of some 40 MB, for example `mount -t tmpfs -o size=40m tmpfs <directory>`.
#[test]
fn a_small_file_system_fills_up_drains_and_serves_again() {
    let Some(directory) = std::env::var_os("BUTLER_SMALL_DISK") else { return };
    let directory = std::path::PathBuf::from(directory).join("store");
    let _ = std::fs::remove_dir_all(&directory);
    let (store, _) = open(&Storage { directory: Some(directory.clone()), ..Storage::default() });
    let mut batch = 0;
    loop {
        batch += 1;
        if !commit(&store, group(batch, 200_000)) {
            break;
        }
        assert!(batch < 5_000, "the file system is not small");
    }
    println!("{batch} messages of 200 kB; {:?}", store.health());
    assert!(commit(&store, Group::new(0)), "what stores nothing passes");
    assert_eq!(read_back(&store, SID).len() as u64, batch - 1);
    super::basics::write_progress(&store, SID, Progress { floor: batch / 2, sent: batch, ..Progress::default() });
    let refused = until_taken(&store, &mut batch);
    println!("{refused} refused until it took messages again");
    assert_eq!(store.health(), StoreHealth::Ok);
    drop(store);
    let (_, recovered) = open(&Storage { directory: Some(directory.clone()), ..Storage::default() });
    assert_eq!(recovered.sessions[0].next_qseq, batch + 1);
    std::fs::remove_dir_all(&directory).unwrap();
}
