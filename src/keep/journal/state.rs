//! The journal in memory, and what of it is to be written.
//!
//! Invariant: `entries` and `records` are in the order of ids, and every entry belongs to exactly one record, the last one that begins at or
//! before it.

use std::{
    collections::{HashSet, VecDeque},
    hash::{Hash, Hasher},
    sync::Arc,
};

use super::{
    JournalSettings, Note,
    record::{self, Entry},
};
use crate::keep::Change;

/// Bytes handed to the file at once when it is told what it missed.
const PORTION: usize = 4 << 20;

/// In which order events are told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Order {
    /// The one noted last comes first.
    #[default]
    NewestFirst,
    /// The one noted first comes first.
    OldestFirst,
}

/// What is asked for: everything that is given must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ask {
    /// Not before this, milliseconds since 1970.
    pub since: Option<u64>,
    /// Before this.
    pub until: Option<u64>,
    /// One of these types; empty: all.
    pub kinds: Vec<String>,
    /// Of this task.
    pub task_id: Option<String>,
    /// Of tasks of this name.
    pub task_name: Option<String>,
    /// Of this app.
    pub app_id: Option<String>,
    /// Of this execution.
    pub execution_id: Option<String>,
    /// Noted before the event of this id.
    pub before: Option<u64>,
    /// Noted after it.
    pub after: Option<u64>,
    /// In this order ...
    pub order: Order,
    /// ... so many at most.
    pub limit: usize,
}

impl Ask {
    fn fits(&self, entry: &Entry) -> bool {
        let texts = entry.texts();
        let is = |wanted: &Option<String>, text: &str| wanted.as_deref().is_none_or(|wanted| wanted == text);
        self.since.is_none_or(|since| entry.at >= since)
            && self.until.is_none_or(|until| entry.at < until)
            && (self.kinds.is_empty() || self.kinds.iter().any(|kind| kind == texts.kind))
            && is(&self.task_id, texts.task_id)
            && is(&self.task_name, texts.task_name)
            && is(&self.app_id, texts.app_id)
            && is(&self.execution_id, texts.execution_id)
    }
}

/// Type, task and execution of an event that has all three: an end that is told once.
#[derive(Debug, Clone)]
struct Key(Arc<str>);

impl Key {
    fn of(entry: &Entry) -> Option<Self> {
        let texts = entry.texts();
        let is_id = |text: &str| text.bytes().any(|byte| !matches!(byte, b'0' | b'-'));
        (is_id(texts.task_id) && is_id(texts.execution_id)).then(|| Self(Arc::clone(&entry.texts)))
    }

    /// The three stand in front.
    fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('\0').take(3)
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.parts().eq(other.parts())
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.parts().for_each(|part| part.hash(state));
    }
}

/// What notes became.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub changes: Vec<Change>,
    pub entries: usize,
    /// Ends that were there already.
    pub duplicates: usize,
}

/// What was removed, by the bound it was beyond.
#[derive(Debug, Default)]
pub(super) struct Swept {
    pub changes: Vec<Change>,
    pub age: u64,
    pub entries: u64,
    pub bytes: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct State {
    settings: JournalSettings,
    entries: VecDeque<Entry>,
    /// The id of the first entry of each record on disk.
    records: VecDeque<u64>,
    ends: HashSet<Key>,
    bytes: usize,
    last: u64,
    /// Of the file, up to which everything was written again.
    pub failures: u64,
}

impl State {
    pub(super) fn new(settings: JournalSettings) -> Self {
        Self {
            settings,
            entries: VecDeque::new(),
            records: VecDeque::new(),
            ends: HashSet::new(),
            bytes: 0,
            last: 0,
            failures: 0,
        }
    }

    pub(super) fn limit(&mut self, newer: JournalSettings) {
        let JournalSettings { enable, sessions, .. } = self.settings;
        self.settings = JournalSettings { enable, sessions, ..newer };
    }

