//! CONNACK (section 3.2) and what is agreed on with it: sizes, keep-alive, take-over, what the broker offers.

use std::time::{Duration, Instant};

use crate::kit::*;

/// Shows 3.1.1: [MQTT-3.1.4-2] [MQTT-3.1.3-2]
/// Shows 5.0: [MQTT-3.1.4-3] [MQTT-3.1.3-2] [MQTT-3.14.4-1] [MQTT-3.14.4-2]
#[tokio::test]
async fn an_earlier_connection_gives_way() {
    let broker = Running::start(|_| {});
    for (old, new) in [(V3, V3), (V3, V5), (V5, V3), (V5, V5)] {
        let mut first = client(&broker, old, "same").await;
        first.subscribe("t", 0).await;
        let mut second = client(&broker, new, "same").await;
        second.subscribe("t", 0).await;
        second.publish("t", b"x", 0, 0, false).await;
        ends(&mut first, 0x8e, "taken over").await;
        assert_eq!(second.receive_publish().await.payload, b"x");
        leave(second).await;
    }
    broker.stop().await;
}

/// Shows 5.0: [MQTT-3.1.2-28] [MQTT-3.2.2-9] [MQTT-3.2.2-10] [MQTT-3.2.2-12] [MQTT-3.2.2-13]
#[tokio::test]
async fn everything_is_offered_and_no_response_information() {
    let broker = Running::start(|_| {});
    for block in [&[][..], &[0x19, 0], &[0x19, 1]] {
        let (mut client, connack) = Raw::connect(broker.address, &with(Hello::v5("c"), block)).await;
        let properties = of_connack(&connack);
        // Maximum QoS, Retain, Wildcard, Subscription Identifier and Shared Subscription Available; Response Information.
        for absent in [0x24, 0x25, 0x28, 0x29, 0x2a, 0x1a] {
            assert!(!properties.contains_key(&absent), "{absent:#x}");
        }
        for qos in 0..3 {
            assert_eq!(client.subscribe("a/#", qos).await, qos);
            assert_eq!(client.subscribe_with("$share/g/+/b", qos, &[0x0b, 1]).await, qos);
        }
        client.send(0xe0, &[]).await;
    }
    let mut watcher = client(&broker, V5, "watcher").await;
    watcher.subscribe("w", 2).await;
    let will = Some(("w".into(), "x".into(), 2));
    drop(connected(&broker, Hello { will, will_retain: true, ..Hello::v5("c") }).await);
    assert_eq!(watcher.receive_publish().await.qos, 2);
    broker.stop().await;
}

/// What the broker decided is told; sections 3.2.2.3.2 to 3.2.2.3.14 of 5.0.
#[tokio::test]
async fn connack_tells_what_the_broker_decided() {
    let broker = Running::start(|settings| {
        settings.limits.keep_alive = 60;
        settings.limits.inflight = 77;
        settings.limits.session_expiry = 100;
    });
    let hello = kept(V5, "", 200);
    for (asked, told) in [(100, Some(60)), (0, Some(60)), (59, None)] {
        let hello = Hello { keep_alive: asked, ..hello.clone() };
        let (_client, connack) = Raw::connect(broker.address, &hello).await;
        let properties = of_connack(&connack);
        assert_eq!(properties[&0x11][0], [0, 0, 0, 100]);
        assert_eq!(properties[&0x21][0], [0, 77]);
        assert_eq!(properties[&0x27][0], [0, 0xa0, 0, 0]);
        assert_eq!(properties[&0x22][0], [0, 32]);
        assert_eq!(properties.get(&0x13).map(|value| value[0].clone()), told.map(|told| vec![0, told]));
        assert!(properties[&0x12][0].starts_with(b"\0\x25auto-"));
    }
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-3.1.2-24]
/// Shows 5.0: [MQTT-3.1.2-22] [MQTT-3.2.2-22]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_of_one_and_a_half_keep_alives_is_a_failure() {
    let broker = Running::start(|_| {});
    let mut watcher = client(&broker, V5, "watcher").await;
    watcher.subscribe("will/+", 0).await;
    let mut silent = Vec::new();
    for version in BOTH {
        let will = Some((format!("will/{version}"), "gone".into(), 0));
        let hello = Hello { keep_alive: 1, will, ..Hello::new(version, &format!("silent{version}")) };
        let (client, connack) = Raw::connect(broker.address, &hello).await;
        assert!(version == V3 || !of_connack(&connack).contains_key(&0x13));
        silent.push((client, Instant::now()));
    }
    let mut talker = connected(&broker, Hello { keep_alive: 1, ..Hello::v5("talker") }).await;
    for (client, since) in &mut silent {
        // Bytes towards the client are no life of the client; and one that speaks stays, whatever the others do.
        while since.elapsed() < Duration::from_millis(1_200) {
            nothing_more(&mut talker).await;
        }
        ends(client, 0x8d, "silent").await;
        assert!((1_400..10_000).contains(&since.elapsed().as_millis()), "{:?}", since.elapsed());
        nothing_more(&mut talker).await;
    }
    let mut wills = [watcher.receive_publish().await.topic, watcher.receive_publish().await.topic];
    wills.sort();
    assert_eq!(wills, ["will/4", "will/5"]);
    broker.stop().await;
}

