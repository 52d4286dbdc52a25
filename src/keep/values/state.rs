//! The store in memory: a plain state machine, without clock, lock or file. Each change answers what the file has to be told.
//!
//! Invariant: a change is checked as a whole before anything is changed.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use super::{
    Found, Item, MAX_NAME, ValueSettings, ValuesError,
    record::{self, Record},
};
use crate::keep::Change;

/// What an entry takes beside its bytes.
const OVERHEAD: usize = 64;

/// A value with its times.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    /// Which came first.
    pub order: u64,
    /// Milliseconds since 1970; 0: never.
    pub expires: u64,
    /// As it was given.
    pub ttl: i64,
    /// JSON text.
    pub value: Arc<str>,
}

impl Entry {
    fn is_over(&self, now: u64) -> bool {
        self.expires != 0 && self.expires <= now
    }
}

#[derive(Debug, Default)]
struct Namespace {
    born: u64,
    keys: HashMap<Arc<str>, Entry>,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct State {
    namespaces: HashMap<Arc<str>, Namespace>,
    /// When and in which order keys are over.
    due: BTreeMap<(u64, u64), (Arc<str>, Arc<str>)>,
    /// The order of the next that comes.
    next: u64,
    /// Of all names and values.
    bytes: usize,
    /// Keys there are.
    count: usize,
    /// How many writes of the file had failed when all of this was known to be in it.
    pub failures: u64,
}

fn weight(key: &str, value: &str) -> usize {
    key.len() + value.len() + OVERHEAD
}

impl State {
    /// Takes up what the file holds.
    pub(super) fn load(&mut self, pairs: Vec<(Vec<u8>, Vec<u8>)>) {
        let mut strange = 0_usize;
        // Namespaces come before values.
        for (key, body) in pairs {
            match record::read(&key, &body) {
                Some(Record::Namespace { name, born }) => self.add_namespace(name.into(), born),
                Some(Record::Value { namespace, key, entry }) => self.set(namespace.into(), key.into(), entry),
                None => strange += 1,
            }
        }
        if strange > 0 {
            tracing::error!(
                code = "values_unreadable",
                strange,
                "records of the key-value store mean nothing to this version and are left out; use the version that wrote them, or check the disk"
            );
        }
    }

    fn add_namespace(&mut self, name: Arc<str>, born: u64) {
        self.next = self.next.max(born.saturating_add(1));
        self.bytes += name.len() + OVERHEAD;
        self.namespaces.insert(name, Namespace { born, keys: HashMap::new() });
    }

    /// Puts an entry where it belongs; its namespace is there, or comes with it.
    fn set(&mut self, name: Arc<str>, key: Arc<str>, entry: Entry) {
        self.next = self.next.max(entry.order.saturating_add(1));
        if !self.namespaces.contains_key(&name) {
            self.add_namespace(Arc::clone(&name), entry.order);
        }
        self.take(&name, &key);
        self.bytes += weight(&key, &entry.value);
        self.count += 1;
        if entry.expires != 0 {
            self.due.insert((entry.expires, entry.order), (Arc::clone(&name), Arc::clone(&key)));
        }
        if let Some(namespace) = self.namespaces.get_mut(&name) {
            namespace.keys.insert(key, entry);
        }
    }

    fn take(&mut self, name: &str, key: &str) -> Option<Entry> {
        let entry = self.namespaces.get_mut(name)?.keys.remove(key)?;
        self.due.remove(&(entry.expires, entry.order));
        self.bytes = self.bytes.saturating_sub(weight(key, &entry.value));
        self.count = self.count.saturating_sub(1);
        Some(entry)
    }

    /// Removes what is over.
    pub(super) fn sweep(&mut self, now: u64) -> Vec<Change> {
        let mut changes = Vec::new();
        while let Some((&(expires, _), _)) = self.due.first_key_value()
            && expires <= now
            && let Some((_, (name, key))) = self.due.pop_first()
        {
            self.take(&name, &key);
            changes.push(Change::Delete(record::value_key(&name, &key)));
        }
        changes
    }

