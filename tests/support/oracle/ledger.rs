//! The ledger: what was sent, what was acknowledged, what arrived where, and what does not fit together.
//!
//! It knows no sockets: the clients report, it judges. Invariants:
//! - a message is promised to a receiver (a session, or a shared group) once its publisher holds the acknowledgement and the receiver's
//!   subscription had been acknowledged before the message was first sent; from then on it must arrive, whatever happens to the broker;
//! - duplicates, order, quality of service and subscriptions are judged at each arrival, so that nothing that comes late escapes;
//! - time is a counter of events under one lock: "before" always means what a client could know.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    violation::Violation,
    wire::{Publish, matches},
};

/// A message's number, written in its payload.
pub type Id = usize;

#[derive(Debug)]
struct Message {
    publisher: String,
    topic: String,
    qos: u8,
    kind: Kind,
    first_sent: u64,
    times_sent: u64,
    /// In how many lives of the broker it was begun; for the report.
    life: u32,
    acked: Option<u64>,
    /// Time at which it became a message that must not come any more (the will of a polite client).
    forbidden: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Plain,
    Retained,
    /// A retained message without payload: it removes, and is not told from others by its payload.
    Removal,
    Will,
}

#[derive(Debug)]
struct Subscription {
    session: String,
    group: Option<String>,
    filter: String,
    qos: u8,
    acked: Option<u64>,
    end_sent: Option<u64>,
    end_acked: Option<u64>,
}

impl Subscription {
    fn receiver(&self) -> &str {
        self.group.as_deref().unwrap_or(&self.session)
    }
}

#[derive(Debug, Default)]
struct Session {
    kept: bool,
    /// Whether the broker acknowledged it; `None` while a CONNECT is unanswered.
    known: Option<bool>,
    connections: u64,
    connected: bool,
    /// A CONNECT of it was never answered: the broker may have accepted it, and published its will.
    uncertain: bool,
}

#[derive(Debug, Default)]
struct Arrivals {
    count: u64,
    /// Connections of the session at the first arrival.
    connections: u64,
}

/// Totals for the last line of a run.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    pub sent: usize,
    pub acknowledged: usize,
    pub arrivals: u64,
    pub promises: u64,
    pub connections: u64,
    pub lives: u32,
}

#[derive(Default)]
struct State {
    clock: u64,
    life: u32,
    /// When each life began.
    begun: Vec<u64>,
    messages: Vec<Message>,
    subscriptions: Vec<Subscription>,
    sessions: HashMap<String, Session>,
    /// By receiver: promised and not arrived.
    pending: HashMap<String, BTreeSet<Id>>,
    arrived: HashMap<(String, Id), Arrivals>,
    /// By session, topic, QoS: the latest first delivery.
    latest: HashMap<(String, String, u8), Id>,
    /// By topic: every retained publication in the order of sending.
    retained: HashMap<String, Vec<Id>>,
    /// Groups some of whose members end their sessions: their QoS 2 messages in flight may go with them.
    churned: HashSet<String>,
    busy: BTreeSet<String>,
    violations: Vec<Violation>,
    totals: Totals,
}

impl State {
    fn tick(&mut self) -> u64 {
        self.clock += 1;
        self.clock
    }

    fn words(&self, id: Id) -> String {
        let message = &self.messages[id];
        let (kind, Message { publisher, topic, qos, life, times_sent, .. }) = (message.kind, message);
        let what = match kind {
            Kind::Will => "will",
            Kind::Retained | Kind::Removal => "retained message",
            Kind::Plain => "message",
        };
        format!("{what} {id} of {publisher} on {topic}, QoS {qos} (life {life}, sent {times_sent} x)")
    }

    /// Everybody to whom an acknowledged message is promised.
    fn promise(&mut self, id: Id) {
        let Message { first_sent, acked: Some(acked), qos, ref topic, kind, .. } = self.messages[id] else { return };
        if kind == Kind::Removal {
            // Without a payload nobody can tell which one arrived; what it does to the kept value is judged.
            return;
        }
        let mut receivers = BTreeSet::new();
        for subscription in &self.subscriptions {
            let stood = subscription.acked.is_some_and(|at| at < first_sent);
            let stands = subscription.end_sent.is_none_or(|at| at > acked);
            let lossy = qos == 2 && subscription.group.as_ref().is_some_and(|group| self.churned.contains(group));
            if stood && stands && !lossy && subscription.qos.min(qos) > 0 && matches(&subscription.filter, topic) {
                receivers.insert(subscription.receiver().to_owned());
            }
        }
        for receiver in receivers {
            self.totals.promises += 1;
            if !self.arrived.contains_key(&(receiver.clone(), id)) {
                self.pending.entry(receiver).or_default().insert(id);
            }
        }
    }

