//! One history, carried out by the stream and by the model side by side; after every step each session must have got the same.

use super::{restart::Keeper, *};

/// The stream with its surroundings.
pub(super) struct Real {
    pub state: State,
    pub effects: Effects,
    pub store: Keeper,
    pub now: Now,
    pub connections: BTreeMap<usize, (Arc<Peer>, Arc<Session>)>,
    number: u64,
}

impl Real {
    pub fn new(store: Keeper) -> Self {
        Self {
            state: Self::empty(),
            effects: Effects::default(),
            store,
            // Not before the clock's time: the store looks at that when it is opened.
            now: Now { ms: now_ms(), instant: Instant::now() },
            connections: BTreeMap::new(),
            number: 0,
        }
    }

    pub fn empty() -> State {
        let metrics = Metrics::new(&mut Registry::default());
        State::new(Limits::default(), Vec::new(), Window::new(1 << 20), Arc::default(), metrics)
    }

    /// Applies one envelope and carries out its effects; what was staged for each client comes back.
    fn apply(&mut self, draft: Draft, peer: Option<Arc<Peer>>, cargo: Cargo) -> BTreeMap<usize, Vec<Got>> {
        self.number += 1;
        let envelope = draft.stamp(0, self.number);
        let flight = Flight { seq: self.number, envelope, cost: 0, stored: 0, peer, cargo, since: self.now.instant };
        self.state.apply(flight, self.now, &mut self.effects);
        let mut staged = BTreeMap::new();
        while self.round(&mut staged) {}
        staged
    }

    /// The rest of a round; whether there is more to do.
    fn round(&mut self, staged: &mut BTreeMap<usize, Vec<Got>>) -> bool {
        let mut more = self.state.has_pools() && self.state.advance_pools(&mut self.effects);
        let clients = self.state.seats.iter().filter(|(_, seat)| seat.owner == crate::broker::store::Owner::Client);
        for (_, seat) in clients.filter(|(_, seat)| !seat.stage.is_empty()) {
            let client = seat.session.client.as_str().parse().unwrap();
            staged.entry(client).or_default().extend(seat.stage.iter().map(Got::of));
        }
        if let Some(group) = self.state.finish(&mut self.effects, self.now) {
            // Its rows may be what a queue waits for.
            more |= self.state.has_pools() && !group.queues.is_empty();
            self.store.submit(group);
        }
        for session in self.effects.take_pages() {
            self.store.load(&session);
            more = true;
        }
        more
    }

    pub fn control(&mut self, peer: Option<Arc<Peer>>, cargo: Cargo) -> BTreeMap<usize, Vec<Got>> {
        self.apply(Draft::control(), peer, cargo)
    }

    fn replies(peer: &Peer) -> Vec<Reply> {
        let mut replies = Vec::new();
        assert_eq!(peer.take(&mut replies), None);
        replies
    }
}

pub(super) struct Run {
    pub real: Real,
    pub model: Model,
    /// Packet ids of what each client has not acknowledged.
    pub sent: BTreeMap<usize, Vec<u16>>,
    pub steps: u64,
}

impl Run {
    pub fn new(store: Keeper) -> Self {
        Self { real: Real::new(store), model: Model::default(), sent: BTreeMap::new(), steps: 0 }
    }

    pub fn step(&mut self, op: &Op) {
        match *op {
            Op::Connect { client, clean, kept, ref will } => self.connect(client, clean, kept, will.clone()),
            Op::Tick { seconds } => {
                self.real.now.ms += seconds * 1000;
                self.tick();
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
            Op::Restart { in_order } => self.restart(in_order),
        }
        self.steps += 1;
        let (model, state) = (&self.model, &self.real.state);
        assert_eq!(state.seats.len(), model.sessions.len());
        assert_eq!(state.seats.persistent(), model.sessions.values().filter(|session| session.kept).count());
        assert_eq!(state.index.len(), model.sessions.values().map(|session| session.filters.len()).sum::<usize>());
        assert_eq!(state.retained.topics(), model.retained.len());
    }

    pub fn tick(&mut self) {
        self.model.tick(self.real.now.ms);
        let staged = self.real.control(None, Cargo::Tick);
        self.model.settle(&staged, false);
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
            inside: false,
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
        self.sent.remove(&client);
        if let Some((old, session)) = self.real.connections.insert(client, (Arc::clone(&peer), opened.session)) {
            assert_eq!(old.take(&mut Vec::new()), Some(Kick::SessionTakenOver));
            assert!(session.take(old.id, 1, 1, &mut Vec::new()).is_err() || !present);
            // The end of the old connection comes late and changes nothing.
            let close = CloseCargo { with_will: true, expiry: Some(0), done: None, _departure: None };
            assert!(self.real.control(Some(old), Cargo::Close(close)).is_empty());
        }
    }

    fn subscribe(&mut self, client: usize, filter: usize, wish: Wish, handling: u8) {
        let Some((peer, _)) = self.real.connections.get(&client).cloned() else { return };
        let is_shared = shared(filter).is_some();
        let options = SubscribeOptions {
            qos: QoS::from_u8(wish.qos).unwrap(),
            no_local: no_local(client, filter),
            retain_as_published: wish.published,
            retain_handling: handling,
        };
        let id = Some(filter as u32 + if is_shared { 100 } else { 1 });
        let filters = vec![Ok((TopicFilter::new(FILTERS[filter]).unwrap(), Asked { options, id, internal: false }))];
        let cargo = SubscribeCargo { packet_id: 7, filters, done: None, all: false };
        self.model.subscribe(client, filter, wish, handling);
        let staged = self.real.control(Some(Arc::clone(&peer)), Cargo::Subscribe(Box::new(cargo)));
        self.model.settle(&staged, true);
        assert_eq!(Real::replies(&peer), [Reply::SubAck { packet_id: 7, codes: vec![wish.qos] }]);
    }

    fn unsubscribe(&mut self, client: usize, filter: usize) {
        let Some((peer, _)) = self.real.connections.get(&client).cloned() else { return };
        let known = self.model.sessions.get_mut(&client).unwrap().filters.remove(&filter).is_some();
        if known {
            self.model.left([filter].into_iter());
        }
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
            self.complete(&peer, &session);
        }
    }

