//! Packets that are wrong in 5.0.

use super::{encoder::*, *};

#[test]
fn a_property_is_only_let_in_where_table_2_4_says() {
    // Every identifier there is, with a value that is right.
    let properties: [(u8, &[u8]); 27] = [
        (0x01, b"\x01"),
        (0x02, b"\0\0\0\x01"),
        (0x03, b"\0\x01a"),
        (0x08, b"\0\x01a"),
        (0x09, b"\0\x01a"),
        (0x0b, b"\x01"),
        (0x11, b"\0\0\0\x01"),
        (0x12, b"\0\x01a"),
        (0x13, b"\0\x01"),
        (0x15, b"\0\x01a"),
        (0x16, b"\0\x01a"),
        (0x17, b"\x01"),
        (0x18, b"\0\0\0\x01"),
        (0x19, b"\x01"),
        (0x1a, b"\0\x01a"),
        (0x1c, b"\0\x01a"),
        (0x1f, b"\0\x01a"),
        (0x21, b"\0\x01"),
        (0x22, b"\0\x01"),
        (0x23, b"\0\x01"),
        (0x24, b"\x01"),
        (0x25, b"\x01"),
        (0x26, b"\0\x01a\0\x01b"),
        (0x27, b"\0\0\0\x01"),
        (0x28, b"\x01"),
        (0x29, b"\x01"),
        (0x2a, b"\x01"),
    ];
    // The column "Packet / Will Properties" of table 2-4, for what clients send.
    type Wrap = fn(&[u8]) -> Vec<u8>;
    let packets: [(&str, &[u8], Wrap); 9] = [
        ("PUBLISH", &[0x01, 0x02, 0x03, 0x08, 0x09, 0x23, 0x26], |p| publish5(&[p])),
        ("will", &[0x01, 0x02, 0x03, 0x08, 0x09, 0x18, 0x26], |p| {
            connect5(0x06, &[], &[&bin("c"), &props(&[p]), &bin("w"), &bin("")])
        }),
        ("CONNECT", &[0x11, 0x15, 0x17, 0x19, 0x21, 0x22, 0x26, 0x27], |p| connect5(2, &[p], &[&bin("c")])),
        ("PUBACK", &[0x1f, 0x26], |p| packet(0x40, &[b"\0\x01\0", &props(&[p])])),
        ("PUBCOMP", &[0x1f, 0x26], |p| packet(0x70, &[b"\0\x01\0", &props(&[p])])),
        ("SUBSCRIBE", &[0x0b, 0x26], |p| packet(0x82, &[b"\0\x01", &props(&[p]), &bin("a"), b"\0"])),
        ("UNSUBSCRIBE", &[0x26], |p| packet(0xa2, &[b"\0\x01", &props(&[p]), &bin("a")])),
        ("DISCONNECT", &[0x11, 0x1f, 0x26], |p| packet(0xe0, &[b"\0", &props(&[p])])),
        ("AUTH", &[0x16, 0x1f, 0x26], |p| packet(0xf0, &[b"\x18", &props(&[b"\x15\0\x01m", p])])),
    ];
    let (mut let_in, mut kept_out) = (0, 0);
    for (packet, allowed, wrap) in packets {
        for (id, value) in properties {
            let bytes = wrap(&cat(&[&[id], value]));
            let verdict = read(&bytes, Version::V5).map(|_| ());
            assert_eq!(verdict.is_ok(), allowed.contains(&id), "{packet} {id:#04x}: {verdict:?}");
            let_in += usize::from(verdict.is_ok());
            kept_out += usize::from(verdict.is_err());
        }
        for unknown in [0x00, 0x04, 0x2b, 0x40, 0x7f, 0x80, 0xff] {
            let bytes = wrap(&[unknown, 0, 0, 0, 0]);
            assert_eq!(read(&bytes, Version::V5).unwrap_err().reason_code(), 0x81, "{packet} {unknown:#04x}");
        }
    }
    assert_eq!((let_in, kept_out), (35, 9 * 27 - 35));
}

#[test]
fn single_properties_are_there_once() {
    let twice = |property: &[u8]| cat(&[property, property]);
    let publish = |property: &[u8]| publish5(&[&twice(property)]);
    let connect = |property: &[u8]| connect5(2, &[&twice(property)], &[&bin("c")]);
    let will = |p: &[u8]| connect5(6, &[], &[&bin("c"), &props(&[&twice(p)]), &bin("w"), &bin("")]);
    let packets = [
        publish(b"\x01\x01"),
        publish(b"\x02\0\0\0\x01"),
        publish(b"\x03\0\0"),
        publish(b"\x08\0\x01r"),
        publish(b"\x09\0\0"),
        publish(b"\x23\0\x01"),
        connect(b"\x11\0\0\0\x01"),
        connect(b"\x15\0\x01m"),
        connect5(2, &[b"\x15\0\x01m", &twice(b"\x16\0\x01d")], &[&bin("c")]),
        connect(b"\x17\x01"),
        connect(b"\x19\x01"),
        connect(b"\x21\0\x01"),
        connect(b"\x22\0\x01"),
        connect(b"\x27\0\0\0\x01"),
        will(b"\x18\0\0\0\x01"),
        will(b"\x02\0\0\0\x01"),
        packet(0x40, &[b"\0\x01\0", &props(&[&twice(b"\x1f\0\0")])]),
        packet(0x82, &[b"\0\x01", &props(&[&twice(b"\x0b\x01")]), &bin("a"), b"\0"]),
        packet(0xe0, &[b"\0", &props(&[&twice(b"\x11\0\0\0\0")])]),
    ];
    let table: Vec<_> = packets.into_iter().map(|bytes| v5("included more than once", bytes, 0x82, "twice")).collect();
    assert_eq!(refuse(&table), 19);
    assert!(read(&publish(b"\x26\0\x01a\0\x01b"), Version::V5).is_ok(), "User Properties may repeat");
}

