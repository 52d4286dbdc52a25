//! The stream against a small model of what MQTT says: random histories of a few clients, every effect compared after every step.
//!
//! The model knows sessions as lists (filters, queue, unacknowledged), searches them from end to end, and shares only the rule of matching with
//! the program. MQTT leaves open which member of a shared group is chosen and in which order retained messages come: the first is checked
//! to be a legal choice, the second is by topic levels here. `STREAM_MODEL_CASES` sets the number of histories.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use prometheus_client::registry::Registry;
use proptest::{prelude::*, test_runner::TestRunner};
use tokio::sync::oneshot;

use super::*;
use crate::{
    broker::{
        cargo::{CloseCargo, OpenCargo, SubscribeCargo, UnsubscribeCargo},
        codec::{SubscribeOptions, Will},
        message::{Door, Origin},
        peer::Kick,
        session::{Marks, Resend, Session},
        store::MemoryStore,
    },
    names::{ClientId, matches},
};

const CLIENTS: usize = 4;
const TOPICS: [&str; 7] = ["a", "a/1", "a/b/1", "$x", "$x/1", "s/1", "å/1"];
const FILTERS: [&str; 10] = ["#", "a/#", "+/1", "a/+/1", "$x/#", "+", "å/1", "w/#", "$share/g/s/#", "$share/h/a/+"];
const KEPT: u32 = 100;

#[derive(Debug, Clone)]
enum Op {
    Connect { client: usize, clean: bool, kept: bool, will: Option<WillOf> },
    Subscribe { client: usize, filter: usize, qos: u8, published: bool, handling: u8 },
    Unsubscribe { client: usize, filter: usize },
    Publish { client: usize, topic: usize, qos: u8, retain: bool, empty: bool },
    Read { client: usize, window: u16 },
    Acknowledge { client: usize, which: usize },
    Close { client: usize, with_will: bool, end: bool },
    Tick { seconds: u64 },
}

#[derive(Debug, Clone)]
struct WillOf {
    qos: u8,
    retain: bool,
    delayed: bool,
}

fn op() -> impl Strategy<Value = Op> {
    let client = || 0..CLIENTS;
    let will = prop::option::of((0..3u8, any::<bool>(), any::<bool>()))
        .prop_map(|will| will.map(|(qos, retain, delayed)| WillOf { qos, retain, delayed }));
    prop_oneof![
        3 => (client(), prop::bool::weighted(0.3), prop::bool::weighted(0.7), will)
            .prop_map(|(client, clean, kept, will)| Op::Connect { client, clean, kept, will }),
        4 => (client(), 0..FILTERS.len(), 0..3u8, any::<bool>(), 0..3u8).prop_map(
            |(client, filter, qos, published, handling)| Op::Subscribe { client, filter, qos, published, handling }
        ),
        1 => (client(), 0..FILTERS.len()).prop_map(|(client, filter)| Op::Unsubscribe { client, filter }),
        8 => (client(), 0..TOPICS.len(), 0..3u8, prop::bool::weighted(0.3), prop::bool::weighted(0.2)).prop_map(
            |(client, topic, qos, retain, empty)| Op::Publish { client, topic, qos, retain, empty }
        ),
        3 => (client(), 0..6u16).prop_map(|(client, window)| Op::Read { client, window }),
        3 => (client(), 0..4usize).prop_map(|(client, which)| Op::Acknowledge { client, which }),
        2 => (client(), any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(client, with_will, end)| Op::Close { client, with_will, end }),
        1 => (1..70u64).prop_map(|seconds| Op::Tick { seconds }),
    ]
}

/// What a session gets: topic, payload, QoS, RETAIN, identifiers of the subscriptions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Got {
    topic: String,
    payload: String,
    qos: u8,
    retain: bool,
    ids: Vec<u32>,
}

