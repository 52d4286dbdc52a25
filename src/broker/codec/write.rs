//! Packets a server sends, appended to a buffer. Never fails and never panics.
//!
//! Invariants: what is appended is one whole packet or nothing; every length fits what follows it. A text longer than MQTT's 65,535 bytes is cut
//! at a character, and a PUBLISH longer than MQTT's 268,435,455 bytes is not written: neither can come from a packet this broker accepted.

use bytes::{BufMut, BytesMut};

use super::{Version, fixed::MAX_REMAINING, property::id};
use crate::names::QoS;

/// What a CONNACK says. All but the first two is only written for 5.0; absent fields are not written, and then mean MQTT's default: every QoS,
/// retained messages, wildcards, subscription identifiers and shared subscriptions are available.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConnAck<'a> {
    /// Session Present; written as 0 with every code but 0 (`[MQTT-3.2.2-6]`).
    pub session_present: bool,
    /// Return code of 3.1.1 or reason code of 5.0.
    pub code: u8,
    /// Session Expiry Interval the broker decided on, seconds.
    pub session_expiry: Option<u32>,
    /// How many QoS 1 and 2 messages the client may have in flight, 1..=65535; 0 is not written.
    pub receive_maximum: Option<u16>,
    /// Bytes of the largest packet the broker takes; 0 is not written.
    pub maximum_packet_size: Option<u32>,
    /// The id the broker gave a client that came without one.
    pub assigned_client_id: Option<&'a str>,
    /// How many topic aliases the client may use; 0 is not written.
    pub topic_alias_maximum: u16,
    /// For a human.
    pub reason_string: Option<&'a str>,
    /// The keep-alive the client has to use, seconds.
    pub server_keep_alive: Option<u16>,
    /// Response Information, if it was asked for.
    pub response_information: Option<&'a str>,
}

/// Which acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AckKind {
    /// PUBACK
    PubAck,
    /// PUBREC
    PubRec,
    /// PUBREL
    PubRel,
    /// PUBCOMP
    PubComp,
}

impl AckKind {
    const fn first(self) -> u8 {
        match self {
            Self::PubAck => 0x40,
            Self::PubRec => 0x50,
            Self::PubRel => 0x62,
            Self::PubComp => 0x70,
        }
    }
}

/// A PUBLISH to a client. 3.1.1 has no topic alias, expiry, subscription ids and properties; they are not written there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishOut<'a> {
    /// DUP flag; written as 0 at QoS 0.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// RETAIN flag.
    pub retain: bool,
    /// Packet identifier, 1..=65535; not written at QoS 0.
    pub packet_id: u16,
    /// Topic; may be empty in 5.0 together with an alias the client already knows.
    pub topic: &'a [u8],
    /// Topic alias of 5.0.
    pub topic_alias: Option<u16>,
    /// What is left of the Message Expiry Interval, seconds.
    pub expiry: Option<u32>,
    /// Identifiers of the matching subscriptions, each 1..=268,435,455.
    pub subscription_ids: &'a [u32],
    /// The properties that travel, as [`Publish::properties`](super::Publish::properties) has them.
    pub properties: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
}

/// Appends a CONNACK (section 3.2).
pub fn connack(out: &mut BytesMut, version: Version, packet: &ConnAck<'_>) {
    let present = u8::from(packet.session_present && packet.code == 0);
    match version {
        Version::V3 => out.extend_from_slice(&[0x20, 2, present, packet.code]),
        Version::V5 => with_properties(out, 0x20, &[present, packet.code], &connack_properties(packet), &[]),
    }
}

fn connack_properties(packet: &ConnAck<'_>) -> Vec<u8> {
    let mut block = Vec::new();
    if let Some(seconds) = packet.session_expiry {
        put_four(&mut block, id::SESSION_EXPIRY, seconds);
    }
    if let Some(count @ 1..) = packet.receive_maximum {
        put_two(&mut block, id::RECEIVE_MAXIMUM, count);
    }
    if let Some(bytes @ 1..) = packet.maximum_packet_size {
        put_four(&mut block, id::MAXIMUM_PACKET_SIZE, bytes);
    }
    put_text(&mut block, id::ASSIGNED_CLIENT_ID, packet.assigned_client_id);
    if packet.topic_alias_maximum > 0 {
        put_two(&mut block, id::TOPIC_ALIAS_MAXIMUM, packet.topic_alias_maximum);
    }
    put_text(&mut block, id::REASON_STRING, packet.reason_string);
    if let Some(seconds) = packet.server_keep_alive {
        put_two(&mut block, id::SERVER_KEEP_ALIVE, seconds);
    }
    put_text(&mut block, id::RESPONSE_INFORMATION, packet.response_information);
    block
}

