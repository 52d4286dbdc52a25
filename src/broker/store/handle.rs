//! The store as the rest of the broker holds it: opened with everything it kept, handed groups, sessions and questions, stopped.

use std::{io, path::PathBuf, sync::Arc, thread::JoinHandle};

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use redb::Database;

use super::{
    Group, Recovered,
    apply::Written,
    ballast::Ballast,
    debt::Debts,
    disk::{self, Place},
    health::{Chart, StoreHealth},
    inbox::Inbox,
    ledger::Ledger,
    metrics::StoreMetrics,
    pages::{Desk, Reader},
    quota::Quota,
    record::{Damaged, FORMAT, Kind},
    recover,
    tables::{Fault, guarded},
    writer::{Condition, Writer},
};
use crate::{
    broker::{envelope::now_ms, session::Session, settings::Storage},
    keep::vault::Vault,
};

/// Why the store does not open.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process holds it.
    #[error(
        "the store in {place} is in use: most likely another sense-butler runs with the same directory; stop it, or give this one a directory \
         of its own"
    )]
    InUse {
        /// The directory.
        place: String,
    },
    /// A later version of the program made it.
    #[error(
        "the store in {place} has format {found}, and this version of sense-butler reads format {known}: start the version that wrote it, or \
         give this one an empty directory"
    )]
    Newer {
        /// The directory.
        place: String,
        /// Its format.
        found: u8,
        /// What this version reads.
        known: u8,
    },
    /// The directory or file cannot be used.
    #[error(
        "the store in {place} cannot be used: {why}; check that the directory exists, belongs to the program's user and has room"
    )]
    Unusable {
        /// The directory.
        place: String,
        /// What the system says.
        why: String,
    },
    /// Neither can it be opened nor set aside.
    #[error("the store in {place} is damaged ({why}) and cannot be set aside: {source}; move its files away by hand")]
    Stuck {
        /// The directory.
        place: String,
        /// What is wrong with it.
        why: String,
        /// What the system says.
        source: io::Error,
    },
    /// The system gives no thread.
    #[error("no thread for the store: {0}")]
    Thread(io::Error),
}

/// See the module.
#[derive(Debug)]
pub(in crate::broker) struct Store {
    inbox: Arc<Inbox>,
    desk: Arc<Desk>,
    vault: Arc<Vault>,
    chart: Arc<Chart>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

impl Store {
    /// Opens the store, and takes up what it holds. A file that cannot be opened is set aside, never deleted.
    ///
    /// # Errors
    /// [`StoreError`].
    pub(in crate::broker) fn open(
        settings: &Storage,
        registry: &mut Registry,
    ) -> Result<(Arc<Self>, Recovered), StoreError> {
        Self::open_at(disk::place(settings.directory.as_deref()), settings, registry)
    }

    /// The same at a given place.
    pub(super) fn open_at(
        place: Place,
        settings: &Storage,
        registry: &mut Registry,
    ) -> Result<(Arc<Self>, Recovered), StoreError> {
        let lock = place.take().map_err(|why| match why.kind() {
            io::ErrorKind::WouldBlock => StoreError::InUse { place: place.to_string() },
            _ => StoreError::Unusable { place: place.to_string(), why: why.to_string() },
        })?;
        let (ballast, chart, metrics) = (Ballast::of(&place), Arc::new(Chart::default()), StoreMetrics::new(registry));
        let Opened { database, recovered, ledger, set_aside } = open(&place, &ballast)?;
        if let Some(file) = set_aside {
            chart.set_aside(file);
            metrics.set_aside();
        }
        if let Err(error) = ballast.write() {
            tracing::warn!(
                code = "store_without_ballast",
                "no room for the ballast of the store in {place}; make room on that disk: {error}"
            );
        }
        metrics.level(&ledger);
        let (inbox, desk, vault) = (Arc::new(Inbox::default()), Arc::new(Desk::default()), Arc::new(Vault::default()));
        vault.put(database);
        let writer = Writer {
            inbox: Arc::clone(&inbox),
            vault: Arc::clone(&vault),
            chart: Arc::clone(&chart),
            metrics: Arc::clone(&metrics),
            place,
            ballast,
            quota: Quota::new(settings),
            max_bytes: settings.max_bytes,
            ledger,
            debts: Debts::default(),
            undo: Written::default(),
            trims: Vec::new(),
            condition: Condition::Up,
            compacts: true,
            _lock: lock,
        };
        let reader = Reader {
            desk: Arc::clone(&desk),
            vault: Arc::clone(&vault),
            chart: Arc::clone(&chart),
            metrics,
            inbox: Arc::clone(&inbox),
        };
        let store = Arc::new(Self { inbox, desk, vault, chart, threads: Mutex::default() });
        store.start("store-writer", move || writer.run())?;
        store.start("store-reader", move || reader.run())?;
        Ok((store, recovered))
    }

    fn start(&self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), StoreError> {
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work).map_err(StoreError::Thread)?;
        self.threads.lock().push(thread);
        Ok(())
    }

    /// Hands over what a dispatcher round promises: it is kept or broken once it is decided. Never blocks.
    pub(in crate::broker) fn submit(&self, group: Group) {
        self.inbox.submit(group);
    }

    /// Hands over a session whose client acknowledged something. Never blocks.
    pub(in crate::broker) fn touch(&self, session: &Arc<Session>) {
        if !session.has_progress() {
            return;
        }
        let (new, urgent) = (session.mark_dirty(), session.is_waited_for());
        if new || urgent {
            self.inbox.touch(new.then_some(session), urgent);
        }
    }

