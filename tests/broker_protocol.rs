//! What MQTT demands, packet by packet over real sockets; each test names the normative statements it holds the broker to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::{collections::BTreeSet, time::Duration};

use sense_butler::{
    broker::message::{Door, Publication},
    names::TopicName,
};
use support::{
    raw::{Got, Hello, Raw, text},
    running::Running,
};

/// Nothing is on its way to the client: the answer to a ping comes next.
async fn nothing_more(client: &mut Raw) {
    client.send(0xc0, &[]).await;
    let (first, body) = client.receive().await.expect("a PINGRESP");
    assert_eq!(first, 0xd0, "{first:02x} {body:?} came instead");
}

async fn connected(broker: &Running, hello: Hello) -> Raw {
    let (raw, connack) = Raw::connect(broker.address, &hello).await;
    assert_eq!(connack[1], 0);
    raw
}

/// A publish at QoS 1, acknowledged: then it is in every outbox.
async fn deliver(publisher: &mut Raw, retain: bool, topic: &str, properties: &[u8], payload: &[u8]) {
    publisher.publish_with(0x32 | u8::from(retain), topic, 9, properties, payload).await;
    let (first, body) = publisher.receive().await.expect("a PUBACK");
    assert_eq!((first, body[1]), (0x40, 9));
}

fn session_expiry(mut hello: Hello, seconds: u32) -> Hello {
    hello.clean = false;
    hello.properties.push(0x11);
    hello.properties.extend(seconds.to_be_bytes());
    hello
}

fn receive_maximum(mut hello: Hello, count: u16) -> Hello {
    hello.properties.push(0x21);
    hello.properties.extend(count.to_be_bytes());
    hello
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_3_4_9_receive_maximum_holds_for_fresh_and_for_resent_messages() {
    let broker = Running::start(|_| {});
    let kept = || session_expiry(Hello::v5("sub"), 600);
    let mut subscriber = connected(&broker, receive_maximum(kept(), 5)).await;
    subscriber.subscribe("t", 1).await;
    let mut publisher = connected(&broker, Hello::v5("pub")).await;
    for number in 0..8u8 {
        deliver(&mut publisher, false, "t", &[], &[number]).await;
    }
    for number in 0..5u8 {
        assert_eq!(subscriber.receive_publish().await.payload, [number]);
    }
    nothing_more(&mut subscriber).await;
    let mut again = connected(&broker, receive_maximum(kept(), 2)).await;
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

/// `[MQTT-3.3.4-7]`: the client that sends too much is disconnected with 0x93; what it sent is not half known to its session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_3_4_7_a_message_beyond_receive_maximum_can_be_sent_again_later() {
    let broker = Running::start(|settings| settings.limits.inflight = 3);
    let hello = session_expiry(Hello::v5("pub"), 600);
    let mut publisher = connected(&broker, hello.clone()).await;
    for id in 1..=4 {
        publisher.publish("t", b"x", 2, id, false).await;
    }
    while let Some((first, body)) = publisher.receive().await {
        assert!(first == 0x50 || (first, body[0]) == (0xe0, 0x93), "{first:02x} {body:?}");
    }
    let mut publisher = connected(&broker, hello).await;
    publisher.publish("t", b"x", 2, 4, true).await;
    let (first, body) = publisher.receive().await.expect("a PUBREC");
    assert_eq!((first, body[1]), (0x50, 4));
    broker.stop().await;
}

/// `[MQTT-3.1.2-24]`, `[MQTT-3.1.2-25]`: what is larger than the client takes is not sent and counts as delivered, also when it was sent to an
/// earlier connection that took more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_1_2_24_maximum_packet_size_of_the_client() {
    let broker = Running::start(|_| {});
    let mut hello = receive_maximum(session_expiry(Hello::v5("sub"), 600), 2);
    let mut subscriber = connected(&broker, hello.clone()).await;
    subscriber.subscribe("t", 1).await;
    let mut publisher = connected(&broker, Hello::v3("pub")).await;
    deliver(&mut publisher, false, "t", &[], &[7; 100]).await;
    deliver(&mut publisher, false, "t", &[], &[8; 100]).await;
    assert_eq!(subscriber.receive_publish().await.payload.len(), 100);
    hello.properties.extend([0x27, 0, 0, 0, 50]);
    let mut again = connected(&broker, hello).await;
    for number in 0..4u8 {
        deliver(&mut publisher, false, "t", &[], &[number]).await;
        let got = again.receive_publish().await;
        assert_eq!(got.payload, [number]);
        again.ack(0x40, got.id).await;
    }
    broker.stop().await;
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

/// `[MQTT-3.3.1-9]` (retain handling 0): every retained message, also where they are larger together than the queue of a session.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_3_1_9_retained_messages_larger_than_the_queue() {
    let broker = Running::start(|_| {});
    let mut publisher = connected(&broker, Hello::v3("pub")).await;
    for number in 0..200u32 {
        deliver(&mut publisher, true, &format!("r/{number}"), &[], &vec![7; 100_000]).await;
    }
    for qos in [0, 1] {
        let mut subscriber = connected(&broker, Hello::v5(&format!("sub{qos}"))).await;
        assert_eq!(subscriber.subscribe("r/#", qos).await, qos);
        let mut topics = BTreeSet::new();
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

/// `[MQTT-3.1.3-7]`, `[MQTT-3.2.2-16]`, `[MQTT-3.2.2-21]`: assigned client id and server keep-alive; receive maximum, maximum packet size and
/// topic alias maximum of section 3.2.2.3.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connack_tells_what_the_broker_decided() {
    let broker = Running::start(|settings| {
        settings.limits.keep_alive = 60;
        settings.limits.inflight = 77;
        settings.limits.session_expiry = 100;
    });
    let hello = session_expiry(Hello { keep_alive: 100, ..Hello::v5("") }, 200);
    let (_client, connack) = Raw::connect(broker.address, &hello).await;
    let properties = &connack[3..];
    let wanted: [&[u8]; 5] =
        [&[0x11, 0, 0, 0, 100], &[0x21, 0, 77], &[0x27, 0, 0xa0, 0, 0], &[0x22, 0, 32], &[0x13, 0, 60]];
    for wanted in wanted {
        assert!(properties.windows(wanted.len()).any(|window| window == wanted), "{wanted:?} in {properties:?}");
    }
    assert!(properties.windows(8).any(|window| &window[..3] == b"\x12\0\x25" && &window[3..] == b"auto-"));
    broker.stop().await;
}

/// `[MQTT-3.1.2-4]`, `[MQTT-3.1.2-5]`, `[MQTT-3.1.2-6]`, `[MQTT-3.2.2-2]`, `[MQTT-3.2.2-3]`: clean start and session present.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_2_2_2_session_present() {
    let broker = Running::start(|_| {});
    for (case, hello, present) in [
        ("new", Hello::v5("a").kept(), 0),
        ("resumed", Hello::v5("a").kept(), 1),
        ("resumed by 3.1.1", Hello::v3("a").kept(), 1),
        ("clean", Hello::v3("a"), 0),
        ("nothing was kept", Hello::v3("a").kept(), 0),
        ("session expiry 0", Hello { clean: false, ..Hello::v5("a") }, 1),
        ("ended with its connection", Hello::v5("a").kept(), 0),
    ] {
        let (mut client, connack) = Raw::connect(broker.address, &hello).await;
        assert_eq!(connack[..2], [present, 0], "{case}");
        if case == "session expiry 0" {
            client.send(0xe0, &[]).await;
            assert!(client.is_closed().await);
        }
    }
    broker.stop().await;
}

