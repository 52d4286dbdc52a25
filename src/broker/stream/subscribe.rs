//! SUBSCRIBE and UNSUBSCRIBE in the stream; retained messages are kept and delivered.
//!
//! A subscriber gets each matching retained message that was set before its SUBSCRIBE once, in the state it had then; live messages follow.
//! Large answers go out in portions while the outbox has room, so that a subscription to `#` holds nobody.

use std::{collections::VecDeque, sync::Arc};

use super::{Asked, Effects, Now, SessionKey, State, retained::Kept, sys::is_sys};
use crate::{
    broker::{
        cargo::{SubscribeCargo, UnsubscribeCargo},
        envelope::Message,
        metrics::Lost,
        peer::{Peer, Reply},
        promise::Step,
        session::Entry,
        store::Change,
    },
    names::{QoS, TopicFilter},
};

/// MQTT 5: "Not authorized".
const NOT_AUTHORIZED: u8 = 0x87;
/// MQTT 5: "Quota exceeded".
const QUOTA: u8 = 0x97;
/// MQTT 5: "No subscription existed".
const NO_SUBSCRIPTION: u8 = 0x11;
/// This many retained messages at most go to a session per round.
const PORTION: usize = 256;

/// Retained messages a session still has to get.
#[derive(Debug)]
pub(super) struct Bulk {
    session: SessionKey,
    peer: u64,
    filter: TopicFilter,
    rest: VecDeque<Arc<Message>>,
    asked: Asked,
}

impl Bulk {
    pub(super) fn session(&self) -> SessionKey {
        self.session
    }
}

impl State {
    pub(super) fn subscribe(
        &mut self,
        cargo: SubscribeCargo,
        peer: Option<Arc<Peer>>,
        now: Now,
        effects: &mut Effects,
    ) {
        let Some((peer, key)) = peer.and_then(|peer| self.seats.of_peer(&peer).map(|key| (peer, key))) else { return };
        let before = effects.stored;
        if cargo.all {
            self.unsubscribe_others(key, &cargo.filters, effects);
        }
        let codes = cargo.filters.into_iter().map(|filter| match filter {
            Ok((filter, asked)) => self.subscribe_one(key, &filter, asked, now, effects),
            Err(code) => code,
        });
        let codes = codes.collect();
        match cargo.done {
            Some(done) => effects.say(Step::Noted(done), false),
            None => {
                let promised = effects.stored != before;
                effects.say(Step::Reply(peer, Reply::SubAck { packet_id: cargo.packet_id, codes }), promised);
            }
        }
        self.metrics.subscriptions(self.index.len());
    }

    fn subscribe_one(
        &mut self,
        key: SessionKey,
        filter: &TopicFilter,
        asked: Asked,
        now: Now,
        effects: &mut Effects,
    ) -> u8 {
        if !asked.internal && !self.may_still_subscribe(key, filter) {
            return NOT_AUTHORIZED;
        }
        let Some(seat) = self.seats.get_mut(key) else { return QUOTA };
        if !asked.internal && seat.filters.len() >= self.limits.subscriptions && !seat.filters.contains_key(filter) {
            return QUOTA;
        }
        seat.filters.insert(filter.clone(), asked);
        if let Some(sid) = seat.session.sid {
            effects.change(Change::Subscribe(sid, filter.clone(), asked));
        }
        let new = self.index.subscribe(key, filter, asked);
        self.join_group(key, filter, effects);
        let wanted = match asked.options.retain_handling {
            0 => true,
            1 => new,
            _ => false,
        };
        if wanted && filter.shared().is_none() {
            self.send_retained(key, filter, asked, now, effects);
        }
        asked.options.qos as u8
    }

    /// What a session had subscribed to and does not name now; what is queued already it gets all the same.
    fn unsubscribe_others(
        &mut self,
        key: SessionKey,
        wanted: &[Result<(TopicFilter, Asked), u8>],
        effects: &mut Effects,
    ) {
        let Some(seat) = self.seats.get(key) else { return };
        let named = |filter: &&TopicFilter| wanted.iter().flatten().any(|(wanted, _)| wanted == *filter);
        let others: Vec<_> = seat.filters.keys().filter(|filter| !named(filter)).cloned().collect();
        for filter in others {
            self.unsubscribe_one(key, &filter, effects);
        }
    }

    fn send_retained(&mut self, key: SessionKey, filter: &TopicFilter, asked: Asked, now: Now, effects: &mut Effects) {
        self.send_sys(key, filter, asked, now, effects);
        self.forget_bulk(key, filter);
        let mut rest: VecDeque<_> = self.retained.matching(filter.as_str(), now.ms).into();
        if asked.options.no_local {
            // `[MQTT-3.8.3-3]` makes no exception for what the client published earlier.
            rest.retain(|message| !self.is_own(key, None, message));
        }
        let peer = self.seats.get(key).and_then(|seat| seat.peer.as_ref()).map_or(0, |peer| peer.id);
        let mut bulk = Bulk { session: key, peer, filter: filter.clone(), rest, asked };
        self.send_portion(&mut bulk, effects);
        if !bulk.rest.is_empty() {
            self.bulk.push_back(bulk);
        }
    }

