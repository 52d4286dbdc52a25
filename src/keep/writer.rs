//! The writer: one thread that commits. A commit is everything that arrived while the last one ran.
//!
//! Invariants: writes are decided in the order they came, and said to be on disk only after the commit; a transaction whose end failed may
//! have happened all the same, so what it changed is changed back before anything else is written or the file serves again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use redb::WriteTransaction;

use super::{
    Change, KeepError,
    disk::Place,
    fault::guarded,
    health::Chart,
    inbox::{Inbox, Job},
    metrics::KeepMetrics,
    record::{self, Definition, Fault, Open, seal},
    vault::Vault,
};

/// A file that failed is opened again so often.
const RETRY: Duration = if cfg!(test) { Duration::from_millis(5) } else { Duration::from_secs(1) };

/// See the module.
pub(super) struct Writer {
    pub inbox: Arc<Inbox>,
    pub vault: Arc<Vault>,
    pub chart: Arc<Chart>,
    pub metrics: Arc<KeepMetrics>,
    pub place: Place,
    /// What failed transactions may have changed, the oldest first.
    pub before: Before,
    /// The file is closed until then.
    pub down: Option<Instant>,
    /// The directory is this process's.
    pub _lock: Option<std::fs::File>,
}

/// Shelf, key and the record that was there.
type Before = Vec<(&'static str, Vec<u8>, Option<Vec<u8>>)>;

impl Writer {
    /// Works until the inbox is stopped and empty.
    pub(super) fn run(mut self) {
        loop {
            let work = self.inbox.take(self.down);
            if self.down.is_some_and(|again| work.last || again <= Instant::now()) {
                self.reopen();
            }
            self.serve(work.jobs);
            if work.last {
                break;
            }
        }
    }

    fn serve(&mut self, jobs: Vec<Job>) {
        if jobs.is_empty() {
            return;
        }
        let outcome = match self.down {
            None => self.commit(&jobs).map_err(|fault| self.failed(&fault)),
            Some(_) => Err(self.why()),
        };
        self.inbox.decide(jobs, &outcome);
    }

    /// Why nothing is written now.
    fn why(&self) -> KeepError {
        match self.chart.get() {
            super::KeepHealth::Failing { why, .. } => KeepError::Failing { place: self.place.to_string(), why },
            _ => KeepError::Stopped,
        }
    }

    fn commit(&mut self, jobs: &[Job]) -> Result<(), Fault> {
        let (began, mut before) = (Instant::now(), Before::new());
        let committed = self
            .vault
            .read(|database| guarded(|| record::transact(database, |txn| Applying::new(txn, &mut before).jobs(jobs))));
        match &committed {
            Ok(()) => self.metrics.committed(began.elapsed()),
            Err(_) => self.before.append(&mut before),
        }
        committed
    }

    /// A commit failed: the file is closed, and opened again later.
    fn failed(&mut self, fault: &Fault) -> KeepError {
        self.metrics.failed();
        tracing::error!(
            code = "keep_failed",
            "{} cannot be written: {fault}; writes fail until it works again, which is tried by itself; check its disk",
            self.place
        );
        self.vault.close();
        self.chart.failing(fault.to_string());
        self.down = Some(Instant::now() + RETRY);
        self.why()
    }

    /// Opens the file again and takes back what failed transactions may have changed.
    fn reopen(&mut self) {
        let Self { place, before, .. } = self;
        let opened = guarded(|| {
            let database = place.open(record::prepare)?;
            if !before.is_empty() {
                record::transact(&database, |txn| Applying::new(txn, &mut Before::new()).back(before))?;
            }
            Ok(database)
        });
        match opened {
            Ok(database) => {
                self.before.clear();
                self.vault.put(database);
                self.down = None;
                if self.chart.recovered() {
                    tracing::info!("{} can be written again", self.place);
                }
            }
            Err(fault) => {
                self.metrics.failed();
                self.chart.failing(fault.to_string());
                self.down = Some(Instant::now() + RETRY);
            }
        }
    }
}

impl Drop for Writer {
    /// However it ended, nobody waits for it.
    fn drop(&mut self) {
        self.inbox.close();
        self.vault.close();
    }
}

/// Changes on their way into a transaction.
struct Applying<'t, 'b> {
    txn: &'t WriteTransaction,
    /// Open tables: a commit touches a few.
    tables: Vec<(&'static str, Open<'t>)>,
    before: &'b mut Before,
}

impl<'t, 'b> Applying<'t, 'b> {
    fn new(txn: &'t WriteTransaction, before: &'b mut Before) -> Self {
        Self { txn, tables: Vec::new(), before }
    }

    fn jobs(mut self, jobs: &[Job]) -> Result<(), Fault> {
        for job in jobs {
            for change in &job.changes {
                match change {
                    Change::Put(key, body) => self.set(job.shelf, key, Some(&seal(job.shelf, key, body)))?,
                    Change::Delete(key) => self.set(job.shelf, key, None)?,
                }
            }
        }
        Ok(())
    }

    /// Undoes, the latest first.
    fn back(mut self, before: &Before) -> Result<(), Fault> {
        before.iter().rev().try_for_each(|(shelf, key, record)| self.set(shelf, key, record.as_deref()))
    }

    fn set(&mut self, shelf: &'static str, key: &[u8], record: Option<&[u8]>) -> Result<(), Fault> {
        let at = match self.tables.iter().position(|(name, _)| *name == shelf) {
            Some(at) => at,
            None => {
                self.tables.push((shelf, self.txn.open_table(Definition::new(shelf))?));
                self.tables.len() - 1
            }
        };
        let Some((_, table)) = self.tables.get_mut(at) else { return Ok(()) };
        let old = match record {
            Some(record) => table.insert(key, record)?.map(|old| old.value().to_vec()),
            None => table.remove(key)?.map(|old| old.value().to_vec()),
        };
        self.before.push((shelf, key.to_vec(), old));
        Ok(())
    }
}
