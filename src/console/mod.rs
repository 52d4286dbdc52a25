//! The web console, without HTTP: its page, who is logged in, the live stream, the test event. The REST room serves it at `/console`.
//!
//! The page ([`page`]) is one embedded document with its style and scripts; what it shows and does goes through the routes of REST, where a
//! log-in ([`sessions`]) stands in for an address that is trusted. Invariants: nobody is let in whom `broker.toml` does not name, except on this
//! machine while it names nobody at all; what a console costs is bounded, whoever reads its stream or does not ([`live`]).

pub mod live;
mod metrics;
pub mod page;
pub mod sessions;
pub mod trial;

use std::net::SocketAddr;

use prometheus_client::registry::Registry;

use self::{live::Live, metrics::Metrics, sessions::Sessions, trial::Trial};
use crate::{
    bus::{
        Bus,
        desk::{Desk, Logins},
    },
    names::{TopicFilter, TopicName},
};

/// What the console is made of.
pub struct Parts {
    /// Who may log in.
    pub logins: Logins,
    /// The built-in broker, if it carries the messages.
    pub desk: Option<Desk>,
    /// Where events arrive.
    pub bus: Bus,
    /// The prefix of the program's own topics.
    pub own_topics: TopicName,
    /// Where datagrams about tasks are received, if they are.
    pub events: Option<SocketAddr>,
}

/// The console.
pub struct Console {
    /// Who is logged in.
    pub sessions: Sessions,
    /// What passes through the broker.
    pub live: Live,
    /// Test events.
    pub trial: Trial,
    /// The prefix of the program's own topics.
    pub own_topics: TopicName,
}

impl Console {
    /// Puts it together.
    pub fn new(parts: Parts, registry: &mut Registry) -> Self {
        let metrics = Metrics::register(registry);
        // A prefix so long that no level fits behind it has no events.
        let heard = parts.own_topics.join("event").ok().map(TopicFilter::from);
        Self {
            sessions: Sessions::new(parts.logins, metrics.logins.clone()),
            live: Live::new(parts.desk, metrics),
            trial: Trial::new(parts.events, parts.bus, heard),
            own_topics: parts.own_topics,
        }
    }
}
