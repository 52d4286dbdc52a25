//! Wills (sections 3.1.2.5, 3.1.3.2 of 5.0) and DISCONNECT (section 3.14).

use std::time::{Duration, Instant};

use crate::kit::*;

fn mortal(version: u8, topic: &str, delay: u32) -> Hello {
    let mut hello = Hello { will: Some((topic.into(), "gone".into(), 1)), ..kept(version, "mortal", 600) };
    if version == V5 && delay > 0 {
        hello.will_properties = cat(&[&[0x18], &delay.to_be_bytes()]);
    }
    hello
}

async fn watcher(broker: &Running) -> Raw {
    let mut watcher = client(broker, V5, "watcher").await;
    watcher.subscribe("#", 2 | 8).await;
    watcher
}

/// Nothing is on its way to the watcher, and what was submitted before has arrived.
async fn nothing_published(broker: &Running, watcher: &mut Raw) {
    deliver(&mut client(broker, V3, "marker").await, false, "marker", &[], b"").await;
    let got = watcher.receive_publish().await;
    assert_eq!(got.topic, "marker");
    watcher.ack(0x40, got.id).await;
}

/// Shows 3.1.1: [MQTT-3.1.2-8] [MQTT-3.1.2-9] [MQTT-3.1.2-10] [MQTT-3.1.2-12] [MQTT-3.1.2-16] [MQTT-3.1.2-17]
/// Shows 5.0: [MQTT-3.1.2-7] [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.1.2-14] [MQTT-3.1.2-15]
#[tokio::test]
async fn a_will_is_published_once_as_it_was_left() {
    let broker = Running::start(|_| {});
    let mut watcher = watcher(&broker).await;
    let mut cases = 0;
    for version in BOTH {
        for (qos, retain) in [(0, false), (1, true), (2, false), (2, true)] {
            let topic = format!("will/{version}/{qos}/{retain}");
            let will = Some((topic.clone(), "gone".to_owned(), qos));
            let hello = Hello { will, will_retain: retain, ..Hello::new(version, "mortal") };
            let mut client = connected(&broker, hello).await;
            nothing_more(&mut client).await;
            drop(client);
            let got = watcher.receive_publish().await;
            assert_eq!(
                (&got.topic, got.payload.as_slice(), got.qos, got.retain),
                (&topic, b"gone".as_slice(), qos, retain)
            );
            match qos {
                0 => {}
                1 => watcher.ack(0x40, got.id).await,
                _ => {
                    watcher.ack(0x50, got.id).await;
                    expect(&mut watcher, 0x62, &got.id.to_be_bytes(), "PUBREL").await;
                    watcher.ack(0x70, got.id).await;
                }
            }
            let mut later = self::client(&broker, version, "later").await;
            later.subscribe(&topic, 2).await;
            if retain {
                let kept = later.receive_publish().await;
                assert_eq!((kept.retain, kept.qos), (true, qos));
            }
            drop(later);
            // The same client without a will: nothing is left of the last one.
            drop(self::client(&broker, version, "mortal").await);
            nothing_published(&broker, &mut watcher).await;
            cases += 1;
        }
    }
    assert_eq!(cases, 8);
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-3.14.4-3] [MQTT-3.1.2-10] [MQTT-3.14.1-1]
/// Shows 5.0: [MQTT-3.14.4-3] [MQTT-3.1.2-8] [MQTT-3.1.2-10] [MQTT-3.14.1-1]
#[tokio::test]
async fn only_a_good_disconnect_withdraws_the_will() {
    let broker = Running::start(|_| {});
    let mut watcher = watcher(&broker).await;
    let mut cases = 0;
    for version in BOTH {
        let mut table: Vec<(&str, Vec<u8>, bool)> = vec![
            ("DISCONNECT", packet(0xe0, &[]), false),
            ("DISCONNECT with flags", vec![0xe1, 0], true),
            ("malformed", vec![0x36, 0], true),
        ];
        if version == V5 {
            table.extend([
                ("code 0", packet(0xe0, &[0]), false),
                ("code 4", packet(0xe0, &[4]), true),
                ("code 0x80", packet(0xe0, &[0x80]), true),
                ("a code there is not", packet(0xe0, &[1]), true),
            ]);
        }
        for (case, bytes, published) in table {
            let will = Some((case.replace(' ', "/"), "gone".to_owned(), 0));
            let mut client = connected(&broker, Hello { will, ..Hello::new(version, "mortal") }).await;
            client.bytes(&bytes).await;
            while client.receive().await.is_some() {}
            if published {
                assert_eq!(watcher.receive_publish().await.topic, case.replace(' ', "/"), "{version}");
            }
            nothing_published(&broker, &mut watcher).await;
            cases += 1;
        }
    }
    assert_eq!(cases, 10);
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-3.1.2-8]
/// Shows 5.0: [MQTT-3.1.3-9] [MQTT-3.1.2-8] [MQTT-3.1.2-10]
#[tokio::test]
async fn a_delayed_will_waits_for_its_client() {
    let broker = Running::start(|_| {});
    let mut watcher = watcher(&broker).await;
    // Back in time, by a new connection or by one that takes over: no will.
    for _ in 0..2 {
        drop(connected(&broker, mortal(V5, "never", 300)).await);
    }
    let old = connected(&broker, mortal(V5, "never", 300)).await;
    let back = connected(&broker, kept(V5, "mortal", 600)).await;
    nothing_published(&broker, &mut watcher).await;
    drop((old, back));
    nothing_published(&broker, &mut watcher).await;
    // Not delayed: a connection that is taken over is one that ended.
    for version in BOTH {
        let old = connected(&broker, mortal(version, "taken/over", 0)).await;
        let back = connected(&broker, kept(version, "mortal", 600)).await;
        let got = watcher.receive_publish().await;
        assert_eq!(got.topic, "taken/over");
        watcher.ack(0x40, got.id).await;
        drop((old, back));
    }
    // The session ends before the delay does: by a new one in its place, by its expiry, with its connection.
    for (case, expiry) in [("clean start", 600_u32), ("expiry", 1), ("at once", 0)] {
        let properties = cat(&[&[0x11], &expiry.to_be_bytes()]);
        let hello = Hello { clean: true, properties, ..mortal(V5, case, 300) };
        let mut client = connected(&broker, hello).await;
        nothing_more(&mut client).await;
        drop(client);
        if expiry == 600 {
            drop(self::client(&broker, V5, "mortal").await);
        }
        let got = watcher.receive_publish().await;
        assert_eq!((got.topic.as_str(), got.qos), (case, 1));
        watcher.ack(0x40, got.id).await;
    }
    // The delay passes.
    let client = connected(&broker, mortal(V5, "in time", 1)).await;
    let since = Instant::now();
    drop(client);
    assert_eq!(watcher.receive_publish().await.topic, "in time");
    assert!(since.elapsed() >= Duration::from_millis(990), "{:?}", since.elapsed());
    broker.stop().await;
}