impl Got {
    fn of(entry: &Entry) -> Self {
        let mut ids = entry.ids.as_deref().unwrap_or_default().to_vec();
        ids.sort_unstable();
        Self {
            topic: entry.message.topic_str().to_owned(),
            payload: String::from_utf8(entry.message.payload().to_vec()).unwrap(),
            qos: entry.qos as u8,
            retain: entry.retain,
            ids,
        }
    }

    /// The group a delivery was made for; direct subscriptions have identifiers below 100.
    fn group(&self) -> Option<usize> {
        self.ids.first().filter(|id| **id >= 100).map(|id| *id as usize - 100)
    }
}

#[derive(Debug, Clone, Copy)]
struct Wish {
    qos: u8,
    published: bool,
}

#[derive(Debug, Default)]
struct ModelSession {
    online: bool,
    kept: bool,
    filters: BTreeMap<usize, Wish>,
    queue: Vec<Got>,
    unacknowledged: Vec<Got>,
    will: Option<(String, WillOf)>,
    will_due: Option<u64>,
    ends_at: Option<u64>,
}

#[derive(Debug, Default)]
struct Model {
    sessions: BTreeMap<usize, ModelSession>,
    retained: BTreeMap<Vec<String>, (String, u8)>,
    /// What this step brought, per session.
    step: BTreeMap<usize, Vec<Got>>,
    /// Groups that get this step's message, with its topic, payload, QoS and RETAIN.
    groups: Vec<(usize, String, String, u8, bool)>,
}

fn shared(filter: usize) -> Option<&'static str> {
    FILTERS[filter].strip_prefix("$share/").map(|rest| rest.split_once('/').unwrap().1)
}

impl Model {
    /// Routes a message; whether anybody matched. The first client's subscriptions are all No Local.
    fn route(&mut self, from: Option<usize>, topic: &str, payload: &str, qos: u8, retain: bool) -> bool {
        let mut matched = false;
        for (client, session) in &self.sessions {
            let direct =
                session.filters.iter().filter(|(at, _)| shared(**at).is_none() && matches(FILTERS[**at], topic));
            let direct: Vec<_> = direct.collect();
            matched |= !direct.is_empty();
            if direct.is_empty() || (*client == 0 && from == Some(0)) {
                continue;
            }
            let granted = direct.iter().map(|(_, wish)| wish.qos).max().unwrap();
            let as_published = direct.iter().any(|(_, wish)| wish.published);
            self.step.entry(*client).or_default().push(Got {
                topic: topic.into(),
                payload: payload.into(),
                qos: qos.min(granted),
                retain: retain && as_published,
                ids: direct.iter().map(|(at, _)| **at as u32 + 1).collect(),
            });
        }
        for at in 0..FILTERS.len() {
            let fits = shared(at).is_some_and(|pattern| matches(pattern, topic));
            if fits && self.sessions.values().any(|session| session.filters.contains_key(&at)) {
                matched = true;
                self.groups.push((at, topic.into(), payload.into(), qos, retain));
            }
        }
        if retain {
            let path: Vec<String> = topic.split('/').map(str::to_owned).collect();
            if payload.is_empty() {
                self.retained.remove(&path);
            } else {
                self.retained.insert(path, (payload.into(), qos));
            }
        }
        matched
    }

    fn will(&mut self, client: usize, from: Option<usize>) {
        let will = self.sessions.get_mut(&client).and_then(|session| session.will.take());
        if let Some((payload, will)) = will {
            self.route(from, &format!("w/{client}"), &payload, will.qos, will.retain);
        }
    }

    fn end(&mut self, client: usize) {
        let Some(mut session) = self.sessions.remove(&client) else { return };
        self.step.remove(&client);
        if let Some((payload, will)) = session.will.take() {
            self.route(None, &format!("w/{client}"), &payload, will.qos, will.retain);
        }
    }

