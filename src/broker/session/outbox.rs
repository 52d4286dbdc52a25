//! The outbox of a session: messages on their way to one client, with marks that hold publishers before anything is lost.
//!
//! Above the high mark the publishers that feed it are held (they stop reading their sockets), until it is below the low mark again. A hold
//! that lasts too long makes the session *lagging*: it holds nobody and its policy applies. A session never holds its own connection, nor
//! anybody while its own connection is held: no cycles.
//!
//! A stored session holds in memory only the newest part of its queue; see [`super::backlog`] for the rest.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use super::{
    backlog::Backlog,
    handshakes::{Handshakes, horizon_of},
    hold::Holds,
};
use crate::{
    broker::{
        envelope::Message,
        peer::{Kick, Peer},
        store::{Page, Place, Row, Sid, Wanted},
    },
    names::QoS,
};

/// A larger queue than this is not kept while it is empty.
const KEPT: usize = 1_024;

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
    /// Marks for a queue limit in bytes and messages: high is half of it, low three quarters of that. Publishers are held for as long as it
    /// takes to send what lies between; who waits for an acknowledgement feels that.
    pub(in crate::broker) fn of(bytes: usize, count: usize) -> Self {
        Self { low: bytes / 8 * 3, high: bytes / 2, hard: bytes, count }
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
    /// It leaves only when its position is decided.
    pub gated: bool,
    /// Where the store has it.
    pub place: Option<Place>,
    /// The shared group it was sent for.
    pub pool: Option<Sid>,
}

impl Entry {
    pub(super) fn read_back(row: Row, message: Arc<Message>) -> Self {
        let Row { qseq, place, qos, retain, ids, pool, origin: _ } = row;
        Self { message, qseq, qos, retain, ids, gated: true, place: Some(place), pool }
    }
}

/// What leaves an outbox.
#[derive(Debug, Clone)]
pub(in crate::broker) enum Parcel {
    Publish {
        entry: Entry,
        /// It was sent before.
        again: bool,
    },
    /// PUBREL again, with its id.
    PubRel(u16),
}

/// What a queue without a client has next.
#[derive(Debug)]
pub(in crate::broker) enum Owed {
    /// A message, and whether it may have been sent to somebody.
    Entry { entry: Entry, sent: bool },
    /// Part of the queue is to be read back first.
    Page,
    /// Something that is not there yet; the session's peer is woken.
    Later,
    /// Nothing.
    Nothing,
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
    /// Part of the queue is to be read back from the store.
    pub page: bool,
    /// Positions were settled that were never sent: progress is to be written.
    pub settled: bool,
}

/// Messages on their way to one client.
#[derive(Debug)]
pub(in crate::broker) struct Outbox {
    marks: Marks,
    stored: bool,
    queue: VecDeque<Entry>,
    bytes: usize,
    /// What of the queue is only in the store, older than everything in `queue`.
    backlog: Backlog,
    /// The connection, while there is one.
    peer: Option<Arc<Peer>>,
    lagging: bool,
    holds: Holds,
    bulk_waits: bool,
}

impl Outbox {
    pub(super) fn new(marks: Marks, stored: bool) -> Self {
        Self {
            marks,
            stored,
            queue: VecDeque::new(),
            bytes: 0,
            backlog: Backlog::default(),
            peer: None,
            lagging: false,
            holds: Holds::default(),
            bulk_waits: false,
        }
    }

    /// Messages that wait, and the bytes of those in memory. Of what only the store has, positions are counted, `floor` being the first that is
    /// owed; they have gaps, so these are the most there can be.
    pub(super) fn depth(&self, floor: u64) -> (usize, usize) {
        if self.stored && self.peer.is_none() {
            return (self.backlog.since(floor), 0);
        }
        let (messages, bytes) = self.backlog.depth();
        (self.queue.len() + messages, self.bytes + bytes)
    }

    /// Whether it holds nobody because its client reads too slowly.
    pub(in crate::broker) fn is_lagging(&self) -> bool {
        self.lagging
    }

    /// An earlier process gave positions below this one.
    pub(super) fn recover(&mut self, next: u64) {
        self.backlog.recover(next);
    }

    /// A connection begins to serve the session; the client is owed everything from `floor` on.
    pub(super) fn attach(&mut self, peer: Arc<Peer>, floor: u64) -> Vec<Arc<Peer>> {
        let released = self.detach();
        self.peer = Some(peer);
        self.lagging = false;
        if self.stored {
            self.backlog.begin(floor);
        }
        released
    }

