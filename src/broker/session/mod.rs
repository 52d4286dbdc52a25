//! A session: what a client is owed, whether it is connected or not.
//!
//! Two halves with a lock each: the [`Outbox`], which the dispatcher fills and the connection drains, and the [`Handshakes`] (packet ids of
//! QoS 1 and 2 both ways), which belong to the connection. Invariants: an entry is in exactly one of outbox and in-flight window; entries
//! leave in the order they came (queue positions, `qseq`, only grow); a QoS >= 1 entry leaves only when its position is committed; only the
//! connection whose peer id is the session's epoch touches the handshakes.

mod handshakes;
mod outbox;

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

pub(super) use self::{
    handshakes::{Handshakes, Incoming, Resend, Stale},
    outbox::{Entry, Marks, Outbox, Taken},
};
use crate::names::ClientId;

/// A session, shared by the dispatcher and the connection that serves it.
#[derive(Debug)]
pub(super) struct Session {
    pub client: ClientId,
    pub outbox: Mutex<Outbox>,
    pub handshakes: Mutex<Handshakes>,
    /// Queue positions up to here are committed and may be sent.
    committed: AtomicU64,
}

impl Session {
    pub(super) fn new(client: ClientId, marks: Marks) -> Self {
        Self {
            client,
            outbox: Mutex::new(Outbox::new(marks)),
            handshakes: Mutex::default(),
            committed: AtomicU64::new(0),
        }
    }

    pub(super) fn commit(&self, qseq: u64) {
        self.committed.fetch_max(qseq, Ordering::AcqRel);
    }

    pub(super) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Moves entries from the outbox to `out`, at most `budget` bytes (one always fits) and as many of QoS >= 1 as `window` allows, none beyond `horizon`.
    pub(super) fn take(&self, budget: usize, window: usize, horizon: u64, out: &mut Vec<Entry>) -> Taken {
        let last = self.committed().min(horizon);
        let taken = self.outbox.lock().take(budget, window, last, out);
        for peer in &taken.released {
            peer.release();
        }
        taken
    }
}