    /// Whether the session existed.
    fn connect(&mut self, client: usize, clean: bool, kept: bool, will: Option<(String, WillOf)>) -> bool {
        let found = self.sessions.get_mut(&client);
        if let Some(session) = found {
            let was_online = std::mem::replace(&mut session.online, false);
            if was_online && session.will.as_ref().is_some_and(|(_, will)| !will.delayed) {
                self.will(client, Some(client));
            }
        }
        let present = !clean && self.sessions.get(&client).is_some_and(|session| session.kept);
        if !present {
            self.end(client);
        }
        let session = self.sessions.entry(client).or_default();
        session.queue.retain(|got| got.qos > 0);
        (session.online, session.kept, session.will) = (true, kept, will);
        (session.will_due, session.ends_at) = (None, None);
        present
    }

    fn subscribe(&mut self, client: usize, filter: usize, wish: Wish, handling: u8) {
        let session = self.sessions.get_mut(&client).unwrap();
        let new = session.filters.insert(filter, wish).is_none();
        if shared(filter).is_some() || handling == 2 || (handling == 1 && !new) {
            return;
        }
        for (path, (payload, qos)) in &self.retained {
            let topic = path.join("/");
            if matches(FILTERS[filter], &topic) {
                let (qos, ids) = (wish.qos.min(*qos), vec![filter as u32 + 1]);
                self.step.entry(client).or_default().push(Got {
                    topic,
                    payload: payload.clone(),
                    qos,
                    retain: true,
                    ids,
                });
            }
        }
    }

    fn close(&mut self, client: usize, with_will: bool, end: bool, now: u64) {
        let session = self.sessions.get_mut(&client).unwrap();
        session.online = false;
        session.kept &= !end;
        session.queue.retain(|got| got.qos > 0);
        session.ends_at = session.kept.then(|| now + u64::from(KEPT) * 1000);
        if !with_will {
            session.will = None;
        }
        match &session.will {
            Some((_, will)) if will.delayed && session.kept => session.will_due = Some(now + 5_000),
            _ => self.will(client, Some(client)),
        }
        if !self.sessions[&client].kept {
            self.end(client);
        }
    }

    fn tick(&mut self, now: u64) {
        for client in 0..CLIENTS {
            let due = self.sessions.get_mut(&client).and_then(|session| session.will_due.take_if(|due| *due <= now));
            if due.is_some() {
                self.will(client, None);
            }
        }
        for client in 0..CLIENTS {
            if self.sessions.get(&client).is_some_and(|session| session.ends_at.is_some_and(|end| end <= now)) {
                self.end(client);
            }
        }
    }

    /// Compares a step's staged messages, settles who of the groups got theirs, and moves everything into the queues.
    fn settle(&mut self, staged: &BTreeMap<usize, Vec<Got>>, in_order: bool) {
        for (at, topic, payload, qos, retain) in std::mem::take(&mut self.groups) {
            let members = || self.sessions.iter().filter(|(_, session)| session.filters.contains_key(&at));
            let got = |client: &usize| {
                let mine = staged.get(client).into_iter().flatten();
                mine.filter(|got| got.group() == Some(at) && got.topic == topic && got.payload == payload).count()
            };
            let chosen: Vec<_> = members().filter(|(client, _)| got(client) > 0).collect();
            assert_eq!(chosen.iter().map(|(client, _)| got(client)).sum::<usize>(), 1, "one member of {at}");
            let (client, session) = chosen[0];
            assert!(session.online || members().all(|(_, session)| !session.online), "one that is there, if any");
            let wish = session.filters[&at];
            let (qos, retain) = (qos.min(wish.qos), retain && wish.published);
            let ids = vec![at as u32 + 100];
            self.step.entry(*client).or_default().push(Got { topic, payload, qos, retain, ids });
        }
        let mut expected = std::mem::take(&mut self.step);
        let mut staged = staged.clone();
        if !in_order {
            expected.values_mut().chain(staged.values_mut()).for_each(|list| list.sort());
        }
        assert_eq!(staged, expected);
        for (client, list) in expected {
            let session = self.sessions.get_mut(&client).unwrap();
            session.queue.extend(list.into_iter().filter(|got| session.online || got.qos > 0));
        }
    }
}