    /// The connection is gone; who was held goes on. What is stored is read back when the client returns; the rest is gone with it.
    pub(super) fn detach(&mut self) -> Vec<Arc<Peer>> {
        self.peer = None;
        self.queue = VecDeque::new();
        self.backlog.forget();
        self.bytes = 0;
        self.bulk_waits = false;
        self.holds.release()
    }

    pub(super) fn wake(&self) {
        if let Some(peer) = &self.peer {
            peer.wake();
        }
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
        if self.bytes > self.marks.high && !self.lagging && !self.backlog.is_behind() {
            let own = self.peer.as_ref().filter(|own| !own.is_held());
            delivered.holds = own.is_some_and(|own| self.holds.hold(own.id, origins, now));
        }
        delivered
    }

    fn add(&mut self, entry: Entry, delivered: &mut Delivered) {
        let kept = self.stored && entry.qos != QoS::AtMostOnce;
        if kept || entry.place.is_some() {
            self.backlog.given(entry.qseq);
        }
        // What nobody but it has of a shared group's is handed on when it ends.
        let inherited = entry.pool.is_some() && entry.qos != QoS::AtMostOnce;
        let gone = |peer: &Arc<Peer>| peer.is_gone() && !self.stored && !inherited;
        if self.peer.as_ref().is_none_or(gone) {
            // Nobody is owed QoS 0 while away; the rest is in the store, or ends with the connection that is over.
            return;
        }
        if self.lagging && entry.qos == QoS::AtMostOnce {
            delivered.dropped_lagging += 1;
            return;
        }
        let size = entry.message.size();
        // Below the low mark one message of any size is taken.
        let full = self.bytes + size > self.marks.hard && self.bytes >= self.marks.low;
        if full || self.queue.len() >= self.marks.count || (kept && self.lagging) {
            if kept {
                self.skip(entry.qseq, delivered);
            } else {
                delivered.dropped_full += 1;
                self.overflow(entry.qos);
            }
            return;
        }
        self.bytes += size;
        self.queue.push_back(entry);
    }

    /// Memory lets go of a stored session's queue up to a position; the store has it. QoS 0 between has no other place.
    fn skip(&mut self, qseq: u64, delivered: &mut Delivered) {
        let oldest = self.queue.iter().find(|entry| entry.qos != QoS::AtMostOnce).map_or(qseq, |entry| entry.qseq);
        delivered.dropped_lagging +=
            self.queue.iter().map(|entry| u64::from(entry.qos == QoS::AtMostOnce)).sum::<u64>();
        self.queue = VecDeque::new();
        self.bytes = 0;
        self.backlog.skip(oldest, qseq);
    }

    /// A clean session that would lose an acknowledged message is closed: its client learns that something is missing.
    fn overflow(&self, qos: QoS) {
        if let Some(peer) = self.peer.as_ref().filter(|_| qos != QoS::AtMostOnce && !self.stored) {
            peer.kick(Kick::QuotaExceeded);
        }
    }

    /// Checks a hold that lasts. Returns whether the session still holds somebody, and who is let go because it lags.
    pub(in crate::broker) fn check_hold(&mut self, now: Instant) -> (bool, Vec<Arc<Peer>>) {
        // Its own connection is held by others now: holding on could close a circle.
        let circle = self.peer.as_ref().is_some_and(|own| own.is_held());
        match self.holds.last(now) {
            None => return (false, Vec::new()),
            Some(false) if !circle => return (true, Vec::new()),
            Some(_) => {}
        }
        self.lagging |= !circle;
        if self.lagging && !self.stored {
            // QoS 1 and 2 messages wait here that the client will not fetch: it is told, not starved.
            if let Some(peer) = self.peer.as_ref().filter(|_| self.queue.iter().any(|e| e.qos != QoS::AtMostOnce)) {
                peer.kick(Kick::QuotaExceeded);
            }
        }
        (false, self.holds.release())
    }

    /// Takes back gated entries above `decided` and up to `last`: they could not be stored.
    pub(super) fn refuse(&mut self, decided: u64, last: u64) {
        let refused = |entry: &Entry| entry.gated && entry.qseq > decided && entry.qseq <= last;
        self.queue.retain(|entry| !refused(entry));
        self.bytes = self.queue.iter().map(|entry| entry.message.size()).sum();
    }

    /// The part of the queue that is to be read back.
    pub(super) fn wanted(&self, committed: u64) -> Option<Wanted> {
        self.backlog.wanted(committed).filter(|_| self.peer.is_some())
    }

