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
        codec::{SubscribeOptions, write::AckKind},
        message::{Door, Origin},
        peer::{Kick, Reply},
        session::{Marks, Parcel, Released, Session, packet_id},
        store::{MemoryStore, Store},
    },
    names::{ClientId, matches},
};

mod ops;
mod refused;
mod restart;
mod run;

use self::ops::{Op, WillOf, op};

const CLIENTS: usize = 4;
const TOPICS: [&str; 7] = ["a", "a/1", "a/b/1", "$x", "$x/1", "s/1", "å/1"];
const FILTERS: [&str; 10] = ["#", "a/#", "+/1", "a/+/1", "$x/#", "+", "å/1", "w/#", "$share/g/s/#", "$share/h/a/+"];
const KEPT: u32 = 100;

/// What a session gets: topic, payload, QoS, RETAIN, identifiers of the subscriptions.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Got {
    topic: String,
    payload: String,
    qos: u8,
    retain: bool,
    ids: Vec<u32>,
    /// QoS and RETAIN it was published with.
    published: (u8, bool),
    era: Era,
}

/// Which life of a shared group a message was for: a group without members ends, and one of its name owes nothing for it. Only the model
/// counts these, so they all compare equal.
#[derive(Debug, Clone, Copy, Default)]
struct Era(u32);