/// Shows 5.0: [MQTT-3.1.3-10]
#[tokio::test]
async fn the_properties_of_a_will_are_those_of_its_message() {
    let broker = Running::start(|_| {});
    let mut watcher = watcher(&broker).await;
    let pair = |name: &str, value: &str| cat(&[&[0x26], &field(name), &field(value)]);
    let pairs = cat(&[&pair("b", "1"), &pair("a", "2"), &pair("b", "3"), &pair("", "")]);
    let other = cat(&[&[1, 1], &[3], &field("text/plain"), &[8], &field("reply/to"), &[9], &field([0, 0xff])]);
    let will_properties = cat(&[&other, &pairs, &[2, 0, 0, 0, 100]]);
    let hello = Hello { will_properties, ..mortal(V5, "w", 0) };
    drop(connected(&broker, hello).await);
    let found = parsed(&watcher.receive_publish().await.properties);
    let values: Vec<Vec<u8>> = [("b", "1"), ("a", "2"), ("b", "3"), ("", "")]
        .map(|(name, value)| cat(&[&field(name), &field(value)]))
        .to_vec();
    assert_eq!(found[&0x26], values);
    assert_eq!(found[&1], [[1]]);
    assert_eq!(
        (&found[&3][0], &found[&8][0], &found[&9][0]),
        (&field("text/plain"), &field("reply/to"), &field([0, 0xff]))
    );
    assert!(found[&2][0][..3] == [0, 0, 0] && (95..=100).contains(&found[&2][0][3]));
    broker.stop().await;
}
