//! What ended sessions owed shared groups and only memory had: handed to other members, a portion per round.
//!
//! Members that come and go without acknowledging anything would pass the same messages on and on; so the work of a round is bounded, and what
//! waits is bounded in bytes: beyond that the oldest is dropped and counted. A message waits here only while somebody is there who will have
//! room for it.

use std::collections::VecDeque;

use super::{Effects, State};
use crate::broker::{metrics::Lost, session::Entry};

/// Handed over per round.
const PORTION: usize = 256;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Debts {
    owed: VecDeque<Entry>,
    bytes: usize,
}

impl Debts {
    pub(super) fn is_empty(&self) -> bool {
        self.owed.is_empty()
    }

    fn push(&mut self, entry: Entry) {
        self.bytes += entry.message.size();
        self.owed.push_back(entry);
    }

    fn pop(&mut self) -> Option<Entry> {
        let entry = self.owed.pop_front()?;
        self.bytes -= entry.message.size();
        Some(entry)
    }
}

impl State {
    /// Takes up what an ended session owed.
    pub(super) fn inherit(&mut self, entries: impl IntoIterator<Item = Entry>) {
        entries.into_iter().for_each(|entry| self.debts.push(entry));
        let mut dropped = 0;
        while self.debts.bytes > self.limits.queue_bytes && self.debts.pop().is_some() {
            dropped += 1;
        }
        self.metrics.dropped(Lost::GroupLeft, dropped);
    }

    /// Hands over a portion; whether there may be more that can be handed over now.
    pub(super) fn settle_debts(&mut self, effects: &mut Effects) -> bool {
        let (mut moved, mut left, mut full) = (false, 0, None);
        for _ in 0..PORTION.min(self.debts.owed.len()) {
            let Some(entry) = self.debts.pop() else { break };
            // A group whose members have no room is asked once, not for each of its messages.
            if full != entry.pool && self.hand_over(&entry, false, None, effects) {
                moved = true;
            } else {
                left += 1;
                full = entry.pool;
                self.debts.push(entry);
            }
        }
        moved && self.debts.owed.len() > left
    }
}
