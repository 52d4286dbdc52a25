//! Change notifications: who wants to know of which changes, and the list of the latest changes for those who ask.
//!
//! Subscriptions are transient: a restart of the repository forgets them. Invariants: their number and the list of changes are bounded; a
//! subscriber hears a change at most twice (a duplicate is drawn by chance, as the plan says).

use std::{collections::VecDeque, sync::Arc};

use serde_json::{Value, json};
use uuid::Uuid;

use super::{Site, effects::Effect};
use crate::sense::simulator::{clock::Moment, filter::Filter};

/// Subscriptions at once.
pub const MOST_SUBSCRIPTIONS: usize = 1_000;
/// Changes that are kept for `notification/changes`.
const CHANGES_KEPT: usize = 10_000;

/// What changed: `objectType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObjectType {
    /// A result of an attempt.
    ExecutionResult,
    /// A running execution.
    ExecutionSession,
    /// A reload task.
    ReloadTask,
}

impl ObjectType {
    /// The name in requests, whatever its case.
    pub fn named(text: &str) -> Option<Self> {
        [Self::ExecutionResult, Self::ExecutionSession, Self::ReloadTask]
            .into_iter()
            .find(|kind| kind.name().eq_ignore_ascii_case(text))
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::ExecutionResult => "ExecutionResult",
            Self::ExecutionSession => "ExecutionSession",
            Self::ReloadTask => "ReloadTask",
        }
    }
}

/// `changetype`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeType {
    /// 1
    Add,
    /// 2
    Update,
    /// 3
    Delete,
}

impl ChangeType {
    /// The number in JSON.
    pub fn number(self) -> u8 {
        match self {
            Self::Add => 1,
            Self::Update => 2,
            Self::Delete => 3,
        }
    }
}

/// Something changed.
#[derive(Debug, Clone)]
pub struct Note {
    /// What.
    pub object: ObjectType,
    /// Which.
    pub id: String,
    /// How.
    pub change: ChangeType,
    /// Which properties, with an update.
    pub properties: &'static [&'static str],
}

/// A wish to be told of changes.
#[derive(Debug)]
pub struct Subscription {
    /// Of objects of this type.
    pub object: ObjectType,
    /// Of changes of this type.
    pub change: ChangeType,
    /// Only of objects that pass; not looked at when something was deleted.
    pub filter: Option<Filter>,
    /// Only when this property changed; with `!` before it: when anything else did.
    pub property: Option<String>,
    /// Only of this object.
    pub id: Option<String>,
    /// Where to call.
    pub url: Arc<str>,
}

impl Subscription {
    fn wants(&self, note: &Note) -> bool {
        let property = |wanted: &str| match wanted.strip_prefix('!') {
            Some(other) => note.properties.iter().any(|found| !found.eq_ignore_ascii_case(other)),
            None => note.properties.iter().any(|found| found.eq_ignore_ascii_case(wanted)),
        };
        let updates = note.change == ChangeType::Update;
        self.object == note.object
            && self.change == note.change
            && self.id.as_ref().is_none_or(|id| id.eq_ignore_ascii_case(&note.id))
            && (!updates || self.property.as_deref().is_none_or(property))
    }
}

/// Subscriptions and latest changes.
#[derive(Debug, Default)]
pub struct Notifications {
    subscriptions: Vec<(Uuid, Subscription)>,
    changes: VecDeque<(Moment, Note)>,
    sent: u64,
}

impl Site {
    /// Adds a subscription; the answer is its handle, or `None` when there are too many.
    pub fn subscribe(&mut self, subscription: Subscription) -> Option<Uuid> {
        if self.notifications.subscriptions.len() >= MOST_SUBSCRIPTIONS {
            return None;
        }
        let handle = self.rng.guid();
        self.notifications.subscriptions.push((handle, subscription));
        Some(handle)
    }

