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

/// A connection whose messages wait, because a slow subscriber holds their publisher, is taken over: what the next one sends comes after them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_taken_over_connection_had_sent_comes_before_what_its_successor_sends() {
    let broker = Running::start(|settings| settings.limits.queue_bytes = 256 << 10);
    let mut subscriber = connected(&broker, Hello::v3("subscriber")).await;
    subscriber.subscribe("t", 1).await;
    let (mut sent, mut slow_ones) = (0u8, Vec::new());
    let mut publisher = connected(&broker, Hello::v3("publisher").kept()).await;
    for round in 1..=3u16 {
        // Takes one unacknowledged message at a time (Receive Maximum) and acknowledges none.
        let hello = Hello { properties: vec![0x21, 0, 1], ..Hello::v5(&format!("slow{round}")) };
        let mut slow = connected(&broker, hello).await;
        let topic = format!("slow/{round}");
        slow.subscribe(&topic, 1).await;
        slow_ones.push(slow);
        // From the second acknowledgement on, more waits for the slow one than may.
        for id in [1, 2] {
            publisher.publish(&topic, &vec![0; 200_000], 1, id, false).await;
            assert_eq!(publisher.receive().await, Some((0x40, vec![0, id as u8])), "round {round}");
        }
        for (qos, id) in [(0, 0), (1, 3), (2, 4), (0, 0)] {
            sent += 1;
            publisher.publish("t", &[sent], qos, id, false).await;
        }
        publisher.send(0xc0, &[]).await;
        assert_eq!(
            publisher.receive().await,
            Some((0xd0, vec![])),
            "the ping is answered, the messages before it wait"
        );
        let (mut successor, connack) = Raw::connect(broker.address, &Hello::v3("publisher").kept()).await;
        assert_eq!(connack, [1, 0]);
        successor.publish("t", &[sent - 2], 1, 3, true).await;
        successor.publish("t", &[sent - 1], 2, 4, true).await;
        sent += 1;
        successor.publish("t", &[sent], 0, 0, false).await;
        publisher = successor;
        let mut acknowledged = [publisher.receive().await.unwrap(), publisher.receive().await.unwrap()];
        acknowledged.sort();
        assert_eq!(acknowledged, [(0x40, vec![0, 3]), (0x50, vec![0, 4])]);
        publisher.ack(0x62, 4).await;
        assert_eq!(publisher.receive().await, Some((0x70, vec![0, 4])));
    }
    assert_eq!(slow_ones.len(), 3);
    let mut seen = Vec::new();
    while seen.last() != Some(&sent) {
        let got = subscriber.receive_publish().await;
        if got.qos == 1 {
            subscriber.ack(0x40, got.id).await;
        }
        // QoS 1 was sent twice.
        if !(got.qos == 1 && seen.contains(&got.payload[0])) {
            seen.push(got.payload[0]);
        }
    }
    assert_eq!(seen, (1..=sent).collect::<Vec<_>>());
    broker.stop().await;
}
