//! Carries a history out over real sockets, and holds what every client gets against the model after every operation.
//!
//! A client that waits for acknowledgements gets no fence, because its window is full: of such a client the model knows what it has come to;
//! should it get more, that shows at its next operation.

use std::{
    array,
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::io::AsyncWriteExt;

use super::{
    CLIENTS, FENCE, FILTERS, TOPICS,
    ops::{Op, Parting, Stray, WillOf, Wrong},
    shared,
    spec::{Coming, Got, Model, Seen, Wish},
};
use crate::support::raw::{Hello, Raw, text};

/// Sessions and wills wait longer than any test runs, seconds.
const LONG: u32 = 1_000_000;
/// What is handed over between members of a group has this long.
const PATIENCE: Duration = Duration::from_secs(20);
/// An id no client uses.
const STRAY: u16 = 60_000;

/// A packet that is no message: first byte and body.
type Answer = (u8, Vec<u8>);

pub struct Driver {
    address: SocketAddr,
    raws: [Option<Raw>; CLIENTS],
    seen: [Vec<Seen>; CLIENTS],
    answers: [VecDeque<Answer>; CLIENTS],
    /// Hears every fence, whoever else is there; sends them where the client of the operation is not.
    warden: Raw,
    pub model: Model,
    fences: u32,
    step: u32,
}

impl Driver {
    pub async fn new(address: SocketAddr) -> Self {
        let (mut warden, _) = Raw::connect(address, &Hello::v3("warden")).await;
        assert_eq!(warden.subscribe(FENCE, 0).await, 0);
        Self {
            address,
            raws: array::from_fn(|_| None),
            seen: Default::default(),
            answers: Default::default(),
            warden,
            model: Model::default(),
            fences: 0,
            step: 0,
        }
    }

    /// Carries an operation out, if it means something now; whether it does.
    pub async fn apply(&mut self, op: &Op) -> bool {
        self.step += 1;
        let client = op.client();
        match *op {
            Op::Connect { client, version, clean, kept, window, will } => {
                let will = will.map(|will| (format!("will {}", self.step), will));
                self.connect(client, Coming { version, clean, kept, window, will }).await;
            }
            _ if !self.model.is_online(client) => return false,
            Op::Subscribe { filter, qos, published, no_local, handling, .. } => {
                self.subscribe(client, filter, Wish { qos, published, no_local, id: None }, handling).await;
            }
            Op::Unsubscribe { filter, .. } => self.unsubscribe(client, filter).await,
            Op::Publish { topic, qos, retain, empty, .. } => {
                self.publish(client, TOPICS[topic], qos, retain, empty).await;
            }
            Op::Release { which, .. } => return self.release(client, which).await,
            Op::Repeat { which, .. } => return self.repeat(client, which).await,
            Op::Acknowledge { which, refuse, .. } => {
                if which >= self.model.sessions[&client].sent.len() {
                    return false;
                }
                self.acknowledge(client, which, refuse).await;
            }
            Op::AcknowledgeAll { .. } => self.acknowledge_all(client).await,
            Op::Stray { what, .. } => self.stray(client, what).await,
            Op::Close { parting, .. } => return self.close(client, parting).await,
            Op::Misbehave { how, .. } => self.misbehave(client, how).await,
        }
        self.settle(client).await;
        true
    }

    fn raw(&mut self, client: usize) -> &mut Raw {
        self.raws[client].as_mut().expect("a connection")
    }

    fn version(&self, client: usize) -> u8 {
        self.model.sessions[&client].version
    }

    /// Reads one packet; whether there was one.
    async fn read(&mut self, client: usize) -> bool {
        let raw = self.raw(client);
        let Some((first, body)) = raw.receive().await else { return false };
        match first {
            0x30..0x40 => {
                let got = raw.read_publish(first, &body);
                let seen = Seen::Publish { id: got.id, got: understood(&got) };
                self.seen[client].push(seen);
            }
            // What the broker says of an id it does not know is an answer.
            0x62 if body.len() < 3 || body[2] == 0 => {
                self.seen[client].push(Seen::Release(u16::from_be_bytes([body[0], body[1]])));
            }
            _ => self.answers[client].push_back((first, body)),
        }
        true
    }

    /// The next packet that is no message.
    async fn answer(&mut self, client: usize) -> Answer {
        loop {
            if let Some(answer) = self.answers[client].pop_front() {
                return answer;
            }
            assert!(self.read(client).await, "the broker closed the connection of client {client}");
        }
    }

    /// An acknowledgement: its id and code.
    async fn expect(&mut self, client: usize, first: u8, id: u16, code: u8) {
        let (found, body) = self.answer(client).await;
        let said = body.get(2).copied().unwrap_or(0);
        let code = if self.version(client) == 5 { code } else { 0 };
        assert_eq!((found, u16::from_be_bytes([body[0], body[1]]), said), (first, id, code), "client {client}");
    }

    /// Waits until everything the operation brings has come, and compares.
    async fn settle(&mut self, by: usize) {
        self.model.pump();
        for client in 0..CLIENTS {
            self.catch_up(client).await;
        }
        let began = Instant::now();
        loop {
            self.fence(by).await;
            if !self.is_missing() || began.elapsed() > PATIENCE {
                break;
            }
            tokio::task::yield_now().await;
        }
        if let Err(why) = self.model.settle(&mut self.seen) {
            panic!("{why}; the model: {:#?}", self.model);
        }
        assert!(self.answers.iter().all(VecDeque::is_empty), "nobody asked for {:?}", self.answers);
    }

    fn expected(&self, client: usize) -> usize {
        self.model.sessions.get(&client).map_or(0, |session| session.expected.len())
    }

    async fn catch_up(&mut self, client: usize) {
        while self.seen[client].len() < self.expected(client) {
            assert!(self.read(client).await, "the broker closed the connection of client {client}");
        }
    }

    /// Whether a message that a group must get is not there beside the copies clients get on their own account.
    fn is_missing(&self) -> bool {
        let sessions = self.model.sessions.values();
        let own: Vec<_> = sessions.flat_map(|session| &session.expected).filter(|owed| !owed.released).collect();
        self.model.groups.iter().filter(|(_, message)| message.qos > 0).any(|(_, message)| {
            let same = |got: &Got| got.topic == message.topic && got.payload == message.payload;
            let seen = self.seen.iter().flatten().filter(|seen| matches!(seen, Seen::Publish { got, .. } if same(got)));
            let own = own.iter().filter(|owed| same(&owed.got)).count();
            let groups = self.model.groups.iter().filter(|(_, other)| {
                other.qos > 0 && (&other.topic, &other.payload) == (&message.topic, &message.payload)
            });
            seen.count() < own + groups.count()
        })
    }

    /// A message goes to everybody behind all there is, and everybody who can get it has got it.
    async fn fence(&mut self, by: usize) {
        self.fences += 1;
        let payload = self.fences.to_string();
        let from = if self.raws[by].is_some() { by } else { CLIENTS };
        self.model.route(from, FENCE, &payload, 0, false);
        self.model.pump();
        // On the connection of the operation it comes after what was sent there before.
        let sender = self.raws[by].as_mut().unwrap_or(&mut self.warden);
        sender.publish(FENCE, payload.as_bytes(), 0, 0, false).await;
        assert_eq!(self.warden.receive_publish().await.payload, payload.as_bytes());
        for client in 0..CLIENTS {
            let waits = self.model.sessions.get(&client).is_none_or(|session| !session.online || session.is_stuck());
            let is_fence =
                |seen: &Seen| matches!(seen, Seen::Publish { got, .. } if got.topic == FENCE && got.payload == payload);
            while !waits && !self.seen[client].last().is_some_and(is_fence) {
                assert!(self.read(client).await, "the broker closed the connection of client {client}");
            }
        }
    }

    async fn connect(&mut self, client: usize, coming: Coming) {
        let (version, hello) = (coming.version, hello(client, &coming));
        let old = self.raws[client].take();
        let old_version = self.model.sessions.get(&client).map_or(0, |session| session.version);
        let present = self.model.connect(client, coming);
        let (raw, connack) = Raw::connect(self.address, &hello).await;
        assert_eq!(connack[..2], [u8::from(present), 0], "CONNACK of client {client}");
        self.raws[client] = Some(raw);
        if let Some(mut old) = old {
            if old_version == 5 {
                let (first, body) = old.receive().await.expect("a DISCONNECT");
                assert_eq!((first, body[0]), (0xe0, 0x8e), "the old connection of client {client} is told");
            }
            assert!(old.is_closed().await, "the old connection of client {client} gets nothing more");
        }
        // Retain handling 2: there is nothing retained there.
        let packet = subscription(version, FENCE, if version == 5 { 0x20 } else { 0 }, None);
        self.raw(client).send(0x82, &packet).await;
        let (first, body) = self.answer(client).await;
        assert_eq!((first, body.last()), (0x90, Some(&0)));
    }

    async fn subscribe(&mut self, client: usize, filter: usize, wish: Wish, handling: u8) {
        let is_shared = shared(filter).is_some();
        let version = self.version(client);
        // What 3.1.1 does not have.
        let (wish, handling) = match version {
            5 => {
                let id = filter as u32 + if is_shared { 100 } else { 1 };
                (Wish { no_local: wish.no_local && !is_shared, id: Some(id), ..wish }, handling)
            }
            _ => (Wish { qos: wish.qos, published: false, no_local: false, id: None }, 0),
        };
        let options = wish.qos | u8::from(wish.no_local) << 2 | u8::from(wish.published) << 3 | handling << 4;
        self.model.subscribe(client, filter, wish, handling);
        self.raw(client).send(0x82, &subscription(version, FILTERS[filter], options, wish.id)).await;
        let (first, body) = self.answer(client).await;
        assert_eq!((first, body.last()), (0x90, Some(&wish.qos)), "SUBACK of client {client}");
    }

    async fn unsubscribe(&mut self, client: usize, filter: usize) {
        let known = self.model.unsubscribe(client, filter);
        let mut body = vec![0, 1];
        let version = self.version(client);
        body.extend((version == 5).then_some(0));
        text(&mut body, FILTERS[filter].as_bytes());
        self.raw(client).send(0xa2, &body).await;
        let (first, body) = self.answer(client).await;
        let code = (version == 5).then_some(if known { 0 } else { 0x11 });
        assert_eq!((first, body.get(3)), (0xb0, code.as_ref()), "UNSUBACK of client {client}");
    }

    async fn publish(&mut self, client: usize, topic: &str, qos: u8, retain: bool, empty: bool) {
        let payload = if empty { String::new() } else { self.step.to_string() };
        let allowed = !topic.starts_with('$');
        let matched = allowed && self.model.route(client, topic, &payload, qos, retain);
        let id = self.free_id(client);
        let first = 0x30 | qos << 1 | u8::from(retain);
        self.raw(client).publish_with(first, topic, id, &[], payload.as_bytes()).await;
        let code = match (allowed, matched) {
            (false, _) => 0x87,
            (_, true) => 0,
            (_, false) => 0x10,
        };
        match qos {
            0 => {}
            1 => self.expect(client, 0x40, id, code).await,
            _ => {
                self.expect(client, 0x50, id, code).await;
                if allowed {
                    self.model.sessions.get_mut(&client).unwrap().incoming.insert(id);
                } else if self.version(client) == 4 {
                    // It goes nowhere, but 3.1.1 has no word for that: the handshake goes on.
                    self.raw(client).ack(0x62, id).await;
                    self.expect(client, 0x70, id, 0).await;
                }
            }
        }
    }

    fn free_id(&self, client: usize) -> u16 {
        let open = &self.model.sessions[&client].incoming;
        (1..).find(|id| !open.contains(id)).unwrap()
    }

    fn open_id(&self, client: usize, which: usize) -> Option<u16> {
        self.model.sessions[&client].incoming.iter().nth(which).copied()
    }

    async fn release(&mut self, client: usize, which: usize) -> bool {
        let Some(id) = self.open_id(client, which) else { return false };
        self.raw(client).ack(0x62, id).await;
        self.expect(client, 0x70, id, 0).await;
        self.model.sessions.get_mut(&client).unwrap().incoming.remove(&id);
        self.settle(client).await;
        true
    }

    async fn repeat(&mut self, client: usize, which: usize) -> bool {
        let Some(id) = self.open_id(client, which) else { return false };
        self.raw(client).publish("a", b"again", 2, id, true).await;
        self.expect(client, 0x50, id, 0).await;
        self.settle(client).await;
        true
    }

    async fn acknowledge(&mut self, client: usize, which: usize, refuse: bool) {
        let version = self.version(client);
        let session = self.model.sessions.get_mut(&client).unwrap();
        let sent = session.sent[which].clone();
        let id = sent.id.expect("what was sent has an id");
        match (sent.got.qos, sent.released) {
            (1, _) => {
                session.settled(which);
                self.raw(client).ack(0x40, id).await;
            }
            (_, true) => {
                session.settled(which);
                self.raw(client).ack(0x70, id).await;
            }
            (_, false) if refuse && version == 5 => {
                session.settled(which);
                let [high, low] = id.to_be_bytes();
                self.raw(client).send(0x50, &[high, low, 0x97]).await;
            }
            (_, false) => {
                session.sent[which].released = true;
                let release = session.sent[which].clone();
                session.expected.push(release);
                self.raw(client).ack(0x50, id).await;
            }
        }
    }

    async fn acknowledge_all(&mut self, client: usize) {
        while !self.model.sessions[&client].sent.is_empty() {
            self.acknowledge(client, 0, false).await;
            self.settle(client).await;
        }
    }

    async fn stray(&mut self, client: usize, what: Stray) {
        let version = self.version(client);
        let raw = self.raw(client);
        match what {
            Stray::PubAck => raw.ack(0x40, STRAY).await,
            Stray::PubComp => raw.ack(0x70, STRAY).await,
            Stray::PubRel => {
                raw.ack(0x62, STRAY).await;
                self.expect(client, 0x70, STRAY, 0x92).await;
            }
            Stray::PubRec => {
                raw.ack(0x50, STRAY).await;
                if version == 5 {
                    self.expect(client, 0x62, STRAY, 0x92).await;
                } else {
                    while self.seen[client].last() != Some(&Seen::Release(STRAY)) {
                        assert!(self.read(client).await);
                    }
                    self.seen[client].pop();
                }
            }
            Stray::Ping => {
                raw.send(0xc0, &[]).await;
                assert_eq!(self.answer(client).await, (0xd0, vec![]));
            }
            Stray::Filter => {
                raw.send(0x82, &subscription(version, "a/#/b", 0, None)).await;
                let (first, body) = self.answer(client).await;
                let code = if version == 5 { 0x8f } else { 0x80 };
                assert_eq!((first, body.last()), (0x90, Some(&code)));
            }
        }
    }

    async fn close(&mut self, client: usize, parting: Parting) -> bool {
        let version = self.version(client);
        if version == 4 && matches!(parting, Parting::WithWill | Parting::Ending) {
            return false;
        }
        let raw = self.raw(client);
        match parting {
            // Half of it: that the broker closes the other half shows that it knows.
            Parting::Lost => raw.stream.shutdown().await.unwrap(),
            Parting::Goodbye => raw.send(0xe0, &[]).await,
            Parting::WithWill => raw.send(0xe0, &[4]).await,
            Parting::Ending => raw.send(0xe0, &[0, 5, 0x11, 0, 0, 0, 0]).await,
        }
        self.closed(client, None).await;
        let with_will = matches!(parting, Parting::Lost | Parting::WithWill);
        self.model.close(client, with_will, parting == Parting::Ending);
        self.settle(client).await;
        true
    }

    async fn misbehave(&mut self, client: usize, how: Wrong) {
        let version = self.version(client);
        let raw = self.raw(client);
        let code = match how {
            Wrong::Wildcard => {
                raw.publish("a/+", b"", 1, 9, false).await;
                0x90
            }
            Wrong::Connect => {
                raw.send(0x10, &Hello::new(version, "c").body()).await;
                0x82
            }
            Wrong::Reserved => {
                raw.send(0, &[]).await;
                0x81
            }
            Wrong::Qos => {
                raw.publish("a", b"", 3, 9, false).await;
                0x81
            }
            Wrong::NoFilter => {
                raw.send(0x82, if version == 5 { &[0, 1, 0] } else { &[0, 1] }).await;
                0x82
            }
        };
        self.closed(client, (version == 5).then_some(code)).await;
        self.model.close(client, true, false);
    }

    /// The broker closes the connection, and says why in MQTT 5.0 if the fault is the client's.
    async fn closed(&mut self, client: usize, code: Option<u8>) {
        while self.read(client).await {}
        let said: Vec<_> = self.answers[client].drain(..).map(|(first, body)| (first, body[0])).collect();
        assert_eq!(said, code.map(|code| (0xe0, code)).into_iter().collect::<Vec<_>>(), "client {client}");
        assert_eq!(self.seen[client], [], "client {client} got something before its end");
        self.raws[client] = None;
    }
}

fn hello(client: usize, coming: &Coming) -> Hello {
    let mut hello = Hello::new(coming.version, &format!("c{client}"));
    hello.clean = coming.clean;
    if coming.version == 5 {
        if coming.kept {
            hello.properties.push(0x11);
            hello.properties.extend(LONG.to_be_bytes());
        }
        if let Some(window) = coming.window {
            hello.properties.push(0x21);
            hello.properties.extend(window.to_be_bytes());
        }
    }
    if let Some((payload, WillOf { qos, retain, delayed })) = &coming.will {
        hello.will = Some((format!("w/{client}"), payload.clone(), *qos));
        hello.will_retain = *retain;
        if *delayed {
            hello.will_properties.push(0x18);
            hello.will_properties.extend(LONG.to_be_bytes());
        }
    }
    hello
}

/// What stands in a SUBSCRIBE behind the fixed header.
fn subscription(version: u8, filter: &str, options: u8, id: Option<u32>) -> Vec<u8> {
    let mut body = vec![0, 1];
    if version == 5 {
        let properties: Vec<u8> = id.into_iter().flat_map(|id| [0x0b, id as u8]).collect();
        body.push(properties.len() as u8);
        body.extend(properties);
    }
    text(&mut body, filter.as_bytes());
    body.push(options);
    body
}

/// A message as the model speaks of it: its only properties are the identifiers of subscriptions, all of them below 128.
fn understood(got: &crate::support::raw::Got) -> Got {
    let mut ids: Vec<_> = got
        .properties
        .chunks(2)
        .map(|pair| {
            assert_eq!(pair[0], 0x0b, "{got:?}");
            u32::from(pair[1])
        })
        .collect();
    ids.sort_unstable();
    let payload = String::from_utf8(got.payload.clone()).unwrap();
    Got { dup: got.dup, ..Got::new(&got.topic, &payload, got.qos, got.retain, ids) }
}
