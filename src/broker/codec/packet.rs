//! The packets a client may send, and which decoder reads which.
//!
//! Invariant: packets only a server may send never come through.

use super::{
    Ack, Auth, Connect, DecodeError, Disconnect, Publish, Subscribe, Unsubscribe, connect, publish,
    reader::Reader,
    small::{self, AckReasons},
    subscribe,
};

/// The version of MQTT a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// MQTT 3.1.1, protocol level 4.
    V3,
    /// MQTT 5.0, protocol level 5.
    V5,
}

/// A packet from a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet<'a> {
    /// Section 3.1.
    Connect(Box<Connect>),
    /// Section 3.3.
    Publish(Publish<'a>),
    /// Section 3.4.
    PubAck(Ack),
    /// Section 3.5.
    PubRec(Ack),
    /// Section 3.6.
    PubRel(Ack),
    /// Section 3.7.
    PubComp(Ack),
    /// Section 3.8.
    Subscribe(Subscribe),
    /// Section 3.10.
    Unsubscribe(Unsubscribe),
    /// Section 3.12.
    PingReq,
    /// Section 3.14.
    Disconnect(Disconnect),
    /// Section 3.15 of 5.0.
    Auth(Auth),
}

/// Reads the packet that [`frame`](super::frame) found. A CONNECT tells its version itself; `version` is not looked at for it.
///
/// # Errors
/// Names the rule that is broken; the connection cannot go on.
#[inline]
pub fn decode<'a>(first: u8, body: &'a [u8], version: Version) -> Result<Packet<'a>, DecodeError> {
    match first >> 4 {
        3 => publish::decode(first, body, version).map(Packet::Publish),
        4 => small::ack(body, version, AckReasons::Publish).map(Packet::PubAck),
        5 => small::ack(body, version, AckReasons::Publish).map(Packet::PubRec),
        6 => small::ack(body, version, AckReasons::Release).map(Packet::PubRel),
        7 => small::ack(body, version, AckReasons::Release).map(Packet::PubComp),
        _ => decode_rare(first, body, version),
    }
}

/// All that is not on the hot path.
fn decode_rare(first: u8, body: &[u8], version: Version) -> Result<Packet<'static>, DecodeError> {
    match first >> 4 {
        1 => connect::decode(body).map(|connect| Packet::Connect(Box::new(connect))),
        8 => subscribe::subscribe(body, version).map(Packet::Subscribe),
        10 => subscribe::unsubscribe(body, version).map(Packet::Unsubscribe),
        12 => Reader::new(body).finish().map(|()| Packet::PingReq),
        14 => small::disconnect(body, version).map(Packet::Disconnect),
        15 if version == Version::V5 => small::auth(body).map(Packet::Auth),
        15 => Err(DecodeError::Malformed("packet type 15 does not exist in MQTT 3.1.1")),
        2 | 9 | 11 | 13 => Err(DecodeError::Protocol("a packet only a server may send")),
        _ => Err(DecodeError::Malformed("packet type 0")),
    }
}
