//! Queues without a client: those of shared groups of which nobody is there, and those of ended sessions that owe a group something.
//!
//! A group with a stored member has a queue of its own, stored like a session's; messages wait there while no member is connected. When a
//! stored session ends, its queue becomes an estate: what it was sent for a group goes to another member (what only memory had: see
//! [`super::debts`]). What a clean session is given while the group has a queue is stored, too, as long as it is not acknowledged (QoS 1; of
//! QoS 2 nobody could tell after a crash whether it was sent): it becomes an estate when the session ends, or the process. Handing over is one group of the store: the new row and the end of the old one are committed together or not at all.
//! Invariants: a QoS 2 message whose PUBLISH was sent is never handed over; while a group's queue holds something, nothing overtakes it.

use std::{
    collections::HashMap,
    sync::Arc,
    task::{Wake, Waker},
};

use tokio::sync::Notify;

use super::{
    Effects, SessionKey, State,
    index::{Asked, GroupKey, group_key},
    seats::Seat,
};
use crate::{
    broker::{
        message::{Door, Origin},
        metrics::Lost,
        peer::Peer,
        promise::Step,
        session::{Entry, Marks, Owed, Session},
        store::{Change, Owner, Sid},
    },
    names::{ClientId, QoS, TopicFilter},
};

/// Handed over per round, of all queues.
const PORTION: usize = 1_024;

/// Wakes the dispatcher when a queue without a client has something again.
struct Attention(Arc<Notify>);

impl Wake for Attention {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Pools {
    sids: HashMap<GroupKey, Sid>,
    groups: HashMap<Sid, GroupKey>,
    /// Queues of groups with stored members.
    queues: HashMap<GroupKey, SessionKey>,
    /// Queues that may have something to hand over.
    draining: Vec<SessionKey>,
    waker: Waker,
}

impl Pools {
    pub(super) fn new(attention: Arc<Notify>) -> Self {
        Self {
            sids: HashMap::new(),
            groups: HashMap::new(),
            queues: HashMap::new(),
            draining: Vec::new(),
            waker: Waker::from(Arc::new(Attention(attention))),
        }
    }

    /// The number that marks what was sent for a group.
    pub(super) fn sid(&self, group: &GroupKey) -> Option<Sid> {
        self.sids.get(group).copied()
    }

    /// The group of a number.
    pub(super) fn group(&self, sid: Sid) -> Option<&GroupKey> {
        self.groups.get(&sid)
    }

    /// Whether a group of this number has a queue in the store: what it is owed survives this process.
    pub(super) fn is_durable(&self, sid: Sid) -> bool {
        self.groups.get(&sid).is_some_and(|group| self.queues.contains_key(group))
    }

    fn name(&mut self, group: &GroupKey, sid: Sid) {
        self.sids.insert(Arc::clone(group), sid);
        self.groups.insert(sid, Arc::clone(group));
    }
}

/// Nobody in particular.
fn nobody() -> Arc<Peer> {
    Peer::new(Origin { door: Door::Internal, client: None, user: None, may_start: false }, None)
}

impl State {
    /// A session joined a group: the first stored member brings the group's queue.
    pub(super) fn join_group(&mut self, key: SessionKey, filter: &TopicFilter, effects: &mut Effects) {
        let Some(group) = group_key(filter) else { return };
        if self.pools.sid(&group).is_none() {
            let sid = self.new_sid();
            self.pools.name(&group, sid);
        }
        let Some(seat) = self.seats.get_mut(key) else { return };
        seat.shared = true;
        let stored = seat.session.sid.is_some();
        if let Some(sid) = self.pools.sid(&group).filter(|_| stored && !self.pools.queues.contains_key(&group)) {
            // The name is for logs; nothing looks a queue up by it.
            let Ok(name) = ClientId::new(filter.as_str()) else { return };
            let session = Session::new(name, self.marks(), Some(sid));
            let seat = Seat::of_group(session, filter);
            effects.keep(&seat);
            self.seat_pool(group, seat);
        }
    }

