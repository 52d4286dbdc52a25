//! The outbox of a session: messages on their way to one client, with marks that hold publishers before anything is lost.
//!
//! Above the high mark the publishers that feed it are held (they stop reading their sockets), until it is below the low mark again. A hold
//! that lasts too long makes the session *lagging*: it holds nobody and its policy applies. A session never holds its own connection, nor
//! anybody while its own connection is held: no cycles.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use super::handshakes::horizon_of;
use crate::{
    broker::{
        envelope::Message,
        peer::{Kick, Peer},
    },
    names::QoS,
};

/// A hold longer than this at a stretch makes a session lagging.
const LONGEST_HOLD: Duration = Duration::from_secs(1);
/// As does this much within [`HOLD_WINDOW`].
const MOST_HOLD: Duration = Duration::from_secs(10);
const HOLD_WINDOW: Duration = Duration::from_secs(60);

/// When an outbox holds, releases and overflows.
#[derive(Debug, Clone, Copy)]
pub(in crate::broker) struct Marks {
    /// Bytes: below it, held publishers go on.
    pub low: usize,
    /// Bytes: above it, publishers are held.
    pub high: usize,
    /// Bytes: nothing more is taken.
    pub hard: usize,
    /// Messages: nothing more is taken.
    pub count: usize,
}

impl Marks {
    /// Marks for a queue limit in bytes and messages: low and high are a quarter and half of it.
    pub(in crate::broker) fn of(bytes: usize, count: usize) -> Self {
        Self { low: bytes / 4, high: bytes / 2, hard: bytes, count }
    }
}

/// One message for one session.
#[derive(Debug, Clone)]
pub(in crate::broker) struct Entry {
    pub message: Arc<Message>,
    /// Queue position; 0 at QoS 0, which has none.
    pub qseq: u64,
    pub qos: QoS,
    /// RETAIN flag on delivery.
    pub retain: bool,
    /// Subscription identifiers of MQTT 5.
    pub ids: Option<Arc<[u32]>>,
}

/// What became of a delivery.
#[derive(Debug, Default, PartialEq, Eq)]
pub(in crate::broker) struct Delivered {
    /// QoS 0 messages dropped because the session lags.
    pub dropped_lagging: u64,
    /// Messages dropped because the queue is full.
    pub dropped_full: u64,
    /// The session now holds somebody: look after it in the next ticks.
    pub holds: bool,
}

/// What was taken out.
#[derive(Debug, Default)]
pub(in crate::broker) struct Taken {
    /// Publishers that may go on.
    pub released: Vec<Arc<Peer>>,
    /// The dispatcher waits to add more (retained messages in bulk).
    pub nudge: bool,
}

/// Messages on their way to one client.
#[derive(Debug)]
pub(in crate::broker) struct Outbox {
    marks: Marks,
    queue: VecDeque<Entry>,
    bytes: usize,
    /// The connection, while there is one.
    peer: Option<Arc<Peer>>,
    persistent: bool,
    lagging: bool,
    holding: BTreeMap<u64, Arc<Peer>>,
    held_since: Option<Instant>,
    held_recently: Duration,
    window_start: Option<Instant>,
    bulk_waits: bool,
}

impl Outbox {
    pub(super) fn new(marks: Marks) -> Self {
        Self {
            marks,
            queue: VecDeque::new(),
            bytes: 0,
            peer: None,
            persistent: false,
            lagging: false,
            holding: BTreeMap::new(),
            held_since: None,
            held_recently: Duration::ZERO,
            window_start: None,
            bulk_waits: false,
        }
    }

    /// Messages that wait, and their bytes.
    pub(in crate::broker) fn depth(&self) -> (usize, usize) {
        (self.queue.len(), self.bytes)
    }

    /// Whether it holds nobody because its client reads too slowly.
    pub(in crate::broker) fn is_lagging(&self) -> bool {
        self.lagging
    }

    /// A connection begins to serve the session. What an earlier connection was owed at QoS 0 is gone with it.
    pub(in crate::broker) fn attach(&mut self, peer: Arc<Peer>, persistent: bool) -> Vec<Arc<Peer>> {
        let released = self.detach();
        self.peer = Some(peer);
        self.persistent = persistent;
        self.lagging = false;
        released
    }

    /// The connection is gone; who was held goes on.
    pub(in crate::broker) fn detach(&mut self) -> Vec<Arc<Peer>> {
        self.peer = None;
        self.queue.retain(|entry| entry.qos != QoS::AtMostOnce);
        self.bytes = self.queue.iter().map(|entry| entry.message.size()).sum();
        self.bulk_waits = false;
        self.release_all()
    }

    /// Bytes a bulk delivery may add now, `staged` being on their way; 0: the dispatcher is nudged when there is room. Filled so far, it holds
    /// nobody and drops nothing.
    pub(in crate::broker) fn room_for_bulk(&mut self, staged: usize) -> usize {
        let bytes = self.bytes + staged;
        self.bulk_waits = bytes >= self.marks.low && self.peer.is_some();
        if self.bulk_waits { 0 } else { self.marks.high.saturating_sub(bytes) }
    }

