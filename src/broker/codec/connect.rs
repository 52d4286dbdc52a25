//! CONNECT (section 3.1 of both versions), the only packet that tells its own version.
//!
//! Invariant: flags and payload agree; a password can be used but not printed.

use std::fmt;

use bytes::Bytes;

use super::{
    DecodeError, Version,
    property::{Fields, Travelling, Value, id, sets},
    reader::Reader,
};
use crate::names::QoS;

/// CONNECT.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connect {
    /// The version the client speaks.
    pub version: Version,
    /// Clean Start; in 3.1.1 Clean Session.
    pub clean_start: bool,
    /// Seconds; 0 switches the keep-alive off.
    pub keep_alive: u16,
    /// UTF-8 without U+0000; may be empty.
    pub client_id: String,
    /// The will, if any.
    pub will: Option<Will>,
    /// User name; UTF-8 without U+0000.
    pub user_name: Option<String>,
    /// Password; any bytes. In 3.1.1 never without a user name.
    pub password: Option<Password>,
    /// Session Expiry Interval of 5.0, seconds; 0 if absent, `u32::MAX` for ever. 0 in 3.1.1.
    pub session_expiry: u32,
    /// Receive Maximum of 5.0, 1..=65535; 65535 if absent and in 3.1.1.
    pub receive_maximum: u16,
    /// Maximum Packet Size of 5.0, bytes of the whole packet, at least 1.
    pub maximum_packet_size: Option<u32>,
    /// Topic Alias Maximum of 5.0: how many aliases we may use towards the client.
    pub topic_alias_maximum: u16,
    /// The client wants Response Information in CONNACK.
    pub request_response_information: bool,
    /// The client wants reason strings outside CONNACK, PUBLISH and DISCONNECT; true if absent.
    pub request_problem_information: bool,
    /// How many User Properties there were.
    pub user_properties: usize,
    /// The extended authentication the client asks for.
    pub authentication_method: Option<String>,
}

/// The will of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Will {
    /// Where to; not empty, without wildcards and U+0000.
    pub topic: String,
    /// What.
    pub payload: Bytes,
    /// Quality of service.
    pub qos: QoS,
    /// RETAIN flag.
    pub retain: bool,
    /// Will Delay Interval of 5.0, seconds; 0 if absent.
    pub delay: u32,
    /// Message Expiry Interval of 5.0, seconds.
    pub expiry: Option<u32>,
    /// The properties that travel to the subscribers, in wire form, without the length before them.
    pub properties: Vec<u8>,
}

/// The password of a CONNECT. `Debug` prints `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct Password(Vec<u8>);

impl Password {
    /// The password itself; for the one call that checks it.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// Connect Flags (section 3.1.2.3).
#[derive(Clone, Copy)]
struct Flags(u8);

impl Flags {
    const fn bit(self, bit: u8) -> bool {
        self.0 & (1 << bit) != 0
    }

    const fn clean_start(self) -> bool {
        self.bit(1)
    }

    const fn will(self) -> bool {
        self.bit(2)
    }

    const fn will_retain(self) -> bool {
        self.bit(5)
    }

    const fn password(self) -> bool {
        self.bit(6)
    }

    const fn user_name(self) -> bool {
        self.bit(7)
    }

    fn will_qos(self) -> Result<QoS, DecodeError> {
        QoS::from_u8((self.0 >> 3) & 3).ok_or(DecodeError::Malformed("will with QoS 3"))
    }