    /// Stores items, all or none. To be swept before.
    pub(super) fn put(
        &mut self,
        items: &[Item],
        settings: &ValueSettings,
        now: u64,
    ) -> Result<Vec<Change>, ValuesError> {
        items.iter().try_for_each(|item| check_item(item, settings))?;
        let plan = Plan::of(self, items);
        plan.check(self, settings)?;
        let mut changes = self.make_room(&plan, settings);
        for item in items {
            let (name, key): (Arc<str>, Arc<str>) = (item.namespace.as_str().into(), item.key.as_str().into());
            if !self.namespaces.contains_key(&name) {
                let born = self.next;
                changes.push(Change::Put(record::namespace_key(&name), record::namespace_body(born)));
                self.add_namespace(Arc::clone(&name), born);
            }
            let known = self.namespaces.get(&name).and_then(|namespace| namespace.keys.get(&key));
            let ttl = u64::try_from(item.ttl).unwrap_or(0);
            let entry = Entry {
                order: known.map_or(self.next, |entry| entry.order),
                expires: if ttl == 0 { 0 } else { now.saturating_add(ttl) },
                ttl: item.ttl,
                value: Arc::clone(&item.value),
            };
            changes.push(Change::Put(record::value_key(&name, &key), record::value_body(&entry)));
            self.set(name, key, entry);
        }
        Ok(changes)
    }

    /// Drops the oldest empty namespaces, as many as new ones need.
    fn make_room(&mut self, plan: &Plan<'_>, settings: &ValueSettings) -> Vec<Change> {
        let over = (self.namespaces.len() + plan.namespaces.len()).saturating_sub(settings.max_namespaces);
        if over == 0 || plan.namespaces.is_empty() {
            return Vec::new();
        }
        let mut empty: Vec<_> = self.empty(plan).map(|(name, namespace)| (namespace.born, Arc::clone(name))).collect();
        empty.sort_unstable();
        empty.into_iter().take(over).flat_map(|(_, name)| self.drop_namespace(&name)).collect()
    }

    /// Namespaces without keys that the plan does not name.
    fn empty<'a>(&'a self, plan: &'a Plan<'_>) -> impl Iterator<Item = (&'a Arc<str>, &'a Namespace)> {
        let unused = move |name: &str| !plan.keys.contains_key(name);
        self.namespaces.iter().filter(move |(name, namespace)| namespace.keys.is_empty() && unused(name))
    }

    /// Stores items as all there is in their namespace, all or none. To be swept before.
    pub(super) fn replace(
        &mut self,
        name: &str,
        items: &[Item],
        settings: &ValueSettings,
        now: u64,
    ) -> Result<Vec<Change>, ValuesError> {
        let stays = |key: &str| items.iter().any(|item| item.key == key);
        let there = self.namespaces.get(name).into_iter().flat_map(|space| space.keys.keys());
        let gone: Vec<Arc<str>> = there.filter(|key| !stays(key)).cloned().collect();
        // They make room for what comes; if that has none all the same, they are put back as they were.
        let taken: Vec<_> =
            gone.into_iter().filter_map(|key| self.take(name, &key).map(|entry| (key, entry))).collect();
        let stored = self.put(items, settings, now);
        if stored.is_err() {
            let name: Arc<str> = name.into();
            taken.into_iter().for_each(|(key, entry)| self.set(Arc::clone(&name), key, entry));
            return stored;
        }
        let deleted = taken.iter().map(|(key, _)| Change::Delete(record::value_key(name, key)));
        stored.map(|changes| changes.into_iter().chain(deleted).collect())
    }

    pub(super) fn get(&self, name: &str, key: &str, now: u64) -> Result<Found, ValuesError> {
        let entry = self.namespace(name)?.keys.get(key).filter(|entry| !entry.is_over(now));
        let unknown = || ValuesError::UnknownKey { namespace: name.to_owned(), key: key.to_owned() };
        entry.map(|entry| Found { value: Arc::clone(&entry.value), ttl: entry.ttl }).ok_or_else(unknown)
    }

    fn namespace(&self, name: &str) -> Result<&Namespace, ValuesError> {
        self.namespaces.get(name).ok_or_else(|| ValuesError::UnknownNamespace(name.to_owned()))
    }

    pub(super) fn keys(&self, name: &str, now: u64) -> Result<Vec<Arc<str>>, ValuesError> {
        let there = self.namespace(name)?.keys.iter().filter(|(_, entry)| !entry.is_over(now));
        let mut keys: Vec<_> = there.map(|(key, entry)| (entry.order, Arc::clone(key))).collect();
        keys.sort_unstable();
        Ok(keys.into_iter().map(|(_, key)| key).collect())
    }

    pub(super) fn namespaces(&self) -> Vec<Arc<str>> {
        let mut names: Vec<_> = self.namespaces.iter().map(|(name, space)| (space.born, Arc::clone(name))).collect();
        names.sort_unstable();
        names.into_iter().map(|(_, name)| name).collect()
    }

    /// Removes a key. To be swept before.
    pub(super) fn remove(&mut self, name: &str, key: &str) -> Result<Vec<Change>, ValuesError> {
        self.namespace(name)?;
        match self.take(name, key) {
            Some(_) => Ok(vec![Change::Delete(record::value_key(name, key))]),
            None => Err(ValuesError::UnknownKey { namespace: name.to_owned(), key: key.to_owned() }),
        }
    }

