//! Packet ids under way: what was sent to the client and is not acknowledged, and the QoS 2 ids the client has open.
//!
//! Outgoing ids are 1 + position mod 65,535, so the unacknowledged span stays below 65,535. Incoming QoS 2 ids are remembered from before
//! the message is submitted until PUBREL, across connections of the session: that is what makes QoS 2 exactly once. In a stored session
//! PUBREL and PUBCOMP are sent only after what they promise is committed ([`Progress`]). Every call of a connection names its epoch (its
//! peer id); one that was taken over gets [`Stale`] and stops.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::Entry;
use crate::{
    broker::{
        codec::write::AckKind,
        peer::{Peer, Reply},
        store::Progress,
    },
    names::QoS,
};

/// The largest packet id; also the span of positions that may be unacknowledged.
const IDS: u64 = 65_535;

/// The caller's connection was taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) struct Stale;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// PUBLISH sent, PUBACK or PUBREC awaited.
    Sent,
    /// PUBREC seen and not committed yet: the PUBREL follows.
    Seen,
    /// PUBREL sent, PUBCOMP awaited.
    Released,
    /// Acknowledged to the end; the place is kept for the order.
    Done,
}

#[derive(Debug)]
struct Open {
    qseq: u64,
    qos: QoS,
    phase: Phase,
    /// Sent by the present connection.
    here: bool,
    /// The message, where memory alone has it and another member of a shared group may have to get it.
    heirloom: Option<Entry>,
}

/// Where an incoming QoS 2 message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) enum Incoming {
    /// First seen: route it.
    New,
    /// On its way through the stream, or its end is being written: say nothing, the answer follows.
    Routing,
    /// Routed: PUBREC again.
    Received,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inbound {
    Routing,
    Received,
    /// PUBREL seen, its commit awaited.
    Completing,
}

/// What a PUBREC or PUBREL is answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) enum Released {
    /// PUBREL or PUBCOMP now.
    Now,
    /// It follows when it is committed.
    Later,
    /// Nothing: a PUBREC with an error ended the handshake.
    Ended,
    /// The id is not known.
    Unknown,
}

/// What a message read back from the store is to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// Never sent.
    Fresh,
    /// Sent before, perhaps: DUP.
    Again,
    /// PUBREL again.
    Release,
    /// Nothing to do, or what there is to do follows without it.
    Settled,
}

/// See the module.
#[derive(Debug)]
pub(in crate::broker) struct Handshakes {
    stored: bool,
    epoch: u64,
    peer: Option<Arc<Peer>>,
    /// Ascending.
    outgoing: VecDeque<Open>,
    /// Messages sent by the present connection and not acknowledged.
    under_way: usize,
    /// Everything up to here has left the outbox since the client came.
    taken: u64,
    /// The highest position ever sent.
    sent: u64,
    incoming: HashMap<u16, Inbound>,
    /// The client waits for the next progress to be written.
    waited_for: bool,
}

impl Handshakes {
    pub(super) fn new(stored: bool) -> Self {
        Self {
            stored,
            epoch: 0,
            peer: None,
            outgoing: VecDeque::new(),
            under_way: 0,
            taken: 0,
            sent: 0,
            incoming: HashMap::new(),
            waited_for: false,
        }
    }

    pub(super) fn sent(&self) -> u64 {
        self.sent
    }

    pub(super) fn is_waited_for(&self) -> bool {
        self.waited_for
    }

    /// What an earlier process knew.
    pub(super) fn recover(&mut self, progress: &Progress, incoming: &[u16]) {
        self.taken = progress.floor.saturating_sub(1);
        self.sent = progress.sent;
        let done = progress.above.iter().map(|qseq| (*qseq, Phase::Done));
        let released = progress.released.iter().map(|qseq| (*qseq, Phase::Released));
        let mut open: Vec<_> = done.chain(released).collect();
        open.sort_unstable_by_key(|(qseq, _)| *qseq);
        let open = open.into_iter().map(|(qseq, phase)| Open {
            qseq,
            qos: QoS::ExactlyOnce,
            phase,
            here: false,
            heirloom: None,
        });
        self.outgoing = open.collect();
        self.incoming = incoming.iter().map(|id| (*id, Inbound::Received)).collect();
    }

    /// A new connection serves the session; returns the position from which on the client is owed.
    pub(super) fn attach(&mut self, peer: &Arc<Peer>) -> u64 {
        self.epoch = peer.id;
        self.peer = Some(Arc::clone(peer));
        self.under_way = 0;
        let floor = self.floor();
        self.taken = floor.saturating_sub(1);
        for open in &mut self.outgoing {
            open.here = false;
        }
        floor
    }

    /// The connection is gone.
    pub(super) fn detach(&mut self) {
        self.peer = None;
    }

    pub(super) fn check(&self, epoch: u64) -> Result<(), Stale> {
        if self.epoch == epoch { Ok(()) } else { Err(Stale) }
    }

    /// Messages sent by the present connection and not acknowledged.
    pub(in crate::broker) fn in_flight(&self) -> usize {
        if self.peer.is_some() { self.under_way } else { 0 }
    }

