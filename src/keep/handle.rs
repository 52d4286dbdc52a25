//! The file as the rest of the house holds it: opened, written and read through shelves, stopped.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    thread::JoinHandle,
};

use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use redb::{Database, ReadableDatabase};
use tokio::sync::oneshot;

use super::{
    KeepHealth,
    disk::{Names, Place},
    fault::guarded,
    health::Chart,
    inbox::{Inbox, Job},
    metrics::KeepMetrics,
    record::{self, Damage, FORMAT, Fault, Pairs},
    vault::Vault,
    writer::Writer,
};

const NAMES: Names = Names { file: "sense.redb", unfinished: "sense.redb.new", lock: "sense.lock", cache: 4 << 20 };

/// Why something is not kept, or cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeepError {
    /// Another process holds the directory.
    #[error(
        "sense.redb in {place} is in use: most likely another sense-butler runs with the same data directory; stop it, or give this one a \
         directory of its own (--data)"
    )]
    InUse {
        /// The directory.
        place: String,
    },
    /// A later version of the program made the file.
    #[error(
        "sense.redb in {place} has format {found}, and this version of sense-butler reads format {FORMAT}: start the version that wrote it, or \
         give this one an empty data directory"
    )]
    Newer {
        /// The directory.
        place: String,
        /// Its format.
        found: u8,
    },
    /// The directory or file cannot be used.
    #[error(
        "sense.redb in {place} cannot be used: {why}; check that the directory belongs to the program's user and has room, name another one \
         (--data), or let nothing outlive the program (`in_memory = true` in `[storage]` of broker.toml)"
    )]
    Unusable {
        /// The directory.
        place: String,
        /// What the system says.
        why: String,
    },
    /// Neither can it be opened nor set aside.
    #[error("sense.redb in {place} is damaged ({why}) and cannot be set aside: {system}; move it away by hand")]
    Stuck {
        /// The directory.
        place: String,
        /// What is wrong with it.
        why: String,
        /// What the system says.
        system: String,
    },
    /// The system gives no thread.
    #[error("no thread for sense.redb: {0}")]
    Thread(String),
    /// Too much waits to be written.
    #[error(
        "64 MiB wait to be written to sense.redb: its disk does not keep up; nothing of this was stored, try again later"
    )]
    Busy,
    /// The file cannot be written now; it is opened again every second.
    #[error(
        "sense.redb in {place} cannot be written: {why}; nothing of this was stored. Check the disk (room, rights) and try again"
    )]
    Failing {
        /// The directory.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// A record cannot be read.
    #[error("sense.redb in {place} cannot be read: {why}; check the disk and start the program again")]
    Unreadable {
        /// The directory.
        place: String,
        /// What is wrong.
        why: String,
    },
    /// The program is stopping.
    #[error("the program is stopping; nothing of this was stored")]
    Stopped,
}

impl KeepError {
    /// One word, for metrics.
    pub(super) const fn reason(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::Stopped => "stopping",
            _ => "failing",
        }
    }
}

/// A change of a shelf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Key and value; what was there is replaced.
    Put(Vec<u8>, Vec<u8>),
    /// A key; that there was none is no error.
    Delete(Vec<u8>),
}

impl Change {
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Put(key, value) => key.len() + value.len(),
            Self::Delete(key) => key.len(),
        }
    }
}

/// The file. Cheap to clone.
#[derive(Clone)]
pub struct Keep(Arc<Inner>);

struct Inner {
    inbox: Arc<Inbox>,
    vault: Arc<Vault>,
    chart: Arc<Chart>,
    place: String,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl fmt::Debug for Keep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keep({})", self.0.place)
    }
}

impl Keep {
    /// Opens `sense.redb` in `directory`, or makes it; `None`: in memory. Starts the writer, a thread of its own. A file that cannot be
    /// opened is set aside, never deleted.
    ///
    /// # Errors
    /// [`KeepError`]: somebody else has it, a later version wrote it, or the directory cannot be used.
    pub fn open(directory: Option<&Path>, registry: &mut Registry) -> Result<Self, KeepError> {
        Self::open_at(Place::of(directory, NAMES), registry)
    }

    /// The same at a given place.
    pub(super) fn open_at(place: Place, registry: &mut Registry) -> Result<Self, KeepError> {
        let lock = place.take().map_err(|why| match why.kind() {
            io::ErrorKind::WouldBlock => KeepError::InUse { place: place.to_string() },
            _ => KeepError::Unusable { place: place.to_string(), why: why.to_string() },
        })?;
        let (chart, metrics) = (Arc::new(Chart::default()), KeepMetrics::new(registry));
        let (database, set_aside) = open(&place)?;
        if let Some(file) = set_aside {
            chart.set_aside(file);
            metrics.set_aside();
        }
        let (inbox, vault) = (Arc::new(Inbox::new(Arc::clone(&metrics))), Arc::new(Vault::default()));
        vault.put(database);
        let name = place.to_string();
        let writer = Writer {
            inbox: Arc::clone(&inbox),
            vault: Arc::clone(&vault),
            chart: Arc::clone(&chart),
            metrics,
            place,
            before: Vec::new(),
            down: None,
            _lock: lock,
        };
        let thread = std::thread::Builder::new().name("keep-writer".into()).spawn(move || writer.run());
        let thread = thread.map_err(|error| KeepError::Thread(error.to_string()))?;
        let thread = Mutex::new(Some(thread));
        Ok(Self(Arc::new(Inner { inbox, vault, chart, place: name, thread })))
    }

