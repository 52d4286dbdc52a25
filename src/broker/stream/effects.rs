//! What a round brought: messages staged, words to be said now or after the commit, changes of what is kept.
//!
//! Invariant: to one peer nothing is said before what was promised to it earlier.

use std::sync::Arc;

use super::{index::SessionKey, seats::Seat};
use crate::{
    broker::{
        admission::Window,
        cargo::Ack,
        codec::write::AckKind,
        peer::{Peer, Reply},
        promise::{self, Step},
        session::Session,
        store::{Change, Group, Owner, Row},
    },
    names::QoS,
};

/// What a round brought, to be carried out at its end.
#[derive(Debug, Default)]
pub(in crate::broker) struct Effects {
    /// Sessions with something staged.
    pub(super) touched: Vec<SessionKey>,
    /// Publishers of this round; entries name them by place.
    pub(super) origins: Vec<Arc<Peer>>,
    /// What may be said at once, in order.
    pub(super) steps: Vec<Step>,
    /// Publishers that may go on.
    pub(super) released: Vec<Arc<Peer>>,
    /// What must be committed, and what may be said only then.
    pub(super) group: Group,
    /// Queues without a client of which a part is to be read back.
    pub(super) pages: Vec<Arc<Session>>,
    /// How often something to be stored was staged: an envelope that changes it waits for the commit.
    pub(super) stored: u64,
    /// How often a message was staged for a queue in the store: once for each session that keeps it.
    pub(super) queued: u64,
}

impl Effects {
    /// The first batch gets this number.
    pub(in crate::broker) fn starting_at(batch: u64) -> Self {
        Self { group: Group::new(batch), ..Self::default() }
    }

    /// The place of a publisher in this round's list.
    pub(super) fn place(&mut self, peer: &Arc<Peer>) -> u16 {
        let known = self.origins.last().is_some_and(|last| last.id == peer.id);
        if !known {
            self.origins.push(Arc::clone(peer));
        }
        // A round has at most a few hundred envelopes.
        u16::try_from(self.origins.len() - 1).unwrap_or(u16::MAX)
    }

    /// Tells a publisher that its message is not taken.
    pub(super) fn turn_away(&mut self, ack: Ack, peer: Option<Arc<Peer>>, qos: QoS, packet_id: u16) {
        match (ack, peer) {
            (Ack::Internal { word, .. }, _) => self.say(Step::Refused(word), false),
            (Ack::Client, Some(peer)) => self.acknowledge(peer, qos, packet_id, promise::QUOTA, false),
            _ => {}
        }
    }

    pub(super) fn acknowledge(&mut self, peer: Arc<Peer>, qos: QoS, packet_id: u16, reason: u8, promised: bool) {
        let step = match qos {
            QoS::AtMostOnce => return,
            QoS::AtLeastOnce => Step::Reply(peer, Reply::Ack { kind: AckKind::PubAck, packet_id, reason }),
            QoS::ExactlyOnce => Step::Received { by: peer, packet_id, reason },
        };
        self.say(step, promised);
    }

    /// Says something at the end of the round, or, if it is `promised`, once the group is committed; never before what was promised to the
    /// same peer earlier.
    pub(super) fn say(&mut self, step: Step, promised: bool) {
        if promised || step.peer().is_some_and(|peer| peer.waits_for_promise()) {
            self.group.promise.push(step);
        } else {
            self.steps.push(step);
        }
    }

    /// Keeps a session as it is now.
    pub(super) fn keep(&mut self, seat: &Seat) {
        if let Some(sid) = seat.sid {
            self.change(Change::Session(sid, Box::new(seat.record())));
        }
    }

    /// Room that is given back with the group's commit.
    pub(in crate::broker) fn owe(&mut self, peer: &Arc<Peer>, cost: u32) {
        self.group.promise.owe(peer, cost);
    }

    /// A session and its connection part. One that only memory has ends with that, and still has to say what it owes.
    pub(super) fn part(&mut self, seat: &Seat) {
        if seat.session.sid.is_some() {
            self.released.extend(seat.session.detach());
        }
    }

    /// A session is kept no longer.
    pub(super) fn end(&mut self, seat: &Seat) {
        if let Some(sid) = seat.sid {
            self.change(Change::End(sid, seat.session.client.clone()));
        }
    }

    /// What is to be read back.
    pub(in crate::broker) fn take_pages(&mut self) -> Vec<Arc<Session>> {
        std::mem::take(&mut self.pages)
    }

    /// Stages a change of what is kept.
    pub(super) fn change(&mut self, change: Change) {
        self.stored += 1;
        self.group.changes.push(change);
    }

    /// Whether the envelope at hand has staged something to be stored already: a QoS 2 id of a stored session.
    pub(super) fn has_promised(&self, from: Option<&Arc<Peer>>) -> bool {
        from.and_then(|peer| peer.session()).is_some_and(|session| session.sid.is_some())
    }

    /// What a session was given this round becomes rows of its queue, and waits for their commit.
    pub(super) fn promise_entries(&mut self, seat: &Seat) {
        let gated = seat.stage.iter().filter(|entry| entry.gated);
        let Some(last) = gated.clone().map(|entry| entry.qseq).max() else { return };
        self.group.promise.mark(&seat.session, last);
        let Some(sid) = seat.session.kept() else { return };
        // Only parts of this program ask who published; for everybody else nothing of that is kept.
        let asks_who = seat.owner == Owner::Part;
        let rows: Vec<_> = gated
            .filter_map(|entry| {
                let (ids, pool) = (entry.ids.clone(), entry.pool);
                let origin = if asks_who { entry.message.origin.clone() } else { None };
                let (qseq, place) = (entry.qseq, entry.place?);
                Some(Row { qseq, place, qos: entry.qos, retain: entry.retain, ids, pool, origin })
            })
            .collect();
        if !rows.is_empty() {
            self.group.queues.push((sid, rows));
        }
    }

    /// The round's group, if there is anything to commit or to wait for.
    pub(super) fn take_group(&mut self, window: &Window) -> Option<Group> {
        if self.group.is_empty() {
            return None;
        }
        self.group.promise.room_of(window);
        let next = Group::new(self.group.batch + 1);
        Some(std::mem::replace(&mut self.group, next))
    }

    /// SUBACKs that wait for nothing. They go before the round's messages are in the outboxes: the protocol allows a retained message to come before its SUBACK,
    /// but not every client expects it.
    pub(super) fn send_subacks(&mut self) {
        let is_suback = |step: &Step| matches!(step, Step::Reply(_, Reply::SubAck { .. }));
        if !self.steps.iter().any(is_suback) {
            return;
        }
        let (subacks, others) = self.steps.drain(..).partition(is_suback);
        self.steps = others;
        let subacks: Vec<Step> = subacks;
        let mut batch = promise::Batch::default();
        subacks.into_iter().for_each(|step| step.keep(&mut batch));
        batch.send();
    }

    pub(super) fn send(&mut self) {
        let mut batch = promise::Batch::default();
        for step in self.steps.drain(..) {
            step.keep(&mut batch);
        }
        batch.send();
        for peer in self.released.drain(..) {
            peer.release();
        }
    }
}
