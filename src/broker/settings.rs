//! What the embedded broker is told: listeners, users, limits. Plain data; `config` reads `broker.toml` into it.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use crate::names::{TopicFilter, TopicName};

/// Everything the broker is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Doors to open.
    pub listeners: Vec<Listener>,
    /// Who may come in.
    pub users: Vec<User>,
    /// What nobody may exceed.
    pub limits: Limits,
    /// Topics on which a message starts a task: they need the right `start`, and hold no retained message.
    pub start_topics: Vec<TopicFilter>,
    /// Topics only the program itself publishes on (`protect_own_topics`); empty when that is off.
    pub protected_topics: Vec<TopicFilter>,
    /// Exceptions from both lists: whoever may publish at all may publish here (the self-test `<own topics>/ping`).
    pub open_topics: Vec<TopicFilter>,
    /// Prefix under which a user without topic lists may not publish.
    pub own_prefix: TopicName,
    /// Whether `BrokerHandle::kill_engine` works, and any number of engine deaths is tolerated. For tests; never set by configuration.
    pub engine_test_hook: bool,
}

/// One door.
#[derive(Debug, Clone)]
pub struct Listener {
    /// Its name in logs and metrics.
    pub name: Arc<str>,
    /// Addresses to bind: two for `localhost` (127.0.0.1 and ::1).
    pub addresses: Vec<SocketAddr>,
    /// As written, for messages.
    pub written: String,
    /// TLS, if any.
    pub tls: Option<ListenerTls>,
    /// MQTT inside WebSocket; `None`: MQTT as it is.
    pub websocket: Option<WebSocket>,
    /// Whether clients without a user name get in.
    pub allow_anonymous: bool,
    /// What they may do.
    pub anonymous_rights: Rights,
}

/// TLS of a listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerTls {
    /// Certificate chain, PEM.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// Certificates of clients, if they are asked for.
    pub clients: Option<ClientCertificates>,
}

/// Certificates of a listener's clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientCertificates {
    /// The authorities that sign them, PEM.
    pub ca: PathBuf,
    /// Whether a client without one is turned away.
    pub required: bool,
    /// Which part of one names the user.
    pub name: CertificateName,
}

/// Which part of a client's certificate names the user.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateName {
    /// None: the certificate opens the door, the user logs in.
    Nobody,
    /// The common name of the subject.
    CommonName,
    /// A subject alternative name: DNS name, mail address, URI or IP address.
    AlternativeName,
}

/// MQTT inside WebSocket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebSocket {
    /// Path of the upgrade, e.g. `/mqtt`.
    pub path: String,
    /// Origins of web pages that may connect, beyond the listener's own.
    pub allowed_origins: Vec<String>,
    /// Further names of this machine in `Host`.
    pub allowed_hosts: Vec<String>,
}

/// What a user may do at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rights {
    /// Send messages (outside start topics).
    pub publish: bool,
    /// Receive messages.
    pub subscribe: bool,
    /// Start tasks.
    pub start: bool,
}

/// A user.
#[derive(Debug, Clone)]
pub struct User {
    /// User name.
    pub name: Arc<str>,
    /// Argon2id hash in PHC form (`sense-butler hash-password`); `None`: the user comes with a certificate and never with a password.
    pub password_hash: Option<String>,
    /// Rights.
    pub rights: Rights,
    /// Where it may publish; `None`: everywhere outside `own_prefix` and the start topics.
    pub publish: Option<Vec<TopicFilter>>,
    /// What it may subscribe to; `None`: everything.
    pub subscribe: Option<Vec<TopicFilter>>,
}

/// What nobody may exceed. Every value is a key of `[limits]` in `broker.toml`.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time (20,000).
    pub clients: usize,
    /// Largest packet, bytes, fixed header included (10 MiB).
    pub packet_size: usize,
    /// Levels of a topic or filter (128).
    pub topic_levels: usize,
    /// Subscriptions of one session (1,000).
    pub subscriptions: usize,
    /// Unacknowledged QoS 1 and 2 messages towards one client, and from it (MQTT 5 Receive Maximum) (1,024).
    pub inflight: u16,
    /// Queue of a session, bytes (4 MiB): the hard mark of its outbox.
    pub queue_bytes: usize,
    /// Queue of a session, messages (100,000).
    pub queue_messages: usize,
    /// Bytes of all retained messages together (64 MiB).
    pub retained_bytes: usize,
    /// Retained topics (100,000).
    pub retained_topics: usize,
    /// Persistent sessions that may exist while their clients are away (10,000).
    pub sessions: usize,
    /// Longest session expiry, seconds (7 days); a longer one asked for is shortened to it.
    pub session_expiry: u32,
    /// Time a new connection has to send its CONNECT, seconds (10).
    pub connect_timeout: u32,
    /// Longest keep-alive, seconds (65,535: none shortened); for MQTT 5 clients told as Server Keep Alive.
    pub keep_alive: u16,
    /// MQTT 5 topic aliases a client may use (32).
    pub topic_aliases: u16,
    /// Connections waiting for their CONNECT at a time (1,000).
    pub handshakes: usize,
    /// Of these, connections of one address (500).
    pub handshakes_per_address: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            clients: 20_000,
            packet_size: 10 << 20,
            topic_levels: 128,
            subscriptions: 1_000,
            inflight: 1_024,
            queue_bytes: 4 << 20,
            queue_messages: 100_000,
            retained_bytes: 64 << 20,
            retained_topics: 100_000,
            sessions: 10_000,
            session_expiry: 7 * 24 * 3600,
            connect_timeout: 10,
            keep_alive: u16::MAX,
            topic_aliases: 32,
            handshakes: 1_000,
            handshakes_per_address: 500,
        }
    }
}
