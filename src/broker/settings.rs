//! What the embedded broker is told: listeners, users, limits. Plain data; `config` reads `broker.toml` into it.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

pub use super::access::{
    pattern::{ClientPattern, PatternError, TopicPattern},
    rule::{Action, Actions, Rule},
};
use bytes::Bytes;

use crate::names::{Secret, TopicFilter, TopicName};

/// Everything the broker is told.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Doors to open.
    pub listeners: Vec<Listener>,
    /// Who may come in.
    pub users: Vec<User>,
    /// Access rules, in order: the first that decides, decides; before the users' own rights and lists.
    pub access: Vec<Rule>,
    /// What nobody may exceed.
    pub limits: Limits,
    /// Topics on which a message starts a task: they need the right `start`, and hold no retained message.
    pub start_topics: Vec<TopicFilter>,
    /// Topics only the program itself publishes on (`protect_own_topics`); empty when that is off.
    pub protected_topics: Vec<TopicFilter>,
    /// Exceptions from both lists: whoever may publish at all may publish here (the self-test `<own topics>/ping`).
    pub open_topics: Vec<TopicFilter>,
    /// Whether clients without a user may read `$SYS` from other machines, too. Users and this machine always may.
    pub anonymous_sys: bool,
    /// Prefix under which a user without topic lists may not publish.
    pub own_prefix: TopicName,
    /// What is kept across restarts, and where.
    pub storage: Storage,
    /// Retained messages that, where an earlier run left one on their topic, are replaced by these before anybody can connect: what this
    /// program said of itself and cannot be true any more.
    pub replaced_at_start: Vec<(TopicName, Bytes)>,
    /// Whether `BrokerHandle::kill_engine` works, and any number of engine deaths is tolerated. For tests; never set by configuration.
    pub engine_test_hook: bool,
}

impl Settings {
    /// What differs in newer settings and is not taken by [`BrokerHandle::reload`](super::BrokerHandle::reload): words of `broker.toml`.
    pub fn needs_restart(&self, newer: &Self) -> Vec<&'static str> {
        let mut keys = Vec::new();
        let same_door = |(one, other): (&Listener, &Listener)| {
            let same_inside = one.tls == other.tls && one.websocket == other.websocket;
            one.name == other.name && one.addresses == other.addresses && same_inside
        };
        let opens = |(one, other): (&Listener, &Listener)| {
            let given = other.anonymous_rights.and(one.anonymous_rights);
            other.allow_anonymous && (!one.allow_anonymous || given != other.anonymous_rights)
        };
        let doors = || self.listeners.iter().zip(&newer.listeners);
        if self.listeners.len() != newer.listeners.len() || !doors().all(same_door) {
            keys.push("listeners");
        } else if doors().any(opens) {
            keys.push("listeners.allow_anonymous");
        }
        if self.storage != newer.storage {
            keys.push("storage");
        }
        if self.limits != newer.limits {
            keys.push("limits");
        }
        if self.protected_topics != newer.protected_topics {
            keys.push("protect_own_topics");
        }
        keys
    }
}

/// What is kept across restarts, where, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// Directory of the store; `None`: it lives in memory, and ends with the process.
    pub directory: Option<PathBuf>,
    /// Bytes of everything stored, above which nothing more is taken until it drains (4 GiB).
    pub max_bytes: u64,
    /// Bytes of one session's queue (256 MiB).
    pub session_bytes: u64,
    /// Messages of one session's queue (1,000,000).
    pub session_messages: u64,
    /// What happens beyond them.
    pub policy: QueuePolicy,
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            directory: None,
            max_bytes: 4 << 30,
            session_bytes: 256 << 20,
            session_messages: 1_000_000,
            policy: QueuePolicy::DropOldest,
        }
    }
}

/// What happens to a stored message whose session's queue is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum QueuePolicy {
    /// The oldest that was not sent yet is dropped.
    #[default]
    DropOldest,
    /// The new one is dropped.
    DropNew,
    /// The new one is dropped, and its publisher is told.
    Reject,
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

impl Rights {
    /// What both give.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            publish: self.publish && other.publish,
            subscribe: self.subscribe && other.subscribe,
            start: self.start && other.start,
        }
    }
}

/// How much a client may send. Beyond it the broker reads on later; nothing is lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rate {
    /// Messages (PUBLISH) per second; 0: any number.
    pub messages: u32,
    /// Bytes per second, of all packets; 0: any number.
    pub bytes: u32,
}

/// A user.
#[derive(Debug, Clone)]
pub struct User {
    /// User name.
    pub name: Arc<str>,
    /// Argon2id hash in PHC form (`sense-butler hash-password`); `None`: the user comes with a certificate and never with a password.
    pub password_hash: Option<Secret>,
    /// Groups it is in; access rules name them.
    pub groups: Vec<Arc<str>>,
    /// Rights.
    pub rights: Rights,
    /// The right `console`: to log in to the web console, see everything there and disconnect clients.
    pub console: bool,
    /// Where it may publish; `None`: everywhere outside `own_prefix` and the start topics.
    pub publish: Option<Vec<TopicFilter>>,
    /// What it may subscribe to; `None`: everything.
    pub subscribe: Option<Vec<TopicFilter>>,
    /// How much each of its connections may send; `None`: what [`Limits::rate`] says.
    pub rate: Option<Rate>,
}

impl User {
    /// A user with what `broker.toml` gives one that has nothing but a name and a hash: publish and subscribe.
    pub fn new(name: &str, password_hash: Secret) -> Self {
        Self {
            name: name.into(),
            password_hash: Some(password_hash),
            groups: Vec::new(),
            rights: Rights { publish: true, subscribe: true, start: false },
            console: false,
            publish: None,
            subscribe: None,
            rate: None,
        }
    }
}

/// What nobody may exceed. Every value is a key of `[limits]` in `broker.toml`.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// New connections one address may open per minute (20,000); 0: any number.
    pub connects: u32,
    /// Failed log-ins an address or a user name has per minute before further ones are refused unseen (10); 0: any number.
    pub failed_logins: u32,
    /// Log-ins waiting for their password to be verified (256).
    pub waiting_logins: usize,
    /// What each connection may send (off).
    pub rate: Rate,
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
            connects: 20_000,
            failed_logins: 10,
            waiting_logins: 256,
            rate: Rate { messages: 0, bytes: 0 },
        }
    }
}