/// `[MQTT-3.14.4-3]` and section 3.14.2.2.2: a session expiry given with the DISCONNECT counts, and may not be given where CONNECT had none.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_expiry_in_disconnect() {
    let broker = Running::start(|_| {});
    let kept = || session_expiry(Hello::v5("a"), 600);
    let mut client = connected(&broker, kept()).await;
    client.send(0xe0, &[0, 5, 0x11, 0, 0, 0, 0]).await;
    assert!(client.is_closed().await);
    let (_client, connack) = Raw::connect(broker.address, &kept()).await;
    assert_eq!(connack[0], 0, "the session ended");
    let mut client = connected(&broker, Hello::v5("b")).await;
    client.send(0xe0, &[0, 5, 0x11, 0, 0, 0, 9]).await;
    assert_eq!(client.receive().await, Some((0xe0, vec![0x82])));
    broker.stop().await;
}

/// Section 3.3.2.3.4: aliases; `[MQTT-3.3.2-8]`, `[MQTT-3.3.2-9]`: 0 and above the maximum; unknown ones are errors.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn topic_aliases_of_the_client() {
    let broker = Running::start(|_| {});
    let mut subscriber = connected(&broker, Hello::v3("sub")).await;
    subscriber.subscribe("#", 0).await;
    let mut publisher = connected(&broker, Hello::v5("pub")).await;
    for (topic, alias, expected) in
        [("a", 1, "a"), ("", 1, "a"), ("b", 32, "b"), ("c", 1, "c"), ("", 1, "c"), ("", 32, "b")]
    {
        publisher.publish_with(0x30, topic, 0, &[0x23, 0, alias], b"x").await;
        assert_eq!(subscriber.receive_publish().await.topic, expected);
    }
    for (alias, code) in [(0, 0x94), (33, 0x94), (2, 0x82)] {
        let mut bad = connected(&broker, Hello::v5("bad")).await;
        bad.publish_with(0x30, "", 0, &[0x23, 0, alias], b"x").await;
        assert_eq!(bad.receive().await, Some((0xe0, vec![code])), "alias {alias}");
    }
    broker.stop().await;
}

