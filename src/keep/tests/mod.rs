//! The file: order, group commit, what it does when somebody else has it, and when it is damaged.

pub(crate) mod disks;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use parking_lot::{Condvar, Mutex};
use prometheus_client::registry::Registry;
use redb::{StorageBackend, backends::InMemoryBackend};

use self::disks::{Disk, Random};
use super::{Change, Keep, KeepError, KeepHealth, disk::Place, inbox::ROOM, record::Pairs};
use crate::telemetry::metrics;

/// A directory that goes with its owner.
pub(crate) struct Scratch(pub(crate) PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sense-butler-keep-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        let _ = fs::remove_dir_all(&path);
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open(directory: &Path) -> Keep {
    Keep::open(Some(directory), &mut Registry::default()).unwrap()
}

fn put(key: &str, value: &str) -> Change {
    Change::Put(key.into(), value.into())
}

fn pair(key: &str, value: &str) -> (Vec<u8>, Vec<u8>) {
    (key.into(), value.into())
}

/// A disk that waits at its first sync after it was closed, until it is opened.
#[derive(Debug, Default)]
struct Gate {
    closed: Mutex<bool>,
    /// Somebody stands before it.
    reached: Mutex<bool>,
    change: Condvar,
}

impl Gate {
    fn close(&self) {
        *self.closed.lock() = true;
    }

    fn open(&self) {
        *self.closed.lock() = false;
        self.change.notify_all();
    }

    fn pass(&self) {
        let mut closed = self.closed.lock();
        while *closed {
            *self.reached.lock() = true;
            self.change.notify_all();
            self.change.wait(&mut closed);
        }
    }

    fn wait_until_reached(&self) {
        let mut closed = self.closed.lock();
        while !*self.reached.lock() {
            self.change.wait(&mut closed);
        }
    }
}

#[derive(Debug)]
struct Gated(Arc<InMemoryBackend>, Arc<Gate>);

impl StorageBackend for Gated {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }
    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.1.pass();
        Ok(())
    }
    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }
}

fn gated() -> (Keep, Arc<Gate>, Registry) {
    let (memory, gate, mut registry) =
        (Arc::new(InMemoryBackend::new()), Arc::new(Gate::default()), Registry::default());
    let place = {
        let gate = Arc::clone(&gate);
        Place::Backend(Arc::new(move || Ok(Box::new(Gated(Arc::clone(&memory), Arc::clone(&gate))))))
    };
    let keep = Keep::open_at(place, &mut registry).unwrap();
    (keep, gate, registry)
}

#[tokio::test]
async fn what_arrives_during_a_commit_is_the_next_one_in_the_order_of_calls() {
    let (keep, gate, registry) = gated();
    let shelf = keep.shelf("a");
    gate.close();
    let first = shelf.write(vec![put("k", "0")]);
    gate.wait_until_reached();
    // The order of calls is the order on disk, whatever order the futures are asked in.
    let mut writes: Vec<_> = (1..=100).map(|number| shelf.write(vec![put("k", &number.to_string())])).collect();
    shelf.write_later(vec![put("later", "1"), Change::Delete(b"nothing".to_vec())]);
    gate.open();
    writes.reverse();
    for write in writes {
        write.await.unwrap();
    }
    first.await.unwrap();
    keep.shelf("b").write(vec![]).await.unwrap();
    assert_eq!(shelf.read_all().unwrap(), [pair("k", "100"), pair("later", "1")]);
    let text = metrics::encode(&registry);
    assert!(text.contains("sense_butler_keep_commits_total 3"), "one, then all hundred, then the last: {text}");
    assert!(text.contains("sense_butler_keep_queued_bytes 0"), "{text}");
}

