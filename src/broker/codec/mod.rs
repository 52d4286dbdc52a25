//! MQTT packets on the wire: 3.1.1 and 5.0, the server's side. No I/O, no state, no knowledge of sessions.
//!
//! Sources: OASIS MQTT Version 3.1.1 (29 October 2014) and MQTT Version 5.0 (7 March 2019); `[MQTT-x.y.z-n]` names a normative statement.
//!
//! Invariants:
//! - whatever bytes come in, nothing here panics, loops, or reads past the input; memory taken is bounded by the size of the packet;
//! - what [`decode`] lets through keeps every rule that can be checked without a session: [`frame`] checks the fixed header, [`decode`] the rest;
//! - [`mod@write`] only makes packets a client may trust: lengths always fit what follows them.
//!
//! Left to the caller, since they need configuration or a session: what a topic filter or the levels of a topic may be, empty client ids,
//! quotas, packet ids in use, topic aliases above the maximum, and authentication.
//!
//! # Why not a library
//!
//! Two were measured and asked what they let through (`cargo run --release --manifest-path benches/Cargo.toml --bin codec`). Nanoseconds per
//! packet, median of 5, topic of 27 bytes, payload of 256, on two shared cores; copying the bytes of such a PUBLISH takes 8.5:
//!
//! | | this codec | `rmqtt-codec` 0.3.1 | `mqtt-protocol-core` 0.7.9 |
//! |---|---|---|---|
//! | PUBLISH 3.1.1 QoS 0 decode | 18.6 | 61.2 | 41.3 |
//! | PUBLISH 3.1.1 QoS 0 encode | 11.9 | 32.3 | 93.6 |
//! | PUBLISH 3.1.1 QoS 1 decode | 19.1 | 63.1 | 42.3 |
//! | PUBLISH 3.1.1 QoS 1 encode | 12.0 | 35.1 | 110.9 |
//! | PUBLISH 5.0 QoS 0 decode | 19.8 | 113.6 | 57.9 |
//! | PUBLISH 5.0 QoS 0 encode | 15.5 | 52.2 | 114.1 |
//! | PUBLISH 5.0 QoS 1 decode | 20.1 | 115.8 | 58.0 |
//! | PUBLISH 5.0 QoS 1 encode | 15.8 | 53.1 | 115.1 |
//! | PUBACK 3.1.1 decode | 6.9 | 22.8 | 4.2 |
//! | PUBACK 3.1.1 encode | 0.7 | 10.5 | 17.2 |
//! | PUBACK 5.0 decode | 6.9 | 54.1 | 11.0 |
//! | PUBACK 5.0 encode | 0.7 | 18.2 | 19.9 |
//! | wrong packets let through, of 35 | 0 | 25 | 20 |
//! | right packets refused, of 8 | 0 | 2 | 1 |
//!
//! Both are careful libraries for both ends of a connection, and leave checks to the program around them; a broker would have to make these again.
//! Both let through: U+0000 in texts, wildcards in the topic of a message, of a will and of a response, DUP at QoS 0, a subscription identifier in a
//! client's PUBLISH, property lengths longer than needed, will flags without a will (5.0), authentication data without a method, No Local on a shared
//! subscription, and a server's reason codes in DISCONNECT and AUTH. `rmqtt-codec` also: packets only a server may send, bytes behind a CONNECT, a
//! PINGREQ or a DISCONNECT, reserved option bits in a 3.1.1 SUBSCRIBE, a 3.1.1 password without a user name; it refuses Message Expiry 0, and an empty
//! client id that keeps its session, without a way to answer 0x02. `mqtt-protocol-core` also: packet identifier 0 and an empty topic in a 3.1.1 PUBLISH,
//! a 3.1.1 PUBACK of three bytes; it refuses a 5.0 password without a user name, and copies every message before it is read.
//!
//! The same command has `rmqtt-codec` read back what [`mod@write`] makes: 40,000 PUBLISH, 10,000 CONNACK and 126 other packets, all equal.

mod connect;
mod error;
mod fixed;
mod packet;
pub mod properties;
mod property;
mod publish;
mod reader;
mod small;
mod subscribe;
pub mod write;

pub use connect::{Connect, Password, Will, connect_version};
pub use error::DecodeError;
pub use fixed::{Framed, frame, is_shortest};
pub use packet::{Packet, Version, decode};
pub use publish::Publish;
pub use small::{Ack, Auth, Disconnect};
pub use subscribe::{Subscribe, SubscribeFilter, SubscribeOptions, Unsubscribe};

#[cfg(test)]
mod tests;
