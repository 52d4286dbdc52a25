//! Sessions (sections 3.1.2.4, 4.1): begun, gone on with, kept, over.

use std::time::Duration;

use crate::kit::*;

/// Shows 3.1.1: [MQTT-3.1.2-4] [MQTT-3.1.2-6] [MQTT-3.1.3-2] [MQTT-3.1.4-3] [MQTT-3.2.2-1] [MQTT-3.2.2-2] [MQTT-3.2.2-3]
/// Shows 5.0: [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-3.1.2-6] [MQTT-3.1.2-23] [MQTT-3.1.3-2] [MQTT-3.1.4-4]
/// Shows 5.0: [MQTT-3.2.2-2] [MQTT-3.2.2-3]
#[tokio::test]
async fn sessions_are_kept_and_begun_anew() {
    let broker = Running::start(|_| {});
    let mut publisher = client(&broker, V3, "pub").await;
    for (version, other) in [(V3, V5), (V5, V3), (V3, V3), (V5, V5)] {
        for (case, hello, present) in [
            ("new", kept(version, "a", 600), 0),
            ("there", kept(version, "a", 600), 1),
            ("of the other version", kept(other, "a", 600), 1),
            ("another id", kept(version, "A", 600), 0),
            ("clean", Hello::new(version, "a"), 0),
            ("nothing was kept", kept(version, "a", 600), 0),
            ("kept again", kept(version, "a", 600), 1),
            ("clean, and kept", Hello { clean: true, ..kept(V5, "a", 600) }, 0),
            ("that one", kept(version, "a", 600), 1),
        ] {
            let (mut client, connack) = Raw::connect(broker.address, &hello).await;
            assert_eq!(connack[..2], [present, 0], "{version} {other} {case}");
            // What it subscribed to before is known exactly if the session is.
            deliver(&mut publisher, false, "t", &[], b"x").await;
            if present == 1 {
                assert_eq!(client.receive_publish().await.topic, "t", "{case}");
            }
            nothing_more(&mut client).await;
            client.subscribe("t", 0).await;
            if case != "there" {
                leave(client).await;
            }
        }
        drop((client(&broker, V3, "a").await, client(&broker, V3, "A").await));
    }
    broker.stop().await;
}

