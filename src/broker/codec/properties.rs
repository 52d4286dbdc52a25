//! Between the properties of a message on the wire and [`Properties`], for publishers and subscribers inside the house.
//!
//! Invariant: what [`to_wire`] makes, [`from_wire`] reads back equal, and a client would accept. Message Expiry is no part of the wire form: it
//! changes while a message waits, so it travels beside it.

use bytes::Bytes;

use super::{
    DecodeError,
    property::{Fields, Value, id, sets},
};
use crate::{broker::message::Properties, names::TopicName};

/// A property MQTT cannot carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PropertyError {
    /// More than the 65,535 bytes of a text or Binary Data.
    #[error("the {0} is longer than the 65,535 bytes MQTT allows; shorten it")]
    TooLong(&'static str),
    /// `[MQTT-1.5.4-2]`
    #[error("the {0} contains the character U+0000, which MQTT forbids; remove it")]
    Nul(&'static str),
}

/// The wire form, without the length before it and without Message Expiry.
///
/// # Errors
/// If a value is too long or contains U+0000.
pub fn to_wire(properties: &Properties) -> Result<Vec<u8>, PropertyError> {
    let mut wire = Vec::new();
    if properties.payload_is_utf8 {
        wire.extend_from_slice(&[id::PAYLOAD_FORMAT, 1]);
    }
    if let Some(topic) = &properties.response_topic {
        wire.push(id::RESPONSE_TOPIC);
        put_text(&mut wire, topic.as_str(), "response topic")?;
    }
    if let Some(data) = &properties.correlation_data {
        wire.push(id::CORRELATION_DATA);
        put_binary(&mut wire, data, "correlation data")?;
    }
    if let Some(content_type) = &properties.content_type {
        wire.push(id::CONTENT_TYPE);
        put_text(&mut wire, content_type, "content type")?;
    }
    for (name, value) in &properties.user {
        wire.push(id::USER_PROPERTY);
        put_text(&mut wire, name, "name of a user property")?;
        put_text(&mut wire, value, "value of a user property")?;
    }
    Ok(wire)
}

fn put_text(wire: &mut Vec<u8>, text: &str, what: &'static str) -> Result<(), PropertyError> {
    if text.contains('\0') { Err(PropertyError::Nul(what)) } else { put_binary(wire, text.as_bytes(), what) }
}

fn put_binary(wire: &mut Vec<u8>, bytes: &[u8], what: &'static str) -> Result<(), PropertyError> {
    let length = u16::try_from(bytes.len()).map_err(|_| PropertyError::TooLong(what))?;
    wire.extend_from_slice(&length.to_be_bytes());
    wire.extend_from_slice(bytes);
    Ok(())
}

/// Reads the wire form; `expiry` is the Message Expiry Interval that travelled beside it, in seconds.
///
/// # Errors
/// The same as for the properties of a PUBLISH. Bytes that came out of [`decode`](super::decode) or [`to_wire`] never fail.
pub fn from_wire(wire: &[u8], expiry: Option<u32>) -> Result<Properties, DecodeError> {
    let mut properties = Properties { message_expiry: expiry, ..Properties::default() };
    let mut fields = Fields::new(wire, sets::TRAVELLING);
    while let Some((property, value)) = fields.next()? {
        match (property, value) {
            (id::PAYLOAD_FORMAT, Value::Byte(format)) => properties.payload_is_utf8 = format == 1,
            (id::RESPONSE_TOPIC, Value::Text(topic)) => properties.response_topic = Some(response_topic(topic)?),
            (id::CORRELATION_DATA, Value::Binary(data)) => {
                properties.correlation_data = Some(Bytes::copy_from_slice(data));
            }
            (id::CONTENT_TYPE, Value::Text(text)) => properties.content_type = Some(text.into()),
            (id::USER_PROPERTY, Value::Pair(name, value)) => properties.user.push((name.to_owned(), value.to_owned())),
            _ => {}
        }
    }
    Ok(properties)
}

fn response_topic(topic: &str) -> Result<TopicName, DecodeError> {
    TopicName::new(topic).map_err(|_| DecodeError::Protocol("a Response Topic that is no topic name"))
}
