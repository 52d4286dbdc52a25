//! Questions to the stream, and the raw rows it answers with: handles of what is there, which the asker turns into text on its own time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::Stats;
use crate::{
    broker::{envelope::Message, message::Origin, peer::Peer, session::Session, stream::Asked},
    names::{ClientId, TopicFilter},
};

/// Where a page begins: the first row that the page before had no room for. Opaque outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor(String);

impl Cursor {
    /// From the text of [`Cursor::as_str`].
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Any text; it may hold U+0000.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The place of a subscription: neither client ids nor filters hold U+0000.
    pub(in crate::broker) fn of_subscription(client: &ClientId, filter: &str) -> Self {
        Self(format!("{client}\0{filter}"))
    }

    /// Client id and filter; an empty filter means all of the client's.
    pub(in crate::broker) fn subscription(&self) -> (&str, &str) {
        self.0.split_once('\0').unwrap_or((&self.0, ""))
    }
}

/// Some rows, and where the next begin.
#[derive(Debug)]
pub(in crate::broker) struct Rows<T> {
    pub rows: Vec<T>,
    pub next: Option<Cursor>,
}

impl<T> Default for Rows<T> {
    fn default() -> Self {
        Self { rows: Vec::new(), next: None }
    }
}

/// A session as the stream knows it.
#[derive(Debug)]
pub(in crate::broker) struct ClientRow {
    pub session: Arc<Session>,
    /// Its connection, with a face.
    pub peer: Option<Arc<Peer>>,
    /// Who came last.
    pub origin: Option<Arc<Origin>>,
    /// Seconds it outlives its connection.
    pub expiry: u32,
    /// Milliseconds since 1970, while away.
    pub ends_at: Option<u64>,
    pub subscriptions: usize,
}

/// A subscription as the stream knows it.
#[derive(Debug)]
pub(in crate::broker) struct SubscriptionRow {
    pub client: ClientId,
    pub filter: TopicFilter,
    pub asked: Asked,
}

/// What a disconnection did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// The connection is asked to go, or the session was ended.
    Done,
    /// There is such a session, and nobody is connected to it.
    NotConnected,
    /// There is no such client.
    Unknown,
    /// The session was ended, and the store could not note it: after a restart it is there again.
    Unstored,
}

/// What is wanted.
#[derive(Debug)]
pub(in crate::broker) enum Wanted {
    Clients {
        from: Option<Cursor>,
        limit: usize,
        reply: oneshot::Sender<Rows<ClientRow>>,
    },
    Client {
        id: ClientId,
        reply: oneshot::Sender<Option<ClientRow>>,
    },
    Disconnect {
        id: ClientId,
        end_session: bool,
        reply: oneshot::Sender<Parting>,
    },
    Subscriptions {
        of: Option<ClientId>,
        from: Option<Cursor>,
        limit: usize,
        reply: oneshot::Sender<Rows<SubscriptionRow>>,
    },
    Retained {
        filter: TopicFilter,
        from: Option<Cursor>,
        limit: usize,
        reply: oneshot::Sender<Rows<Arc<Message>>>,
    },
    Stats {
        reply: oneshot::Sender<Stats>,
    },
}

/// A question, with its turn: dropped when it was answered, also if nobody waits for the answer any more.
#[derive(Debug)]
pub(in crate::broker) struct Ask {
    pub wanted: Wanted,
    pub turn: OwnedSemaphorePermit,
}
