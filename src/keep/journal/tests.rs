//! The journal: what is found, the bounds, restarts, a disk that fails, and all of it against a model.

use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;

use super::*;
use crate::{keep::tests::disks::Disk, telemetry::metrics::encode};

/// Small bounds.
const BOUNDS: JournalSettings = JournalSettings {
    enable: true,
    sessions: false,
    max_entries: 20,
    max_age: Duration::from_secs(60),
    max_bytes: 1 << 20,
};

/// A file, and a clock that is set by hand.
struct Scene {
    keep: Keep,
    now: Arc<AtomicU64>,
    settings: JournalSettings,
}

/// A life of the program.
struct Life {
    journal: Journal,
    sink: Sink,
    scribe: Scribe,
    registry: Registry,
}

impl Scene {
    fn new(keep: Keep, settings: JournalSettings) -> Self {
        Self { keep, now: Arc::new(AtomicU64::new(1_000_000)), settings }
    }

    fn in_memory(settings: JournalSettings) -> Self {
        Self::new(Keep::open(None, &mut Registry::default()).unwrap(), settings)
    }

    fn open(&self) -> Life {
        let now = Arc::clone(&self.now);
        let clock: Clock = Arc::new(move || now.load(Ordering::Relaxed));
        let mut registry = Registry::default();
        let (journal, sink, scribe) = Journal::with_clock(&self.keep, self.settings, clock, &mut registry).unwrap();
        Life { journal, sink, scribe, registry }
    }

    fn later(&self, ms: u64) {
        self.now.fetch_add(ms, Ordering::Relaxed);
    }

    fn now(&self) -> u64 {
        self.now.load(Ordering::Relaxed)
    }

    /// Everything handed in before is on disk after it.
    async fn written(&self) {
        self.keep.shelf("other").write(Vec::new()).await.unwrap();
    }
}

impl Life {
    /// Takes these in as one record.
    fn take(&self, notes: impl IntoIterator<Item = Note>) {
        self.journal.take(&mut notes.into_iter().collect());
    }

    /// The names of the tasks of everything, in the order they were noted.
    fn all(&self) -> Vec<String> {
        names(&self.journal.find(&Ask { order: Order::OldestFirst, limit: usize::MAX, ..Ask::default() }))
    }

    fn has(&self, line: &str) -> bool {
        encode(&self.registry).lines().any(|known| known == line)
    }
}

fn names(entries: &[Entry]) -> Vec<String> {
    entries.iter().map(|entry| entry.texts().task_name.to_owned()).collect()
}

/// An event without ids: never a duplicate.
fn note(name: &str) -> Note {
    Note { at: 5, kind: "failed", task_name: name.into(), ..Note::default() }
}

fn end(kind: &'static str, task: &str, execution: &str) -> Note {
    let name = format!("{kind} {execution}");
    Note { kind, task_id: task.into(), execution_id: execution.into(), ..note(&name) }
}

#[test]
fn one_end_is_there_once() {
    let scene = Scene::in_memory(BOUNDS);
    let life = scene.open();
    let zero = "00000000-0000-0000-0000-000000000000";
    life.take([
        end("failed", "t1", "e1"),
        end("failed", "t1", "e1"),
        end("aborted", "t1", "e1"),
        end("failed", "t2", "e1"),
    ]);
    life.take([
        end("failed", "t1", "e1"),
        end("failed", "t1", zero),
        end("failed", "t1", zero),
        end("failed", "t1", ""),
    ]);
    assert_eq!(
        life.all(),
        ["failed e1", "aborted e1", "failed e1", &format!("failed {zero}"), &format!("failed {zero}"), "failed "]
    );
    assert!(life.has("sense_butler_journal_duplicates_total 2") && life.has("sense_butler_journal_noted_total 6"));
    let next = scene.reopened();
    next.take([end("aborted", "t1", "e1"), end("aborted", "t2", "e1")]);
    assert_eq!(next.all().len(), 7, "known over restarts");
    // What was pushed out can come again.
    next.take((0..20).map(|number| note(&number.to_string())));
    next.take([end("aborted", "t1", "e1")]);
    assert_eq!(next.all().last().unwrap(), "aborted e1");
}

/// Its record comes back with what was pushed out of it: the one that came again counts.
#[test]
fn an_end_that_was_pushed_out_and_came_again_is_known_after_a_restart() {
    let scene = Scene::in_memory(JournalSettings { max_entries: 3, ..BOUNDS });
    let life = scene.open();
    life.take([end("failed", "t", "e1"), note("a"), note("b"), note("c")]);
    life.take([end("failed", "t", "e1")]);
    let next = scene.reopened();
    next.take([end("failed", "t", "e1")]);
    assert_eq!(next.all(), ["b", "c", "failed e1"]);
}

