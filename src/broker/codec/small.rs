//! The small packets: acknowledgements, DISCONNECT and AUTH (sections 3.4 to 3.7, 3.14, 3.15).
//!
//! Invariant: a reason code that comes out is one a client may send in that packet.

use super::{
    DecodeError, Version,
    property::{Fields, Value, id, sets},
    reader::Reader,
};

/// PUBACK, PUBREC, PUBREL or PUBCOMP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ack {
    /// Packet identifier, 1..=65535.
    pub packet_id: u16,
    /// Reason code of 5.0; 0 in 3.1.1.
    pub reason: u8,
}

/// DISCONNECT from a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Disconnect {
    /// Reason code of 5.0; 0 (normal) in 3.1.1, 4 asks for the will.
    pub reason: u8,
    /// Session Expiry Interval of 5.0, seconds; that it may not become non-zero (section 3.14.2.2.2) is for the caller to check.
    pub session_expiry: Option<u32>,
}

/// AUTH from a client; its contents are of no use to a broker without extended authentication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Auth {
    /// 0x18 (continue) or 0x19 (re-authenticate).
    pub reason: u8,
}

/// Which of the two tables of reason codes an acknowledgement follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AckReasons {
    /// PUBACK and PUBREC: tables 3-4 and 3-5.
    Publish,
    /// PUBREL and PUBCOMP: tables 3-6 and 3-7.
    Release,
}

impl AckReasons {
    /// 0x10 (no matching subscribers) is a server's to say, but a bridge is a server and may well say it to us.
    const fn allow(self, reason: u8) -> bool {
        match self {
            Self::Publish => {
                matches!(reason, 0x00 | 0x10 | 0x80 | 0x83 | 0x87 | 0x90 | 0x91 | 0x97 | 0x99)
            }
            Self::Release => matches!(reason, 0x00 | 0x92),
        }
    }
}

#[inline]
pub(super) fn ack(body: &[u8], version: Version, reasons: AckReasons) -> Result<Ack, DecodeError> {
    let mut reader = Reader::new(body);
    let packet_id = reader.packet_id()?;
    if reader.is_empty() {
        return Ok(Ack { packet_id, reason: 0 });
    }
    if version == Version::V3 {
        return Err(DecodeError::Malformed("an acknowledgement of MQTT 3.1.1 is two bytes long"));
    }
    ack_reason(reader, reasons).map(|reason| Ack { packet_id, reason })
}

/// What 5.0 has behind the packet identifier.
fn ack_reason(mut reader: Reader<'_>, reasons: AckReasons) -> Result<u8, DecodeError> {
    let reason = reader.u8()?;
    if !reasons.allow(reason) {
        return Err(DecodeError::Protocol("a reason code this acknowledgement does not know"));
    }
    if !reader.is_empty() {
        let mut fields = Fields::new(reader.property_block()?, sets::ACK);
        while fields.next()?.is_some() {}
    }
    reader.finish()?;
    Ok(reason)
}

pub(super) fn disconnect(body: &[u8], version: Version) -> Result<Disconnect, DecodeError> {
    let mut reader = Reader::new(body);
    let mut packet = Disconnect { reason: 0, session_expiry: None };
    if reader.is_empty() {
        return Ok(packet);
    }
    if version == Version::V3 {
        return Err(DecodeError::Malformed("DISCONNECT of MQTT 3.1.1 has no body"));
    }
    packet.reason = reader.u8()?;
    // Table 3-13; the others are a server's.
    if !matches!(packet.reason, 0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99) {
        return Err(DecodeError::Protocol("a reason code a client may not send in DISCONNECT"));
    }
    if !reader.is_empty() {
        let mut fields = Fields::new(reader.property_block()?, sets::DISCONNECT);
        while let Some((property, value)) = fields.next()? {
            match (property, value) {
                (id::SESSION_EXPIRY, Value::Four(seconds)) => packet.session_expiry = Some(seconds),
                (id::SERVER_REFERENCE, _) => {
                    return Err(DecodeError::Protocol("only a server sends a Server Reference"));
                }
                _ => {}
            }
        }
    }
    reader.finish()?;
    Ok(packet)
}

pub(super) fn auth(body: &[u8]) -> Result<Auth, DecodeError> {
    let mut reader = Reader::new(body);
    // An empty body would mean 0x00 (success), which only a server says (`[MQTT-3.15.2-1]`).
    let reason = if reader.is_empty() { 0 } else { reader.u8()? };
    if !matches!(reason, 0x18 | 0x19) {
        return Err(DecodeError::Protocol("a reason code a client may not send in AUTH"));
    }
    let mut method = false;
    let mut fields = Fields::new(reader.property_block()?, sets::AUTH);
    while let Some((property, _)) = fields.next()? {
        method |= property == id::AUTHENTICATION_METHOD;
    }
    reader.finish()?;
    if method { Ok(Auth { reason }) } else { Err(DecodeError::Protocol("AUTH without an authentication method")) }
}
