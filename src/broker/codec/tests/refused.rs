//! Packets that are wrong in 3.1.1, and mostly in both versions.

use super::{encoder::*, *};

#[test]
fn texts() {
    let subscribe = |filter: &[u8]| packet(0x82, &[b"\x00\x01", &bin(filter), b"\x00"]);
    let table = [
        v3("[MQTT-1.5.3-1] ill-formed UTF-8", subscribe(b"a\xff"), 0x81, "not UTF-8"),
        v3("[MQTT-1.5.3-1] a surrogate", subscribe(b"\xed\xa0\x80"), 0x81, "not UTF-8"),
        v3("[MQTT-1.5.3-1] over-long U+0000", subscribe(b"\xc0\x80"), 0x81, "not UTF-8"),
        v3("[MQTT-1.5.3-1] beyond U+10FFFF", subscribe(b"\xf4\x90\x80\x80"), 0x81, "not UTF-8"),
        v3("[MQTT-1.5.3-2] U+0000", subscribe(b"a\0b"), 0x81, "U+0000"),
        v3("[MQTT-1.5.3-1] cut character in a topic", packet(0x30, &[&bin(b"\xc3")]), 0x81, "not UTF-8"),
        v3("[MQTT-1.5.3-2] U+0000 in a topic", packet(0x30, &[&bin("a\0")]), 0x81, "U+0000"),
        v3("[MQTT-1.5.3-2] U+0000 in a client id", connect3(2, &[&bin("\0")]), 0x81, "U+0000"),
        v3("[MQTT-3.1.3-11] user name is UTF-8", connect3(0x82, &[&bin(""), &bin(b"\x80")]), 0x81, "not UTF-8"),
        v3("a text longer than the packet", packet(0x30, &[b"\x00\x05abc"]), 0x81, "middle of a field"),
    ];
    assert_eq!(refuse(&table), 10);
}

#[test]
fn connect_in_3_1_1() {
    let name = |name: &[u8], level: u8| packet(0x10, &[&bin(name), &[level], b"\x02\x00\x3c\x00\x00"]);
    let table = [
        v3("[MQTT-3.1.2-1] protocol name", name(b"mqtt", 4), 0x81, "protocol name"),
        v3("[MQTT-3.1.2-1] protocol name of HTTP", name(b"GET / HTTP", 4), 0x81, "protocol name"),
        v3("[MQTT-3.1.2-2] level 3", name(b"MQIsdp", 3), 0x84, "level 3"),
        v3("[MQTT-3.1.2-2] level 4 under the old name", name(b"MQIsdp", 4), 0x84, "level 4"),
        v3("[MQTT-3.1.2-2] level 6", name(b"MQTT", 6), 0x84, "level 6"),
        v3("[MQTT-3.1.2-2] level 132, a bridge", name(b"MQTT", 132), 0x84, "level 132"),
        v3("[MQTT-3.1.2-3] reserved flag", connect3(0x03, &[&bin("c")]), 0x81, "reserved flag"),
        v3("[MQTT-3.1.2-13] will QoS without will", connect3(0x0a, &[&bin("c")]), 0x81, "will flags"),
        v3("[MQTT-3.1.2-15] will retain without will", connect3(0x22, &[&bin("c")]), 0x81, "will flags"),
        v3("[MQTT-3.1.2-14] will QoS 3", connect3(0x1e, &[&bin("c"), &bin("w"), &bin("")]), 0x81, "QoS 3"),
        v3("[MQTT-3.1.2-9] will flag without will", connect3(0x06, &[&bin("c")]), 0x81, "middle of a field"),
        v3("[MQTT-3.1.2-9] will without payload", connect3(0x06, &[&bin("c"), &bin("w")]), 0x81, "middle of a field"),
        v3("[MQTT-3.1.2-19] user name flag alone", connect3(0x82, &[&bin("c")]), 0x81, "middle of a field"),
        v3("[MQTT-3.1.2-21] password flag alone", connect3(0xc2, &[&bin("c"), &bin("u")]), 0x81, "middle of a field"),
        v3("[MQTT-3.1.2-22] password, no user", connect3(0x42, &[&bin("c"), &bin("p")]), 0x81, "without a user name"),
        v3("[MQTT-3.1.2-18] user name, no flag", connect3(0x02, &[&bin("c"), &bin("u")]), 0x81, "after its last"),
        v3("[MQTT-4.7.1-1] will topic with #", connect3(0x06, &[&bin("c"), &bin("a/#"), &bin("")]), 0x90, "`#`"),
        v3("[MQTT-4.7.3-1] empty will topic", connect3(0x06, &[&bin("c"), &bin(""), &bin("")]), 0x90, "empty"),
        v3("cut behind the level", packet(0x10, &[b"\x00\x04MQTT\x04"]), 0x81, "middle of a field"),
        v3("empty", packet(0x10, &[]), 0x81, "middle of a field"),
    ];
    assert_eq!(refuse(&table), 20);
}

#[test]
fn an_unserved_version_is_told_in_a_version_the_client_knows() {
    let cases = [
        (3, Some((Version::V3, 0x01))),
        (0x83, Some((Version::V3, 0x01))),
        (0x84, Some((Version::V3, 0x01))),
        (0, Some((Version::V3, 0x01))),
        (6, Some((Version::V5, 0x84))),
        (0x85, Some((Version::V5, 0x84))),
        (255, Some((Version::V5, 0x84))),
    ];
    for (level, expected) in cases {
        assert_eq!(DecodeError::UnsupportedVersion(level).unsupported_version_answer(), expected, "{level}");
    }
    assert_eq!(DecodeError::TopicAlias.unsupported_version_answer(), None);
    assert_eq!(connect_version(b"\x00\x04MQTT\x05"), Some(Version::V5));
    assert_eq!(connect_version(b"\x00\x04MQTT\x04\xff\xff"), Some(Version::V3));
    for none in [&b""[..], b"\x00\x04MQTT", b"\x00\x06MQIsdp\x03", b"\x00\x04MQTX\x04", b"\x00\x04MQTT\x06"] {
        assert_eq!(connect_version(none), None, "{none:?}");
    }
}

