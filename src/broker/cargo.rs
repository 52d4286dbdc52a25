//! Cargo: the typed particulars of an envelope that never leave this process (replies to be given, sessions to be opened).
//!
//! They wait in the flight ring beside the envelope's bytes and meet them again in the dispatcher, at the same sequence number.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::{
    codec::Will,
    departures::Departure,
    message::Origin,
    peer::{Peer, Reply},
    seen::Ask,
    session::{Marks, Session},
    stream::Asked,
};
use crate::names::{ClientId, TopicFilter};

/// What the broker did with a publication, for an internal publisher.
pub(super) type Word = Result<Taken, Refusal>;

/// What became of a publication the broker took responsibility for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// Whether any session matched.
    pub matched: bool,
    /// Sessions whose queues in the store have it: those that outlive their connections and asked for QoS 1 or 2.
    pub stored: u32,
}

/// Why the broker did not take a publication.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    /// It is stopping.
    Stopping,
    /// The store cannot take it.
    Full,
}

/// Whom to tell that a publish was taken.
#[derive(Debug)]
pub(super) enum Ack {
    /// Nobody (QoS 0).
    None,
    /// The client, with PUBACK or PUBREC.
    Client,
    /// Another part of this program; says what became of it. `origin`: on whose behalf, if not its own.
    Internal { word: oneshot::Sender<Word>, origin: Option<Box<Origin>> },
}

/// A SUBSCRIBE whose filters were parsed and whose rights were checked.
#[derive(Debug)]
pub(super) struct SubscribeCargo {
    pub packet_id: u16,
    /// Per filter: what to subscribe, or the code of the refusal.
    pub filters: Vec<Result<(TopicFilter, Asked), u8>>,
    /// An internal subscriber waits for this instead of a SUBACK.
    pub done: Option<oneshot::Sender<()>>,
    /// These are all it wants: what else it had subscribed to is ended.
    pub all: bool,
}

/// An UNSUBSCRIBE.
#[derive(Debug)]
pub(super) struct UnsubscribeCargo {
    pub packet_id: u16,
    /// Per filter: what to unsubscribe, or the code of the refusal.
    pub filters: Vec<Result<TopicFilter, u8>>,
}

/// A connection that was let in and wants its session.
#[derive(Debug)]
pub(super) struct OpenCargo {
    pub client: ClientId,
    /// A kept session of a part of this program, which no client shares a name with.
    pub inside: bool,
    pub clean_start: bool,
    /// Seconds; 0: the session ends with the connection.
    pub expiry: u32,
    pub will: Option<Will>,
    pub marks: Marks,
    pub reply: oneshot::Sender<SessionWord>,
}

/// The answer to [`OpenCargo`].
pub(super) type SessionWord = Result<Opened, OpenRefused>;

/// The session a connection serves.
#[derive(Debug)]
pub(super) struct Opened {
    pub session: Arc<Session>,
    /// It existed before.
    pub present: bool,
}

/// No session to be had: too many of them are kept, or the store cannot take it.
#[derive(Debug)]
pub(super) struct OpenRefused;

/// How a connection ended.
#[derive(Debug)]
pub(super) struct CloseCargo {
    /// The will is to be published: anything but a DISCONNECT with code 0.
    pub with_will: bool,
    /// Session expiry given with the DISCONNECT.
    pub expiry: Option<u32>,
    /// Told when what the end changes is on disk.
    pub done: Option<oneshot::Sender<()>>,
    /// It counts as leaving until the stream has seen this.
    pub _departure: Option<Departure>,
}

/// See the module.
#[derive(Debug)]
pub(super) enum Cargo {
    Publish(Ack),
    Subscribe(Box<SubscribeCargo>),
    Unsubscribe(Box<UnsubscribeCargo>),
    Open(Box<OpenCargo>),
    Close(CloseCargo),
    /// A reply that must not overtake those of earlier packets.
    Reply(Reply),
    /// Somebody looks at the broker or steers it.
    Ask(Box<Ask>),
    /// Time passes: wills, session expiry and long holds are looked after.
    Tick,
}

/// One envelope under way, as the ring keeps it until it is dispatched.
#[derive(Debug)]
pub(super) struct Flight {
    pub seq: u64,
    pub envelope: Bytes,
    /// Bytes of the bus it occupies; 0 for control envelopes, which are bounded by their connections.
    pub cost: u32,
    /// Bytes it occupies before the store; 0: it is nothing that could be stored.
    pub stored: u32,
    pub peer: Option<Arc<Peer>>,
    pub cargo: Cargo,
    pub since: std::time::Instant,
}
