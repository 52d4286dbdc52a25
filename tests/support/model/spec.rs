//! The model: what MQTT 3.1.1 and 5.0 say about who gets what, and what clients have to acknowledge.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::{CLIENTS, FENCE, FILTERS, TO_FENCE, matches, ops::WillOf, shared};

/// What the broker keeps in flight towards a client that says nothing about it.
const INFLIGHT: usize = 1_024;

/// A PUBLISH as a client sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    pub topic: String,
    pub payload: String,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    /// Identifiers of the subscriptions, in order.
    pub ids: Vec<u32>,
}

/// What a client is owed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owed {
    pub got: Got,
    /// Packet id, once it was sent.
    pub id: Option<u16>,
    /// Its PUBREC came: what is owed is a PUBREL.
    pub released: bool,
    /// The shared group it came by, and which of its lives.
    pub group: Option<(usize, u32)>,
    /// QoS and RETAIN it was published with.
    pub published: (u8, bool),
}

/// What a client got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    Publish { got: Got, id: u16 },
    Release(u16),
}

#[derive(Debug, Clone, Copy)]
pub struct Wish {
    pub qos: u8,
    pub published: bool,
    pub no_local: bool,
    pub id: Option<u32>,
}

#[derive(Debug, Default)]
pub struct Session {
    pub version: u8,
    pub online: bool,
    /// It outlives its connection.
    pub kept: bool,
    /// It was to be kept at its beginning: it has a place in a group's queue.
    pub stored: bool,
    pub filters: BTreeMap<usize, Wish>,
    /// What is to be sent.
    pub queue: VecDeque<Owed>,
    /// What the present connection is being sent.
    pub expected: Vec<Owed>,
    /// What it was sent and has not acknowledged to the end.
    pub sent: Vec<Owed>,
    window: usize,
    under_way: usize,
    will: Option<(String, WillOf)>,
    /// The QoS 2 ids the client has open.
    pub incoming: BTreeSet<u16>,
}

/// A message for a shared group.
#[derive(Debug, Clone)]
pub struct Shared {
    pub topic: String,
    pub payload: String,
    pub qos: u8,
    pub retain: bool,
}

#[derive(Debug, Default)]
pub struct Model {
    pub sessions: BTreeMap<usize, Session>,
    /// Payload, QoS, and who published it.
    pub retained: BTreeMap<Vec<String>, (String, u8, usize)>,
    /// What this operation brought, per session.
    step: BTreeMap<usize, Vec<Owed>>,
    /// What groups get by this operation.
    pub groups: Vec<(usize, Shared)>,
    /// What waits for a member of a group.
    pub pools: BTreeMap<usize, Vec<Shared>>,
    /// How often each group ended.
    pub eras: BTreeMap<usize, u32>,
}

/// How a client connects.
pub struct Coming {
    pub version: u8,
    pub clean: bool,
    pub kept: bool,
    pub window: Option<u16>,
    pub will: Option<(String, WillOf)>,
}

impl Session {
    /// The connection is over: what it left unacknowledged comes again, first of all; QoS 0 is gone.
    fn leave(&mut self) {
        self.online = false;
        self.queue.retain(|owed| owed.got.qos > 0);
        for mut owed in std::mem::take(&mut self.sent).into_iter().rev() {
            owed.got.dup = true;
            self.queue.push_front(owed);
        }
        self.under_way = 0;
    }

    /// What may be sent now is on its way.
    fn pump(&mut self) {
        while let Some(front) = self.queue.front() {
            let acknowledged = front.got.qos > 0;
            if acknowledged && !front.released && self.under_way >= self.window {
                break;
            }
            self.under_way += usize::from(acknowledged);
            self.expected.extend(self.queue.pop_front());
        }
    }

    /// One of the messages it has is acknowledged to the end.
    pub fn settled(&mut self, which: usize) {
        self.sent.remove(which);
        self.under_way -= 1;
    }

    /// What the fence waits behind, if it cannot be sent.
    pub fn is_stuck(&self) -> bool {
        !self.queue.is_empty()
    }

    pub fn takes(&mut self, got: Owed) {
        self.under_way += usize::from(got.got.qos > 0);
        self.sent.push(got);
    }
}

