//! Packets that are right, field by field.

use std::borrow::Cow;

use super::{encoder::*, *};

type Wrap = fn(Ack) -> Packet<'static>;
/// Properties of one packet.
type Properties<'a> = &'a [&'a [u8]];

fn connect(bytes: &[u8]) -> Connect {
    match read(bytes, Version::V3) {
        Ok(Packet::Connect(connect)) => *connect,
        other => panic!("{other:?}"),
    }
}

fn publish(bytes: &[u8], version: Version) -> Publish<'_> {
    match read(bytes, version) {
        Ok(Packet::Publish(publish)) => publish,
        other => panic!("{other:?}"),
    }
}

#[test]
fn connect_of_3_1_1_with_everything() {
    let payload = [bin("id/å"), bin("w/t"), bin(b"\xff\0"), bin("user"), bin(b"\0\xff")];
    let payload: Vec<&[u8]> = payload.iter().map(Vec::as_slice).collect();
    let packet = connect(&connect3(0b1111_0110, &payload));
    assert_eq!((packet.version, packet.clean_start, packet.keep_alive), (Version::V3, true, 60));
    assert_eq!((packet.client_id.as_str(), packet.user_name.as_deref()), ("id/å", Some("user")));
    assert_eq!(packet.password.as_ref().map(Password::expose), Some(&b"\0\xff"[..]));
    let will = packet.will.unwrap();
    assert_eq!(
        (will.topic.as_str(), &*will.payload, will.qos, will.retain),
        ("w/t", &b"\xff\0"[..], QoS::ExactlyOnce, true)
    );
    assert_eq!((will.delay, will.expiry, will.properties.len()), (0, None, 0));
}

#[test]
fn connect_of_3_1_1_with_nothing() {
    let packet = connect(&connect3(0, &[&bin("")]));
    let nothing = Connect {
        version: Version::V3,
        clean_start: false,
        keep_alive: 60,
        client_id: String::new(),
        will: None,
        user_name: None,
        password: None,
        session_expiry: 0,
        receive_maximum: 65_535,
        maximum_packet_size: None,
        topic_alias_maximum: 0,
        request_response_information: false,
        request_problem_information: true,
        user_properties: 0,
        authentication_method: None,
    };
    assert_eq!(packet, nothing);
    assert_eq!(connect(&connect5(0, &[], &[&bin("")])), Connect { version: Version::V5, ..nothing });
}

#[test]
fn connect_of_5_0_with_everything() {
    let properties: [&[u8]; 10] = [
        b"\x11\xff\xff\xff\xff",
        b"\x21\0\x0a",
        b"\x27\0\x01\0\0",
        b"\x22\0\x05",
        b"\x19\x01",
        b"\x17\0",
        b"\x26\0\x01a\0\x01b",
        b"\x26\0\x01a\0\x01b",
        b"\x15\0\x05SCRAM",
        b"\x16\0\x01d",
    ];
    let kept: &[u8] = b"\x01\x01\x03\0\x01c\x08\0\x01r\x09\0\x01d\x26\0\x01a\0\x01b";
    let will = [&bin("id")[..], &props(&[b"\x18\0\0\0\x07\x02\0\0\0\x09", kept]), &bin("w"), &bin("p")].concat();
    let packet = connect(&connect5(0b0100_1110, &properties, &[&will, &bin("token")]));
    assert_eq!((packet.version, packet.session_expiry, packet.receive_maximum), (Version::V5, u32::MAX, 10));
    assert_eq!((packet.maximum_packet_size, packet.topic_alias_maximum), (Some(65_536), 5));
    assert_eq!((packet.request_response_information, packet.request_problem_information), (true, false));
    assert_eq!((packet.user_properties, packet.authentication_method.as_deref()), (2, Some("SCRAM")));
    // A password alone is allowed since 5.0.
    assert_eq!((packet.user_name, packet.password.as_ref().map(Password::expose)), (None, Some(&b"token"[..])));
    let will = packet.will.unwrap();
    assert_eq!((will.qos, will.retain, will.delay, will.expiry), (QoS::AtLeastOnce, false, 7, Some(9)));
    assert_eq!((will.topic.as_str(), &*will.payload, will.properties.as_slice()), ("w", &b"p"[..], kept));
}