    pub(super) fn remove_namespace(&mut self, name: &str) -> Result<Vec<Change>, ValuesError> {
        self.namespace(name)?;
        Ok(self.drop_namespace(name))
    }

    fn drop_namespace(&mut self, name: &str) -> Vec<Change> {
        let keys: Vec<_> =
            self.namespaces.get(name).map(|space| space.keys.keys().cloned().collect()).unwrap_or_default();
        let mut changes = Vec::with_capacity(keys.len() + 1);
        for key in keys {
            self.take(name, &key);
            changes.push(Change::Delete(record::value_key(name, &key)));
        }
        if self.namespaces.remove(name).is_some() {
            self.bytes = self.bytes.saturating_sub(name.len() + OVERHEAD);
            changes.push(Change::Delete(record::namespace_key(name)));
        }
        changes
    }

    /// What the file has to be told so that it holds what is here.
    pub(super) fn difference(&self, there: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<Change> {
        let mut there: BTreeMap<_, _> = there.into_iter().collect();
        let namespaces = self
            .namespaces
            .iter()
            .map(|(name, space)| (record::namespace_key(name), record::namespace_body(space.born)));
        let values = self.namespaces.iter().flat_map(|(name, space)| {
            space.keys.iter().map(|(key, entry)| (record::value_key(name, key), record::value_body(entry)))
        });
        let mut changes = Vec::new();
        for (key, body) in namespaces.chain(values) {
            if there.remove(&key).as_ref() != Some(&body) {
                changes.push(Change::Put(key, body));
            }
        }
        changes.extend(there.into_keys().map(Change::Delete));
        changes
    }

    /// Namespaces, keys and bytes there are.
    pub(super) fn level(&self) -> (usize, usize, usize) {
        (self.namespaces.len(), self.count, self.bytes)
    }
}

fn check_item(item: &Item, settings: &ValueSettings) -> Result<(), ValuesError> {
    for (what, name) in [("namespace", &item.namespace), ("key", &item.key)] {
        if !(1..=MAX_NAME).contains(&name.len()) {
            return Err(ValuesError::Name { what, bytes: name.len() });
        }
    }
    if item.value.len() > settings.max_value {
        let (key, bytes) = (item.key.clone(), item.value.len());
        return Err(ValuesError::TooLarge { key, bytes, limit: settings.max_value });
    }
    Ok(())
}

/// What items would bring.
struct Plan<'a> {
    /// New namespaces.
    namespaces: HashSet<&'a str>,
    /// New keys of each namespace the items name.
    keys: HashMap<&'a str, usize>,
    /// Bytes that come and bytes that go.
    more: usize,
    less: usize,
}

impl<'a> Plan<'a> {
    fn of(state: &State, items: &'a [Item]) -> Self {
        let mut plan = Self { namespaces: HashSet::new(), keys: HashMap::new(), more: 0, less: 0 };
        // Of several with one key the last one stays.
        let last: HashMap<_, _> =
            items.iter().map(|item| ((item.namespace.as_str(), item.key.as_str()), item)).collect();
        for ((name, key), item) in last {
            let space = state.namespaces.get(name);
            if space.is_none() && plan.namespaces.insert(name) {
                plan.more += name.len() + OVERHEAD;
            }
            let new = plan.keys.entry(name).or_default();
            match space.and_then(|space| space.keys.get(key)) {
                Some(old) => plan.less += weight(key, &old.value),
                None => *new += 1,
            }
            plan.more += weight(key, &item.value);
        }
        plan
    }

    /// Whether there is room for it.
    fn check(&self, state: &State, settings: &ValueSettings) -> Result<(), ValuesError> {
        let full = |what, limit| Err(ValuesError::Full { what, limit });
        let spaces = state.namespaces.len() + self.namespaces.len();
        if !self.namespaces.is_empty() && spaces - state.empty(self).count().min(spaces) > settings.max_namespaces {
            return full("keyValueStore.maxNamespaces", settings.max_namespaces);
        }
        for (name, new) in &self.keys {
            let there = state.namespaces.get(*name).map_or(0, |space| space.keys.len());
            if *new > 0 && there + new > settings.max_keys {
                return full("keyValueStore.maxKeysPerNamespace", settings.max_keys);
            }
        }
        if self.more > self.less && state.bytes + self.more - self.less > settings.max_bytes {
            return full("keyValueStore.maxBytes", settings.max_bytes);
        }
        Ok(())
    }
}
