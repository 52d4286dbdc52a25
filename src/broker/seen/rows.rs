//! The rows as the rest of the house sees them: plain data, made from what the stream handed out.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;

use super::{ClientRow, Cursor, Face, SubscriptionRow};
use crate::{
    broker::{
        codec::Version,
        envelope::{Message, now_ms},
    },
    names::{ClientId, QoS, TopicFilter},
};

/// Some rows, in order, and where the next begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page<T> {
    /// At most as many as were asked for; fewer do not mean that there are no more.
    pub rows: Vec<T>,
    /// `None`: these were the last.
    pub next: Option<Cursor>,
}

/// The connection of a client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// Where it comes from.
    pub address: SocketAddr,
    /// Name of the listener it came in by.
    pub listener: Arc<str>,
    /// `3.1.1` or `5.0`.
    pub protocol: &'static str,
    /// Milliseconds since 1970.
    pub since: u64,
    /// Seconds; 0: none.
    pub keep_alive: u16,
    /// PUBLISH packets from the client.
    pub messages_in: u64,
    /// PUBLISH packets to it.
    pub messages_out: u64,
    /// Bytes from it.
    pub bytes_in: u64,
    /// Bytes to it.
    pub bytes_out: u64,
}

/// A client: its session, and its connection while there is one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Client id.
    pub id: ClientId,
    /// The user it logged in as, if it did.
    pub user: Option<Arc<str>>,
    /// `None`: away, the session is kept.
    pub connection: Option<Connection>,
    /// Seconds the session outlives the connection; 0: it ends with it; `u32::MAX`: it never ends.
    pub session_expiry: u32,
    /// While away: milliseconds since 1970 when the session ends, if it ever does.
    pub session_ends: Option<u64>,
    /// Subscriptions.
    pub subscriptions: usize,
    /// Messages waiting for it; of what only the store has, the most there can be.
    pub queued_messages: usize,
    /// Bytes of those in memory, with what they occupy beside topic and payload.
    pub queued_bytes: usize,
    /// Messages of QoS 1 and 2 sent to it and not acknowledged.
    pub in_flight: usize,
    /// Messages for it that were dropped, since the session began.
    pub dropped: u64,
}

impl From<ClientRow> for Client {
    fn from(row: ClientRow) -> Self {
        let (queued_messages, queued_bytes) = row.session.depth();
        let in_flight = row.session.handshakes.lock().in_flight();
        Self {
            id: row.session.client.clone(),
            user: row.origin.and_then(|origin| origin.user.clone()),
            connection: row.peer.and_then(|peer| peer.face().map(Connection::from)),
            session_expiry: row.expiry,
            session_ends: row.ends_at,
            subscriptions: row.subscriptions,
            queued_messages,
            queued_bytes,
            in_flight,
            dropped: row.session.dropped(),
        }
    }
}

impl From<&Face> for Connection {
    fn from(face: &Face) -> Self {
        Self {
            address: face.address,
            listener: Arc::clone(&face.listener),
            protocol: match face.version {
                Version::V3 => "3.1.1",
                Version::V5 => "5.0",
            },
            since: face.since,
            keep_alive: face.keep_alive,
            messages_in: face.traffic.messages_in(),
            messages_out: face.traffic.messages_out(),
            bytes_in: face.traffic.bytes_in(),
            bytes_out: face.traffic.bytes_out(),
        }
    }
}

/// A subscription.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subscription {
    /// Whose.
    pub client: ClientId,
    /// The filter as it was asked for, `$share/...` included.
    pub filter: TopicFilter,
    /// Highest quality of service it gets.
    pub qos: QoS,
    /// MQTT 5: not its own messages.
    pub no_local: bool,
    /// MQTT 5: the RETAIN flag as it was published.
    pub retain_as_published: bool,
    /// MQTT 5 subscription identifier.
    pub id: Option<u32>,
}

impl From<SubscriptionRow> for Subscription {
    fn from(row: SubscriptionRow) -> Self {
        let options = row.asked.options;
        Self {
            client: row.client,
            filter: row.filter,
            qos: options.qos,
            no_local: options.no_local,
            retain_as_published: options.retain_as_published,
            id: row.asked.id,
        }
    }
}

/// A retained message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RetainedMessage {
    /// Its topic.
    pub topic: String,
    /// Quality of service it was published with.
    pub qos: QoS,
    /// All of it.
    pub payload: Bytes,
    /// Seconds until it expires, if it does.
    pub expires_in: Option<u32>,
}

impl From<Arc<Message>> for RetainedMessage {
    fn from(message: Arc<Message>) -> Self {
        Self {
            topic: message.topic_str().to_owned(),
            qos: message.qos,
            payload: message.payload_bytes(),
            expires_in: message.remaining(now_ms()).unwrap_or(Some(0)),
        }
    }
}
