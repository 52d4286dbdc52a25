//! [`Starter`]: from a start request to what became of every task it names.
//!
//! Invariants: a request is on disk, or its broker keeps it, before its asker gets a ticket; a task is asked of QRS at most once per request, over restarts, too; a
//! duplicate of a request hears the first one's last words and starts nothing; work that has begun ends whether or not the asker still
//! waits; every request gets an answer, also when QRS is absent, the work panics or the program is stopping.

mod taken;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;
use tokio_util::task::TaskTracker;

use super::{
    audit::Audit,
    follow::Follower,
    journal::{Ended, Interrupted, Journal, Keys, Left, Record, RequestId},
    memory::{Key, Memory},
    metrics::StartMetrics,
    quota::{Place, Quota, Refusal},
    request::{StartOutcome, StartRequest, StartStatus},
    rules::Rules,
    settle::Patience,
    story::{Listener, Teller, Ticket, Word, told},
    wall_ms,
    words::NOT_KEPT,
    work::{Order, Work},
};
use crate::{
    keep::{KeepError, Shelf},
    sense::qrs::Qrs,
    telemetry::throttle::Throttle,
};

/// Requests remembered, and outcomes of all of them together.
const REMEMBERED: (usize, usize) = (10_000, 100_000);
/// How long a transaction is known.
const TRANSACTION: Duration = Duration::from_secs(24 * 3_600);
/// How long a delivery is known.
const DELIVERY: Duration = Duration::from_secs(60);
/// How long it is known what the broker may hand over again: far longer than it takes to write down that it need not.
const KEPT: Duration = Duration::from_secs(600);

/// The answer to a start request.
#[derive(Debug, Clone, PartialEq)]
pub struct StartReport {
    /// One per task, in the order of the request's targets; one for a target that led to no task.
    pub outcomes: Vec<StartOutcome>,
    /// The request was one already answered: these are the first answer's outcomes.
    pub duplicate: bool,
}

/// A request of an earlier life of the program that goes on.
#[derive(Debug)]
pub struct Resumed {
    /// What was asked.
    pub request: StartRequest,
    /// What is said about it from here on.
    pub ticket: Ticket,
}

/// Starts tasks. Cheap to clone; all clones share memory and limits.
#[derive(Clone)]
pub struct Starter(Arc<Inner>);

struct Inner {
    work: Work,
    /// One lock for both: looking a request up and remembering it is one step, or two duplicates could both be the first.
    known: Mutex<Known>,
    quota: Quota,
    running: TaskTracker,
    metrics: StartMetrics,
    interrupted: Mutex<Vec<Waiting>>,
}

/// A request of an earlier life of the program, known again from the beginning on and taken up when the program runs.
struct Waiting {
    kept: Interrupted,
    teller: Teller,
    story: Listener,
}

/// The requests of the last while.
struct Known {
    transactions: Memory,
    deliveries: Memory,
    kept: Memory,
}

impl Starter {
    /// A starter that asks this QRS, obeys these rules and keeps on this shelf what must survive the program.
    ///
    /// # Errors
    /// If the shelf cannot be read.
    pub fn open(qrs: Qrs, rules: impl Into<Rules>, shelf: Shelf, patience: Patience) -> Result<Self, KeepError> {
        let (journal, Left { interrupted, ended }) = Journal::open(shelf)?;
        let memory = |age| Memory::new(REMEMBERED.0, REMEMBERED.1, age);
        let mut known = Known { transactions: memory(TRANSACTION), deliveries: memory(DELIVERY), kept: memory(KEPT) };
        known.recall(ended);
        let interrupted = interrupted.into_iter().map(|kept| known.await_words_of(kept)).collect();
        journal.forget(known.forgotten());
        let rules = rules.into();
        let quota = Quota::new(rules.limits);
        let work = Work {
            follower: Follower::new(qrs.clone()),
            qrs,
            rules: Arc::new(ArcSwap::from_pointee(rules)),
            journal: Arc::new(journal),
            lines: Arc::default(),
            patience,
            calls: TaskTracker::new(),
            audit: Audit::default(),
        };
        Ok(Self(Arc::new(Inner {
            work,
            known: Mutex::new(known),
            quota,
            running: TaskTracker::new(),
            metrics: StartMetrics::default(),
            interrupted: Mutex::new(interrupted),
        })))
    }