#[test]
fn values_of_properties() {
    let connect = |property: &[u8]| connect5(2, &[property], &[&bin("c")]);
    let table = [
        v5("payload format 2", publish5(&[b"\x01\x02"]), 0x82, "0 or 1"),
        v5("request problem information 2", connect(b"\x17\x02"), 0x82, "0 or 1"),
        v5("request response information 255", connect(b"\x19\xff"), 0x82, "0 or 1"),
        v5("receive maximum 0", connect(b"\x21\0\0"), 0x82, "Receive Maximum 0"),
        v5("maximum packet size 0", connect(b"\x27\0\0\0\0"), 0x82, "Packet Size 0"),
        v5("authentication data, no method", connect(b"\x16\0\x01d"), 0x82, "without an authentication method"),
        v5("[MQTT-3.3.2-8] topic alias 0", publish5(&[b"\x23\0\0"]), 0x94, "alias 0"),
        v5("[MQTT-3.3.2-14] response topic #", publish5(&[b"\x08\0\x01#"]), 0x82, "Response Topic"),
        v5("[MQTT-3.3.2-14] response topic +", publish5(&[b"\x08\0\x03a/+"]), 0x82, "Response Topic"),
        v5("[MQTT-4.7.3-1] response topic empty", publish5(&[b"\x08\0\0"]), 0x82, "Response Topic"),
        v5("[MQTT-1.5.4-2] response topic U+0000", publish5(&[b"\x08\0\x01\0"]), 0x81, "U+0000"),
        v5("[MQTT-3.3.2-19] content type not UTF-8", publish5(&[b"\x03\0\x01\xff"]), 0x81, "not UTF-8"),
        v5("[MQTT-1.5.4-2] user property name", publish5(&[b"\x26\0\x01\0\0\0"]), 0x81, "U+0000"),
        v5("[MQTT-1.5.4-1] user property value", publish5(&[b"\x26\0\0\0\x01\xff"]), 0x81, "not UTF-8"),
        v5("[MQTT-3.3.4-6] subscription id", publish5(&[b"\x0b\x01"]), 0x82, "Subscription Identifier"),
        v5("subscription id 0", packet(0x82, &[b"\0\x01\x02\x0b\0", &bin("a"), b"\0"]), 0x82, "Identifier 0"),
        v5("server reference", packet(0xe0, &[b"\0", &props(&[b"\x1c\0\x01s"])]), 0x82, "Server Reference"),
    ];
    assert_eq!(refuse(&table), 17);
}

#[test]
fn lengths_of_properties() {
    let publish = |rest: &[u8]| packet(0x30, &[&bin("t"), rest]);
    let sub = |properties: &[u8]| packet(0x82, &[b"\0\x01", properties, &bin("a"), b"\0"]);
    let table = [
        v5("no length", publish(b""), 0x81, "middle of a field"),
        v5("longer than the packet", publish(b"\x02\x01"), 0x81, "middle of a field"),
        v5("shorter than the property", publish(b"\x01\x01\x01"), 0x81, "middle of a field"),
        v5("a text runs out of the block", publish(b"\x04\x03\0\x05abcde"), 0x81, "middle of a field"),
        v5("half a user property", publish(b"\x04\x26\0\x01a"), 0x81, "middle of a field"),
        v5("[MQTT-1.5.5-1] over-long length", publish(b"\x80\0"), 0x81, "longer than needed"),
        v5("length of five bytes", publish(b"\x80\x80\x80\x80\x01"), 0x81, "more than four"),
        v5("unfinished length", publish(b"\x80"), 0x81, "middle of a field"),
        v5("[MQTT-1.5.5-1] over-long id", sub(b"\x03\x0b\x81\0"), 0x81, "longer than needed"),
        v5("subscription id of five bytes", sub(b"\x06\x0b\xff\xff\xff\xff\x01"), 0x81, "more than four"),
        v5("an id that stands for 1 in two bytes", publish(b"\x03\x81\0\x01"), 0x81, "does not belong"),
    ];
    assert_eq!(refuse(&table), 11);
}