/// One and a half keep-alives count for a client that is sent much and says nothing, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_sent_to_a_client_is_no_sign_of_its_life() {
    let broker = Running::start(|_| {});
    let mut silent = connected(&broker, Hello { keep_alive: 1, ..Hello::v5("silent") }).await;
    silent.subscribe("t", 0).await;
    let mut publisher = client(&broker, V3, "pub").await;
    let flood = tokio::spawn(async move {
        loop {
            publisher.publish("t", &[0; 1_000], 0, 0, false).await;
        }
    });
    let started = Instant::now();
    let last = loop {
        let (first, body) = silent.receive().await.unwrap();
        if first >> 4 != 3 {
            break (first, body[0]);
        }
    };
    assert_eq!(last, (0xe0, 0x8d));
    assert!((1_400..10_000).contains(&started.elapsed().as_millis()), "{:?}", started.elapsed());
    flood.abort();
    broker.stop().await;
}

/// Shows 5.0: [MQTT-3.2.2-15] [MQTT-3.14.2-1] [MQTT-3.14.2-2] [MQTT-3.14.4-1] [MQTT-3.14.4-2]
#[tokio::test]
async fn a_packet_larger_than_the_broker_takes() {
    let broker = Running::start(|settings| settings.limits.packet_size = 1_000);
    for version in BOTH {
        let mut client = client(&broker, version, "c").await;
        client.subscribe("t", 0).await;
        let head = 3 + 3 + usize::from(version == V5);
        client.publish("t", &vec![0; 1_000 - head], 0, 0, false).await;
        assert_eq!(client.receive_publish().await.payload.len(), 1_000 - head);
        client.publish("t", &vec![0; 1_001 - head], 0, 0, false).await;
        ends(&mut client, 0x95, "one byte too many").await;
    }
    broker.stop().await;
}

/// Shows 5.0: [MQTT-3.2.2-19] [MQTT-3.2.2-20] [MQTT-3.1.2-24]
#[tokio::test]
async fn connack_is_no_larger_than_the_client_takes() {
    let broker = Running::start(|settings| settings.users.push(user("anna", "geheim")));
    let wrong = |size: u8| with(Hello::v5("c").user("anna", "x"), &[0x27, 0, 0, 0, size]);
    let (_client, whole) = Raw::connect(broker.address, &wrong(255)).await;
    let size = 2 + whole.len() as u8;
    assert!(of_connack(&whole).contains_key(&0x1f), "a reason string where there is room");
    let (_client, exact) = Raw::connect(broker.address, &wrong(size)).await;
    assert_eq!(exact, whole);
    let (mut client, bare) = Raw::connect(broker.address, &wrong(size - 1)).await;
    assert_eq!(bare, [0, 0x86, 0], "the reason string gives way");
    assert!(client.is_closed().await);
    // A client that cannot be told what was decided is not served; and one that takes not even that code is not told.
    let (mut client, small) = Raw::connect(broker.address, &with(Hello::v5("c"), &[0x27, 0, 0, 0, 10])).await;
    assert_eq!((small.as_slice(), client.is_closed().await), (&[0, 0x95, 0][..], true));
    let mut client = Raw::open(broker.address, V5).await;
    client.send(0x10, &wrong(4).body()).await;
    assert!(client.is_closed().await);
    broker.stop().await;
}

/// Shows 5.0: [MQTT-3.14.2-3] [MQTT-3.14.2-4] [MQTT-3.1.2-24] [MQTT-3.14.2-2]
#[tokio::test]
async fn the_reason_of_a_disconnect_as_far_as_it_fits() {
    let broker = Running::start(|_| {});
    // The smallest size at which the CONNACK comes.
    let (_client, connack) = Raw::connect(broker.address, &Hello::v5("c")).await;
    let least = 2 + connack.len() as u8;
    let sized = |size: u8, wanted: u8| with(Hello::v5("c"), &[0x27, 0, 0, 0, size, 0x17, wanted]);
    for (size, wanted, text) in [(255, 1, true), (255, 0, false), (least, 1, false)] {
        let mut client = connected(&broker, sized(size, wanted)).await;
        client.send(0x10, &Hello::v5("c").body()).await;
        let (first, body) = client.receive().await.unwrap();
        assert_eq!((first, body[0]), (0xe0, 0x82));
        assert!(2 + body.len() <= usize::from(size));
        let found = if body.len() > 1 { parsed(&body[2..]) } else { Default::default() };
        assert_eq!(found.into_keys().collect::<Vec<_>>(), if text { vec![0x1f] } else { vec![] }, "size {size}");
        assert!(client.is_closed().await);
    }
    broker.stop().await;
}

/// Shows 5.0: [MQTT-3.1.2-24] [MQTT-3.9.2-1] [MQTT-3.9.2-2] [MQTT-3.11.2-1] [MQTT-3.11.2-2]
#[tokio::test]
async fn an_answer_larger_than_the_client_takes_ends_the_connection() {
    let broker = Running::start(|_| {});
    let (_client, connack) = Raw::connect(broker.address, &Hello::v5("c")).await;
    let size = 2 + connack.len();
    let filters = size - 5;
    for (count, fits) in [(filters, true), (filters + 1, false)] {
        for unsubscribe in [false, true] {
            let mut client = connected(&broker, with(Hello::v5("c"), &[0x27, 0, 0, 0, size as u8])).await;
            let mut body = vec![0, 7, 0];
            for number in 0..count {
                body.extend(field(format!("f/{number}")));
                body.extend((!unsubscribe).then_some(0));
            }
            client.send(if unsubscribe { 0xa2 } else { 0x82 }, &body).await;
            if fits {
                // Exactly as large: codes and no properties.
                let (first, body) = client.receive().await.unwrap();
                assert_eq!(
                    (first, 2 + body.len(), &body[..3]),
                    (if unsubscribe { 0xb0 } else { 0x90 }, size, &[0, 7, 0][..])
                );
                nothing_more(&mut client).await;
            } else {
                ends(&mut client, 0x95, "the answer is too large").await;
            }
        }
    }
    broker.stop().await;
}
