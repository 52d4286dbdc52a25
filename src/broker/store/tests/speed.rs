//! What the store gives on the disk at hand, beside what the disk gives. By hand, in release:
//! `BUTLER_STORE_SPEED=<directory on the disk> cargo test --release --lib store::tests::speed -- --nocapture`

use std::{
    collections::VecDeque,
    io::{Seek as _, Write as _},
    time::{Duration, Instant},
};

use super::*;
use crate::broker::session::{Marks, Session};

const LENGTH: usize = 250;
const TIME: Duration = Duration::from_secs(2);

/// Syncs of 4 KiB written over and over, per second.
fn raw(directory: &std::path::Path) -> f64 {
    let mut file = std::fs::File::create(directory.join("raw")).unwrap();
    file.write_all(&[1; 1 << 20]).unwrap();
    file.sync_all().unwrap();
    let (began, mut count) = (Instant::now(), 0_u32);
    while began.elapsed() < TIME {
        file.seek(std::io::SeekFrom::Start(u64::from(count % 200) * 4_096)).unwrap();
        file.write_all(&[2; 4_096]).unwrap();
        file.sync_data().unwrap();
        count += 1;
    }
    std::fs::remove_file(directory.join("raw")).unwrap();
    f64::from(count) / began.elapsed().as_secs_f64()
}

/// A store with sessions, and the numbers of what comes next.
struct Bench {
    store: Arc<Store>,
    sessions: u64,
    batch: u64,
    position: u64,
    messages: Vec<Arc<Message>>,
}

impl Bench {
    fn new(directory: &std::path::Path, sessions: u64) -> Self {
        let (store, _) = open(&Storage { directory: Some(directory.join("store")), ..Storage::default() });
        let mut group = Group::new(1);
        for sid in 1..=sessions {
            group.changes.push(Change::Session(Sid(sid), record(&format!("c{sid}"), 600, None)));
        }
        assert!(commit(&store, group));
        let messages = (0..1_000).map(|number| message("a/topic/of/some/length", number, LENGTH)).collect();
        Self { store, sessions, batch: 1, position: 0, messages }
    }

    fn group(&mut self, messages: usize) -> Group {
        self.batch += 1;
        let mut group = Group::new(self.batch);
        group.messages = self.messages.iter().take(messages).cloned().collect();
        let row = |index: usize| Row {
            qseq: self.position + index as u64 + 1,
            place: Place { batch: self.batch, index: u32::try_from(index).unwrap() },
            qos: QoS::AtLeastOnce,
            retain: false,
            ids: None,
            pool: None,
            origin: None,
        };
        let rows: Vec<_> = (0..messages).map(row).collect();
        group.queues = (1..=self.sessions).map(|sid| (Sid(sid), rows.clone())).collect();
        self.position += messages as u64;
        group
    }

    /// Every client has acknowledged everything.
    fn acknowledge(&self) {
        for sid in (1..=self.sessions).map(Sid) {
            let kept = RecoveredSession {
                sid,
                record: *record("any", 60, None),
                filters: Vec::new(),
                progress: Progress { floor: self.position + 1, sent: self.position, ..Progress::default() },
                incoming: Vec::new(),
                next_qseq: 1,
            };
            self.store.touch(&Arc::new(Session::recovered(&kept, Marks::of(1 << 20, 1_000))));
        }
    }

    /// Groups per second with so many on their way.
    fn run(&mut self, messages: usize, window: usize, acknowledged: bool) -> f64 {
        let (began, mut groups) = (Instant::now(), 0_u32);
        let mut under_way = VecDeque::new();
        while began.elapsed() < TIME {
            let group = self.group(messages);
            under_way.push_back(submit(&self.store, group));
            if under_way.len() >= window {
                assert!(under_way.pop_front().unwrap().blocking_recv().unwrap().is_ok());
                groups += 1;
                if acknowledged {
                    self.acknowledge();
                }
            }
        }
        f64::from(groups) / began.elapsed().as_secs_f64()
    }
}

fn fresh(directory: &std::path::Path) {
    let _ = std::fs::remove_dir_all(directory.join("store"));
}

#[test]
fn speed() {
    let Some(directory) = std::env::var_os("BUTLER_STORE_SPEED").map(std::path::PathBuf::from) else { return };
    fresh(&directory);
    let raw = raw(&directory);
    println!("the disk: {raw:.0} syncs of 4 KiB per second");
    let table =
        [(1, 1, 1), (1, 10, 1), (1, 100, 1), (1, 1_000, 1), (1, 1, 50), (1, 200, 1), (10, 200, 1), (20, 200, 1)];
    println!(
        "sessions | messages/group | groups on their way | acknowledged | groups/s | messages/s | of the disk's rate"
    );
    for (sessions, messages, window) in table {
        for acknowledged in [false, true] {
            fresh(&directory);
            let rate = Bench::new(&directory, sessions).run(messages, window, acknowledged);
            let (per_message, share) = (rate * messages as f64, rate / raw);
            println!("{sessions} | {messages} | {window} | {acknowledged} | {rate:.0} | {per_message:.0} | {share:.2}");
        }
    }
    for messages in [1, 20, 200] {
        fresh(&directory);
        let mut bench = Bench::new(&directory, 1);
        for _ in 0..200_000 / messages {
            let group = bench.group(messages);
            drop(submit(&bench.store, group));
        }
        let group = bench.group(messages);
        assert!(commit(&bench.store, group));
        // As a power cut leaves it.
        let _ = std::fs::remove_dir_all(directory.join("cut"));
        std::fs::create_dir_all(directory.join("cut")).unwrap();
        std::fs::copy(directory.join("store/broker.redb"), directory.join("cut/broker.redb")).unwrap();
        drop(bench);
        for name in ["store", "cut"] {
            let began = Instant::now();
            let (store, _) = open(&Storage { directory: Some(directory.join(name)), ..Storage::default() });
            let took = began.elapsed();
            println!("reopen ({name}) with {:?} (batches, rows) queued: {took:?}", store.counts());
        }
    }
    fresh(&directory);
    std::fs::remove_dir_all(directory.join("cut")).unwrap();
}