    /// The publisher's PUBREL.
    fn complete(&mut self, peer: &Arc<Peer>, session: &Arc<Session>) {
        let released = session.handshakes.lock().pubrel(peer.id, 9);
        if session.sid.is_none() {
            assert_eq!(released, Ok(Released::Now));
            return;
        }
        assert_eq!(released, Ok(Released::Later));
        self.real.store.touch(session);
        let replies = self.real.store.answer(|| Real::replies(peer));
        assert_eq!(replies, [Reply::Ack { kind: AckKind::PubComp, packet_id: 9, reason: 0 }]);
    }

    fn read(&mut self, client: usize, window: u16) {
        let Some((peer, session)) = self.real.connections.get(&client).cloned() else { return };
        let mut out = Vec::new();
        loop {
            let before = out.len();
            let taken = session.take(peer.id, usize::MAX, window, &mut out).unwrap();
            if taken.page {
                self.real.store.load(&session);
            } else if out.len() == before {
                break;
            }
        }
        let model = self.model.sessions.get_mut(&client).unwrap();
        let mut window = usize::from(window).saturating_sub(model.unacknowledged.len());
        let mut count = 0;
        for (got, _) in &model.queue {
            if got.qos > 0 && window == 0 {
                break;
            }
            window -= usize::from(got.qos > 0);
            count += 1;
        }
        let expected: Vec<_> = model.queue.drain(..count).collect();
        let sent = self.sent.entry(client).or_default();
        let unsure = model.unsure.min(count);
        model.unsure -= unsure;
        let mut out: Vec<_> = out
            .iter()
            .map(|parcel| match parcel {
                Parcel::Publish { entry, again } => {
                    sent.extend((entry.qseq > 0).then(|| packet_id(entry.qseq)));
                    (Got::of(entry), *again)
                }
                Parcel::PubRel(_) => panic!("every PUBREC is followed by its PUBCOMP here"),
            })
            .collect();
        for ((_, again), (_, expected)) in out.iter_mut().zip(&expected).take(unsure) {
            *again = *expected;
        }
        assert_eq!(out, expected);
        model.unacknowledged.extend(expected.into_iter().map(|(got, _)| got).filter(|got| got.qos > 0));
    }

    fn acknowledge(&mut self, client: usize, which: usize) {
        let Some((peer, session)) = self.real.connections.get(&client).cloned() else { return };
        let sent = self.sent.entry(client).or_default();
        if which >= sent.len() {
            return;
        }
        let id = sent.remove(which);
        let got = self.model.sessions.get_mut(&client).unwrap().unacknowledged.remove(which);
        let shakes = || session.handshakes.lock();
        match (got.qos, session.sid) {
            (1, _) => assert_eq!(shakes().puback(peer.id, id), Ok(true)),
            (_, None) => assert_eq!(shakes().pubrec(peer.id, id, 0), Ok(Released::Now)),
            (_, Some(_)) => {
                assert_eq!(shakes().pubrec(peer.id, id, 0), Ok(Released::Later));
                self.real.store.touch(&session);
                let replies = self.real.store.answer(|| Real::replies(&peer));
                assert_eq!(replies, [Reply::Ack { kind: AckKind::PubRel, packet_id: id, reason: 0 }]);
            }
        }
        if got.qos == 2 {
            assert_eq!(shakes().pubcomp(peer.id, id), Ok(true));
        }
        if session.sid.is_some() {
            self.real.store.touch(&session);
        }
    }

    pub fn close(&mut self, client: usize, with_will: bool, end: bool) {
        let Some((peer, _)) = self.real.connections.remove(&client) else { return };
        self.model.close(client, with_will, end, self.real.now.ms);
        let cargo = CloseCargo { with_will, expiry: end.then_some(0), done: None, _departure: None };
        let staged = self.real.control(Some(peer), Cargo::Close(cargo));
        self.model.settle(&staged, true);
    }
}

#[test]
fn random_histories_agree_with_the_model() {
    let cases = std::env::var("STREAM_MODEL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(2_000);
    let steps = std::cell::Cell::new(0);
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let checked = TestRunner::new(config).run(&prop::collection::vec(op(), 1..120), |ops| {
        let mut run = Run::new(Keeper::Memory(MemoryStore::default()));
        ops.iter().for_each(|op| run.step(op));
        steps.set(steps.get() + run.steps);
        Ok(())
    });
    if let Err(failure) = checked {
        panic!("{failure}");
    }
    println!("{cases} histories, {} steps", steps.get());
    assert!(steps.get() > u64::from(cases) * 50);
}