    fn check(self, version: Version) -> Result<Self, DecodeError> {
        if self.bit(0) {
            Err(DecodeError::Malformed("the reserved flag of CONNECT is set"))
        } else if !self.will() && self.0 & 0x38 != 0 {
            Err(DecodeError::Malformed("will flags without a will"))
        } else if version == Version::V3 && self.password() && !self.user_name() {
            Err(DecodeError::Malformed("a password without a user name"))
        } else {
            Ok(self)
        }
    }
}

/// The version a CONNECT speaks, read from its first bytes, even if the rest of it is wrong: what the CONNACK that refuses it has to be written
/// in. `None` if it is not one of ours.
pub fn connect_version(body: &[u8]) -> Option<Version> {
    version(&mut Reader::new(body)).ok()
}

/// Protocol Name and Protocol Level.
fn version(reader: &mut Reader<'_>) -> Result<Version, DecodeError> {
    let name = reader.binary()?;
    if name != b"MQTT" && name != b"MQIsdp" {
        return Err(DecodeError::Malformed("the protocol name is not `MQTT`"));
    }
    match (name, reader.u8()?) {
        (b"MQTT", 4) => Ok(Version::V3),
        (b"MQTT", 5) => Ok(Version::V5),
        (_, level) => Err(DecodeError::UnsupportedVersion(level)),
    }
}

pub(super) fn decode(body: &[u8]) -> Result<Connect, DecodeError> {
    let mut reader = Reader::new(body);
    let version = version(&mut reader)?;
    let flags = Flags(reader.u8()?).check(version)?;
    let mut connect = Connect {
        version,
        clean_start: flags.clean_start(),
        keep_alive: reader.u16()?,
        client_id: String::new(),
        will: None,
        user_name: None,
        password: None,
        session_expiry: 0,
        receive_maximum: u16::MAX,
        maximum_packet_size: None,
        topic_alias_maximum: 0,
        request_response_information: false,
        request_problem_information: true,
        user_properties: 0,
        authentication_method: None,
    };
    if version == Version::V5 {
        connect.take_properties(reader.property_block()?)?;
    }
    reader.text()?.clone_into(&mut connect.client_id);
    if flags.will() {
        connect.will = Some(will(&mut reader, flags, version)?);
    }
    if flags.user_name() {
        connect.user_name = Some(reader.text()?.to_owned());
    }
    if flags.password() {
        connect.password = Some(Password(reader.binary()?.to_vec()));
    }
    reader.finish()?;
    Ok(connect)
}

impl Connect {
    fn take_properties(&mut self, block: &[u8]) -> Result<(), DecodeError> {
        let mut authentication_data = false;
        let mut fields = Fields::new(block, sets::CONNECT);
        while let Some((property, value)) = fields.next()? {
            match (property, value) {
                (id::SESSION_EXPIRY, Value::Four(seconds)) => self.session_expiry = seconds,
                (id::RECEIVE_MAXIMUM, Value::Two(count)) => self.receive_maximum = count,
                (id::MAXIMUM_PACKET_SIZE, Value::Four(bytes)) => self.maximum_packet_size = Some(bytes),
                (id::TOPIC_ALIAS_MAXIMUM, Value::Two(count)) => self.topic_alias_maximum = count,
                (id::REQUEST_RESPONSE_INFORMATION, Value::Byte(yes)) => self.request_response_information = yes == 1,
                (id::REQUEST_PROBLEM_INFORMATION, Value::Byte(yes)) => self.request_problem_information = yes == 1,
                (id::AUTHENTICATION_METHOD, Value::Text(method)) => {
                    self.authentication_method = Some(method.to_owned());
                }
                (id::AUTHENTICATION_DATA, _) => authentication_data = true,
                (id::USER_PROPERTY, _) => self.user_properties += 1,
                _ => {}
            }
        }
        if authentication_data && self.authentication_method.is_none() {
            return Err(DecodeError::Protocol("authentication data without an authentication method"));
        }
        Ok(())
    }
}

fn will(reader: &mut Reader<'_>, flags: Flags, version: Version) -> Result<Will, DecodeError> {
    let Travelling { kept, delay, expiry, .. } = match version {
        Version::V3 => Travelling::NONE,
        Version::V5 => Travelling::read(reader.property_block()?, sets::WILL)?,
    };
    let topic = reader.topic()?;
    if topic.is_empty() {
        return Err(DecodeError::TopicName("the topic of the will is empty"));
    }
    Ok(Will {
        topic: topic.to_owned(),
        payload: Bytes::copy_from_slice(reader.binary()?),
        qos: flags.will_qos()?,
        retain: flags.will_retain(),
        delay,
        expiry,
        properties: kept.into_owned(),
    })
}
