//! Changes that could not be committed: memory has them, so the file has to follow as soon as it can.
//!
//! Later changes of the same key override earlier ones, so this is bounded by what memory holds. Open QoS 2 ids are no debt: who sent the
//! message was told that it was not taken, and may use the id anew. Nor is the handing over of a queue, which is tried again.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use super::{Change, SessionRecord, Sid, apply::Applying, tables::Fault};
use crate::{
    broker::{envelope::Message, stream::Asked},
    names::{ClientId, TopicFilter},
};

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Debts {
    ends: BTreeMap<Sid, ClientId>,
    sessions: BTreeMap<Sid, Box<SessionRecord>>,
    subscriptions: HashMap<(Sid, TopicFilter), Option<Asked>>,
    retained: HashMap<Box<str>, Arc<Message>>,
}

impl Debts {
    /// `known`: whether the file may know a session; of others nothing has to be removed.
    pub(super) fn add(&mut self, changes: Vec<Change>, known: impl Fn(Sid) -> bool) {
        // What was to be handed over, and was not, is not removed with its old owner.
        let advanced: Vec<_> = changes
            .iter()
            .filter_map(|change| if let Change::Advance(sid, _) = change { Some(*sid) } else { None })
            .collect();
        for change in changes {
            match change {
                Change::End(sid, _) if advanced.contains(&sid) => {}
                Change::Session(sid, record) => drop(self.sessions.insert(sid, record)),
                Change::End(sid, client) => {
                    self.sessions.remove(&sid);
                    self.subscriptions.retain(|(owner, _), _| *owner != sid);
                    if known(sid) {
                        self.ends.insert(sid, client);
                    }
                }
                Change::Subscribe(sid, filter, asked) => drop(self.subscriptions.insert((sid, filter), Some(asked))),
                Change::Unsubscribe(sid, filter) => drop(self.subscriptions.insert((sid, filter), None)),
                Change::Retain(message) => drop(self.retained.insert(message.topic_str().into(), message)),
                Change::Received(..) | Change::Advance(..) => {}
            }
        }
    }

    /// Ends come first: what follows belongs to other sessions.
    pub(super) fn settle(&self, applying: &mut Applying<'_, '_>) -> Result<(), Fault> {
        self.ends.keys().try_for_each(|sid| applying.end(*sid))?;
        for (sid, record) in &self.sessions {
            applying.change(&Change::Session(*sid, record.clone()))?;
        }
        for ((sid, filter), asked) in &self.subscriptions {
            let change = match asked {
                Some(asked) => Change::Subscribe(*sid, filter.clone(), *asked),
                None => Change::Unsubscribe(*sid, filter.clone()),
            };
            applying.change(&change)?;
        }
        self.retained.values().try_for_each(|message| applying.change(&Change::Retain(Arc::clone(message))))
    }
}
