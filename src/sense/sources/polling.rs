//! Polling, and whatever else is a reason to ask QRS how executions went.
//!
//! One task owns the position, the executions in doubt and what is known of tasks: it polls at an interval, asks for each attempt QRS told of,
//! and looks at the executions in doubt. A success or an abort is an end at once; a failure goes through [`Endings`]. Invariants: the position
//! moves only past what was told; one call that fails stops the round, and the next begins where it stopped.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use serde_json::Value;
use time::OffsetDateTime;
use tokio::{
    sync::{Notify, mpsc},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    endings::{Endings, Verdict},
    metrics::Metrics,
    position::Position,
    words,
};
use crate::{
    keep::{KeepError, Shelf},
    names::{ExecutionId, ResultId, TaskId},
    sense::{
        directory::Cache,
        event::{Origin, SenseEvent},
        qrs::{Attempt, ExecutionStatus, Qrs, QrsError},
    },
    telemetry::throttle::Throttle,
};

/// Attempts of one answer.
const PAGE: usize = 1_000;
/// The longest pause after a poll that failed.
const AGAIN: Duration = Duration::from_secs(5);
/// Between two looks at what is in doubt.
const LOOK: Duration = Duration::from_secs(1);
/// Ids of one round of notifications.
const ROUND: usize = 200;
/// How long the name of a task and its app count as known.
const FRESH: Duration = Duration::from_secs(60);
/// Tasks that are known at most.
const TASKS: usize = 5_000;
/// Notified attempts that are remembered, to see that notifications come.
const NOTIFIED: usize = 20_000;

/// When to poll.
#[derive(Debug)]
pub(super) struct Pulse {
    /// The usual pause.
    pub every: Duration,
    /// Somebody wants a poll now.
    pub poll: Arc<Notify>,
    /// Whom to tell that notifications do not come; `None`: there are none.
    pub renew: Option<Arc<Notify>>,
}

/// Why a round stopped.
enum Stop {
    Qrs(QrsError),
    Closed,
}

impl From<QrsError> for Stop {
    fn from(error: QrsError) -> Self {
        Self::Qrs(error)
    }
}

/// Asks QRS how executions went.
pub(super) struct Poller {
    qrs: Qrs,
    position: Position,
    endings: Endings,
    cache: Arc<Cache>,
    tasks: HashMap<TaskId, (Instant, Option<Arc<Value>>)>,
    pulse: Pulse,
    metrics: Metrics,
    notified: HashSet<ResultId>,
    /// Ends that polling found first; if no notification comes until the next poll, none will.
    unannounced: Vec<ResultId>,
}

impl Poller {
    /// # Errors
    /// If the position cannot be read from disk.
    pub(super) fn open(
        qrs: Qrs,
        shelf: Shelf,
        cache: Arc<Cache>,
        pulse: Pulse,
        metrics: Metrics,
    ) -> Result<Self, KeepError> {
        let position = Position::open(shelf, OffsetDateTime::now_utc())?;
        let mut endings = Endings::default();
        for id in position.doubted() {
            endings.doubt(*id, Origin::Polling);
        }
        Ok(Self {
            qrs,
            position,
            endings,
            cache,
            tasks: HashMap::new(),
            pulse,
            metrics,
            notified: HashSet::new(),
            unannounced: Vec::new(),
        })
    }

    /// Until `stop`, or until nobody takes events any more.
    pub(super) async fn run(
        mut self,
        events: mpsc::Sender<SenseEvent>,
        mut notifications: mpsc::Receiver<ResultId>,
        stop: CancellationToken,
    ) {
        // Dropping a round loses nothing: the position is behind what was told.
        let _ = stop.run_until_cancelled(self.rounds(&events, &mut notifications)).await;
        self.position.store(self.endings.all());
    }

    async fn rounds(&mut self, events: &mpsc::Sender<SenseEvent>, notifications: &mut mpsc::Receiver<ResultId>) {
        let mut poll_at = Instant::now();
        let mut look_at = poll_at;
        let asked = Arc::clone(&self.pulse.poll);
        loop {
            let in_doubt = !self.endings.all().is_empty();
            let outcome = tokio::select! {
                () = sleep_until(poll_at) => {
                    let outcome = self.poll(events).await;
                    let pause = if outcome.is_ok() { self.pulse.every } else { self.pulse.every.min(AGAIN) };
                    (poll_at, look_at) = (Instant::now() + pause, Instant::now());
                    outcome
                }
                () = asked.notified() => {
                    poll_at = Instant::now();
                    Ok(())
                }
                Some(first) = notifications.recv() => {
                    look_at = look_at.min(Instant::now() + LOOK);
                    self.notified(first, notifications, events).await
                }
                () = sleep_until(look_at), if in_doubt => {
                    let looked = self.look(events).await;
                    // Where nothing looks ended, the next poll or notification is early enough.
                    let soon = !matches!(looked, Ok(false));
                    look_at = if soon { Instant::now() + LOOK } else { poll_at };
                    looked.map(|_| ())
                }
            };
            match outcome {
                Ok(()) => {}
                Err(Stop::Closed) => return,
                Err(Stop::Qrs(error)) => complain(&error),
            }
        }
    }

    /// One poll: all that changed since the last, page by page.
    async fn poll(&mut self, events: &mpsc::Sender<SenseEvent>) -> Result<(), Stop> {
        self.miss_notifications();
        let polled = self.pages(events).await;
        self.position.store(self.endings.all());
        self.metrics.poll(match &polled {
            Ok(()) => "ok",
            Err(_) => "failed",
        });
        polled
    }