impl PartialEq for Era {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Era {}

impl PartialOrd for Era {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Era {
    fn cmp(&self, _: &Self) -> std::cmp::Ordering {
        std::cmp::Ordering::Equal
    }
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
            published: (entry.message.qos as u8, entry.message.retain),
            era: Era::default(),
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
    /// It was kept from its beginning: it has a queue in the store.
    stored: bool,
    filters: BTreeMap<usize, Wish>,
    /// What is to be sent, and whether it was sent before.
    queue: Vec<(Got, bool)>,
    /// Sent by the present connection.
    unacknowledged: Vec<Got>,
    will: Option<(String, WillOf)>,
    will_due: Option<u64>,
    ends_at: Option<u64>,
    /// Its client was connected when the program ended, and has not come back.
    orphaned: bool,
    /// So many at the front of the queue may have been sent by an earlier process, which is not written down message by message.
    unsure: usize,
}

#[derive(Debug, Default)]
struct Model {
    sessions: BTreeMap<usize, ModelSession>,
    /// Payload, QoS, and who published it.
    retained: BTreeMap<Vec<String>, (String, u8, Option<usize>)>,
    /// What this step brought, per session.
    step: BTreeMap<usize, Vec<Got>>,
    /// What groups get in this step.
    groups: Vec<(usize, Shared)>,
    /// What waits for a member of a group.
    pools: BTreeMap<usize, Vec<Shared>>,
    /// How often each group ended.
    eras: BTreeMap<usize, u32>,
}

/// A message for a group: topic, payload, QoS and RETAIN.
type Shared = (String, String, u8, bool);

fn shared(filter: usize) -> Option<&'static str> {
    FILTERS[filter].strip_prefix("$share/").map(|rest| rest.split_once('/').unwrap().1)
}

/// Whether a subscription is No Local: every other one of the first client.
fn no_local(client: usize, filter: usize) -> bool {
    client == 0 && filter.is_multiple_of(2) && shared(filter).is_none()
}

impl ModelSession {
    /// The connection is over: what it left unacknowledged comes again, first of all; QoS 0 is gone.
    fn leave(&mut self) {
        self.queue.retain(|(got, _)| got.qos > 0);
        if self.unsure > 0 {
            self.unsure += self.unacknowledged.len();
        }
        let again = std::mem::take(&mut self.unacknowledged).into_iter().map(|got| (got, true));
        self.queue.splice(0..0, again);
    }
}

impl Model {
    /// Routes a message; whether anybody matched.
    fn route(&mut self, from: Option<usize>, topic: &str, payload: &str, qos: u8, retain: bool) -> bool {
        let mut matched = false;
        for (client, session) in &self.sessions {
            let direct =
                session.filters.iter().filter(|(at, _)| shared(**at).is_none() && matches(FILTERS[**at], topic));
            let mut direct: Vec<_> = direct.collect();
            matched |= !direct.is_empty();
            direct.retain(|(at, _)| from != Some(*client) || !no_local(*client, **at));
            if direct.is_empty() {
                continue;
            }
            let granted = direct.iter().map(|(_, wish)| wish.qos).max().unwrap();
            let as_published = direct.iter().any(|(_, wish)| wish.published);
            self.step.entry(*client).or_default().push(Got {
                topic: topic.into(),
                payload: payload.into(),
                qos: qos.min(granted),
                retain: retain && as_published,
                published: (qos, retain),
                era: Era::default(),
                ids: direct.iter().map(|(at, _)| **at as u32 + 1).collect(),
            });
        }
        for at in 0..FILTERS.len() {
            let fits = shared(at).is_some_and(|pattern| matches(pattern, topic));
            if fits && self.sessions.values().any(|session| session.filters.contains_key(&at)) {
                matched = true;
                self.give(at, (topic.into(), payload.into(), qos, retain));
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

    /// A group gets a message: a member that is there, else the group's queue if a stored member wants it.
    fn give(&mut self, at: usize, message: Shared) {
        let members = || self.sessions.values().filter(|session| session.filters.contains_key(&at));
        let waiting = self.pools.get(&at).is_some_and(|pool| !pool.is_empty());
        if !waiting && members().any(|session| session.online) {
            self.groups.push((at, message));
        } else if message.2 > 0 && members().any(|session| session.stored && session.filters[&at].qos > 0) {
            self.pools.entry(at).or_default().push(message);
        }
    }

    /// A session may have left groups: those without members end.
    fn left(&mut self, groups: impl Iterator<Item = usize>) {
        for at in groups.filter(|at| shared(*at).is_some()) {
            if !self.sessions.values().any(|session| session.filters.contains_key(&at)) {
                *self.eras.entry(at).or_default() += 1;
                self.pools.remove(&at);
            }
        }
    }

    /// What waits goes to members that are there now; without members it is gone.
    fn drain_pools(&mut self) {
        let sessions = &self.sessions;
        self.pools.retain(|at, pool| {
            let members = || sessions.values().filter(|session| session.filters.contains_key(at));
            if members().any(|session| session.online) {
                self.groups.extend(pool.drain(..).map(|message| (*at, message)));
            }
            members().next().is_some()
        });
    }

    fn will(&mut self, client: usize, from: Option<usize>) {
        let will = self.sessions.get_mut(&client).and_then(|session| session.will.take());
        if let Some((payload, will)) = will {
            self.route(from, &format!("w/{client}"), &payload, will.qos, will.retain);
        }
    }

    fn end(&mut self, client: usize) {
        let Some(mut session) = self.sessions.remove(&client) else { return };
        self.left(session.filters.keys().copied());
        // What it was given in this step it passes on, with what it had not acknowledged; a QoS 2 message that was sent is gone.
        let fresh = self.step.remove(&client).unwrap_or_default().into_iter().map(|got| (got, false));
        let sent = session.unacknowledged.drain(..).map(|got| (got, true));
        let left: Vec<_> = sent.chain(session.queue.drain(..)).chain(fresh).collect();
        self.drain_pools();
        for (got, _) in left.into_iter().filter(|(got, sent)| got.qos == 1 || (got.qos == 2 && !sent)) {
            let owed = |at: &usize| {
                let members = self.sessions.values().any(|session| session.filters.contains_key(at));
                members && got.era.0 == self.eras.get(at).copied().unwrap_or(0)
            };
            if let Some(at) = got.group().filter(owed) {
                self.give(at, (got.topic, got.payload, got.published.0, got.published.1));
            }
        }
        if let Some((payload, will)) = session.will.take() {
            self.route(Some(client), &format!("w/{client}"), &payload, will.qos, will.retain);
        }
    }

    /// Whether the session existed.
    fn connect(&mut self, client: usize, clean: bool, kept: bool, will: Option<(String, WillOf)>) -> bool {
        let found = self.sessions.get_mut(&client);
        if let Some(session) = found {
            let was_online = std::mem::replace(&mut session.online, false);
            if session.orphaned {
                // It left its will to a process that is gone, and came back in time.
                session.will = None;
            }
            if was_online && session.will.as_ref().is_some_and(|(_, will)| !will.delayed) {
                self.will(client, Some(client));
            }
        }
        let present = !clean && self.sessions.get(&client).is_some_and(|session| session.kept);
        if !present {
            self.end(client);
        }
        let session = self.sessions.entry(client).or_default();
        session.leave();
        session.stored |= kept;
        (session.online, session.kept, session.will) = (true, kept, will);
        (session.will_due, session.ends_at, session.orphaned) = (None, None, false);
        present
    }

    fn subscribe(&mut self, client: usize, filter: usize, wish: Wish, handling: u8) {
        let session = self.sessions.get_mut(&client).unwrap();
        let new = session.filters.insert(filter, wish).is_none();
        if shared(filter).is_some() || handling == 2 || (handling == 1 && !new) {
            return;
        }
        for (path, (payload, qos_published, from)) in &self.retained {
            let topic = path.join("/");
            let own = *from == Some(client) && no_local(client, filter);
            if matches(FILTERS[filter], &topic) && !own {
                let (qos, ids) = (wish.qos.min(*qos_published), vec![filter as u32 + 1]);
                self.step.entry(client).or_default().push(Got {
                    topic,
                    payload: payload.clone(),
                    qos,
                    retain: true,
                    published: (*qos_published, true),
                    era: Era::default(),
                    ids,
                });
            }
        }
    }

    fn close(&mut self, client: usize, with_will: bool, end: bool, now: u64) {
        let session = self.sessions.get_mut(&client).unwrap();
        session.online = false;
        session.kept &= !end;
        session.leave();
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
                self.will(client, Some(client));
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
        self.drain_pools();
        let mut direct = staged.clone();
        for (at, (topic, payload, qos, retain)) in std::mem::take(&mut self.groups) {
            let mut members =
                self.sessions.iter().filter(|(_, session)| session.online && session.filters.contains_key(&at));
            let taken = members.find_map(|(client, session)| {
                let wish = session.filters[&at];
                let expected = Got {
                    topic: topic.clone(),
                    payload: payload.clone(),
                    qos: qos.min(wish.qos),
                    retain: retain && wish.published,
                    ids: vec![at as u32 + 100],
                    published: (qos, retain),
                    era: Era::default(),
                };
                let list = direct.get_mut(client)?;
                let place = list.iter().position(|got| *got == expected)?;
                Some(list.remove(place))
            });
            assert!(taken.is_some(), "a member of {at} that is there gets {topic} {payload}: {staged:?}");
        }
        direct.retain(|_, list| !list.is_empty());
        let mut expected = std::mem::take(&mut self.step);
        if !in_order {
            expected.values_mut().chain(direct.values_mut()).for_each(|list| list.sort());
        }
        assert_eq!(direct, expected);
        for (client, list) in staged {
            let session = self.sessions.get_mut(client).unwrap();
            let owed = list.iter().filter(|got| session.online || got.qos > 0);
            let era = |got: &Got| got.group().and_then(|at| self.eras.get(&at)).copied().unwrap_or(0);
            session.queue.extend(owed.map(|got| (Got { era: Era(era(got)), ..got.clone() }, false)));
        }
    }
}
