//! What a shared group with a kept member is owed survives `kill -9`, whoever of the group had it on its way.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

#[path = "support/app.rs"]
mod app;
#[path = "support/raw.rs"]
#[allow(dead_code)]
mod raw;

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use app::{App, Dir};
use raw::{Hello, Raw};

const FILTER: &str = "$share/workers/orders";

async fn address(app: &App) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], app.mqtt().await))
}

async fn member(at: SocketAddr, hello: &Hello) -> Raw {
    let (mut raw, connack) = Raw::connect(at, hello).await;
    assert_eq!(connack[1], 0, "let in");
    assert_eq!(raw.subscribe(FILTER, 1).await, 1);
    raw
}

/// Waits until the broker has noticed that a client is gone.
async fn away(app: &App, client: &str) {
    let path = format!("/api/v1/broker/clients/{client}");
    while !app.json(&path).await["connection"].is_null() {
        // The pause between two looks.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Publishes at QoS 1 and waits for every PUBACK.
async fn publish(at: SocketAddr, numbers: std::ops::Range<u16>) {
    let (mut raw, _) = Raw::connect(at, &Hello::v5("orders")).await;
    for number in numbers {
        raw.publish("orders", number.to_string().as_bytes(), 1, number + 1, false).await;
        let (first, body) = raw.receive().await.expect("a PUBACK");
        assert_eq!((first, &body[..2]), (0x40, (number + 1).to_be_bytes().as_slice()));
    }
}

/// Takes and acknowledges what there is of these numbers; returns them in the order they came.
async fn take(raw: &mut Raw, count: usize) -> Vec<u16> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let got = raw.receive_publish().await;
        raw.ack(0x40, got.id).await;
        taken.push(String::from_utf8(got.payload).unwrap().parse().unwrap());
    }
    taken
}

/// A passing member has read everything and acknowledged a part; then the program is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_passing_member_has_not_acknowledged_stays_with_the_group() {
    for version in [4, 5] {
        let dir = Dir::new();
        let app = App::run(&dir, &[]).await;
        let at = address(&app).await;
        drop(member(at, &Hello::new(version, "kept").kept()).await);
        away(&app, "kept").await;
        let mut passing = member(at, &Hello::new(version, "passing")).await;
        publish(at, 0..40).await;
        let mut acknowledged = BTreeSet::new();
        for place in 0..30 {
            let got = passing.receive_publish().await;
            let number: u16 = String::from_utf8(got.payload.clone()).unwrap().parse().unwrap();
            if place % 3 == 0 {
                passing.ack(0x40, got.id).await;
                acknowledged.insert(number);
            }
        }
        app.signal("KILL");
        app.ended().await;
        drop(passing);

        let app = App::run(&dir, &[]).await;
        let at = address(&app).await;
        let (mut kept, connack) = Raw::connect(at, &Hello::new(version, "kept").kept()).await;
        assert_eq!(connack[..2], [1, 0], "its session is there");
        publish(at, 40..41).await;
        let mut found = BTreeSet::new();
        while !found.is_superset(&(0..41).filter(|number| !acknowledged.contains(number)).collect()) {
            found.extend(take(&mut kept, 1).await);
        }
        app.stop().await;
    }
}

/// A passing member goes without an acknowledgement: what it had goes to the queue of those who are away, in the order it was published,
/// and is there after a kill.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_passing_member_leaves_waits_for_the_kept_one() {
    let dir = Dir::new();
    let app = App::run(&dir, &[]).await;
    let at = address(&app).await;
    member(at, &Hello::v5("kept").kept()).await.send(0xe0, &[]).await;
    away(&app, "kept").await;
    let mut passing = member(at, &Hello::v5("passing")).await;
    publish(at, 0..31).await;
    let mut seen = passing.receive_publish().await;
    while seen.payload != b"30" {
        seen = passing.receive_publish().await;
    }
    passing.send(0xe0, &[]).await;
    assert!(passing.is_closed().await);
    publish(at, 31..41).await;
    app.signal("KILL");
    app.ended().await;

    let app = App::run(&dir, &[]).await;
    let (mut kept, connack) = Raw::connect(address(&app).await, &Hello::v5("kept").kept()).await;
    assert_eq!(connack[..2], [1, 0]);
    let mut found = take(&mut kept, 41).await;
    found.sort_unstable();
    assert_eq!(found, (0..41).collect::<Vec<_>>(), "each once: none had been acknowledged");
    app.stop().await;
}

/// What a member leaves is more than another one has room for: it gets it as it makes room, and is not thrown out.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_member_leaves_waits_until_another_has_room() {
    const COUNT: u16 = 1_000;
    let dir = Dir::new();
    dir.write("broker.toml", "[limits]\nqueue_bytes = 65536\n");
    let app = App::run(&dir, &[]).await;
    let at = address(&app).await;
    drop(member(at, &Hello::v5("kept").kept()).await);
    away(&app, "kept").await;
    let mut leaver = member(at, &Hello::v5("leaver")).await;
    let (mut publisher, _) = Raw::connect(at, &Hello::v5("orders")).await;
    let payload = vec![b'x'; 4 << 10];
    for number in 0..COUNT {
        publisher.publish("orders", &[&number.to_be_bytes(), payload.as_slice()].concat(), 1, number + 1, false).await;
        assert_eq!(publisher.receive().await.expect("a PUBACK").0, 0x40);
        leaver.receive_publish().await;
    }
    let mut slow = member(at, &Hello::v5("slow")).await;
    drop(leaver);
    away(&app, "leaver").await;
    let mut found = BTreeSet::new();
    while found.len() < usize::from(COUNT) {
        let got = slow.receive_publish().await;
        found.insert(u16::from_be_bytes([got.payload[0], got.payload[1]]));
        slow.ack(0x40, got.id).await;
    }
    assert_eq!(app.json("/api/v1/broker/stats").await["dropped"], 0);
    app.stop().await;
}
