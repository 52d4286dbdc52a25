//! What was started lately, so that the same request does not start a task twice.
//!
//! Invariants: bounded by number of requests, by number of outcomes and by age; a request is remembered before it is worked on, so a
//! second one that arrives meanwhile waits for the first one's answer; the requests themselves are not kept, only a keyed hash of what
//! identifies them.

use std::{
    collections::{HashMap, VecDeque, hash_map::RandomState},
    hash::{BuildHasher, Hash},
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::watch;

use super::request::StartOutcome;

/// The answer of a request, as soon as there is one.
pub(super) type Answer = watch::Receiver<Option<Arc<[StartOutcome]>>>;

/// What identifies a request: 128 bits of a hash nobody outside can aim at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key(u64, u64);

struct Entry {
    answer: Answer,
    serial: u64,
    /// Outcomes it holds.
    weight: usize,
}

/// Requests of the last while.
pub(super) struct Memory {
    hashers: (RandomState, RandomState),
    entries: HashMap<Key, Entry>,
    /// Oldest first. An entry that was replaced has another serial.
    order: VecDeque<(Key, u64, Instant)>,
    serial: u64,
    weight: usize,
    max_requests: usize,
    max_weight: usize,
    max_age: Duration,
}

impl Memory {
    /// Keeps at most so many requests, and outcomes of all together, for so long.
    pub(super) fn new(max_requests: usize, max_weight: usize, max_age: Duration) -> Self {
        Self {
            hashers: (RandomState::new(), RandomState::new()),
            entries: HashMap::new(),
            order: VecDeque::new(),
            serial: 0,
            weight: 0,
            max_requests,
            max_weight,
            max_age,
        }
    }

    /// The key of what identifies a request.
    pub(super) fn key(&self, identity: &impl Hash) -> Key {
        Key(self.hashers.0.hash_one(identity), self.hashers.1.hash_one(identity))
    }

    /// The answer of a request that was remembered and is not too old.
    pub(super) fn find(&mut self, key: Key, now: Instant) -> Option<Answer> {
        self.forget(now);
        self.entries.get(&key).map(|entry| entry.answer.clone())
    }

    /// Remembers a request; one with the same key is replaced.
    pub(super) fn insert(&mut self, key: Key, answer: Answer, now: Instant) {
        self.serial += 1;
        self.order.push_back((key, self.serial, now));
        self.weight += 1;
        let entry = Entry { answer, serial: self.serial, weight: 1 };
        if let Some(replaced) = self.entries.insert(key, entry) {
            self.weight -= replaced.weight;
        }
        self.forget(now);
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
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Answer {
        watch::channel(None).1
    }

    #[test]
    fn requests_are_found_until_they_are_too_old() {
        let mut memory = Memory::new(10, 100, Duration::from_secs(60));
        let (key, start) = (memory.key(&("client", 1)), Instant::now());
        assert!(memory.find(key, start).is_none());
        memory.insert(key, answer(), start);
        assert!(memory.find(key, start + Duration::from_secs(59)).is_some());
        assert!(memory.find(memory.key(&("client", 2)), start).is_none());
        assert!(memory.find(key, start + Duration::from_secs(60)).is_none());
        assert_eq!((memory.entries.len(), memory.order.len(), memory.weight), (0, 0, 0));
    }

    #[test]
    fn a_replaced_request_lives_as_long_as_the_newer_one() {
        let mut memory = Memory::new(10, 100, Duration::from_secs(60));
        let (key, start) = (memory.key(&"k"), Instant::now());
        memory.insert(key, answer(), start);
        memory.insert(key, answer(), start + Duration::from_secs(30));
        assert!(memory.find(key, start + Duration::from_secs(80)).is_some());
        assert!(memory.find(key, start + Duration::from_secs(90)).is_none());
        assert_eq!(memory.weight, 0);
    }

    #[test]
    fn the_oldest_go_first_when_there_are_too_many_or_they_weigh_too_much() {
        let (mut memory, now) = (Memory::new(3, 10, Duration::from_secs(60)), Instant::now());
        let keys: Vec<_> = (0..4).map(|number| memory.key(&number)).collect();
        for key in &keys {
            memory.insert(*key, answer(), now);
        }
        let found: Vec<_> = keys.iter().map(|key| memory.find(*key, now).is_some()).collect();
        assert_eq!(found, [false, true, true, true]);
        memory.weigh(keys[3], 10, now);
        let found: Vec<_> = keys.iter().map(|key| memory.find(*key, now).is_some()).collect();
        assert_eq!(found, [false, false, false, true]);
        memory.weigh(keys[3], 11, now);
        assert_eq!((memory.entries.len(), memory.weight), (0, 0));
    }
}
