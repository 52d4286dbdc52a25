//! Chapters 1 and 2: texts, lengths, flags, packet identifiers, properties.

use crate::kit::*;

/// Shows 3.1.1: [MQTT-1.5.3-1] [MQTT-1.5.3-2] [MQTT-3.1.3-4] [MQTT-3.1.3-10] [MQTT-3.1.3-11]
/// Shows 3.1.1: [MQTT-3.3.2-1] [MQTT-3.8.3-1] [MQTT-3.10.3-1] [MQTT-4.7.3-2]
/// Shows 5.0: [MQTT-1.5.4-1] [MQTT-1.5.4-2] [MQTT-1.5.7-1] [MQTT-3.1.3-4] [MQTT-3.1.3-11] [MQTT-3.1.3-12]
/// Shows 5.0: [MQTT-3.3.2-1] [MQTT-3.3.2-13] [MQTT-3.3.2-19] [MQTT-3.8.3-1] [MQTT-3.10.3-1] [MQTT-4.7.3-2]
#[tokio::test]
async fn what_is_no_text_is_malformed_wherever_it_stands() {
    let broker = Running::start(|_| {});
    let bad: [&[u8]; 5] = [b"a\xff", b"\xed\xa0\x80", b"\xc0\x80", b"\xf4\x90\x80\x80", b"a\0b"];
    let mut cases = 0;
    for version in BOTH {
        for text in bad {
            let (id, will) = (field("c"), properties(version, &[]));
            let connects = [
                ("client id", connect_packet(version, 2, &[&field(text)])),
                ("will", connect_packet(version, 6, &[&id, &will, &field(text), &field("gone")])),
                ("user", connect_packet(version, 0x82, &[&id, &field(text)])),
            ];
            for (place, bytes) in connects {
                malformed_connect(&broker, version, &bytes, 0x81, &format!("{version} {place} {text:?}")).await;
                cases += 1;
            }
            let mut packets = vec![
                ("topic", publish_packet(version, text, &[])),
                ("filter", subscribe_packet(version, text, 0)),
                ("filter to leave", unsubscribe_packet(version, text)),
            ];
            if version == V5 {
                let value = field(text);
                packets.extend([
                    ("response topic", publish_packet(V5, b"t", &cat(&[&[8], &value]))),
                    ("content type", publish_packet(V5, b"t", &cat(&[&[3], &value]))),
                    ("name of a property", publish_packet(V5, b"t", &cat(&[&[0x26], &value, &field("v")]))),
                    ("value of a property", publish_packet(V5, b"t", &cat(&[&[0x26], &field("n"), &value]))),
                ]);
            }
            for (place, bytes) in packets {
                ends_with(&broker, version, &bytes, 0x81, &format!("{version} {place} {text:?}")).await;
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 5 * (3 + 3) + 5 * (3 + 3 + 4));
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-1.5.3-3] [MQTT-4.7.3-4]
/// Shows 5.0: [MQTT-1.5.4-3] [MQTT-4.7.3-4]
#[tokio::test]
async fn texts_are_taken_as_they_are() {
    // A byte order mark, composed and decomposed letters, case, spaces, empty levels: all of them are different.
    let topics = ["a", "\u{feff}a", "A", "a ", "/a", "a/", "é", "e\u{301}", "\u{1}", "\u{ffff}"];
    let broker = Running::start(|_| {});
    for version in BOTH {
        let mut publisher = client(&broker, version, "pub").await;
        for topic in topics {
            let mut subscriber = client(&broker, version, "sub").await;
            subscriber.subscribe(topic, 0).await;
            for other in topics {
                deliver(&mut publisher, false, other, &[], b"x").await;
            }
            assert_eq!(subscriber.receive_publish().await.topic, topic);
            nothing_more(&mut subscriber).await;
        }
    }
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-2.2.2-1] [MQTT-2.2.2-2] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1]
/// Shows 5.0: [MQTT-2.1.3-1] [MQTT-3.6.1-1] [MQTT-3.8.1-1] [MQTT-3.10.1-1] [MQTT-3.14.1-1] [MQTT-3.15.1-1]
#[tokio::test]
async fn flags_other_than_those_of_the_table_are_malformed() {
    let broker = Running::start(|_| {});
    let mut cases = 0;
    for version in BOTH {
        // PUBACK, PUBREC, PUBREL, PUBCOMP, SUBSCRIBE, UNSUBSCRIBE, PINGREQ, DISCONNECT, AUTH: the flags each has to have.
        for right in [0x40, 0x50, 0x62, 0x70, 0x82, 0xa2, 0xc0, 0xe0, 0xf0_u8] {
            for flags in (0..16).filter(|flags| *flags != right & 0x0f) {
                let first = right & 0xf0 | flags;
                let body: &[u8] = if matches!(right, 0xc0 | 0xe0) { &[] } else { &[0, 1] };
                ends_with(&broker, version, &packet(first, body), 0x81, &format!("{version} {first:02x}")).await;
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 2 * 9 * 15);
    broker.stop().await;
}

/// Shows 3.1.1: [MQTT-2.3.1-1]
/// Shows 5.0: [MQTT-2.2.1-3]
#[tokio::test]
async fn no_packet_has_the_id_0() {
    let broker = Running::start(|_| {});
    for version in BOTH {
        let none = properties(version, &[]);
        for (case, bytes) in [
            ("SUBSCRIBE", packet(0x82, &cat(&[&[0, 0], &none, &field("a"), &[0]]))),
            ("UNSUBSCRIBE", packet(0xa2, &cat(&[&[0, 0], &none, &field("a")]))),
            ("QoS 1", packet(0x32, &cat(&[&field("a"), &[0, 0], &none]))),
            ("QoS 2", packet(0x34, &cat(&[&field("a"), &[0, 0], &none]))),
        ] {
            ends_with(&broker, version, &bytes, 0x82, &format!("{version} {case}")).await;
        }
    }
    broker.stop().await;
}

/// Shows 5.0: [MQTT-1.5.5-1]
#[tokio::test]
async fn variable_lengths_are_as_short_as_can_be() {
    let broker = Running::start(|_| {});
    let subscribe = |ids: &[u8]| packet(0x82, &cat(&[&[0, 1], &[1 + ids.len() as u8, 0x0b], ids, &field("a"), &[0]]));
    for (case, bytes) in [
        ("length of a packet", vec![0xc0, 0x80, 0]),
        ("length of a message", cat(&[&[0x30, 0x85, 0], &field("a"), &[0, b'x']])),
        ("length of properties", packet(0x30, &cat(&[&field("a"), &[0x80, 0]]))),
        ("subscription id", subscribe(&[0x81, 0])),
        ("five bytes", subscribe(&[0x80, 0x80, 0x80, 0x80, 1])),
    ] {
        ends_with(&broker, V5, &bytes, 0x81, case).await;
    }
    let mut first = Raw::open(broker.address, V5).await;
    let body = Hello::v5("long").body();
    first.bytes(&cat(&[&[0x10, 0x80 | body.len() as u8, 0], &body])).await;
    let (_, connack) = first.receive().await.unwrap();
    assert_eq!((connack[1], first.receive().await), (0x81, None));
    // The broker's own: one byte up to 127, two from 128 on, for the packet, its properties and a subscription identifier.
    let mut client = client(&broker, V5, "c").await;
    client.subscribe_with("t", 0, &[0x0b, 0x80, 1]).await;
    for length in [119, 120_u8] {
        let name = vec![b'n'; usize::from(length)];
        client.publish_with(0x30, "t", 0, &cat(&[&[0x26], &field(&name), &field("")]), b"").await;
        let (_, body) = client.receive().await.unwrap();
        let block = 3 + 5 + usize::from(length);
        let head: &[u8] = if block < 128 { &[127] } else { &[0x80, 1] };
        assert!(body[3..].starts_with(&cat(&[head, &[0x0b, 0x80, 1, 0x26]])), "{:?}", &body[..12]);
        assert_eq!(body.len(), 3 + head.len() + block);
    }
    broker.stop().await;
}

/// Shows 5.0: [MQTT-2.2.2-1]
#[tokio::test]
async fn packets_without_properties_say_so() {
    let broker = Running::start(|_| {});
    let mut client = client(&broker, V5, "c").await;
    client.bytes(&subscribe_packet(V5, b"t", 0)).await;
    expect(&mut client, 0x90, &[0, 1, 0, 0], "SUBACK").await;
    client.publish("t", b"x", 0, 0, false).await;
    expect(&mut client, 0x30, &[0, 1, b't', 0, b'x'], "PUBLISH").await;
    client.bytes(&unsubscribe_packet(V5, b"t")).await;
    expect(&mut client, 0xb0, &[0, 1, 0, 0], "UNSUBACK").await;
    client.bytes(&packet(0x30, &field("t"))).await;
    ends(&mut client, 0x81, "PUBLISH without a length of properties").await;
    broker.stop().await;
}