/// The stream with its surroundings.
struct Real {
    state: State,
    effects: Effects,
    store: MemoryStore,
    now: Now,
    connections: BTreeMap<usize, (Arc<Peer>, Arc<Session>)>,
    number: u64,
}

impl Real {
    fn new() -> Self {
        let metrics = Metrics::new(&mut Registry::default());
        Self {
            state: State::new(Limits::default(), Vec::new(), metrics),
            effects: Effects::default(),
            store: MemoryStore::default(),
            now: Now { ms: 1_000_000, instant: Instant::now() },
            connections: BTreeMap::new(),
            number: 0,
        }
    }

    /// Applies one envelope and carries out its effects; what was staged for each client comes back.
    fn apply(&mut self, draft: Draft, peer: Option<Arc<Peer>>, cargo: Cargo) -> BTreeMap<usize, Vec<Got>> {
        self.number += 1;
        let envelope = draft.stamp(0, self.number);
        let flight = Flight { seq: self.number, envelope, cost: 0, peer, cargo, since: self.now.instant };
        self.state.apply(flight, self.now, &mut self.effects);
        let mut staged = BTreeMap::new();
        for (_, seat) in self.state.seats.iter().filter(|(_, seat)| !seat.stage.is_empty()) {
            let client = seat.session.client.as_str().parse().unwrap();
            staged.insert(client, seat.stage.iter().map(Got::of).collect());
        }
        let store = &mut self.store;
        self.state.finish(&mut self.effects, self.now, |group| store.commit(group));
        staged
    }

    fn control(&mut self, peer: Option<Arc<Peer>>, cargo: Cargo) -> BTreeMap<usize, Vec<Got>> {
        self.apply(Draft::control(), peer, cargo)
    }

    fn replies(peer: &Peer) -> Vec<Reply> {
        let mut replies = Vec::new();
        assert_eq!(peer.take(&mut replies), None);
        replies
    }
}

struct Run {
    real: Real,
    model: Model,
    steps: u64,
}

impl Run {
    fn step(&mut self, op: &Op) {
        match *op {
            Op::Connect { client, clean, kept, ref will } => self.connect(client, clean, kept, will.clone()),
            Op::Tick { seconds } => {
                self.real.now.ms += seconds * 1000;
                self.model.tick(self.real.now.ms);
                let staged = self.real.control(None, Cargo::Tick);
                self.model.settle(&staged, false);
            }
            Op::Subscribe { client, filter, qos, published, handling } => {
                self.subscribe(client, filter, Wish { qos, published }, handling);
            }
            Op::Unsubscribe { client, filter } => self.unsubscribe(client, filter),
            Op::Publish { client, topic, qos, retain, empty } => {
                self.publish(client, TOPICS[topic], qos, retain, empty);
            }
            Op::Read { client, window } => self.read(client, window),
            Op::Acknowledge { client, which } => self.acknowledge(client, which),
            Op::Close { client, with_will, end } => self.close(client, with_will, end),
        }
        self.steps += 1;
        let (model, state) = (&self.model, &self.real.state);
        assert_eq!(state.seats.len(), model.sessions.len());
        assert_eq!(state.seats.persistent(), model.sessions.values().filter(|session| session.kept).count());
        assert_eq!(state.index.len(), model.sessions.values().map(|session| session.filters.len()).sum::<usize>());
        assert_eq!(state.retained.topics(), model.retained.len());
    }

