//! Packets that MQTT forbids a client to send: who lets them through?
//!
//! Each is given to a server that already read a good CONNECT (unless it is one itself): our `frame` and `decode`, `rmqtt-codec`'s codec, and the
//! whole connection of `mqtt-protocol-core`. Some of what passes is left by a library to the program that uses it; then that program has to know.

use std::fmt::Write;

use bytes::BytesMut;
use mqtt_protocol_core::mqtt::{self, common::Cursor, connection::GenericEvent, packet as core_packet, result_code};
use rmqtt_codec::{v3 as rmqtt3, v5 as rmqtt5};
use sense_butler::broker::codec::{Framed, Version, decode, frame};
use tokio_util::codec::Decoder;

type Wrong = (&'static str, Version, &'static [u8]);

const CONNECT3: &[u8] = b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01c";
const CONNECT5: &[u8] = b"\x10\x0e\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x01c";

const WRONG: &[Wrong] = &[
    ("PUBLISH to a wildcard", Version::V3, b"\x30\x03\x00\x01#"),
    ("PUBLISH to a wildcard", Version::V5, b"\x30\x04\x00\x01#\x00"),
    ("PUBLISH with U+0000 in its topic", Version::V3, b"\x30\x03\x00\x01\x00"),
    ("PUBLISH with U+0000 in its topic", Version::V5, b"\x30\x04\x00\x01\x00\x00"),
    ("PUBLISH with DUP at QoS 0", Version::V3, b"\x38\x03\x00\x01t"),
    ("PUBLISH with packet id 0", Version::V3, b"\x32\x05\x00\x01t\x00\x00"),
    ("PUBLISH with an empty topic", Version::V3, b"\x30\x02\x00\x00"),
    ("PUBLISH with neither topic nor alias", Version::V5, b"\x30\x03\x00\x00\x00"),
    ("PUBLISH with a subscription id", Version::V5, b"\x30\x06\x00\x01t\x02\x0b\x01"),
    ("PUBLISH with # in its response topic", Version::V5, b"\x30\x08\x00\x01t\x04\x08\x00\x01#"),
    ("PUBLISH with U+0000 in a user property", Version::V5, b"\x30\x0a\x00\x01t\x06\x26\x00\x01\x00\x00\x00"),
    ("PUBLISH with an over-long property length", Version::V5, b"\x30\x05\x00\x01t\x80\x00"),
    ("PUBACK of three bytes", Version::V3, b"\x40\x03\x00\x01\x00"),
    ("PUBREL with packet id 0", Version::V3, b"\x62\x02\x00\x00"),
    ("SUBSCRIBE with reserved option bits", Version::V3, b"\x82\x06\x00\x01\x00\x01a\xfc"),
    ("SUBSCRIBE with reserved option bits", Version::V5, b"\x82\x07\x00\x01\x00\x00\x01a\xc0"),
    ("SUBSCRIBE with retain handling 3", Version::V5, b"\x82\x07\x00\x01\x00\x00\x01a\x30"),
    ("SUBSCRIBE with U+0000", Version::V3, b"\x82\x06\x00\x01\x00\x01\x00\x00"),
    ("SUBSCRIBE without a filter", Version::V5, b"\x82\x03\x00\x01\x00"),
    ("SUBSCRIBE, no local on a share", Version::V5, b"\x82\x10\x00\x01\x00\x00\x0a$share/g/a\x04"),
    ("UNSUBSCRIBE without a filter", Version::V5, b"\xa2\x03\x00\x01\x00"),
    ("PINGREQ with a body", Version::V3, b"\xc0\x01\x00"),
    ("DISCONNECT with a body", Version::V3, b"\xe0\x01\x00"),
    ("DISCONNECT with a server's reason", Version::V5, b"\xe0\x01\x8b"),
    ("AUTH with a server's reason", Version::V5, b"\xf0\x00"),
    ("CONNACK from a client", Version::V3, b"\x20\x02\x00\x00"),
    ("SUBACK from a client", Version::V5, b"\x90\x04\x00\x01\x00\x00"),
    ("CONNECT with bytes behind", Version::V3, b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x3c\x00\x01cx"),
    ("CONNECT, password without user", Version::V3, b"\x10\x10\x00\x04MQTT\x04\x42\x00\x3c\x00\x01c\x00\x01p"),
    ("CONNECT, will to a wildcard", Version::V3, b"\x10\x12\x00\x04MQTT\x04\x06\x00\x3c\x00\x01c\x00\x01#\x00\x00"),
    ("CONNECT, will flags without a will", Version::V5, b"\x10\x0e\x00\x04MQTT\x05\x2a\x00\x3c\x00\x00\x01c"),
    ("CONNECT with U+0000 in the client id", Version::V3, b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01\x00"),
    ("CONNECT with receive maximum 0", Version::V5, b"\x10\x11\x00\x04MQTT\x05\x02\x00\x3c\x03\x21\x00\x00\x00\x01c"),
    (
        "CONNECT with packet size 0",
        Version::V5,
        b"\x10\x13\x00\x04MQTT\x05\x02\x00\x3c\x05\x27\x00\x00\x00\x00\x00\x01c",
    ),
    (
        "CONNECT, authentication data alone",
        Version::V5,
        b"\x10\x12\x00\x04MQTT\x05\x02\x00\x3c\x04\x16\x00\x01d\x00\x01c",
    ),
];

/// Packets MQTT allows: who refuses them, and with what left to say to the client?
const RIGHT: &[Wrong] = &[
    ("PUBLISH with expiry 0", Version::V5, b"\x30\x09\x00\x01t\x05\x02\x00\x00\x00\x00"),
    ("PUBLISH with topic alias", Version::V5, b"\x30\x07\x00\x01t\x03\x23\x00\x01"),
    ("PUBLISH, empty, QoS 0", Version::V3, b"\x30\x03\x00\x01t"),
    ("PUBACK with reason, no properties", Version::V5, b"\x40\x03\x00\x01\x10"),
    ("DISCONNECT with will", Version::V5, b"\xe0\x01\x04"),
    ("DISCONNECT, reason, no properties", Version::V5, b"\xe0\x02\x04\x00"),
    ("CONNECT, password without user", Version::V5, b"\x10\x11\x00\x04MQTT\x05\x42\x00\x3c\x00\x00\x01c\x00\x01p"),
    ("CONNECT, empty id, session kept (0x02)", Version::V3, b"\x10\x0c\x00\x04MQTT\x04\x00\x00\x3c\x00\x00"),
];

/// Runs and prints; fails if the codec lets a wrong packet through, or refuses a right one.
pub fn print() {
    println!("wrong packets that are let through");
    assert_eq!(table(WRONG, true), 0, "the codec has a hole");
    println!("right packets that are refused");
    assert_eq!(table(RIGHT, false), 0, "the codec is too strict");
}

/// Prints who accepts (or refuses) what; gives how often the codec did.
fn table(packets: &[Wrong], shown: bool) -> usize {
    let mut counts = [0; 3];
    for &(name, version, bytes) in packets {
        assert_eq!(usize::from(bytes[1]) + 2, bytes.len(), "{name}: the length in the table is wrong");
        let accepted = [ours(version, bytes), rmqtt(version, bytes), core(version, bytes)];
        let mut line = String::new();
        for (count, accepted) in counts.iter_mut().zip(accepted) {
            let hit = accepted == shown;
            *count += usize::from(hit);
            let _ = write!(line, "{:>20}", if hit { if shown { "through" } else { "refused" } } else { "-" });
        }
        println!("  {:<44}{line}", format!("{name} ({})", if version == Version::V3 { "3.1.1" } else { "5.0" }));
    }
    println!("  of {}: ours {}, rmqtt-codec {}, mqtt-protocol-core {}", packets.len(), counts[0], counts[1], counts[2]);
    counts[0]
}

fn ours(version: Version, bytes: &[u8]) -> bool {
    let framed = frame(bytes, 1 << 20);
    matches!(framed, Ok(Framed::Complete { first, body, length }) if length == bytes.len() && decode(first, body, version).is_ok())
}

fn rmqtt(version: Version, bytes: &[u8]) -> bool {
    let mut buffer = BytesMut::from(bytes);
    match version {
        Version::V3 => matches!(rmqtt3::Codec::new(0).decode(&mut buffer), Ok(Some(_))),
        Version::V5 => matches!(rmqtt5::Codec::new(0, 0).decode(&mut buffer), Ok(Some(_))),
    }
}

fn core(version: Version, bytes: &[u8]) -> bool {
    let (level, connect) = match version {
        Version::V3 => (mqtt::Version::V3_1_1, CONNECT3),
        Version::V5 => (mqtt::Version::V5_0, CONNECT5),
    };
    let mut connection = mqtt::Connection::<mqtt::role::Server>::new(level);
    let received = |connection: &mut mqtt::Connection<mqtt::role::Server>, bytes: &[u8]| {
        let events = connection.recv(&mut Cursor::new(bytes));
        events.iter().any(|event| matches!(event, GenericEvent::NotifyPacketReceived(_)))
    };
    if bytes[0] == 0x10 {
        return received(&mut connection, bytes);
    }
    assert!(received(&mut connection, connect), "a good CONNECT");
    match version {
        Version::V3 => {
            let ack = core_packet::v3_1_1::Connack::builder()
                .session_present(false)
                .return_code(result_code::ConnectReturnCode::Accepted)
                .build()
                .expect("a CONNACK");
            connection.send(ack.into());
        }
        Version::V5 => {
            let maximum = core_packet::TopicAliasMaximum::new(8).expect("a property");
            let ack = core_packet::v5_0::Connack::builder()
                .session_present(false)
                .reason_code(result_code::ConnectReasonCode::Success)
                .props(vec![maximum.into()])
                .build()
                .expect("a CONNACK");
            connection.send(ack.into());
        }
    }
    if matches!(bytes[0], 0x40) {
        // An acknowledgement needs something to acknowledge.
        return core_ack(version, bytes);
    }
    received(&mut connection, bytes)
}

/// Only the parser: the connection would ask for a message in flight.
fn core_ack(version: Version, bytes: &[u8]) -> bool {
    match version {
        Version::V3 => core_packet::v3_1_1::Puback::parse(&bytes[2..]).is_ok_and(|(_, used)| used == bytes.len() - 2),
        Version::V5 => core_packet::v5_0::Puback::parse(&bytes[2..]).is_ok_and(|(_, used)| used == bytes.len() - 2),
    }
}
