//! What was started lately, so that the same request does not start a task twice.
//!
//! Invariants: bounded by number of requests, by number of outcomes and by age; a request is remembered before it is worked on, so a
//! second one that arrives meanwhile hears the first one's answer; the requests themselves are not kept, only a hash of what identifies
//! them, the same in every life of the program. Whoever forgets tells the journal.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use ring::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::{journal::RequestId, story::Listener};

/// What identifies a request: 128 bits of a SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(super) struct Key([u8; 16]);

impl Key {
    /// Of parts that together identify a request.
    pub(super) fn of(parts: &[&str]) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            // With its length, or parts could be cut differently and be the same.
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part.as_bytes());
        }
        let mut key = [0; 16];
        key.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
        Self(key)
    }
}

struct Entry {
    story: Listener,
    /// The request whose record on disk lives as long as this.
    owner: Option<RequestId>,
    serial: u64,
    /// Outcomes it holds.
    weight: usize,
}

/// Requests of the last while.
pub(super) struct Memory {
    entries: HashMap<Key, Entry>,
    /// Oldest first. An entry that was replaced has another serial.
    order: VecDeque<(Key, u64, Instant)>,
    serial: u64,
    weight: usize,
    max_requests: usize,
    max_weight: usize,
    max_age: Duration,
    /// Requests that are not known any more.
    forgotten: Vec<RequestId>,
}

impl Memory {
    /// Keeps at most so many requests, and outcomes of all together, for so long.
    pub(super) fn new(max_requests: usize, max_weight: usize, max_age: Duration) -> Self {
        Self {
            entries: HashMap::new(),
            order: VecDeque::new(),
            serial: 0,
            weight: 0,
            max_requests,
            max_weight,
            max_age,
            forgotten: Vec::new(),
        }
    }

    /// What is said about a request that was remembered and is not too old.
    pub(super) fn find(&mut self, key: Key, now: Instant) -> Option<Listener> {
        self.forget(now);
        self.entries.get(&key).map(|entry| entry.story.clone())
    }

    /// Remembers a request; one with the same key is replaced. `owner`: the request, if what the disk has of it lives as long as this.
    /// `now` never goes back.
    pub(super) fn insert(&mut self, key: Key, owner: Option<RequestId>, story: Listener, now: Instant) {
        self.serial += 1;
        self.order.push_back((key, self.serial, now));
        self.weight += 1;
        let entry = Entry { story, owner, serial: self.serial, weight: 1 };
        if let Some(replaced) = self.entries.insert(key, entry) {
            self.weight -= replaced.weight;
            self.forgotten.extend(replaced.owner);
        }
        self.forget(now);
    }

    /// Owners that were forgotten since this was asked last.
    pub(super) fn take_forgotten(&mut self) -> Vec<RequestId> {
        std::mem::take(&mut self.forgotten)
    }

    /// Tells how many outcomes the answer of a request came to.
    pub(super) fn weigh(&mut self, key: Key, weight: usize, now: Instant) {
        if let Some(entry) = self.entries.get_mut(&key) {
            self.weight = self.weight - entry.weight + weight;
            entry.weight = weight;
        }
        self.forget(now);
    }

    /// A request that may be made again.
    pub(super) fn remove(&mut self, key: Key) {
        if let Some(entry) = self.entries.remove(&key) {
            self.weight -= entry.weight;
            self.forgotten.extend(entry.owner);
        }
    }

    fn forget(&mut self, now: Instant) {
        while let Some(&(key, serial, since)) = self.order.front() {
            let too_many = self.order.len() > self.max_requests || self.weight > self.max_weight;
            if !too_many && now.duration_since(since) < self.max_age {
                return;
            }
            self.order.pop_front();
            if self.entries.get(&key).is_some_and(|entry| entry.serial == serial)
                && let Some(entry) = self.entries.remove(&key)
            {
                self.weight -= entry.weight;
                self.forgotten.extend(entry.owner);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::story::told, *};

    fn key(number: u64) -> Key {
        Key::of(&[&number.to_string()])
    }

    fn memory(max_requests: usize, max_weight: usize) -> Memory {
        Memory::new(max_requests, max_weight, Duration::from_secs(60))
    }

    fn insert(memory: &mut Memory, number: u64, now: Instant) {
        memory.insert(key(number), Some(RequestId::from(number)), told(Vec::new()), now);
    }

    #[test]
    fn parts_are_not_run_together() {
        assert_ne!(Key::of(&["ab", "c"]), Key::of(&["a", "bc"]));
        assert_eq!(Key::of(&["ab", "c"]), Key::of(&["ab", "c"]));
    }

    #[test]
    fn requests_are_found_until_they_are_too_old() {
        let (mut memory, start) = (memory(10, 100), Instant::now());
        assert!(memory.find(key(1), start).is_none());
        insert(&mut memory, 1, start);
        assert!(memory.find(key(1), start + Duration::from_secs(59)).is_some());
        assert!(memory.find(key(2), start).is_none());
        assert!(memory.take_forgotten().is_empty());
        assert!(memory.find(key(1), start + Duration::from_secs(60)).is_none());
        assert_eq!((memory.entries.len(), memory.order.len(), memory.weight), (0, 0, 0));
        assert_eq!(memory.take_forgotten(), [RequestId::from(1)]);
    }

    #[test]
    fn a_replaced_request_lives_as_long_as_the_newer_one() {
        let (mut memory, start) = (memory(10, 100), Instant::now());
        insert(&mut memory, 1, start);
        insert(&mut memory, 1, start + Duration::from_secs(30));
        assert!(memory.find(key(1), start + Duration::from_secs(80)).is_some());
        assert!(memory.find(key(1), start + Duration::from_secs(90)).is_none());
        assert_eq!(memory.weight, 0);
    }

    #[test]
    fn the_oldest_go_first_when_there_are_too_many_or_they_weigh_too_much() {
        let (mut memory, now) = (memory(3, 10), Instant::now());
        (0..4).for_each(|number| insert(&mut memory, number, now));
        let found = |memory: &mut Memory| (0..4).map(|at| memory.find(key(at), now).is_some()).collect::<Vec<_>>();
        assert_eq!(found(&mut memory), [false, true, true, true]);
        memory.weigh(key(3), 10, now);
        assert_eq!(found(&mut memory), [false, false, false, true]);
        memory.weigh(key(3), 11, now);
        assert_eq!((memory.entries.len(), memory.weight), (0, 0));
        assert_eq!(memory.take_forgotten().len(), 4);
    }
}
