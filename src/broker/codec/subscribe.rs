//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 and 3.10).
//!
//! Invariant: at least one filter; each is UTF-8 without U+0000. Whether it is a filter at all is decided per filter by the caller, since the
//! answer to a bad one is a code in SUBACK, not the end of the connection.

use super::{
    DecodeError, Version,
    property::{Fields, Value, id, sets},
    reader::Reader,
};
use crate::names::QoS;

/// SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscribe {
    /// Packet identifier, 1..=65535.
    pub packet_id: u16,
    /// Subscription Identifier of 5.0, 1..=268,435,455.
    pub subscription_id: Option<u32>,
    /// The filters, in order; never empty.
    pub filters: Vec<SubscribeFilter>,
}

/// One line of a SUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubscribeFilter {
    /// What was asked for; UTF-8 without U+0000, otherwise not checked.
    pub filter: String,
    /// How.
    pub options: SubscribeOptions,
}

/// Subscription Options (section 3.8.3.1 of 5.0); 3.1.1 only has the QoS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SubscribeOptions {
    /// Maximum QoS.
    pub qos: QoS,
    /// Not the messages this client published itself. Never with `$share/...` (`[MQTT-3.8.3-4]`).
    pub no_local: bool,
    /// RETAIN flag as published.
    pub retain_as_published: bool,
    /// 0: retained messages on subscribe, 1: only if the subscription is new, 2: none.
    pub retain_handling: u8,
}

/// UNSUBSCRIBE.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsubscribe {
    /// Packet identifier, 1..=65535.
    pub packet_id: u16,
    /// The filters, in order; never empty.
    pub filters: Vec<String>,
}

pub(super) fn subscribe(body: &[u8], version: Version) -> Result<Subscribe, DecodeError> {
    let mut reader = Reader::new(body);
    let packet_id = reader.packet_id()?;
    let subscription_id = match version {
        Version::V3 => None,
        Version::V5 => subscription_id(reader.property_block()?)?,
    };
    let mut filters = Vec::new();
    while !reader.is_empty() {
        let filter = reader.text()?.to_owned();
        let options = options(reader.u8()?, version)?;
        if options.no_local && filter.starts_with("$share/") {
            return Err(DecodeError::Protocol("No Local on a shared subscription"));
        }
        filters.push(SubscribeFilter { filter, options });
    }
    if filters.is_empty() {
        return Err(DecodeError::Protocol("SUBSCRIBE without a topic filter"));
    }
    Ok(Subscribe { packet_id, subscription_id, filters })
}

fn subscription_id(block: &[u8]) -> Result<Option<u32>, DecodeError> {
    let mut found = None;
    let mut fields = Fields::new(block, sets::SUBSCRIBE);
    while let Some((property, value)) = fields.next()? {
        if let (id::SUBSCRIPTION_ID, Value::Variable(number)) = (property, value) {
            found = Some(number);
        }
    }
    Ok(found)
}

fn options(byte: u8, version: Version) -> Result<SubscribeOptions, DecodeError> {
    let reserved = if version == Version::V3 { 0xfc } else { 0xc0 };
    if byte & reserved != 0 {
        return Err(DecodeError::Malformed("reserved bits in the options of a subscription"));
    }
    let qos = QoS::from_u8(byte & 3).ok_or(match version {
        Version::V3 => DecodeError::Malformed("subscription with QoS 3"),
        Version::V5 => DecodeError::Protocol("subscription with QoS 3"),
    })?;
    let retain_handling = (byte >> 4) & 3;
    if retain_handling == 3 {
        return Err(DecodeError::Protocol("Retain Handling 3"));
    }
    Ok(SubscribeOptions { qos, no_local: byte & 4 != 0, retain_as_published: byte & 8 != 0, retain_handling })
}

pub(super) fn unsubscribe(body: &[u8], version: Version) -> Result<Unsubscribe, DecodeError> {
    let mut reader = Reader::new(body);
    let packet_id = reader.packet_id()?;
    if version == Version::V5 {
        let mut fields = Fields::new(reader.property_block()?, sets::UNSUBSCRIBE);
        while fields.next()?.is_some() {}
    }
    let mut filters = Vec::new();
    while !reader.is_empty() {
        filters.push(reader.text()?.to_owned());
    }
    if filters.is_empty() {
        return Err(DecodeError::Protocol("UNSUBSCRIBE without a topic filter"));
    }
    Ok(Unsubscribe { packet_id, filters })
}