    async fn pages(&mut self, events: &mpsc::Sender<SenseEvent>) -> Result<(), Stop> {
        let mut since = self.position.since();
        loop {
            let page = self.qrs.attempts_modified_after(since, PAGE).await?;
            let last = page.last().and_then(|attempt| attempt.modified);
            let full = page.len() >= PAGE;
            for attempt in page {
                self.found(attempt, events).await?;
            }
            match last.filter(|last| full && *last > since) {
                Some(last) => since = last,
                None => return Ok(()),
            }
        }
    }

    async fn found(&mut self, attempt: Attempt, events: &mpsc::Sender<SenseEvent>) -> Result<(), Stop> {
        if attempt.status.is_final() && self.position.is_news(&attempt) {
            if !self.notified.contains(&attempt.id) {
                self.unannounced.push(attempt.id);
            }
            self.weigh(&attempt, Origin::Polling, events).await?;
        }
        self.position.note(&attempt);
        Ok(())
    }

    /// An attempt that is over: its execution has ended, or that is in doubt.
    async fn weigh(
        &mut self,
        attempt: &Attempt,
        origin: Origin,
        events: &mpsc::Sender<SenseEvent>,
    ) -> Result<(), Stop> {
        let Some(execution) = attempt.execution else { return Ok(()) };
        match attempt.status {
            ExecutionStatus::FinishedSuccess | ExecutionStatus::Aborted => {
                self.tell(attempt, origin, events).await?;
                self.endings.forget(execution);
            }
            ExecutionStatus::Skipped => self.endings.forget(execution),
            _ if self.endings.doubt(execution, origin) => {}
            // Too many: believed at once, rather than not told.
            _ => {
                self.metrics.give_up(1);
                self.tell(attempt, origin, events).await?;
            }
        }
        Ok(())
    }

    async fn tell(&mut self, attempt: &Attempt, origin: Origin, events: &mpsc::Sender<SenseEvent>) -> Result<(), Stop> {
        let task = match attempt.task {
            Some(id) => self.task(id).await?,
            None => None,
        };
        match words::event(attempt, task.as_deref(), origin) {
            Some(event) => events.send(SenseEvent::Task(event)).await.map_err(|_| Stop::Closed),
            None => Ok(()),
        }
    }

    /// What QRS says of a task, a minute old at most.
    async fn task(&mut self, id: TaskId) -> Result<Option<Arc<Value>>, QrsError> {
        if let Some((at, task)) = self.tasks.get(&id)
            && at.elapsed() < FRESH
        {
            return Ok(task.clone());
        }
        let task = self.qrs.task_full(id).await?.map(Arc::new);
        if let Some(task) = &task {
            self.cache.note_task(id, task);
        }
        if self.tasks.len() >= TASKS {
            self.tasks.retain(|_, (at, _)| at.elapsed() < FRESH);
        }
        if self.tasks.len() < TASKS {
            self.tasks.insert(id, (Instant::now(), task.clone()));
        }
        Ok(task)
    }

    /// QRS told of these attempts.
    async fn notified(
        &mut self,
        first: ResultId,
        more: &mut mpsc::Receiver<ResultId>,
        events: &mpsc::Sender<SenseEvent>,
    ) -> Result<(), Stop> {
        // Every change of an attempt is told, so the same ids come again and again.
        let mut ids = vec![first];
        while let Some(id) = (ids.len() < ROUND).then(|| more.try_recv().ok()).flatten() {
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
        for id in ids {
            if self.notified.len() >= NOTIFIED {
                self.notified.clear();
            }
            self.notified.insert(id);
            // The poll finds what is missed here.
            let Some(attempt) = self.qrs.attempt(id).await? else { continue };
            if attempt.status.is_final() && self.position.is_news(&attempt) {
                self.weigh(&attempt, Origin::Notification, events).await?;
                self.position.settled(&attempt);
            }
        }
        Ok(())
    }

    /// Ends that an earlier poll found and of which no notification came until now: the subscriptions are gone.
    fn miss_notifications(&mut self) {
        let unannounced = std::mem::take(&mut self.unannounced);
        let Some(renew) = &self.pulse.renew else { return };
        if unannounced.iter().any(|id| !self.notified.contains(id)) {
            renew.notify_one();
        }
    }

    /// A look at the executions in doubt; whether one of them looks ended.
    async fn look(&mut self, events: &mpsc::Sender<SenseEvent>) -> Result<bool, Stop> {
        let ids = self.endings.all();
        // Sessions first: an execution that ends in between is found ended at the next look.
        let sessions = self.qrs.sessions(&ids).await?;
        let attempts = self.qrs.attempts(&ids).await?;
        let mut of: HashMap<ExecutionId, Vec<Attempt>> = HashMap::new();
        for attempt in attempts {
            if let Some(id) = attempt.execution {
                of.entry(id).or_default().push(attempt);
            }
        }
        let mut soon = false;
        for id in ids {
            let has_session = sessions.iter().any(|session| session.id == id);
            match self.endings.judge(id, has_session, of.remove(&id).unwrap_or_default()) {
                Verdict::Open(looks_ended) => soon |= looks_ended,
                Verdict::Ended(last, origin) => {
                    self.tell(&last, origin, events).await?;
                    self.endings.forget(id);
                }
                Verdict::Lost => {
                    self.metrics.give_up(1);
                    self.endings.forget(id);
                }
            }
        }
        Ok(soon)
    }
}

fn complain(error: &QrsError) {
    static LINE: Throttle = Throttle::every(Duration::from_secs(60));
    if let Some(suppressed) = LINE.pass() {
        tracing::warn!(
            code = "polling_failed",
            suppressed,
            "what ended in Qlik Sense could not be asked and is asked again; look whether QRS is well: {error}"
        );
    }
}
