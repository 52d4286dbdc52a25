//! The retained tree: the last retained message of every topic.
//!
//! Changed only by the dispatcher, in stream order. Invariants: bytes and topics stay within their limits; an expired message is never
//! handed out; empty branches are pruned.

mod page;

use std::{collections::BTreeMap, sync::Arc};

use crate::broker::envelope::Message;

#[derive(Debug, Default)]
struct Node {
    children: BTreeMap<Box<str>, Node>,
    message: Option<Arc<Message>>,
}

/// What became of a retained message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kept {
    /// Stored or cleared.
    Yes,
    /// The limit on topics or bytes is reached; the topic's earlier value, if any, is gone.
    Full,
}

/// The tree.
#[derive(Debug)]
pub(super) struct Retained {
    root: Node,
    topics: usize,
    bytes: usize,
    most_topics: usize,
    most_bytes: usize,
}

impl Retained {
    pub(super) fn new(most_topics: usize, most_bytes: usize) -> Self {
        Self { root: Node::default(), topics: 0, bytes: 0, most_topics, most_bytes }
    }

    pub(super) fn topics(&self) -> usize {
        self.topics
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Sets a topic's value; an empty payload clears it (`[MQTT-3.3.1-6]`).
    pub(super) fn set(&mut self, message: &Arc<Message>) -> Kept {
        let path: Vec<&str> = message.topic_str().split('/').collect();
        if let Some(old) = remove(&mut self.root, &path) {
            self.topics -= 1;
            self.bytes -= old.size();
        }
        if message.payload().is_empty() {
            return Kept::Yes;
        }
        if self.topics >= self.most_topics || self.bytes + message.size() > self.most_bytes {
            return Kept::Full;
        }
        let node = path.iter().fold(&mut self.root, |node, level| node.children.entry((*level).into()).or_default());
        node.message = Some(Arc::clone(message));
        self.topics += 1;
        self.bytes += message.size();
        Kept::Yes
    }

    /// Lets go of what expired: it is not handed out any more, and keeps room from others.
    pub(super) fn purge(&mut self, now: u64) -> Vec<Arc<Message>> {
        let mut gone = Vec::new();
        purge(&mut self.root, now, &mut gone);
        self.topics -= gone.len();
        self.bytes -= gone.iter().map(|message| message.size()).sum::<usize>();
        gone
    }

    /// The present value of a topic.
    pub(super) fn get(&self, topic: &str) -> Option<&Arc<Message>> {
        let mut levels = topic.split('/');
        levels.try_fold(&self.root, |node, level| node.children.get(level))?.message.as_ref()
    }

    /// Every unexpired message a filter matches.
    pub(super) fn matching(&self, filter: &str, now: u64) -> Vec<Arc<Message>> {
        let mut found = Vec::new();
        let path: Vec<&str> = filter.split('/').collect();
        collect(&self.root, &path, true, &mut found);
        found.retain(|message| message.remaining(now).is_ok());
        found
    }
}

/// Depth is bounded by the limit on topic levels.
fn collect(node: &Node, filter: &[&str], first: bool, found: &mut Vec<Arc<Message>>) {
    let visible = |name: &str| !(first && name.starts_with('$'));
    match filter.split_first() {
        None => found.extend(node.message.iter().map(Arc::clone)),
        Some((&"#", _)) => {
            found.extend(node.message.iter().map(Arc::clone));
            for (_, child) in node.children.iter().filter(|(name, _)| visible(name)) {
                collect(child, filter, false, found);
            }
        }
        Some((&"+", rest)) => {
            for (_, child) in node.children.iter().filter(|(name, _)| visible(name)) {
                collect(child, rest, false, found);
            }
        }
        Some((level, rest)) => {
            if let Some(child) = node.children.get(*level) {
                collect(child, rest, false, found);
            }
        }
    }
}

fn purge(node: &mut Node, now: u64, gone: &mut Vec<Arc<Message>>) {
    gone.extend(node.message.take_if(|message| message.remaining(now).is_err()));
    node.children.retain(|_, child| {
        purge(child, now, gone);
        child.message.is_some() || !child.children.is_empty()
    });
}

fn remove(node: &mut Node, path: &[&str]) -> Option<Arc<Message>> {
    let Some((level, rest)) = path.split_first() else { return node.message.take() };
    let child = node.children.get_mut(*level)?;
    let removed = remove(child, rest);
    if child.message.is_none() && child.children.is_empty() {
        node.children.remove(*level);
    }
    removed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broker::envelope::{Draft, PublishDraft},
        names::{QoS, matches},
    };

    fn message(topic: &str, payload: &str, expires: u64) -> Arc<Message> {
        let draft = Draft::publish(&PublishDraft {
            topic: topic.as_bytes(),
            properties: b"",
            payload: payload.as_bytes(),
            qos: QoS::AtMostOnce,
            retain: true,
            dup: false,
            packet_id: 0,
            received: 0,
            expires,
        });
        Arc::new(Message::read(draft.stamp(1, 1)).unwrap())
    }

