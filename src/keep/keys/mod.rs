//! Idempotency keys: what was asked for under a key, and what was answered, so that a request that comes again is answered again and not
//! carried out again.
//!
//! It lives beside the file because it is nothing but what the program keeps; what a key names, and what an answer is, its user says in bytes.
//! Invariants: a key is on disk before anything is done under it, so after a crash it is known that something may have been done; of two
//! requests that use a key at the same time one is carried out and the other waits for it; a key whose outcome nobody knows is never used
//! again as if it were new. Bounded by age, by number and by bytes; the oldest go first, those that are being used never.

mod metrics;
mod record;
mod state;
#[cfg(test)]
mod tests;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use parking_lot::Mutex;
use prometheus_client::registry::Registry;
use ring::digest::{Context, SHA256};
use tokio::{sync::watch, time::Instant};

use self::{
    metrics::KeyMetrics,
    state::{Found, Limits, State},
};
use super::{Keep, KeepError, Shelf, values::Clock};

/// Its shelf in the file.
const SHELF: &str = "keys";
/// How long a key is known.
pub const REMEMBERED: Duration = Duration::from_secs(24 * 3_600);
/// Keys that are known at a time.
pub const MOST: usize = 100_000;
/// Bytes of all answers together, with what belongs to each.
const MOST_BYTES: usize = 32 << 20;

/// A SHA-256 of parts that together identify something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Of these parts, each with its length: parts that are cut differently are others.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut context = Context::new(&SHA256);
        for part in parts {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        }
        let mut digest = [0; 32];
        digest.iter_mut().zip(context.finish().as_ref()).for_each(|(to, from)| *to = *from);
        Self(digest)
    }

    /// Its bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// What is known of a key.
#[derive(Debug)]
pub enum Claim {
    /// Nothing: it is the caller's now, and on disk.
    Fresh(Ticket),
    /// It was used for the same request, which was answered so.
    Known(Bytes),
    /// It was used for another request.
    Differs,
    /// It was used for the same request, and what became of that is not known: the program ended, or the work did not.
    Unknown,
    /// It is being used for the same request.
    Busy,
}

/// The keys. Cheap to clone.
#[derive(Clone)]
pub struct Keys(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    shelf: Shelf,
    metrics: KeyMetrics,
    clock: Clock,
}

impl std::fmt::Debug for Keys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keys")
    }
}

impl Keys {
    /// Takes up what the file holds.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn open(keep: &Keep, registry: &mut Registry) -> Result<Self, KeepError> {
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
        Self::with(
            keep,
            Limits { age: REMEMBERED, keys: MOST, bytes: MOST_BYTES },
            Arc::new(move || u64::try_from(clock()).unwrap_or(u64::MAX)),
            registry,
        )
    }

    fn with(keep: &Keep, limits: Limits, clock: Clock, registry: &mut Registry) -> Result<Self, KeepError> {
        let shelf = keep.shelf(SHELF);
        let mut state = State::new(limits);
        let left_out = state.load(shelf.read_all()?);
        if !left_out.is_empty() {
            tracing::error!(
                code = "keys_unreadable",
                count = left_out.len(),
                "idempotency keys kept on disk cannot be read and are left out: requests under them would be carried out again; check the disk"
            );
            shelf.write_later(left_out);
        }
        Ok(Self(Arc::new(Inner { state: Mutex::new(state), shelf, metrics: KeyMetrics::new(registry), clock })))
    }

    /// Uses a key for a request. Where it is being used for the same request, waits for that, at most `patience`.
    ///
    /// # Errors
    /// The key cannot be kept; nothing may be done under it.
    pub async fn claim(&self, key: Digest, print: Digest, patience: Duration) -> Result<Claim, KeepError> {
        let until = Instant::now() + patience;
        loop {
            let mut ended = match self.look(key, print) {
                Look::Fresh(ticket, written) => {
                    let written = written.await;
                    return match written {
                        Ok(()) => Ok(self.told(Claim::Fresh(ticket))),
                        Err(error) => {
                            ticket.release();
                            Err(error)
                        }
                    };
                }
                Look::Said(claim) => return Ok(self.told(claim)),
                Look::Wait(ended) => ended,
            };
            // Whoever uses it drops the other end when it is done with it.
            if tokio::time::timeout_at(until, ended.changed()).await.is_err() {
                return Ok(self.told(Claim::Busy));
            }
        }
    }

    fn look(&self, key: Digest, print: Digest) -> Look<impl Future<Output = Result<(), KeepError>> + Send + use<>> {
        let (inner, now) = (&*self.0, (self.0.clock)());
        let mut state = inner.state.lock();
        let found = state.find(key, print, now);
        let look = match found {
            Found::Nothing => {
                let changes = state.begin(key, print, now);
                let ticket = Ticket { keys: self.clone(), key, open: true };
                Look::Fresh(ticket, inner.shelf.write(changes))
            }
            Found::Answer(answer) => Look::Said(Claim::Known(answer)),
            Found::Other => Look::Said(Claim::Differs),
            Found::Unknown => Look::Said(Claim::Unknown),
            Found::Underway(ended) => Look::Wait(ended),
        };
        inner.metrics.level(state.len());
        look
    }

    fn told(&self, claim: Claim) -> Claim {
        self.0.metrics.told(&claim);
        claim
    }
}

/// One look at a key.
enum Look<W> {
    Fresh(Ticket, W),
    Said(Claim),
    Wait(watch::Receiver<()>),
}

/// A key that is being used. Dropped as it is, what became of the request is unknown.
#[derive(Debug)]
#[must_use = "a key that is neither settled nor released stands for a request whose outcome is unknown"]
pub struct Ticket {
    keys: Keys,
    key: Digest,
    open: bool,
}

impl Ticket {
    /// The request was carried out and is answered so; returns when that is on disk. If it cannot be, the answer is known until the program
    /// ends, and unknown after that.
    pub async fn settle(mut self, answer: Bytes) {
        self.open = false;
        let inner = &*self.keys.0;
        let written = {
            let mut state = inner.state.lock();
            let changes = state.settle(self.key, answer);
            inner.metrics.level(state.len());
            inner.shelf.write(changes)
        };
        if let Err(error) = written.await {
            tracing::warn!(code = "key_answer_not_kept", %error, "what was answered under an idempotency key is not on disk: after a restart the same request is told that its outcome is unknown; check the disk");
        }
    }

    /// Nothing was done: the key is as new.
    pub fn release(mut self) {
        self.open = false;
        let inner = &*self.keys.0;
        let mut state = inner.state.lock();
        inner.shelf.write_later(state.release(self.key));
        inner.metrics.level(state.len());
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.open {
            // On disk it stands so already.
            self.keys.0.state.lock().lose(self.key);
        }
    }
}