#[test]
fn publish_in_3_1_1() {
    let table = [
        v3("[MQTT-3.3.1-4] QoS 3", packet(0x36, &[&bin("t"), b"\x00\x01"]), 0x81, "QoS 3"),
        v3("[MQTT-3.3.1-2] DUP at QoS 0", packet(0x38, &[&bin("t")]), 0x81, "DUP"),
        v3("[MQTT-3.3.2-2] +", packet(0x30, &[&bin("a/+")]), 0x90, "`+`"),
        v3("[MQTT-3.3.2-2] #", packet(0x30, &[&bin("#")]), 0x90, "`#`"),
        v3("[MQTT-4.7.3-1] empty topic", packet(0x30, &[&bin(""), b"x"]), 0x90, "empty"),
        v3("[MQTT-2.3.1-1] packet id 0 at QoS 1", packet(0x32, &[&bin("t"), b"\0\0"]), 0x82, "identifier 0"),
        v3("[MQTT-2.3.1-1] packet id 0 at QoS 2", packet(0x34, &[&bin("t"), b"\0\0"]), 0x82, "identifier 0"),
        v3("QoS 1 without packet id", packet(0x32, &[&bin("t"), b"\0"]), 0x81, "middle of a field"),
        v3("no topic", packet(0x30, &[]), 0x81, "middle of a field"),
        v3("half a topic length", packet(0x30, &[b"\0"]), 0x81, "middle of a field"),
    ];
    assert_eq!(refuse(&table), 10);
}

#[test]
fn acknowledgements_in_both_versions() {
    let mut table = Vec::new();
    for first in [0x40, 0x50, 0x62, 0x70] {
        table.extend(both("packet id 0", packet(first, &[b"\0\0"]), 0x82, "identifier 0"));
        table.extend(both("half a packet id", packet(first, &[b"\0"]), 0x81, "middle of a field"));
        table.push(v3("longer than two bytes", packet(first, &[b"\0\x01\0"]), 0x81, "two bytes"));
    }
    assert_eq!(refuse(&table), 20);
}

#[test]
fn subscribe_and_unsubscribe_in_3_1_1() {
    let table = [
        v3("[MQTT-3.8.1-1] flags", packet(0x80, &[b"\0\x01", &bin("a"), b"\0"]), 0x81, "reserved flags"),
        v3("[MQTT-3.8.3-3] nothing to subscribe", packet(0x82, &[b"\0\x01"]), 0x82, "without a topic filter"),
        v3("[MQTT-2.3.1-1] packet id 0", packet(0x82, &[b"\0\0", &bin("a"), b"\0"]), 0x82, "identifier 0"),
        v3("[MQTT-3.8.3-4] QoS 3", packet(0x82, &[b"\0\x01", &bin("a"), b"\x03"]), 0x81, "QoS 3"),
        v3("[MQTT-3.8.3-4] No Local of 5.0", packet(0x82, &[b"\0\x01", &bin("a"), b"\x04"]), 0x81, "reserved bits"),
        v3("[MQTT-3.8.3-4] bit 7", packet(0x82, &[b"\0\x01", &bin("a"), b"\x81"]), 0x81, "reserved bits"),
        v3("no options", packet(0x82, &[b"\0\x01", &bin("a")]), 0x81, "middle of a field"),
        v3("bytes behind", packet(0x82, &[b"\0\x01", &bin("a"), b"\0\0"]), 0x81, "middle of a field"),
        v3("[MQTT-3.10.1-1] flags", packet(0xa0, &[b"\0\x01", &bin("a")]), 0x81, "reserved flags"),
        v3("[MQTT-3.10.3-2] nothing to unsubscribe", packet(0xa2, &[b"\0\x01"]), 0x82, "without a topic filter"),
        v3("[MQTT-2.3.1-1] packet id 0", packet(0xa2, &[b"\0\0", &bin("a")]), 0x82, "identifier 0"),
        v3("[MQTT-3.10.3-1] not UTF-8", packet(0xa2, &[b"\0\x01", &bin(b"\xfe")]), 0x81, "not UTF-8"),
        v3("bytes behind", packet(0xa2, &[b"\0\x01", &bin("a"), b"\0"]), 0x81, "middle of a field"),
    ];
    assert_eq!(refuse(&table), 13);
}

#[test]
fn small_packets_and_those_of_a_server() {
    let mut table = vec![
        v3("[MQTT-3.14.1-1] DISCONNECT with flags", packet(0xe1, &[]), 0x81, "reserved flags"),
        v3("DISCONNECT with a body", packet(0xe0, &[b"\0"]), 0x81, "no body"),
        v3("packet type 15", packet(0xf0, &[]), 0x81, "does not exist"),
    ];
    table.extend(both("PINGREQ with a body", packet(0xc0, &[b"\0"]), 0x81, "after its last"));
    table.extend(both("packet type 0", packet(0x00, &[]), 0x81, "packet type 0"));
    for first in [0x20, 0x90, 0xb0, 0xd0] {
        table.extend(both("sent by servers only", packet(first, &[b"\0\x01\0"]), 0x82, "only a server"));
    }
    assert_eq!(refuse(&table), 15);
}
