//! The subscription index: which sessions a topic goes to.
//!
//! A tree of topic levels, and a bounded cache of answers, because the same topics come again and again. Invariants: one answer per session
//! (highest QoS, all subscription ids); filters that begin with a wildcard never match topics that begin with `$`; the cache is emptied by
//! every change.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::grant::{Match, Merging};
use crate::{broker::codec::SubscribeOptions, names::TopicFilter};

/// Bytes of answers kept before the cache is emptied.
const CACHE: usize = 8 << 20;
/// Bytes a kept answer takes beside its topic and matches, about.
const ANSWER: usize = 160;

/// Key of a session in the session table.
pub(super) type SessionKey = usize;

/// What a session asked for with one filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) struct Asked {
    pub options: SubscribeOptions,
    pub id: Option<u32>,
    /// An internal subscriber: it wants to know who published.
    pub internal: bool,
}

/// Everybody a topic goes to.
#[derive(Debug, Default)]
pub(super) struct Matches {
    pub direct: Vec<Match>,
    /// Shared groups: exactly one member of each gets the message.
    pub groups: Vec<GroupKey>,
    /// An internal subscriber is among them.
    pub internal: bool,
}

/// Key of a shared group: group name and filter.
pub(super) type GroupKey = Arc<(Box<str>, Box<str>)>;

/// The group a shared filter names.
pub(super) fn group_key(filter: &TopicFilter) -> Option<GroupKey> {
    filter.shared().map(|(group, pattern)| Arc::new((group.into(), pattern.into())))
}

#[derive(Debug, Default)]
struct Node {
    children: HashMap<Box<str>, Node>,
    any: Option<Box<Node>>,
    here: Subscribers,
    below: Subscribers,
}

#[derive(Debug, Default)]
struct Subscribers {
    direct: BTreeMap<SessionKey, Asked>,
    groups: Vec<GroupKey>,
}

impl Subscribers {
    fn is_empty(&self) -> bool {
        self.direct.is_empty() && self.groups.is_empty()
    }
}

impl Node {
    fn is_empty(&self) -> bool {
        self.children.is_empty() && self.any.is_none() && self.here.is_empty() && self.below.is_empty()
    }
}

#[derive(Debug, Default)]
struct Group {
    members: Vec<(SessionKey, Asked)>,
    next: usize,
}

/// The index.
#[derive(Debug, Default)]
pub(super) struct Index {
    root: Node,
    groups: HashMap<GroupKey, Group>,
    cache: HashMap<Box<[u8]>, Arc<Matches>>,
    cached: usize,
    count: usize,
}

impl Index {
    /// Subscriptions held.
    pub(super) fn len(&self) -> usize {
        self.count
    }

    /// Those of them to shared groups.
    pub(super) fn shared(&self) -> usize {
        self.groups.values().map(|group| group.members.len()).sum()
    }

    /// Whether any filter begins with this level.
    pub(super) fn reaches(&self, first: &str) -> bool {
        self.root.children.contains_key(first)
    }

    fn forget(&mut self) {
        self.cache.clear();
        self.cached = 0;
    }

    /// Adds or replaces. Returns whether it is new.
    pub(super) fn subscribe(&mut self, session: SessionKey, filter: &TopicFilter, asked: Asked) -> bool {
        self.forget();
        let new = match filter.shared() {
            Some((group, pattern)) => self.join(session, group, pattern, asked),
            None => {
                let place = subscribers(&mut self.root, filter.as_str());
                place.direct.insert(session, asked).is_none()
            }
        };
        self.count += usize::from(new);
        new
    }

    fn join(&mut self, session: SessionKey, group: &str, pattern: &str, asked: Asked) -> bool {
        let key: GroupKey = Arc::new((group.into(), pattern.into()));
        let members = &mut self.groups.entry(Arc::clone(&key)).or_default().members;
        if let Some(member) = members.iter_mut().find(|(member, _)| *member == session) {
            member.1 = asked;
            return false;
        }
        members.push((session, asked));
        if members.len() == 1 {
            subscribers(&mut self.root, pattern).groups.push(key);
        }
        true
    }

    /// Removes. Returns whether there was one.
    pub(super) fn unsubscribe(&mut self, session: SessionKey, filter: &TopicFilter) -> bool {
        self.forget();
        let gone = match filter.shared() {
            Some((group, pattern)) => self.leave(session, group, pattern),
            None => {
                remove(&mut self.root, &levels(filter.as_str()), &mut |place| place.direct.remove(&session).is_some())
            }
        };
        self.count -= usize::from(gone);
        gone
    }

