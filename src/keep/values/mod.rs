//! The key-value store: namespaces of keys, each with a JSON value and, if wanted, a time to live.
//!
//! It lives beside the file because it is nothing but what the program keeps: REST shows it (`/v4/keyvalues`), the start of a task puts its
//! parameters in it. Invariants: everything is in memory and, if it is to last, in the file, in the same order; nothing is pushed out to make
//! room for something else, so what was taken stays until it is deleted or its time is over; a key whose time is over is not there, whether
//! or not it was swept away yet; what was refused leaves no trace. Times to live are kept as absolute times: they go on while the program is
//! stopped.
//!
//! A write the file refused is in memory all the same and told as failed; [`Values::tend`] writes it again once the file works.

mod metrics;
mod record;
mod state;
#[cfg(test)]
mod tests;

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use parking_lot::{Mutex, RwLock};
use prometheus_client::registry::Registry;
use tokio_util::sync::CancellationToken;

use self::{metrics::ValueMetrics, state::State};
use super::{Change, Keep, KeepError, Shelf};

/// Its shelf in the file.
const SHELF: &str = "values";
/// So often what is over is swept away, and what the file refused is written again.
const TEND: Duration = Duration::from_secs(1);

/// Bytes handed to the file at once when it is told what it missed.
const PORTION: usize = 4 << 20;

/// What the store may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ValueSettings {
    /// Whether anybody can read it; if not, nothing is taken.
    pub offered: bool,
    /// Whether it outlives the program.
    pub durable: bool,
    /// Namespaces.
    pub max_namespaces: usize,
    /// Keys of one namespace.
    pub max_keys: usize,
    /// Bytes of one value, as JSON text.
    pub max_value: usize,
    /// Bytes of everything: names, keys, values.
    pub max_bytes: usize,
}

impl Default for ValueSettings {
    fn default() -> Self {
        Self {
            offered: true,
            durable: true,
            max_namespaces: 1_000,
            max_keys: 1_000,
            max_value: 1 << 20,
            max_bytes: 64 << 20,
        }
    }
}

/// Most bytes of the name of a namespace or key.
pub const MAX_NAME: usize = 1_024;

/// Why something is not stored, or not there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ValuesError {
    /// There is no such namespace.
    #[error("there is no namespace `{0}`")]
    UnknownNamespace(String),
    /// There is no such key, or its time is over.
    #[error("there is no key `{key}` in the namespace `{namespace}`, or its time to live is over")]
    UnknownKey {
        /// Where.
        namespace: String,
        /// Which.
        key: String,
    },
    /// A name is empty or too long.
    #[error("the name of a {what} has 1 to {MAX_NAME} bytes; this one has {bytes}")]
    Name {
        /// Namespace or key.
        what: &'static str,
        /// Its bytes.
        bytes: usize,
    },
    /// A value is too large.
    #[error("the value of `{key}` has {bytes} bytes; keyValueStore.maxValueBytes allows {limit}")]
    TooLarge {
        /// Whose.
        key: String,
        /// Its bytes.
        bytes: usize,
        /// The limit.
        limit: usize,
    },
    /// A limit of the store is reached.
    #[error(
        "the key-value store is full: {what} ({limit}) is reached; delete something, give keys a time to live, or raise it"
    )]
    Full {
        /// Which limit: a key of the configuration.
        what: &'static str,
        /// Its value.
        limit: usize,
    },
    /// Nobody could read it.
    #[error("the key-value store is switched off; `restServerEndpointsEnable.keyValueStore: true` switches it on")]
    Off,
    /// The file refuses.
    #[error(transparent)]
    Keep(#[from] KeepError),
}

/// What is to be stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Namespace; made if it is not there.
    pub namespace: String,
    /// Key.
    pub key: String,
    /// JSON text.
    pub value: Arc<str>,
    /// Time to live, milliseconds; 0 or less: for ever.
    pub ttl: i64,
}

/// What is stored under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// JSON text.
    pub value: Arc<str>,
    /// The time to live it was given, milliseconds; 0 or less: for ever.
    pub ttl: i64,
}

