//! What the tests of conformance share: clients, packets in parts, ends of connections, properties.

use std::collections::BTreeMap;

use argon2::{Argon2, PasswordHasher};
use sense_butler::{
    broker::settings::{Rights, User},
    names::Secret,
};

pub use crate::support::{
    raw::{Got, Hello, Raw, packet, text},
    running::Running,
};

/// Protocol levels: every test that can runs for both.
pub const V3: u8 = 4;
pub const V5: u8 = 5;
pub const BOTH: [u8; 2] = [V3, V5];

/// A binary or text field with its length.
pub fn field(bytes: impl AsRef<[u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, bytes.as_ref());
    out
}

pub fn cat(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

/// The length of properties before them in 5.0; nothing in 3.1.1.
pub fn properties(version: u8, block: &[u8]) -> Vec<u8> {
    if version == V5 { cat(&[&[block.len() as u8], block]) } else { Vec::new() }
}

/// A CONNECT put together by hand; `rest` is what stands behind flags, keep-alive and properties.
pub fn connect_packet(version: u8, flags: u8, rest: &[&[u8]]) -> Vec<u8> {
    packet(0x10, &cat(&[&field("MQTT"), &[version, flags, 0, 0], &properties(version, &[]), &rest.concat()]))
}

/// SUBSCRIBE to one filter with packet id 1.
pub fn subscribe_packet(version: u8, filter: &[u8], options: u8) -> Vec<u8> {
    packet(0x82, &cat(&[&[0, 1], &properties(version, &[]), &field(filter), &[options]]))
}

pub fn unsubscribe_packet(version: u8, filter: &[u8]) -> Vec<u8> {
    packet(0xa2, &cat(&[&[0, 1], &properties(version, &[]), &field(filter)]))
}

/// A PUBLISH at QoS 0.
pub fn publish_packet(version: u8, topic: &[u8], block: &[u8]) -> Vec<u8> {
    packet(0x30, &cat(&[&field(topic), &properties(version, block), b"x"]))
}

pub async fn connected(broker: &Running, hello: Hello) -> Raw {
    let (raw, connack) = Raw::connect(broker.address, &hello).await;
    assert_eq!(connack[1], 0, "{connack:?}");
    raw
}

pub async fn client(broker: &Running, version: u8, id: &str) -> Raw {
    connected(broker, Hello::new(version, id)).await
}

/// A CONNECT for a session that outlives its connection by `seconds` (in 3.1.1 by as long as the broker lets it).
pub fn kept(version: u8, id: &str, seconds: u32) -> Hello {
    let mut hello = Hello { clean: false, ..Hello::new(version, id) };
    if version == V5 {
        hello.properties.push(0x11);
        hello.properties.extend(seconds.to_be_bytes());
    }
    hello
}

/// With properties of 5.0 behind those there are.
pub fn with(mut hello: Hello, block: &[u8]) -> Hello {
    hello.properties.extend(block);
    hello
}

/// A user of every right, with a password.
pub fn user(name: &str, password: &str) -> User {
    let password_hash = Argon2::default().hash_password(password.as_bytes()).unwrap().to_string();
    let rights = Rights { publish: true, subscribe: true, start: true };
    User { rights, ..User::new(name, Secret::new(password_hash)) }
}

/// Nothing is on its way to the client: the answer to a ping comes next.
pub async fn nothing_more(client: &mut Raw) {
    client.send(0xc0, &[]).await;
    let (first, body) = client.receive().await.expect("a PINGRESP");
    assert_eq!(first, 0xd0, "{first:02x} {body:?} came instead");
}

/// A publish at QoS 1, acknowledged: then it is in every outbox.
pub async fn deliver(publisher: &mut Raw, retain: bool, topic: &str, block: &[u8], payload: &[u8]) {
    publisher.publish_with(0x32 | u8::from(retain), topic, 9, block, payload).await;
    let (first, body) = publisher.receive().await.expect("a PUBACK");
    assert_eq!((first, &body[..2]), (0x40, [0, 9].as_slice()));
}

/// Leaves as clients do.
pub async fn leave(mut client: Raw) {
    client.send(0xe0, &[]).await;
    assert!(client.is_closed().await);
}

/// The next packet, as it is.
pub async fn expect(client: &mut Raw, first: u8, body: &[u8], case: &str) {
    assert_eq!(client.receive().await, Some((first, body.to_vec())), "{case}");
}

/// The broker ends the connection: in 5.0 with DISCONNECT and a code, in 3.1.1 without a word.
pub async fn ends(client: &mut Raw, code: u8, case: &str) {
    if client.version == V5 {
        let (first, body) = client.receive().await.unwrap_or_else(|| panic!("{case}: closed without DISCONNECT"));
        assert_eq!((first, body[0]), (0xe0, code), "{case}: {body:?}");
    }
    let rest = client.receive().await;
    assert_eq!(rest, None, "{case}");
}

/// Sends bytes on a fresh connection of a client, which ends it.
pub async fn ends_with(broker: &Running, version: u8, bytes: &[u8], code: u8, case: &str) {
    let mut client = client(broker, version, "bad").await;
    client.bytes(bytes).await;
    ends(&mut client, code, case).await;
}

/// A CONNECT the broker does not take: in 5.0 CONNACK with a code, in 3.1.1 nothing; then the end.
pub async fn malformed_connect(broker: &Running, version: u8, bytes: &[u8], code: u8, case: &str) {
    let mut client = Raw::open(broker.address, version).await;
    client.bytes(bytes).await;
    if version == V5 {
        let (first, body) = client.receive().await.unwrap_or_else(|| panic!("{case}: closed without CONNACK"));
        assert_eq!((first, &body[..2]), (0x20, [0, code].as_slice()), "{case}");
    }
    assert_eq!(client.receive().await, None, "{case}");
}

/// CONNACK with a refusal, then the end. The codes of both versions.
pub async fn refused(broker: &Running, hello: &Hello, codes: [u8; 2], case: &str) {
    let (mut client, connack) = Raw::connect(broker.address, hello).await;
    let code = codes[usize::from(hello.version == V5)];
    assert_eq!(connack[..2], [0, code], "{case}");
    assert_eq!(client.receive().await, None, "{case}");
}

/// The properties in a block of them, by identifier, each value as on the wire.
pub fn parsed(mut block: &[u8]) -> BTreeMap<u8, Vec<Vec<u8>>> {
    let mut found: BTreeMap<u8, Vec<Vec<u8>>> = BTreeMap::new();
    while let Some((id, rest)) = block.split_first() {
        let field = |at: usize| 2 + usize::from(u16::from_be_bytes([rest[at], rest[at + 1]]));
        let length = match id {
            0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => 1,
            0x13 | 0x21 | 0x22 | 0x23 => 2,
            0x02 | 0x11 | 0x18 | 0x27 => 4,
            0x0b => 1 + rest.iter().position(|byte| *byte < 128).unwrap(),
            0x26 => field(0) + field(field(0)),
            0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => field(0),
            other => panic!("property {other:#x}"),
        };
        found.entry(*id).or_default().push(rest[..length].to_vec());
        block = &rest[length..];
    }
    found
}

/// The properties of a CONNACK of 5.0.
pub fn of_connack(connack: &[u8]) -> BTreeMap<u8, Vec<Vec<u8>>> {
    assert!(connack[2] < 128 && connack.len() == 3 + usize::from(connack[2]), "{connack:?}");
    parsed(&connack[3..])
}

/// Subscription identifiers of a message, in order of size.
pub fn subscription_ids(got: &Got) -> Vec<u8> {
    let mut ids: Vec<u8> = parsed(&got.properties).get(&0x0b).into_iter().flatten().map(|id| id[0]).collect();
    ids.sort_unstable();
    ids
}
