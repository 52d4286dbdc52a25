//! The stream: the one ordered sequence of everything that happens in the broker, as a state machine without sockets.
//!
//! [`State::apply`] takes one envelope at a time and stages its effects; the dispatcher carries them out once per round. It alone owns the
//! subscription index, the retained tree and the session table. Invariants: effects of an envelope depend on the envelopes before it and
//! nothing else (time comes in as an envelope too); an acknowledgement is staged only together with everything it means.

mod debts;
mod effects;
mod grant;
mod guard;
mod index;
mod lifecycle;
mod look;
mod pools;
mod recovery;
mod retained;
mod seats;
mod subscribe;
mod sys;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, sync::Arc, time::Instant};

use self::{
    debts::Debts,
    guard::Guard,
    index::{Index, SessionKey},
    pools::Pools,
    retained::Retained,
    seats::{Seat, Seats},
    subscribe::Bulk,
    sys::Sys,
};
pub(super) use self::{effects::Effects, index::Asked};
use super::{
    access::Access,
    admission::Window,
    cargo::{Ack, Cargo, Flight, Taken},
    codec::Will,
    envelope::{Draft, Message, PublishDraft, now_ms},
    message::Origin,
    metrics::{Lost, Metrics},
    peer::Peer,
    promise::Step,
    seen::Taps,
    session::Entry,
    settings::Limits,
    store::{Change, Group},
};
use crate::names::{QoS, TopicFilter};
use tokio::sync::Notify;

/// MQTT 5: "No matching subscribers".
const NO_MATCH: u8 = 0x10;

/// Room for staged messages that a session keeps from round to round.
const STAGE_KEPT: usize = 256;

/// The time at which an envelope is applied.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    /// Milliseconds since 1970, for expiry.
    pub ms: u64,
    /// For holds.
    pub instant: Instant,
}

/// Everything the broker knows.
#[derive(Debug)]
pub(super) struct State {
    index: Index,
    retained: Retained,
    seats: Seats,
    limits: Limits,
    /// Topics that hold no retained message.
    start_topics: Vec<TopicFilter>,
    /// Where room is given back when something is committed.
    store_window: Window,
    pools: Pools,
    debts: Debts,
    bulk: VecDeque<Bulk>,
    holders: Vec<SessionKey>,
    next_sid: u64,
    /// Publishers are told when a session's queue is full.
    pub rejects: bool,
    ticks: u32,
    sys: Sys,
    guard: Option<Guard>,
    /// Who looks on.
    pub taps: Arc<Taps>,
    pub metrics: Arc<Metrics>,
}