#[test]
fn what_is_asked_for_is_found() {
    let scene = Scene::in_memory(BOUNDS);
    let life = scene.open();
    let made = |number: u64| Note {
        at: number * 10,
        kind: if number.is_multiple_of(2) { "even" } else { "odd" },
        task_id: format!("t{}", number % 3),
        app_id: format!("a{}", number % 4),
        execution_id: format!("e{number}"),
        ..note(&number.to_string())
    };
    life.take((1..=5).map(made));
    life.take((6..=9).map(made));
    let all = life.journal.find(&Ask { limit: 100, ..Ask::default() });
    assert!(all.is_sorted_by(|a, b| a.id > b.id));
    let id = |number: usize| all.get(9 - number).map(|entry| entry.id);
    let text = |text: &str| Some(text.to_owned());
    let base = || Ask { limit: 100, ..Ask::default() };
    let oldest = || Ask { order: Order::OldestFirst, ..base() };
    let cases: [(Ask, &str); 13] = [
        (base(), "987654321"),
        (oldest(), "123456789"),
        (Ask { limit: 2, ..base() }, "98"),
        (Ask { limit: 2, before: id(8), ..base() }, "76"),
        (Ask { limit: 2, after: id(3), ..oldest() }, "45"),
        (Ask { after: id(3), before: id(6), ..base() }, "54"),
        (Ask { after: id(6), before: id(3), ..base() }, ""),
        (Ask { since: Some(30), until: Some(60), ..base() }, "543"),
        (Ask { kinds: vec!["odd".into()], ..base() }, "97531"),
        (Ask { kinds: vec!["odd".into(), "even".into(), "other".into()], limit: 1, ..base() }, "9"),
        (Ask { task_id: text("t0"), app_id: text("a3"), ..base() }, "3"),
        (Ask { execution_id: text("e7"), task_name: text("7"), ..base() }, "7"),
        (Ask { task_name: text("x"), ..base() }, ""),
    ];
    let mut ran = 0;
    for (ask, expected) in cases {
        assert_eq!(names(&life.journal.find(&ask)).concat(), expected, "{ask:?}");
        let unbound = Ask { limit: usize::MAX, ..ask.clone() };
        assert_eq!(life.journal.count(&ask), life.journal.find(&unbound).len(), "{ask:?}");
        ran += 1;
    }
    assert_eq!(ran, 13);
}

#[test]
fn the_oldest_go_first_and_are_counted() {
    let scene = Scene::in_memory(JournalSettings { max_entries: 3, max_bytes: 3 * 200, ..BOUNDS });
    let life = scene.open();
    life.take(["a", "b", "c", "d"].map(note));
    assert_eq!(life.all(), ["b", "c", "d"]);
    life.take([note(&"e".repeat(280))]);
    assert_eq!(life.all().len(), 2, "{:?}", life.all());
    scene.later(30_000);
    life.take([note("f")]);
    scene.later(30_000);
    life.journal.tend();
    assert_eq!(life.all(), ["f"]);
    for (reason, number) in [("entries", 2), ("bytes", 2), ("age", 1)] {
        assert!(
            life.has(&format!("sense_butler_journal_removed_total{{reason=\"{reason}\"}} {number}")),
            "{reason} {}",
            encode(&life.registry)
        );
    }
    assert!(life.has("sense_butler_journal_entries 1"));
    life.journal.limit(JournalSettings { max_entries: 1, ..BOUNDS });
    life.take(["g", "h"].map(note));
    assert_eq!(life.all(), ["h"]);
}

#[tokio::test]
async fn a_note_never_waits_and_what_is_too_much_is_counted() {
    let scene = Scene::in_memory(JournalSettings { max_entries: 100_000, ..BOUNDS });
    let Life { journal, sink, scribe, registry } = scene.open();
    for number in 0..ROOM + 3 {
        sink.note(|| note(&number.to_string()));
    }
    sink.missed(7);
    let stop = CancellationToken::new();
    let running = tokio::spawn(scribe.run(stop.clone()));
    stop.cancel();
    drop(sink);
    running.await.unwrap();
    assert_eq!(journal.count(&Ask::default()), ROOM, "what was noted before a stop is taken in");
    let text = encode(&registry);
    for line in ["dropped_total{reason=\"busy\"} 3", "dropped_total{reason=\"lagged\"} 7"] {
        assert!(text.contains(line), "{text}");
    }
    let records =
        scene.keep.shelf("other").write(Vec::new()).await.map(|()| scene.keep.shelf(SHELF).read_all().unwrap());
    assert_eq!(records.unwrap().len(), ROOM / BATCH, "a storm costs few records");
}