    /// Asks for the part of its queue that a session wants; the answer is [`Session::page`]. Never blocks.
    pub(in crate::broker) fn load(&self, session: &Arc<Session>) {
        self.desk.ask(session);
    }

    /// How it is.
    pub(in crate::broker) fn health(&self) -> StoreHealth {
        self.chart.get()
    }

    /// Commits everything that was handed over, then ends. Blocks for as long as that takes; what comes later is refused.
    pub(in crate::broker) fn stop(&self) {
        self.desk.stop();
        self.inbox.stop();
        for thread in std::mem::take(&mut *self.threads.lock()) {
            if thread.join().is_err() {
                // The hook has named it.
                tracing::error!(
                    code = "store_defect",
                    "a thread of the store ended with a panic; please report it with the lines before"
                );
            }
        }
        // Should the writer have ended otherwise, nobody waits for it.
        self.inbox.close();
        self.vault.close();
    }
}

#[cfg(test)]
impl Store {
    /// A store in memory, the same one at every opening.
    pub(in crate::broker) fn openings() -> impl Fn() -> (Arc<Self>, Recovered) {
        let place = disk::place(None);
        move || Self::open_at(place.clone(), &Storage::default(), &mut Registry::default()).unwrap()
    }

    /// Hands a group over and waits until it is decided, and everything it promised is said.
    pub(in crate::broker) fn submit_and_wait(&self, group: Group) {
        let (sender, receiver) = tokio::sync::oneshot::channel();
        self.submit(group);
        // Promises are kept in order, each as a whole.
        let mut behind = Group::default();
        behind.promise.push(crate::broker::promise::Step::Word(sender, crate::broker::cargo::Taken::default()));
        self.submit(behind);
        assert!(receiver.blocking_recv().unwrap().is_ok());
    }

    /// Reads back what a session wants, at once.
    pub(in crate::broker) fn load_at_once(&self, session: &Session) {
        if let Some((sid, wanted)) = session.kept().zip(session.wanted()) {
            let page = self.page(sid, wanted).unwrap();
            session.page(wanted, Some(page));
        }
    }

    /// Reads a page at once.
    pub(super) fn page(&self, sid: super::Sid, wanted: super::Wanted) -> Result<super::Page, Fault> {
        self.vault.read(|database| {
            guarded(|| super::tables::consult(database, |txn| Ok(super::pages::page(txn, sid, wanted)?.0)))
        })
    }

    /// Bytes of everything there is.
    pub(super) fn bytes(&self) -> u64 {
        self.vault.read(|database| Ok(recover::ledger(database)?.bytes)).unwrap()
    }

    /// Batches and rows there are.
    pub(super) fn counts(&self) -> (usize, u64) {
        let count = |ledger: Ledger| (ledger.batches(), ledger.rows);
        self.vault.read(|database| Ok(count(recover::ledger(database)?))).unwrap()
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.stop();
    }
}

/// An open store, before its threads.
struct Opened {
    database: Database,
    recovered: Recovered,
    ledger: Ledger,
    set_aside: Option<PathBuf>,
}

fn attempt(place: &Place) -> Result<(Database, Recovered, Ledger), Fault> {
    guarded(|| {
        let database = place.open(recover::prepare)?;
        let (recovered, ledger) = recover::recover(&database, now_ms())?;
        Ok((database, recovered, ledger))
    })
}

/// Opens what is there; what cannot be opened is set aside, and an empty store takes its place.
fn open(place: &Place, ballast: &Ballast) -> Result<Opened, StoreError> {
    let mut first = attempt(place);
    if first.as_ref().is_err_and(Fault::is_full) && ballast.release() {
        first = attempt(place);
    }
    let fault = match first {
        Ok((database, recovered, ledger)) => return Ok(Opened { database, recovered, ledger, set_aside: None }),
        Err(fault) => fault,
    };
    if let Some(error) = refusal(place, &fault) {
        return Err(error);
    }
    let why = fault.to_string();
    let aside = place.set_aside(time::OffsetDateTime::now_utc());
    let stuck = |source| StoreError::Stuck { place: place.to_string(), why: why.clone(), source };
    let file =
        aside.map_err(stuck)?.ok_or_else(|| StoreError::Unusable { place: place.to_string(), why: why.clone() })?;
    tracing::error!(
        code = "store_set_aside",
        "the store in {place} could not be opened ({why}); it was set aside as {} and the broker starts with an empty one: sessions and \
         retained messages are not there. Check the disk; clients make them anew when they connect and publish",
        file.display()
    );
    let (database, recovered, ledger) =
        attempt(place).map_err(|fault| StoreError::Unusable { place: place.to_string(), why: fault.to_string() })?;
    Ok(Opened { database, recovered, ledger, set_aside: Some(file) })
}

/// Faults that say nothing about what is in the file: the administrator decides.
fn refusal(place: &Place, fault: &Fault) -> Option<StoreError> {
    let place = place.to_string();
    match fault {
        Fault::Database(redb::Error::DatabaseAlreadyOpen) => Some(StoreError::InUse { place }),
        Fault::Damaged(Damaged::Newer { kind: Kind::Format, found }) => {
            Some(StoreError::Newer { place, found: *found, known: FORMAT })
        }
        fault => fault.is_from_outside().then(|| StoreError::Unusable { place, why: fault.to_string() }),
    }
}