#[test]
fn a_password_is_not_printed() {
    let packet = connect(&connect3(0xc2, &[&bin("c"), &bin("u"), &bin("hunter2")]));
    let printed = format!("{packet:?}");
    assert!(printed.contains("***") && !printed.contains("hunter2") && !printed.contains("104, 117"), "{printed}");
}

#[test]
fn publish_flags_and_fields() {
    let mut seen = 0;
    for version in [Version::V3, Version::V5] {
        for first in [0x30, 0x31, 0x32, 0x33, 0x34, 0x35, 0x3a, 0x3b, 0x3c, 0x3d] {
            let qos = (first >> 1) & 3;
            let id: &[u8] = if qos > 0 { b"\x12\x34" } else { b"" };
            let none: &[u8] = if version == Version::V5 { b"\0" } else { b"" };
            let bytes = packet(first, &[&bin("å/日本"), id, none, b"pay\0load"]);
            let publish = publish(&bytes, version);
            assert_eq!((publish.topic, publish.payload), ("å/日本", &b"pay\0load"[..]));
            assert_eq!((publish.dup, publish.retain, publish.qos as u8), (first & 8 != 0, first & 1 != 0, qos));
            assert_eq!(publish.packet_id, if qos > 0 { 0x1234 } else { 0 });
            assert_eq!((publish.topic_alias, publish.expiry, publish.properties.len()), (None, None, 0));
            seen += 1;
        }
    }
    assert_eq!(seen, 20);
}

#[test]
fn publish_with_nothing_in_it() {
    let publish = publish(b"\x30\x03\x00\x01t", Version::V3);
    assert_eq!((publish.topic, publish.payload.len()), ("t", 0));
}

#[test]
fn topics_that_are_not_for_the_codec_to_judge() {
    let long = "l".repeat(65_535);
    let topics = ["/", "//", "$SYS/x", " ", "\u{feff}", "\u{ffff}", "\u{10ffff}", "a\u{1}", &long];
    for topic in topics {
        assert_eq!(publish(&packet(0x30, &[&bin(topic)]), Version::V3).topic, topic);
    }
}

#[test]
fn travelling_properties_stay_as_they_were() {
    const ALIAS: &[u8] = b"\x23\0\x09";
    const EXPIRY: &[u8] = b"\x02\0\0\0\x3c";
    const FORMAT: &[u8] = b"\x01\0";
    const USER: &[u8] = b"\x26\0\x01a\0\x01b";
    const TYPE: &[u8] = b"\x03\0\x01c";
    // Properties in the packet, those that travel, whether they can be borrowed.
    let cases: [(Properties<'_>, Properties<'_>, bool); 12] = [
        (&[], &[], true),
        (&[ALIAS, EXPIRY], &[], true),
        (&[FORMAT], &[FORMAT], true),
        (&[FORMAT, USER, TYPE, USER], &[FORMAT, USER, TYPE, USER], true),
        (&[ALIAS, FORMAT, USER], &[FORMAT, USER], true),
        (&[EXPIRY, ALIAS, USER], &[USER], true),
        (&[USER, USER, EXPIRY], &[USER, USER], true),
        (&[ALIAS, USER, TYPE, EXPIRY], &[USER, TYPE], true),
        (&[USER, ALIAS, TYPE], &[USER, TYPE], false),
        (&[USER, ALIAS, TYPE, EXPIRY, FORMAT], &[USER, TYPE, FORMAT], false),
        (&[USER, ALIAS, TYPE, FORMAT, USER], &[USER, TYPE, FORMAT, USER], false),
        (&[ALIAS, USER, EXPIRY, TYPE], &[USER, TYPE], false),
    ];
    for (all, travelling, borrowed) in cases {
        let bytes = publish5(all);
        let publish = publish(&bytes, Version::V5);
        assert_eq!(&*publish.properties, cat(travelling), "{all:02x?}");
        assert_eq!(matches!(publish.properties, Cow::Borrowed(_)), borrowed, "{all:02x?}");
        assert_eq!(publish.topic_alias, all.contains(&ALIAS).then_some(9), "{all:02x?}");
        assert_eq!(publish.expiry, all.contains(&EXPIRY).then_some(60), "{all:02x?}");
        assert_eq!(publish.payload, b"p");
    }
}

#[test]
fn an_alias_may_stand_for_the_topic() {
    let bytes = packet(0x30, &[&bin(""), &props(&[b"\x23\xff\xff"]), b"x"]);
    let publish = publish(&bytes, Version::V5);
    assert_eq!((publish.topic, publish.topic_alias), ("", Some(65_535)));
}

