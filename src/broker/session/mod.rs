//! A session: what a client is owed, whether it is connected or not.
//!
//! Two halves with a lock each: the [`Outbox`], which the dispatcher fills and the connection drains, and the [`Handshakes`] (packet ids of
//! QoS 1 and 2 both ways), which belong to the connection. Invariants: an entry is in exactly one of outbox and in-flight window; entries
//! leave in the order they came (queue positions, `qseq`, only grow); a QoS >= 1 entry leaves only when its position is committed; only the
//! connection whose peer id is the session's epoch touches the handshakes.

mod handshakes;
mod outbox;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

pub(super) use self::{
    handshakes::{Handshakes, Incoming, Resend, Stale, packet_id},
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
    /// Messages for it that were dropped.
    dropped: AtomicU64,
}

impl Session {
    pub(super) fn new(client: ClientId, marks: Marks) -> Self {
        Self {
            client,
            outbox: Mutex::new(Outbox::new(marks)),
            handshakes: Mutex::default(),
            committed: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }

    pub(super) fn commit(&self, qseq: u64) {
        self.committed.fetch_max(qseq, Ordering::AcqRel);
    }

    pub(super) fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// Messages for this session were dropped.
    pub(super) fn count_dropped(&self, count: u64) {
        if count > 0 {
            self.dropped.fetch_add(count, Ordering::Relaxed);
        }
    }

    /// How many, since it began.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Moves entries from the outbox to `out`, at most `budget` bytes (one always fits) and no more of QoS >= 1 than the client's Receive
    /// Maximum allows; these are in flight from here on. A connection that was taken over gets nothing: what it took would be lost.
    ///
    /// # Errors
    /// [`Stale`], and nothing was moved.
    pub(super) fn take(
        &self,
        epoch: u64,
        budget: usize,
        receive_maximum: u16,
        out: &mut Vec<Entry>,
    ) -> Result<Taken, Stale> {
        let mut handshakes = self.handshakes.lock();
        handshakes.check(epoch)?;
        let last = self.committed().min(handshakes.horizon());
        let first = out.len();
        let taken = self.outbox.lock().take(budget, handshakes.window(receive_maximum), last, out);
        for entry in out.iter().skip(first) {
            handshakes.open(entry);
        }
        drop(handshakes);
        for peer in &taken.released {
            peer.release();
        }
        Ok(taken)
    }

    /// The same for a subscriber inside this program, which needs no handshakes.
    pub(super) fn take_inside(&self, budget: usize, out: &mut Vec<Entry>) -> Taken {
        let taken = self.outbox.lock().take(budget, usize::MAX, self.committed(), out);
        for peer in &taken.released {
            peer.release();
        }
        taken
    }
}