/// `[MQTT-3.3.4-2]`, `[MQTT-3.3.4-3]`, `[MQTT-3.3.4-4]`: overlapping subscriptions, the highest QoS, and every subscription identifier.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_3_4_3_subscription_identifiers() {
    let broker = Running::start(|_| {});
    let mut client = connected(&broker, Hello::v5("c")).await;
    client.subscribe_with("a/#", 0, &[0x0b, 1]).await;
    client.subscribe_with("a/+", 1, &[0x0b, 0x80, 1]).await;
    client.subscribe("+/b", 0).await;
    client.publish("a/b", b"x", 1, 5, false).await;
    let mut got = None;
    for _ in 0..2 {
        let (first, body) = client.receive().await.unwrap();
        if first >> 4 == 3 {
            got = Some(client.read_publish(first, &body));
        }
    }
    let Got { qos, properties, .. } = got.unwrap();
    assert_eq!(qos, 1);
    assert!(properties == [0x0b, 1, 0x0b, 0x80, 1] || properties == [0x0b, 0x80, 1, 0x0b, 1], "{properties:?}");
    nothing_more(&mut client).await;
    broker.stop().await;
}

/// `[MQTT-3.3.1-9]`..`[MQTT-3.3.1-13]`, `[MQTT-3.8.4-4]`: retain handling and Retain As Published.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retain_handling_and_retain_as_published() {
    let broker = Running::start(|_| {});
    let mut publisher = connected(&broker, Hello::v5("pub")).await;
    deliver(&mut publisher, true, "r", &[], b"old").await;
    let mut client = connected(&broker, Hello::v5("sub")).await;
    for (options, sent) in [(0x20, false), (0x10, false), (0x00, true), (0x00, true)] {
        assert_eq!(client.subscribe("r", options).await, 0);
        if sent {
            let got = client.receive_publish().await;
            assert_eq!((got.payload.as_slice(), got.retain), (b"old".as_slice(), true));
        }
        nothing_more(&mut client).await;
    }
    client.send(0xa2, &[0, 7, 0, 0, 1, b'r']).await;
    assert_eq!(client.receive().await, Some((0xb0, vec![0, 7, 0, 0])));
    client.subscribe("r", 0x10).await;
    assert!(client.receive_publish().await.retain, "retain handling 1, and the subscription is new");
    deliver(&mut publisher, true, "r", &[], b"new").await;
    assert!(!client.receive_publish().await.retain);
    client.subscribe("r", 0x28).await;
    deliver(&mut publisher, true, "r", &[], b"newer").await;
    assert!(client.receive_publish().await.retain, "as published");
    // [MQTT-3.3.1-6], [MQTT-3.3.1-7]: an empty one removes it and is delivered like any other.
    deliver(&mut publisher, true, "r", &[], b"").await;
    assert_eq!(client.receive_publish().await.payload, b"");
    client.subscribe("r", 0).await;
    nothing_more(&mut client).await;
    // Section 4.8.2: nothing retained for a shared subscription.
    deliver(&mut publisher, true, "r", &[], b"kept").await;
    assert_eq!(client.receive_publish().await.payload, b"kept");
    client.subscribe("$share/g/r", 0).await;
    nothing_more(&mut client).await;
    broker.stop().await;
}

/// `[MQTT-3.8.3-3]`, `[MQTT-3.8.3-4]`: No Local.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_8_3_3_no_local() {
    let broker = Running::start(|_| {});
    let mut client = connected(&broker, Hello::v5("c")).await;
    client.subscribe("t", 4).await;
    client.publish("t", b"mine", 0, 0, false).await;
    let mut other = connected(&broker, Hello::v5("o")).await;
    deliver(&mut other, false, "t", &[], b"theirs").await;
    assert_eq!(client.receive_publish().await.payload, b"theirs");
    client.send(0x82, &[0, 3, 0, 0, 10, b'$', b's', b'h', b'a', b'r', b'e', b'/', b'g', b'/', b't', 4]).await;
    assert_eq!(client.receive().await, Some((0xe0, vec![0x82])));
    broker.stop().await;
}

