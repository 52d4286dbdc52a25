//! Retained messages (section 3.3.1.3) and the options of a subscription that concern them.

use crate::kit::*;

/// A message (QoS, RETAIN, payload) and what is retained after it (payload, QoS).
type Step = (u8, bool, &'static str, Option<(&'static str, u8)>);

/// Shows 3.1.1: [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-8] [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11]
/// Shows 3.1.1: [MQTT-3.3.1-12]
/// Shows 5.0: [MQTT-3.3.1-5] [MQTT-3.3.1-6] [MQTT-3.3.1-7] [MQTT-3.3.1-8] [MQTT-3.3.1-9]
#[tokio::test]
async fn the_last_retained_message_of_a_topic_is_kept() {
    let broker = Running::start(|_| {});
    for version in BOTH {
        let mut watcher = client(&broker, version, "watcher").await;
        watcher.subscribe("r/+", 0).await;
        let mut publisher = client(&broker, version, "pub").await;
        let steps: [Step; 8] = [
            (1, true, "first", Some(("first", 1))),
            (2, true, "second", Some(("second", 2))),
            (0, true, "third", Some(("third", 0))),
            (2, false, "live", Some(("third", 0))),
            (1, false, "", Some(("third", 0))),
            (1, true, "", None),
            (1, true, "", None),
            (0, true, "anew", Some(("anew", 0))),
        ];
        for (qos, retain, payload, kept) in steps {
            publisher.publish_with(0x30 | qos << 1 | u8::from(retain), "r/1", 5, &[], payload.as_bytes()).await;
            match qos {
                0 => nothing_more(&mut publisher).await,
                1 => assert_eq!(publisher.receive().await.unwrap().0, 0x40),
                _ => {
                    publisher.receive().await.unwrap();
                    publisher.ack(0x62, 5).await;
                    expect(&mut publisher, 0x70, &[0, 5], "PUBCOMP").await;
                }
            }
            let live = watcher.receive_publish().await;
            assert_eq!((live.payload.as_slice(), live.retain), (payload.as_bytes(), false));
            let mut later = client(&broker, version, "later").await;
            for filter in ["r/1", "#"] {
                later.subscribe(filter, 2).await;
                if let Some((payload, qos)) = kept {
                    let got = later.receive_publish().await;
                    assert_eq!((got.payload.as_slice(), got.qos, got.retain), (payload.as_bytes(), qos, true));
                }
            }
            nothing_more(&mut later).await;
        }
        deliver(&mut publisher, true, "r/1", &[], b"").await;
    }
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-3.8.4-3]
/// Shows 5.0: [MQTT-3.3.1-9] [MQTT-3.3.1-10] [MQTT-3.3.1-11] [MQTT-3.8.4-3] [MQTT-3.8.4-4]
#[tokio::test]
async fn retain_handling() {
    let broker = Running::start(|_| {});
    let mut publisher = client(&broker, V5, "pub").await;
    deliver(&mut publisher, true, "r", &[], b"old").await;
    let mut client = client(&broker, V5, "sub").await;
    // 2, then 1 for a subscription that exists, then 0 as often as it is asked for.
    for (options, sent) in [(0x20, false), (0x10, false), (0x00, true), (0x01, true), (0x21, false), (0x11, false)] {
        assert_eq!(client.subscribe("r", options).await, options & 3);
        if sent {
            let got = client.receive_publish().await;
            assert_eq!((got.payload.as_slice(), got.retain), (b"old".as_slice(), true));
        }
        nothing_more(&mut client).await;
    }
    client.bytes(&unsubscribe_packet(V5, b"r")).await;
    expect(&mut client, 0xb0, &[0, 1, 0, 0], "UNSUBACK").await;
    client.subscribe("r", 0x10).await;
    assert!(client.receive_publish().await.retain, "handling 1, and the subscription is new");
    // 3.1.1 gets them each time.
    let mut old = self::client(&broker, V3, "old").await;
    for qos in [0, 1, 0] {
        assert_eq!(old.subscribe("r", qos).await, qos);
        assert!(old.receive_publish().await.retain);
    }
    // Nothing for shared subscriptions, whatever the handling (section 4.8.2).
    for options in [0, 0x10, 0x20] {
        client.subscribe("$share/g/r", options).await;
        nothing_more(&mut client).await;
    }
    ends_with(&broker, V5, &subscribe_packet(V5, b"r", 0x30), 0x82, "retain handling 3").await;
    broker.stop().await;
}

/// Shows 5.0: [MQTT-3.3.1-12] [MQTT-3.3.1-13]
#[tokio::test]
async fn retain_as_published() {
    let broker = Running::start(|_| {});
    let mut publisher = client(&broker, V5, "pub").await;
    let mut clients = Vec::new();
    for (id, options, filter) in [("cleared", 0x20, "r"), ("kept", 0x28, "r"), ("shared", 0x28, "$share/g/r")] {
        let mut client = client(&broker, V5, id).await;
        client.subscribe(filter, options).await;
        clients.push((client, options & 8 > 0));
    }
    for retain in [true, false, true] {
        deliver(&mut publisher, retain, "r", &[], b"x").await;
        for (client, as_published) in &mut clients {
            assert_eq!(client.receive_publish().await.retain, retain && *as_published);
        }
    }
    broker.stop().await;
}

/// What a subscription replaces is replaced without a gap.
///
/// Shows 3.1.1: [MQTT-3.8.4-3]
/// Shows 5.0: [MQTT-3.8.4-3] [MQTT-3.8.4-4]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn subscribing_again_loses_nothing() {
    let broker = Running::start(|_| {});
    for version in BOTH {
        let mut subscriber = client(&broker, version, "sub").await;
        assert_eq!(subscriber.subscribe("t", 0).await, 0);
        let mut publisher = client(&broker, version, "pub").await;
        let flood = tokio::spawn(async move {
            for number in 0..1_000_u16 {
                publisher.publish("t", &number.to_be_bytes(), 0, 0, false).await;
            }
            nothing_more(&mut publisher).await;
        });
        let mut next = 0_u16;
        while next < 1_000 {
            subscriber.bytes(&subscribe_packet(version, b"t", 0)).await;
            loop {
                let (first, body) = subscriber.receive().await.unwrap();
                if first == 0x90 {
                    break;
                }
                let got = subscriber.read_publish(first, &body);
                assert_eq!(got.payload, next.to_be_bytes());
                next += 1;
            }
        }
        flood.await.unwrap();
    }
    broker.stop().await;
}

/// Retained messages come all, also where they are larger together than the queue of a session.
///
/// Shows 3.1.1: [MQTT-3.3.1-6]
/// Shows 5.0: [MQTT-3.3.1-9]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retained_messages_larger_than_the_queue() {
    let broker = Running::start(|_| {});
    let mut publisher = client(&broker, V3, "pub").await;
    for number in 0..200u32 {
        deliver(&mut publisher, true, &format!("r/{number}"), &[], &vec![7; 100_000]).await;
    }
    for (version, qos) in [(V5, 0), (V5, 1), (V3, 1)] {
        let mut subscriber = client(&broker, version, "sub").await;
        assert_eq!(subscriber.subscribe("r/#", qos).await, qos);
        let mut topics = std::collections::BTreeSet::new();
        for _ in 0..200 {
            let got = subscriber.receive_publish().await;
            assert!(got.retain && got.payload.len() == 100_000 && topics.insert(got.topic));
            if qos > 0 {
                subscriber.ack(0x40, got.id).await;
            }
        }
        nothing_more(&mut subscriber).await;
    }
    broker.stop().await;
}