    fn break_promises_of(&mut self, client: &str) -> usize {
        self.subscriptions.retain(|subscription| subscription.session != client);
        self.pending.remove(client).map_or(0, |all| all.len())
    }
}

/// The ledger all clients of a run share.
#[derive(Clone, Default)]
pub struct Ledger {
    state: Arc<Mutex<State>>,
    changed: Arc<Notify>,
}

impl Ledger {
    /// A new life of the broker begins.
    pub fn new_life(&self) -> u32 {
        let mut state = self.state.lock();
        state.life += 1;
        let now = state.tick();
        state.begun.push(now);
        state.totals.lives = state.life;
        state.life
    }

    pub fn violation(&self, violation: Violation) {
        self.state.lock().violations.push(violation);
        self.changed.notify_waiters();
    }

    pub fn violations(&self) -> Vec<Violation> {
        self.state.lock().violations.clone()
    }

    pub fn totals(&self) -> Totals {
        let state = self.state.lock();
        Totals {
            sent: state.messages.len(),
            acknowledged: state.messages.iter().filter(|message| message.acked.is_some()).count(),
            connections: state.sessions.values().map(|session| session.connections).sum(),
            ..state.totals
        }
    }

    /// Whether a client has something unanswered that must be answered before judgement.
    pub fn busy(&self, client: &str, busy: bool) {
        let mut state = self.state.lock();
        let changed = if busy { state.busy.insert(client.to_owned()) } else { state.busy.remove(client) };
        if changed && !busy {
            self.changed.notify_waiters();
        }
    }

    // ---- sessions

    /// A CONNECT goes out. Until its CONNACK, both answers may be right.
    pub fn connecting(&self, client: &str, kept: bool) -> Option<bool> {
        let mut state = self.state.lock();
        let session = state
            .sessions
            .entry(client.to_owned())
            .or_insert_with(|| Session { known: Some(false), ..Session::default() });
        let expected = if kept { session.known } else { Some(false) };
        session.kept = kept;
        session.connected = false;
        session.uncertain |= session.known.is_none();
        // A new session may or may not be there afterwards; one that is there stays.
        if !(kept && session.known == Some(true)) {
            session.known = None;
        }
        expected
    }

    /// The CONNACK is there. Answers whether the client has to begin anew: its session is not what it was.
    pub fn connected(&self, client: &str, expected: Option<bool>, present: bool) -> bool {
        let mut state = self.state.lock();
        let Some(session) = state.sessions.get_mut(client) else { return true };
        session.connections += 1;
        session.connected = true;
        session.known = Some(session.kept);
        match (expected, present) {
            (Some(true), false) => {
                let messages = state.break_promises_of(client);
                state.violations.push(Violation::SessionLost { client: client.to_owned(), messages });
            }
            (Some(false), true) => state.violations.push(Violation::SessionUnexpected { client: client.to_owned() }),
            _ => {}
        }
        if !present {
            state.break_promises_of(client);
            state.latest.retain(|(session, ..), _| session != client);
        }
        !present
    }

    /// A client ends its session for good: what was its is nobody's now.
    pub fn session_ends(&self, client: &str) {
        let mut state = self.state.lock();
        state.break_promises_of(client);
        if let Some(session) = state.sessions.get_mut(client) {
            session.known = None;
        }
    }

    // ---- subscriptions

    /// Groups whose members come and go for good.
    pub fn churns(&self, group: &str) {
        self.state.lock().churned.insert(group.to_owned());
    }