impl Model {
    pub fn is_online(&self, client: usize) -> bool {
        self.sessions.get(&client).is_some_and(|session| session.online)
    }

    /// Routes a message; whether anybody matched.
    pub fn route(&mut self, from: usize, topic: &str, payload: &str, qos: u8, retain: bool) -> bool {
        let mut matched = false;
        for (client, session) in &self.sessions {
            let direct = session.filters.iter();
            let mut direct: Vec<_> =
                direct.filter(|(at, _)| shared(**at).is_none() && matches(FILTERS[**at], topic)).collect();
            matched |= !direct.is_empty();
            direct.retain(|(_, wish)| from != *client || !wish.no_local);
            if direct.is_empty() {
                continue;
            }
            let granted = direct.iter().map(|(_, wish)| wish.qos).max().unwrap();
            let as_published = direct.iter().any(|(_, wish)| wish.published);
            let mut ids: Vec<_> = direct.iter().filter_map(|(_, wish)| wish.id).collect();
            ids.sort_unstable();
            let (qos_granted, retain_granted) = (qos.min(granted), retain && as_published);
            self.step
                .entry(*client)
                .or_default()
                .push(Owed::new(Got::new(topic, payload, qos_granted, retain_granted, ids), (qos, retain)));
        }
        for at in 0..FILTERS.len() {
            if shared(at).is_some_and(|pattern| matches(pattern, topic)) && self.members(at).next().is_some() {
                matched = true;
                self.give(at, Shared { topic: topic.into(), payload: payload.into(), qos, retain });
            }
        }
        if retain {
            let path: Vec<String> = topic.split('/').map(str::to_owned).collect();
            if payload.is_empty() {
                self.retained.remove(&path);
            } else {
                self.retained.insert(path, (payload.into(), qos, from));
            }
        }
        matched
    }

    /// The will goes out.
    fn will(&mut self, client: usize) {
        let will = self.sessions.get_mut(&client).and_then(|session| session.will.take());
        if let Some((payload, will)) = will {
            self.route(client, &format!("w/{client}"), &payload, will.qos, will.retain);
        }
    }

    fn end(&mut self, client: usize) {
        let Some(mut session) = self.sessions.remove(&client) else { return };
        session.leave();
        self.left(session.filters.keys().copied());
        // What it was given by this operation it passes on, with what it had not acknowledged.
        let fresh = self.step.remove(&client).unwrap_or_default();
        self.inherit(session.queue.into_iter().chain(fresh));
        if let Some((payload, will)) = session.will.take() {
            self.route(client, &format!("w/{client}"), &payload, will.qos, will.retain);
        }
    }

    /// Whether the session existed.
    pub fn connect(&mut self, client: usize, coming: Coming) -> bool {
        if let Some(session) = self.sessions.get_mut(&client) {
            let was_online = session.online;
            session.leave();
            if was_online && session.will.as_ref().is_some_and(|(_, will)| !will.delayed) {
                self.will(client);
            }
        }
        let present = !coming.clean && self.sessions.get(&client).is_some_and(|session| session.kept);
        if !present {
            self.end(client);
        }
        let session = self.sessions.entry(client).or_default();
        session.stored |= coming.kept;
        (session.online, session.kept, session.version) = (true, coming.kept, coming.version);
        session.will = coming.will;
        session.window = coming.window.map_or(INFLIGHT, usize::from);
        session.filters.insert(TO_FENCE, Wish { qos: 0, published: false, no_local: false, id: None });
        present
    }

    pub fn subscribe(&mut self, client: usize, filter: usize, wish: Wish, handling: u8) {
        let session = self.sessions.get_mut(&client).unwrap();
        let new = session.filters.insert(filter, wish).is_none();
        if shared(filter).is_some() || handling == 2 || (handling == 1 && !new) {
            return;
        }
        for (path, (payload, qos, from)) in &self.retained {
            let topic = path.join("/");
            if matches(FILTERS[filter], &topic) && !(*from == client && wish.no_local) {
                let got = Got::new(&topic, payload, wish.qos.min(*qos), true, wish.id.into_iter().collect());
                self.step.entry(client).or_default().push(Owed::new(got, (*qos, true)));
            }
        }
    }

