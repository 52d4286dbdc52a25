//! How much, how large, in which order: Receive Maximum (4.9), Maximum Packet Size, topic aliases, order (4.6), ping.

use crate::kit::*;

fn receive_maximum(hello: Hello, count: u16) -> Hello {
    with(hello, &cat(&[&[0x21], &count.to_be_bytes()]))
}

/// Shows 3.1.1: [MQTT-3.12.4-1]
/// Shows 5.0: [MQTT-3.12.4-1]
#[tokio::test]
async fn pings_are_answered() {
    let broker = Running::start(|_| {});
    for version in BOTH {
        let mut client = client(&broker, version, "c").await;
        client.bytes(&[0xc0, 0].repeat(100)).await;
        for _ in 0..100 {
            expect(&mut client, 0xd0, &[], "PINGRESP").await;
        }
        ends_with(&broker, version, &[0xc0, 1, 0], 0x81, "a PINGREQ with a body").await;
    }
    broker.stop().await;
}

/// Shows 5.0: [MQTT-3.3.4-9] [MQTT-3.3.4-10] [MQTT-4.9.0-1] [MQTT-4.9.0-2] [MQTT-4.9.0-3]
#[tokio::test]
async fn receive_maximum_holds_for_fresh_and_for_resent_messages() {
    let broker = Running::start(|_| {});
    let mut subscriber = connected(&broker, receive_maximum(kept(V5, "sub", 600), 5)).await;
    subscriber.subscribe("t", 1).await;
    let mut publisher = client(&broker, V5, "pub").await;
    for number in 0..8u8 {
        deliver(&mut publisher, false, "t", &[], &[number]).await;
    }
    for number in 0..5u8 {
        assert_eq!(subscriber.receive_publish().await.payload, [number]);
    }
    // Everything else is answered all the same.
    nothing_more(&mut subscriber).await;
    assert_eq!(subscriber.subscribe("u", 0).await, 0);
    subscriber.publish("v", b"x", 1, 1, false).await;
    expect(&mut subscriber, 0x40, &[0, 1, 0x10], "PUBACK").await;
    subscriber.publish("v", b"x", 2, 2, false).await;
    expect(&mut subscriber, 0x50, &[0, 2, 0x10], "PUBREC").await;
    subscriber.ack(0x62, 2).await;
    expect(&mut subscriber, 0x70, &[0, 2], "PUBCOMP").await;
    let mut again = connected(&broker, receive_maximum(kept(V5, "sub", 600), 2)).await;
    for round in 0..4u8 {
        let pair = [again.receive_publish().await, again.receive_publish().await];
        nothing_more(&mut again).await;
        for (got, number) in pair.iter().zip([round * 2, round * 2 + 1]) {
            assert_eq!((got.payload[0], got.dup), (number, number < 5));
            again.ack(0x40, got.id).await;
        }
    }
    nothing_more(&mut again).await;
    broker.stop().await;
}

/// QoS 2 counts until PUBCOMP, or a PUBREC that refuses.
///
/// Shows 5.0: [MQTT-3.3.4-9] [MQTT-4.9.0-2]
#[tokio::test]
async fn what_gives_the_quota_back() {
    let broker = Running::start(|_| {});
    let mut subscriber = connected(&broker, receive_maximum(Hello::v5("sub"), 1)).await;
    subscriber.subscribe("t", 2).await;
    let mut publisher = client(&broker, V3, "pub").await;
    for id in 1..=3 {
        publisher.publish("t", &[id as u8], 2, id, false).await;
        expect(&mut publisher, 0x50, &[0, id as u8], "PUBREC").await;
    }
    let first = subscriber.receive_publish().await.id;
    subscriber.ack(0x50, first).await;
    expect(&mut subscriber, 0x62, &first.to_be_bytes(), "PUBREL").await;
    nothing_more(&mut subscriber).await;
    subscriber.ack(0x70, first).await;
    let second = subscriber.receive_publish().await;
    assert_eq!(second.payload, [2]);
    subscriber.send(0x50, &cat(&[&second.id.to_be_bytes(), &[0x80]])).await;
    assert_eq!(subscriber.receive_publish().await.payload, [3]);
    ends_with(&broker, V5, &packet(0x62, &[0, 0]), 0x82, "packet id 0").await;
    let zero = packet(0x10, &receive_maximum(Hello::v5("c"), 0).body());
    malformed_connect(&broker, V5, &zero, 0x82, "a receive maximum of 0").await;
    broker.stop().await;
}

