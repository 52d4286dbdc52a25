//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 to 3.11), topic filters (4.7), overlapping subscriptions (3.3.4 of 5.0).

use sense_butler::{
    broker::message::{Door, Publication},
    names::TopicName,
};

use crate::kit::*;

/// Shows 3.1.1: [MQTT-3.8.3-3] [MQTT-3.8.3-4] [MQTT-3.10.3-2]
/// Shows 5.0: [MQTT-3.8.3-2] [MQTT-3.8.3-4] [MQTT-3.8.3-5] [MQTT-3.10.3-2]
#[tokio::test]
async fn requests_that_end_the_connection() {
    let broker = Running::start(|_| {});
    let mut cases = 0;
    for version in BOTH {
        let none = cat(&[&[0, 1], &properties(version, &[])]);
        let mut table = vec![
            ("nothing to subscribe to", packet(0x82, &none), 0x82),
            ("nothing to unsubscribe from", packet(0xa2, &none), 0x82),
            ("no options", packet(0x82, &cat(&[&none, &field("a")])), 0x81),
            ("QoS 3", subscribe_packet(version, b"a", 3), if version == V5 { 0x82 } else { 0x81 }),
        ];
        let reserved = if version == V5 { vec![6, 7] } else { vec![2, 3, 4, 5, 6, 7] };
        table.extend(
            reserved.into_iter().map(|bit| ("a reserved bit", subscribe_packet(version, b"a", 1 << bit), 0x81)),
        );
        if version == V5 {
            table.extend([
                ("no local, shared", subscribe_packet(V5, b"$share/g/t", 4), 0x82),
                ("subscription id 0", packet(0x82, &cat(&[&[0, 1, 2, 0x0b, 0], &field("a"), &[0]])), 0x82),
                ("two subscription ids", packet(0x82, &cat(&[&[0, 1, 4, 0x0b, 1, 0x0b, 2], &field("a"), &[0]])), 0x82),
            ]);
        }
        for (case, bytes, code) in table {
            ends_with(&broker, version, &bytes, code, &format!("{version} {case}")).await;
            cases += 1;
        }
    }
    assert_eq!(cases, (4 + 6) + (4 + 2 + 3));
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-2.3.1-7] [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-4] [MQTT-3.8.4-5] [MQTT-3.9.3-1] [MQTT-3.9.3-2]
/// Shows 3.1.1: [MQTT-3.10.4-1] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT-4.7.3-1]
/// Shows 5.0: [MQTT-2.2.1-6] [MQTT-3.8.4-1] [MQTT-3.8.4-2] [MQTT-3.8.4-5] [MQTT-3.8.4-6] [MQTT-3.8.4-7] [MQTT-3.9.3-1]
/// Shows 5.0: [MQTT-3.9.3-2] [MQTT-3.10.4-1] [MQTT-3.10.4-4] [MQTT-3.10.4-5] [MQTT-3.10.4-6] [MQTT-3.11.3-1] [MQTT-3.11.3-2]
/// Shows 5.0: [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.3-1]
#[tokio::test]
async fn one_code_per_filter_in_their_order() {
    let broker = Running::start(|settings| settings.limits.subscriptions = 500);
    for version in BOTH {
        let mut client = client(&broker, version, "c").await;
        // Good ones of each QoS, and every tenth wrong in one of eight ways.
        let wrong = ["", "a/#/b", "a#", "a/b#", "a+", "+a/b", "#/", "a/+b"];
        let (mut subscribe, mut unsubscribe) = (vec![0x12, 0x34], vec![0x12, 0x35]);
        subscribe.extend(properties(version, &[]));
        unsubscribe.extend(properties(version, &[]));
        for number in 0..1_000 {
            let good = if number % 3 == 0 { format!("+/{number}/#") } else { format!("f/{number}") };
            let filter = if number % 10 == 9 { wrong[number / 10 % 8] } else { &good };
            text(&mut subscribe, filter.as_bytes());
            subscribe.push((number % 3) as u8);
            text(&mut unsubscribe, filter.as_bytes());
        }
        client.send(0x82, &subscribe).await;
        let (first, body) = client.receive().await.unwrap();
        let head = 2 + usize::from(version == V5);
        assert_eq!((first, &body[..2], body.len()), (0x90, &[0x12, 0x34][..], head + 1_000));
        let mut taken = 0;
        for (number, code) in body[head..].iter().enumerate() {
            let expected = match number {
                _ if number % 10 == 9 => 0x8f,
                _ if taken == 500 => 0x97,
                _ => {
                    taken += 1;
                    (number % 3) as u8
                }
            };
            let expected = if version == V3 && expected > 2 { 0x80 } else { expected };
            assert_eq!(*code, expected, "filter {number}");
        }
        client.send(0xa2, &unsubscribe).await;
        let (first, body) = client.receive().await.unwrap();
        assert_eq!((first, &body[..2]), (0xb0, &[0x12, 0x35][..]));
        let count = |wanted: u8| body[head.min(body.len())..].iter().filter(|code| **code == wanted).count();
        let expected = if version == V5 { (500, 400, 100) } else { (0, 0, 0) };
        assert_eq!((count(0), count(0x11), count(0x8f)), expected);
        deliver(&mut client, false, "f/1", &[], b"x").await;
        nothing_more(&mut client).await;
    }
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-3] [MQTT-3.10.4-5]
/// Shows 5.0: [MQTT-3.10.4-1] [MQTT-3.10.4-2] [MQTT-3.10.4-3] [MQTT-3.10.4-5]
#[tokio::test]
async fn unsubscribing() {
    let broker = Running::start(|_| {});
    for version in BOTH {
        let mut client = connected(&broker, kept(version, "c", 600)).await;
        for (filter, qos) in [("a/+", 2), ("a/b", 1), ("A/b", 0)] {
            client.subscribe(filter, qos).await;
        }
        let mut publisher = self::client(&broker, version, "pub").await;
        publisher.publish("a/b", b"begun", 2, 5, false).await;
        publisher.receive().await.unwrap();
        let begun = client.receive_publish().await.id;
        // Not equal, although each matches or is matched; nothing goes.
        let none: &[u8] = if version == V5 { &[0, 1, 0, 0x11] } else { &[0, 1] };
        let gone: &[u8] = if version == V5 { &[0, 1, 0, 0] } else { &[0, 1] };
        for other in ["#", "a/#", "+/b", "a/+/", "A/+", "$share/g/a/+"] {
            client.bytes(&unsubscribe_packet(version, other.as_bytes())).await;
            expect(&mut client, 0xb0, none, other).await;
        }
        for (filter, answer) in [("a/+", gone), ("a/+", none), ("a/b", gone)] {
            client.bytes(&unsubscribe_packet(version, filter.as_bytes())).await;
            expect(&mut client, 0xb0, answer, filter).await;
        }
        deliver(&mut publisher, false, "a/b", &[], b"late").await;
        deliver(&mut publisher, false, "A/b", &[], b"still").await;
        assert_eq!(client.receive_publish().await.payload, b"still");
        // What had begun is completed, also by another connection.
        drop(client);
        let mut client = connected(&broker, kept(version, "c", 600)).await;
        let again = client.receive_publish().await;
        assert_eq!((again.id, again.payload.as_slice(), again.dup), (begun, b"begun".as_slice(), true));
        client.ack(0x50, begun).await;
        expect(&mut client, 0x62, &begun.to_be_bytes(), "PUBREL").await;
        client.ack(0x70, begun).await;
        nothing_more(&mut client).await;
        leave(client).await;
        leave(self::client(&broker, version, "c").await).await;
    }
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-3.8.4-6]
/// Shows 5.0: [MQTT-3.8.4-8]
#[tokio::test]
async fn the_lower_qos_counts() {
    let broker = Running::start(|_| {});
    for version in BOTH {
        let mut publisher = client(&broker, version, "pub").await;
        for granted in 0..3 {
            for published in 0..3 {
                let mut subscriber = client(&broker, version, "sub").await;
                assert_eq!(subscriber.subscribe("t", granted).await, granted);
                publisher.publish_with(0x31 | published << 1, "t", 5, &[], b"x").await;
                let got = subscriber.receive_publish().await;
                assert_eq!(got.qos, granted.min(published));
                // The retained copy, too.
                subscriber.subscribe("t", granted).await;
                assert_eq!(subscriber.receive_publish().await.qos, granted.min(published));
                nothing_more(&mut subscriber).await;
                if published > 0 {
                    publisher.receive().await.unwrap();
                }
                if published == 2 {
                    publisher.ack(0x62, 5).await;
                    publisher.receive().await.unwrap();
                }
                deliver(&mut publisher, true, "t", &[], b"").await;
            }
        }
    }
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-3.8.3-2] [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.1-3] [MQTT-4.7.2-1] [MQTT-3.3.2-3] [MQTT-4.7.3-4]
/// Shows 5.0: [MQTT-4.7.0-1] [MQTT-4.7.1-1] [MQTT-4.7.1-2] [MQTT-4.7.2-1] [MQTT-3.3.2-3] [MQTT-4.5.0-1] [MQTT-4.7.3-4]
#[tokio::test]
async fn which_topics_a_filter_matches() {
    let broker = Running::start(|_| {});
    let topics = ["a", "a/", "/a", "a/b", "a/b/c", "a//c", "/", "$SYS/a", "$x", "$x/b", "A/b", "å/ö"];
    let table: [(&str, &[&str]); 16] = [
        ("#", &["a", "a/", "/a", "a/b", "a/b/c", "a//c", "/", "A/b", "å/ö"]),
        ("+", &["a"]),
        ("+/+", &["a/", "/a", "a/b", "/", "A/b", "å/ö"]),
        ("+/b", &["a/b", "A/b"]),
        ("/+", &["/a", "/"]),
        ("/#", &["/a", "/"]),
        ("+/#", &["a", "a/", "/a", "a/b", "a/b/c", "a//c", "/", "A/b", "å/ö"]),
        ("a/#", &["a", "a/", "a/b", "a/b/c", "a//c"]),
        ("a/+", &["a/", "a/b"]),
        ("a/+/c", &["a/b/c", "a//c"]),
        ("a//c", &["a//c"]),
        ("$x/#", &["$x", "$x/b"]),
        ("$SYS/+", &["$SYS/a"]),
        ("$x", &["$x"]),
        ("$x/+", &["$x/b"]),
        ("+/ö", &["å/ö"]),
    ];
    let inside = broker.handle.publisher(Door::Internal);
    for version in BOTH {
        for (filter, expected) in table {
            let mut subscriber = client(&broker, version, "sub").await;
            assert_eq!(subscriber.subscribe(filter, 0).await, 0);
            for topic in topics {
                let message = Publication::new(TopicName::new(topic).unwrap(), topic);
                inside.submit(&message).await.unwrap().wait().await.unwrap();
            }
            for topic in expected {
                assert_eq!(subscriber.receive_publish().await.topic, *topic, "{filter}");
            }
            nothing_more(&mut subscriber).await;
        }
    }
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-3.3.5-1]
/// Shows 5.0: [MQTT-3.3.4-2] [MQTT-3.3.4-3] [MQTT-3.3.4-4]
#[tokio::test]
async fn overlapping_subscriptions_give_one_copy_of_the_highest_qos() {
    let broker = Running::start(|_| {});
    for version in BOTH {
        let mut client = client(&broker, version, "c").await;
        let ids: [&[u8]; 4] = [&[0x0b, 1], &[0x0b, 2], &[], &[0x0b, 4]];
        for (number, (filter, qos)) in [("a/#", 0), ("a/+", 1), ("+/b", 0), ("other", 2)].into_iter().enumerate() {
            let ids = if version == V5 { ids[number] } else { &[] };
            assert_eq!(client.subscribe_with(filter, qos, ids).await, qos);
        }
        let mut publisher = self::client(&broker, version, "pub").await;
        deliver(&mut publisher, false, "a/b", &[], b"x").await;
        let got = client.receive_publish().await;
        assert_eq!(got.qos, 1);
        if version == V5 {
            assert_eq!(subscription_ids(&got), [1, 2]);
            // Subscribed again, an identifier is another or none.
            client.subscribe_with("a/#", 0, &[0x0b, 9]).await;
            client.subscribe("a/+", 0).await;
            deliver(&mut publisher, false, "a/b", &[], b"x").await;
            let got = client.receive_publish().await;
            assert_eq!((got.qos, subscription_ids(&got)), (0, vec![9]));
            // A retained message comes by the filter that was just asked for, and by no other.
            deliver(&mut publisher, true, "a/b", &[], b"x").await;
            assert_eq!(subscription_ids(&client.receive_publish().await), [9]);
            client.subscribe_with("+/b", 0, &[0x0b, 7]).await;
            let got = client.receive_publish().await;
            assert_eq!((got.retain, subscription_ids(&got)), (true, vec![7]));
            deliver(&mut publisher, true, "a/b", &[], b"").await;
            assert_eq!(subscription_ids(&client.receive_publish().await), [7, 9]);
        }
        nothing_more(&mut client).await;
    }
    broker.stop().await;
}

