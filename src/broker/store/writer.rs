//! The writer: one thread that commits. A commit is everything that arrived while the last one ran.
//!
//! Invariants: promises are kept or broken in the order their groups came, kept only after the commit; what could not be committed and is in
//! memory for good (sessions, subscriptions, retained messages) is owed to the file until it has it; a transaction whose end failed may have
//! happened all the same, so what it added is taken back before anybody reads the file again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Change, Group, Progress, Sid,
    apply::{Applying, Written},
    ballast::{self, Ballast},
    debt::Debts,
    disk::Place,
    health::Chart,
    inbox::{Inbox, Work},
    ledger::{Ledger, as_u64},
    metrics::StoreMetrics,
    quota::Quota,
    recover,
    tables::{Fault, guarded, transact},
};
use crate::{
    broker::{session::Session, settings::QueuePolicy},
    keep::vault::Vault,
};

/// A store that failed is opened again so often.
const RETRY: Duration = if cfg!(test) { Duration::from_millis(5) } else { Duration::from_secs(1) };
/// A full store tries to write its ballast again so often.
const BALLAST: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(5) };

/// See the module.
pub(super) struct Writer {
    pub inbox: Arc<Inbox>,
    pub vault: Arc<Vault>,
    pub chart: Arc<Chart>,
    pub metrics: Arc<StoreMetrics>,
    pub place: Place,
    pub ballast: Ballast,
    pub quota: Quota,
    /// Bytes of everything stored, above which nothing more is taken.
    pub max_bytes: u64,
    pub ledger: Ledger,
    pub debts: Debts,
    /// What a failed transaction may have left.
    pub undo: Written,
    /// Queues that were handed over by the last commit, and up to where.
    pub trims: Vec<(Sid, u64)>,
    pub condition: Condition,
    /// Sparse batches are written anew; not any more once one could not be read.
    pub compacts: bool,
    /// The directory is this process's.
    pub _lock: Option<std::fs::File>,
}

/// What the writer can do now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Up,
    /// The quota of the whole store is used up.
    Over,
    /// The disk is full; as much was stored then, and the ballast is tried again at this time.
    Full {
        stored: u64,
        again: Instant,
    },
    /// The file is closed until then. `full`: because there was no room.
    Down {
        again: Instant,
        full: bool,
    },
}

/// Sparse batches that are left over are looked at again so much later.
const COMPACT: Duration = Duration::from_millis(10);

/// Progress of sessions, taken for one commit.
type Taken = Vec<(Arc<Session>, Sid, Progress)>;

impl Writer {
    /// Works until the inbox is stopped and empty.
    pub(super) fn run(mut self) {
        loop {
            let (down, deadline) = match self.condition {
                Condition::Up | Condition::Over => (false, self.may_compact().then(|| Instant::now() + COMPACT)),
                Condition::Full { again, .. } => (false, Some(again)),
                Condition::Down { again, .. } => (true, Some(again)),
            };
            let work = self.inbox.take(down, deadline);
            let last = work.last;
            if work.stopping || deadline.is_some_and(|deadline| deadline <= Instant::now()) {
                self.tend();
            }
            if work.reopen {
                self.reread();
            }
            self.serve(work);
            if last {
                break;
            }
        }
        self.inbox.close();
        self.vault.close();
    }

    /// Whether there are sparse batches, and room to write them anew.
    fn may_compact(&self) -> bool {
        self.compacts && self.ledger.has_sparse() && matches!(self.condition, Condition::Up | Condition::Over)
    }

    /// What is due: the file is opened again, the ballast is written again.
    fn tend(&mut self) {
        match self.condition {
            Condition::Down { full, .. } => self.reopen(full),
            Condition::Full { stored, .. } => match self.ballast.write() {
                Ok(()) => self.roomy(),
                Err(_) => self.condition = Condition::Full { stored, again: Instant::now() + BALLAST },
            },
            Condition::Up | Condition::Over => {}
        }
    }

    /// The reader met an error of the disk, after which the database gives and takes nothing: it is opened again.
    fn reread(&mut self) {
        if matches!(self.condition, Condition::Down { .. }) {
            return;
        }
        self.vault.close();
        self.reopen(matches!(self.condition, Condition::Full { .. }));
        self.look_at_room();
    }

