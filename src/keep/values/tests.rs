//! The store against a simple model, its limits, and its way through the file.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

use proptest::prelude::*;

use super::*;
use crate::{
    keep::tests::{Scratch, disks::Disk},
    telemetry::metrics,
};

/// A store with a clock that is set by hand.
struct Bench {
    values: Values,
    now: Arc<AtomicU64>,
    registry: Registry,
}

fn bench_on(keep: &Keep, settings: ValueSettings, start: u64) -> Bench {
    let (now, mut registry) = (Arc::new(AtomicU64::new(start)), Registry::default());
    let clock = Arc::clone(&now);
    let clock: Clock = Arc::new(move || clock.load(Ordering::SeqCst));
    let values = Values::with_clock(keep, settings, clock, &mut registry).unwrap();
    Bench { values, now, registry }
}

fn memory() -> Keep {
    Keep::open(None, &mut Registry::default()).unwrap()
}

fn bench(settings: ValueSettings) -> Bench {
    bench_on(&memory(), settings, 1_000)
}

impl Bench {
    fn pass(&self, ms: u64) {
        self.now.fetch_add(ms, Ordering::SeqCst);
    }
}

fn item(namespace: &str, key: &str, value: &str, ttl: i64) -> Item {
    Item { namespace: namespace.into(), key: key.into(), value: value.into(), ttl }
}

