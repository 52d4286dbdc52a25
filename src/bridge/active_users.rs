//! Who is active, derived from session datagrams and from nothing else (a client of the broker cannot forge it).
//!
//! The rules are Butler 5.4's: start and open add, stop removes, close changes nothing; a user is counted once in total, and once per proxy;
//! a stop removes the user from the total whatever other proxies say; proxies and users keep the order in which they came. Invariant: memory
//! is bounded; what does not fit is counted and not added.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};

use crate::{names::TopicName, sense::event::SessionEventKind};

/// Where the count of one proxy is published, around its host name. Not configurable in Butler either.
const PER_SERVER: (&str, &str) = ("qliksense/users/activeperserver/", "/count");
/// Proxies at most. Every one of them costs a message per session event.
const MAX_HOSTS: usize = 500;
/// Users at most, in total and per proxy.
const MAX_USERS: usize = 50_000;

/// What an event changed, and so what Butler publishes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing is published.
    None,
    /// The two totals.
    Totals,
    /// The count of every known proxy, then the two totals.
    Everything,
}

/// The active users. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct ActiveUsers(Arc<Mutex<State>>);

#[derive(Debug, Default)]
struct State {
    hosts: Vec<Host>,
    by_name: HashMap<String, usize>,
    users: HashMap<Arc<str>, u64>,
    in_order: BTreeMap<u64, Arc<str>>,
    next: u64,
    overflow: u64,
}

#[derive(Debug)]
struct Host {
    topic: TopicName,
    users: HashSet<Arc<str>>,
}

impl ActiveUsers {
    /// Nobody yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes note of what a user did at a proxy.
    pub fn apply(&self, kind: SessionEventKind, host: &str, user: &str) -> Change {
        let mut state = self.state();
        match kind {
            SessionEventKind::SessionStarted | SessionEventKind::ConnectionOpened => state.add(host, user),
            SessionEventKind::SessionStopped => state.remove(host, user),
            SessionEventKind::ConnectionClosed => Change::None,
        }
    }

    /// How many users are active.
    pub fn count(&self) -> usize {
        self.state().users.len()
    }

    /// Their ids, in the order in which they came.
    pub fn names(&self) -> Vec<Arc<str>> {
        self.state().in_order.values().cloned().collect()
    }

    /// Topic and count of every proxy seen, in the order in which they came; zeros included.
    pub fn per_server(&self) -> Vec<(TopicName, usize)> {
        self.state().hosts.iter().map(|host| (host.topic.clone(), host.users.len())).collect()
    }

    /// Users and proxies that were not counted for want of room.
    pub fn overflow(&self) -> u64 {
        self.state().overflow
    }

    /// A panic elsewhere leaves the state as consistent as it was: every change is made of steps that cannot panic.
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock()
    }
}

impl State {
    fn add(&mut self, host: &str, user: &str) -> Change {
        let Some(at) = self.host(host) else {
            self.overflow += 1;
            return Change::None;
        };
        let Some(user) = self.user(user) else {
            self.overflow += 1;
            return Change::None;
        };
        if let Some(host) = self.hosts.get_mut(at) {
            host.users.insert(user);
        }
        Change::Everything
    }

    fn remove(&mut self, host: &str, user: &str) -> Change {
        if let Some((user, order)) = self.users.remove_entry(user) {
            self.in_order.remove(&order);
            drop(user);
        }
        let Some(host) = self.by_name.get(host).and_then(|at| self.hosts.get_mut(*at)) else { return Change::Totals };
        host.users.remove(user);
        Change::Everything
    }

    fn host(&mut self, name: &str) -> Option<usize> {
        if let Some(at) = self.by_name.get(name) {
            return Some(*at);
        }
        if self.hosts.len() >= MAX_HOSTS {
            return None;
        }
        let topic = TopicName::new(format!("{}{}{}", PER_SERVER.0, topic_level(name), PER_SERVER.1)).ok()?;
        self.hosts.push(Host { topic, users: HashSet::new() });
        self.by_name.insert(name.to_owned(), self.hosts.len() - 1);
        Some(self.hosts.len() - 1)
    }

    fn user(&mut self, name: &str) -> Option<Arc<str>> {
        if let Some((user, _)) = self.users.get_key_value(name) {
            return Some(user.clone());
        }
        if self.users.len() >= MAX_USERS {
            return None;
        }
        let user: Arc<str> = Arc::from(name);
        self.users.insert(user.clone(), self.next);
        self.in_order.insert(self.next, user.clone());
        self.next += 1;
        Some(user)
    }
}

/// A host name as one level of a topic: what MQTT gives a meaning to (`#`, `+`, `/`) or forbids (U+0000) is percent-encoded.
pub fn topic_level(host: &str) -> String {
    host.chars().fold(String::with_capacity(host.len()), |mut level, c| {
        match c {
            '#' => level.push_str("%23"),
            '+' => level.push_str("%2B"),
            '/' => level.push_str("%2F"),
            '\0' => level.push_str("%00"),
            c => level.push(c),
        }
        level
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sense::event::SessionEventKind as Kind;

    fn names(users: &ActiveUsers) -> Vec<String> {
        users.names().iter().map(|name| name.to_string()).collect()
    }

    #[test]
    fn a_user_counts_once_and_keeps_the_place() {
        let users = ActiveUsers::new();
        assert_eq!(users.apply(Kind::SessionStarted, "P1", "anna"), Change::Everything);
        assert_eq!(users.apply(Kind::ConnectionOpened, "P1", "bo"), Change::Everything);
        assert_eq!(users.apply(Kind::SessionStarted, "P2", "anna"), Change::Everything);
        assert_eq!(users.apply(Kind::ConnectionClosed, "P1", "bo"), Change::None);
        assert_eq!((users.count(), names(&users)), (2, vec!["anna".to_owned(), "bo".to_owned()]));
        assert_eq!(users.per_server().iter().map(|(_, count)| *count).collect::<Vec<_>>(), [2, 1]);
    }

    #[test]
    fn a_stop_removes_from_the_total_even_at_an_unknown_proxy() {
        let users = ActiveUsers::new();
        users.apply(Kind::SessionStarted, "P1", "anna");
        assert_eq!(users.apply(Kind::SessionStopped, "P9", "anna"), Change::Totals);
        assert_eq!((users.count(), users.per_server().len()), (0, 1));
        assert_eq!(users.apply(Kind::SessionStopped, "P1", "nobody"), Change::Everything);
    }

    #[test]
    fn host_names_never_break_a_topic() {
        let users = ActiveUsers::new();
        for host in ["h#1", "a+b", "x/y", "", "n\0l", "värd"] {
            assert_eq!(users.apply(Kind::SessionStarted, host, "u"), Change::Everything, "{host:?}");
        }
        let topics: Vec<String> = users.per_server().iter().map(|(topic, _)| topic.to_string()).collect();
        let level = |name: &str| format!("qliksense/users/activeperserver/{name}/count");
        assert_eq!(topics, ["h%231", "a%2Bb", "x%2Fy", "", "n%00l", "värd"].map(level));
    }

    #[test]
    fn floods_are_counted_not_kept() {
        let users = ActiveUsers::new();
        for host in 0..MAX_HOSTS + 10 {
            users.apply(Kind::SessionStarted, &host.to_string(), "u");
        }
        assert_eq!((users.per_server().len(), users.overflow()), (MAX_HOSTS, 10));
    }
}
