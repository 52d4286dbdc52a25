//! Packets of a server, byte by byte.

use super::{
    encoder::{bin, cat, packet, props, var},
    write::*,
    *,
};

fn wrote(write: impl FnOnce(&mut BytesMut)) -> Vec<u8> {
    // Something is in the buffer already, and stays.
    let mut out = BytesMut::from(&b"before"[..]);
    write(&mut out);
    out.strip_prefix(b"before").unwrap().to_vec()
}

#[test]
fn connack_of_3_1_1() {
    for (session_present, code, expected) in
        [(false, 0, b"\x20\x02\0\0"), (true, 0, b"\x20\x02\x01\0"), (true, 5, b"\x20\x02\0\x05")]
    {
        let ack = ConnAck { session_present, code, receive_maximum: Some(9), ..ConnAck::default() };
        assert_eq!(wrote(|out| connack(out, Version::V3, &ack)), expected);
    }
}

#[test]
fn connack_of_5_0() {
    let ack = ConnAck { session_present: true, code: 0x87, ..ConnAck::default() };
    assert_eq!(wrote(|out| connack(out, Version::V5, &ack)), b"\x20\x03\0\x87\0", "[MQTT-3.2.2-6]");
    let ack = ConnAck {
        session_present: true,
        code: 0,
        session_expiry: Some(60),
        receive_maximum: Some(100),
        maximum_packet_size: Some(1 << 20),
        assigned_client_id: Some("auto-1"),
        topic_alias_maximum: 8,
        reason_string: Some("å"),
        server_keep_alive: Some(30),
        response_information: Some("r"),
    };
    let expected: [&[u8]; 8] = [
        b"\x11\0\0\0\x3c",
        b"\x21\0\x64",
        b"\x27\0\x10\0\0",
        b"\x12\0\x06auto-1",
        b"\x22\0\x08",
        b"\x1f\0\x02\xc3\xa5",
        b"\x13\0\x1e",
        b"\x1a\0\x01r",
    ];
    assert_eq!(wrote(|out| connack(out, Version::V5, &ack)), packet(0x20, &[b"\x01\0", &props(&expected)]));
    // 0 is no Receive Maximum and no Maximum Packet Size a client may be sent.
    let ack = ConnAck { receive_maximum: Some(0), maximum_packet_size: Some(0), ..ConnAck::default() };
    assert_eq!(wrote(|out| connack(out, Version::V5, &ack)), b"\x20\x03\0\0\0");
}

#[test]
fn acknowledgements() {
    let kinds = [(AckKind::PubAck, 0x40), (AckKind::PubRec, 0x50), (AckKind::PubRel, 0x62), (AckKind::PubComp, 0x70)];
    for (kind, first) in kinds {
        for version in [Version::V3, Version::V5] {
            assert_eq!(wrote(|out| ack(out, version, kind, 0x1234, 0)), [first, 2, 0x12, 0x34]);
        }
        assert_eq!(wrote(|out| ack(out, Version::V3, kind, 0x1234, 0x92)), [first, 2, 0x12, 0x34]);
        assert_eq!(wrote(|out| ack(out, Version::V5, kind, 0x1234, 0x92)), [first, 3, 0x12, 0x34, 0x92]);
    }
}

#[test]
fn subscription_answers() {
    let codes = [0, 1, 2, 0x87, 0x8f];
    assert_eq!(wrote(|out| suback(out, Version::V3, 7, &codes)), b"\x90\x07\0\x07\0\x01\x02\x80\x80", "[MQTT-3.9.3-2]");
    assert_eq!(wrote(|out| suback(out, Version::V5, 7, &codes)), b"\x90\x08\0\x07\0\0\x01\x02\x87\x8f");
    assert_eq!(wrote(|out| unsuback(out, Version::V3, 7, &[0, 0x11])), b"\xb0\x02\0\x07");
    assert_eq!(wrote(|out| unsuback(out, Version::V5, 7, &[0, 0x11])), b"\xb0\x05\0\x07\0\0\x11");
    let many = vec![1; 300];
    assert_eq!(wrote(|out| suback(out, Version::V5, 7, &many)), packet(0x90, &[b"\0\x07\0", &many]));
}

#[test]
fn ping_and_disconnect() {
    assert_eq!(wrote(pingresp), b"\xd0\0");
    assert_eq!(wrote(|out| disconnect(out, Version::V3, 0x8e, Some("x"))), b"");
    assert_eq!(wrote(|out| disconnect(out, Version::V5, 0x8e, None)), b"\xe0\x01\x8e");
    assert_eq!(wrote(|out| disconnect(out, Version::V5, 0x8e, Some("ab"))), b"\xe0\x07\x8e\x05\x1f\0\x02ab");
}

