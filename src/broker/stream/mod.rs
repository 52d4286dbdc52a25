//! The stream: the one ordered sequence of everything that happens in the broker, as a state machine without sockets.
//!
//! [`State::apply`] takes one envelope at a time and stages its effects; the dispatcher carries them out once per round. It alone owns the
//! subscription index, the retained tree and the session table. Invariants: effects of an envelope depend on the envelopes before it and
//! nothing else (time comes in as an envelope too); an acknowledgement is staged only together with everything it means.

mod grant;
mod index;
mod lifecycle;
mod retained;
mod seats;
mod subscribe;
#[cfg(test)]
mod tests;

use std::{collections::VecDeque, sync::Arc, time::Instant};

pub(super) use self::index::Asked;
use self::{
    index::{Index, SessionKey},
    retained::{Kept, Retained},
    seats::Seats,
    subscribe::Bulk,
};
use super::{
    cargo::{Ack, Cargo, Flight, SessionWord, Word},
    codec::{Will, write::AckKind},
    envelope::{Draft, Message, PublishDraft},
    message::Origin,
    metrics::{Lost, Metrics},
    peer::{Peer, Reply},
    session::Entry,
    settings::Limits,
    store::Group,
};
use crate::names::{QoS, TopicFilter};
use tokio::sync::oneshot;

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

/// What a round brought, to be carried out at its end.
#[derive(Debug, Default)]
pub(super) struct Effects {
    /// Sessions with something staged.
    touched: Vec<SessionKey>,
    /// Publishers of this round; entries name them by place.
    origins: Vec<Arc<Peer>>,
    /// Replies to clients, in order.
    replies: Vec<(Arc<Peer>, Reply)>,
    words: Vec<(oneshot::Sender<Word>, Word)>,
    opened: Vec<(oneshot::Sender<SessionWord>, SessionWord)>,
    subscribed: Vec<oneshot::Sender<()>>,
    /// Publishers that may go on.
    released: Vec<Arc<Peer>>,
    /// What must be committed before replies and words go out.
    pub group: Group,
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
    bulk: VecDeque<Bulk>,
    holders: Vec<SessionKey>,
    ticks: u32,
    pub metrics: Arc<Metrics>,
}

impl State {
    pub(super) fn new(limits: Limits, start_topics: Vec<TopicFilter>, metrics: Arc<Metrics>) -> Self {
        Self {
            index: Index::default(),
            retained: Retained::new(limits.retained_topics, limits.retained_bytes),
            seats: Seats::default(),
            limits,
            start_topics,
            bulk: VecDeque::new(),
            holders: Vec::new(),
            ticks: 0,
            metrics,
        }
    }