    fn leave(&mut self, session: SessionKey, group: &str, pattern: &str) -> bool {
        let key: GroupKey = Arc::new((group.into(), pattern.into()));
        let Some(members) = self.groups.get_mut(&key).map(|group| &mut group.members) else { return false };
        let before = members.len();
        members.retain(|(member, _)| *member != session);
        let gone = members.len() < before;
        if members.is_empty() {
            self.groups.remove(&key);
            remove(&mut self.root, &levels(pattern), &mut |place| {
                place.groups.retain(|present| *present != key);
                true
            });
        }
        gone
    }

    /// Whom a topic goes to.
    pub(super) fn lookup(&mut self, topic: &[u8]) -> Arc<Matches> {
        if let Some(known) = self.cache.get(topic) {
            return Arc::clone(known);
        }
        let matches = Arc::new(self.search(std::str::from_utf8(topic).unwrap_or_default()));
        let size = ANSWER + topic.len() + matches.direct.len() * size_of::<Match>() + matches.groups.len() * 8;
        if self.cached + size > CACHE {
            self.forget();
        }
        self.cached += size;
        self.cache.insert(topic.into(), Arc::clone(&matches));
        matches
    }

    fn search(&self, topic: &str) -> Matches {
        let levels = levels(topic);
        let mut found = Found::default();
        let mut open = vec![(&self.root, 0usize)];
        while let Some((node, depth)) = open.pop() {
            let wildcards = depth > 0 || !topic.starts_with('$');
            if wildcards {
                found.add(&node.below);
            }
            let Some(level) = levels.get(depth) else {
                found.add(&node.here);
                continue;
            };
            if let Some(child) = node.children.get(*level) {
                open.push((child, depth + 1));
            }
            if let Some(child) = node.any.as_deref().filter(|_| wildcards) {
                open.push((child, depth + 1));
            }
        }
        found.finish()
    }

    /// Whether a group has members.
    pub(super) fn has_group(&self, key: &GroupKey) -> bool {
        self.groups.contains_key(key)
    }

    /// The members of a group.
    pub(super) fn members(&self, key: &GroupKey) -> &[(SessionKey, Asked)] {
        self.groups.get(key).map_or(&[], |group| &group.members)
    }

    /// The next member of a group that `fit` accepts, round robin.
    pub(super) fn pick(&mut self, key: &GroupKey, fit: impl Fn(SessionKey) -> bool) -> Option<(SessionKey, Asked)> {
        let group = self.groups.get_mut(key)?;
        let count = group.members.len();
        let turn = |offset: usize| (group.next + offset) % count.max(1);
        let at = (0..count).map(turn).find(|at| group.members.get(*at).is_some_and(|(member, _)| fit(*member)))?;
        group.next = at + 1;
        group.members.get(at).copied()
    }
}

#[derive(Default)]
struct Found {
    direct: BTreeMap<SessionKey, Merging>,
    groups: Vec<GroupKey>,
    internal: bool,
}

impl Found {
    fn add(&mut self, place: &Subscribers) {
        self.groups.extend(place.groups.iter().map(Arc::clone));
        for (session, asked) in &place.direct {
            self.direct.entry(*session).or_default().add(asked);
            self.internal |= asked.internal;
        }
    }

    fn finish(self) -> Matches {
        let direct = self.direct.into_iter().filter_map(|(session, merging)| merging.finish(session));
        Matches { direct: direct.collect(), groups: self.groups, internal: self.internal }
    }
}

fn levels(text: &str) -> Vec<&str> {
    text.split('/').collect()
}

/// The place of a filter, made if need be.
fn subscribers<'a>(root: &'a mut Node, filter: &str) -> &'a mut Subscribers {
    let mut node = root;
    for level in filter.split('/') {
        match level {
            "#" => return &mut node.below,
            "+" => node = node.any.get_or_insert_default(),
            level => node = node.children.entry(level.into()).or_default(),
        }
    }
    &mut node.here
}