/// The client that sends too much is disconnected; what it sent is not half known to its session.
///
/// Shows 5.0: [MQTT-3.3.4-7]
#[tokio::test]
async fn a_message_beyond_receive_maximum_can_be_sent_again_later() {
    let broker = Running::start(|settings| settings.limits.inflight = 3);
    for qos in [1, 2] {
        let mut publisher = connected(&broker, kept(V5, "pub", 600)).await;
        for id in 1..=4 {
            // All at once: at QoS 1 the answers could come in between.
            publisher.publish("t", b"x", 2, id, false).await;
        }
        while let Some((first, body)) = publisher.receive().await {
            assert!(first == 0x50 || (first, body[0]) == (0xe0, 0x93), "{first:02x} {body:?}");
        }
        let mut publisher = connected(&broker, kept(V5, "pub", 600)).await;
        publisher.publish("t", b"x", qos, 4, true).await;
        // What was on its way when the connection ended is answered on this one.
        let answer = loop {
            let (first, body) = publisher.receive().await.expect("an answer");
            if body[1] == 4 {
                break first;
            }
            assert_eq!(first, 0x50);
        };
        assert_eq!(answer, if qos == 1 { 0x40 } else { 0x50 });
        leave(publisher).await;
        leave(client(&broker, V5, "pub").await).await;
    }
    broker.stop().await;
}

/// What is larger than the client takes is not sent and counts as delivered, also when it was sent to an earlier connection that took more.
///
/// Shows 5.0: [MQTT-3.1.2-24] [MQTT-3.1.2-25]
#[tokio::test]
async fn a_message_larger_than_the_client_takes_counts_as_sent() {
    let broker = Running::start(|_| {});
    let hello = receive_maximum(kept(V5, "sub", 600), 2);
    let mut subscriber = connected(&broker, hello.clone()).await;
    subscriber.subscribe("t", 1).await;
    let mut publisher = client(&broker, V3, "pub").await;
    deliver(&mut publisher, false, "t", &[], &[7; 100]).await;
    deliver(&mut publisher, false, "t", &[], &[8; 100]).await;
    assert_eq!(subscriber.receive_publish().await.payload, [7; 100]);
    drop(subscriber);
    let smaller = with(hello, &[0x27, 0, 0, 0, 60]);
    let mut subscriber = connected(&broker, smaller).await;
    for payload in [&[9; 200][..], b"fits", &[9; 100]] {
        deliver(&mut publisher, false, "t", &[], payload).await;
    }
    // Fixed header 2, topic 3, packet id 2, properties 1.
    deliver(&mut publisher, false, "t", &[], &[1; 52]).await;
    deliver(&mut publisher, false, "t", &[], &[2; 53]).await;
    for expected in [&b"fits"[..], &[1; 52]] {
        let got = subscriber.receive_publish().await;
        assert_eq!((got.payload.as_slice(), got.dup), (expected, false));
        subscriber.ack(0x40, got.id).await;
    }
    nothing_more(&mut subscriber).await;
    let zero = packet(0x10, &with(Hello::v5("c"), &[0x27, 0, 0, 0, 0]).body());
    malformed_connect(&broker, V5, &zero, 0x82, "a maximum packet size of 0").await;
    broker.stop().await;
}