#[tokio::test]
async fn more_than_there_is_room_for_is_refused_at_once() {
    let (keep, gate, registry) = gated();
    let shelf = keep.shelf("a");
    gate.close();
    let first = shelf.write(vec![put("k", "0")]);
    gate.wait_until_reached();
    let large = |key: u8| Change::Put(vec![key], vec![0; ROOM / 4]);
    let taken: Vec<_> = (0..3).map(|key| shelf.write(vec![large(key)])).collect();
    assert_eq!(shelf.write(vec![large(3)]).await, Err(KeepError::Busy));
    gate.open();
    first.await.unwrap();
    for write in taken {
        write.await.unwrap();
    }
    shelf.write(vec![large(3)]).await.unwrap();
    assert_eq!(shelf.read_all().unwrap().len(), 5);
    let text = metrics::encode(&registry);
    assert!(text.contains("sense_butler_keep_failed_writes_total{reason=\"busy\"} 1"), "{text}");
}

#[tokio::test]
async fn kept_over_a_restart_and_closed_after_the_stop() {
    let scratch = Scratch::new();
    let keep = open(&scratch.0);
    let (one, two) = (keep.shelf("one"), keep.shelf("two"));
    assert_eq!(one.read_all(), Ok(vec![]));
    one.write(vec![put("b", "2"), put("a", "1"), put("c", "3")]).await.unwrap();
    two.write(vec![put("a", "other")]).await.unwrap();
    let last = one.write(vec![Change::Delete(b"c".to_vec()), put("b", "")]);
    keep.stop();
    assert_eq!(last.await, Ok(()), "handed in before the stop");
    assert_eq!(one.write(vec![put("d", "4")]).await, Err(KeepError::Stopped));
    assert_eq!(one.read_all(), Err(KeepError::Stopped));
    let keep = open(&scratch.0);
    assert_eq!(keep.shelf("one").read_all().unwrap(), [pair("a", "1"), pair("b", "")]);
    assert_eq!(keep.shelf("two").read_all().unwrap(), [pair("a", "other")]);
    assert_eq!(keep.health(), KeepHealth::Ok);
}

#[tokio::test]
async fn memory_keeps_as_long_as_it_lives() {
    let keep = Keep::open(None, &mut Registry::default()).unwrap();
    keep.shelf("a").write(vec![put("k", "v")]).await.unwrap();
    assert_eq!(keep.shelf("a").read_all().unwrap(), [pair("k", "v")]);
}

#[test]
fn a_directory_has_one_owner() {
    let scratch = Scratch::new();
    let keep = open(&scratch.0);
    let second = Keep::open(Some(&scratch.0), &mut Registry::default());
    let error = second.unwrap_err();
    assert!(matches!(error, KeepError::InUse { .. }), "{error}");
    assert!(error.to_string().contains("another sense-butler"), "{error}");
    keep.stop();
    open(&scratch.0);
}

#[cfg(unix)]
#[test]
fn the_file_is_its_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let scratch = Scratch::new();
    drop(open(&scratch.0));
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&scratch.0), 0o700);
    assert_eq!(mode(&scratch.0.join("sense.redb")), 0o600);
    assert_eq!(mode(&scratch.0.join("sense.lock")), 0o600);
}

#[test]
fn a_directory_that_cannot_be_is_said() {
    let scratch = Scratch::new();
    fs::write(&scratch.0, "a file").unwrap();
    let error = Keep::open(Some(&scratch.0.join("below")), &mut Registry::default()).unwrap_err();
    assert!(matches!(error, KeepError::Unusable { .. }), "{error}");
    fs::remove_file(&scratch.0).unwrap();
}