/// Resolves when a change is on disk, if it is to last. Dropping it changes nothing.
pub type Done = Pin<Box<dyn Future<Output = Result<(), ValuesError>> + Send>>;

/// Milliseconds since 1970.
pub type Clock = Arc<dyn Fn() -> u64 + Send + Sync>;

/// The store. Cheap to clone.
#[derive(Clone)]
pub struct Values(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    /// Where it is kept; `None`: nowhere.
    shelf: Option<Shelf>,
    settings: RwLock<ValueSettings>,
    metrics: ValueMetrics,
    clock: Clock,
}

impl std::fmt::Debug for Values {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Values({:?})", *self.0.settings.read())
    }
}

impl Values {
    /// Takes up what the file holds, unless the store is not to last.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn open(keep: &Keep, settings: ValueSettings, registry: &mut Registry) -> Result<Self, KeepError> {
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Self::with_clock(keep, settings, Arc::new(move || u64::try_from(clock()).unwrap_or(u64::MAX)), registry)
    }

    /// The same with a clock of the caller's.
    ///
    /// # Errors
    /// As [`Values::open`].
    pub fn with_clock(
        keep: &Keep,
        settings: ValueSettings,
        clock: Clock,
        registry: &mut Registry,
    ) -> Result<Self, KeepError> {
        let shelf = settings.durable.then(|| keep.shelf(SHELF));
        let mut state = State::default();
        if let Some(shelf) = &shelf {
            state.load(shelf.read_all()?);
        }
        let metrics = ValueMetrics::new(registry);
        let settings = RwLock::new(settings);
        let values = Self(Arc::new(Inner { state: Mutex::new(state), shelf, settings, metrics, clock }));
        values.tend();
        Ok(values)
    }

    /// From now on these limits hold; what is there stays, and whether it is offered and lasts does not change.
    pub fn limit(&self, newer: ValueSettings) {
        let mut settings = self.0.settings.write();
        let ValueSettings { offered, durable, .. } = *settings;
        *settings = ValueSettings { offered, durable, ..newer };
    }

    /// Stores items, all or none. They are there for everybody when this returns; the future resolves when they are on disk, if they are
    /// to last.
    ///
    /// # Errors
    /// [`ValuesError`]: a limit is reached, and nothing is stored; or the file refuses.
    pub fn put(&self, items: Vec<Item>) -> Done {
        self.change(move |state, inner, now| {
            let settings = *inner.settings.read();
            if !settings.offered {
                return Err(ValuesError::Off);
            }
            state.put(&items, &settings, now)
        })
    }

    /// Stores named values as all there is in a namespace, all or none, e.g. the parameters of a start request where the started load script
    /// reads them: `GET /v4/keyvalues/<namespace>?key=<name>`. `ttl` `None`: for ever. What else was in the namespace goes in the same step.
    ///
    /// # Errors
    /// As [`Values::put`], and then nothing has changed; [`ValuesError::Off`] if nobody could read them.
    pub fn replace(&self, namespace: &str, pairs: Vec<(String, serde_json::Value)>, ttl: Option<Duration>) -> Done {
        // A time to live of less than a millisecond is none at all, not one without end.
        let ttl = ttl.map_or(0, |ttl| i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX).max(1));
        let item = |(key, value): (String, serde_json::Value)| Item {
            namespace: namespace.to_owned(),
            key,
            value: value.to_string().into(),
            ttl,
        };
        let items: Vec<Item> = pairs.into_iter().map(item).collect();
        let namespace = namespace.to_owned();
        self.change(move |state, inner, now| {
            let settings = *inner.settings.read();
            if !settings.offered && !items.is_empty() {
                return Err(ValuesError::Off);
            }
            state.replace(&namespace, &items, &settings, now)
        })
    }

    /// What is stored under a key.
    ///
    /// # Errors
    /// There is no such namespace, or no such key in it.
    pub fn get(&self, namespace: &str, key: &str) -> Result<Found, ValuesError> {
        let now = self.now();
        self.0.state.lock().get(namespace, key, now)
    }

    /// The keys of a namespace, in the order in which they came.
    ///
    /// # Errors
    /// There is no such namespace.
    pub fn keys(&self, namespace: &str) -> Result<Vec<Arc<str>>, ValuesError> {
        let now = self.now();
        self.0.state.lock().keys(namespace, now)
    }

    /// The namespaces, in the order in which they came. One whose last key went is still there.
    pub fn namespaces(&self) -> Vec<Arc<str>> {
        self.0.state.lock().namespaces()
    }

    /// Deletes a key.
    ///
    /// # Errors
    /// It is not there; or the file refuses.
    pub fn remove(&self, namespace: &str, key: &str) -> Done {
        self.change(|state, _, _| state.remove(namespace, key))
    }

    /// Deletes a namespace with everything in it, and nothing else.
    ///
    /// # Errors
    /// It is not there; or the file refuses.
    pub fn remove_namespace(&self, namespace: &str) -> Done {
        self.change(|state, _, _| state.remove_namespace(namespace))
    }

    /// Sweeps away what is over, and writes again what the file refused.
    pub fn tend(&self) {
        let (inner, now) = (&*self.0, self.now());
        let mut state = inner.state.lock();
        let mut changes = state.sweep(now);
        inner.metrics.expired(changes.len());
        inner.metrics.level(&state);
        let Some(shelf) = &inner.shelf else { return };
        if state.failures != shelf.failures() {
            let seen = shelf.failures();
            match shelf.read_all() {
                Ok(there) => {
                    // What waits for the writer now is written before this, so this has the last word.
                    changes = state.difference(there);
                    state.failures = seen;
                }
                // It cannot be read yet; the next time then.
                Err(_) => return,
            }
        }
        // In portions: what the file may be owed can be more than may wait for it at once; the rest is seen the next time.
        let mut portion = Vec::new();
        let mut bytes = 0;
        for change in changes {
            bytes += change.bytes();
            portion.push(change);
            if bytes >= PORTION {
                shelf.write_later(std::mem::take(&mut portion));
                bytes = 0;
            }
        }
        if !portion.is_empty() {
            shelf.write_later(portion);
        }
    }

    /// Tends until stopped.
    pub async fn run(self, stop: CancellationToken) {
        let mut every = tokio::time::interval(TEND);
        every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        while stop.run_until_cancelled(every.tick()).await.is_some() {
            if self.is_behind() {
                // The file is read as a whole: not on a thread that others wait for. A panic there is named by the hook.
                let values = self.clone();
                drop(tokio::task::spawn_blocking(move || values.tend()).await);
            } else {
                self.tend();
            }
        }
    }

    /// Whether the file refused something that is here.
    fn is_behind(&self) -> bool {
        self.0.shelf.as_ref().is_some_and(|shelf| shelf.failures() != self.0.state.lock().failures)
    }

    fn now(&self) -> u64 {
        (self.0.clock)()
    }

    /// Changes memory, and hands the same to the file under the same lock: both see the same order.
    fn change(&self, work: impl FnOnce(&mut State, &Inner, u64) -> Result<Vec<Change>, ValuesError>) -> Done {
        let (inner, now) = (&*self.0, self.now());
        let mut state = inner.state.lock();
        let mut changes = state.sweep(now);
        inner.metrics.expired(changes.len());
        let changed = work(&mut state, inner, now).map(|new| changes.extend(new));
        if let Err(error) = &changed {
            inner.metrics.refused(error);
        }
        inner.metrics.level(&state);
        let written = match &inner.shelf {
            Some(shelf) if changed.is_ok() => Some(shelf.write(changes)),
            Some(shelf) if !changes.is_empty() => {
                shelf.write_later(changes);
                None
            }
            _ => None,
        };
        drop(state);
        Box::pin(async move {
            changed?;
            match written {
                Some(written) => Ok(written.await?),
                None => Ok(()),
            }
        })
    }
}
