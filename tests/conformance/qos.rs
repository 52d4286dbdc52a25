//! The handshakes of QoS 0, 1 and 2 (sections 4.3, 4.4), both ways.

use std::{collections::BTreeSet, time::Duration};

use crate::kit::*;

/// Every exchange, packet by packet: what a publisher hears.
///
/// Shows 3.1.1: [MQTT-2.3.1-6] [MQTT-3.3.4-1] [MQTT-4.3.2-2] [MQTT-4.3.3-2]
/// Shows 5.0: [MQTT-2.2.1-5] [MQTT-3.3.4-1] [MQTT-4.3.2-4] [MQTT-4.3.2-5] [MQTT-4.3.3-8] [MQTT-4.3.3-10] [MQTT-4.3.3-11]
/// Shows 5.0: [MQTT-4.3.3-12] [MQTT-3.4.2-1] [MQTT-3.5.2-1] [MQTT-3.7.2-1]
#[tokio::test]
async fn what_the_broker_receives_is_answered_and_taken_once() {
    let broker = Running::start(|_| {});
    let mut subscriber = client(&broker, V3, "sub").await;
    subscriber.subscribe("t", 0).await;
    for version in BOTH {
        let mut publisher = client(&broker, version, "pub").await;
        publisher.publish("t", b"0", 0, 0, false).await;
        nothing_more(&mut publisher).await;
        // After its PUBACK an id is new, also with DUP.
        for (id, dup) in [(7, false), (7, true), (0xffff, false)] {
            publisher.publish("t", b"1", 1, id, dup).await;
            expect(&mut publisher, 0x40, &id.to_be_bytes(), "PUBACK").await;
        }
        for id in [7_u16, 0xffff, 7] {
            for dup in [false, true, false] {
                publisher.publish("t", b"2", 2, id, dup).await;
                expect(&mut publisher, 0x50, &id.to_be_bytes(), "PUBREC").await;
            }
            publisher.ack(0x62, id).await;
            expect(&mut publisher, 0x70, &id.to_be_bytes(), "PUBCOMP").await;
        }
        for payload in ["0", "1", "1", "1", "2", "2", "2"] {
            let got = subscriber.receive_publish().await;
            assert_eq!((got.payload.as_slice(), got.dup), (payload.as_bytes(), false), "{version}");
        }
        nothing_more(&mut subscriber).await;
    }
    broker.stop().await;
}

/// The same across connections of a session: QoS 2 is exactly once.
///
/// Shows 3.1.1: [MQTT-4.3.3-2]
/// Shows 5.0: [MQTT-4.3.3-10] [MQTT-4.3.3-12] [MQTT-4.3.3-13]
#[tokio::test]
async fn an_id_that_is_open_stays_open_with_the_session() {
    let broker = Running::start(|_| {});
    let mut subscriber = client(&broker, V3, "sub").await;
    subscriber.subscribe("t", 0).await;
    for version in BOTH {
        let hello = || kept(version, "pub", 600);
        // An expiry of 0: nobody gets it any more, and the handshake goes on.
        let expired: &[u8] = if version == V5 { &[2, 0, 0, 0, 0] } else { &[] };
        let mut publisher = connected(&broker, hello()).await;
        publisher.publish_with(0x34, "t", 5, &[], b"once").await;
        expect(&mut publisher, 0x50, &[0, 5], "PUBREC").await;
        publisher.publish_with(0x34, "e", 6, expired, b"expired").await;
        expect(&mut publisher, 0x50, if version == V5 { &[0, 6, 0x10] } else { &[0, 6] }, "PUBREC").await;
        drop(publisher);
        let mut publisher = connected(&broker, hello()).await;
        for id in [5, 6] {
            publisher.publish("t", b"again", 2, id, true).await;
            expect(&mut publisher, 0x50, &[0, id as u8], "PUBREC again").await;
            publisher.ack(0x62, id).await;
            expect(&mut publisher, 0x70, &[0, id as u8], "PUBCOMP").await;
        }
        publisher.publish("t", b"new", 2, 5, false).await;
        expect(&mut publisher, 0x50, &[0, 5], "PUBREC").await;
        for payload in ["once", "new"] {
            assert_eq!(subscriber.receive_publish().await.payload, payload.as_bytes());
        }
        nothing_more(&mut subscriber).await;
        drop((publisher, client(&broker, version, "pub").await));
    }
    broker.stop().await;
}

/// Shows 5.0: [MQTT-4.3.3-9] [MQTT-3.5.2-1]
#[tokio::test]
async fn a_refused_id_is_new_again() {
    let broker = Running::start(|_| {});
    let mut publisher = client(&broker, V5, "pub").await;
    for _ in 0..2 {
        publisher.publish("$forbidden", b"x", 2, 5, false).await;
        expect(&mut publisher, 0x50, &[0, 5, 0x87], "refused").await;
    }
    publisher.publish("t", b"x", 2, 5, true).await;
    expect(&mut publisher, 0x50, &[0, 5, 0x10], "taken; nobody wants it").await;
    publisher.ack(0x62, 5).await;
    expect(&mut publisher, 0x70, &[0, 5], "PUBCOMP").await;
    broker.stop().await;
}