    /// There is room again.
    fn roomy(&mut self) {
        tracing::info!("the store has room again and takes messages");
        self.condition = Condition::Up;
        self.chart.full(false);
    }

    /// Why a group cannot be taken now, if it cannot.
    fn refusal(&self, group: &Group) -> Option<&'static str> {
        if group.stores_nothing() {
            return None;
        }
        match self.condition {
            Condition::Up => None,
            Condition::Over => brings(group).then_some("max_store_bytes is reached"),
            Condition::Full { .. } => brings(group).then_some("the disk is full"),
            Condition::Down { .. } => Some("it cannot be written now"),
        }
    }

    fn serve(&mut self, work: Work) {
        let refused: Vec<_> = work.groups.iter().map(|group| self.refusal(group)).collect();
        let taken: Taken = work
            .dirty
            .into_iter()
            .filter_map(|session| {
                let (sid, progress) = (session.kept()?, session.progress());
                Some((session, sid, progress))
            })
            .collect();
        let admitted = work.groups.iter().zip(&refused).filter(|(group, why)| why.is_none() && !group.stores_nothing());
        let admitted: Vec<_> = admitted.map(|(group, _)| group).collect();
        let nothing = admitted.is_empty() && taken.is_empty() && !self.may_compact();
        let committed = if nothing { Ok(()) } else { self.commit(&admitted, &taken) };
        if let Err(fault) = &committed {
            // Whoever is told that it failed can see why.
            self.chart.failing(fault.to_string());
        }
        for (group, why) in work.groups.into_iter().zip(refused) {
            match why {
                None if committed.is_ok() || group.stores_nothing() => group.promise.keep(),
                None => self.refuse(group),
                Some(why) => {
                    self.metrics.refused(why);
                    self.refuse(group);
                }
            }
        }
        match committed {
            Ok(()) => taken.into_iter().for_each(|(session, sid, progress)| self.progressed(&session, sid, &progress)),
            Err(fault) => self.failed(fault, taken),
        }
        self.look_at_room();
    }

    fn progressed(&self, session: &Session, sid: Sid, progress: &Progress) {
        session.progressed(progress);
        self.note_quota(session, sid);
    }

    fn note_quota(&self, session: &Session, sid: Sid) {
        let Some(queue) = self.ledger.sessions.get(&sid).filter(|_| session.sid.is_some()) else { return };
        if queue.spared || self.quota.policy == QueuePolicy::Reject {
            session.set_over_quota(self.quota.is_reached(queue));
        }
    }

    /// A group that was not committed: everybody is told, and what memory has of it is owed.
    fn refuse(&mut self, group: Group) {
        let ledger = &self.ledger;
        self.debts.add(group.changes, |sid| ledger.sessions.contains_key(&sid));
        group.promise.break_off();
    }

    /// One transaction: what is owed, then progress, then the groups.
    fn commit(&mut self, groups: &[&Group], taken: &Taken) -> Result<(), Fault> {
        let (began, compacts) = (Instant::now(), self.may_compact());
        let (mut compacting, mut compacted) = (false, 0);
        let Self { vault, ledger, debts, quota, undo, trims, .. } = self;
        let mut written = Written::default();
        let result = vault.read(|database| {
            guarded(|| {
                transact(database, ledger.bytes, |tables| {
                    let mut applying = Applying::new(tables, ledger, &mut written);
                    debts.settle(&mut applying)?;
                    trims.iter().try_for_each(|(sid, floor)| applying.clear(*sid, *floor))?;
                    taken.iter().try_for_each(|(_, sid, progress)| applying.progress(*sid, progress))?;
                    groups.iter().flat_map(|group| &group.changes).try_for_each(|change| applying.change(change))?;
                    let dropped = applying.rows(groups, quota)?;
                    if compacts {
                        compacting = true;
                        compacted = applying.compact()?;
                        compacting = false;
                    }
                    applying.finish()?;
                    Ok(dropped)
                })
            })
        });
        match result {
            Ok(dropped) => {
                *debts = Debts::default();
                *trims = written.advanced.into_iter().map(|(sid, _, floor)| (sid, floor)).collect();
                self.metrics.dropped(dropped);
                self.metrics.compacted(compacted);
                self.forget_unreadable();
                let messages = groups.iter().map(|group| group.messages.len()).sum();
                self.metrics.committed(began.elapsed(), as_u64(messages));
                self.metrics.level(&self.ledger);
                let decided = groups.iter().flat_map(|group| group.promise.sessions());
                decided
                    .filter_map(|session| Some((session, session.kept()?)))
                    .for_each(|(session, sid)| self.note_quota(session, sid));
                Ok(())
            }
            Err(fault) => {
                undo.append(written);
                if compacting && !fault.is_full() {
                    tracing::warn!(
                        code = "store_not_compacted",
                        "the store no longer makes its space small, until the next start; check the disk that holds it: {fault}"
                    );
                    self.compacts = false;
                }
                Err(fault)
            }
        }
    }

    /// A commit failed: the file is closed and opened again, at once if the ballast can make room.
    fn failed(&mut self, fault: Fault, taken: Taken) {
        self.metrics.failed();
        for (session, ..) in taken {
            // Whoever waits for it still does.
            if session.mark_dirty() {
                self.inbox.touch(Some(&session), true);
            }
        }
        tracing::error!(
            code = "store_failed",
            "the store failed: {fault}; nothing that has to be stored is taken until it works again, which is tried by itself; check the disk that holds it"
        );
        self.vault.close();
        let full = fault.is_full();
        self.condition = Condition::Down { again: Instant::now() + RETRY, full };
        if full && self.ballast.release() {
            self.reopen(full);
        }
    }

    /// Opens the file again, takes back what was refused and writes what is owed. `full`: there was no room for it before.
    fn reopen(&mut self, full: bool) {
        let Self { place, ledger, debts, undo, .. } = self;
        let opened = guarded(|| {
            let database = place.open(recover::prepare)?;
            let mut known = recover::ledger(&database)?;
            transact(&database, known.bytes, |tables| {
                let mut none = Written::default();
                let mut applying = Applying::new(tables, &mut known, &mut none);
                applying.undo(undo)?;
                debts.settle(&mut applying)?;
                applying.finish()
            })?;
            Ok((database, known))
        });
        match opened {
            Ok((database, known)) => {
                *ledger = known;
                (*undo, *debts) = (Written::default(), Debts::default());
                self.vault.put(database);
                self.forget_unreadable();
                self.metrics.level(&self.ledger);
                self.chart.recovered();
                self.up(full);
            }
            Err(fault) => {
                self.metrics.failed();
                self.chart.failing(fault.to_string());
                let full = full || fault.is_full();
                if fault.is_full() {
                    self.ballast.release();
                }
                self.condition = Condition::Down { again: Instant::now() + RETRY, full };
            }
        }
    }

    /// What belonged to sessions that ended need not be read any more.
    fn forget_unreadable(&self) {
        let queues = self.chart.forget_unless(|sid| self.ledger.sessions.contains_key(&sid));
        self.metrics.unreadable(queues);
    }

    fn up(&mut self, full: bool) {
        if full {
            tracing::warn!(
                code = "store_disk_full",
                "the disk of the store is full: its queues drain, and no messages are taken until there is room; make room there"
            );
            self.condition = Condition::Full { stored: self.ledger.bytes, again: Instant::now() + BALLAST };
            self.chart.full(true);
        } else {
            tracing::info!("the store works again");
            self.condition = Condition::Up;
            self.chart.full(false);
        }
    }

    /// Whether a quota of the whole store is reached, or something has drained.
    fn look_at_room(&mut self) {
        match self.condition {
            Condition::Up if self.ledger.bytes >= self.max_bytes => {
                tracing::warn!(
                    code = "store_over_quota",
                    bytes = self.ledger.bytes,
                    "the store holds max_store_bytes and takes no more messages until it drains; end sessions nobody fetches from, or raise it"
                );
                self.condition = Condition::Over;
                self.chart.full(true);
            }
            Condition::Over if self.ledger.bytes < self.max_bytes - self.max_bytes / 16 => self.roomy(),
            Condition::Full { stored, .. } if self.ledger.bytes.saturating_add(ballast::SIZE) <= stored => self.roomy(),
            _ => {}
        }
    }
}

/// Whether a group makes the store grow by messages.
fn brings(group: &Group) -> bool {
    let retains = |change: &Change| matches!(change, Change::Retain(message) if !message.payload().is_empty());
    !group.queues.is_empty() || group.changes.iter().any(retains)
}
