//! What is seen of the broker from outside, and how it is steered: connections and sessions, subscriptions, retained messages, statistics.
//!
//! There is no second book of connections beside the stream's own: the session table is the registry, each connection's facts ([`Face`]) hang
//! on its peer, and its counters ([`traffic`]) are atomics it owns. Whoever wants to look asks the stream by an envelope ([`Ask`]), so the answer
//! fits one moment of the one order, and the way of a message has no lock more. Invariants: every answer is bounded ([`LARGEST_PAGE`] rows,
//! [`SCAN`] places looked at); at most a few questions are under way; the parts of this program are not shown as clients.

mod ask;
mod desk;
mod rows;
mod stats;
mod tap;
mod traffic;

pub(super) use self::{
    ask::{Ask, ClientRow, Rows, SubscriptionRow, Wanted},
    stats::{LOADS, Load, sys_topics},
    tap::Taps,
    traffic::{Meter, Totals, Traffic},
};
pub use self::{
    ask::{Cursor, Parting},
    desk::{Desk, DeskError, PageAsk},
    rows::{Client, Connection, Page, RetainedMessage, Subscription},
    stats::{Averages, Stats},
    tap::{Glimpse, Room, SHOWN, Seen, Tap},
};

use std::{net::SocketAddr, sync::Arc};

use super::{codec::Version, envelope::now_ms};

/// Rows of a page at most.
pub const LARGEST_PAGE: usize = 1_000;
/// Places looked at for one page; where few of many fit, a page may be short and still have a next.
pub(super) const SCAN: usize = 5_000;

/// The facts of a connection, told once before its session is opened.
#[derive(Debug)]
pub(super) struct Face {
    pub address: SocketAddr,
    pub listener: Arc<str>,
    pub version: Version,
    /// Milliseconds since 1970.
    pub since: u64,
    /// Seconds; 0: none.
    pub keep_alive: u16,
    pub traffic: Arc<Traffic>,
}

impl Face {
    pub(super) fn new(address: SocketAddr, listener: Arc<str>, version: Version, keep_alive: u16) -> Self {
        Self { address, listener, version, since: now_ms(), keep_alive, traffic: Arc::default() }
    }
}

/// A time for people: milliseconds since 1970 as RFC 3339, in UTC.
pub fn rfc3339(ms: u64) -> String {
    let time = time::OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000);
    let text = time.ok().and_then(|time| time.format(&time::format_description::well_known::Rfc3339).ok());
    text.unwrap_or_default()
}