    /// Applies one envelope.
    pub(super) fn apply(&mut self, flight: Flight, now: Now, effects: &mut Effects) {
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
            Cargo::Close(cargo) => self.close(&cargo, peer, now, effects),
            Cargo::Reply(reply) => effects.replies.extend(peer.map(|peer| (peer, reply))),
            Cargo::Tick => self.tick(now, effects),
        }
    }

    fn publish(&mut self, mut message: Message, peer: Option<Arc<Peer>>, ack: Ack, effects: &mut Effects) {
        let (qos, packet_id) = (message.qos, message.packet_id);
        if let Ack::Internal { origin: Some(origin), .. } = &ack {
            message.origin = Some(Arc::new(origin.as_ref().clone()));
        }
        let matched = self.route(message, peer.as_ref(), effects);
        match ack {
            Ack::None => {}
            Ack::Internal { word, .. } => effects.words.push((word, Ok(matched))),
            Ack::Client => {
                let Some(peer) = peer else { return };
                let reason = if matched { 0 } else { NO_MATCH };
                effects.acknowledge(peer, qos, packet_id, reason);
            }
        }
    }

    /// Stages a message for everybody it goes to; returns whether anybody matched.
    fn route(&mut self, mut message: Message, from: Option<&Arc<Peer>>, effects: &mut Effects) -> bool {
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
        for found in &matches.direct {
            let own = found.asks_who() && self.is_own(found.session, from, &message);
            if let Some(grant) = found.grant(own) {
                let retain = grant.retain_as_published && message.retain;
                let qos = message.qos.min(grant.qos);
                let entry = Entry { message: Arc::clone(&message), qseq: 0, qos, retain, ids: grant.ids.clone() };
                self.stage(found.session, entry, place, effects);
            }
        }
        for group in &matches.groups {
            self.stage_shared(group, &message, place, effects);
        }
        self.keep(&message, effects);
        !nobody
    }

    /// Whether a message comes from the client itself, by this or an earlier connection (`[MQTT-3.8.3-3]` compares client ids).
    pub(super) fn is_own(&self, session: SessionKey, from: Option<&Arc<Peer>>, message: &Message) -> bool {
        let client = from.and_then(|peer| peer.session()).map(|session| &session.client);
        // A will comes from nobody who is connected; it names who left it.
        let client = client.or_else(|| message.origin.as_ref()?.client.as_ref());
        client.is_some() && self.seats.get(session).map(|seat| &seat.session.client) == client
    }

    fn stage_shared(
        &mut self,
        group: &index::GroupKey,
        message: &Arc<Message>,
        place: Option<u16>,
        effects: &mut Effects,
    ) {
        let seats = &self.seats;
        let fits = |key: SessionKey| {
            let peer = seats.get(key).and_then(|seat| seat.peer.as_ref());
            peer.is_some_and(|peer| !peer.is_held())
        };
        if let Some((session, asked)) = self.index.pick(group, fits) {
            let retain = asked.options.retain_as_published && message.retain;
            let ids = asked.id.map(|id| Arc::from([id]));
            let qos = message.qos.min(asked.options.qos);
            let entry = Entry { message: Arc::clone(message), qseq: 0, qos, retain, ids };
            self.stage(session, entry, place, effects);
        }
    }

    /// Gives an entry its queue position and stages it; `place`: who published it, in the round's list.
    fn stage(&mut self, session: SessionKey, mut entry: Entry, place: Option<u16>, effects: &mut Effects) {
        let Some(seat) = self.seats.get_mut(session) else { return };
        entry.qseq = seat.position(entry.qos);
        if seat.stage.is_empty() {
            effects.touched.push(session);
        }
        if entry.qos != QoS::AtMostOnce && seat.is_persistent() {
            effects.group.row(&seat.session, entry.qseq);
        }
        seat.stage.push(entry);
        if let Some(place) = place.filter(|place| seat.origins.last() != Some(place)) {
            seat.origins.push(place);
        }
    }

    /// Keeps a retained message, unless its topic holds none.
    fn keep(&mut self, message: &Arc<Message>, effects: &mut Effects) {
        if !message.retain || self.start_topics.iter().any(|filter| filter.matches(message.topic_str())) {
            return;
        }
        effects.group.retained += 1;
        if self.retained.set(message) == Kept::Full {
            self.metrics.dropped(Lost::RetainedFull, 1);
        }
        self.metrics.retained(self.retained.topics(), self.retained.bytes());
    }

    /// Publishes a will on behalf of who left it.
    fn publish_will(&mut self, will: &Will, origin: Option<Arc<Origin>>, now: Now, effects: &mut Effects) {
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

    /// Carries out what a round staged: messages into the outboxes first, then what was promised is committed, then the replies.
    pub(super) fn finish(&mut self, effects: &mut Effects, now: Now, commit: impl FnOnce(&mut Group)) {
        for key in std::mem::take(&mut effects.touched) {
            self.deliver(key, &effects.origins, now);
        }
        commit(&mut effects.group);
        effects.origins.clear();
        effects.send();
    }

    fn deliver(&mut self, key: SessionKey, origins: &[Arc<Peer>], now: Now) {
        let Some(seat) = self.seats.get_mut(key) else { return };
        let sources = seat.origins.iter().filter_map(|place| origins.get(usize::from(*place)));
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
        self.metrics.dropped(Lost::SessionLagging, delivered.dropped_lagging);
        self.metrics.dropped(Lost::QueueFull, delivered.dropped_full);
    }
}

impl Effects {
    /// The place of a publisher in this round's list.
    fn place(&mut self, peer: &Arc<Peer>) -> u16 {
        let known = self.origins.last().is_some_and(|last| last.id == peer.id);
        if !known {
            self.origins.push(Arc::clone(peer));
        }
        // A round has at most a few hundred envelopes.
        u16::try_from(self.origins.len() - 1).unwrap_or(u16::MAX)
    }

    fn acknowledge(&mut self, peer: Arc<Peer>, qos: QoS, packet_id: u16, reason: u8) {
        match qos {
            QoS::AtMostOnce => {}
            QoS::AtLeastOnce => self.replies.push((peer, Reply::Ack { kind: AckKind::PubAck, packet_id, reason })),
            QoS::ExactlyOnce => {
                let serving = peer.session().and_then(|session| session.handshakes.lock().routed(packet_id, true));
                if let Some(serving) = serving {
                    self.replies.push((serving, Reply::Ack { kind: AckKind::PubRec, packet_id, reason }));
                }
            }
        }
    }

    /// Sends replies (one lock and wake for each run of replies to one peer) and words.
    fn send(&mut self) {
        let mut batch = Vec::new();
        let mut replies = self.replies.drain(..).peekable();
        while let Some((peer, reply)) = replies.next() {
            batch.push(reply);
            if replies.peek().is_none_or(|(next, _)| next.id != peer.id) {
                peer.reply(&mut batch);
                batch.clear();
            }
        }
        for (sender, word) in self.words.drain(..) {
            // The publisher may have stopped waiting.
            let _ = sender.send(word);
        }
        for (sender, opened) in self.opened.drain(..) {
            let _ = sender.send(opened);
        }
        for sender in self.subscribed.drain(..) {
            let _ = sender.send(());
        }
        for peer in self.released.drain(..) {
            peer.release();
        }
    }
}