    /// A SUBSCRIBE goes out; `$share/GROUP/FILTER` names a group.
    pub fn subscribing(&self, client: &str, filter: &str, qos: u8) {
        let mut state = self.state.lock();
        let (group, plain) = match filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/')) {
            Some((group, plain)) => (Some(format!("group {group}")), plain),
            None => (None, filter),
        };
        state.tick();
        state.subscriptions.push(Subscription {
            session: client.to_owned(),
            group,
            filter: plain.to_owned(),
            qos,
            acked: None,
            end_sent: None,
            end_acked: None,
        });
    }

    pub fn subscribed(&self, client: &str, filter: &str) {
        self.on_subscription(client, filter, |subscription, now| _ = subscription.acked.get_or_insert(now));
    }

    pub fn unsubscribing(&self, client: &str, filter: &str) {
        self.on_subscription(client, filter, |subscription, now| _ = subscription.end_sent.get_or_insert(now));
    }

    pub fn unsubscribed(&self, client: &str, filter: &str) {
        self.on_subscription(client, filter, |subscription, now| _ = subscription.end_acked.get_or_insert(now));
    }

    fn on_subscription(&self, client: &str, filter: &str, change: impl Fn(&mut Subscription, u64)) {
        let mut state = self.state.lock();
        let now = state.tick();
        let plain = filter.strip_prefix("$share/").and_then(|rest| rest.split_once('/')).map_or(filter, |(_, f)| f);
        let found = |subscription: &&mut Subscription| {
            subscription.session == client && subscription.filter == plain && subscription.end_acked.is_none()
        };
        state.subscriptions.iter_mut().filter(found).for_each(|subscription| change(subscription, now));
    }

    // ---- messages out

    /// A message goes out for the first time.
    pub fn sending(&self, publisher: &str, topic: &str, qos: u8, kind: Kind) -> Id {
        let mut state = self.state.lock();
        let (first_sent, life, id) = (state.tick(), state.life, state.messages.len());
        let (publisher, text) = (publisher.to_owned(), topic.to_owned());
        state.messages.push(Message {
            publisher,
            topic: text,
            qos,
            kind,
            first_sent,
            times_sent: 1,
            life,
            acked: None,
            forbidden: None,
        });
        if matches!(kind, Kind::Retained | Kind::Removal) {
            state.retained.entry(topic.to_owned()).or_default().push(id);
        }
        id
    }

    pub fn sent_again(&self, id: Id) {
        self.state.lock().messages[id].times_sent += 1;
    }

    /// PUBACK, PUBREC without an error; for a will: its client vanished.
    pub fn acknowledged(&self, id: Id) {
        let mut state = self.state.lock();
        let now = state.tick();
        if state.messages[id].acked.is_none() {
            state.messages[id].acked = Some(now);
            state.promise(id);
        }
    }

    /// The client of a will said goodbye, and the broker closed the connection.
    pub fn will_withdrawn(&self, id: Id) {
        let mut state = self.state.lock();
        let now = state.tick();
        // A connection that ended when the broker was killed looks the same; who hears of it only when the next life has begun cannot tell.
        if state.messages[id].life == state.life {
            state.messages[id].forbidden = Some(now);
        }
    }

    // ---- messages in

    /// A PUBLISH that is no repetition the client recognises by itself (a QoS 2 id it still holds).
    pub fn arrived(&self, client: &str, publish: &Publish) {
        let mut state = self.state.lock();
        let state = &mut *state;
        if publish.payload.is_empty() {
            // A removal: it has no payload to tell it by.
            return;
        }
        let known =
            number(&publish.payload).filter(|id| state.messages.get(*id).is_some_and(|m| m.topic == publish.topic));
        let Some(id) = known else {
            let what = format!("{} bytes on {}", publish.payload.len(), publish.topic);
            state.violations.push(Violation::Foreign { receiver: client.to_owned(), what });
            return;
        };
        if publish.retain {
            // Kept values that come with a subscription are no deliveries; `Ledger::retained` judges them.
            return;
        }
        state.totals.arrivals += 1;
        let (first_sent, acked) = (state.messages[id].first_sent, state.messages[id].acked);
        let of_client = state.subscriptions.iter().filter(|subscription| subscription.session == client);
        let mut matching = of_client.filter(|subscription| matches(&subscription.filter, &publish.topic)).peekable();
        let (mut group, mut granted, mut in_force) = (None, None, matching.peek().is_none());
        // Whether already the first copy had to come here.
        let mut due_at_once = false;
        for subscription in matching {
            // Ended before it was sent: matched by nothing. (Without any subscription on record the session was lost.)
            if subscription.end_acked.is_none_or(|at| at > first_sent) {
                in_force = true;
                let stays = subscription.end_sent.is_none_or(|at| acked.is_some_and(|acked| at > acked));
                due_at_once |= publish.qos > 0 && stays && subscription.acked.is_some_and(|at| at < first_sent);
                granted = granted.max(Some(subscription.qos));
                group = subscription.group.clone();
            }
        }
        let receiver = group.clone().unwrap_or_else(|| client.to_owned());
        if !in_force {
            let message = state.words(id);
            state.violations.push(Violation::NotSubscribed { message, receiver: client.to_owned() });
        }
        if granted.is_some_and(|granted| granted.min(state.messages[id].qos) != publish.qos) {
            let (message, receiver) = (state.words(id), receiver.clone());
            state.violations.push(Violation::WrongQos { message, receiver, qos: publish.qos });
        }
        state.judge_forbidden(id, client);
        let ordered = group.is_none() && (due_at_once || state.messages[id].times_sent == 1);
        state.judge_count(id, client, &receiver, group.is_some(), publish.qos);
        if ordered {
            state.judge_order(id, client);
        }
        if let Some(pending) = state.pending.get_mut(&receiver)
            && pending.remove(&id)
        {
            self.changed.notify_waiters();
        }
    }

    // ---- judgement

    /// Waits until every client has its answers and every promise (wills only where `wills` says so) is kept. Gives up when nothing has
    /// moved for `patience`; what is open then is broken.
    pub async fn settle(&self, wills: bool, patience: Duration) {
        loop {
            let changed = self.changed.notified();
            if self.state.lock().open(wills).is_empty() {
                return;
            }
            if tokio::time::timeout(patience, changed).await.is_err() {
                break;
            }
        }
        let mut state = self.state.lock();
        for violation in state.open(wills) {
            state.violations.push(violation);
        }
        // Said once; the next round begins without it.
        state.busy.clear();
        let wills_stay = |state: &State, id: &Id| !wills && state.messages[*id].kind == Kind::Will;
        let mut pending = std::mem::take(&mut state.pending);
        pending.values_mut().for_each(|all| all.retain(|id| wills_stay(&state, id)));
        state.pending = pending;
    }

    /// Judges the values a fresh subscriber was given: topic to payload.
    pub fn retained(&self, found: &HashMap<String, Vec<u8>>) -> Vec<Violation> {
        let state = self.state.lock();
        let mut wrong = Vec::new();
        for (topic, versions) in &state.retained {
            // Version 0 is the empty topic of the beginning.
            let last = versions.iter().rposition(|id| state.messages[*id].acked.is_some()).map_or(0, |at| at + 1);
            let is_removed = |at: usize| at == 0 || state.messages[versions[at - 1]].kind == Kind::Removal;
            let right = match found.get(topic) {
                None => (last..=versions.len()).any(is_removed),
                Some(payload) => {
                    let id = number(payload);
                    let at = versions.iter().position(|version| Some(*version) == id);
                    at.is_some_and(|at| at + 1 >= last && !is_removed(at + 1))
                }
            };
            if !right {
                let show =
                    |at: usize| if is_removed(at) { "nothing".to_owned() } else { format!("{}", versions[at - 1]) };
                let found = found.get(topic).map_or("nothing".into(), |payload| format!("{:?}", number(payload)));
                let expected = format!("{} was acknowledged last, {} sent last", show(last), show(versions.len()));
                wrong.push(Violation::Retained { topic: topic.clone(), found, expected });
            }
        }
        for topic in found.keys().filter(|topic| !state.retained.contains_key(*topic)) {
            let what = format!("a retained message on {topic}");
            wrong.push(Violation::Foreign { receiver: "a fresh subscriber".into(), what });
        }
        wrong
    }

    /// How many topics have ever held a retained message.
    pub fn retained_topics(&self) -> usize {
        self.state.lock().retained.len()
    }
}

