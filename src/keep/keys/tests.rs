//! Keys: what is known when, over restarts, within the bounds, and when two use one at a time.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

const PATIENCE: Duration = Duration::from_secs(20);

fn digest(text: &str) -> Digest {
    Digest::of([text.as_bytes()])
}

/// A file in memory, a clock that is set by hand, and small bounds.
struct Scene {
    keep: Keep,
    now: Arc<AtomicU64>,
    limits: Limits,
}

impl Scene {
    fn new(keys: usize, bytes: usize) -> Self {
        let keep = Keep::open(None, &mut Registry::default()).unwrap();
        let limits = Limits { age: Duration::from_secs(60), keys, bytes };
        Self { keep, now: Arc::new(AtomicU64::new(1_000_000)), limits }
    }

    /// The keys as a life of the program finds them.
    fn open(&self) -> Keys {
        let now = Arc::clone(&self.now);
        let clock: Clock = Arc::new(move || now.load(Ordering::Relaxed));
        Keys::with(&self.keep, self.limits, clock, &mut Registry::default()).unwrap()
    }

    fn later(&self, seconds: u64) {
        self.now.fetch_add(seconds * 1_000, Ordering::Relaxed);
    }
}

async fn claim(keys: &Keys, key: &str, print: &str) -> Claim {
    keys.claim(digest(key), digest(print), Duration::ZERO).await.unwrap()
}

async fn fresh(keys: &Keys, key: &str, print: &str) -> Ticket {
    match claim(keys, key, print).await {
        Claim::Fresh(ticket) => ticket,
        other => panic!("{other:?}"),
    }
}

async fn answer(keys: &Keys, key: &str, text: &'static str) {
    fresh(keys, key, key).await.settle(Bytes::from_static(text.as_bytes())).await;
}

/// One word for what is known.
async fn word(keys: &Keys, key: &str, print: &str) -> String {
    match claim(keys, key, print).await {
        Claim::Fresh(ticket) => {
            ticket.release();
            "new".into()
        }
        Claim::Known(answer) => String::from_utf8(answer.to_vec()).unwrap(),
        other => format!("{other:?}"),
    }
}

#[test]
fn parts_are_not_run_together() {
    let of = |parts: [&str; 2]| Digest::of(parts.map(str::as_bytes));
    assert_ne!(of(["ab", "c"]), of(["a", "bc"]));
    assert_eq!(of(["ab", "c"]), of(["ab", "c"]));
}

#[tokio::test]
async fn the_first_answer_is_the_answer_also_after_a_restart() {
    let scene = Scene::new(10, 1 << 20);
    let keys = scene.open();
    answer(&keys, "a", "first").await;
    for keys in [keys, scene.open()] {
        assert_eq!(word(&keys, "a", "a").await, "first");
        assert_eq!(word(&keys, "a", "other").await, "Differs");
        assert_eq!(word(&keys, "b", "b").await, "new");
    }
    scene.later(59);
    assert_eq!(word(&scene.open(), "a", "a").await, "first");
    scene.later(1);
    let keys = scene.open();
    assert_eq!(word(&keys, "a", "other").await, "new", "its time is over");
    keys.0.shelf.write(Vec::new()).await.unwrap();
    assert!(keys.0.shelf.read_all().unwrap().is_empty(), "and it is not on disk either");
}

#[tokio::test]
async fn what_was_under_way_is_unknown_after_a_crash_and_what_was_released_is_new() {
    let scene = Scene::new(10, 1 << 20);
    let keys = scene.open();
    let (lost, released) = (fresh(&keys, "lost", "x").await, fresh(&keys, "released", "x").await);
    assert_eq!(word(&scene.open(), "lost", "x").await, "Unknown", "as another life of the program finds it");
    assert_eq!(word(&scene.open(), "lost", "y").await, "Differs");
    released.release();
    drop(lost);
    assert_eq!(word(&keys, "released", "x").await, "new");
    assert_eq!(word(&keys, "lost", "x").await, "Unknown", "dropped without a word");
    scene.later(60);
    assert_eq!(word(&keys, "lost", "x").await, "new");
}

