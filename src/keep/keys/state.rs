//! The keys in memory, and what of them is to be written.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::watch;

use super::{Digest, record};
use crate::keep::Change;

/// Bytes a key is counted with besides its answer.
const OVERHEAD: usize = 160;

/// How much is remembered, and for how long.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub age: Duration,
    pub keys: usize,
    pub bytes: usize,
}

/// How far a request is.
#[derive(Debug)]
enum Stage {
    /// Under way; whoever waits sees the sender go.
    Underway(watch::Sender<()>),
    Done(Bytes),
    Unknown,
}

#[derive(Debug)]
struct Entry {
    print: Digest,
    /// Milliseconds since 1970.
    at: u64,
    serial: u64,
    stage: Stage,
}

impl Entry {
    fn weight(&self) -> usize {
        OVERHEAD + if let Stage::Done(answer) = &self.stage { answer.len() } else { 0 }
    }
}

/// What a key stands for.
pub(super) enum Found {
    Nothing,
    Answer(Bytes),
    Other,
    Unknown,
    Underway(watch::Receiver<()>),
}

/// See the module.
#[derive(Debug)]
pub(super) struct State {
    limits: Limits,
    entries: HashMap<Digest, Entry>,
    /// Oldest first. A key that was released or used anew has another serial.
    order: VecDeque<(Digest, u64)>,
    serial: u64,
    weight: usize,
}

impl State {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, entries: HashMap::new(), order: VecDeque::new(), serial: 0, weight: 0 }
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Takes up records; what cannot be read is to be deleted.
    pub(super) fn load(&mut self, pairs: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<Change> {
        let mut unreadable = Vec::new();
        let mut read = Vec::new();
        for (key, body) in pairs {
            match record::read(&key, &body) {
                Some(record) => read.push(record),
                None => unreadable.push(Change::Delete(key)),
            }
        }
        read.sort_by_key(|record| record.at);
        for record in read {
            let stage = record.answer.map_or(Stage::Unknown, Stage::Done);
            self.insert(record.key, record.print, record.at, stage);
        }
        unreadable
    }

    /// What a key stands for, used for a request.
    pub(super) fn find(&self, key: Digest, print: Digest, now: u64) -> Found {
        let Some(entry) = self.entries.get(&key) else { return Found::Nothing };
        match &entry.stage {
            Stage::Underway(ending) if entry.print == print => Found::Underway(ending.subscribe()),
            Stage::Underway(_) => Found::Other,
            // Its time is over, whether or not it was swept away yet.
            _ if self.is_old(entry, now) => Found::Nothing,
            _ if entry.print != print => Found::Other,
            Stage::Done(answer) => Found::Answer(answer.clone()),
            Stage::Unknown => Found::Unknown,
        }
    }

    /// A key is used from now on.
    pub(super) fn begin(&mut self, key: Digest, print: Digest, now: u64) -> Vec<Change> {
        let mut changes = self.sweep(now, 1);
        self.insert(key, print, now, Stage::Underway(watch::Sender::new(())));
        changes.push(Change::Put(record::key(key), record::body(print, now, None)));
        changes
    }

    /// What was asked for under a key is answered so.
    pub(super) fn settle(&mut self, key: Digest, answer: Bytes) -> Vec<Change> {
        let Some(entry) = self.entries.get_mut(&key) else { return Vec::new() };
        self.weight += answer.len();
        let put = Change::Put(record::key(key), record::body(entry.print, entry.at, Some(&answer)));
        entry.stage = Stage::Done(answer);
        let mut changes = vec![put];
        let at = entry.at;
        changes.extend(self.sweep(at, 0));
        changes
    }

    /// A key is as new.
    pub(super) fn release(&mut self, key: Digest) -> Vec<Change> {
        self.remove(key);
        vec![Change::Delete(record::key(key))]
    }

    /// Nobody knows what became of it.
    pub(super) fn lose(&mut self, key: Digest) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.stage = Stage::Unknown;
        }
    }

    fn is_old(&self, entry: &Entry, now: u64) -> bool {
        // A clock that was set back makes nothing older.
        u128::from(now.saturating_sub(entry.at)) >= self.limits.age.as_millis()
    }

    fn insert(&mut self, key: Digest, print: Digest, at: u64, stage: Stage) {
        self.remove(key);
        self.serial += 1;
        self.order.push_back((key, self.serial));
        let entry = Entry { print, at, serial: self.serial, stage };
        self.weight += entry.weight();
        self.entries.insert(key, entry);
    }

    fn remove(&mut self, key: Digest) {
        if let Some(entry) = self.entries.remove(&key) {
            self.weight -= entry.weight();
        }
    }

    /// Forgets what is too old, and the oldest of what is too much with those that are `coming`.
    fn sweep(&mut self, now: u64, coming: usize) -> Vec<Change> {
        let mut changes = Vec::new();
        // Those under way go to the end of the row, each once.
        for _ in 0..self.order.len() {
            let Some((key, serial)) = self.order.front().copied() else { break };
            let entry = self.entries.get(&key).filter(|entry| entry.serial == serial);
            let too_much = self.entries.len() + coming > self.limits.keys || self.weight > self.limits.bytes;
            if entry.is_some_and(|entry| !too_much && !self.is_old(entry, now)) {
                break;
            }
            let underway = entry.is_some_and(|entry| matches!(entry.stage, Stage::Underway(_)));
            let is_there = entry.is_some();
            self.order.pop_front();
            if underway {
                self.order.push_back((key, serial));
            } else if is_there {
                self.remove(key);
                changes.push(Change::Delete(record::key(key)));
            }
        }
        changes
    }
}