/// What a subscriber gets, leaves unanswered, and gets again.
///
/// Shows 3.1.1: [MQTT-2.3.1-4] [MQTT-2.3.1-5] [MQTT-2.3.1-6] [MQTT-3.3.1-1] [MQTT-3.3.1-2] [MQTT-4.3.1-1] [MQTT-4.3.2-1]
/// Shows 3.1.1: [MQTT-4.3.3-1] [MQTT-4.4.0-1] [MQTT-4.6.0-6]
/// Shows 5.0: [MQTT-2.2.1-2] [MQTT-2.2.1-4] [MQTT-2.2.1-5] [MQTT-3.3.1-1] [MQTT-3.3.1-2] [MQTT-4.3.1-1] [MQTT-4.3.2-1]
/// Shows 5.0: [MQTT-4.3.2-2] [MQTT-4.3.2-3] [MQTT-4.3.3-1] [MQTT-4.3.3-2] [MQTT-4.3.3-3] [MQTT-4.3.3-4] [MQTT-4.3.3-5]
/// Shows 5.0: [MQTT-4.3.3-6] [MQTT-4.4.0-1] [MQTT-3.6.2-1]
#[tokio::test]
async fn what_is_not_acknowledged_is_sent_again_when_the_session_goes_on() {
    let broker = Running::start(|_| {});
    let mut publisher = client(&broker, V3, "pub").await;
    for version in BOTH {
        let hello = || kept(version, "sub", 600);
        let mut subscriber = connected(&broker, hello()).await;
        for qos in 0..3 {
            subscriber.subscribe(&qos.to_string(), qos).await;
        }
        let mut open = Vec::new();
        for number in 0..9_u8 {
            let qos = number % 3;
            publisher.publish_with(0x34, &qos.to_string(), 3, &[], &[number]).await;
            expect(&mut publisher, 0x50, &[0, 3], "PUBREC").await;
            publisher.ack(0x62, 3).await;
            expect(&mut publisher, 0x70, &[0, 3], "PUBCOMP").await;
            let got = subscriber.receive_publish().await;
            assert_eq!((got.qos, got.dup, &got.payload), (qos, false, &vec![number]));
            if qos > 0 {
                open.push(got);
            } else {
                // Neither an id nor anything else stands before the payload.
                assert_eq!(got.id, 0);
            }
        }
        let ids: BTreeSet<u16> = open.iter().map(|got| got.id).collect();
        assert!(ids.len() == 6 && !ids.contains(&0), "{ids:?}");
        nothing_more(&mut subscriber).await;
        // 1: QoS 1, acknowledged. 2: QoS 2, PUBREC sent. 4 and 5: nothing. 7: QoS 1, acknowledged out of turn. 8: completed.
        let of = |number: u8| open.iter().find(|got| got.payload == [number]).unwrap().id;
        subscriber.ack(0x40, of(1)).await;
        subscriber.ack(0x40, of(7)).await;
        for number in [2, 8] {
            subscriber.ack(0x50, of(number)).await;
            expect(&mut subscriber, 0x62, &of(number).to_be_bytes(), "PUBREL").await;
        }
        subscriber.ack(0x70, of(8)).await;
        nothing_more(&mut subscriber).await;
        for _ in 0..2 {
            drop(subscriber);
            subscriber = connected(&broker, hello()).await;
            expect(&mut subscriber, 0x62, &of(2).to_be_bytes(), "PUBREL again, and no PUBLISH").await;
            for number in [4, 5] {
                let got = subscriber.receive_publish().await;
                let expected = (number, of(number), true, number % 3);
                assert_eq!((got.payload[0], got.id, got.dup, got.qos), expected);
            }
            nothing_more(&mut subscriber).await;
        }
        subscriber.ack(0x70, of(2)).await;
        subscriber.ack(0x40, of(4)).await;
        subscriber.ack(0x50, of(5)).await;
        expect(&mut subscriber, 0x62, &of(5).to_be_bytes(), "PUBREL").await;
        subscriber.ack(0x70, of(5)).await;
        drop(subscriber);
        let mut subscriber = connected(&broker, hello()).await;
        nothing_more(&mut subscriber).await;
        leave(subscriber).await;
        leave(client(&broker, version, "sub").await).await;
    }
    broker.stop().await;
}

