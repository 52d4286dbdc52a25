//! What one session may have queued, and what happens beyond.

use super::{Row, ledger::Queue};
use crate::broker::settings::{QueuePolicy, Storage};

/// Limits of one session's queue.
#[derive(Debug, Clone, Copy)]
pub(super) struct Quota {
    bytes: u64,
    rows: u64,
    pub policy: QueuePolicy,
}

impl Quota {
    pub(super) fn new(settings: &Storage) -> Self {
        Self { bytes: settings.session_bytes, rows: settings.session_messages, policy: settings.policy }
    }

    fn fits(&self, rows: u64, bytes: u64) -> bool {
        rows <= self.rows && bytes <= self.bytes
    }

    /// Whether nothing more goes in.
    pub(super) fn is_reached(&self, queue: &Queue) -> bool {
        queue.rows >= self.rows || queue.bytes >= self.bytes
    }

    /// Whether older messages are to make room for these.
    pub(super) fn evicts(&self, queue: &Queue, new: &[(&Row, u64)]) -> bool {
        let (rows, bytes) =
            new.iter().fold((queue.rows, queue.bytes), |(rows, bytes), (_, size)| (rows + 1, bytes + size));
        self.policy == QueuePolicy::DropOldest && queue.rows > 0 && !self.fits(rows, bytes)
    }

    /// Those that fit: the newest, or the oldest where the policy is to keep what is there.
    pub(super) fn admit<'g>(&self, queue: &Queue, new: &[(&'g Row, u64)]) -> Vec<(&'g Row, u64)> {
        let (mut rows, mut bytes) = (queue.rows, queue.bytes);
        let mut fits = |(_, size): &&(&'g Row, u64)| {
            (rows, bytes) = (rows + 1, bytes + size);
            self.fits(rows, bytes)
        };
        match self.policy {
            QueuePolicy::DropOldest => {
                let mut kept: Vec<_> = new.iter().rev().take_while(&mut fits).copied().collect();
                kept.reverse();
                kept
            }
            QueuePolicy::DropNew | QueuePolicy::Reject => new.iter().take_while(fits).copied().collect(),
        }
    }
}
