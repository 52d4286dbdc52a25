//! Stopping from outside: SIGTERM and SIGINT under load, with peers that hang. The 5 seconds are promised.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "support/app.rs"]
mod app;
#[path = "support/mqtt.rs"]
mod mqtt;

use std::{net::TcpStream, time::Duration};

use app::{App, Dir, FREE_PORTS};
use mqtt::{Client, options};
use rumqttc::{AsyncClient, QoS};
use tokio::task::JoinHandle;

const STATE: &str = "qliksense/butler/state";
const PROMISED: Duration = Duration::from_secs(5);

/// Publishes without a pause until the connection ends.
fn publish_for_ever(port: u16, qos: QoS) -> JoinHandle<u32> {
    let (client, mut events) = AsyncClient::new(options(port, &format!("load-{}", qos as u8)), 10);
    tokio::spawn(async move {
        let publishing = tokio::spawn(async move {
            let mut sent = 0_u32;
            while client.publish("load", qos, false, vec![b'x'; 256]).await.is_ok() {
                sent += 1;
            }
            sent
        });
        while events.poll().await.is_ok() {}
        drop(events);
        publishing.await.unwrap()
    })
}

async fn stops_in_order(signal: &str) {
    let dir = Dir::new();
    let app = App::run(&dir, &[]).await;
    let port = app.mqtt().await;
    let mut witness = Client::connect(port, "witness").await;
    witness.subscribe(STATE, QoS::AtLeastOnce).await;
    // It is said once the program is ready, which may be seen before it is heard.
    witness.find(|state| state.payload == r#"{"state":"online"}"#.as_bytes()).await;
    let mut late = Client::connect(port, "late").await;
    late.subscribe(STATE, QoS::AtLeastOnce).await;
    let state = late.next().await;
    assert_eq!((state.retain, state.payload), (true, r#"{"state":"online"}"#.into()), "retained for the late");
    drop(late);

    let load = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce].map(|qos| publish_for_ever(port, qos));
    let mut receiver = Client::connect(port, "receiver").await;
    receiver.subscribe("load", QoS::ExactlyOnce).await;
    // Peers that will not say goodbye: one that never spoke at each door, one that subscribes and does not read.
    let silent = [port, app.rest().await].map(|port| TcpStream::connect(("127.0.0.1", port)).unwrap());
    let (deaf, mut deaf_events) = AsyncClient::new(options(port, "deaf"), 10);
    deaf.subscribe("load", QoS::AtMostOnce).await.unwrap();
    while !matches!(deaf_events.poll().await.unwrap(), rumqttc::Event::Incoming(rumqttc::Packet::SubAck(_))) {}
    for _ in 0..500 {
        receiver.next().await;
    }

    app.signal(signal);
    let (ended, offline) = tokio::join!(app.ended(), witness.next());
    assert_eq!((offline.topic.as_str(), offline.payload), (STATE, r#"{"state":"offline"}"#.into()));
    assert_eq!(ended.status.code(), Some(0), "{}", ended.output);
    assert!(ended.took < PROMISED, "{:?}\n{}", ended.took, ended.output);
    assert!(!ended.output.contains("panicked") && !ended.output.contains("ERROR"), "{}", ended.output);
    for load in load {
        assert!(load.await.unwrap() > 0);
    }
    drop((silent, deaf));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sigterm_under_load() {
    stops_in_order("TERM").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_under_load() {
    stops_in_order("INT").await;
}

/// A signal that comes before the program is ready, or a second one while it stops, changes nothing of the promise.
#[tokio::test]
async fn early_and_repeated_signals() {
    let dir = Dir::new();
    let app = App::start(&dir, &[&["run"], &FREE_PORTS[..]].concat());
    app.printed(|text| text.contains("UDP on ").then_some(())).await;
    for _ in 0..3 {
        app.signal("TERM");
    }
    let ended = app.ended().await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.output);
    assert!(ended.took < PROMISED, "{:?}", ended.took);
}

#[tokio::test]
async fn the_demo_stops_too() {
    let dir = Dir::new();
    let mut app = App::start(&dir, &[&["demo"], &FREE_PORTS[..], &["--qrs", "127.0.0.1:0"]].concat());
    app.wait_until_ready().await;
    app.signal("INT");
    let ended = app.ended().await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.output);
    assert!(ended.took < PROMISED && ended.output.contains(r#"{"state":"offline"}"#), "{}", ended.output);
}