#[tokio::test]
async fn what_cannot_be_opened_is_set_aside_and_said() {
    let scratch = Scratch::new();
    fs::create_dir_all(&scratch.0).unwrap();
    let file = scratch.0.join("sense.redb");
    fs::write(&file, "this is no database, whatever it says").unwrap();
    let mut registry = Registry::default();
    let keep = Keep::open(Some(&scratch.0), &mut registry).unwrap();
    let KeepHealth::SetAside(aside) = keep.health() else { panic!("{:?}", keep.health()) };
    assert_eq!(fs::read_to_string(&aside).unwrap(), "this is no database, whatever it says");
    assert!(aside.file_name().unwrap().to_str().unwrap().starts_with("sense.redb.bad-"), "{aside:?}");
    assert!(keep.health().to_string().contains("set aside"), "{}", keep.health());
    keep.shelf("a").write(vec![put("k", "v")]).await.unwrap();
    assert!(metrics::encode(&registry).contains("sense_butler_keep_set_aside_total 1"));
    keep.stop();
    assert_eq!(open(&scratch.0).shelf("a").read_all().unwrap(), [pair("k", "v")]);
}

/// A file with a few shelves, stopped in order.
fn written() -> (Vec<u8>, Pairs) {
    let scratch = Scratch::new();
    let keep = open(&scratch.0);
    for number in 0..200 {
        keep.shelf("a").write_later(vec![put(&format!("{number:04}"), &"value ".repeat(number % 40))]);
        keep.shelf("b").write_later(vec![put("k", &number.to_string())]);
    }
    keep.stop();
    let keep = open(&scratch.0);
    let pairs = keep.shelf("a").read_all().unwrap();
    assert_eq!(pairs.len(), 200);
    keep.stop();
    (fs::read(scratch.0.join("sense.redb")).unwrap(), pairs)
}

/// What a file of these bytes gives; `None`: it would be set aside.
fn reopened(image: &[u8]) -> Option<Pairs> {
    let memory = Arc::new(InMemoryBackend::new());
    memory.set_len(image.len() as u64).unwrap();
    memory.write(0, image).unwrap();
    let gate = Arc::new(Gate::default());
    let place = Place::Backend(Arc::new(move || Ok(Box::new(Gated(Arc::clone(&memory), Arc::clone(&gate))))));
    match Keep::open_at(place, &mut Registry::default()) {
        Ok(keep) => Some(keep.shelf("a").read_all().unwrap()),
        Err(KeepError::Unusable { .. }) => None,
        Err(other) => panic!("{other}"),
    }
}

/// Whatever byte of the file is wrong: what was written is there as it was written, or the file is set aside. Nothing in between, and no end
/// of the process.
#[test]
fn a_damaged_file_gives_what_was_written_or_is_set_aside() {
    let (image, pairs) = written();
    assert_eq!(reopened(&image).as_ref(), Some(&pairs));
    let used = image.iter().rposition(|byte| *byte != 0).unwrap();
    let first_pages = (0..1_024).chain((1_024..16_384).step_by(29));
    let places: Vec<_> = first_pages.chain((16_384..used).step_by(1_009)).filter(|at| *at < image.len()).collect();
    assert!(places.len() > 1_500, "only {} places", places.len());
    let (mut whole, mut aside) = (0, 0);
    for at in places {
        let mut flipped = image.clone();
        flipped[at] ^= 0xff;
        match reopened(&flipped) {
            Some(found) if found == pairs => whole += 1,
            // One commit back is what a crash may leave.
            Some(found) => panic!("byte {at}: {} pairs that were never so", found.len()),
            None => aside += 1,
        }
    }
    assert!(whole > 0 && aside > 0, "{whole} read, {aside} set aside");
    let mut cut = 0;
    for length in (0..image.len()).step_by(image.len() / 97) {
        let found = reopened(&image[..length]);
        assert!(found.is_none_or(|found| found == pairs || (length == 0 && found.is_empty())), "cut at {length}");
        cut += 1;
    }
    assert!(cut >= 97, "{cut}");
}

/// Writes until one is taken; how many failed before.
async fn until_taken(keep: &Keep, change: Change) -> u32 {
    let (began, mut failed) = (std::time::Instant::now(), 0);
    while let Err(error) = keep.shelf("a").write(vec![change.clone()]).await {
        assert!(matches!(error, KeepError::Failing { .. }), "{error}");
        assert!(began.elapsed().as_secs() < 60, "it does not recover: {error}");
        failed += 1;
        tokio::task::yield_now().await;
    }
    failed
}