/// Shows 5.0: [MQTT-3.3.2-7] [MQTT-3.3.2-8] [MQTT-3.3.2-9] [MQTT-3.3.2-12] [MQTT-3.2.2-17] [MQTT-3.2.2-18]
#[tokio::test]
async fn topic_aliases_of_the_client() {
    let broker = Running::start(|_| {});
    let mut subscriber = client(&broker, V3, "sub").await;
    subscriber.subscribe("#", 0).await;
    let mut publisher = client(&broker, V5, "pub").await;
    for alias in 1..=32 {
        for topic in [format!("t/{alias}"), String::new()] {
            publisher.publish_with(0x30, &topic, 0, &[0x23, 0, alias], b"x").await;
            assert_eq!(subscriber.receive_publish().await.topic, format!("t/{alias}"));
        }
    }
    for (topic, alias, expected) in [("c", 1, "c"), ("", 1, "c"), ("", 32, "t/32")] {
        publisher.publish_with(0x30, topic, 0, &[0x23, 0, alias], b"x").await;
        assert_eq!(subscriber.receive_publish().await.topic, expected);
    }
    // Another connection, also of the same session, knows none of them.
    for (topic, alias, code) in [("", 0, 0x94), ("t", 0, 0x94), ("", 33, 0x94), ("t", 33, 0x94), ("", 2, 0x82)] {
        let bytes = publish_packet(V5, topic.as_bytes(), &[0x23, 0, alias]);
        ends_with(&broker, V5, &bytes, code, &format!("{topic} {alias}")).await;
        let mut publisher = connected(&broker, kept(V5, "pub", 600)).await;
        publisher.bytes(&bytes).await;
        ends(&mut publisher, code, &format!("{topic} {alias}")).await;
    }
    broker.stop().await;
    let broker = Running::start(|settings| settings.limits.topic_aliases = 0);
    let (mut publisher, connack) = Raw::connect(broker.address, &Hello::v5("pub")).await;
    assert!(!of_connack(&connack).contains_key(&0x22));
    publisher.bytes(&publish_packet(V5, b"t", &[0x23, 0, 1])).await;
    ends(&mut publisher, 0x94, "no aliases").await;
    broker.stop().await;
}

/// Topic and alias of a message to a client of 5.0.
fn topic_and_alias(got: &Got) -> (String, Option<u16>) {
    let alias = parsed(&got.properties).get(&0x23).map(|value| u16::from_be_bytes([value[0][0], value[0][1]]));
    (got.topic.clone(), alias)
}

/// Shows 5.0: [MQTT-3.1.2-26] [MQTT-3.1.2-27] [MQTT-3.3.2-7] [MQTT-3.3.2-8] [MQTT-3.3.2-11]
#[tokio::test]
async fn topic_aliases_of_the_broker() {
    let broker = Running::start(|_| {});
    let mut publisher = client(&broker, V3, "pub").await;
    for maximum in [None, Some(0), Some(1), Some(3), Some(u16::MAX)] {
        let block = maximum.map_or_else(Vec::new, |count: u16| cat(&[&[0x22], &count.to_be_bytes()]));
        for _ in 0..2 {
            let mut subscriber = connected(&broker, with(kept(V5, "sub", 600), &block)).await;
            subscriber.subscribe("#", 0).await;
            let mut known = std::collections::BTreeMap::new();
            for round in 0..3 {
                for number in 0..5 {
                    let topic = format!("t/{number}");
                    deliver(&mut publisher, false, &topic, &[], &[round]).await;
                    let got = subscriber.receive_publish().await;
                    let (named, alias) = topic_and_alias(&got);
                    assert_eq!(got.payload, [round]);
                    match alias {
                        None => assert_eq!(named, topic),
                        Some(alias) => {
                            assert!((1..=maximum.unwrap_or(0)).contains(&alias), "{alias} of {maximum:?}");
                            if !named.is_empty() {
                                known.insert(alias, named);
                            }
                            assert_eq!(known.get(&alias), Some(&topic));
                        }
                    }
                }
            }
        }
    }
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-4.6.0-5] [MQTT-4.6.0-6]
/// Shows 5.0: [MQTT-4.6.0-5] [MQTT-4.6.0-6]
#[tokio::test]
async fn messages_and_answers_keep_their_order() {
    let broker = Running::start(|_| {});
    for version in BOTH {
        let mut subscriber = client(&broker, version, "sub").await;
        subscriber.subscribe("t/+", 2).await;
        let mut publisher = client(&broker, version, "pub").await;
        for id in 1..=200u16 {
            let topic = if id % 5 == 0 { "$forbidden".to_owned() } else { format!("t/{}", id % 3) };
            publisher.publish(&topic, &id.to_be_bytes(), 1 + (id % 2) as u8, id, false).await;
        }
        for id in 1..=200u16 {
            let (first, body) = publisher.receive().await.unwrap();
            let expected = if id % 2 == 0 { 0x40 } else { 0x50 };
            assert_eq!((first, &body[..2]), (expected, id.to_be_bytes().as_slice()));
        }
        for id in (1..=200u16).filter(|id| id % 5 != 0) {
            assert_eq!(subscriber.receive_publish().await.payload, id.to_be_bytes());
        }
    }
    broker.stop().await;
}
