//! Groups that the store refuses: what they were to bring is not lost.

use super::*;
use crate::broker::store::{Change, Group, Sid};

/// The stream with a store that refuses what it is told to.
struct Refusing {
    state: State,
    effects: Effects,
    store: MemoryStore,
    now: Now,
    number: u64,
    /// So many groups that hand something over are refused.
    refusals: u64,
    /// Sessions whose end was committed.
    ended: Vec<Sid>,
}

impl Refusing {
    fn new(refusals: u64) -> Self {
        let metrics = Metrics::new(&mut Registry::default());
        Self {
            state: State::new(Limits::default(), Vec::new(), Window::new(1 << 20), Arc::default(), metrics),
            effects: Effects::default(),
            store: MemoryStore::default(),
            now: Now { ms: 1_000_000, instant: Instant::now() },
            number: 0,
            refusals,
            ended: Vec::new(),
        }
    }

    fn apply(&mut self, draft: Draft, peer: Option<Arc<Peer>>, cargo: Cargo) {
        self.number += 1;
        let envelope = draft.stamp(0, self.number);
        let flight = Flight { seq: self.number, envelope, cost: 0, stored: 0, peer, cargo, since: self.now.instant };
        self.state.apply(flight, self.now, &mut self.effects);
        for _ in 0..16 {
            if self.state.has_pools() {
                self.state.advance_pools(&mut self.effects);
            }
            if let Some(group) = self.state.finish(&mut self.effects, self.now) {
                self.decide(group);
            }
            for session in self.effects.take_pages() {
                self.store.load(&session);
            }
        }
    }

    fn decide(&mut self, group: Group) {
        let hands_over = group.changes.iter().any(|change| matches!(change, Change::Advance(..)));
        if hands_over && self.refusals > 0 {
            self.refusals -= 1;
            return group.promise.break_off();
        }
        let ends = group.changes.iter().filter_map(|change| match change {
            Change::End(sid, _) => Some(*sid),
            _ => None,
        });
        self.ended.extend(ends);
        self.store.submit(group);
    }

    /// A client with a stored session and a subscription for the group.
    fn member(&mut self, client: &str) -> (Arc<Peer>, Arc<Session>) {
        let client = ClientId::new(client).unwrap();
        let origin = Origin { door: Door::Mqtt, client: Some(client.clone()), user: None, may_start: false };
        let peer = Peer::new(origin, None);
        let (reply, mut opened) = oneshot::channel();
        let marks = Marks::of(4 << 20, 100_000);
        let open = OpenCargo { client, inside: false, clean_start: false, expiry: KEPT, will: None, marks, reply };
        self.apply(Draft::control(), Some(Arc::clone(&peer)), Cargo::Open(Box::new(open)));
        let options =
            SubscribeOptions { qos: QoS::AtLeastOnce, no_local: false, retain_as_published: false, retain_handling: 0 };
        let filters =
            vec![Ok((TopicFilter::new("$share/g/s/#").unwrap(), Asked { options, id: None, internal: false }))];
        let subscribe = SubscribeCargo { packet_id: 1, filters, done: None, all: false };
        self.apply(Draft::control(), Some(Arc::clone(&peer)), Cargo::Subscribe(Box::new(subscribe)));
        (peer, opened.try_recv().unwrap().unwrap().session)
    }

    fn publish(&mut self, payload: &str) {
        let draft = Draft::publish(&PublishDraft {
            topic: b"s/1",
            properties: b"",
            payload: payload.as_bytes(),
            qos: QoS::AtLeastOnce,
            retain: false,
            dup: false,
            packet_id: 1,
            received: self.now.ms,
            expires: 0,
        });
        self.apply(draft, None, Cargo::Publish(Ack::None));
    }
}

#[test]
fn an_estate_whose_hand_over_is_refused_is_handed_over_again() {
    for refusals in 0..4 {
        let mut broker = Refusing::new(refusals);
        let (leaver, left) = broker.member("leaver");
        ["1", "2", "3"].iter().for_each(|payload| broker.publish(payload));
        let (heir, session) = broker.member("heir");
        let close = CloseCargo { with_will: false, expiry: Some(0), done: None, _departure: None };
        broker.apply(Draft::control(), Some(leaver), Cargo::Close(close));
        for _ in 0..refusals {
            // What was refused is tried again when time has passed.
            broker.now.ms += 1_000;
            broker.apply(Draft::control(), None, Cargo::Tick);
        }
        assert_eq!(broker.refusals, 0, "it is tried until it is taken");
        let mut out = Vec::new();
        session.take(heir.id, usize::MAX, 10, &mut out).unwrap();
        let payloads = out.iter().filter_map(|parcel| match parcel {
            Parcel::Publish { entry, .. } => Some(String::from_utf8(entry.message.payload().to_vec()).unwrap()),
            Parcel::PubRel(_) => None,
        });
        assert_eq!(payloads.collect::<Vec<_>>(), ["1", "2", "3"], "after {refusals} refusals");
        assert_eq!(broker.ended, [left.sid.unwrap()], "the estate is settled");
        assert!(!broker.state.has_pools());
    }
}