/// Shows 5.0: [MQTT-3.8.3-3]
#[tokio::test]
async fn no_local_keeps_a_message_from_who_sent_it() {
    let broker = Running::start(|_| {});
    let mut client = connected(&broker, kept(V5, "c", 600)).await;
    client.subscribe("t", 4).await;
    let mut other = self::client(&broker, V5, "o").await;
    client.publish("t", b"mine", 0, 0, false).await;
    deliver(&mut client, true, "t", &[], b"mine, retained").await;
    deliver(&mut other, false, "t", &[], b"theirs").await;
    assert_eq!(client.receive_publish().await.payload, b"theirs");
    // By client id, not by connection; and what is retained comes back as little.
    let mut client = connected(&broker, kept(V5, "c", 600)).await;
    client.subscribe("t", 4).await;
    nothing_more(&mut client).await;
    other.subscribe("t", 4).await;
    assert_eq!(other.receive_publish().await.payload, b"mine, retained");
    deliver(&mut other, true, "t", &[], b"theirs, retained").await;
    assert_eq!(client.receive_publish().await.payload, b"theirs, retained");
    nothing_more(&mut other).await;
    // A will comes from the client id, too.
    let will = Some(("t".to_owned(), "will".to_owned(), 0));
    drop(connected(&broker, Hello { will, ..kept(V5, "c", 600) }).await);
    assert_eq!(other.receive_publish().await.payload, b"will");
    let mut client = connected(&broker, kept(V5, "c", 600)).await;
    nothing_more(&mut client).await;
    broker.stop().await;
}

