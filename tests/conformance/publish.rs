//! PUBLISH (section 3.3): topics, flags, what travels with a message and what does not.

use std::time::Duration;

use crate::kit::*;

/// Shows 3.1.1: [MQTT-3.3.2-2] [MQTT-4.7.1-1] [MQTT-4.7.3-1] [MQTT-3.3.1-2] [MQTT-3.3.1-4] [MQTT-4.8.0-1]
/// Shows 5.0: [MQTT-3.3.2-2] [MQTT-4.7.0-1] [MQTT-4.7.3-1] [MQTT-3.3.1-2] [MQTT-3.3.1-4] [MQTT-3.3.2-14] [MQTT-3.3.4-6]
/// Shows 5.0: [MQTT-4.13.1-1] [MQTT-4.13.2-1]
#[tokio::test]
async fn messages_that_end_the_connection() {
    let broker = Running::start(|_| {});
    let mut cases = 0;
    for version in BOTH {
        let empty = if version == V5 { 0x82 } else { 0x90 };
        let mut table = vec![
            ("+", publish_packet(version, b"a/+", &[]), 0x90),
            ("#", publish_packet(version, b"#", &[]), 0x90),
            ("+ inside a level", publish_packet(version, b"a+b", &[]), 0x90),
            ("an empty topic", publish_packet(version, b"", &[]), empty),
            ("QoS 3", packet(0x36, &cat(&[&field("t"), &[0, 1], &properties(version, &[])])), 0x81),
            ("DUP at QoS 0", packet(0x38, &cat(&[&field("t"), &properties(version, &[])])), 0x81),
            ("no topic", packet(0x30, &[]), 0x81),
        ];
        if version == V5 {
            table.extend([
                ("response topic +", publish_packet(V5, b"t", &cat(&[&[8], &field("a/+")])), 0x82),
                ("response topic #", publish_packet(V5, b"t", &cat(&[&[8], &field("#")])), 0x82),
                ("subscription id", publish_packet(V5, b"t", &[0x0b, 1]), 0x82),
                ("payload format 2", publish_packet(V5, b"t", &[1, 2]), 0x82),
                ("expiry twice", publish_packet(V5, b"t", &[2, 0, 0, 0, 1, 2, 0, 0, 0, 1]), 0x82),
                ("a property of CONNECT", publish_packet(V5, b"t", &[0x11, 0, 0, 0, 1]), 0x81),
            ]);
        }
        for (case, bytes, code) in table {
            ends_with(&broker, version, &bytes, code, &format!("{version} {case}")).await;
            cases += 1;
        }
    }
    assert_eq!(cases, 20);
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-4.7.3-3] [MQTT-3.3.2-3]
/// Shows 5.0: [MQTT-4.7.3-3] [MQTT-3.3.2-3]
#[tokio::test]
async fn topics_as_long_as_they_can_be() {
    let broker = Running::start(|_| {});
    let longest = "ö".repeat(32_767) + "x";
    assert_eq!(longest.len(), 65_535);
    for version in BOTH {
        let mut client = client(&broker, version, "c").await;
        assert_eq!(client.subscribe(&longest, 0).await, 0);
        client.publish(&longest, b"x", 0, 0, false).await;
        assert_eq!(client.receive_publish().await.topic, longest);
    }
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-3.3.1-3]
/// Shows 5.0: [MQTT-3.3.1-3]
#[tokio::test]
async fn dup_is_not_passed_on() {
    let broker = Running::start(|_| {});
    for version in BOTH {
        let mut subscriber = client(&broker, version, "sub").await;
        subscriber.subscribe("t", 2).await;
        let mut publisher = client(&broker, version, "pub").await;
        for qos in [1, 2] {
            publisher.publish("t", b"x", qos, 5, true).await;
            publisher.receive().await.unwrap();
            let got = subscriber.receive_publish().await;
            assert_eq!((got.qos, got.dup), (qos, false));
        }
    }
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-3.3.5-2]
#[tokio::test]
async fn forbidden_messages_are_acknowledged_and_go_nowhere() {
    let broker = Running::start(|_| {});
    let mut watcher = client(&broker, V3, "watcher").await;
    for filter in ["#", "$SYS/broker/x", "$x/#", "q/own/#"] {
        assert_eq!(watcher.subscribe(filter, 0).await, 0);
    }
    for version in BOTH {
        let mut publisher = client(&broker, version, "pub").await;
        for topic in ["$SYS/broker/x", "$x/y", "q/own/state"] {
            publisher.publish(topic, b"x", 0, 0, false).await;
            for (qos, first) in [(1, 0x40), (2, 0x50)] {
                publisher.publish(topic, b"x", qos, 5, false).await;
                let code: &[u8] = if version == V5 { &[0, 5, 0x87] } else { &[0, 5] };
                expect(&mut publisher, first, code, topic).await;
            }
            if version == V3 {
                publisher.ack(0x62, 5).await;
                expect(&mut publisher, 0x70, &[0, 5], "PUBCOMP").await;
            }
        }
        deliver(&mut publisher, false, "allowed", &[], b"x").await;
        assert_eq!(watcher.receive_publish().await.topic, "allowed");
    }
    broker.stop().await;
}