    /// Takes up a group's queue, or an estate, of an earlier process.
    pub(super) fn recover_pool(&mut self, seat: Seat, effects: &mut Effects) {
        match &seat.owner {
            Owner::Group(filter) => match group_key(filter).filter(|group| self.index.has_group(group)) {
                Some(group) => {
                    if let Some(sid) = seat.sid {
                        self.pools.name(&group, sid);
                    }
                    self.seat_pool(group, seat);
                }
                None => effects.end(&seat),
            },
            _ => self.seat_estate(seat),
        }
    }

    fn seat_pool(&mut self, group: GroupKey, seat: Seat) {
        let key = self.seat_alone(seat);
        self.pools.queues.insert(group, key);
        self.drain_later(key);
    }

    fn seat_estate(&mut self, seat: Seat) {
        let key = self.seat_alone(seat);
        self.drain_later(key);
    }

    /// Something may be there to be handed over.
    pub(super) fn drain_later(&mut self, key: SessionKey) {
        if let Some(seat) = self.seats.get_mut(key).filter(|seat| !seat.draining) {
            seat.draining = true;
            self.pools.draining.push(key);
        }
    }

    fn seat_alone(&mut self, mut seat: Seat) -> SessionKey {
        let peer = nobody();
        seat.session.attach(&peer);
        seat.peer = Some(peer);
        self.seats.insert_alone(seat)
    }

    pub(super) fn marks(&self) -> Marks {
        Marks::of(self.limits.queue_bytes, self.limits.queue_messages)
    }

    /// A session left a group: with the last member its queue goes.
    pub(super) fn leave_group(&mut self, filter: &TopicFilter, effects: &mut Effects) {
        let Some(group) = group_key(filter).filter(|group| !self.index.has_group(group)) else { return };
        if let Some(sid) = self.pools.sids.remove(&group) {
            self.pools.groups.remove(&sid);
        }
        if let Some(key) = self.pools.queues.remove(&group) {
            self.pools.draining.retain(|draining| *draining != key);
            effects.touched.retain(|touched| *touched != key);
            if let Some(seat) = self.seats.remove(key) {
                effects.end(&seat);
            }
        }
    }

    /// The member that gets a live message: one that is there, if possible one that is not held up.
    pub(super) fn live_member(&mut self, group: &GroupKey, qos: QoS) -> Option<(SessionKey, Asked)> {
        if qos != QoS::AtMostOnce && self.is_draining(group) {
            return None;
        }
        let seats = &self.seats;
        let peer = |member: SessionKey| seats.get(member).and_then(|seat| seat.peer.as_ref());
        let there = |member| peer(member).filter(|peer| !peer.is_gone());
        let free = self.index.pick(group, |member| there(member).is_some_and(|peer| !peer.is_held()));
        free.or_else(|| self.index.pick(group, |member| there(member).is_some()))
    }

    /// Whether something waits in the group's queue.
    fn is_draining(&self, group: &GroupKey) -> bool {
        let queue = self.pools.queues.get(group).and_then(|queue| self.seats.get(*queue));
        queue.is_some_and(|queue| queue.draining)
    }

    /// The queue of a group, if a stored member is owed messages of this QoS, or if there are such before it.
    pub(super) fn queue_of(&mut self, group: &GroupKey, qos: QoS) -> Option<SessionKey> {
        if qos == QoS::AtMostOnce {
            return None;
        }
        let owed = |(member, asked): &(SessionKey, Asked)| {
            asked.options.qos != QoS::AtMostOnce
                && self.seats.get(*member).is_some_and(|seat| seat.session.sid.is_some())
        };
        let key = self.pools.queues.get(group).copied();
        let key = key.filter(|_| self.is_draining(group) || self.index.members(group).iter().any(owed))?;
        self.drain_later(key);
        Some(key)
    }