    fn connect(&mut self, client: usize, clean: bool, kept: bool, will: Option<WillOf>) {
        let payload = format!("will {}", self.steps);
        // The first client's wills are never delayed: whether No Local holds for them MQTT does not say.
        let will = will.map(|will| (payload, WillOf { delayed: will.delayed && client > 0, ..will }));
        let id = ClientId::new(client.to_string()).unwrap();
        let origin = Origin { door: Door::Mqtt, client: Some(id.clone()), user: None, may_start: false };
        let peer = Peer::new(origin, None);
        let (reply, mut opened) = oneshot::channel();
        let cargo = OpenCargo {
            client: id,
            clean_start: clean,
            expiry: if kept { KEPT } else { 0 },
            will: will.clone().map(|(payload, will)| Will {
                topic: format!("w/{client}"),
                payload: payload.into(),
                qos: QoS::from_u8(will.qos).unwrap(),
                retain: will.retain,
                delay: if will.delayed { 5 } else { 0 },
                expiry: None,
                properties: Default::default(),
            }),
            marks: Marks::of(4 << 20, 100_000),
            reply,
        };
        let present = self.model.connect(client, clean, kept, will);
        let staged = self.real.control(Some(Arc::clone(&peer)), Cargo::Open(Box::new(cargo)));
        let opened = opened.try_recv().unwrap().unwrap();
        assert_eq!(opened.present, present);
        self.model.settle(&staged, true);
        let resend: Vec<_> = opened.session.handshakes.lock().resend();
        let resend = resend.iter().map(|one| match one {
            Resend::Publish(_, entry) => Got::of(entry),
            Resend::PubRel(_) => panic!("every PUBREC is followed by its PUBCOMP here"),
        });
        assert_eq!(resend.collect::<Vec<_>>(), self.model.sessions[&client].unacknowledged);
        if let Some((old, session)) = self.real.connections.insert(client, (Arc::clone(&peer), opened.session)) {
            assert_eq!(old.take(&mut Vec::new()), Some(Kick::SessionTakenOver));
            assert!(session.take(old.id, 1, 1, &mut Vec::new()).is_err() || !present);
            // The end of the old connection comes late and changes nothing.
            let close = CloseCargo { with_will: true, expiry: Some(0) };
            assert!(self.real.control(Some(old), Cargo::Close(close)).is_empty());
        }
    }

    fn subscribe(&mut self, client: usize, filter: usize, wish: Wish, handling: u8) {
        let Some((peer, _)) = self.real.connections.get(&client).cloned() else { return };
        let is_shared = shared(filter).is_some();
        let options = SubscribeOptions {
            qos: QoS::from_u8(wish.qos).unwrap(),
            no_local: client == 0 && !is_shared,
            retain_as_published: wish.published,
            retain_handling: handling,
        };
        let id = Some(filter as u32 + if is_shared { 100 } else { 1 });
        let filters = vec![Ok((TopicFilter::new(FILTERS[filter]).unwrap(), Asked { options, id, internal: false }))];
        let cargo = SubscribeCargo { packet_id: 7, filters, done: None };
        self.model.subscribe(client, filter, wish, handling);
        let staged = self.real.control(Some(Arc::clone(&peer)), Cargo::Subscribe(Box::new(cargo)));
        self.model.settle(&staged, true);
        assert_eq!(Real::replies(&peer), [Reply::SubAck { packet_id: 7, codes: vec![wish.qos] }]);
    }

    fn unsubscribe(&mut self, client: usize, filter: usize) {
        let Some((peer, _)) = self.real.connections.get(&client).cloned() else { return };
        let known = self.model.sessions.get_mut(&client).unwrap().filters.remove(&filter).is_some();
        let filters = vec![Ok(TopicFilter::new(FILTERS[filter]).unwrap())];
        let cargo = Cargo::Unsubscribe(Box::new(UnsubscribeCargo { packet_id: 8, filters }));
        assert!(self.real.control(Some(Arc::clone(&peer)), cargo).is_empty());
        let codes = vec![if known { 0 } else { 0x11 }];
        assert_eq!(Real::replies(&peer), [Reply::UnsubAck { packet_id: 8, codes }]);
    }

