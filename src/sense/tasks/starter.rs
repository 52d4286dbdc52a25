//! [`Starter`]: from a start request to what became of every task it names.
//!
//! Invariants: a task is asked of QRS at most once per request, and the call that starts it is never repeated; a duplicate of a request
//! gets the first one's answer and starts nothing; work that has begun ends whether or not the asker still waits; every request gets an
//! answer, also when QRS is absent, the work panics or the program is stopping.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Semaphore, watch};
use tokio_util::task::TaskTracker;

use super::{
    memory::{Answer, Key, Memory},
    metrics::StartMetrics,
    request::{StartOutcome, StartRequest, StartStatus},
    work::Work,
};
use crate::{config::settings::StartTaskFilter, sense::qrs::Qrs};

/// Requests worked on at a time; more wait for their turn.
const REQUESTS: usize = 1_024;
/// Requests remembered, and outcomes of all of them together.
const REMEMBERED: (usize, usize) = (10_000, 100_000);
/// How long a transaction is known.
const TRANSACTION: Duration = Duration::from_secs(24 * 3_600);
/// How long a delivery is known.
const DELIVERY: Duration = Duration::from_secs(60);

/// The answer to a start request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StartReport {
    /// One per task, in the order of the request's targets; one for a target that led to no task.
    pub outcomes: Vec<StartOutcome>,
    /// The request was one already answered: these are the first answer's outcomes.
    pub duplicate: bool,
}

/// Starts tasks. Cheap to clone; all clones share memory and limits.
#[derive(Clone)]
pub struct Starter(Arc<Inner>);

struct Inner {
    work: Work,
    /// One lock for both: looking a request up and remembering it is one step, or two duplicates could both be the first.
    known: Mutex<Known>,
    turns: Semaphore,
    running: TaskTracker,
    metrics: StartMetrics,
}

/// The requests of the last while.
struct Known {
    transactions: Memory,
    deliveries: Memory,
}

/// What a request is remembered by.
#[derive(Clone, Copy, Default)]
struct Keys {
    transaction: Option<Key>,
    delivery: Option<Key>,
    kept: Option<Key>,
}

impl Keys {
    fn deliveries(self) -> impl Iterator<Item = Key> {
        [self.delivery, self.kept].into_iter().flatten()
    }
}

/// Where the answer of a request is to be told.
type Teller = watch::Sender<Option<Arc<[StartOutcome]>>>;

impl Starter {
    /// A starter that asks this QRS and obeys this filter.
    pub fn new(qrs: Qrs, filter: StartTaskFilter) -> Self {
        let memory = |age| Memory::new(REMEMBERED.0, REMEMBERED.1, age);
        Self(Arc::new(Inner {
            work: Work::new(qrs, filter),
            known: Mutex::new(Known { transactions: memory(TRANSACTION), deliveries: memory(DELIVERY) }),
            turns: Semaphore::new(REQUESTS),
            running: TaskTracker::new(),
            metrics: StartMetrics::default(),
        }))
    }

    /// The counters, to be hung into the registry.
    pub fn metrics(&self) -> &StartMetrics {
        &self.0.metrics
    }

    /// Carries a request out and says what became of it. Dropping the future does not stop the work.
    pub async fn start(&self, request: StartRequest) -> StartReport {
        let door = request.door;
        let (tell, answer) = watch::channel(None);
        let (answer, duplicate) = match self.admit(&request, &answer) {
            Ok(keys) => {
                self.begin(request, keys, tell);
                (answer, false)
            }
            Err(first) => (first, true),
        };
        let outcomes = finished(answer).await;
        if duplicate {
            self.0.metrics.duplicate();
        } else {
            outcomes.iter().for_each(|outcome| self.0.metrics.count(door, outcome.status));
        }
        StartReport { outcomes, duplicate }
    }

    /// Takes no new requests and waits for those under way, at most `limit`. True if all ended.
    pub async fn stop(&self, limit: Duration) -> bool {
        self.0.running.close();
        tokio::time::timeout(limit, self.0.running.wait()).await.is_ok()
    }

    /// Remembers a request as the first of its kind, or gives the answer of the one it repeats.
    fn admit(&self, request: &StartRequest, answer: &Answer) -> Result<Keys, Answer> {
        let (mut known, now, mut keys) = (self.known(), Instant::now(), Keys::default());
        for (delivery, place) in [(&request.redelivery, &mut keys.delivery), (&request.kept, &mut keys.kept)] {
            let Some(delivery) = delivery else { continue };
            let key = known.deliveries.key(&delivery.mark);
            *place = Some(key);
            // Packet ids are used again: only the network's word makes a second delivery of it.
            if delivery.repeated
                && let Some(first) = known.deliveries.find(key, now)
            {
                return Err(first);
            }
        }
        if let Some(transaction) = request.transaction.as_ref().filter(|value| !value.is_null()) {
            let key = known.transactions.key(&(request.door, &request.requested_by, transaction.to_string()));
            keys.transaction = Some(key);
            if let Some(first) = known.transactions.find(key, now) {
                return Err(first);
            }
        }
        for key in keys.deliveries() {
            known.deliveries.insert(key, answer.clone(), now);
        }
        if let Some(key) = keys.transaction {
            known.transactions.insert(key, answer.clone(), now);
        }
        Ok(keys)
    }

    /// Begins the work; the answer is told later.
    fn begin(&self, request: StartRequest, keys: Keys, tell: Teller) {
        if self.0.running.is_closed() {
            let why = "the program is stopping; nothing was started, ask again when it is up";
            tell.send_replace(Some([StartOutcome::failed(StartStatus::Unreachable, "stopping", why)].into()));
            return;
        }
        let starter = self.clone();
        self.0.running.spawn(async move {
            // The semaphore is never closed, so this waits for a turn and cannot fail.
            let _turn = starter.0.turns.acquire().await;
            let outcomes: Arc<[StartOutcome]> = starter.0.work.run(request).await.into();
            starter.settle(keys, &outcomes);
            tell.send_replace(Some(outcomes));
        });
    }

    /// Notes what an answer came to. A transaction that started nothing because QRS was away may be tried again under its own name; a
    /// redelivery is the network's doing and gets the same answer.
    fn settle(&self, keys: Keys, outcomes: &[StartOutcome]) {
        let (mut known, now) = (self.known(), Instant::now());
        for key in keys.deliveries() {
            known.deliveries.weigh(key, outcomes.len(), now);
        }
        let away = outcomes.iter().all(|outcome| outcome.status == StartStatus::Unreachable);
        match keys.transaction {
            Some(key) if away => known.transactions.remove(key),
            Some(key) => known.transactions.weigh(key, outcomes.len(), now),
            None => {}
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock()
    }
}

/// Waits for the answer; work that ended without one (it panicked) leaves the request undecided.
async fn finished(mut answer: Answer) -> Vec<StartOutcome> {
    if let Ok(outcomes) = answer.wait_for(Option::is_some).await
        && let Some(outcomes) = &*outcomes
    {
        return outcomes.to_vec();
    }
    let why = "the work on this request ended without a result; look in the QMC whether the task runs before starting it again";
    vec![StartOutcome::failed(StartStatus::Unknown, "interrupted", why)]
}
