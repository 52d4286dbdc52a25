//! PUBLISH from a client (section 3.3 of both versions): the hot path of the broker's inbound side.
//!
//! Invariant: everything borrows the packet; memory is only taken when a property that does not travel stands between two that do.

use std::borrow::Cow;

use super::{
    DecodeError, Version,
    property::{Travelling, sets},
    reader::Reader,
};
use crate::names::QoS;

/// A PUBLISH from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish<'a> {
    /// DUP flag; never set at QoS 0.
    pub dup: bool,
    /// Quality of service.
    pub qos: QoS,
    /// RETAIN flag.
    pub retain: bool,
    /// Packet identifier, 1..=65535; 0 at QoS 0.
    pub packet_id: u16,
    /// Topic without wildcards and U+0000. Empty only in 5.0 and with an alias.
    pub topic: &'a str,
    /// Topic alias of 5.0, 1..=65535; whether it is above the maximum announced is for the caller to check (0x94).
    pub topic_alias: Option<u16>,
    /// Message Expiry Interval of 5.0, seconds.
    pub expiry: Option<u32>,
    /// The properties that travel to the subscribers, in wire form and order, without the length before them; empty in 3.1.1.
    pub properties: Cow<'a, [u8]>,
    /// Payload.
    pub payload: &'a [u8],
}

#[inline]
pub(super) fn decode<'a>(first: u8, body: &'a [u8], version: Version) -> Result<Publish<'a>, DecodeError> {
    let qos = QoS::from_u8((first >> 1) & 3).ok_or(DecodeError::Malformed("PUBLISH with QoS 3"))?;
    let mut reader = Reader::new(body);
    let topic = reader.topic()?;
    let packet_id = if qos == QoS::AtMostOnce { 0 } else { reader.packet_id()? };
    let Travelling { kept: properties, topic_alias, expiry, .. } = match version {
        Version::V3 => Travelling::NONE,
        Version::V5 => Travelling::read(reader.property_block()?, sets::PUBLISH)?,
    };
    if topic.is_empty() && topic_alias.is_none() {
        return Err(empty_topic(version));
    }
    Ok(Publish {
        dup: first & 0x08 != 0,
        qos,
        retain: first & 0x01 != 0,
        packet_id,
        topic,
        topic_alias,
        expiry,
        properties,
        payload: reader.rest(),
    })
}

#[cold]
const fn empty_topic(version: Version) -> DecodeError {
    match version {
        Version::V3 => DecodeError::TopicName("it is empty"),
        Version::V5 => DecodeError::Protocol("PUBLISH with neither topic nor topic alias"),
    }
}
