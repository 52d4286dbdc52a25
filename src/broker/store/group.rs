//! What one dispatcher round promises: messages, queue rows, changes of what is kept, and the words that may be said once they are committed.
//!
//! A group is one transaction's worth at most: the writer may put several into one commit, never one into several. Invariant: every row names
//! a message of its own group, or one that another row keeps alive until this group is committed.

use std::sync::Arc;

use crate::{
    broker::{codec::Will, envelope::Message, message::Origin, promise::Promise, stream::Asked},
    names::{ClientId, QoS, TopicFilter},
};

/// Number of a stored session; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::broker) struct Sid(pub u64);

/// Where a message lies: the batch of its group, and its place therein.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(in crate::broker) struct Place {
    pub batch: u64,
    pub index: u32,
}

/// One message in one session's queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::broker) struct Row {
    /// Queue position; within a session they only grow.
    pub qseq: u64,
    pub place: Place,
    /// Effective QoS, 1 or 2.
    pub qos: QoS,
    /// RETAIN flag on delivery.
    pub retain: bool,
    /// Subscription identifiers of MQTT 5.
    pub ids: Option<Arc<[u32]>>,
    /// The shared group it was sent for.
    pub pool: Option<Sid>,
    /// Who published it; kept for a part of this program, which asks.
    pub origin: Option<Arc<Origin>>,
}

/// Whose queue it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::broker) enum Owner {
    /// A client's session.
    #[default]
    Client,
    /// A shared group's: messages wait in it while no member is there.
    Group(TopicFilter),
    /// A session that ended; what it owes shared groups is still to be handed over.
    Estate,
    /// A part of this program's: no client can claim or see it, and nothing promised to it is ever dropped for room.
    Part,
}

impl Owner {
    /// Whether somebody comes to fetch what is queued: a client or a part of this program.
    pub(in crate::broker) fn is_served(&self) -> bool {
        matches!(self, Self::Client | Self::Part)
    }

    /// The group's filter.
    pub(in crate::broker) fn group(&self) -> Option<&TopicFilter> {
        match self {
            Self::Group(filter) => Some(filter),
            _ => None,
        }
    }
}

/// A session as it is kept.
#[derive(Debug, Clone)]
pub(in crate::broker) struct SessionRecord {
    pub owner: Owner,
    pub client: ClientId,
    /// Who its client is: nobody else resumes it, and its will is judged by it.
    pub origin: Option<Origin>,
    /// Seconds it outlives its connection; `u32::MAX`: for ever. 0: kept for its will, or for what shared groups trusted it with.
    pub expiry: u32,
    /// Milliseconds since 1970 when its connection ended; `None`: it is connected.
    pub left_at: Option<u64>,
    pub will: Option<WillRecord>,
}

/// A will that is still to be published or called off.
#[derive(Debug, Clone)]
pub(in crate::broker) struct WillRecord {
    pub will: Will,
    /// Milliseconds since 1970, once its connection has ended.
    pub due: Option<u64>,
}

/// A change of what is kept beside the queues. Later ones override earlier ones of the same key.
#[derive(Debug, Clone)]
pub(in crate::broker) enum Change {
    /// A session is new or changed.
    Session(Sid, Box<SessionRecord>),
    /// It ended: everything with its number goes.
    End(Sid, ClientId),
    Subscribe(Sid, TopicFilter, Asked),
    Unsubscribe(Sid, TopicFilter),
    /// The topic's retained message; an empty payload removes it.
    Retain(Arc<Message>),
    /// An incoming QoS 2 id is open.
    Received(Sid, u16),
    /// Everything below this position of a queue was handed over to others by rows of the same group. If the group cannot be committed, this
    /// is not made up for later.
    Advance(Sid, u64),
}

/// See the module.
#[derive(Debug, Default)]
pub(in crate::broker) struct Group {
    /// Number of the batch its messages form; grows from group to group.
    pub batch: u64,
    pub messages: Vec<Arc<Message>>,
    /// Rows by session, each list in order.
    pub queues: Vec<(Sid, Vec<Row>)>,
    pub changes: Vec<Change>,
    /// What is said afterwards.
    pub promise: Promise,
}

impl Group {
    pub(in crate::broker) fn new(batch: u64) -> Self {
        Self { batch, ..Self::default() }
    }

    /// Nothing to write: its promise may be kept as soon as those before it are.
    pub(in crate::broker) fn stores_nothing(&self) -> bool {
        self.queues.is_empty() && self.changes.is_empty()
    }

    /// Neither to write nor to say anything.
    pub(in crate::broker) fn is_empty(&self) -> bool {
        self.stores_nothing() && self.promise.is_empty()
    }

    /// The place of a message in this group's batch; those of one message follow each other.
    pub(in crate::broker) fn place(&mut self, message: &Arc<Message>) -> Place {
        if !self.messages.last().is_some_and(|last| Arc::ptr_eq(last, message)) {
            self.messages.push(Arc::clone(message));
        }
        // A round has a few hundred envelopes, and a SUBSCRIBE at most its portions of retained messages.
        let index = u32::try_from(self.messages.len() - 1).unwrap_or(u32::MAX);
        Place { batch: self.batch, index }
    }
}

/// How far a session's client has acknowledged, as one consistent picture.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::broker) struct Progress {
    /// Everything below is done with.
    pub floor: u64,
    /// The highest position ever sent.
    pub sent: u64,
    /// Done with, above the floor; ascending.
    pub above: Vec<u64>,
    /// PUBREC seen and PUBCOMP not; ascending.
    pub released: Vec<u64>,
    /// Incoming QoS 2 ids whose PUBREL was seen: they are to be forgotten.
    pub completed: Vec<u16>,
}

/// A range of a session's queue that is to be read back; positions, both included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) struct Wanted {
    pub from: u64,
    pub to: u64,
    /// Whether the answer is still waited for.
    pub turn: u64,
}

/// What was read back.
#[derive(Debug)]
pub(in crate::broker) struct Page {
    /// In order. Gaps are normal.
    pub rows: Vec<(Row, Arc<Message>)>,
    /// The first position that was not looked at.
    pub next: u64,
}

/// Everything that outlived the process.
#[derive(Debug, Default)]
pub(in crate::broker) struct Recovered {
    pub sessions: Vec<RecoveredSession>,
    pub retained: Vec<Arc<Message>>,
    /// The next number of a session.
    pub next_sid: u64,
    /// The next number of a batch.
    pub next_batch: u64,
}

/// A session that outlived the process.
#[derive(Debug)]
pub(in crate::broker) struct RecoveredSession {
    pub sid: Sid,
    pub record: SessionRecord,
    pub filters: Vec<(TopicFilter, Asked)>,
    pub progress: Progress,
    /// Incoming QoS 2 ids that are open.
    pub incoming: Vec<u16>,
    /// The next queue position.
    pub next_qseq: u64,
}