/// `[MQTT-3.3.2-5]`, `[MQTT-3.3.2-6]`: what expired is not delivered, and the interval shrinks while a message waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_3_2_5_message_expiry() {
    let broker = Running::start(|_| {});
    let kept = || session_expiry(Hello::v5("sub"), 600);
    let mut subscriber = connected(&broker, kept()).await;
    subscriber.subscribe("t", 1).await;
    drop(subscriber);
    let mut publisher = connected(&broker, Hello::v5("pub")).await;
    deliver(&mut publisher, false, "t", &[2, 0, 0, 0, 1], b"short").await;
    deliver(&mut publisher, false, "t", &[2, 0, 0, 0, 100], b"long").await;
    // The clock of expiry is the system's; there is no other way than to let it run.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let mut subscriber = connected(&broker, kept()).await;
    let got = subscriber.receive_publish().await;
    assert_eq!((got.payload.as_slice(), &got.properties[..4]), (b"long".as_slice(), [2, 0, 0, 0].as_slice()));
    assert!((90..100).contains(&got.properties[4]), "{:?}", got.properties);
    broker.stop().await;
}

/// `[MQTT-4.8.2-3]`..: one member of a group gets each message; `$share` is no prefix of a topic.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shared_subscriptions() {
    let broker = Running::start(|_| {});
    let mut members = Vec::new();
    for number in 0..3 {
        let mut member = connected(&broker, Hello::v5(&format!("m{number}"))).await;
        assert_eq!(member.subscribe("$share/g/t/#", 1).await, 1);
        members.push(member);
    }
    let mut publisher = connected(&broker, Hello::v5("pub")).await;
    for number in 0..9u8 {
        deliver(&mut publisher, false, "t/x", &[], &[number]).await;
    }
    let mut seen = BTreeSet::new();
    for member in &mut members {
        for _ in 0..3 {
            assert!(seen.insert(member.receive_publish().await.payload));
        }
        nothing_more(member).await;
    }
    assert_eq!(seen.len(), 9);
    broker.stop().await;
}

/// `[MQTT-3.1.3-9]`, `[MQTT-3.1.2-8]`, `[MQTT-3.14.4-3]`: a delayed will is not sent when the session goes on, goes out when the session ends, and
/// never after a DISCONNECT with code 0.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wills_with_and_without_delay() {
    let broker = Running::start(|_| {});
    let mut watcher = connected(&broker, Hello::v5("watcher")).await;
    watcher.subscribe("will/#", 0).await;
    let mortal = |topic: &str| Hello { will: Some((topic.into(), "gone".into(), 0)), ..Hello::v5("mortal") };
    let mut client = connected(&broker, mortal("will/1")).await;
    client.send(0xe0, &[]).await;
    assert!(client.is_closed().await);
    let mut client = connected(&broker, mortal("will/2")).await;
    client.send(0xe0, &[4]).await;
    assert_eq!(watcher.receive_publish().await.topic, "will/2");
    let taken_over = connected(&broker, mortal("will/3")).await;
    let mut client = connected(&broker, Hello::v5("mortal")).await;
    assert_eq!(watcher.receive_publish().await.topic, "will/3");
    drop(taken_over);
    // Malformed: the connection is closed, the will is published ([MQTT-4.13.1-1]).
    client.send(0xe0, &[]).await;
    let mut client = connected(&broker, mortal("will/4")).await;
    client.bytes(&[0x36, 0]).await;
    assert_eq!(client.receive().await, Some((0xe0, vec![0x81])));
    assert_eq!(watcher.receive_publish().await.topic, "will/4");
    nothing_more(&mut watcher).await;
    broker.stop().await;
}

/// Sections 3.6.2.1 and 3.7.2.1: 0x92 for packet ids nobody knows; 3.1.1 has no code and completes the handshake.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unknown_packet_ids_are_answered() {
    let broker = Running::start(|_| {});
    let mut new = connected(&broker, Hello::v5("new")).await;
    new.ack(0x62, 77).await;
    assert_eq!(new.receive().await, Some((0x70, vec![0, 77, 0x92])));
    new.ack(0x50, 78).await;
    assert_eq!(new.receive().await, Some((0x62, vec![0, 78, 0x92])));
    new.ack(0x40, 79).await;
    new.ack(0x70, 79).await;
    nothing_more(&mut new).await;
    let mut old = connected(&broker, Hello::v3("old")).await;
    old.ack(0x62, 77).await;
    assert_eq!(old.receive().await, Some((0x70, vec![0, 77])));
    broker.stop().await;
}