#[tokio::test]
async fn a_full_disk_fails_writes_with_a_reason_and_recovers_by_itself() {
    let disk = Disk::default();
    let mut registry = Registry::default();
    let keep = Keep::open_at(disk.place(), &mut registry).unwrap();
    keep.shelf("a").write(vec![put("kept", "v")]).await.unwrap();
    disk.set_room(disk.image().len() as u64);
    let mut number = 0;
    let error = loop {
        let change = Change::Put(format!("{number:03}").into(), vec![7; 500_000]);
        match keep.shelf("a").write(vec![change]).await {
            Ok(()) => number += 1,
            Err(error) => break error,
        }
    };
    assert!(error.to_string().contains("Check the disk"), "{error}");
    assert!(matches!(keep.health(), KeepHealth::Failing { .. }), "{:?}", keep.health());
    disk.set_room(0);
    until_taken(&keep, put("after", "v")).await;
    assert_eq!(keep.health(), KeepHealth::Ok);
    let pairs = keep.shelf("a").read_all().unwrap();
    assert_eq!(pairs.len(), number + 2, "what failed is not there");
    assert!(metrics::encode(&registry).contains("sense_butler_keep_failed_writes_total{reason=\"failing\"}"));
}

/// The power goes at every moment of a few commits: what was said to be there is there, what was said to have failed is not, also when the
/// end of a commit failed and the disk had it all the same.
#[tokio::test]
async fn what_failed_is_not_there_and_what_succeeded_is() {
    let (mut cut, mut failed) = (0, 0);
    for operations in 0..60 {
        let disk = Disk::default();
        let keep = Keep::open_at(disk.place(), &mut Registry::default()).unwrap();
        let shelf = keep.shelf("a");
        shelf.write(vec![put("k", "before")]).await.unwrap();
        disk.cut_after(operations);
        let mut expected = vec![pair("k", "before")];
        for number in 0..4_u8 {
            let value = format!("after {number}");
            match shelf.write(vec![put("k", &value), put(&value, "v")]).await {
                Ok(()) => {
                    expected.retain(|(key, _)| key != b"k");
                    expected.extend([pair("k", &value), pair(&value, "v")]);
                }
                Err(_) => failed += 1,
            }
        }
        cut += u32::from(disk.is_off());
        disk.power_on();
        until_taken(&keep, put("z", "")).await;
        expected.push(pair("z", ""));
        expected.sort();
        assert_eq!(shelf.read_all().unwrap(), expected, "cut after {operations}");
        keep.stop();
    }
    assert!(cut > 10 && failed > 10, "{cut} cuts, {failed} failed writes");
}

/// The power goes for good: what was said to be on disk is found by the next process, whatever of the rest the disk kept.
#[tokio::test]
async fn a_power_cut_costs_nothing_that_was_acknowledged() {
    let mut random = Random(20_261_123);
    let mut cuts = 0;
    for round in 0..60 {
        let disk = Disk::default();
        let keep = Keep::open_at(disk.place(), &mut Registry::default()).unwrap();
        disk.cut_after(random.below(80));
        let mut acknowledged = 0;
        for number in 0..20_u32 {
            match keep.shelf("a").write(vec![Change::Put(number.to_be_bytes().to_vec(), vec![1; 100])]).await {
                Ok(()) => acknowledged = number + 1,
                Err(_) => break,
            }
        }
        cuts += u32::from(disk.is_off());
        let image = disk.after_the_cut(&mut random);
        keep.stop();
        let found = Keep::open_at(Disk::of(image).place(), &mut Registry::default()).unwrap();
        let found = found.shelf("a").read_all().unwrap().len();
        assert!(found >= acknowledged as usize, "round {round}: {found} of {acknowledged}");
        assert!(found <= acknowledged as usize + 1, "round {round}: {found} of {acknowledged}");
    }
    assert!(cuts > 30, "{cuts}");
}