    /// Whether there was such a subscription.
    pub fn unsubscribe(&mut self, client: usize, filter: usize) -> bool {
        let known = self.sessions.get_mut(&client).unwrap().filters.remove(&filter).is_some();
        if known {
            self.left([filter].into_iter());
        }
        known
    }

    pub fn close(&mut self, client: usize, with_will: bool, ends: bool) {
        let session = self.sessions.get_mut(&client).unwrap();
        session.leave();
        session.kept &= !ends;
        if !with_will {
            session.will = None;
        }
        let kept = session.kept;
        if !kept || session.will.as_ref().is_some_and(|(_, will)| !will.delayed) {
            self.will(client);
        }
        if !kept {
            self.end(client);
        }
    }

    /// What was routed goes into the queues, and out of them what may be sent.
    pub fn pump(&mut self) {
        self.drain_pools();
        for (client, brought) in std::mem::take(&mut self.step) {
            let session = self.sessions.get_mut(&client).unwrap();
            let online = session.online;
            session.queue.extend(brought.into_iter().filter(|owed| online || owed.got.qos > 0));
        }
        self.sessions.values_mut().filter(|session| session.online).for_each(Session::pump);
    }

    /// What every client got is held against what it was to get.
    pub fn settle(&mut self, seen: &mut [Vec<Seen>; CLIENTS]) -> Result<(), String> {
        let mut shared_out = Vec::new();
        for (client, seen) in seen.iter_mut().enumerate() {
            let Some(session) = self.sessions.get_mut(&client) else { continue };
            let expected = std::mem::take(&mut session.expected);
            let mut waiting: VecDeque<_> = expected.iter().collect();
            for seen in seen.drain(..) {
                match (waiting.front(), &seen) {
                    (Some(owed), seen) if owed.is(seen, session.version) => {
                        session.note(owed, seen);
                        waiting.pop_front();
                    }
                    (_, Seen::Publish { got, id }) if got.topic != FENCE => {
                        shared_out.push((client, session.sent.len(), got.clone(), *id));
                        // Whose it is shows below; its place among what is to be acknowledged is here.
                        if got.qos > 0 {
                            session.takes(Owed { id: Some(*id), ..Owed::new(got.clone(), (0, false)) });
                        }
                    }
                    _ => return Err(format!("client {client} got {seen:?}, expected {waiting:?}")),
                }
            }
            if !waiting.is_empty() {
                return Err(format!("client {client} did not get {waiting:?}, but {shared_out:?}"));
            }
        }
        self.settle_groups(&shared_out)
    }
}

impl Session {
    /// What it was to get has come.
    fn note(&mut self, owed: &Owed, seen: &Seen) {
        if let Seen::Publish { id, .. } = seen
            && owed.got.qos > 0
        {
            self.sent.push(Owed { id: Some(*id), ..owed.clone() });
        } else if let Seen::Release(id) = seen
            && !self.sent.iter().any(|sent| sent.id == Some(*id))
        {
            self.sent.push(owed.clone());
        }
    }
}

impl Owed {
    pub fn new(got: Got, published: (u8, bool)) -> Self {
        Self { got, id: None, released: false, group: None, published }
    }

    /// Whether this is what came. A message that comes again has the packet id it had.
    fn is(&self, seen: &Seen, version: u8) -> bool {
        match seen {
            Seen::Release(id) => self.released && self.id == Some(*id),
            Seen::Publish { got, id } => {
                !self.released && self.got.shown(version) == *got && self.id.is_none_or(|known| known == *id)
            }
        }
    }
}

impl Got {
    pub fn new(topic: &str, payload: &str, qos: u8, retain: bool, ids: Vec<u32>) -> Self {
        Self { topic: topic.into(), payload: payload.into(), qos, retain, dup: false, ids }
    }

    /// As a client of a version sees it.
    pub fn shown(&self, version: u8) -> Self {
        let ids = if version == 5 { self.ids.clone() } else { Vec::new() };
        Self { ids, ..self.clone() }
    }
}