#[tokio::test]
async fn who_comes_second_waits_for_the_first_and_hears_its_answer() {
    let scene = Scene::new(10, 1 << 20);
    let keys = scene.open();
    let first = fresh(&keys, "a", "a").await;
    assert_eq!(word(&keys, "a", "a").await, "Busy", "without patience");
    assert_eq!(word(&keys, "a", "b").await, "Differs");
    let waiting: Vec<_> = (0..8)
        .map(|_| {
            let keys = keys.clone();
            tokio::spawn(async move { keys.claim(digest("a"), digest("a"), PATIENCE).await.unwrap() })
        })
        .collect();
    tokio::task::yield_now().await;
    first.settle(Bytes::from_static(b"done")).await;
    for one in waiting {
        assert!(matches!(one.await.unwrap(), Claim::Known(answer) if answer == "done"));
    }
}

#[tokio::test]
async fn of_those_who_wait_for_one_that_did_nothing_one_is_next() {
    let scene = Scene::new(10, 1 << 20);
    let keys = scene.open();
    let first = fresh(&keys, "a", "a").await;
    let waiting: Vec<_> = (0..4)
        .map(|number| {
            let keys = keys.clone();
            tokio::spawn(async move {
                match keys.claim(digest("a"), digest("a"), PATIENCE).await.unwrap() {
                    Claim::Fresh(ticket) => {
                        ticket.settle(Bytes::from(format!("{number}"))).await;
                        None
                    }
                    Claim::Known(answer) => Some(answer),
                    other => panic!("{other:?}"),
                }
            })
        })
        .collect();
    tokio::task::yield_now().await;
    first.release();
    let mut heard = Vec::new();
    for one in waiting {
        heard.extend(one.await.unwrap());
    }
    assert_eq!(heard.len(), 3, "three hear the one who did it");
    assert!(heard.iter().all(|answer| *answer == heard[0]), "{heard:?}");
}

#[tokio::test]
async fn the_oldest_go_first_but_never_one_that_is_being_used() {
    let scene = Scene::new(4, 1 << 20);
    let keys = scene.open();
    let used = fresh(&keys, "used", "used").await;
    for name in ["a", "b", "c", "d", "e"] {
        answer(&keys, name, "done").await;
    }
    assert_eq!(word(&keys, "used", "used").await, "Busy");
    let known = |keys: Keys| async move {
        let mut known = Vec::new();
        for name in ["a", "b", "c", "d", "e"] {
            if matches!(keys.0.state.lock().find(digest(name), digest(name), 1_000_000), Found::Answer(_)) {
                known.push(name);
            }
        }
        known
    };
    assert_eq!(known(keys.clone()).await, ["c", "d", "e"]);
    used.settle(Bytes::from_static(b"late")).await;
    assert_eq!(word(&keys, "used", "used").await, "late");
    assert!(keys.0.state.lock().len() <= 4);
    assert_eq!(keys.0.shelf.read_all().unwrap().len(), keys.0.state.lock().len(), "the file has what memory has");
}

#[tokio::test]
async fn large_answers_push_out_more() {
    let scene = Scene::new(100, 2_000);
    let keys = scene.open();
    for name in ["a", "b", "c"] {
        fresh(&keys, name, name).await.settle(Bytes::from(vec![b'x'; 500])).await;
    }
    assert_eq!(word(&keys, "a", "a").await.len(), 500);
    fresh(&keys, "d", "d").await.settle(Bytes::from(vec![b'x'; 1_000])).await;
    assert_eq!(word(&keys, "a", "a").await, "new");
    assert_eq!(word(&keys, "d", "d").await.len(), 1_000);
}

#[tokio::test]
async fn a_key_that_cannot_be_kept_is_not_used() {
    let scene = Scene::new(10, 1 << 20);
    let keys = scene.open();
    scene.keep.stop();
    assert!(matches!(keys.claim(digest("a"), digest("a"), PATIENCE).await, Err(KeepError::Stopped)));
    assert_eq!(keys.0.state.lock().len(), 0);
}
