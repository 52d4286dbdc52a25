//! Properties of MQTT 5.0 as they stand in a packet (section 2.2.2): identifiers, types, where each may stand, and a walk over them.
//!
//! Invariant: what [`Fields::next`] gives is allowed in its packet, has the right type, a value in range, and is there once (User Properties
//! and, in a PUBLISH from a server, Subscription Identifiers excepted).

use std::borrow::Cow;

use super::{DecodeError, reader::Reader};

/// Property identifiers (table 2-4).
pub(super) mod id {
    pub(in super::super) const PAYLOAD_FORMAT: u8 = 0x01;
    pub(in super::super) const MESSAGE_EXPIRY: u8 = 0x02;
    pub(in super::super) const CONTENT_TYPE: u8 = 0x03;
    pub(in super::super) const RESPONSE_TOPIC: u8 = 0x08;
    pub(in super::super) const CORRELATION_DATA: u8 = 0x09;
    pub(in super::super) const SUBSCRIPTION_ID: u8 = 0x0b;
    pub(in super::super) const SESSION_EXPIRY: u8 = 0x11;
    pub(in super::super) const ASSIGNED_CLIENT_ID: u8 = 0x12;
    pub(in super::super) const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub(in super::super) const AUTHENTICATION_METHOD: u8 = 0x15;
    pub(in super::super) const AUTHENTICATION_DATA: u8 = 0x16;
    pub(in super::super) const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub(in super::super) const WILL_DELAY: u8 = 0x18;
    pub(in super::super) const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub(in super::super) const RESPONSE_INFORMATION: u8 = 0x1a;
    pub(in super::super) const SERVER_REFERENCE: u8 = 0x1c;
    pub(in super::super) const REASON_STRING: u8 = 0x1f;
    pub(in super::super) const RECEIVE_MAXIMUM: u8 = 0x21;
    pub(in super::super) const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub(in super::super) const TOPIC_ALIAS: u8 = 0x23;
    pub(in super::super) const MAXIMUM_QOS: u8 = 0x24;
    pub(in super::super) const RETAIN_AVAILABLE: u8 = 0x25;
    pub(in super::super) const USER_PROPERTY: u8 = 0x26;
    pub(in super::super) const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub(in super::super) const WILDCARD_AVAILABLE: u8 = 0x28;
    pub(in super::super) const SUBSCRIPTION_IDS_AVAILABLE: u8 = 0x29;
    pub(in super::super) const SHARED_AVAILABLE: u8 = 0x2a;
}

/// Which properties may stand in which packet (table 2-4): bit n stands for identifier n.
pub(super) mod sets {
    use super::{bit, id};

    pub(in super::super) const TRAVELLING: u64 = bit(id::PAYLOAD_FORMAT)
        | bit(id::CONTENT_TYPE)
        | bit(id::RESPONSE_TOPIC)
        | bit(id::CORRELATION_DATA)
        | bit(id::USER_PROPERTY);
    pub(in super::super) const PUBLISH: u64 =
        TRAVELLING | bit(id::MESSAGE_EXPIRY) | bit(id::TOPIC_ALIAS) | bit(id::SUBSCRIPTION_ID);
    pub(in super::super) const WILL: u64 = TRAVELLING | bit(id::MESSAGE_EXPIRY) | bit(id::WILL_DELAY);
    pub(in super::super) const CONNECT: u64 = bit(id::SESSION_EXPIRY)
        | bit(id::RECEIVE_MAXIMUM)
        | bit(id::MAXIMUM_PACKET_SIZE)
        | bit(id::TOPIC_ALIAS_MAXIMUM)
        | bit(id::REQUEST_RESPONSE_INFORMATION)
        | bit(id::REQUEST_PROBLEM_INFORMATION)
        | bit(id::USER_PROPERTY)
        | bit(id::AUTHENTICATION_METHOD)
        | bit(id::AUTHENTICATION_DATA);
    pub(in super::super) const ACK: u64 = bit(id::REASON_STRING) | bit(id::USER_PROPERTY);
    pub(in super::super) const SUBSCRIBE: u64 = bit(id::SUBSCRIPTION_ID) | bit(id::USER_PROPERTY);
    pub(in super::super) const UNSUBSCRIBE: u64 = bit(id::USER_PROPERTY);
    pub(in super::super) const DISCONNECT: u64 = ACK | bit(id::SESSION_EXPIRY) | bit(id::SERVER_REFERENCE);
    pub(in super::super) const AUTH: u64 = ACK | bit(id::AUTHENTICATION_METHOD) | bit(id::AUTHENTICATION_DATA);
}