    /// A page arrived, or could not be read and is asked for again.
    pub(super) fn page(&mut self, wanted: Wanted, page: Option<Page>) {
        if self.backlog.page(wanted, page) {
            self.wake();
        }
    }

    /// See [`super::Session::take`]; `decided`: gated entries up to there may leave.
    pub(super) fn take(
        &mut self,
        budget: usize,
        handshakes: &mut Handshakes,
        receive_maximum: u16,
        decided: u64,
        out: &mut Vec<Parcel>,
    ) -> Taken {
        let mut taken = Taken::default();
        let (spent, settled) = self.backlog.take(budget, handshakes, receive_maximum, out);
        taken.settled = settled;
        if self.backlog.is_done() {
            self.take_queued(budget.saturating_sub(spent), handshakes, receive_maximum, decided, out);
        }
        taken.page = self.peer.is_some() && self.backlog.asks(decided);
        self.drained(&mut taken);
        taken
    }

    fn take_queued(
        &mut self,
        budget: usize,
        handshakes: &mut Handshakes,
        receive_maximum: u16,
        decided: u64,
        out: &mut Vec<Parcel>,
    ) {
        let (mut window, mut horizon) = (handshakes.window(receive_maximum), handshakes.horizon());
        let mut spent = 0;
        while let Some(front) = self.queue.front() {
            let acknowledged = front.qos != QoS::AtMostOnce;
            let waits = acknowledged && (window == 0 || front.qseq > horizon);
            if spent >= budget || waits || (front.gated && front.qseq > decided) {
                break;
            }
            let Some(entry) = self.queue.pop_front() else { break };
            if acknowledged {
                window -= 1;
                // Positions have gaps where messages were dropped: none may be taken whose id would meet that of one before it.
                horizon = horizon.min(horizon_of(entry.qseq));
                handshakes.open(&entry);
            }
            spent += entry.message.size();
            out.push(Parcel::Publish { entry, again: false });
        }
        self.bytes = self.bytes.saturating_sub(spent);
    }

    pub(super) fn take_inside(&mut self, budget: usize, decided: u64, out: &mut Vec<Entry>) -> Taken {
        let mut spent = 0;
        while let Some(front) = self.queue.front() {
            if spent >= budget || (front.gated && front.qseq > decided) {
                break;
            }
            let Some(entry) = self.queue.pop_front() else { break };
            spent += entry.message.size();
            out.push(entry);
        }
        self.bytes = self.bytes.saturating_sub(spent);
        let mut taken = Taken::default();
        self.drained(&mut taken);
        taken
    }

    /// See [`super::Session::next_owed`].
    pub(super) fn next_owed(&mut self, handshakes: &Handshakes, decided: u64) -> Owed {
        if let Some(owed) = self.backlog.next_owed(handshakes, decided) {
            return owed;
        }
        match self.queue.front() {
            None => return Owed::Nothing,
            Some(front) if front.gated && front.qseq > decided => return Owed::Later,
            Some(_) => {}
        }
        let Some(entry) = self.queue.pop_front() else { return Owed::Nothing };
        self.bytes = self.bytes.saturating_sub(entry.message.size());
        Owed::Entry { entry, sent: false }
    }

    /// What of a queue without a client the store has.
    pub(super) fn backlog(&mut self) -> &mut Backlog {
        &mut self.backlog
    }

    /// Whether nothing waits here or in the store.
    pub(super) fn owes_nothing(&self) -> bool {
        self.backlog.is_done() && self.queue.is_empty()
    }

    /// The session has ended, and the store has what it was given for groups.
    pub(super) fn leave_to_store(&mut self) {
        self.stored = true;
    }

    /// What only memory holds of messages for shared groups, QoS >= 1.
    pub(super) fn shared_entries(&self) -> Vec<Entry> {
        let shared = |entry: &&Entry| entry.pool.is_some() && entry.place.is_none() && entry.qos != QoS::AtMostOnce;
        self.queue.iter().filter(shared).cloned().collect()
    }

    /// What was taken since `floor` is to be taken again: it was not committed.
    pub(super) fn rewind(&mut self, floor: u64) {
        self.queue = VecDeque::new();
        self.bytes = 0;
        self.backlog.forget();
        self.backlog.begin(floor);
        self.backlog.take_back();
    }

    fn drained(&mut self, taken: &mut Taken) {
        if self.bytes >= self.marks.low {
            return;
        }
        self.lagging = false;
        if self.queue.is_empty() && self.queue.capacity() > KEPT {
            self.queue = VecDeque::new();
        }
        taken.released = self.holds.release();
        taken.nudge = std::mem::take(&mut self.bulk_waits);
    }
}