impl State {
    fn judge_forbidden(&mut self, id: Id, client: &str) {
        let Some(at) = self.messages[id].forbidden.filter(|_| !self.is_uncertain_will(id)) else { return };
        // Committed in order: something that was sent after the goodbye, had to be committed itself, and was acknowledged in the same life proves
        // that the goodbye was kept. A retained change always has to; a message nobody with a kept session wants does not.
        let end = self.begun.iter().copied().find(|begun| *begun > at).unwrap_or(u64::MAX);
        let committed = |message: &Message| matches!(message.kind, Kind::Retained | Kind::Removal);
        let proves = |message: &Message| {
            committed(message) && message.first_sent > at && message.acked.is_some_and(|acked| acked < end)
        };
        let proven = self.messages.iter().any(proves);
        if proven {
            let message = self.words(id);
            self.violations.push(Violation::WillOfThePolite { message, receiver: client.to_owned() });
        }
    }

    /// The will of a client one of whose CONNECTs was never answered: it may rightly come for that one, too.
    fn is_uncertain_will(&self, id: Id) -> bool {
        let message = &self.messages[id];
        message.kind == Kind::Will && self.sessions.get(&message.publisher).is_none_or(|session| session.uncertain)
    }

    fn judge_count(&mut self, id: Id, client: &str, receiver: &str, shared: bool, qos: u8) {
        let connections = self.sessions.get(client).map_or(0, |session| session.connections);
        let uncertain = self.is_uncertain_will(id);
        let arrivals = self.arrived.entry((receiver.to_owned(), id)).or_default();
        arrivals.count += 1;
        if arrivals.count == 1 {
            arrivals.connections = connections;
            return;
        }
        let message = &self.messages[id];
        let most = match (message.qos, qos) {
            (0, _) | (2, 2) if !uncertain => 1,
            _ if uncertain => u64::MAX,
            // Received by somebody else of the group before: how often, the group's members decide together.
            _ if shared => u64::MAX,
            // Each copy that was taken in may be repeated on each new connection.
            (2, _) => 1 + connections - arrivals.connections,
            _ => message.times_sent * (1 + connections - arrivals.connections),
        };
        if arrivals.count > most {
            let (count, receiver) = (arrivals.count, receiver.to_owned());
            let message = self.words(id);
            self.violations.push(Violation::Twice { message, receiver, count, most });
        }
    }