    /// Whether a member is there, with room or without.
    pub(super) fn has_live_member(&self, group: &GroupKey) -> bool {
        let mut members = self.index.members(group).iter();
        members.any(|(member, _)| {
            let peer = self.seats.get(*member).and_then(|seat| seat.peer.as_ref());
            peer.is_some_and(|peer| !peer.is_gone())
        })
    }

    /// A member that is there and has room.
    pub(super) fn taker(&mut self, group: &GroupKey) -> Option<(SessionKey, Asked)> {
        let seats = &self.seats;
        self.index.pick(group, |member| {
            seats.get(member).is_some_and(|seat| {
                seat.peer.as_ref().is_some_and(|peer| !peer.is_held() && !peer.is_gone())
                    && seat.session.outbox.lock().room_for_bulk(seat.staged_bytes()) > 0
            })
        })
    }

    /// Whether queues without a client wait to be emptied.
    pub(in crate::broker) fn has_pools(&self) -> bool {
        !self.pools.draining.is_empty() || !self.debts.is_empty()
    }

    /// Hands over what can be; whether there is more that could be.
    pub(in crate::broker) fn advance_pools(&mut self, effects: &mut Effects) -> bool {
        let mut more = self.settle_debts(effects);
        let (mut budget, mut again) = (PORTION, Vec::new());
        let mut keys = std::mem::take(&mut self.pools.draining).into_iter();
        for key in keys.by_ref() {
            if let Some(seat) = self.seats.get_mut(key) {
                seat.draining = false;
            }
            match self.drain(key, &mut budget, effects) {
                Drained::Empty => self.emptied(key, effects),
                Drained::Waits => again.push(key),
                Drained::More => {
                    more = true;
                    again.push(key);
                    break;
                }
            }
        }
        // Those whose turn did not come are first in the next round.
        self.pools.draining.splice(0..0, keys);
        again.into_iter().for_each(|key| self.drain_later(key));
        more
    }

    fn drain(&mut self, key: SessionKey, budget: &mut usize, effects: &mut Effects) -> Drained {
        let Some((session, peer)) =
            self.seats.get(key).and_then(|seat| Some((Arc::clone(&seat.session), seat.peer.clone()?)))
        else {
            return Drained::Empty;
        };
        // First the waker, then the looking: what comes afterwards wakes again.
        peer.register(&self.pools.waker);
        let group = self.seats.get(key).and_then(|seat| seat.owner.group()).and_then(group_key);
        let mut last = 0;
        let end = loop {
            if *budget == 0 {
                break Drained::More;
            }
            let taker = group.as_ref().map(|group| self.taker(group));
            if taker == Some(None) && !session.owes_nothing() {
                break Drained::Waits;
            }
            match session.next_owed() {
                Owed::Entry { entry, sent } => {
                    if !self.hand_over(&entry, sent, taker.flatten(), effects) {
                        session.put_back(entry);
                        break Drained::Waits;
                    }
                    last = entry.qseq;
                    *budget -= 1;
                }
                Owed::Page => effects.pages.push(Arc::clone(&session)),
                Owed::Later => break Drained::Waits,
                Owed::Nothing => break Drained::Empty,
            }
        };
        match session.kept().filter(|_| last > 0) {
            Some(sid) => {
                effects.change(Change::Advance(sid, last + 1));
                session.hands_over();
                effects.say(Step::HandedOver(session, last), true);
                // How it goes on is known when this is decided.
                if end == Drained::Empty { Drained::Waits } else { end }
            }
            None => end,
        }
    }

    /// Gives one message to a member of its group that has room, or to the group's queue, or lets go of it where nobody is owed it any more.
    /// `false`: it waits, because somebody is there who will have room.
    pub(super) fn hand_over(
        &mut self,
        owed: &Entry,
        sent: bool,
        taker: Option<(SessionKey, Asked)>,
        effects: &mut Effects,
    ) -> bool {
        if sent && owed.qos == QoS::ExactlyOnce {
            // Its receiver may have it already.
            return true;
        }
        let group = owed.pool.and_then(|sid| self.pools.group(sid)).cloned();
        let Some(group) = group else {
            self.metrics.dropped(Lost::GroupLeft, 1);
            return true;
        };
        let taker = taker.or_else(|| self.taker(&group));
        if taker.is_none() && self.has_live_member(&group) {
            return false;
        }
        self.stage_for_group(&group, owed, taker, effects);
        true
    }