/// Everything a publisher of 5.0 says about its message arrives, in its order, live, retained and out of the queue of a session; subscribers
/// of 3.1.1 get topic and payload.
///
/// Shows 5.0: [MQTT-3.3.2-4] [MQTT-3.3.2-15] [MQTT-3.3.2-16] [MQTT-3.3.2-17] [MQTT-3.3.2-18] [MQTT-3.3.2-20]
#[tokio::test]
async fn properties_travel() {
    let broker = Running::start(|_| {});
    let pair = |name: &str, value: &str| cat(&[&field(name), &field(value)]);
    let pairs = [pair("b", "1"), pair("a", "2"), pair("b", "1"), pair("", ""), pair("å", "ö")];
    let mut block = cat(&[&[0x26], &pairs[0], &[1, 1], &[0x26], &pairs[1]]);
    block.extend(cat(&[&[8], &field("reply/å"), &[0x26], &pairs[2], &[9], &field([0, 0xff, 7]), &[0x26], &pairs[3]]));
    block.extend(cat(&[&[3], &field("text/plain"), &[0x26], &pairs[4]]));
    let mut live = client(&broker, V5, "live").await;
    live.subscribe("t", 0).await;
    let mut old = client(&broker, V3, "old").await;
    old.subscribe("t", 0).await;
    let mut away = connected(&broker, kept(V5, "away", 600)).await;
    away.subscribe("t", 1).await;
    leave(away).await;
    let mut publisher = client(&broker, V5, "pub").await;
    deliver(&mut publisher, true, "t", &block, b"payload").await;
    let mut late = client(&broker, V5, "late").await;
    late.subscribe("t", 0).await;
    let away = connected(&broker, kept(V5, "away", 600)).await;
    for mut client in [live, late, away] {
        let got = client.receive_publish().await;
        let found = parsed(&got.properties);
        assert_eq!(found.keys().copied().collect::<Vec<_>>(), [1, 3, 8, 9, 0x26]);
        assert_eq!(found[&0x26], pairs);
        assert_eq!((found[&1][0].as_slice(), &found[&3][0]), (&[1][..], &field("text/plain")));
        assert_eq!((&found[&8][0], &found[&9][0]), (&field("reply/å"), &field([0, 0xff, 7])));
        assert_eq!(got.payload, b"payload");
    }
    expect(&mut old, 0x30, &cat(&[&field("t"), b"payload"]), "topic and payload").await;
    // 3.1.1 publishes without any.
    let mut plain = client(&broker, V3, "plain").await;
    let mut late = client(&broker, V5, "late").await;
    late.subscribe("t", 0x20).await;
    deliver(&mut plain, false, "t", &[], b"plain").await;
    assert_eq!(late.receive_publish().await.properties, [0; 0]);
    broker.stop().await;
}

/// Shows 5.0: [MQTT-3.3.2-5] [MQTT-3.3.2-6]
#[tokio::test]
async fn messages_expire_and_say_how_long_they_still_have() {
    let broker = Running::start(|_| {});
    let mut away = Vec::new();
    for version in BOTH {
        let hello = kept(version, &format!("away{version}"), 600);
        let mut client = connected(&broker, hello.clone()).await;
        client.subscribe("t", 1).await;
        leave(client).await;
        away.push(hello);
    }
    // One that is connected and takes nothing more: its copies wait, too.
    let mut full = connected(&broker, with(Hello::v5("full"), &[0x21, 0, 1])).await;
    full.subscribe("t", 1).await;
    let mut publisher = client(&broker, V5, "pub").await;
    deliver(&mut publisher, false, "t", &[], b"for ever").await;
    deliver(&mut publisher, false, "t", &[2, 0, 0, 0, 1], b"short").await;
    deliver(&mut publisher, false, "t", &[2, 0, 0, 0, 100], b"long").await;
    deliver(&mut publisher, true, "r", &[2, 0, 0, 0, 1], b"short").await;
    deliver(&mut publisher, true, "s", &[2, 0, 0, 0, 100], b"long").await;
    // The clock of expiry is the system's; there is no other way than to let it run.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let mut clients = vec![full];
    for hello in away {
        clients.push(connected(&broker, hello).await);
    }
    let mut checked = 0;
    for mut client in clients {
        for payload in ["for ever", "long"] {
            let got = client.receive_publish().await;
            assert_eq!(got.payload, payload.as_bytes());
            client.ack(0x40, got.id).await;
            let left = parsed(&got.properties).get(&2).map(|value| (value[0][..3].to_vec(), value[0][3]));
            if client.version == V5 && payload == "long" {
                let (zeros, seconds) = left.expect("an expiry");
                assert!(zeros == [0; 3] && (90..100).contains(&seconds), "{seconds}");
                checked += 1;
            } else {
                assert_eq!(left, None);
            }
        }
        nothing_more(&mut client).await;
    }
    assert_eq!(checked, 2);
    let mut late = client(&broker, V5, "late").await;
    late.subscribe("r", 0).await;
    late.subscribe("s", 0).await;
    let got = late.receive_publish().await;
    assert!(got.topic == "s" && (90..100).contains(&parsed(&got.properties)[&2][0][3]));
    broker.stop().await;
}