/// `[MQTT-3.8.4-5]`, `[MQTT-3.8.4-6]`, `[MQTT-3.10.4-4]`, `[MQTT-3.11.3-1]`: one code per filter, in order, also of a thousand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_filters_in_one_packet() {
    let broker = Running::start(|settings| settings.limits.subscriptions = 500);
    let mut client = connected(&broker, Hello::v5("c")).await;
    let (mut subscribe, mut unsubscribe) = (vec![0, 1, 0], vec![0, 2, 0]);
    for number in 0..1_000 {
        let filter = if number % 10 == 9 { "a/#/b".to_owned() } else { format!("f/{number}") };
        text(&mut subscribe, filter.as_bytes());
        subscribe.push((number % 3) as u8);
        text(&mut unsubscribe, filter.as_bytes());
    }
    client.send(0x82, &subscribe).await;
    let (_, codes) = client.receive().await.unwrap();
    let mut taken = 0;
    for (number, code) in codes[3..].iter().enumerate() {
        let expected = match number {
            _ if number % 10 == 9 => 0x8f,
            _ if taken == 500 => 0x97,
            _ => {
                taken += 1;
                (number % 3) as u8
            }
        };
        assert_eq!(*code, expected, "filter {number}");
    }
    assert_eq!(codes.len(), 1_003);
    client.send(0xa2, &unsubscribe).await;
    let (_, codes) = client.receive().await.unwrap();
    let count = |wanted: u8| codes[3..].iter().filter(|code| **code == wanted).count();
    assert_eq!((count(0), count(0x11), count(0x8f)), (500, 400, 100));
    broker.stop().await;
}

/// `[MQTT-4.7.2-1]`: wildcards at the first level do not reach `$` topics; nobody outside publishes there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_4_7_2_1_dollar_topics() {
    let broker = Running::start(|_| {});
    let mut client = connected(&broker, Hello::v3("c")).await;
    for filter in ["#", "+/x", "$SYS/+"] {
        assert_eq!(client.subscribe(filter, 0).await, 0);
    }
    let publisher = broker.handle.publisher(Door::Internal);
    let message = Publication::new(TopicName::new("$SYS/x").unwrap(), "inside");
    assert!(publisher.submit(&message).await.unwrap().wait().await.unwrap());
    assert_eq!(client.receive_publish().await.payload, b"inside");
    client.publish("$SYS/x", b"outside", 1, 3, false).await;
    assert_eq!(client.receive().await, Some((0x40, vec![0, 3])));
    nothing_more(&mut client).await;
    broker.stop().await;
}

/// `[MQTT-4.6.0-2]`, `[MQTT-4.6.0-3]`, `[MQTT-4.6.0-6]`: acknowledgements and messages in the order of the publishes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_4_6_0_2_order() {
    let broker = Running::start(|_| {});
    let mut subscriber = connected(&broker, Hello::v5("sub")).await;
    subscriber.subscribe("t", 2).await;
    let mut publisher = connected(&broker, Hello::v5("pub")).await;
    for id in 1..=200u16 {
        let topic = if id % 5 == 0 { "$forbidden" } else { "t" };
        publisher.publish(topic, &id.to_be_bytes(), 1 + (id % 2) as u8, id, false).await;
    }
    for id in 1..=200u16 {
        let (first, body) = publisher.receive().await.unwrap();
        let expected = if id % 2 == 0 { 0x40 } else { 0x50 };
        assert_eq!((first, &body[..2]), (expected, id.to_be_bytes().as_slice()));
    }
    for id in (1..=200u16).filter(|id| id % 5 != 0) {
        assert_eq!(subscriber.receive_publish().await.payload, id.to_be_bytes());
    }
    broker.stop().await;
}

/// `[MQTT-3.1.2-22]`: one and a half keep-alives, for a client that is sent much and says nothing too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mqtt_3_1_2_22_keep_alive() {
    let broker = Running::start(|_| {});
    let mut silent = connected(&broker, Hello { keep_alive: 1, ..Hello::v5("silent") }).await;
    silent.subscribe("t", 0).await;
    let mut publisher = connected(&broker, Hello::v3("pub")).await;
    let flood = tokio::spawn(async move {
        loop {
            publisher.publish("t", &[0; 1_000], 0, 0, false).await;
        }
    });
    let started = std::time::Instant::now();
    let last = loop {
        let (first, body) = silent.receive().await.unwrap();
        if first >> 4 != 3 {
            break (first, body);
        }
    };
    assert_eq!(last, (0xe0, vec![0x8d]));
    assert!((1_400..10_000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    flood.abort();
    broker.stop().await;
}
