//! The stream takes up what an earlier process left: sessions, subscriptions, retained messages, wills that are still to be decided.

use bytes::Bytes;

use super::{Effects, State, seats::Seat};
use crate::{
    broker::{
        envelope::{Draft, Message, PublishDraft},
        store::Recovered,
    },
    names::{QoS, TopicName},
};

impl State {
    /// Puts other messages in the place of retained ones, where there are any.
    pub(in crate::broker) fn replace_retained(&mut self, by: &[(TopicName, Bytes)], now: u64, effects: &mut Effects) {
        for (topic, payload) in by {
            if self.retained.get(topic.as_str()).is_none() {
                continue;
            }
            let draft = Draft::publish(&PublishDraft {
                topic: topic.as_str().as_bytes(),
                properties: &[],
                payload,
                qos: QoS::AtLeastOnce,
                retain: true,
                dup: false,
                packet_id: 0,
                received: now,
                expires: 0,
            });
            if let Some(message) = Message::read(draft.stamp(0, 0)) {
                self.route(message, None, effects);
            }
        }
    }

    /// Takes it up. `now`: milliseconds since 1970.
    pub(in crate::broker) fn recover(&mut self, kept: Recovered, now: u64, effects: &mut Effects) {
        self.next_sid = kept.next_sid.max(1);
        let marks = self.marks();
        let (clients, alone): (Vec<_>, Vec<_>) =
            kept.sessions.iter().partition(|session| session.record.owner.is_served());
        for session in clients {
            let seat = Seat::recover(session, marks, now);
            if seat.recovered {
                // Its time runs from now on, and not anew after the next restart.
                effects.keep(&seat);
            }
            let filters: Vec<_> = seat.filters.iter().map(|(filter, asked)| (filter.clone(), *asked)).collect();
            let key = self.seats.insert(seat);
            for (filter, asked) in filters {
                self.index.subscribe(key, &filter, asked);
            }
        }
        // Groups are known now: their queues can tell whether they still have members.
        for session in alone {
            self.recover_pool(Seat::recover(session, marks, now), effects);
        }
        let shared = |seat: &Seat| seat.filters.keys().filter(|filter| filter.shared().is_some()).cloned().collect();
        let members: Vec<(_, Vec<_>)> = self.seats.iter().map(|(key, seat)| (key, shared(seat))).collect();
        for (key, filter) in members.iter().flat_map(|(key, filters)| filters.iter().map(move |filter| (*key, filter)))
        {
            self.join_group(key, filter, effects);
        }
        for message in &kept.retained {
            self.retained.set(message);
        }
        self.metrics.sessions(self.seats.len());
        self.metrics.subscriptions(self.index.len());
        self.metrics.retained(self.retained.topics(), self.retained.bytes());
    }
}
