//! A session: what a client is owed, whether it is connected or not.
//!
//! Two halves with a lock each (taken in this order): the [`Handshakes`] (packet ids of QoS 1 and 2 both ways), which belong to the
//! connection, and the [`Outbox`], which the dispatcher fills and the connection drains. A stored session keeps in memory only the newest
//! part of its queue, and nothing while its client is away; the rest is read back from the store in pages. A session that ends with its
//! connection lives in memory; only what it was given for a shared group with stored members is in the store as well, until its client
//! acknowledges it: neither a crash nor its end may take that from the group. Invariants: entries leave in the
//! order of their queue positions (`qseq`, which only grow); a gated entry leaves only when its position is decided; only the connection
//! whose peer id is the session's epoch touches the handshakes.

mod backlog;
mod handshakes;
mod hold;
mod outbox;
#[cfg(test)]
mod tests;

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use parking_lot::Mutex;

pub(super) use self::{
    handshakes::{Handshakes, Incoming, Released, Stale, packet_id},
    outbox::{Entry, Marks, Outbox, Owed, Parcel, Taken},
};
use super::{
    peer::Peer,
    store::{Page, Progress, RecoveredSession, Sid, Wanted},
};
use crate::names::ClientId;

/// A session, shared by the dispatcher, the store and the connection that serves it.
#[derive(Debug)]
pub(super) struct Session {
    pub client: ClientId,
    /// Its number in the store; `None`: it lives in memory and ends with its connection.
    pub sid: Option<Sid>,
    /// The number of what the store keeps for one that lives in memory: what it was given for a shared group with stored members.
    entrusted: OnceLock<Sid>,
    pub outbox: Mutex<Outbox>,
    pub handshakes: Mutex<Handshakes>,
    /// Everything below is acknowledged, and the store knows.
    settled: AtomicU64,
    /// Queue positions up to here are decided: committed and to be sent, or refused and gone.
    committed: AtomicU64,
    /// Its progress waits to be written.
    dirty: AtomicBool,
    /// Messages for it that were dropped.
    dropped: AtomicU64,
    /// Its queue in the store is full, and publishers are to be told.
    over_quota: AtomicBool,
}

impl Session {
    pub(super) fn new(client: ClientId, marks: Marks, sid: Option<Sid>) -> Self {
        Self {
            client,
            sid,
            entrusted: OnceLock::new(),
            outbox: Mutex::new(Outbox::new(marks, sid.is_some())),
            handshakes: Mutex::new(Handshakes::new(sid.is_some())),
            settled: AtomicU64::new(0),
            committed: AtomicU64::new(0),
            dirty: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            over_quota: AtomicBool::new(false),
        }
    }

    /// A session that outlived the process.
    pub(super) fn recovered(kept: &RecoveredSession, marks: Marks) -> Self {
        let session = Self::new(kept.record.client.clone(), marks, Some(kept.sid));
        session.handshakes.lock().recover(&kept.progress, &kept.incoming);
        session.outbox.lock().recover(kept.next_qseq);
        session.committed.store(kept.next_qseq.saturating_sub(1), Ordering::Release);
        session
    }

    /// The number under which the store has something of it, all or a part.
    pub(super) fn kept(&self) -> Option<Sid> {
        self.sid.or_else(|| self.entrusted.get().copied())
    }

    /// From here on the store keeps a part of it under this number.
    pub(super) fn entrust(&self, sid: Sid) {
        // It is given once: what the store has already stands under the first number.
        let _ = self.entrusted.set(sid);
    }

    /// It has ended; what the store has of it is read back from there.
    pub(super) fn leave_to_store(&self) {
        let mut handshakes = self.handshakes.lock();
        handshakes.leave_to_store();
        self.outbox.lock().leave_to_store();
    }

    /// A connection begins to serve the session; returns the publishers that may go on.
    pub(super) fn attach(&self, peer: &Arc<Peer>) -> Vec<Arc<Peer>> {
        let mut handshakes = self.handshakes.lock();
        let floor = handshakes.attach(peer);
        self.outbox.lock().attach(Arc::clone(peer), floor)
    }

    /// The connection is gone; returns the publishers that may go on. Of a session that only memory has, what is left goes with it.
    pub(super) fn detach(&self) -> Vec<Arc<Peer>> {
        let mut handshakes = self.handshakes.lock();
        handshakes.detach();
        self.outbox.lock().detach()
    }

    /// Entries up to a position may leave.
    pub(super) fn commit(&self, qseq: u64) {
        self.committed.fetch_max(qseq, Ordering::AcqRel);
        self.outbox.lock().wake();
    }