/// Appends a PUBACK, PUBREC, PUBREL or PUBCOMP. 3.1.1 has no reason; 5.0 leaves it away when it is 0.
#[inline]
pub fn ack(out: &mut BytesMut, version: Version, kind: AckKind, packet_id: u16, reason: u8) {
    let [high, low] = packet_id.to_be_bytes();
    if version == Version::V3 || reason == 0 {
        out.extend_from_slice(&[kind.first(), 2, high, low]);
    } else {
        out.extend_from_slice(&[kind.first(), 3, high, low, reason]);
    }
}

/// Appends a SUBACK with one code per filter. In 3.1.1 every code but 0, 1 and 2 is written as 0x80 (`[MQTT-3.9.3-2]`).
pub fn suback(out: &mut BytesMut, version: Version, packet_id: u16, codes: &[u8]) {
    match version {
        Version::V3 => {
            let codes: Vec<u8> = codes.iter().map(|&code| if code <= 2 { code } else { 0x80 }).collect();
            plain(out, 0x90, &packet_id.to_be_bytes(), &codes);
        }
        Version::V5 => with_properties(out, 0x90, &packet_id.to_be_bytes(), &[], codes),
    }
}

/// Appends an UNSUBACK with one code per filter; 3.1.1 has no codes.
pub fn unsuback(out: &mut BytesMut, version: Version, packet_id: u16, codes: &[u8]) {
    match version {
        Version::V3 => plain(out, 0xb0, &packet_id.to_be_bytes(), &[]),
        Version::V5 => with_properties(out, 0xb0, &packet_id.to_be_bytes(), &[], codes),
    }
}

/// Appends a PINGRESP.
pub fn pingresp(out: &mut BytesMut) {
    out.extend_from_slice(&[0xd0, 0]);
}

/// Appends a DISCONNECT. A server of 3.1.1 cannot say why it closes a connection: nothing is written.
pub fn disconnect(out: &mut BytesMut, version: Version, reason: u8, reason_string: Option<&str>) {
    if version == Version::V3 {
        return;
    }
    let mut block = Vec::new();
    put_text(&mut block, id::REASON_STRING, reason_string);
    if block.is_empty() {
        out.extend_from_slice(&[0xe0, 1, reason]);
    } else {
        with_properties(out, 0xe0, &[reason], &block, &[]);
    }
}

/// Appends a PUBLISH.
#[inline]
pub fn publish(out: &mut BytesMut, version: Version, packet: &PublishOut<'_>) {
    let sizes = Sizes::of(version, packet);
    if sizes.remaining > MAX_REMAINING {
        return;
    }
    out.reserve(sizes.whole());
    let dup = if packet.dup && packet.qos != QoS::AtMostOnce { 0x08 } else { 0 };
    put_fixed(out, 0x30 | dup | (packet.qos as u8) << 1 | u8::from(packet.retain), sizes.remaining);
    let topic = short(packet.topic);
    out.put_u16(length16(topic));
    out.extend_from_slice(topic);
    if packet.qos != QoS::AtMostOnce {
        out.put_u16(packet.packet_id);
    }
    if version == Version::V5 {
        put_publish_properties(out, sizes.properties, packet);
    }
    out.extend_from_slice(packet.payload);
}

/// Bytes of the whole PUBLISH that [`publish`] would append: what a client's Maximum Packet Size is compared with (`[MQTT-3.1.2-24]`).
#[inline]
pub fn publish_size(version: Version, packet: &PublishOut<'_>) -> usize {
    Sizes::of(version, packet).whole()
}

/// Lengths of a PUBLISH.
struct Sizes {
    /// Of the properties, without the length before them.
    properties: usize,
    /// Remaining Length.
    remaining: usize,
}