    /// Order holds among first deliveries of what was published with the same quality of service on one topic. A repetition whose first copy
    /// this receiver could not get (it had not subscribed, or takes QoS 0 and was away) comes when it comes.
    fn judge_order(&mut self, id: Id, client: &str) {
        let message = &self.messages[id];
        let again = self.arrived.get(&(client.to_owned(), id)).is_some_and(|arrivals| arrivals.count > 1);
        if message.kind == Kind::Will || again {
            return;
        }
        let key = (client.to_owned(), message.topic.clone(), message.qos);
        let latest = self.latest.entry(key).or_insert(id);
        if *latest > id {
            let (after, receiver) = (*latest, client.to_owned());
            let (message, after) = (self.words(id), self.words(after));
            self.violations.push(Violation::OutOfOrder { message, after, receiver });
        } else {
            *latest = id;
        }
    }

    /// Whether a receiver is there to receive; for the report.
    fn whereabouts(&self, receiver: &str) -> &'static str {
        match self.sessions.get(receiver) {
            Some(session) if session.connected => " (connected)",
            Some(_) => " (not connected)",
            None => "",
        }
    }

    fn open(&self, wills: bool) -> Vec<Violation> {
        let mut open: Vec<Violation> = Vec::new();
        for client in &self.busy {
            open.push(Violation::NoAnswer { what: format!("{client} waits for acknowledgements that do not come") });
        }
        for (receiver, ids) in &self.pending {
            for id in ids.iter().filter(|id| wills || self.messages[**id].kind != Kind::Will) {
                let receiver = format!("{receiver}{}", self.whereabouts(receiver));
                open.push(Violation::Lost { message: self.words(*id), receiver });
            }
        }
        open
    }
}

/// The payload of a message: its number, then filling.
pub fn payload(id: Id, filling: usize) -> Vec<u8> {
    let mut payload = format!("{id}#").into_bytes();
    payload.resize(payload.len() + filling, b'.');
    payload
}

fn number(payload: &[u8]) -> Option<Id> {
    let end = payload.iter().position(|byte| *byte == b'#')?;
    std::str::from_utf8(&payload[..end]).ok()?.parse().ok()
}
