//! Packet ids under way: what was sent to the client and is not acknowledged, and the QoS 2 ids the client has open.
//!
//! Outgoing ids are 1 + position mod 65,535, so the unacknowledged span stays below 65,535. Incoming QoS 2 ids are remembered from before
//! the message is submitted until PUBREL, across connections of the session: that is what makes QoS 2 exactly once. Every call names the
//! caller's epoch (its peer id); one that was taken over gets [`Stale`] and stops.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::Entry;
use crate::{broker::peer::Peer, names::QoS};

/// The largest packet id; also the span of positions that may be unacknowledged.
const IDS: u64 = 65_535;

/// The caller's connection was taken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) struct Stale;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// PUBLISH sent, PUBACK or PUBREC awaited.
    Sent,
    /// PUBREL sent, PUBCOMP awaited.
    Released,
}

#[derive(Debug)]
struct Open {
    qseq: u64,
    phase: Phase,
    /// `None` once acknowledged: the place is kept for the order, the message is not.
    entry: Option<Entry>,
}

impl Open {
    fn qos(&self) -> Option<QoS> {
        self.entry.as_ref().map(|entry| entry.qos)
    }
}

/// Where an incoming QoS 2 message stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) enum Incoming {
    /// First seen: route it.
    New,
    /// On its way through the stream: say nothing, the PUBREC follows.
    Routing,
    /// Routed: PUBREC again.
    Received,
}

/// What is sent again after a reconnect.
#[derive(Debug)]
pub(in crate::broker) enum Resend {
    /// The PUBLISH, with DUP.
    Publish(u16, Entry),
    /// The PUBREL.
    PubRel(u16),
}

/// See the module.
#[derive(Debug, Default)]
pub(in crate::broker) struct Handshakes {
    epoch: u64,
    peer: Option<Arc<Peer>>,
    outgoing: VecDeque<Open>,
    unacknowledged: usize,
    /// id -> routed
    incoming: HashMap<u16, bool>,
}

impl Handshakes {
    /// A new connection serves the session.
    pub(in crate::broker) fn attach(&mut self, peer: &Arc<Peer>) {
        self.epoch = peer.id;
        self.peer = Some(Arc::clone(peer));
    }

    /// The connection is gone.
    pub(in crate::broker) fn detach(&mut self) {
        self.peer = None;
    }

    pub(super) fn check(&self, epoch: u64) -> Result<(), Stale> {
        if self.epoch == epoch { Ok(()) } else { Err(Stale) }
    }

    /// Messages sent and not acknowledged to the end.
    pub(in crate::broker) fn in_flight(&self) -> usize {
        self.unacknowledged
    }

    /// How many more QoS >= 1 messages may be sent, given the client's Receive Maximum.
    pub(super) fn window(&self, receive_maximum: u16) -> usize {
        usize::from(receive_maximum).saturating_sub(self.unacknowledged)
    }

    /// Registers an entry of QoS >= 1 that is about to be sent.
    pub(super) fn open(&mut self, entry: &Entry) {
        if entry.qos != QoS::AtMostOnce {
            self.outgoing.push_back(Open { qseq: entry.qseq, phase: Phase::Sent, entry: Some(entry.clone()) });
            self.unacknowledged += 1;
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
        let wanted = oldest + distance;
        let place = self.outgoing.binary_search_by_key(&wanted, |open| open.qseq).ok()?;
        let open = self.outgoing.get_mut(place).filter(|open| open.entry.is_some())?;
        Some((place, open))
    }

    fn acknowledge(&mut self, place: usize) {
        if let Some(open) = self.outgoing.get_mut(place) {
            open.entry = None;
            self.unacknowledged -= 1;
        }
        while self.outgoing.front().is_some_and(|open| open.entry.is_none()) {
            self.outgoing.pop_front();
        }
    }

    /// PUBACK. Whether the id was open.
    pub(in crate::broker) fn puback(&mut self, epoch: u64, id: u16) -> Result<bool, Stale> {
        self.check(epoch)?;
        let known = self.find(id).filter(|(_, open)| open.qos() == Some(QoS::AtLeastOnce)).map(|(place, _)| place);
        if let Some(place) = known {
            self.acknowledge(place);
        }
        Ok(known.is_some())
    }

    /// PUBREC: whether a PUBREL is to be sent (an unknown id is answered PUBREL 0x92). A refusal (code >= 0x80) ends the handshake.
    pub(in crate::broker) fn pubrec(&mut self, epoch: u64, id: u16, reason: u8) -> Result<bool, Stale> {
        self.check(epoch)?;
        let Some((place, open)) = self.find(id).filter(|(_, open)| open.qos() == Some(QoS::ExactlyOnce)) else {
            return Ok(false);
        };
        open.phase = Phase::Released;
        if reason >= 0x80 {
            self.acknowledge(place);
        }
        Ok(true)
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

    /// Everything unacknowledged, oldest first, for the connection that resumes the session.
    pub(in crate::broker) fn resend(&self) -> Vec<Resend> {
        let open = self.outgoing.iter().filter_map(|open| open.entry.as_ref().map(|entry| (open, entry)));
        open.map(|(open, entry)| match open.phase {
            Phase::Sent => Resend::Publish(packet_id(open.qseq), entry.clone()),
            Phase::Released => Resend::PubRel(packet_id(open.qseq)),
        })
        .collect()
    }

    /// Whether something that waits to be sent again may go now, with `waiting` others: `None`, not yet, because the client's Receive
    /// Maximum is reached (`[MQTT-3.3.4-9]`); `Some(false)`, it was acknowledged meanwhile.
    pub(in crate::broker) fn may_resend(
        &mut self,
        epoch: u64,
        next: &Resend,
        waiting: usize,
        receive_maximum: u16,
    ) -> Result<Option<bool>, Stale> {
        self.check(epoch)?;
        let under_way = self.unacknowledged.saturating_sub(waiting);
        Ok(match next {
            Resend::Publish(..) if under_way >= usize::from(receive_maximum) => None,
            Resend::Publish(id, _) => Some(self.find(*id).is_some_and(|(_, open)| open.phase == Phase::Sent)),
            Resend::PubRel(id) => Some(self.find(*id).is_some()),
        })
    }

    /// An incoming QoS 2 PUBLISH.
    pub(in crate::broker) fn receive(&mut self, epoch: u64, id: u16) -> Result<Incoming, Stale> {
        self.check(epoch)?;
        Ok(match self.incoming.get(&id) {
            Some(true) => Incoming::Received,
            Some(false) => Incoming::Routing,
            None => {
                self.incoming.insert(id, false);
                Incoming::New
            }
        })
    }

    /// The message went through the stream: whom to send the PUBREC (the present connection, which may not be the one it came by).
    pub(in crate::broker) fn routed(&mut self, id: u16, taken: bool) -> Option<Arc<Peer>> {
        if taken {
            if let Some(state) = self.incoming.get_mut(&id) {
                *state = true;
            }
        } else {
            self.incoming.remove(&id);
        }
        self.peer.clone()
    }

    /// PUBREL: whether the id was open.
    pub(in crate::broker) fn pubrel(&mut self, epoch: u64, id: u16) -> Result<bool, Stale> {
        self.check(epoch)?;
        Ok(self.incoming.remove(&id).is_some())
    }
}

/// The last position whose id differs from those of all since `oldest`.
pub(super) fn horizon_of(oldest: u64) -> u64 {
    oldest + IDS - 1
}

/// The packet id of a queue position.
pub(in crate::broker) fn packet_id(qseq: u64) -> u16 {
    u16::try_from(qseq % IDS).unwrap_or(0) + 1
}