#[test]
fn connect_in_5_0() {
    let table = [
        v5("[MQTT-3.1.2-3] reserved flag", connect5(3, &[], &[&bin("c")]), 0x81, "reserved flag"),
        v5("[MQTT-3.1.2-11] will QoS, no will", connect5(0x12, &[], &[&bin("c")]), 0x81, "will flags"),
        v5("[MQTT-3.1.2-13] will retain, no will", connect5(0x22, &[], &[&bin("c")]), 0x81, "will flags"),
        v5("[MQTT-3.1.2-12] will QoS 3", connect5(0x1e, &[], &[&bin("c"), b"\0", &bin("w"), b"\0\0"]), 0x81, "QoS 3"),
        v5("no will properties", connect5(6, &[], &[&bin("c"), &bin("w"), b"\0\0"]), 0x81, "middle of a field"),
        v5("empty will topic", connect5(6, &[], &[&bin("c"), b"\0", &bin(""), b"\0\0"]), 0x90, "empty"),
        v5("will topic +", connect5(6, &[], &[&bin("c"), b"\0", &bin("+"), b"\0\0"]), 0x90, "`+`"),
        v5("bytes behind", connect5(2, &[], &[&bin("c"), b"\0"]), 0x81, "after its last"),
        v5("no client id", connect5(2, &[], &[]), 0x81, "middle of a field"),
        v5("no properties", packet(0x10, &[b"\0\x04MQTT\x05\x02\0\x3c"]), 0x81, "middle of a field"),
    ];
    assert_eq!(refuse(&table), 10);
}

#[test]
fn reason_codes() {
    let publish_acks = [0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99];
    let disconnects = [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];
    let tables: [(u8, &[u8], &[u8]); 6] = [
        (0x40, b"\0\x01", &publish_acks),
        (0x50, b"\0\x01", &publish_acks),
        (0x62, b"\0\x01", &[0x00, 0x92]),
        (0x70, b"\0\x01", &[0x00, 0x92]),
        (0xe0, b"", &disconnects),
        (0xf0, b"", &[0x18, 0x19]),
    ];
    let mut allowed = 0;
    for (first, before, codes) in tables {
        for code in 0..=255 {
            let method: &[u8] = if first == 0xf0 { b"\x04\x15\0\x01m" } else { b"" };
            let bytes = packet(first, &[before, &[code], method]);
            match read(&bytes, Version::V5) {
                Ok(_) => assert!(codes.contains(&code), "{first:#04x} {code:#04x}"),
                Err(error) => {
                    assert!(!codes.contains(&code), "{first:#04x} {code:#04x}: {error}");
                    assert_eq!(error.reason_code(), 0x82);
                }
            }
            allowed += usize::from(codes.contains(&code));
        }
    }
    assert_eq!(allowed, 9 + 9 + 2 + 2 + 14 + 2);
}

#[test]
fn the_other_packets_of_5_0() {
    let sub = |options: u8| packet(0x82, &[b"\0\x01\0", &bin("a"), &[options]]);
    let table = [
        v5("no topic, no alias", packet(0x30, &[&bin(""), b"\0x"]), 0x82, "neither topic"),
        v5("[MQTT-3.3.2-2] wildcard", packet(0x30, &[&bin("a/#"), b"\0x"]), 0x90, "`#`"),
        v5("[MQTT-2.2.1-3] packet id 0", packet(0x32, &[&bin("t"), b"\0\0\0"]), 0x82, "identifier 0"),
        v5("maximum QoS 3", sub(0x03), 0x82, "QoS 3"),
        v5("retain handling 3", sub(0x30), 0x82, "Retain Handling 3"),
        v5("[MQTT-3.8.3-5] bit 6", sub(0x40), 0x81, "reserved bits"),
        v5("[MQTT-3.8.3-5] bit 7", sub(0x80), 0x81, "reserved bits"),
        v5("[MQTT-3.8.3-4] no local, shared", packet(0x82, &[b"\0\x01\0", &bin("$share/g/a"), b"\x04"]), 0x82, "Local"),
        v5("[MQTT-3.8.3-2] no filter", packet(0x82, &[b"\0\x01\0"]), 0x82, "without a topic filter"),
        v5("SUBSCRIBE without properties", packet(0x82, &[b"\0\x01"]), 0x81, "middle of a field"),
        v5("[MQTT-3.10.3-2] no filter", packet(0xa2, &[b"\0\x01\0"]), 0x82, "without a topic filter"),
        v5("bytes behind an acknowledgement", packet(0x40, &[b"\0\x01\0\0\0"]), 0x81, "after its last"),
        v5("bytes behind DISCONNECT", packet(0xe0, &[b"\0\0\0"]), 0x81, "after its last"),
        v5("AUTH: success is a server's", packet(0xf0, &[]), 0x82, "reason code"),
        v5("AUTH without properties", packet(0xf0, &[b"\x18"]), 0x81, "middle of a field"),
        v5("AUTH without method", packet(0xf0, &[b"\x18\0"]), 0x82, "without an authentication method"),
        v5("bytes behind AUTH", packet(0xf0, &[b"\x18\x04\x15\0\x01m\0"]), 0x81, "after its last"),
    ];
    assert_eq!(refuse(&table), 17);
}