#[test]
fn a_text_too_long_for_mqtt_is_cut_at_a_character() {
    // 65,534 bytes, then a character of two bytes: it does not fit.
    let text = format!("{}å tail", "x".repeat(65_534));
    let bytes = wrote(|out| disconnect(out, Version::V5, 0x81, Some(&text)));
    let property = cat(&[b"\x1f", &bin("x".repeat(65_534))]);
    assert_eq!(bytes, packet(0xe0, &[b"\x81", &props(&[&property])]));
}

const PUBLISH: PublishOut<'_> = PublishOut {
    dup: false,
    qos: QoS::AtMostOnce,
    retain: false,
    packet_id: 0x1234,
    topic: b"t/x",
    topic_alias: None,
    expiry: None,
    subscription_ids: &[],
    properties: b"",
    payload: b"pay",
};

#[test]
fn publish_of_3_1_1() {
    let cases: [(PublishOut<'_>, &[u8]); 4] = [
        (PUBLISH, b"\x30\x08\0\x03t/xpay"),
        (PublishOut { retain: true, dup: true, ..PUBLISH }, b"\x31\x08\0\x03t/xpay"),
        (PublishOut { qos: QoS::AtLeastOnce, ..PUBLISH }, b"\x32\x0a\0\x03t/x\x12\x34pay"),
        (PublishOut { qos: QoS::ExactlyOnce, dup: true, retain: true, ..PUBLISH }, b"\x3d\x0a\0\x03t/x\x12\x34pay"),
    ];
    for (packet, expected) in cases {
        // What only 5.0 has changes nothing.
        let more = PublishOut {
            topic_alias: Some(1),
            expiry: Some(1),
            subscription_ids: &[1],
            properties: b"\x01\x01",
            ..packet
        };
        for packet in [packet, more] {
            assert_eq!(wrote(|out| publish(out, Version::V3, &packet)), expected);
            assert_eq!(publish_size(Version::V3, &packet), expected.len());
        }
    }
}

#[test]
fn publish_of_5_0() {
    let full = PublishOut {
        qos: QoS::AtLeastOnce,
        topic: b"",
        topic_alias: Some(9),
        expiry: Some(60),
        subscription_ids: &[1, 128, 268_435_455],
        properties: b"\x26\0\x01a\0\x01b\x01\x01",
        ..PUBLISH
    };
    let properties: [&[u8]; 6] = [
        b"\x23\0\x09",
        b"\x02\0\0\0\x3c",
        b"\x0b\x01",
        b"\x0b\x80\x01",
        b"\x0b\xff\xff\xff\x7f",
        b"\x26\0\x01a\0\x01b\x01\x01",
    ];
    let expected = packet(0x32, &[b"\0\0\x12\x34", &props(&properties), b"pay"]);
    assert_eq!(wrote(|out| publish(out, Version::V5, &full)), expected);
    assert_eq!(publish_size(Version::V5, &full), expected.len());
    assert_eq!(wrote(|out| publish(out, Version::V5, &PUBLISH)), b"\x30\x09\0\x03t/x\0pay");
}

#[test]
fn sizes_at_the_edges_of_lengths() {
    let mut seen = 0;
    for edge in [127usize, 128, 16_383, 16_384, 2_097_151, 2_097_152] {
        // Remaining Length exactly at the edge.
        let payload = vec![b'p'; edge - 5];
        let out = PublishOut { payload: &payload, ..PUBLISH };
        let bytes = wrote(|buffer| publish(buffer, Version::V3, &out));
        assert_eq!(bytes.get(1..1 + var(edge).len()), Some(&*var(edge)));
        assert_eq!((bytes.len(), publish_size(Version::V3, &out)), (1 + var(edge).len() + edge, bytes.len()));
        // Property length exactly at the edge.
        let out = PublishOut { properties: &payload, topic_alias: Some(1), subscription_ids: &[5], ..PUBLISH };
        let bytes = wrote(|buffer| publish(buffer, Version::V5, &out));
        assert_eq!(bytes, packet(0x30, &[b"\0\x03t/x", &props(&[b"\x23\0\x01\x0b\x05", &payload]), b"pay"]));
        assert_eq!(publish_size(Version::V5, &out), bytes.len());
        seen += 1;
    }
    assert_eq!(seen, 6);
}

#[test]
fn a_publish_mqtt_cannot_express_is_not_written() {
    let payload = vec![0; 268_435_455 - 4];
    let packet = PublishOut { payload: &payload, ..PUBLISH };
    assert_eq!(wrote(|out| publish(out, Version::V3, &packet)), b"");
    assert_eq!(publish_size(Version::V3, &packet), 268_435_456 + 5);
}