impl Sizes {
    #[inline]
    fn of(version: Version, packet: &PublishOut<'_>) -> Self {
        let id = if packet.qos == QoS::AtMostOnce { 0 } else { 2 };
        let mut remaining = 2 + short(packet.topic).len() + id + packet.payload.len();
        let mut properties = 0;
        if version == Version::V5 {
            let alias = if packet.topic_alias.is_some() { 3 } else { 0 };
            let expiry = if packet.expiry.is_some() { 5 } else { 0 };
            let ids: usize = packet.subscription_ids.iter().map(|&id| 1 + varint_width(id as usize)).sum();
            properties = alias + expiry + ids + packet.properties.len();
            remaining += varint_width(properties) + properties;
        }
        Self { properties, remaining }
    }

    #[inline]
    const fn whole(&self) -> usize {
        1 + varint_width(self.remaining) + self.remaining
    }
}

#[inline]
fn put_publish_properties(out: &mut BytesMut, length: usize, packet: &PublishOut<'_>) {
    put_varint(out, length);
    if let Some(alias) = packet.topic_alias {
        out.put_u8(id::TOPIC_ALIAS);
        out.put_u16(alias);
    }
    if let Some(seconds) = packet.expiry {
        out.put_u8(id::MESSAGE_EXPIRY);
        out.put_u32(seconds);
    }
    for &number in packet.subscription_ids {
        out.put_u8(id::SUBSCRIPTION_ID);
        put_varint(out, number as usize);
    }
    out.extend_from_slice(packet.properties);
}

/// A packet without properties.
fn plain(out: &mut BytesMut, first: u8, head: &[u8], tail: &[u8]) {
    out.reserve(5 + head.len() + tail.len());
    put_fixed(out, first, head.len() + tail.len());
    out.extend_from_slice(head);
    out.extend_from_slice(tail);
}

/// A packet with its properties between `head` and `tail`.
fn with_properties(out: &mut BytesMut, first: u8, head: &[u8], block: &[u8], tail: &[u8]) {
    let remaining = head.len() + varint_width(block.len()) + block.len() + tail.len();
    out.reserve(5 + remaining);
    put_fixed(out, first, remaining);
    out.extend_from_slice(head);
    put_varint(out, block.len());
    out.extend_from_slice(block);
    out.extend_from_slice(tail);
}

#[inline]
fn put_fixed(out: &mut BytesMut, first: u8, remaining: usize) {
    out.put_u8(first);
    put_varint(out, remaining);
}

#[inline]
const fn varint_width(value: usize) -> usize {
    match value {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    }
}

/// Seven bits per byte, lowest first; `value` is at most [`MAX_REMAINING`].
#[inline]
fn put_varint(out: &mut BytesMut, mut value: usize) {
    for _ in 1..varint_width(value) {
        out.put_u8(0x80 | (value & 0x7f) as u8);
        value >>= 7;
    }
    out.put_u8((value & 0x7f) as u8);
}

/// At most the 65,535 bytes a length of two bytes can say, cut at a character of UTF-8.
#[inline]
fn short(bytes: &[u8]) -> &[u8] {
    if bytes.len() <= usize::from(u16::MAX) { bytes } else { cut(bytes) }
}

#[cold]
fn cut(bytes: &[u8]) -> &[u8] {
    // 0b10xx_xxxx continues a character; the byte behind the cut must not.
    let fits = |&end: &usize| bytes.get(end).is_some_and(|byte| byte & 0xc0 != 0x80);
    let end = (0..=usize::from(u16::MAX)).rev().find(fits).unwrap_or(0);
    bytes.get(..end).unwrap_or_default()
}

/// The length of what [`short`] gave.
#[inline]
fn length16(bytes: &[u8]) -> u16 {
    u16::try_from(bytes.len()).unwrap_or(u16::MAX)
}

fn put_two(block: &mut Vec<u8>, id: u8, value: u16) {
    block.push(id);
    block.extend_from_slice(&value.to_be_bytes());
}

fn put_four(block: &mut Vec<u8>, id: u8, value: u32) {
    block.push(id);
    block.extend_from_slice(&value.to_be_bytes());
}

fn put_text(block: &mut Vec<u8>, id: u8, text: Option<&str>) {
    if let Some(text) = text {
        let text = short(text.as_bytes());
        put_two(block, id, length16(text));
        block.extend_from_slice(text);
    }
}