const fn bit(id: u8) -> u64 {
    1 << id
}

/// A value, by its type on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Byte(u8),
    Two(u16),
    Four(u32),
    Variable(u32),
    Text(&'a str),
    Binary(&'a [u8]),
    Pair(&'a str, &'a str),
}

/// Walks over the properties of one packet.
pub(super) struct Fields<'a> {
    reader: Reader<'a>,
    allowed: u64,
    seen: u64,
}

impl<'a> Fields<'a> {
    /// `block` is what follows the length of the properties, `allowed` one of [`sets`].
    pub(super) const fn new(block: &'a [u8], allowed: u64) -> Self {
        Self { reader: Reader::new(block), allowed, seen: 0 }
    }

    /// Bytes not walked over yet.
    const fn left(&self) -> usize {
        self.reader.len()
    }

    /// The next property.
    pub(super) fn next(&mut self) -> Result<Option<(u8, Value<'a>)>, DecodeError> {
        if self.reader.is_empty() {
            return Ok(None);
        }
        // Identifiers are Variable Byte Integers, but all that exist are one byte.
        let id = self.reader.u8()?;
        self.admit(id)?;
        let value = value(id, &mut self.reader)?;
        check(id, value)?;
        Ok(Some((id, value)))
    }

    fn admit(&mut self, id: u8) -> Result<(), DecodeError> {
        let bit = 1u64.checked_shl(u32::from(id)).unwrap_or(0);
        if self.allowed & bit == 0 {
            return Err(DecodeError::Malformed("a property that does not belong into this packet"));
        }
        if self.seen & bit != 0 && id != id::USER_PROPERTY {
            return Err(DecodeError::Protocol("a property that may be there once is there twice"));
        }
        self.seen |= bit;
        Ok(())
    }
}

fn value<'a>(id: u8, reader: &mut Reader<'a>) -> Result<Value<'a>, DecodeError> {
    Ok(match id {
        id::PAYLOAD_FORMAT
        | id::REQUEST_PROBLEM_INFORMATION
        | id::REQUEST_RESPONSE_INFORMATION
        | id::MAXIMUM_QOS
        | id::RETAIN_AVAILABLE
        | id::WILDCARD_AVAILABLE
        | id::SUBSCRIPTION_IDS_AVAILABLE
        | id::SHARED_AVAILABLE => Value::Byte(reader.u8()?),
        id::SERVER_KEEP_ALIVE | id::RECEIVE_MAXIMUM | id::TOPIC_ALIAS_MAXIMUM | id::TOPIC_ALIAS => {
            Value::Two(reader.u16()?)
        }
        id::MESSAGE_EXPIRY | id::SESSION_EXPIRY | id::WILL_DELAY | id::MAXIMUM_PACKET_SIZE => {
            Value::Four(reader.u32()?)
        }
        id::SUBSCRIPTION_ID => Value::Variable(reader.varint()?),
        id::CONTENT_TYPE
        | id::RESPONSE_TOPIC
        | id::ASSIGNED_CLIENT_ID
        | id::AUTHENTICATION_METHOD
        | id::RESPONSE_INFORMATION
        | id::SERVER_REFERENCE
        | id::REASON_STRING => Value::Text(reader.text()?),
        id::CORRELATION_DATA | id::AUTHENTICATION_DATA => Value::Binary(reader.binary()?),
        id::USER_PROPERTY => Value::Pair(reader.text()?, reader.text()?),
        _ => return Err(DecodeError::Malformed("a property MQTT 5.0 does not know")),
    })
}