    /// Stages a message of an ended or absent member anew.
    fn stage_for_group(
        &mut self,
        group: &GroupKey,
        owed: &Entry,
        taker: Option<(SessionKey, Asked)>,
        effects: &mut Effects,
    ) {
        let queue = taker.map(|(member, _)| member).or_else(|| self.queue_of(group, owed.message.qos));
        let Some(receiver) = queue else {
            self.metrics.dropped(Lost::GroupLeft, 1);
            return;
        };
        let mut entry = entry_for_group(&owed.message, taker.map(|(_, asked)| asked), self.pools.sid(group));
        entry.gated = true;
        self.stage(receiver, entry, None, effects);
    }

    /// A queue has nothing left: an estate is settled with that.
    fn emptied(&mut self, key: SessionKey, effects: &mut Effects) {
        let settled = self.seats.get(key).is_some_and(|seat| seat.owner == Owner::Estate);
        if let Some(seat) = settled.then(|| self.seats.remove(key)).flatten() {
            effects.end(&seat);
        }
    }

    /// What an ended session still owes its groups: at once if memory has it, as an estate if the store has.
    pub(super) fn bequeath(&mut self, mut seat: Seat, effects: &mut Effects) {
        let shared = seat.shared && !self.pools.sids.is_empty();
        let of_groups = std::mem::take(&mut seat.stage).into_iter().filter(|entry| entry.pool.is_some());
        let (stored, fresh): (Vec<_>, Vec<_>) = of_groups.partition(|entry| entry.place.is_some());
        let unsent = seat.session.close_down();
        effects.released.extend(seat.session.detach());
        if shared && (seat.session.owes_stored() || !stored.is_empty()) {
            // What this round brought becomes rows all the same: its publishers are told so.
            seat.stage = stored;
            effects.promise_entries(&seat);
            seat.stage.iter().for_each(|entry| seat.session.given(entry.qseq));
            seat.stage = Vec::new();
            seat.session.leave_to_store();
            seat.owner = Owner::Estate;
            (seat.peer, seat.will, seat.ends_at, seat.will_due) = (None, None, None, None);
            effects.keep(&seat);
            self.seat_estate(seat);
        } else {
            effects.end(&seat);
        }
        self.inherit(unsent.into_iter().chain(fresh).filter(|owed| owed.qos != QoS::AtMostOnce));
    }

    /// Time passed: queues whose hand-over failed are looked at again.
    pub(super) fn revisit_pools(&mut self) {
        let alone = self.seats.iter().filter(|(_, seat)| !seat.owner.is_served());
        let waiting = alone.filter(|(_, seat)| seat.session.retry() || !seat.session.owes_nothing());
        let keys: Vec<_> = waiting.map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.drain_later(key));
    }
}

/// What a message is to a member of a group, or (without one) in the group's queue.
pub(super) fn entry_for_group(
    message: &Arc<crate::broker::envelope::Message>,
    asked: Option<Asked>,
    pool: Option<Sid>,
) -> Entry {
    let retain = message.retain && asked.is_none_or(|asked| asked.options.retain_as_published);
    let qos = asked.map_or(message.qos, |asked| message.qos.min(asked.options.qos));
    let ids = asked.and_then(|asked| asked.id).map(|id| Arc::from([id]));
    Entry { message: Arc::clone(message), qseq: 0, qos, retain, ids, gated: false, place: None, pool }
}

#[derive(Debug, PartialEq, Eq)]
enum Drained {
    Empty,
    Waits,
    More,
}