    /// The counters, to be hung into the registry.
    pub fn metrics(&self) -> &StartMetrics {
        &self.0.metrics
    }

    /// Who follows what was started.
    pub fn follower(&self) -> &Follower {
        &self.0.work.follower
    }

    /// From now on it obeys these rules, also with requests that wait; what is asked of QRS already goes on.
    pub fn obey(&self, rules: Rules) {
        self.0.quota.limit(rules.limits);
        self.0.work.rules.store(Arc::new(rules));
    }

    /// How long a request waits that does not say.
    pub fn deadline(&self) -> Duration {
        self.0.work.rules.load().deadline
    }

    /// Whom it asks.
    pub fn qrs(&self) -> &Qrs {
        &self.0.work.qrs
    }

    /// Where every word is written down.
    pub fn audit(&self) -> &Audit {
        &self.0.work.audit
    }

    pub(super) fn work(&self) -> &Work {
        &self.0.work
    }

    /// Carries a request out and says what became of it. Dropping the future does not stop the work.
    pub async fn start(&self, request: StartRequest) -> StartReport {
        let ticket = self.submit(request).await;
        let duplicate = ticket.duplicate;
        StartReport { outcomes: ticket.finals().await, duplicate }
    }

    /// Takes a request. When this returns, it is on disk or done, or its ticket says why not. Dropping the future or the ticket does not stop the work.
    pub async fn submit(&self, request: StartRequest) -> Ticket {
        let (teller, story) = Teller::new();
        let id = self.0.work.journal.new_id();
        let keys = match self.admit(&request, id, &story) {
            Ok(keys) => keys,
            Err(first) => {
                self.0.metrics.duplicate();
                self.audit().repeated(id.number(), &request);
                return Ticket::again(first);
            }
        };
        let (ticket, heard) = Ticket::first(story);
        match self.place(&request) {
            Err(refused) => self.refuse(id, &request, keys, &teller, &|| (*refused).clone()),
            Ok(place) => {
                let now = wall_ms();
                let deadline = now.saturating_add(u64::try_from(request.patience.as_millis()).unwrap_or(u64::MAX));
                let record = Journal::record(id, keys, &request, (now, deadline));
                let order = Order {
                    id,
                    request,
                    deadline,
                    steps: Default::default(),
                    teller,
                    record,
                    resumed: false,
                    audit: self.audit().clone(),
                };
                let (asked, is_asked) = oneshot::channel();
                self.0.running.spawn(self.clone().ask(order, keys, (place, heard), asked));
                // The work cannot end without a word.
                let _ = is_asked.await;
            }
        }
        ticket
    }

    /// A place for a request, or the answer it gets instead.
    fn place(&self, request: &StartRequest) -> Result<Place, Box<StartOutcome>> {
        if self.0.work.calls.is_closed() {
            let why = "the program is stopping; nothing was started, ask again later";
            return Err(StartOutcome::failed(StartStatus::Unreachable, "stopping", why).into());
        }
        self.0.quota.take(request, Instant::now()).map_err(|refusal| self.too_much(request, refusal).into())
    }

    fn too_much(&self, request: &StartRequest, refusal: Refusal) -> StartOutcome {
        static TOO_MUCH: Throttle = Throttle::every(Duration::from_secs(10));
        self.0.metrics.refused(refusal.reason());
        if let Some(suppressed) = TOO_MUCH.pass() {
            let (door, requested_by, reason) = (request.door, &request.requested_by, refusal.reason());
            tracing::warn!(
                code = "starts_too_many",
                door,
                requested_by,
                reason,
                suppressed,
                "start request refused: there are too many; who asks so often should ask less, or raise startTask.limits"
            );
        }
        refusal.outcome()
    }