#[test]
fn acknowledgements() {
    let cases: [(u8, Wrap); 4] =
        [(0x40, Packet::PubAck), (0x50, Packet::PubRec), (0x62, Packet::PubRel), (0x70, Packet::PubComp)];
    for (first, wrap) in cases {
        let expected = wrap(Ack { packet_id: 0xfffe, reason: 0 });
        for version in [Version::V3, Version::V5] {
            assert_eq!(read(&packet(first, &[b"\xff\xfe"]), version), Ok(expected.clone()));
        }
        let reason = if first < 0x60 { 0x97 } else { 0x92 };
        let expected = wrap(Ack { packet_id: 1, reason });
        for tail in [&b""[..], b"\0", b"\x04\x1f\0\x01x", b"\x0a\x26\0\0\0\0\x26\0\0\0\0"] {
            let bytes = packet(first, &[b"\0\x01", &[reason], tail]);
            assert_eq!(read(&bytes, Version::V5), Ok(expected.clone()), "{tail:02x?}");
        }
    }
}

#[test]
fn subscribe_in_3_1_1() {
    let bytes = packet(0x82, &[b"\x12\x34", &bin("a/+"), b"\0", &bin(""), b"\x01", &bin("a/#/b"), b"\x02"]);
    let Packet::Subscribe(subscribe) = read(&bytes, Version::V3).unwrap() else { panic!("no SUBSCRIBE") };
    let found: Vec<_> = subscribe.filters.iter().map(|line| (line.filter.as_str(), line.options.qos as u8)).collect();
    // Whether these are filters at all, the caller says in SUBACK.
    assert_eq!(found, [("a/+", 0), ("", 1), ("a/#/b", 2)]);
    assert_eq!((subscribe.packet_id, subscribe.subscription_id), (0x1234, None));
}

#[test]
fn subscription_options_of_5_0() {
    let mut seen = 0;
    for byte in 0..0x30u8 {
        if byte & 3 == 3 {
            continue;
        }
        let bytes = packet(0x82, &[b"\0\x01", &props(&[b"\x0b\xff\xff\xff\x7f"]), &bin("a"), &[byte]]);
        let Packet::Subscribe(subscribe) = read(&bytes, Version::V5).unwrap() else { panic!("no SUBSCRIBE") };
        let options = SubscribeOptions {
            qos: QoS::from_u8(byte & 3).unwrap(),
            no_local: byte & 4 != 0,
            retain_as_published: byte & 8 != 0,
            retain_handling: byte >> 4,
        };
        assert_eq!(subscribe.filters, [SubscribeFilter { filter: "a".into(), options }]);
        assert_eq!(subscribe.subscription_id, Some(268_435_455));
        seen += 1;
    }
    assert_eq!(seen, 36);
}

#[test]
fn unsubscribe_ping_disconnect_and_auth() {
    let filters = vec!["a".to_owned(), "$share/g/b".to_owned()];
    let unsubscribe = Packet::Unsubscribe(Unsubscribe { packet_id: 7, filters });
    let both = cat(&[&bin("a"), &bin("$share/g/b")]);
    assert_eq!(read(&packet(0xa2, &[b"\0\x07", &both]), Version::V3), Ok(unsubscribe.clone()));
    assert_eq!(read(&packet(0xa2, &[b"\0\x07\0", &both]), Version::V5), Ok(unsubscribe));
    let bye = |reason, session_expiry| Ok(Packet::Disconnect(Disconnect { reason, session_expiry }));
    for version in [Version::V3, Version::V5] {
        assert_eq!(read(b"\xc0\0", version), Ok(Packet::PingReq));
        assert_eq!(read(b"\xe0\0", version), bye(0, None));
    }
    assert_eq!(read(b"\xe0\x01\x04", Version::V5), bye(4, None));
    assert_eq!(read(b"\xe0\x02\x04\0", Version::V5), bye(4, None));
    assert_eq!(read(b"\xe0\x07\0\x05\x11\0\0\0\x3c", Version::V5), bye(0, Some(60)));
    assert_eq!(read(b"\xf0\x06\x19\x04\x15\0\x01m", Version::V5), Ok(Packet::Auth(Auth { reason: 0x19 })));
}