impl State {
    pub(super) fn new(
        limits: Limits,
        start_topics: Vec<TopicFilter>,
        store_window: Window,
        attention: Arc<Notify>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            index: Index::default(),
            retained: Retained::new(limits.retained_topics, limits.retained_bytes),
            seats: Seats::default(),
            limits,
            start_topics,
            store_window,
            pools: Pools::new(attention),
            debts: Debts::default(),
            bulk: VecDeque::new(),
            holders: Vec::new(),
            next_sid: 1,
            rejects: false,
            ticks: 0,
            sys: Sys::new(Now { ms: now_ms(), instant: Instant::now() }),
            guard: None,
            taps: Arc::default(),
            metrics,
        }
    }

    /// Applies one envelope; whether something of it waits for a commit.
    pub(super) fn apply(&mut self, flight: Flight, now: Now, effects: &mut Effects) -> bool {
        let before = effects.stored;
        let Flight { envelope, peer, cargo, .. } = flight;
        match cargo {
            Cargo::Publish(ack) => {
                if let Some(message) = Message::read(envelope) {
                    self.publish(message, peer, ack, effects);
                }
            }
            Cargo::Subscribe(cargo) => self.subscribe(*cargo, peer, now, effects),
            Cargo::Unsubscribe(cargo) => self.unsubscribe(*cargo, peer, effects),
            Cargo::Open(cargo) => self.open(*cargo, peer, now, effects),
            Cargo::Close(mut cargo) => {
                let (before, done) = (effects.stored, cargo.done.take());
                self.close(&cargo, peer, now, effects);
                if let Some(done) = done {
                    effects.say(Step::Noted(done), effects.stored != before);
                }
            }
            Cargo::Reply(reply) => {
                if let Some(peer) = peer {
                    effects.say(Step::Reply(peer, reply), false);
                }
            }
            Cargo::Ask(ask) => self.answer(*ask, now, effects),
            Cargo::Tick => self.tick(now, effects),
        }
        effects.stored != before
    }

    fn publish(&mut self, mut message: Message, peer: Option<Arc<Peer>>, ack: Ack, effects: &mut Effects) {
        let (qos, packet_id) = (message.qos, message.packet_id);
        if let Ack::Internal { origin: Some(origin), .. } = &ack {
            message.origin = Some(Arc::new(origin.as_ref().clone()));
        }
        if qos != QoS::AtMostOnce && self.turns_away(message.topic()) {
            return effects.turn_away(ack, peer, qos, packet_id);
        }
        let (before, queued) = (effects.stored, effects.queued);
        if qos == QoS::ExactlyOnce && matches!(ack, Ack::Client) {
            let sid = peer.as_ref().and_then(|peer| peer.session()).and_then(|session| session.sid);
            if let Some(sid) = sid {
                effects.change(Change::Received(sid, packet_id));
            }
        }
        let matched = self.route(message, peer.as_ref(), effects);
        let promised = effects.stored != before;
        match ack {
            Ack::None => {}
            Ack::Internal { word, .. } => {
                let stored = u32::try_from(effects.queued - queued).unwrap_or(u32::MAX);
                effects.say(Step::Word(word, Taken { matched, stored }), promised);
            }
            Ack::Client => {
                let Some(peer) = peer else { return };
                let reason = if matched { 0 } else { NO_MATCH };
                effects.acknowledge(peer, qos, packet_id, reason, promised);
            }
        }
    }

    /// Whether a session's full queue in the store turns messages on a topic away (`queue_policy = "reject"`; a part of this program's does
    /// always).
    fn turns_away(&mut self, topic: &[u8]) -> bool {
        (self.rejects || self.seats.is_a_part_full()) && {
            let seats = &self.seats;
            let over = |found: &grant::Match| seats.get(found.session).is_some_and(|seat| seat.session.is_over_quota());
            self.index.lookup(topic).direct.iter().any(over)
        }
    }

    /// Stages a message for everybody it goes to; returns whether anybody matched.
    fn route(&mut self, mut message: Message, from: Option<&Arc<Peer>>, effects: &mut Effects) -> bool {
        let publisher = message.origin.as_deref().or_else(|| from.map(|peer| &*peer.origin));
        self.taps.show(&message, publisher);
        let matches = self.index.lookup(message.topic());
        let nobody = matches.direct.is_empty() && matches.groups.is_empty();
        if nobody && !message.retain {
            self.metrics.unmatched();
            return false;
        }
        // Who published matters to internal subscribers, and to No Local as long as the message is retained.
        if (matches.internal || message.retain) && message.origin.is_none() {
            message.origin = from.map(|peer| Arc::clone(&peer.origin));
        }
        let message = Arc::new(message);
        let place = from.map(|peer| effects.place(peer));
        // A QoS 2 message that could still be refused reaches nobody before it is decided: its publisher would send it anew.
        let gated =
            message.qos == QoS::ExactlyOnce && (effects.has_promised(from) || self.will_store(&message, &matches));
        for found in &matches.direct {
            let own = found.asks_who() && self.is_own(found.session, from, &message);
            if let Some(grant) = found.grant(own) {
                let retain = grant.retain_as_published && message.retain;
                let qos = message.qos.min(grant.qos);
                let message = Arc::clone(&message);
                let ids = grant.ids.clone();
                let entry = Entry { message, qseq: 0, qos, retain, ids, gated, place: None, pool: None };
                self.stage(found.session, entry, place, effects);
            }
        }
        for group in &matches.groups {
            self.stage_shared(group, &message, gated, place, effects);
        }
        self.keep(&message, effects);
        !nobody
    }

    /// Whether a message will be stored for anybody.
    fn will_store(&self, message: &Message, matches: &index::Matches) -> bool {
        let stored = |found: &grant::Match| {
            found.grant.qos != QoS::AtMostOnce
                && self.seats.get(found.session).is_some_and(|seat| seat.session.sid.is_some())
        };
        message.retain || !matches.groups.is_empty() || matches.direct.iter().any(stored)
    }

    /// Whether a message comes from the client itself, by this or an earlier connection (`[MQTT-3.8.3-3]` compares client ids).
    pub(super) fn is_own(&self, session: SessionKey, from: Option<&Arc<Peer>>, message: &Message) -> bool {
        let client = from.and_then(|peer| peer.session()).map(|session| &session.client);
        // A will comes from nobody who is connected; it names who left it.
        let client = client.or_else(|| message.origin.as_ref()?.client.as_ref());
        client.is_some() && self.seats.get(session).map(|seat| &seat.session.client) == client
    }

    /// One member of a group gets a message; if nobody is there, the group's queue.
    fn stage_shared(
        &mut self,
        group: &index::GroupKey,
        message: &Arc<Message>,
        gated: bool,
        place: Option<u16>,
        effects: &mut Effects,
    ) {
        let member = self.live_member(group, message.qos);
        let queue = member.map(|(session, _)| session).or_else(|| self.queue_of(group, message.qos));
        if let Some(receiver) = queue {
            let pool = self.pools.sid(group);
            let entry = pools::entry_for_group(message, member.map(|(_, asked)| asked), pool);
            self.stage(receiver, Entry { gated, ..entry }, place, effects);
        }
    }

    /// Gives an entry its queue position and stages it; `place`: who published it, in the round's list.
    fn stage(&mut self, session: SessionKey, mut entry: Entry, place: Option<u16>, effects: &mut Effects) {
        let entrusted = entry.qos == QoS::AtLeastOnce && entry.pool.is_some_and(|pool| self.pools.is_durable(pool));
        if entrusted {
            self.entrust(session, effects);
        }
        let Some(seat) = self.seats.get_mut(session) else { return };
        entry.qseq = seat.position(entry.qos);
        if seat.stage.is_empty() {
            effects.touched.push(session);
        }
        let acknowledged = entry.qos != QoS::AtMostOnce;
        if entrusted || (acknowledged && seat.session.sid.is_some()) {
            entry.place = Some(effects.group.place(&entry.message));
            effects.stored += 1;
            effects.queued += 1;
        }
        entry.gated = entry.place.is_some() || (acknowledged && entry.gated);
        seat.stage.push(entry);
        if let Some(place) = place.filter(|place| seat.origins.last() != Some(place)) {
            seat.origins.push(place);
        }
    }

    /// A session that lives in memory gets a number in the store, for what a shared group trusts it with.
    fn entrust(&mut self, session: SessionKey, effects: &mut Effects) {
        let known = |seat: &Seat| seat.session.kept().is_some();
        if self.seats.get(session).is_none_or(known) {
            return;
        }
        let fresh = self.new_sid();
        let Some(seat) = self.seats.get_mut(session) else { return };
        seat.session.entrust(*seat.sid.get_or_insert(fresh));
        effects.keep(seat);
    }

    /// Publishes a will on behalf of who left it.
    fn publish_will(
        &mut self,
        will: &Will,
        (origin, access): (Option<Arc<Origin>>, Option<&Arc<Access>>),
        now: Now,
        effects: &mut Effects,
    ) {
        if !self.may_leave(will, origin.as_deref(), access) {
            return;
        }
        let draft = Draft::publish(&PublishDraft {
            topic: will.topic.as_bytes(),
            properties: &will.properties,
            payload: &will.payload,
            qos: will.qos,
            retain: will.retain,
            dup: false,
            packet_id: 0,
            received: now.ms,
            expires: will.expiry.map_or(0, |seconds| now.ms + u64::from(seconds) * 1000),
        });
        if let Some(mut message) = Message::read(draft.stamp(0, 0)) {
            message.origin = origin;
            self.route(message, None, effects);
        }
    }

    /// Carries out what a round staged: messages into the outboxes, then the replies that wait for nothing. What waits for a commit is
    /// returned, with what is to be committed.
    pub(super) fn finish(&mut self, effects: &mut Effects, now: Now) -> Option<Group> {
        effects.send_subacks();
        for key in std::mem::take(&mut effects.touched) {
            self.deliver(key, effects, now);
        }
        effects.origins.clear();
        effects.send();
        effects.take_group(&self.store_window)
    }

    fn deliver(&mut self, key: SessionKey, effects: &mut Effects, now: Now) {
        if self.seats.get(key).is_some_and(|seat| !seat.owner.is_served()) {
            // There is something in a queue without a client now.
            self.drain_later(key);
        }
        let Some(seat) = self.seats.get_mut(key) else { return };
        effects.promise_entries(seat);
        if !seat.owner.is_served() {
            // It holds nobody: what it is given goes to the store.
            seat.origins.clear();
        }
        let sources = seat.origins.iter().filter_map(|place| effects.origins.get(usize::from(*place)));
        let delivered = seat.session.outbox.lock().deliver(&mut seat.stage, sources, now.instant);
        seat.origins.clear();
        if seat.stage.capacity() > STAGE_KEPT {
            seat.stage = Vec::new();
        }
        if let Some(peer) = &seat.peer {
            peer.wake();
        }
        if delivered.holds && !self.holders.contains(&key) {
            self.holders.push(key);
        }
        seat.session.count_dropped(delivered.dropped_lagging + delivered.dropped_full);
        self.metrics.dropped(Lost::SessionLagging, delivered.dropped_lagging);
        self.metrics.dropped(Lost::QueueFull, delivered.dropped_full);
    }
}