    /// Gated entries up to a position could not be stored: they are taken back.
    pub(super) fn refuse(&self, qseq: u64) {
        let mut outbox = self.outbox.lock();
        outbox.refuse(self.committed(), qseq);
        self.committed.fetch_max(qseq, Ordering::AcqRel);
        outbox.wake();
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

    /// Messages that wait for the client, and the bytes of those in memory.
    pub(super) fn depth(&self) -> (usize, usize) {
        let floor = self.handshakes.lock().floor();
        self.outbox.lock().depth(floor)
    }

    /// How many, since it began.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Moves what may be sent now to `out`, at most `budget` bytes (one message always fits) and no more of QoS >= 1 than the client's Receive
    /// Maximum allows; these are in flight from here on. A connection that was taken over gets nothing: what it took would be lost.
    ///
    /// # Errors
    /// [`Stale`], and nothing was moved.
    pub(super) fn take(
        &self,
        epoch: u64,
        budget: usize,
        receive_maximum: u16,
        out: &mut Vec<Parcel>,
    ) -> Result<Taken, Stale> {
        let mut handshakes = self.handshakes.lock();
        handshakes.check(epoch)?;
        let taken = self.outbox.lock().take(budget, &mut handshakes, receive_maximum, self.committed(), out);
        drop(handshakes);
        for peer in &taken.released {
            peer.release();
        }
        Ok(taken)
    }

    /// The same for a subscriber inside this program, which needs no handshakes.
    pub(super) fn take_inside(&self, budget: usize, out: &mut Vec<Entry>) -> Taken {
        let taken = self.outbox.lock().take_inside(budget, self.committed(), out);
        for peer in &taken.released {
            peer.release();
        }
        taken
    }

    /// The part of the queue that is to be read back next, if any.
    pub(super) fn wanted(&self) -> Option<Wanted> {
        self.outbox.lock().wanted(self.committed())
    }

    /// A part of the queue was read back (`None`: it could not be; it is asked for again).
    pub(super) fn page(&self, wanted: Wanted, page: Option<Page>) {
        self.outbox.lock().page(wanted, page);
    }

    /// What a queue without a client has next.
    pub(super) fn next_owed(&self) -> Owed {
        let handshakes = self.handshakes.lock();
        self.outbox.lock().next_owed(&handshakes, self.committed())
    }

    /// The highest position that was ever given to it, for one the store keeps.
    pub(super) fn last_given(&self) -> u64 {
        self.outbox.lock().backlog().last()
    }

    /// Whether nothing waits in it.
    pub(super) fn owes_nothing(&self) -> bool {
        self.outbox.lock().owes_nothing()
    }

    /// The session ends: its connection gets nothing from here on. Returns what it was to get for shared groups and has not acknowledged, or
    /// was not sent yet, as far as only memory has it.
    pub(super) fn close_down(&self) -> Vec<Entry> {
        let mut handshakes = self.handshakes.lock();
        let mut debts = handshakes.close_down();
        if self.sid.is_none() {
            debts.extend(self.outbox.lock().shared_entries());
        }
        debts
    }

    /// Nobody can take what [`Self::next_owed`] gave last.
    pub(super) fn put_back(&self, entry: Entry) {
        self.outbox.lock().backlog().put_back(entry);
    }

    /// What was taken goes to others: there is nothing more until that is decided.
    pub(super) fn hands_over(&self) {
        self.outbox.lock().backlog().hands_over();
    }

    /// Everything up to a position went to others, and that is committed.
    pub(super) fn handed_over(&self, qseq: u64) {
        let mut handshakes = self.handshakes.lock();
        handshakes.handed_over(qseq);
        let mut outbox = self.outbox.lock();
        outbox.backlog().handed_over();
        outbox.wake();
    }

    /// What could not be handed over may be tried again; whether there is anything.
    pub(super) fn retry(&self) -> bool {
        self.outbox.lock().backlog().retry()
    }

    /// The store is given a position of a session that has ended.
    pub(super) fn given(&self, qseq: u64) {
        self.outbox.lock().backlog().given(qseq);
    }

    /// Whether the store has something of it that is not acknowledged.
    pub(super) fn owes_stored(&self) -> bool {
        let handshakes = self.handshakes.lock();
        self.kept().is_some() && handshakes.floor() <= self.outbox.lock().backlog().last()
    }

    /// It is not committed: it is to be handed over again, after [`Self::retry`].
    pub(super) fn take_back(&self) {
        let floor = self.handshakes.lock().floor();
        self.outbox.lock().rewind(floor);
    }

    /// Notes that progress waits to be written; `false`: that was noted already.
    pub(super) fn mark_dirty(&self) -> bool {
        !self.dirty.swap(true, Ordering::AcqRel)
    }

    /// The highest position ever sent to the client.
    pub(super) fn sent(&self) -> u64 {
        self.handshakes.lock().sent()
    }

    /// Whether its progress is of interest to the store: always for one that it keeps; else as long as it was not told that everything it has
    /// is acknowledged.
    pub(super) fn has_progress(&self) -> bool {
        self.sid.is_some()
            || (self.entrusted.get().is_some()
                && self.settled.load(Ordering::Acquire) <= self.outbox.lock().backlog().last())
    }

    /// Whether the client waits for its progress to be written: a PUBREL or PUBCOMP follows.
    pub(super) fn is_waited_for(&self) -> bool {
        self.handshakes.lock().is_waited_for()
    }

    /// Whether its queue in the store is full and the policy is to turn messages for it away.
    pub(super) fn is_over_quota(&self) -> bool {
        self.over_quota.load(Ordering::Acquire)
    }

    pub(super) fn set_over_quota(&self, over: bool) {
        self.over_quota.store(over, Ordering::Release);
    }

    /// How far the client has acknowledged; from here on the session counts as written.
    pub(super) fn progress(&self) -> Progress {
        self.dirty.store(false, Ordering::Release);
        self.handshakes.lock().progress()
    }

    /// This progress is committed: what waited for it is answered.
    pub(super) fn progressed(&self, progress: &Progress) {
        self.settled.fetch_max(progress.floor, Ordering::AcqRel);
        self.handshakes.lock().progressed(progress);
    }
}