    /// Ends a subscription; whether there was one.
    pub fn unsubscribe(&mut self, handle: Uuid) -> bool {
        let before = self.notifications.subscriptions.len();
        self.notifications.subscriptions.retain(|(known, _)| *known != handle);
        self.notifications.subscriptions.len() < before
    }

    /// Forgets every subscription and the list of changes: the repository was started anew.
    pub(super) fn forget_notifications(&mut self) {
        self.notifications.subscriptions.clear();
        self.notifications.changes.clear();
    }

    /// Something changed: tells whoever wants to know.
    pub(super) fn note(&mut self, note: Note) {
        let interested = self.notifications.subscriptions.iter().any(|(_, wish)| wish.wants(&note));
        if interested {
            self.tell(&note);
        }
        let changes = &mut self.notifications.changes;
        if changes.len() >= CHANGES_KEPT {
            changes.pop_front();
        }
        changes.push_back((self.now, note));
    }

    fn tell(&mut self, note: &Note) {
        let object = self.object_of(note);
        let entry = self.entry(note);
        let passes = |wish: &Subscription| {
            let filter = wish.filter.as_ref().filter(|_| note.change != ChangeType::Delete);
            filter.is_none_or(|filter| object.as_ref().is_some_and(|object| filter.matches(object)))
        };
        let all = self.notifications.subscriptions.iter().map(|(_, wish)| wish);
        let urls: Vec<Arc<str>> =
            all.filter(|wish| wish.wants(note) && passes(wish)).map(|wish| Arc::clone(&wish.url)).collect();
        for url in urls {
            let twice = self.rng.unit() < self.duplicate_notifications;
            for _ in 0..1 + usize::from(twice) {
                self.notifications.sent += 1;
                self.push(Effect::Notify { url: Arc::clone(&url), entry: Box::new(entry.clone()) });
            }
        }
    }

    fn object_of(&mut self, note: &Note) -> Option<Value> {
        match note.object {
            ObjectType::ExecutionResult => {
                let id = Uuid::try_parse(&note.id).ok()?;
                self.results.with_id(id).map(|row| row.json(self.calendar))
            }
            ObjectType::ExecutionSession => self.session(note.id.parse().ok()?),
            ObjectType::ReloadTask => self.task(note.id.parse().ok()?).map(|task| (*task).clone()),
        }
    }

    fn entry(&self, note: &Note) -> Value {
        let (at, node) = (self.calendar.qrs(self.now), self.nodes.first());
        json!({
            "changeType": note.change.number(),
            "objectType": note.object.name(),
            "objectID": note.id,
            "changedProperties": note.properties,
            "engineID": "",
            "engineType": "",
            "originatorNodeID": node.map(|node| node.id.to_string()),
            "originatorHostName": node.map(|node| node.name.as_str()),
            "originatorContextID": null,
            "createdDate": at,
            "modifiedDate": at,
            "schemaPath": "ExternalChangeInfo",
        })
    }

    /// The changes of some types at or after a date as QRS writes it.
    pub fn changes(&self, since: &str, types: &[ObjectType]) -> Vec<Value> {
        let dated = self.notifications.changes.iter().map(|(at, note)| (self.calendar.qrs(*at), note));
        let wanted =
            dated.filter(|(at, note)| at.as_str() >= since && (types.is_empty() || types.contains(&note.object)));
        wanted
            .map(|(at, note)| {
                json!({ "id": note.id, "type": note.object.name(), "changeDate": at,
                    "changeType": note.change.number(), "object": null })
            })
            .collect()
    }

    /// What the control door says about it.
    pub fn notifications_json(&self) -> Value {
        let each = self.notifications.subscriptions.iter().map(|(handle, wish)| {
            json!({ "handle": handle.to_string(), "objectType": wish.object.name(),
                "changeType": wish.change.number(), "url": &*wish.url })
        });
        json!({ "subscriptions": each.collect::<Value>(), "announced": self.notifications.sent })
    }
}