    /// A named table of bytes to bytes; made by its first write.
    pub fn shelf(&self, name: &'static str) -> Shelf {
        Shelf { keep: self.clone(), name }
    }

    /// How it is.
    pub fn health(&self) -> KeepHealth {
        self.0.chart.get()
    }

    /// Everything handed in is on disk, or failed, when this returns; the file is closed and later writes fail. Blocks for as long as that
    /// takes.
    pub fn stop(&self) {
        self.0.stop();
    }
}

impl Inner {
    fn stop(&self) {
        self.inbox.stop();
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            // The hook has named it.
            tracing::error!(
                code = "keep_defect",
                "the thread that writes sense.redb ended with a panic; please report it with the lines before"
            );
        }
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.stop();
    }
}

/// A named table of a [`Keep`]. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Shelf {
    keep: Keep,
    name: &'static str,
}

impl Shelf {
    /// Writes changes, all or none. They are handed in when this is called, so the order of calls is the order on disk; the future resolves
    /// when they are there. Dropping it changes nothing.
    ///
    /// # Errors
    /// [`KeepError`]: none of it is there. (If the program ends before a file that failed could be opened again, it may be there.)
    pub fn write(&self, changes: Vec<Change>) -> impl Future<Output = Result<(), KeepError>> + Send + use<> {
        let (sender, receiver) = oneshot::channel();
        self.keep.0.inbox.submit(Job::new(self.name, changes, Some(sender)));
        // A writer that is gone leaves nobody to answer.
        async move { receiver.await.unwrap_or(Err(KeepError::Stopped)) }
    }

    /// Like [`Shelf::write`], but nobody waits: it is written within 20 ms, with what others wait for; a failure is counted and logged.
    pub fn write_later(&self, changes: Vec<Change>) {
        self.keep.0.inbox.submit(Job::new(self.name, changes, None));
    }

    /// How many writes failed until now, of any shelf.
    pub(super) fn failures(&self) -> u64 {
        self.keep.0.inbox.failures()
    }

    /// All pairs on disk, in the order of their keys.
    ///
    /// # Errors
    /// [`KeepError`]: the file is closed or cannot be read.
    pub fn read_all(&self) -> Result<Pairs, KeepError> {
        let Inner { vault, inbox, place, .. } = &*self.keep.0;
        let read = vault.read(|database| guarded(|| record::read(&database.begin_read()?, self.name)));
        read.map_err(|fault| match fault {
            Fault::Closed if inbox.is_stopped() => KeepError::Stopped,
            fault => KeepError::Unreadable { place: place.clone(), why: fault.to_string() },
        })
    }
}

fn attempt(place: &Place) -> Result<Database, Fault> {
    guarded(|| {
        let database = place.open(record::prepare)?;
        record::verify(&database)?;
        Ok(database)
    })
}

/// Opens what is there; what cannot be opened is set aside, and an empty file takes its place.
fn open(place: &Place) -> Result<(Database, Option<PathBuf>), KeepError> {
    let fault = match attempt(place) {
        Ok(database) => return Ok((database, None)),
        Err(fault) => fault,
    };
    let (name, why) = (place.to_string(), fault.to_string());
    match fault {
        Fault::Database(redb::Error::DatabaseAlreadyOpen) => return Err(KeepError::InUse { place: name }),
        Fault::Damaged(Damage::Newer(found)) => return Err(KeepError::Newer { place: name, found }),
        fault if fault.is_from_outside() => return Err(KeepError::Unusable { place: name, why }),
        _ => {}
    }
    let aside = place.set_aside(time::OffsetDateTime::now_utc());
    let aside =
        aside.map_err(|error| KeepError::Stuck { place: name.clone(), why: why.clone(), system: error.to_string() })?;
    let file = aside.ok_or_else(|| KeepError::Unusable { place: name.clone(), why: why.clone() })?;
    tracing::error!(
        code = "keep_set_aside",
        "sense.redb in {name} could not be opened ({why}); it was set aside as {} and the program starts with an empty one: what was known of \
         start requests, and key-value pairs, are not there. Check the disk; what load scripts need is stored again by whoever stores it",
        file.display()
    );
    let database = attempt(place).map_err(|fault| KeepError::Unusable { place: name, why: fault.to_string() })?;
    Ok((database, Some(file)))
}