    /// Goes on with what an earlier life of the program left undone and is wanted; the rest waits for the next call, or the next life.
    pub fn resume(&self, wanted: impl Fn(&StartRequest) -> bool) -> Vec<Resumed> {
        let mut interrupted = self.0.interrupted.lock();
        let all = std::mem::take(&mut *interrupted);
        let (now, later) = all.into_iter().partition(|waiting: &Waiting| wanted(&waiting.kept.request));
        *interrupted = later;
        drop(interrupted);
        let now: Vec<Waiting> = now;
        now.into_iter().filter_map(|waiting| self.resume_one(waiting)).collect()
    }

    /// What was started is answered; nothing is begun any more. Waits for calls under way, at most `limit`; true if all ended. Requests that
    /// wait, or are followed, go on when the program is up again.
    pub async fn stop(&self, limit: Duration) -> bool {
        self.0.work.calls.close();
        tokio::time::timeout(limit, self.0.work.calls.wait()).await.is_ok()
    }

    /// Waits until the program stops and no call is under way any more.
    pub async fn stopped(&self) {
        self.0.work.calls.wait().await;
    }

    /// Remembers a request as the first of its kind, or gives the story of the one it repeats.
    fn admit(&self, request: &StartRequest, id: RequestId, story: &Listener) -> Result<Keys, Listener> {
        let (mut known, now, mut keys) = (self.known(), Instant::now(), Keys::default());
        for (delivery, kept) in [(&request.redelivery, false), (&request.kept, true)] {
            let Some(delivery) = delivery else { continue };
            let key = Key::of(&[if kept { "kept" } else { "delivery" }, &delivery.mark]);
            let (place, memory) = match kept {
                true => (&mut keys.kept, &mut known.kept),
                false => (&mut keys.delivery, &mut known.deliveries),
            };
            *place = Some(key);
            // Packet ids are used again: only the network's word makes a second delivery of it.
            if delivery.repeated
                && let Some(first) = memory.find(key, now)
            {
                return Err(first);
            }
        }
        if let Some(transaction) = request.transaction.as_ref().filter(|value| !value.is_null()) {
            let key = Key::of(&["transaction", request.door, &request.requested_by, &transaction.to_string()]);
            keys.transaction = Some(key);
            if let Some(first) = known.transactions.find(key, now) {
                return Err(first);
            }
        }
        known.remember(keys, id, story, now);
        Ok(keys)
    }

    /// Refuses a request that was not written down.
    fn refuse(
        &self,
        id: RequestId,
        request: &StartRequest,
        keys: Keys,
        teller: &Teller,
        why: &dyn Fn() -> StartOutcome,
    ) {
        for (place, target) in request.targets.iter().enumerate() {
            let outcome = why().of(target);
            self.audit().word(id.number(), request, true, &outcome);
            teller.say(Word { place, last: true, outcome });
        }
        let words = teller.finals();
        words.iter().for_each(|word| self.0.metrics.count(request.door, word.outcome.status));
        teller.done();
        let mut known = self.known();
        keys.transaction.into_iter().for_each(|key| known.transactions.remove(key));
        keys.delivery.into_iter().for_each(|key| known.deliveries.remove(key));
        keys.kept.into_iter().for_each(|key| known.kept.remove(key));
    }