/// Shows 5.0: [MQTT-4.4.0-2]
#[tokio::test]
async fn what_a_client_refuses_is_not_sent_again() {
    let broker = Running::start(|_| {});
    let mut publisher = client(&broker, V3, "pub").await;
    let mut subscriber = connected(&broker, kept(V5, "sub", 600)).await;
    subscriber.subscribe("t", 2).await;
    for (qos, first) in [(1, 0x40), (2, 0x50)] {
        publisher.publish("t", b"x", qos, 3, false).await;
        publisher.receive().await.unwrap();
        let id = subscriber.receive_publish().await.id.to_be_bytes();
        subscriber.send(first, &[id[0], id[1], 0x83]).await;
        nothing_more(&mut subscriber).await;
    }
    drop(subscriber);
    let mut subscriber = connected(&broker, kept(V5, "sub", 600)).await;
    nothing_more(&mut subscriber).await;
    broker.stop().await;
}

/// Shows 5.0: [MQTT-4.3.3-7]
#[tokio::test]
async fn what_was_sent_does_not_expire() {
    let broker = Running::start(|_| {});
    let mut publisher = client(&broker, V5, "pub").await;
    let mut subscriber = connected(&broker, kept(V5, "sub", 600)).await;
    subscriber.subscribe("t", 2).await;
    publisher.publish_with(0x34, "t", 3, &[2, 0, 0, 0, 1], b"x").await;
    publisher.receive().await.unwrap();
    let sent = subscriber.receive_publish().await;
    drop(subscriber);
    // The clock of expiry is the system's; there is no other way than to let it run.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let mut subscriber = connected(&broker, kept(V5, "sub", 600)).await;
    let again = subscriber.receive_publish().await;
    assert_eq!((again.id, again.dup, again.qos, again.payload.as_slice()), (sent.id, true, 2, b"x".as_slice()));
    broker.stop().await;
}

/// Codes of the broker's own acknowledgements, and those of clients: only the ones the tables have. No reason strings, no user properties.
///
/// Shows 5.0: [MQTT-3.1.2-29] [MQTT-3.4.2-1] [MQTT-3.4.2-2] [MQTT-3.4.2-3] [MQTT-3.5.2-1] [MQTT-3.5.2-2] [MQTT-3.5.2-3]
/// Shows 5.0: [MQTT-3.6.2-1] [MQTT-3.6.2-2] [MQTT-3.6.2-3] [MQTT-3.7.2-1] [MQTT-3.7.2-2] [MQTT-3.7.2-3]
/// Shows 5.0: [MQTT-3.9.2-1] [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2]
#[tokio::test]
async fn acknowledgements_are_codes_and_nothing_else() {
    let broker = Running::start(|settings| settings.limits.subscriptions = 1);
    for wanted in [&[][..], &[0x17, 0], &[0x17, 1]] {
        let mut client = connected(&broker, with(Hello::v5("c"), wanted)).await;
        client.publish("t", b"x", 1, 1, false).await;
        expect(&mut client, 0x40, &[0, 1, 0x10], "nobody wants it").await;
        client.publish("$x", b"x", 1, 1, false).await;
        expect(&mut client, 0x40, &[0, 1, 0x87], "forbidden").await;
        client.publish(&"/".repeat(200), b"x", 2, 1, false).await;
        expect(&mut client, 0x50, &[0, 1, 0x90], "too many levels").await;
        client.ack(0x62, 77).await;
        expect(&mut client, 0x70, &[0, 77, 0x92], "unknown id").await;
        client.ack(0x50, 78).await;
        expect(&mut client, 0x62, &[0, 78, 0x92], "unknown id").await;
        client
            .bytes(&packet(0x82, &cat(&[&[0, 9, 0], &field("t"), &[2], &field("u"), &[0], &field("#/"), &[0]])))
            .await;
        expect(&mut client, 0x90, &[0, 9, 0, 2, 0x97, 0x8f], "SUBACK").await;
        client.bytes(&packet(0xa2, &cat(&[&[0, 9, 0], &field("t"), &field("u"), &field("#/")]))).await;
        expect(&mut client, 0xb0, &[0, 9, 0, 0, 0x11, 0x8f], "UNSUBACK").await;
        // Late or stray ones are no reason to part.
        client.ack(0x40, 79).await;
        client.ack(0x70, 79).await;
        nothing_more(&mut client).await;
    }
    for first in [0x40, 0x50, 0x62, 0x70] {
        for code in [0x01, 0x81, 0x8e, 0xff] {
            ends_with(&broker, V5, &packet(first, &[0, 1, code]), 0x82, &format!("{first:02x} {code:02x}")).await;
        }
        ends_with(&broker, V3, &packet(first, &[0, 1, 0]), 0x81, "a code in 3.1.1").await;
    }
    let mut old = client(&broker, V3, "old").await;
    old.ack(0x62, 77).await;
    expect(&mut old, 0x70, &[0, 77], "3.1.1 has no code and completes the handshake").await;
    broker.stop().await;
}