/// Of overlapping filters only those without No Local count for a message of the client itself: their QoS, their identifiers, their RETAIN.
///
/// Shows 5.0: [MQTT-3.8.3-3] [MQTT-3.3.4-2] [MQTT-3.3.4-4]
#[tokio::test]
async fn no_local_concerns_its_own_filter_alone() {
    let broker = Running::start(|_| {});
    let mut client = client(&broker, V5, "c").await;
    client.subscribe_with("a/#", 1 | 4 | 8, &[0x0b, 1]).await;
    client.subscribe_with("a/+", 0, &[0x0b, 2]).await;
    client.subscribe_with("+/b", 4, &[0x0b, 3]).await;
    client.publish_with(0x33, "a/b", 5, &[], b"mine").await;
    let mut mine = None;
    for _ in 0..2 {
        let (first, body) = client.receive().await.unwrap();
        if first >> 4 == 3 {
            mine = Some(client.read_publish(first, &body));
        }
    }
    let mine = mine.expect("the message by the filter without No Local");
    assert_eq!((mine.qos, mine.retain, subscription_ids(&mine)), (0, false, vec![2]));
    let mut other = self::client(&broker, V5, "o").await;
    deliver(&mut other, true, "a/b", &[], b"theirs").await;
    let theirs = client.receive_publish().await;
    assert_eq!((theirs.qos, theirs.retain, subscription_ids(&theirs)), (1, true, vec![1, 2, 3]));
    client.bytes(&unsubscribe_packet(V5, b"a/+")).await;
    expect(&mut client, 0xb0, &[0, 1, 0, 0], "UNSUBACK").await;
    deliver(&mut client, false, "a/b", &[], b"mine").await;
    nothing_more(&mut client).await;
    broker.stop().await;
}