#[tokio::test]
async fn what_the_disk_refuses_is_written_when_it_works_again() {
    let disk = Disk::default();
    let keep = Keep::open_at(disk.place(), &mut Registry::default()).unwrap();
    let scene = Scene::new(keep, BOUNDS);
    let life = scene.open();
    life.take([note("before")]);
    scene.written().await;
    disk.cut_after(0);
    life.take(["while", "and more"].map(note));
    assert!(scene.keep.shelf("other").write(Vec::new()).await.is_err());
    assert!(life.journal.is_behind());
    assert_eq!(life.all(), ["before", "while", "and more"], "it is shown all the same");
    disk.power_on();
    let began = std::time::Instant::now();
    loop {
        if life.journal.is_behind() {
            life.journal.catch_up();
        }
        if scene.keep.shelf("other").write(Vec::new()).await.is_ok() && !life.journal.is_behind() {
            break;
        }
        assert!(began.elapsed().as_secs() < 60, "the file never hears of it");
        tokio::task::yield_now().await;
    }
    assert_eq!(scene.open().all(), ["before", "while", "and more"]);
}

#[tokio::test]
async fn what_cannot_be_read_is_left_out_and_what_is_switched_off_is_forgotten() {
    let scene = Scene::in_memory(BOUNDS);
    let shelf = scene.keep.shelf(SHELF);
    shelf.write(vec![super::super::Change::Put(record::key(7), vec![9, 9])]).await.unwrap();
    let life = scene.open();
    life.take([note("a")]);
    scene.written().await;
    assert_eq!(shelf.read_all().unwrap().len(), 1);
    assert_eq!(scene.open().all(), ["a"]);
    Journal::forget(&scene.keep).unwrap();
    scene.written().await;
    assert_eq!(shelf.read_all().unwrap(), []);
}

#[derive(Debug, Clone)]
enum Step {
    Take(Vec<(u8, usize)>),
    Pass(u64),
    Tend,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => proptest::collection::vec((0..9_u8, 0..40_usize), 1..8).prop_map(Step::Take),
        2 => (0..30_000_u64).prop_map(Step::Pass),
        1 => Just(Step::Tend),
        1 => Just(Step::Restart),
    ]
}

/// What is there, oldest first: when it was noted, its execution (0: none), its name.
type Known = (u64, u8, String);

fn play(steps: Vec<Step>) {
    let settings = JournalSettings { max_bytes: 1_800, max_entries: 12, ..BOUNDS };
    let scene = Scene::in_memory(settings);
    let mut life = scene.open();
    let (mut model, mut last) = (Vec::<Known>::new(), 0);
    for step in steps {
        match &step {
            Step::Take(wanted) => {
                for (execution, length) in wanted {
                    let is_known = *execution > 0 && model.iter().any(|(_, known, _)| known == execution);
                    if !is_known {
                        model.push((scene.now(), *execution, "x".repeat(*length)));
                    }
                }
                let made = |(execution, length): &(u8, usize)| {
                    let id = if *execution == 0 { String::new() } else { format!("e{execution}") };
                    Note { task_id: "t".into(), execution_id: id, ..note(&"x".repeat(*length)) }
                };
                life.take(wanted.iter().map(made).collect::<Vec<_>>());
            }
            Step::Pass(ms) => scene.later(*ms),
            Step::Tend => {}
            Step::Restart => life = scene.reopened(),
        }
        if !matches!(step, Step::Pass(_)) {
            life.journal.tend();
            let weight = |(_, execution, name): &Known| {
                let id = if *execution == 0 { 0 } else { 2 };
                record::OVERHEAD + record::TEXTS + "failed".len() + "t".len() + id + name.len()
            };
            while model.first().is_some_and(|(noted, ..)| scene.now() - noted >= 60_000)
                || model.len() > 12
                || model.iter().map(weight).sum::<usize>() > 1_800
            {
                model.remove(0);
            }
            let expected: Vec<String> = model.iter().map(|(.., name)| name.clone()).collect();
            assert_eq!(life.all(), expected, "after {step:?}");
        }
        let newest = life.journal.find(&Ask { limit: 1, ..Ask::default() }).first().map_or(last, |entry| entry.id);
        assert!(newest >= last, "ids go on");
        last = newest;
    }
    // The file holds what is here.
    let there = scene.reopened().journal.0.shelf.read_all().unwrap();
    assert_eq!(life.journal.0.state.lock().difference(there.into_iter().map(|(key, _)| key)), Vec::<Vec<_>>::new());
}

impl Scene {
    /// The next life, after everything was written.
    fn reopened(&self) -> Life {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        runtime.block_on(self.written());
        self.open()
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn the_journal_does_what_the_model_does(steps in proptest::collection::vec(step(), 1..40)) {
        play(steps);
    }
}