    /// Who subscribes again starts again; who unsubscribes gets no more (`[MQTT-3.10.4-2]`).
    fn forget_bulk(&mut self, key: SessionKey, filter: &TopicFilter) {
        self.bulk.retain(|bulk| bulk.session != key || bulk.filter != *filter);
    }

    pub(super) fn stage_retained(
        &mut self,
        key: SessionKey,
        message: Arc<Message>,
        asked: Asked,
        effects: &mut Effects,
    ) {
        let qos: QoS = message.qos.min(asked.options.qos);
        let ids = asked.id.map(|id| Arc::from([id]));
        let entry = Entry { message, qseq: 0, qos, retain: true, ids, gated: false, place: None, pool: None };
        self.stage(key, entry, None, effects);
    }

    /// Keeps a retained message, unless its topic holds none.
    pub(super) fn keep(&mut self, message: &Arc<Message>, effects: &mut Effects) {
        let topic = message.topic_str();
        if !message.retain || is_sys(topic) || self.start_topics.iter().any(|filter| filter.matches(topic)) {
            return;
        }
        match self.retained.set(message) {
            Kept::Yes => effects.change(Change::Retain(Arc::clone(message))),
            Kept::Full => {
                self.metrics.dropped(Lost::RetainedFull, 1);
                effects.change(Change::Retain(Arc::new(message.emptied())));
            }
        }
        self.metrics.retained(self.retained.topics(), self.retained.bytes());
    }

    /// Whether retained messages wait to go out in portions.
    pub(in crate::broker) fn has_bulk(&self) -> bool {
        !self.bulk.is_empty()
    }

    /// The next portion of every bulk delivery whose outbox has room. Returns whether anything moved.
    pub(in crate::broker) fn advance_bulk(&mut self, effects: &mut Effects) -> bool {
        let mut moved = false;
        for _ in 0..self.bulk.len() {
            let Some(mut bulk) = self.bulk.pop_front() else { break };
            let served =
                self.seats.get(bulk.session).filter(|seat| seat.peer.as_ref().is_some_and(|p| p.id == bulk.peer));
            if served.is_none() {
                continue;
            }
            moved |= self.send_portion(&mut bulk, effects);
            if !bulk.rest.is_empty() {
                self.bulk.push_back(bulk);
            }
        }
        moved
    }

    /// As much as the outbox has room for, at least one message if any; whether anything moved.
    fn send_portion(&mut self, bulk: &mut Bulk, effects: &mut Effects) -> bool {
        let Some(seat) = self.seats.get(bulk.session) else { return false };
        let mut room = seat.session.outbox.lock().room_for_bulk(seat.staged_bytes());
        let mut count = 0;
        while room > 0 && count < PORTION {
            let Some(message) = bulk.rest.front() else { break };
            if count > 0 && message.size() > room {
                break;
            }
            let Some(message) = bulk.rest.pop_front() else { break };
            (room, count) = (room.saturating_sub(message.size()), count + 1);
            // Overwritten since: the newer value went out live.
            let present = self.retained.get(message.topic_str()).is_some_and(|kept| Arc::ptr_eq(kept, &message));
            if present {
                self.stage_retained(bulk.session, message, bulk.asked, effects);
            }
        }
        count > 0
    }

    pub(super) fn unsubscribe(&mut self, cargo: UnsubscribeCargo, peer: Option<Arc<Peer>>, effects: &mut Effects) {
        let Some((peer, key)) = peer.and_then(|peer| self.seats.of_peer(&peer).map(|key| (peer, key))) else { return };
        let before = effects.stored;
        let codes = cargo.filters.into_iter().map(|filter| match filter {
            Ok(filter) => self.unsubscribe_one(key, &filter, effects),
            Err(code) => code,
        });
        let codes = codes.collect();
        let promised = effects.stored != before;
        effects.say(Step::Reply(peer, Reply::UnsubAck { packet_id: cargo.packet_id, codes }), promised);
        self.metrics.subscriptions(self.index.len());
    }

    pub(super) fn unsubscribe_one(&mut self, key: SessionKey, filter: &TopicFilter, effects: &mut Effects) -> u8 {
        if let Some(seat) = self.seats.get_mut(key)
            && seat.filters.remove(filter).is_some()
            && let Some(sid) = seat.session.sid
        {
            effects.change(Change::Unsubscribe(sid, filter.clone()));
        }
        self.forget_bulk(key, filter);
        if !self.index.unsubscribe(key, filter) {
            return NO_SUBSCRIPTION;
        }
        self.leave_group(filter, effects);
        0
    }
}