    /// How many more QoS >= 1 messages may be sent, given the client's Receive Maximum.
    pub(super) fn window(&self, receive_maximum: u16) -> usize {
        usize::from(receive_maximum).saturating_sub(self.under_way)
    }

    /// Everything below is done with.
    pub(super) fn floor(&self) -> u64 {
        let oldest = self.outgoing.front().map(|open| open.qseq).filter(|qseq| *qseq <= self.taken);
        oldest.unwrap_or(self.taken + 1)
    }

    /// A position left the outbox without being sent.
    pub(super) fn pass(&mut self, qseq: u64) {
        self.taken = self.taken.max(qseq);
        self.prune();
    }

    /// The session has ended, and the store has what it was given for groups.
    pub(super) fn leave_to_store(&mut self) {
        self.stored = true;
    }

    /// Positions up to here are others' now.
    pub(super) fn handed_over(&mut self, qseq: u64) {
        self.outgoing.retain(|open| open.qseq > qseq);
        self.pass(qseq);
    }

    /// Registers a message of QoS >= 1 that is about to be sent.
    pub(super) fn open(&mut self, entry: &Entry) {
        let (qseq, qos) = (entry.qseq, entry.qos);
        let inherited = entry.pool.is_some() && entry.place.is_none() && qos == QoS::AtLeastOnce;
        let heirloom = inherited.then(|| entry.clone());
        let open = Open { qseq, qos, phase: Phase::Sent, here: true, heirloom };
        match self.place(qseq) {
            Ok(place) => {
                if let Some(known) = self.outgoing.get_mut(place) {
                    *known = open;
                }
            }
            Err(place) if place == self.outgoing.len() => self.outgoing.push_back(open),
            Err(place) => self.outgoing.insert(place, open),
        }
        self.taken = self.taken.max(qseq);
        self.sent = self.sent.max(qseq);
        self.under_way += 1;
    }

    /// A PUBREL is about to be sent again.
    pub(super) fn release_again(&mut self, qseq: u64) {
        self.taken = self.taken.max(qseq);
        if let Some(open) = self.place(qseq).ok().and_then(|place| self.outgoing.get_mut(place)) {
            self.under_way += usize::from(!open.here);
            open.here = true;
        }
    }

    fn place(&self, qseq: u64) -> Result<usize, usize> {
        self.outgoing.binary_search_by_key(&qseq, |open| open.qseq)
    }

    /// What a message read back is to the client.
    pub(super) fn standing(&self, qseq: u64) -> Standing {
        let known = self.place(qseq).ok().and_then(|place| self.outgoing.get(place));
        match known.map(|open| open.phase) {
            None if qseq > self.sent => Standing::Fresh,
            None | Some(Phase::Sent) => Standing::Again,
            Some(Phase::Released) => Standing::Release,
            Some(Phase::Seen | Phase::Done) => Standing::Settled,
        }
    }

    /// The last position that can be opened now: beyond it, ids would meet those of the oldest unacknowledged one.
    pub(super) fn horizon(&self) -> u64 {
        self.outgoing.front().map_or(u64::MAX, |oldest| horizon_of(oldest.qseq))
    }

    /// Finds an id among the open ones: usually the oldest, so the front is looked at first.
    fn find(&mut self, id: u16) -> Option<(usize, &mut Open)> {
        let oldest = self.outgoing.front()?.qseq;
        let distance = (u64::from(id) + IDS - u64::from(packet_id(oldest))) % IDS;
        let place = self.place(oldest + distance).ok()?;
        let open = self.outgoing.get_mut(place).filter(|open| open.phase != Phase::Done)?;
        Some((place, open))
    }

    fn acknowledge(&mut self, place: usize) {
        if let Some(open) = self.outgoing.get_mut(place) {
            open.phase = Phase::Done;
            open.heirloom = None;
            self.under_way = self.under_way.saturating_sub(usize::from(open.here));
        }
        self.prune();
    }

    fn prune(&mut self) {
        while self.outgoing.front().is_some_and(|open| open.phase == Phase::Done && open.qseq <= self.taken) {
            self.outgoing.pop_front();
        }
    }

    /// PUBACK. Whether the id was open.
    pub(in crate::broker) fn puback(&mut self, epoch: u64, id: u16) -> Result<bool, Stale> {
        self.check(epoch)?;
        let known = self.find(id).filter(|(_, open)| open.qos == QoS::AtLeastOnce).map(|(place, _)| place);
        if let Some(place) = known {
            self.acknowledge(place);
        }
        Ok(known.is_some())
    }

    /// PUBREC; an unknown id is answered PUBREL 0x92. A refusal (code >= 0x80) ends the handshake.
    pub(in crate::broker) fn pubrec(&mut self, epoch: u64, id: u16, reason: u8) -> Result<Released, Stale> {
        self.check(epoch)?;
        let stored = self.stored;
        let Some((place, open)) = self.find(id).filter(|(_, open)| open.qos == QoS::ExactlyOnce) else {
            return Ok(Released::Unknown);
        };
        if reason >= 0x80 {
            self.acknowledge(place);
            return Ok(Released::Ended);
        }
        match open.phase {
            Phase::Released => Ok(Released::Now),
            Phase::Seen => Ok(Released::Later),
            _ if stored => {
                open.phase = Phase::Seen;
                self.waited_for = true;
                Ok(Released::Later)
            }
            _ => {
                open.phase = Phase::Released;
                Ok(Released::Now)
            }
        }
    }