fn words(list: Vec<Arc<str>>) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn what_is_put_is_there_until_its_time_is_over() {
    let bench = bench(ValueSettings::default());
    let values = &bench.values;
    values.put(vec![item("n", "b", "1", 0), item("n", "a", "2", 100), item("m", "a", "3", -5)]).await.unwrap();
    assert_eq!(values.get("n", "a"), Ok(Found { value: "2".into(), ttl: 100 }));
    assert_eq!(words(values.keys("n").unwrap()), ["b", "a"], "in the order they came");
    assert_eq!(words(values.namespaces()), ["n", "m"]);
    bench.pass(99);
    assert!(values.get("n", "a").is_ok());
    bench.pass(1);
    assert!(matches!(values.get("n", "a"), Err(ValuesError::UnknownKey { .. })));
    assert_eq!(words(values.keys("n").unwrap()), ["b"]);
    assert!(values.get("m", "a").is_ok(), "a time to live below zero is for ever");
    values.put(vec![item("n", "a", "4", 100), item("n", "a", "5", 0)]).await.unwrap();
    bench.pass(1_000);
    assert_eq!(values.get("n", "a"), Ok(Found { value: "5".into(), ttl: 0 }), "the last of one request holds");
    values.remove("n", "a").await.unwrap();
    assert!(matches!(values.remove("n", "a").await, Err(ValuesError::UnknownKey { .. })));
    values.remove("n", "b").await.unwrap();
    assert_eq!(values.keys("n"), Ok(vec![]), "an empty namespace is still one");
    values.remove_namespace("n").await.unwrap();
    assert!(matches!(values.keys("n"), Err(ValuesError::UnknownNamespace(_))));
    assert!(matches!(values.remove_namespace("n").await, Err(ValuesError::UnknownNamespace(_))));
    assert_eq!(words(values.namespaces()), ["m"], "and no other went with it");
    let text = metrics::encode(&bench.registry);
    for line in [
        "sense_butler_values_namespaces 1",
        "sense_butler_values_keys 1",
        "sense_butler_values_expired_total 1",
        "sense_butler_values_refused_total{reason=\"unknown_key\"} 1",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
}

#[tokio::test]
async fn each_limit_refuses_all_of_a_request_and_names_itself() {
    let settings =
        ValueSettings { max_namespaces: 2, max_keys: 2, max_value: 10, max_bytes: 600, ..ValueSettings::default() };
    let bench = bench(settings);
    let values = &bench.values;
    values.put(vec![item("a", "1", "x", 0), item("a", "2", "x", 0)]).await.unwrap();
    let refused = [
        (vec![item("b", "1", "x", 0), item("a", "3", "x", 0)], "maxKeysPerNamespace"),
        (vec![item("b", "1", "x", 0), item("c", "1", "x", 0)], "maxNamespaces"),
        (vec![item("b", "1", "x", 0), item("b", "2", "12345678901", 0)], "maxValueBytes"),
        (vec![item("", "1", "x", 0)], "namespace has 1 to"),
        (vec![item("b", "", "x", 0)], "key has 1 to"),
        (vec![item("b", &"k".repeat(MAX_NAME + 1), "x", 0)], "key has 1 to"),
        (vec![item("b", &"k".repeat(600), "x", 0)], "maxBytes"),
    ];
    let cases = refused.len();
    for (items, word) in refused {
        let error = values.put(items).await.unwrap_err().to_string();
        assert!(error.contains(word), "{word}: {error}");
    }
    assert_eq!(cases, 7);
    assert_eq!(words(values.namespaces()), ["a"], "nothing of it is there");
    values.put(vec![item("a", "1", "y", 0), item("b", "1", "y", 50)]).await.unwrap();
    bench.pass(50);
    values.put(vec![item("c", "1", "z", 0)]).await.unwrap();
    assert_eq!(words(values.namespaces()), ["a", "c"], "an empty namespace makes room for a new one");
    let off = ValueSettings { offered: false, ..ValueSettings::default() };
    let off = self::bench(off);
    assert_eq!(off.values.replace("n", vec![("a".to_owned(), 1.into())], None).await, Err(ValuesError::Off));
    assert_eq!(off.values.replace("n", vec![], None).await, Ok(()), "to forget needs no reader");
}

#[tokio::test]
async fn limits_change_while_it_runs_and_nothing_else_of_it() {
    let bench = bench(ValueSettings { max_keys: 1, ..ValueSettings::default() });
    let values = &bench.values;
    values.put(vec![item("a", "1", "x", 0)]).await.unwrap();
    assert!(values.put(vec![item("a", "2", "x", 0)]).await.is_err());
    values.limit(ValueSettings { max_keys: 2, offered: false, ..ValueSettings::default() });
    values.put(vec![item("a", "2", "x", 0)]).await.unwrap();
    values.limit(ValueSettings { max_keys: 1, ..ValueSettings::default() });
    assert!(values.put(vec![item("a", "3", "x", 0)]).await.is_err());
    assert_eq!(words(values.keys("a").unwrap()), ["1", "2"], "what is there stays");
}

#[tokio::test]
async fn parameters_are_stored_together() {
    let bench = bench(ValueSettings::default());
    let pairs =
        vec![("from".to_owned(), "2026-11-01".into()), ("days".to_owned(), 7.into()), ("all".to_owned(), true.into())];
    bench.values.put(vec![item("task", "old", "1", 0), item("task", "days", "30", 0)]).await.unwrap();
    bench.values.replace("task", pairs, Some(Duration::from_secs(60))).await.unwrap();
    assert_eq!(words(bench.values.keys("task").unwrap()).len(), 3, "what else was there is gone");
    assert_eq!(bench.values.get("task", "from"), Ok(Found { value: r#""2026-11-01""#.into(), ttl: 60_000 }));
    assert_eq!(bench.values.get("task", "days").unwrap().value, "7".into());
    bench.pass(60_000);
    assert_eq!(words(bench.values.keys("task").unwrap()), [""; 0]);
}

#[tokio::test]
async fn kept_over_a_restart_with_times_that_go_on() {
    let scratch = Scratch::new();
    let open = || Keep::open(Some(&scratch.0), &mut Registry::default()).unwrap();
    let keep = open();
    let before = bench_on(&keep, ValueSettings::default(), 1_000);
    let items = vec![
        item("n", "z", "1", 0),
        item("n", "short", "2", 500),
        item("n", "long", "3", 5_000),
        item("e", "k", "4", 100),
    ];
    before.values.put(items).await.unwrap();
    before.values.put(vec![item("n", "a", "5", 0)]).await.unwrap();
    before.values.remove("n", "z").await.unwrap();
    keep.stop();
    let keep = open();
    let after = bench_on(&keep, ValueSettings::default(), 2_000);
    assert_eq!(words(after.values.namespaces()), ["n", "e"]);
    assert_eq!(words(after.values.keys("n").unwrap()), ["long", "a"], "in the order of before");
    assert_eq!(after.values.get("n", "long"), Ok(Found { value: "3".into(), ttl: 5_000 }));
    after.pass(4_000);
    assert!(after.values.get("n", "long").is_err());
    keep.stop();
    let keep = open();
    let passing = ValueSettings { durable: false, ..ValueSettings::default() };
    let third = bench_on(&keep, passing, 2_000);
    assert_eq!(words(third.values.namespaces()), [""; 0], "what does not last does not begin with what lasted");
    third.values.put(vec![item("n", "k", "1", 0)]).await.unwrap();
    keep.stop();
    let keep = open();
    assert!(bench_on(&keep, ValueSettings::default(), 2_000).values.get("n", "k").is_err());
}

/// What the file refused is told as refused, is there for those who read, and comes to the file when it works again.
#[tokio::test]
async fn what_the_file_refused_is_written_when_it_works_again() {
    let disk = Disk::default();
    let keep = Keep::open_at(disk.place(), &mut Registry::default()).unwrap();
    let bench = bench_on(&keep, ValueSettings::default(), 1_000);
    let values = &bench.values;
    values.put(vec![item("n", "gone", "1", 0), item("n", "over", "2", 50), item("old", "k", "3", 0)]).await.unwrap();
    disk.cut_after(0);
    let refused = values.put(vec![item("n", "new", &"v".repeat(PORTION / 8), 0)]).await;
    assert!(matches!(refused, Err(ValuesError::Keep(KeepError::Failing { .. }))), "{refused:?}");
    assert!(values.remove("n", "gone").await.is_err() && values.remove_namespace("old").await.is_err());
    for number in 0..20 {
        assert!(values.put(vec![item("many", &number.to_string(), &"w".repeat(PORTION / 8), 0)]).await.is_err());
    }
    bench.pass(50);
    values.tend();
    assert_eq!(words(values.keys("n").unwrap()), ["new"]);
    disk.power_on();
    let began = std::time::Instant::now();
    let same = |values: &Values| {
        let there = keep.shelf(SHELF).read_all();
        there.is_ok_and(|there| values.0.state.lock().difference(there).is_empty())
    };
    while !same(values) {
        assert!(began.elapsed().as_secs() < 60, "the file never hears of it");
        values.tend();
        tokio::task::yield_now().await;
    }
    let after = bench_on(&keep, ValueSettings::default(), 2_000);
    assert_eq!(shown(&after.values), shown(values));
    assert_eq!(words(after.values.namespaces()), ["n", "many"]);
}

/// One step of a test.
#[derive(Debug, Clone)]
enum Step {
    Put(Vec<(u8, u8, u8, i64)>),
    Remove(u8, u8),
    RemoveNamespace(u8),
    Pass(u64),
    Tend,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    let ttl = prop_oneof![Just(0_i64), Just(-1), 1..60_i64];
    let item = (0..4_u8, 0..5_u8, 1..30_u8, ttl);
    prop_oneof![
        6 => proptest::collection::vec(item, 1..4).prop_map(Step::Put),
        2 => (0..4_u8, 0..5_u8).prop_map(|(namespace, key)| Step::Remove(namespace, key)),
        1 => (0..4_u8).prop_map(Step::RemoveNamespace),
        2 => (1..40_u64).prop_map(Step::Pass),
        1 => Just(Step::Tend),
        1 => Just(Step::Restart),
    ]
}

/// What should be there, in the order it came: the simplest thing that can be said. Namespaces with keys: value, time to live, when over.
#[derive(Debug, Clone, Default)]
struct Model(Vec<(String, Vec<Known>)>);

type Known = (String, String, i64, u64);

const LIMITS: ValueSettings =
    ValueSettings { offered: true, durable: true, max_namespaces: 3, max_keys: 3, max_value: 25, max_bytes: 1_000 };

impl Model {
    fn sweep(&mut self, now: u64) {
        for (_, keys) in &mut self.0 {
            keys.retain(|(.., over)| *over == 0 || *over > now);
        }
    }

    fn bytes(&self) -> usize {
        let key = |(key, value, ..): &Known| key.len() + value.len() + 64;
        self.0.iter().map(|(name, keys)| name.len() + 64 + keys.iter().map(key).sum::<usize>()).sum()
    }

    /// Takes the items one by one, and all of them back if that does not fit.
    fn put(&mut self, items: &[Item], now: u64) -> bool {
        self.sweep(now);
        let (mut next, before) = (self.clone(), self.bytes());
        for item in items {
            if !next.0.iter().any(|(name, _)| *name == item.namespace) {
                next.0.push((item.namespace.clone(), Vec::new()));
            }
            let (_, keys) = next.0.iter_mut().find(|(name, _)| *name == item.namespace).unwrap();
            let over = if item.ttl > 0 { now + item.ttl as u64 } else { 0 };
            let known = (item.key.clone(), item.value.to_string(), item.ttl, over);
            match keys.iter_mut().find(|(key, ..)| *key == item.key) {
                Some(place) => *place = known,
                None => keys.push(known),
            }
        }
        let grown = next.bytes() > before;
        let fits_bytes = !grown || next.bytes() <= LIMITS.max_bytes;
        while next.0.len() > LIMITS.max_namespaces {
            let Some(empty) = next.0.iter().position(|(_, keys)| keys.is_empty()) else { return false };
            next.0.remove(empty);
        }
        let values_fit = items.iter().all(|item| item.value.len() <= LIMITS.max_value);
        let keys_fit = next.0.iter().all(|(_, keys)| keys.len() <= LIMITS.max_keys);
        let fits = fits_bytes && values_fit && keys_fit;
        if fits {
            *self = next;
        }
        fits
    }
}

/// A key with its value and time to live.
type Pair = (String, String, i64);

/// Everything the store shows.
fn shown(values: &Values) -> Vec<(String, Vec<Pair>)> {
    let key = |namespace: &str, key: Arc<str>| {
        let found = values.get(namespace, &key).unwrap();
        (key.to_string(), found.value.to_string(), found.ttl)
    };
    let keys = |namespace: &str| values.keys(namespace).unwrap().into_iter().map(|name| key(namespace, name)).collect();
    values.namespaces().iter().map(|name| (name.to_string(), keys(name))).collect()
}

async fn play(steps: Vec<Step>) {
    let keep = memory();
    let mut bench = bench_on(&keep, LIMITS, 1_000);
    let mut model = Model::default();
    for step in steps {
        let now = bench.now.load(Ordering::SeqCst);
        match &step {
            Step::Put(items) => {
                let items: Vec<_> = items
                    .iter()
                    .map(|(namespace, key, length, ttl)| {
                        item(&format!("n{namespace}"), &format!("k{key}"), &"v".repeat(usize::from(*length)), *ttl)
                    })
                    .collect();
                let fits = model.put(&items, now);
                assert_eq!(bench.values.put(items).await.is_ok(), fits, "{step:?} in {model:?}");
            }
            Step::Remove(namespace, key) => {
                model.sweep(now);
                let (name, key) = (format!("n{namespace}"), format!("k{key}"));
                let keys = model.0.iter_mut().find(|(known, _)| *known == name).map(|(_, keys)| keys);
                let there = keys.is_some_and(|keys| {
                    let before = keys.len();
                    keys.retain(|(known, ..)| *known != key);
                    keys.len() < before
                });
                assert_eq!(bench.values.remove(&name, &key).await.is_ok(), there, "{step:?}");
            }
            Step::RemoveNamespace(namespace) => {
                let (name, before) = (format!("n{namespace}"), model.0.len());
                model.0.retain(|(known, _)| *known != name);
                assert_eq!(bench.values.remove_namespace(&name).await.is_ok(), model.0.len() < before, "{step:?}");
            }
            Step::Pass(ms) => bench.pass(*ms),
            Step::Tend => bench.values.tend(),
            Step::Restart => bench = bench_on(&keep, LIMITS, now),
        }
        model.sweep(bench.now.load(Ordering::SeqCst));
        let bare = |(key, value, ttl, _): &Known| (key.clone(), value.clone(), *ttl);
        let expected: Vec<_> =
            model.0.iter().map(|(name, keys)| (name.clone(), keys.iter().map(bare).collect::<Vec<_>>())).collect();
        assert_eq!(shown(&bench.values), expected, "after {step:?}");
    }
    // What the file holds is what is there, once everything is written.
    bench.values.tend();
    keep.shelf("other").write(vec![]).await.unwrap();
    let on_disk: BTreeMap<_, _> = keep.shelf(SHELF).read_all().unwrap().into_iter().collect();
    assert_eq!(bench.values.0.state.lock().difference(on_disk.into_iter().collect()), []);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]
    #[test]
    fn the_store_does_what_the_model_does(steps in proptest::collection::vec(step(), 1..40)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(steps));
    }
}