    #[test]
    fn the_tree_agrees_with_the_rule_of_matching() {
        let topics = ["a", "a/b", "a/b/c", "/", "/a", "a/", "$SYS/x", "å/ö", "b"];
        let filters =
            ["#", "+", "a/#", "a/+", "+/b", "/#", "/+", "$SYS/#", "$SYS/+", "+/x", "å/+", "a", "zz", "+/+", "a/b/c/#"];
        let mut tree = Retained::new(100, 1 << 20);
        for topic in topics {
            assert_eq!(tree.set(&message(topic, "1", 0)), Kept::Yes);
        }
        for filter in filters {
            let mut found: Vec<_> = tree.matching(filter, 0).iter().map(|m| m.topic_str().to_owned()).collect();
            let mut expected: Vec<_> =
                topics.iter().filter(|topic| matches(filter, topic)).map(ToString::to_string).collect();
            found.sort();
            expected.sort();
            assert_eq!(found, expected, "{filter}");
        }
    }

    /// All pages of a filter, and how many there were.
    fn pages(tree: &Retained, filter: &str, limit: usize, now: u64) -> (Vec<String>, usize) {
        let (mut found, mut from, mut count) = (Vec::new(), None, 0);
        loop {
            let rows = tree.page(filter, from.as_deref(), limit, now);
            assert!(rows.rows.len() <= limit);
            found.extend(rows.rows.iter().map(|message| message.topic_str().to_owned()));
            count += 1;
            match rows.next {
                Some(next) => from = Some(next.as_str().to_owned()),
                None => return (found, count),
            }
        }
    }

    #[test]
    fn pages_together_are_everything_in_the_order_of_the_tree() {
        let topics = ["a", "a/b", "a/b/c", "/", "/a", "a/", "$SYS/x", "å/ö", "b", "a-", "a/b/d", "b/b/c"];
        let filters =
            ["#", "+", "a/#", "a/+", "+/b", "/#", "/+", "$SYS/#", "+/x", "a", "zz", "+/+", "a/b/c/#", "+/b/+", "+/b/#"];
        let mut tree = Retained::new(100, 1 << 20);
        for topic in topics {
            tree.set(&message(topic, "1", if topic == "b" { 50 } else { 0 }));
        }
        let mut ran = 0;
        for filter in filters {
            let mut expected: Vec<_> =
                topics.iter().filter(|topic| matches(filter, topic) && **topic != "b").copied().collect();
            expected.sort_by_key(|topic| topic.split('/').collect::<Vec<_>>());
            for limit in 1..=expected.len() + 1 {
                let (found, count) = pages(&tree, filter, limit, 60);
                assert_eq!(
                    (found.iter().map(String::as_str).collect::<Vec<_>>(), count),
                    (expected.clone(), expected.len().div_ceil(limit).max(1))
                );
                ran += 1;
            }
        }
        assert!(ran > 40, "{ran}");
    }

    #[test]
    fn a_page_looks_at_a_bounded_number_of_places() {
        let mut tree = Retained::new(100_000, 1 << 30);
        for number in 0..50_000 {
            tree.set(&message(&format!("t/{number:05}/v"), "1", 0));
        }
        tree.set(&message("t/49999/x", "1", 0));
        let (found, count) = pages(&tree, "+/+/x", 10, 0);
        assert_eq!((found, count), (vec!["t/49999/x".to_owned()], 11));
        // A place that is gone meanwhile loses nothing that follows.
        let first = tree.page("#", None, 2, 0).next.unwrap();
        assert_eq!(first.as_str(), "t/00002/v");
        tree.set(&message("t/00002/v", "", 0));
        assert_eq!(tree.page("#", Some(first.as_str()), 1, 0).rows[0].topic_str(), "t/00003/v");
    }

    #[test]
    fn clearing_expiry_and_limits() {
        let mut tree = Retained::new(2, 1 << 20);
        tree.set(&message("a/b", "1", 0));
        tree.set(&message("a/b", "2", 0));
        tree.set(&message("a/c", "3", 50));
        assert_eq!((tree.topics(), tree.matching("#", 60).len(), tree.matching("#", 40).len()), (2, 1, 2));
        assert_eq!(tree.set(&message("x", "4", 0)), Kept::Full);
        tree.purge(60);
        assert_eq!((tree.topics(), tree.bytes()), (1, message("a/b", "2", 0).size()));
        assert_eq!(tree.set(&message("a/c", "3", 0)), Kept::Yes);
        tree.set(&message("a/b", "", 0));
        tree.set(&message("a/c", "", 0));
        assert!(tree.root.children.is_empty());
        assert_eq!((tree.topics(), tree.bytes()), (0, 0));
        assert!(tree.get("a/b").is_none());
    }
}
