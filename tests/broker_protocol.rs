//! What the broker promises beyond the standard, packet by packet over real sockets; `tests/conformance.rs` has what MQTT demands.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use sense_butler::{
    broker::message::{Door, Publication},
    names::TopicName,
};
use support::{
    raw::{Hello, Raw},
    running::Running,
};

async fn connected(broker: &Running, hello: Hello) -> Raw {
    let (raw, connack) = Raw::connect(broker.address, &hello).await;
    assert_eq!(connack[1], 0);
    raw
}

/// What the broker acknowledged before it was told to stop is still delivered before its last word.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_messages_before_the_stop_arrive() {
    for round in 0..20u8 {
        let broker = Running::start(|_| {});
        let mut subscriber = connected(&broker, Hello::v5("sub")).await;
        subscriber.subscribe("state", 1).await;
        let publisher = broker.handle.publisher(Door::Internal);
        let message = Publication::new(TopicName::new("state").unwrap(), vec![round; 50_000]);
        for _ in 0..20 {
            assert!(publisher.submit(&message).await.unwrap().wait().await.unwrap());
        }
        broker.stop.cancel();
        for number in 0..20 {
            let (first, body) = subscriber.receive().await.unwrap();
            assert_eq!(first >> 4, 3, "round {round}, message {number}: {body:?}");
        }
        assert_eq!(subscriber.receive().await, Some((0xe0, vec![0x8b])));
        drop(subscriber);
        broker.stop().await;
    }
}

/// Publishers that sent much at once and are now silent leave the bus to others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_publishers_hold_no_room_on_the_bus() {
    let broker = Running::start(|_| {});
    let mut busy = Vec::new();
    for number in 0..60 {
        busy.push(connected(&broker, Hello::v3(&format!("busy{number}"))).await);
    }
    let floods = busy.into_iter().map(|mut publisher| {
        tokio::spawn(async move {
            for _ in 0..40 {
                publisher.publish("nobody", &vec![0; 30_000], 0, 0, false).await;
            }
            publisher.send(0xc0, &[]).await;
            assert_eq!(publisher.receive().await.unwrap().0, 0xd0);
            publisher.publish("nobody", b"", 1, 1, false).await;
            assert_eq!(publisher.receive().await.unwrap().0, 0x40);
            publisher
        })
    });
    let mut silent = Vec::new();
    for flood in floods.collect::<Vec<_>>() {
        silent.push(flood.await.unwrap());
    }
    // Needs the whole window.
    let mut other = connected(&broker, Hello::v3("other")).await;
    other.publish("nobody", &vec![0; 2 << 20], 1, 1, false).await;
    assert_eq!(other.receive().await, Some((0x40, vec![0, 1])));
    drop(silent);
    broker.stop().await;
}
