//! MQTT packets on the wire: 3.1.1 and 5.0, the server's side. No I/O, no state, no knowledge of sessions.
//!
//! Sources: OASIS MQTT Version 3.1.1 (29 October 2014) and MQTT Version 5.0 (7 March 2019); `[MQTT-x.y.z-n]` names a normative statement.
//!
//! Invariants:
//! - whatever bytes come in, nothing here panics, loops, or reads past the input; memory taken is bounded by the size of the packet;
//! - what [`decode`] lets through keeps every rule that can be checked without a session: [`frame`] checks the fixed header, [`decode`] the rest;
//! - [`write`] only makes packets a client may trust: lengths always fit what follows them.
//!
//! Left to the caller, since they need configuration or a session: what a topic filter or the levels of a topic may be, empty client ids,
//! quotas, packet ids in use, topic aliases above the maximum, and authentication.

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
pub use fixed::{Framed, frame};
pub use packet::{Packet, Version, decode};
pub use publish::Publish;
pub use small::{Ack, Auth, Disconnect};
pub use subscribe::{Subscribe, SubscribeFilter, SubscribeOptions, Unsubscribe};

#[cfg(test)]
mod tests;