    fn resume_one(&self, waiting: Waiting) -> Option<Resumed> {
        let Waiting { kept: Interrupted { id, keys, deadline, mut request, steps }, teller, story } = waiting;
        if request.return_address.is_none() && keys.transaction.is_none() {
            // Whoever asked has gone with the connection, and will ask again.
            let (door, requested_by) = (request.door, &request.requested_by);
            tracing::warn!(
                code = "start_interrupted",
                door,
                requested_by,
                called = steps.len(),
                "a start request was interrupted and its asker has gone; look in the QMC whether the task ran, and ask again if it is still wanted"
            );
            self.0.work.journal.end(id, Keys::default(), &[], steps.into_keys(), wall_ms());
            return None;
        }
        request.patience = Duration::from_millis(deadline.saturating_sub(wall_ms()));
        let order = Order {
            id,
            request: request.clone(),
            deadline,
            steps,
            teller,
            record: Record::known(id),
            resumed: true,
            audit: self.audit().clone(),
        };
        let looked = self.0.work.look(&order);
        let (ticket, heard) = Ticket::first(story);
        self.0.running.spawn(self.clone().carry_out(order.into(), keys, looked, heard));
        Some(Resumed { request, ticket })
    }

    /// Notes what an answer came to. A transaction that started nothing because QRS or the disk was away may be tried again under its own name; a
    /// redelivery is the network's doing and gets the same answer.
    fn settle(&self, mut keys: Keys, words: &[Word], door: &'static str) -> Keys {
        words.iter().for_each(|word| self.0.metrics.count(door, word.outcome.status));
        let (mut known, now) = (self.known(), Instant::now());
        if let Some(key) = keys.kept {
            known.kept.weigh(key, words.len(), now);
        }
        if let Some(key) = keys.delivery {
            known.deliveries.weigh(key, words.len(), now);
        }
        let away = words.iter().all(|word| {
            let code = word.outcome.error.as_ref().map(|error| &*error.code);
            word.outcome.status == StartStatus::Unreachable || code == Some(NOT_KEPT)
        });
        if let Some(key) = keys.transaction.take_if(|_| away) {
            known.transactions.remove(key);
        }
        if let Some(key) = keys.transaction {
            known.transactions.weigh(key, words.len(), now);
        }
        keys
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known.lock()
    }
}

impl Known {
    fn remember(&mut self, keys: Keys, id: RequestId, story: &Listener, now: Instant) {
        if let Some(key) = keys.kept {
            let owner = keys.transaction.is_none().then_some(id);
            // The time the program was down does not count: the broker was so, too.
            self.kept.insert(key, owner, story.clone(), Instant::now());
        }
        if let Some(key) = keys.delivery {
            // With a transaction, its record lives as long as that.
            let owner = (keys.transaction.is_none() && keys.kept.is_none()).then_some(id);
            self.deliveries.insert(key, owner, story.clone(), now);
        }
        if let Some(key) = keys.transaction {
            self.transactions.insert(key, Some(id), story.clone(), now);
        }
    }

    /// A request that was interrupted: a repetition hears what is said about it once it goes on.
    fn await_words_of(&mut self, kept: Interrupted) -> Waiting {
        let (teller, story) = Teller::new();
        self.remember(kept.keys, kept.id, &story, Instant::now());
        Waiting { kept, teller, story }
    }

    /// Takes up what was done in an earlier life of the program, oldest first.
    fn recall(&mut self, mut ended: Vec<Ended>) {
        ended.sort_by_key(|ended| ended.at);
        let (now, wall) = (Instant::now(), wall_ms());
        for Ended { id, at, keys, words } in ended {
            let age = Duration::from_millis(wall.saturating_sub(at));
            // A machine that has run for a shorter time than that knows no such moment; then it is remembered for longer.
            let since = now.checked_sub(age).unwrap_or(now);
            self.remember(keys, id, &told(words), since);
        }
    }

    /// Requests nobody can repeat any more.
    fn forgotten(&mut self) -> Vec<RequestId> {
        let mut forgotten = self.transactions.take_forgotten();
        forgotten.extend(self.deliveries.take_forgotten());
        forgotten.extend(self.kept.take_forgotten());
        forgotten
    }
}
