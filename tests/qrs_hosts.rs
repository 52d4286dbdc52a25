//! Several hosts of one site, and a repository service that goes away: who is asked, what is sent twice (no start ever is), and how long
//! anybody waits.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

#[path = "support/fake_qrs.rs"]
mod fake_qrs;

use std::time::{Duration, Instant};

use fake_qrs::{FakeQrs, Mode};
use sense_butler::{
    config::settings::{QrsHost, QrsSettings, QrsVerify},
    names::TaskId,
    sense::qrs::{Qrs, QrsError, StartReply},
};
use tokio::net::TcpListener;

fn further(qrs: &FakeQrs) -> QrsHost {
    QrsHost { host: qrs.address.ip().to_string(), port: qrs.address.port(), verify: QrsVerify::Ca { name: None } }
}

fn both(first: &FakeQrs, second: &FakeQrs) -> QrsSettings {
    QrsSettings { further: vec![further(second)], ..first.settings() }
}

fn task(number: u32) -> TaskId {
    format!("0000aaaa-0000-4000-8000-{number:012x}").parse().unwrap()
}

fn in_use(client: &Qrs) -> Vec<bool> {
    client.hosts().iter().map(|host| host.in_use).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_host_dies_in_the_middle_the_other_is_asked_and_no_start_is_sent_twice() {
    let (first, second) = (FakeQrs::start().await, FakeQrs::start().await);
    let client = Qrs::new(&both(&first, &second));
    first.set(Mode::StartOk);
    second.set(Mode::StartOk);
    client.about().await.unwrap();
    assert_eq!(in_use(&client), [true, false]);
    let mut starting = tokio::task::JoinSet::new();
    for number in 0..400 {
        let client = client.clone();
        starting.spawn(async move { (number, client.start(task(number)).await) });
    }
    while first.starts().len() < 100 {
        tokio::task::yield_now().await;
    }
    let at_first = first.record();
    drop(first);
    let (mut started, mut unknown) = (0, 0);
    for (number, answer) in starting.join_all().await {
        match answer {
            Ok(StartReply::Started(_)) => started += 1,
            // It may have arrived at the one that died; then nobody else may get it.
            Err(error) if error.may_have_arrived() => {
                unknown += 1;
                assert!(!second.starts().contains(&task(number).to_string()), "{number}");
            }
            other => panic!("{number}: {other:?}"),
        }
    }
    let mut all = [at_first.starts(), second.starts()].concat();
    let sent = all.len();
    all.sort();
    all.dedup();
    assert_eq!(all.len(), sent, "nothing was sent twice");
    assert_eq!(started + unknown, 400);
    assert!(started >= 300, "{started}");
    assert_eq!(in_use(&client), [false, true]);
    let states = client.hosts();
    assert!(states[0].problem.as_deref().unwrap().contains("connection refused"), "{states:?}");
    assert_eq!(client.metrics().moves(), 1);
    assert!(client.health().sentence().contains(&second.address.to_string()), "{}", client.health().sentence());
}

#[tokio::test]
async fn a_host_that_is_just_starting_is_passed_by_but_a_start_it_got_is_not_repeated() {
    let (first, second) = (FakeQrs::start().await, FakeQrs::start().await);
    let client = Qrs::new(&both(&first, &second));
    first.set(Mode::Starting);
    client.about().await.unwrap();
    assert_eq!((first.seen().len(), second.seen().len()), (1, 1), "what only reads is asked of the other at once");
    assert_eq!(in_use(&client), [false, true]);

    second.set(Mode::Starting);
    let error = client.start(task(1)).await.unwrap_err();
    assert!(error.may_have_arrived() && error.is_unreachable(), "{error}");
    assert_eq!((first.starts().len(), second.starts().len()), (0, 1));

    // Both are starting: nothing but a question reaches them.
    let error = client.start(task(2)).await.unwrap_err();
    assert!(!error.may_have_arrived() && error.is_unreachable(), "{error}");
    assert_eq!((first.starts().len(), second.starts().len()), (0, 1));
    assert!(error.remedy().unwrap().contains("is starting"), "{error}");

    first.set(Mode::StartOk);
    assert!(matches!(client.start(task(3)).await.unwrap(), StartReply::Started(Some(_))));
    assert_eq!(first.starts(), [task(3).to_string()]);
}

#[tokio::test]
async fn a_host_that_hangs_is_left_by_the_short_question_and_the_start_goes_to_the_other() {
    let (first, second) = (FakeQrs::start().await, FakeQrs::start().await);
    let client = Qrs::new(&both(&first, &second));
    first.set(Mode::Starting);
    second.set(Mode::Starting);
    assert!(client.about().await.unwrap_err().is_unreachable());
    first.set(Mode::Silent);
    second.set(Mode::StartOk);
    let begun = Instant::now();
    assert!(matches!(client.start(task(1)).await.unwrap(), StartReply::Started(Some(_))));
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert_eq!((first.starts().len(), second.starts().len()), (0, 1));
    let states = client.hosts();
    assert!(states[0].problem.as_deref().unwrap().contains("nothing within 5 seconds"), "{states:?}");
    assert_eq!((states[1].in_use, &states[1].problem), (true, &None));
}

#[tokio::test]
async fn the_host_that_works_is_kept() {
    let first = FakeQrs::start().await;
    let second = FakeQrs::start().await;
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = nobody.local_addr().unwrap();
    drop(nobody);
    let settings =
        QrsSettings { port: closed.port(), further: vec![further(&second), further(&first)], ..first.settings() };
    let client = Qrs::new(&settings);
    for _ in 0..5 {
        client.about().await.unwrap();
    }
    assert_eq!((second.seen().len(), first.seen().len()), (5, 0));
    assert_eq!(in_use(&client), [false, true, false]);
    // One that answers, whatever it says, is not left.
    second.set(Mode::AllFail);
    assert!(matches!(client.about().await.unwrap_err(), QrsError::Status { status: 500, .. }));
    second.set(Mode::Refuse);
    assert!(matches!(client.about().await.unwrap_err(), QrsError::Status { status: 403, .. }));
    assert_eq!(first.seen().len(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_qrs_is_known_to_be_down_nobody_waits_for_its_time_outs_and_recovery_is_found_at_once() {
    let gone = FakeQrs::start().await;
    let (client, address) = (Qrs::new(&gone.settings()), gone.address);
    drop(gone);
    // Nobody listens: that is learnt at once.
    while TcpListener::bind(address).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert!(matches!(client.about().await.unwrap_err(), QrsError::Connect { .. }));

    // Then something takes the connections and never says a word, so that a question ends only when its time does.
    let silent = TcpListener::bind(address).await.unwrap();
    let begun = Instant::now();
    let mut starting = tokio::task::JoinSet::new();
    for number in 0..200 {
        let client = client.clone();
        starting.spawn(async move {
            let begun = Instant::now();
            (client.start(task(number)).await, begun.elapsed())
        });
    }
    let mut waits = Vec::new();
    for (answer, waited) in starting.join_all().await {
        let error = answer.unwrap_err();
        assert!(!error.may_have_arrived() && error.is_unreachable(), "{error}");
        assert!(matches!(error, QrsError::Down(_)), "{error:?}");
        waits.push(waited);
    }
    waits.sort();
    assert!(waits[198] < Duration::from_secs(3), "all but the one that asks hear at once: {:?}", waits[198]);
    assert!(begun.elapsed() < Duration::from_secs(12), "{:?}", begun.elapsed());
    assert!(client.metrics().calls("start", "down") >= 199);

    // It comes back: the next call works, none was needed to find out.
    drop(silent);
    let back = FakeQrs::at(address).await;
    back.set(Mode::StartOk);
    let begun = Instant::now();
    let (one, other) = tokio::join!(client.start(task(1)), client.start(task(2)));
    assert!(one.is_ok() && other.is_ok(), "{one:?} {other:?}");
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert_eq!(back.starts().len(), 2);
    assert!(client.health().is_ok());
}
