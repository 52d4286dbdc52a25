//! Why bytes are no packet this broker can take, and the reason code that tells the client so.
//!
//! Invariant: every error has a reason code of MQTT 5.0 that may stand in a DISCONNECT and in a CONNACK.

use super::Version;

/// Why a packet was refused. The connection cannot go on after any of them (`[MQTT-4.13.1-1]`, `[MQTT-4.8.0-1]` of 3.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes are not what MQTT says a packet looks like (MQTT 5.0 section 1.2, Malformed Packet).
    #[error("malformed MQTT packet: {0}")]
    Malformed(&'static str),
    /// The packet can be read, but says something MQTT does not allow (MQTT 5.0 section 1.2, Protocol Error).
    #[error("MQTT protocol error: {0}")]
    Protocol(&'static str),
    /// The packet, fixed header included, is larger than this broker takes.
    #[error("a packet of {size} bytes is larger than the limit of {limit} bytes")]
    TooLarge {
        /// Bytes of the whole packet.
        size: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// CONNECT with a protocol level that is neither 4 (MQTT 3.1.1) nor 5 (MQTT 5.0); the level is given.
    #[error("MQTT protocol level {0} is not served; the client must use MQTT 3.1.1 (level 4) or MQTT 5.0 (level 5)")]
    UnsupportedVersion(u8),
    /// The topic of a message or will is no topic name.
    #[error("not the topic of a message: {0}")]
    TopicName(&'static str),
    /// Topic alias 0 (`[MQTT-3.3.2-8]`).
    #[error("topic alias 0 is not allowed; aliases begin with 1")]
    TopicAlias,
}

impl DecodeError {
    /// The reason code of MQTT 5.0 for CONNACK or DISCONNECT (MQTT 5.0 section 2.4).
    pub const fn reason_code(&self) -> u8 {
        match self {
            Self::Malformed(_) => 0x81,
            Self::Protocol(_) => 0x82,
            Self::UnsupportedVersion(_) => 0x84,
            Self::TopicName(_) => 0x90,
            Self::TopicAlias => 0x94,
            Self::TooLarge { .. } => 0x95,
        }
    }

    /// For a CONNECT of a version that is not served: in which version, and with which code, a CONNACK tells the client so.
    ///
    /// Older levels get 3.1.1's return code 0x01 (`[MQTT-3.1.2-2]` of 3.1.1), newer ones 0x84. Bit 7 of the level marks a bridge connection
    /// (a private agreement of brokers, who then try again without it); it says nothing about the version.
    pub const fn unsupported_version_answer(&self) -> Option<(Version, u8)> {
        match self {
            Self::UnsupportedVersion(level) if *level & 0x7f < 5 => Some((Version::V3, 0x01)),
            Self::UnsupportedVersion(_) => Some((Version::V5, 0x84)),
            _ => None,
        }
    }
}
