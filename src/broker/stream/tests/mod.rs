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

mod run;

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
    /// Payload, QoS, and who published it.
    retained: BTreeMap<Vec<String>, (String, u8, Option<usize>)>,
    /// What this step brought, per session.
    step: BTreeMap<usize, Vec<Got>>,
    /// Groups that get this step's message, with its topic, payload, QoS and RETAIN.
    groups: Vec<(usize, String, String, u8, bool)>,
}

fn shared(filter: usize) -> Option<&'static str> {
    FILTERS[filter].strip_prefix("$share/").map(|rest| rest.split_once('/').unwrap().1)
}

/// Whether a subscription is No Local: every other one of the first client.
fn no_local(client: usize, filter: usize) -> bool {
    client == 0 && filter.is_multiple_of(2) && shared(filter).is_none()
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
                self.retained.insert(path, (payload.into(), qos, from));
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
        for (path, (payload, qos, from)) in &self.retained {
            let topic = path.join("/");
            let own = *from == Some(client) && no_local(client, filter);
            if matches(FILTERS[filter], &topic) && !own {
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
        let mut compared = staged.clone();
        if !in_order {
            expected.values_mut().chain(compared.values_mut()).for_each(|list| list.sort());
        }
        assert_eq!(compared, expected);
        // Where the order is open, the stream's is the one that holds from here on.
        for (client, list) in staged.clone() {
            let session = self.sessions.get_mut(&client).unwrap();
            session.queue.extend(list.into_iter().filter(|got| session.online || got.qos > 0));
        }
    }
}