/// Shows 5.0: [MQTT-3.1.2-5] [MQTT-3.1.2-23] [MQTT-4.1.0-2]
#[tokio::test]
async fn the_expiry_of_a_session_may_change() {
    let broker = Running::start(|_| {});
    for (case, hello, goodbye, present) in [
        ("kept", kept(V5, "a", 600), vec![], 1),
        ("0 with DISCONNECT", kept(V5, "a", 600), vec![0, 5, 0x11, 0, 0, 0, 0], 0),
        ("longer with DISCONNECT", kept(V5, "a", 1), vec![0, 5, 0x11, 0, 0, 2, 0], 1),
        ("for ever", kept(V5, "a", u32::MAX), vec![], 1),
        ("0 with CONNECT", kept(V5, "a", 0), vec![], 0),
        ("none with CONNECT", Hello { clean: false, ..Hello::v5("a") }, vec![], 0),
    ] {
        let mut client = connected(&broker, hello).await;
        client.send(0xe0, &goodbye).await;
        assert!(client.is_closed().await);
        let (client, connack) = Raw::connect(broker.address, &kept(V5, "a", 600)).await;
        assert_eq!(connack[0], present, "{case}");
        leave(client).await;
    }
    // Not where CONNECT had none (section 3.14.2.2.2).
    let mut client = client(&broker, V5, "b").await;
    client.send(0xe0, &[0, 5, 0x11, 0, 0, 0, 9]).await;
    ends(&mut client, 0x82, "an expiry in DISCONNECT where CONNECT had none").await;
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-4.1.0-1] [MQTT-4.1.0-2]
/// Shows 5.0: [MQTT-4.1.0-1] [MQTT-4.1.0-2]
#[tokio::test]
async fn sessions_end_by_time_but_never_under_a_connection() {
    let broker = Running::start(|settings| settings.limits.session_expiry = 1);
    let mut here = Vec::new();
    for version in BOTH {
        let mut client = connected(&broker, kept(version, &format!("here{version}"), 1)).await;
        client.subscribe("t", 1).await;
        here.push(client);
        leave(connected(&broker, kept(version, &format!("away{version}"), 1)).await).await;
    }
    // The clock of sessions is the system's; there is no other way than to let it run.
    tokio::time::sleep(Duration::from_millis(2_200)).await;
    let mut publisher = client(&broker, V3, "pub").await;
    deliver(&mut publisher, false, "t", &[], b"x").await;
    for (version, mut client) in BOTH.into_iter().zip(here) {
        assert_eq!(client.receive_publish().await.payload, b"x");
        let (_, connack) = Raw::connect(broker.address, &kept(version, &format!("away{version}"), 1)).await;
        assert_eq!(connack[0], 0, "{version}: a second is over");
        let (_, connack) = Raw::connect(broker.address, &kept(version, &format!("here{version}"), 1)).await;
        assert_eq!(connack[0], 1, "{version}: it was connected all the time");
    }
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-3.1.2-4] [MQTT-3.1.2-5] [MQTT-4.1.0-1] [MQTT-4.5.0-1]
/// Shows 5.0: [MQTT-3.1.2-23] [MQTT-4.5.0-1]
#[tokio::test]
async fn messages_wait_for_a_session_that_is_away() {
    let broker = Running::start(|_| {});
    for version in BOTH {
        let mut clients = Vec::new();
        for number in 0..3 {
            let mut client = connected(&broker, kept(version, &format!("sub{number}"), 600)).await;
            for qos in 0..3 {
                client.subscribe(&format!("qos{qos}/+"), qos).await;
            }
            clients.push(client);
        }
        let mut present = clients.pop().unwrap();
        for client in clients {
            leave(client).await;
        }
        let mut publisher = client(&broker, version, "pub").await;
        let mut sent = Vec::new();
        for published in [1, 2] {
            for granted in 0..3 {
                let topic = format!("qos{granted}/{published}");
                publisher.publish(&topic, b"x", published, 7, false).await;
                let (first, _) = publisher.receive().await.unwrap();
                if published == 2 {
                    publisher.ack(0x62, 7).await;
                    assert_eq!((first, publisher.receive().await.unwrap().0), (0x50, 0x70));
                }
                sent.push((topic, published.min(granted)));
            }
        }
        for number in 0..3 {
            let expected = sent.iter().filter(|(_, qos)| number == 2 || *qos > 0);
            let mut client = if number < 2 {
                connected(&broker, kept(version, &format!("sub{number}"), 600)).await
            } else {
                std::mem::replace(&mut present, self::client(&broker, V3, "stand-in").await)
            };
            for (topic, qos) in expected {
                let got = client.receive_publish().await;
                assert_eq!((&got.topic, got.qos, got.dup), (topic, *qos, false), "{version} sub{number}");
            }
            nothing_more(&mut client).await;
            drop((client, self::client(&broker, V3, &format!("sub{number}")).await));
        }
    }
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-3.1.2-6] [MQTT-3.1.2-7]
#[tokio::test]
async fn retained_messages_are_no_part_of_a_session() {
    let broker = Running::start(|_| {});
    for version in BOTH {
        for hello in [Hello::new(version, "a"), kept(version, "a", 600)] {
            let mut publisher = connected(&broker, hello).await;
            deliver(&mut publisher, true, "r", &[], b"kept").await;
            leave(publisher).await;
            leave(client(&broker, version, "a").await).await;
            let mut subscriber = client(&broker, version, "sub").await;
            subscriber.subscribe("r", 0).await;
            assert_eq!(subscriber.receive_publish().await.payload, b"kept");
            deliver(&mut client(&broker, version, "a").await, true, "r", &[], b"").await;
        }
    }
    broker.stop().await;
}