    /// Takes up records; what cannot be read is to be deleted.
    pub(super) fn load(&mut self, pairs: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<Change> {
        let mut unreadable = Vec::new();
        for (key, body) in pairs {
            let read = record::read_key(&key).zip(record::read(&body));
            // Keys come in their order; a record that overlaps the one before is none of this program's.
            let fits = |(first, entries): &(u64, Vec<Entry>)| {
                *first > self.last
                    && entries.first().is_some_and(|entry| entry.id == *first)
                    && entries.is_sorted_by(|a, b| a.id < b.id)
            };
            match read.filter(fits) {
                Some((first, entries)) => {
                    self.records.push_back(first);
                    entries.into_iter().for_each(|entry| self.push(entry));
                }
                None => unreadable.push(Change::Delete(key)),
            }
        }
        unreadable
    }

    fn push(&mut self, entry: Entry) {
        self.last = entry.id;
        self.bytes += entry.weight();
        if let Some(key) = Key::of(&entry) {
            // A record that is read can still have one that was pushed out before the same end came again: the newer one counts.
            self.ends.replace(key);
        }
        self.entries.push_back(entry);
    }

    /// Takes notes in, in one record.
    pub(super) fn add(&mut self, notes: impl Iterator<Item = Note>, now: u64) -> Taken {
        let (mut taken, before) = (Taken::default(), self.entries.len());
        // Ids go on over restarts, also when nothing is left to go on from: they are made of the time, and 2^12 fit into a millisecond.
        let floor = now << 12;
        for note in notes {
            let entry = Entry::new((self.last + 1).max(floor), now, &note);
            if Key::of(&entry).is_some_and(|key| self.ends.contains(&key)) {
                taken.duplicates += 1;
                continue;
            }
            self.push(entry);
        }
        let new = || self.entries.range(before..);
        if let Some(first) = new().next().map(|entry| entry.id) {
            taken.entries = new().len();
            taken.changes.push(Change::Put(record::key(first), record::body(new())));
            self.records.push_back(first);
        }
        taken
    }

    /// Removes what is beyond the bounds. A record goes when its last event does; what of it went before is left out when it is read.
    pub(super) fn sweep(&mut self, now: u64) -> Swept {
        let mut swept = Swept::default();
        while let Some(oldest) = self.entries.front() {
            let age = u128::from(now.saturating_sub(oldest.noted));
            let reason = if age >= self.settings.max_age.as_millis() {
                &mut swept.age
            } else if self.entries.len() > self.settings.max_entries {
                &mut swept.entries
            } else if self.bytes > self.settings.max_bytes {
                &mut swept.bytes
            } else {
                break;
            };
            *reason += 1;
            self.remove_oldest();
        }
        // The last record stays while it has an entry; the ones before it while they do.
        while let Some(first) = self.records.front().copied() {
            let end = self.records.get(1).copied();
            let is_empty = self.entries.front().is_none_or(|oldest| end.is_some_and(|end| oldest.id >= end));
            if !is_empty {
                break;
            }
            self.records.pop_front();
            swept.changes.push(Change::Delete(record::key(first)));
        }
        swept
    }

    fn remove_oldest(&mut self) {
        let Some(entry) = self.entries.pop_front() else { return };
        self.bytes -= entry.weight();
        if let Some(key) = Key::of(&entry)
            && self.ends.get(&key).is_some_and(|known| Arc::ptr_eq(&known.0, &key.0))
        {
            self.ends.remove(&key);
        }
    }

    fn fitting<'a>(&'a self, ask: &'a Ask) -> impl DoubleEndedIterator<Item = &'a Entry> {
        let from = ask.after.map_or(0, |after| self.entries.partition_point(|entry| entry.id <= after));
        let to =
            ask.before.map_or(self.entries.len(), |before| self.entries.partition_point(|entry| entry.id < before));
        self.entries.range(from.min(to)..to).filter(|entry| ask.fits(entry))
    }

    pub(super) fn find(&self, ask: &Ask) -> Vec<Entry> {
        let fitting = self.fitting(ask);
        match ask.order {
            Order::NewestFirst => fitting.rev().take(ask.limit).cloned().collect(),
            Order::OldestFirst => fitting.take(ask.limit).cloned().collect(),
        }
    }

    pub(super) fn count(&self, ask: &Ask) -> usize {
        self.fitting(ask).count()
    }

    /// What the file has to be told so that it holds what is here, in portions.
    pub(super) fn difference(&self, there: impl Iterator<Item = Vec<u8>>) -> Vec<Vec<Change>> {
        let mut there: HashSet<Vec<u8>> = there.collect();
        let (mut portions, mut portion, mut bytes) = (Vec::new(), Vec::new(), 0);
        let ends = self.records.iter().skip(1).copied().chain([u64::MAX]);
        for (first, end) in self.records.iter().copied().zip(ends) {
            if there.remove(&record::key(first)) {
                continue;
            }
            let at = |id| self.entries.partition_point(|entry| entry.id < id);
            let change = Change::Put(record::key(first), record::body(self.entries.range(at(first)..at(end))));
            bytes += change.bytes();
            portion.push(change);
            if bytes >= PORTION {
                portions.push(std::mem::take(&mut portion));
                bytes = 0;
            }
        }
        portion.extend(there.into_iter().map(Change::Delete));
        portions.extend((!portion.is_empty()).then_some(portion));
        portions
    }

    /// Events and bytes there are.
    pub(super) fn level(&self) -> (usize, usize) {
        (self.entries.len(), self.bytes)
    }
}