/// Ranges that hold wherever the property stands.
fn check(id: u8, value: Value<'_>) -> Result<(), DecodeError> {
    match (id, value) {
        (_, Value::Byte(2..)) => Err(DecodeError::Protocol("a property that is 0 or 1 has another value")),
        (id::RECEIVE_MAXIMUM, Value::Two(0)) => Err(DecodeError::Protocol("Receive Maximum 0")),
        (id::MAXIMUM_PACKET_SIZE, Value::Four(0)) => Err(DecodeError::Protocol("Maximum Packet Size 0")),
        (id::SUBSCRIPTION_ID, Value::Variable(0)) => Err(DecodeError::Protocol("Subscription Identifier 0")),
        (id::TOPIC_ALIAS, Value::Two(0)) => Err(DecodeError::TopicAlias),
        (id::RESPONSE_TOPIC, Value::Text(topic)) if topic.is_empty() || topic.contains(['+', '#']) => {
            Err(DecodeError::Protocol("a Response Topic that is empty or contains `+` or `#`"))
        }
        _ => Ok(()),
    }
}

/// The properties of a message or will, sorted into those that travel to its subscribers and those that end here.
#[derive(Debug)]
pub(super) struct Travelling<'a> {
    /// Those that travel, in wire form and order.
    pub(super) kept: Cow<'a, [u8]>,
    pub(super) topic_alias: Option<u16>,
    pub(super) expiry: Option<u32>,
    pub(super) delay: u32,
}

impl<'a> Travelling<'a> {
    /// No properties; what every message of 3.1.1 has.
    pub(super) const NONE: Self = Self { kept: Cow::Borrowed(&[]), topic_alias: None, expiry: None, delay: 0 };

    /// `allowed` is [`sets::PUBLISH`] or [`sets::WILL`].
    #[inline]
    pub(super) fn read(block: &'a [u8], allowed: u64) -> Result<Self, DecodeError> {
        if block.is_empty() { Ok(Self::NONE) } else { Self::walk(block, allowed) }
    }

    fn walk(block: &'a [u8], allowed: u64) -> Result<Self, DecodeError> {
        let mut sorted = Self::NONE;
        let mut kept = Kept { block, start: 0, end: 0, pieces: None };
        let mut fields = Fields::new(block, allowed);
        let mut start = 0;
        while let Some((id, value)) = fields.next()? {
            let end = block.len() - fields.left();
            match (id, value) {
                (id::TOPIC_ALIAS, Value::Two(alias)) => sorted.topic_alias = Some(alias),
                (id::MESSAGE_EXPIRY, Value::Four(seconds)) => sorted.expiry = Some(seconds),
                (id::WILL_DELAY, Value::Four(seconds)) => sorted.delay = seconds,
                (id::SUBSCRIPTION_ID, _) => {
                    return Err(DecodeError::Protocol("a Subscription Identifier in a PUBLISH from a client"));
                }
                _ => kept.keep(start, end),
            }
            start = end;
        }
        sorted.kept = kept.finish();
        Ok(sorted)
    }
}

/// Pieces of a block: borrowed as long as they lie side by side, copied from the first gap on.
struct Kept<'a> {
    block: &'a [u8],
    start: usize,
    end: usize,
    pieces: Option<Vec<u8>>,
}

impl<'a> Kept<'a> {
    fn piece(&self, start: usize, end: usize) -> &'a [u8] {
        self.block.get(start..end).unwrap_or_default()
    }

    fn keep(&mut self, start: usize, end: usize) {
        let piece = self.piece(start, end);
        if let Some(pieces) = &mut self.pieces {
            pieces.extend_from_slice(piece);
        } else if self.start == self.end {
            (self.start, self.end) = (start, end);
        } else if self.end == start {
            self.end = end;
        } else {
            self.pieces = Some([self.piece(self.start, self.end), piece].concat());
        }
    }

    fn finish(self) -> Cow<'a, [u8]> {
        let run = self.piece(self.start, self.end);
        self.pieces.map_or(Cow::Borrowed(run), Cow::Owned)
    }
}