    /// Adds what one round brought; `origins` are the publishers of the round this session's messages came from.
    pub(in crate::broker) fn deliver<'a>(
        &mut self,
        entries: &mut Vec<Entry>,
        origins: impl Iterator<Item = &'a Arc<Peer>>,
        now: Instant,
    ) -> Delivered {
        let mut delivered = Delivered::default();
        for entry in entries.drain(..) {
            self.add(entry, &mut delivered);
        }
        if self.bytes > self.marks.high && !self.lagging {
            delivered.holds = self.hold(origins, now);
        }
        delivered
    }

    fn add(&mut self, entry: Entry, delivered: &mut Delivered) {
        if self.lagging && entry.qos == QoS::AtMostOnce {
            delivered.dropped_lagging += 1;
            return;
        }
        if self.peer.is_none() && (entry.qos == QoS::AtMostOnce || !self.persistent) {
            // Nobody is owed QoS 0 while away.
            return;
        }
        let size = entry.message.size();
        // Below the low mark one message of any size is taken.
        let full = self.bytes + size > self.marks.hard && self.bytes >= self.marks.low;
        if full || self.queue.len() >= self.marks.count {
            delivered.dropped_full += 1;
            self.overflow(entry.qos);
            return;
        }
        self.bytes += size;
        self.queue.push_back(entry);
    }

    /// A clean session that would lose an acknowledged message is closed: its client learns that something is missing.
    fn overflow(&self, qos: QoS) {
        if let Some(peer) = self.peer.as_ref().filter(|_| qos != QoS::AtMostOnce && !self.persistent) {
            peer.kick(Kick::QuotaExceeded);
        }
    }

    fn hold<'a>(&mut self, origins: impl Iterator<Item = &'a Arc<Peer>>, now: Instant) -> bool {
        let Some(own) = self.peer.as_ref().filter(|own| !own.is_held()) else { return false };
        let own = own.id;
        for origin in origins.filter(|origin| origin.id != own) {
            self.holding.entry(origin.id).or_insert_with(|| {
                origin.hold();
                Arc::clone(origin)
            });
        }
        if !self.holding.is_empty() {
            self.held_since.get_or_insert(now);
        }
        !self.holding.is_empty()
    }

    fn release_all(&mut self) -> Vec<Arc<Peer>> {
        if let Some(since) = self.held_since.take() {
            self.held_recently += since.elapsed();
        }
        std::mem::take(&mut self.holding).into_values().collect()
    }

    /// Checks a hold that lasts. Returns whether the session still holds somebody, and who is let go because it lags.
    pub(in crate::broker) fn check_hold(&mut self, now: Instant) -> (bool, Vec<Arc<Peer>>) {
        let Some(since) = self.held_since else { return (false, Vec::new()) };
        if self.window_start.is_none_or(|start| now.duration_since(start) > HOLD_WINDOW) {
            self.window_start = Some(now);
            self.held_recently = Duration::ZERO;
        }
        let held = now.duration_since(since);
        // Its own connection is held by others now: holding on could close a circle.
        let circle = self.peer.as_ref().is_some_and(|own| own.is_held());
        if !circle && held <= LONGEST_HOLD && self.held_recently + held <= MOST_HOLD {
            return (true, Vec::new());
        }
        self.lagging |= !circle;
        if self.lagging && !self.persistent {
            // QoS 1 and 2 messages wait here that the client will not fetch: it is told, not starved.
            if let Some(peer) = self.peer.as_ref().filter(|_| self.queue.iter().any(|e| e.qos != QoS::AtMostOnce)) {
                peer.kick(Kick::QuotaExceeded);
            }
        }
        (false, self.release_all())
    }

    pub(super) fn take(&mut self, budget: usize, mut window: usize, mut last: u64, out: &mut Vec<Entry>) -> Taken {
        let mut spent = 0;
        while let Some(front) = self.queue.front() {
            let acknowledged = front.qos != QoS::AtMostOnce;
            if spent >= budget || (acknowledged && (window == 0 || front.qseq > last)) {
                break;
            }
            let Some(entry) = self.queue.pop_front() else { break };
            if acknowledged {
                window -= 1;
                // Positions have gaps where messages were dropped: none may be taken whose id would meet that of one before it.
                last = last.min(horizon_of(entry.qseq));
            }
            spent += entry.message.size();
            out.push(entry);
        }
        self.bytes = self.bytes.saturating_sub(spent);
        self.drained()
    }

    fn drained(&mut self) -> Taken {
        if self.bytes >= self.marks.low {
            return Taken::default();
        }
        self.lagging = false;
        if self.queue.is_empty() && self.queue.capacity() > 1024 {
            self.queue = VecDeque::new();
        }
        Taken { released: self.release_all(), nudge: std::mem::take(&mut self.bulk_waits) }
    }
}