/// Walks to a filter's place, applies `change`, and prunes what became empty. Depth is bounded by the limit on topic levels.
fn remove(node: &mut Node, filter: &[&str], change: &mut impl FnMut(&mut Subscribers) -> bool) -> bool {
    match filter.split_first() {
        None => change(&mut node.here),
        Some((&"#", _)) => change(&mut node.below),
        Some((&"+", rest)) => {
            let Some(child) = node.any.as_deref_mut() else { return false };
            let changed = remove(child, rest, change);
            if child.is_empty() {
                node.any = None;
            }
            changed
        }
        Some((level, rest)) => {
            let Some(child) = node.children.get_mut(*level) else { return false };
            let changed = remove(child, rest, change);
            if child.is_empty() {
                node.children.remove(*level);
            }
            changed
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::names::QoS;

    fn asked(qos: QoS) -> Asked {
        let options = SubscribeOptions { qos, no_local: false, retain_as_published: false, retain_handling: 0 };
        Asked { options, id: None, internal: false }
    }

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::new(text).unwrap()
    }

    #[test]
    fn overlapping_subscriptions_of_a_session_are_one_match_with_all_ids() {
        let mut index = Index::default();
        assert!(index.subscribe(1, &filter("a/#"), Asked { id: Some(4), ..asked(QoS::AtMostOnce) }));
        assert!(index.subscribe(1, &filter("a/+"), Asked { id: Some(5), ..asked(QoS::ExactlyOnce) }));
        assert!(!index.subscribe(1, &filter("a/+"), Asked { id: Some(6), ..asked(QoS::AtLeastOnce) }));
        let matches = index.lookup(b"a/b");
        assert_eq!(matches.direct.len(), 1);
        assert!(!matches.direct[0].asks_who());
        let grant = matches.direct[0].grant(true).unwrap();
        assert_eq!(grant.qos, QoS::AtLeastOnce);
        let mut ids = grant.ids.clone().unwrap().to_vec();
        ids.sort_unstable();
        assert_eq!(ids, [4, 6]);
        assert_eq!(index.len(), 2);
    }

    #[test]
    fn groups_take_turns_and_prefer_who_fits() {
        let mut index = Index::default();
        for session in [1, 2, 3] {
            index.subscribe(session, &filter("$share/g/a"), asked(QoS::AtLeastOnce));
        }
        let key = index.lookup(b"a").groups[0].clone();
        let turns: Vec<_> = (0..6).map(|_| index.pick(&key, |_| true).unwrap().0).collect();
        assert_eq!(turns, [1, 2, 3, 1, 2, 3]);
        assert_eq!(index.pick(&key, |member| member == 3).unwrap().0, 3);
        assert!(index.pick(&key, |_| false).is_none());
        for session in [1, 2, 3] {
            assert!(index.unsubscribe(session, &filter("$share/g/a")));
        }
        assert!(index.lookup(b"a").groups.is_empty() && index.root.is_empty());
    }

    #[test]
    fn the_cache_is_bounded_in_bytes() {
        let mut index = Index::default();
        for session in 0..1_000 {
            index.subscribe(session, &filter("#"), asked(QoS::AtMostOnce));
        }
        for number in 0..2_000 {
            assert_eq!(index.lookup(format!("t/{number}").as_bytes()).direct.len(), 1_000);
            assert!(index.cached <= CACHE && index.cache.len() * 1_000 * size_of::<Match>() <= CACHE);
        }
        assert!(index.cache.len() > 10);
    }

    fn topic_level() -> impl Strategy<Value = &'static str> {
        prop_oneof![Just("a"), Just("b"), Just(""), Just("$SYS"), Just("å")]
    }

    fn any_filter() -> impl Strategy<Value = String> {
        let level = prop_oneof![4 => topic_level(), 2 => Just("+")];
        (prop::collection::vec(level, 1..4), any::<bool>()).prop_map(|(levels, hash)| {
            let text = levels.join("/");
            if hash { format!("{text}/#") } else { text }
        })
    }

    proptest! {
        #[test]
        fn the_tree_agrees_with_the_rule(
            filters in prop::collection::vec(any_filter(), 1..12),
            removed in prop::collection::vec(any::<bool>(), 12),
            topic in prop::collection::vec(topic_level(), 1..4),
        ) {
            let topic = topic.join("/");
            prop_assume!(!topic.is_empty());
            let mut index = Index::default();
            let filters: Vec<_> = filters.iter().filter_map(|text| TopicFilter::new(text).ok()).collect();
            for (session, filter) in filters.iter().enumerate() {
                index.subscribe(session, filter, asked(QoS::AtMostOnce));
                index.lookup(topic.as_bytes());
            }
            for (session, filter) in filters.iter().enumerate().filter(|(at, _)| removed[*at]) {
                prop_assert!(index.unsubscribe(session, filter));
            }
            let expected: Vec<_> = filters.iter().enumerate()
                .filter(|(at, filter)| !removed[*at] && filter.matches(&topic)).map(|(at, _)| at).collect();
            let found: Vec<_> = index.lookup(topic.as_bytes()).direct.iter().map(|found| found.session).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
