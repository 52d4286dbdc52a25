//! Random operations over real sockets, in both versions of MQTT, held against a model of what the standards say: whatever every client gets, and
//! nothing else.
//!
//! `MODEL_SOCKETS_OPS` (default 20,000) operations altogether, in histories of 400 with a broker each; `MODEL_SOCKETS_SEED` (default: the clock's;
//! printed) is the seed of the first history, those after it have the next ones. A failure names its seed and the operations that led to it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

#[path = "support/oracle/chance.rs"]
#[allow(dead_code)]
mod chance;
#[path = "support/model/mod.rs"]
mod model;
mod support;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use chance::Chance;
use model::{drive::Driver, ops::Op};
use support::running::Running;

/// Operations of a history.
const LENGTH: u64 = 400;
/// Histories at a time.
const AT_ONCE: u64 = 3;
/// Operations that are named when a history fails.
const TOLD: usize = 60;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// The last operations of a history; told if it ends with a panic.
struct Told(u64, VecDeque<String>);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let ops: Vec<_> = self.1.iter().map(String::as_str).collect();
            eprintln!("MODEL_SOCKETS_SEED={} MODEL_SOCKETS_OPS={LENGTH}:\n{}", self.0, ops.join("\n"));
        }
    }
}

/// Carries out `length` operations that mean something.
async fn history(seed: u64, length: u64) {
    let broker = Running::start(|settings| settings.limits.connects = 0);
    let mut driver = Driver::new(broker.address).await;
    let (mut chance, mut told, mut done) = (Chance::new(seed), Told(seed, VecDeque::new()), 0);
    while done < length {
        let op = Op::random(&mut chance);
        told.1.push_back(format!("{done} {op:?}"));
        if told.1.len() > TOLD {
            told.1.pop_front();
        }
        if driver.apply(&op).await {
            done += 1;
        } else {
            told.1.pop_back();
        }
    }
    drop(driver);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clients_get_is_what_the_model_says() {
    let all = number("MODEL_SOCKETS_OPS").unwrap_or(20_000);
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
    let seed = number("MODEL_SOCKETS_SEED").unwrap_or_else(clock);
    println!("MODEL_SOCKETS_SEED={seed}, {all} operations");
    let done = Arc::new(std::sync::atomic::AtomicU64::new(0));
    let histories = all.div_ceil(LENGTH);
    let workers = (0..AT_ONCE).map(|worker| {
        let done = Arc::clone(&done);
        tokio::spawn(async move {
            for number in (worker..histories).step_by(AT_ONCE as usize) {
                let length = LENGTH.min(all - number * LENGTH);
                history(seed + number, length).await;
                done.fetch_add(length, std::sync::atomic::Ordering::Relaxed);
            }
        })
    });
    for worker in workers.collect::<Vec<_>>() {
        worker.await.unwrap();
    }
    assert_eq!(done.load(std::sync::atomic::Ordering::Relaxed), all);
}