    fn publish(&mut self, client: usize, topic: &str, qos: u8, retain: bool, empty: bool) {
        let Some((peer, session)) = self.real.connections.get(&client).cloned() else { return };
        let payload = if empty { String::new() } else { self.steps.to_string() };
        let matched = self.model.route(Some(client), topic, &payload, qos, retain);
        let draft = Draft::publish(&PublishDraft {
            topic: topic.as_bytes(),
            properties: b"",
            payload: payload.as_bytes(),
            qos: QoS::from_u8(qos).unwrap(),
            retain,
            dup: false,
            packet_id: if qos > 0 { 9 } else { 0 },
            received: self.real.now.ms,
            expires: 0,
        });
        if qos == 2 {
            session.handshakes.lock().receive(peer.id, 9).unwrap();
        }
        let ack = if qos > 0 { Ack::Client } else { Ack::None };
        let staged = self.real.apply(draft, Some(Arc::clone(&peer)), Cargo::Publish(ack));
        self.model.settle(&staged, true);
        let reason = if matched { 0 } else { NO_MATCH };
        let kind = if qos == 2 { AckKind::PubRec } else { AckKind::PubAck };
        let expected = (qos > 0).then_some(Reply::Ack { kind, packet_id: 9, reason });
        assert_eq!(Real::replies(&peer), expected.into_iter().collect::<Vec<_>>());
        if qos == 2 {
            assert_eq!(session.handshakes.lock().pubrel(peer.id, 9), Ok(true));
        }
    }

    fn read(&mut self, client: usize, window: u16) {
        let Some((peer, session)) = self.real.connections.get(&client).cloned() else { return };
        let mut out = Vec::new();
        session.take(peer.id, usize::MAX, window, &mut out).unwrap();
        let model = self.model.sessions.get_mut(&client).unwrap();
        let mut window = usize::from(window).saturating_sub(model.unacknowledged.len());
        let mut count = 0;
        for got in &model.queue {
            if got.qos > 0 && window == 0 {
                break;
            }
            window -= usize::from(got.qos > 0);
            count += 1;
        }
        let expected: Vec<_> = model.queue.drain(..count).collect();
        assert_eq!(out.iter().map(Got::of).collect::<Vec<_>>(), expected);
        model.unacknowledged.extend(expected.into_iter().filter(|got| got.qos > 0));
    }

    fn acknowledge(&mut self, client: usize, which: usize) {
        let Some((peer, session)) = self.real.connections.get(&client).cloned() else { return };
        let mut shakes = session.handshakes.lock();
        let ids: Vec<_> = shakes
            .resend()
            .iter()
            .map(|one| match one {
                Resend::Publish(id, _) | Resend::PubRel(id) => *id,
            })
            .collect();
        let Some(id) = ids.get(which) else { return };
        let got = self.model.sessions.get_mut(&client).unwrap().unacknowledged.remove(which);
        match got.qos {
            1 => assert_eq!(shakes.puback(peer.id, *id), Ok(true)),
            _ => {
                assert_eq!(shakes.pubrec(peer.id, *id, 0), Ok(true));
                assert_eq!(shakes.pubcomp(peer.id, *id), Ok(true));
            }
        }
    }

    fn close(&mut self, client: usize, with_will: bool, end: bool) {
        let Some((peer, _)) = self.real.connections.remove(&client) else { return };
        self.model.close(client, with_will, end, self.real.now.ms);
        let cargo = CloseCargo { with_will, expiry: end.then_some(0) };
        let staged = self.real.control(Some(peer), Cargo::Close(cargo));
        self.model.settle(&staged, true);
    }
}

#[test]
fn random_histories_agree_with_the_model() {
    let cases = std::env::var("STREAM_MODEL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(512);
    let steps = std::cell::Cell::new(0);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let checked = TestRunner::new(config).run(&prop::collection::vec(op(), 1..120), |ops| {
        let mut run = Run { real: Real::new(), model: Model::default(), steps: 0 };
        ops.iter().for_each(|op| run.step(op));
        steps.set(steps.get() + run.steps);
        Ok(())
    });
    if let Err(failure) = checked {
        panic!("{failure}");
    }
    println!("{cases} histories, {} steps", steps.get());
    assert!(steps.get() > u64::from(cases) * 30);
}