    /// PUBCOMP. Whether the id was open.
    pub(in crate::broker) fn pubcomp(&mut self, epoch: u64, id: u16) -> Result<bool, Stale> {
        self.check(epoch)?;
        let known = self.find(id).filter(|(_, open)| open.phase == Phase::Released).map(|(place, _)| place);
        if let Some(place) = known {
            self.acknowledge(place);
        }
        Ok(known.is_some())
    }

    /// An id that was opened and will not be sent after all.
    pub(in crate::broker) fn forget(&mut self, epoch: u64, id: u16) -> Result<(), Stale> {
        self.check(epoch)?;
        if let Some(place) = self.find(id).map(|(place, _)| place) {
            self.acknowledge(place);
        }
        Ok(())
    }

    /// An incoming QoS 2 PUBLISH.
    pub(in crate::broker) fn receive(&mut self, epoch: u64, id: u16) -> Result<Incoming, Stale> {
        self.check(epoch)?;
        Ok(match self.incoming.get(&id) {
            Some(Inbound::Received) => Incoming::Received,
            Some(Inbound::Routing | Inbound::Completing) => Incoming::Routing,
            None => {
                self.incoming.insert(id, Inbound::Routing);
                Incoming::New
            }
        })
    }

    /// The message went through the stream: whom to send the PUBREC (the present connection, which may not be the one it came by).
    pub(in crate::broker) fn routed(&mut self, id: u16, taken: bool) -> Option<Arc<Peer>> {
        if taken {
            if let Some(state) = self.incoming.get_mut(&id) {
                *state = Inbound::Received;
            }
        } else {
            self.incoming.remove(&id);
        }
        self.peer.clone()
    }

    /// PUBREL. One for a message that has not had its PUBREC is not known yet.
    pub(in crate::broker) fn pubrel(&mut self, epoch: u64, id: u16) -> Result<Released, Stale> {
        self.check(epoch)?;
        match self.incoming.get_mut(&id) {
            None | Some(Inbound::Routing) => Ok(Released::Unknown),
            Some(Inbound::Completing) => Ok(Released::Later),
            Some(state) if self.stored => {
                *state = Inbound::Completing;
                self.waited_for = true;
                Ok(Released::Later)
            }
            Some(Inbound::Received) => {
                self.incoming.remove(&id);
                Ok(Released::Now)
            }
        }
    }

    /// Messages for shared groups that were sent and not acknowledged, QoS 1, and that only memory has.
    pub(super) fn close_down(&mut self) -> Vec<Entry> {
        // No peer has this id.
        self.epoch = 0;
        self.outgoing.iter().filter_map(|open| open.heirloom.clone()).collect()
    }

    /// What is to be written of all this.
    pub(super) fn progress(&mut self) -> Progress {
        self.waited_for = false;
        let floor = self.floor();
        let with = |phases: &[Phase]| {
            let open = self.outgoing.iter().filter(|open| open.qseq >= floor && phases.contains(&open.phase));
            open.map(|open| open.qseq).collect()
        };
        let completed = self.incoming.iter().filter(|(_, state)| **state == Inbound::Completing);
        Progress {
            floor,
            sent: self.sent,
            above: with(&[Phase::Done]),
            released: with(&[Phase::Seen, Phase::Released]),
            completed: completed.map(|(id, _)| *id).collect(),
        }
    }

    /// It is written: PUBRELs and PUBCOMPs that waited for it go out.
    pub(super) fn progressed(&mut self, progress: &Progress) {
        let mut replies = Vec::new();
        for qseq in &progress.released {
            let open = self.place(*qseq).ok().and_then(|place| self.outgoing.get_mut(place));
            if let Some(open) = open.filter(|open| open.phase == Phase::Seen) {
                open.phase = Phase::Released;
                replies.push(ack(AckKind::PubRel, packet_id(*qseq)));
            }
        }
        for id in &progress.completed {
            if self.incoming.get(id) == Some(&Inbound::Completing) {
                self.incoming.remove(id);
                replies.push(ack(AckKind::PubComp, *id));
            }
        }
        if let Some(peer) = self.peer.as_ref().filter(|_| !replies.is_empty()) {
            peer.reply(&mut replies);
        }
    }
}

fn ack(kind: AckKind, packet_id: u16) -> Reply {
    Reply::Ack { kind, packet_id, reason: 0 }
}

/// The last position whose id differs from those of all since `oldest`.
pub(super) fn horizon_of(oldest: u64) -> u64 {
    oldest + IDS - 1
}

/// The packet id of a queue position.
pub(in crate::broker) fn packet_id(qseq: u64) -> u16 {
    u16::try_from(qseq % IDS).unwrap_or(0) + 1
}
