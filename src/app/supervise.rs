//! Supervision: every long-lived task has a name, an owner and a rule for when it ends too early; stopping has an order and a deadline.
//!
//! Invariants: a panic ends one task, never the program silently; a task that may not end takes the program down with a reason (never
//! alive but deaf); stopping goes through the [`Stage`]s in order and takes at most [`STOP_DEADLINE`] altogether.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use prometheus_client::metrics::{counter::Counter, family::Family};
use tokio::{
    sync::mpsc,
    task::AbortHandle,
    time::{Instant, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::telemetry::metrics::Registry;

/// Time all stages together have to stop (design, "Promises").
pub const STOP_DEADLINE: Duration = Duration::from_secs(5);
/// The times that rule restarting and stopping; tests use shorter ones.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// First pause before a task is started again; doubled each time.
    first_pause: Duration,
    /// Longest pause.
    longest_pause: Duration,
    /// A task that ran this long was well; its next failure starts at the shortest pause.
    well_after: Duration,
    /// See [`STOP_DEADLINE`].
    deadline: Duration,
}

const PACE: Pace = Pace {
    first_pause: Duration::from_secs(1),
    longest_pause: Duration::from_secs(30),
    well_after: Duration::from_secs(60),
    deadline: STOP_DEADLINE,
};

/// When a task is asked to stop; a stage begins when all tasks of the one before have ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Stage {
    /// What lets work in: listeners of REST and UDP.
    Doors,
    /// What does the work: bridge, task starting.
    Work,
    /// What has the last word: the status (publishes `offline`, behind all that the work still had to say).
    Farewell,
    /// What carries it: the broker or the connection to one.
    Broker,
}

/// The order of stopping, and how much of the deadline (tenths) is gone at the end of each stage at the latest: a door that hangs must not
/// cost the time in which `offline` is published. What a part gives itself to stop fits into its stage: doors 2 s, work 1 s, farewell 0.5 s,
/// broker 1.5 s, and more where the stages before needed less.
const STAGES: [(Stage, u32); 4] = [(Stage::Doors, 4), (Stage::Work, 6), (Stage::Farewell, 7), (Stage::Broker, 10)];

/// What a task says when it ends: nothing, or a result.
pub trait Ended: Send + 'static {
    /// Why it failed, if it did.
    fn failure(self) -> Option<String>;
}

impl Ended for () {
    fn failure(self) -> Option<String> {
        None
    }
}

impl<E: std::fmt::Display + Send + 'static> Ended for Result<(), E> {
    fn failure(self) -> Option<String> {
        self.err().map(|error| error.to_string())
    }
}

/// Why the program stopped although nobody asked it to. Exit code 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{task}` ended although the program needs it: {why}")]
pub struct Fatal {
    /// Name of the task.
    pub task: &'static str,
    /// What it said, or that it panicked.
    pub why: String,
}

/// Owner of all long-lived tasks. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Supervisor {
    shared: Arc<Shared>,
    fatal: mpsc::Sender<Fatal>,
    pace: Pace,
}

#[derive(Debug)]
struct Shared {
    crews: [Crew; 4],
    restarts: Family<Vec<(String, String)>, Counter>,
    next_id: AtomicU64,
}

/// The tasks of one stage.
#[derive(Debug, Default)]
struct Crew {
    stop: CancellationToken,
    tracker: TaskTracker,
    running: Mutex<BTreeMap<u64, (&'static str, AbortHandle)>>,
}

/// Receives the one fatal end; held by whoever calls [`Supervisor::run`].
#[derive(Debug)]
pub struct FatalEnds(mpsc::Receiver<Fatal>);

impl Supervisor {
    /// A supervisor without tasks.
    pub fn new() -> (Self, FatalEnds) {
        Self::with_pace(PACE)
    }

    fn with_pace(pace: Pace) -> (Self, FatalEnds) {
        // One is enough: the first stops the program, later ones add nothing.
        let (fatal, receiver) = mpsc::channel(1);
        let shared = Shared { crews: Default::default(), restarts: Family::default(), next_id: AtomicU64::new(0) };
        (Self { shared: Arc::new(shared), fatal, pace }, FatalEnds(receiver))
    }

    /// Makes restarts visible as `sense_butler_task_restarts_total{task}`.
    pub fn register(&self, registry: &mut Registry) {
        let help = "Parts of the program started again after they failed";
        registry.register("sense_butler_task_restarts", help, self.shared.restarts.clone());
    }

    /// The token that is cancelled when a stage is asked to stop.
    pub fn stop_of(&self, stage: Stage) -> CancellationToken {
        self.shared.crew(stage).stop.clone()
    }

    /// Runs a task the program cannot do without: if it ends, fails or panics before it was asked to stop, the program stops with [`Fatal`].
    pub fn essential<F, T>(&self, stage: Stage, name: &'static str, task: F)
    where
        F: FnOnce(CancellationToken) -> T,
        T: Future + Send + 'static,
        T::Output: Ended,
    {
        let stop = self.stop_of(stage);
        let task = task(stop.clone());
        let fatal = self.fatal.clone();
        self.shared.track(stage, name, async move {
            let why = contained(task).await;
            if stop.is_cancelled() {
                log_late_failure(name, why);
                return;
            }
            let why = why.unwrap_or_else(|| "it ended by itself".to_owned());
            drop(fatal.try_send(Fatal { task: name, why }));
        });
    }

    /// Runs a task that is made again, after a pause of 1 s doubling to 30 s, whenever it ends, fails or panics before it was asked to stop.
    pub fn restarting<F, T>(&self, stage: Stage, name: &'static str, mut make: F)
    where
        F: FnMut(CancellationToken) -> T + Send + 'static,
        T: Future + Send + 'static,
        T::Output: Ended,
    {
        let stop = self.stop_of(stage);
        let (restarts, pace) = (self.shared.restarts.clone(), self.pace);
        let label = vec![("task".to_owned(), name.to_owned())];
        // There from the beginning: monitoring sees the first restart as a change.
        drop(restarts.get_or_create(&label));
        self.shared.track(stage, name, async move {
            let mut pause = pace.first_pause;
            loop {
                let started = Instant::now();
                let why = contained(make(stop.clone())).await;
                if stop.is_cancelled() {
                    return log_late_failure(name, why);
                }
                if started.elapsed() >= pace.well_after {
                    pause = pace.first_pause;
                }
                let why = why.unwrap_or_else(|| "it ended by itself".to_owned());
                tracing::error!(
                    code = "part_restarted",
                    task = name,
                    "a part of the program failed and is started again in {pause:?}, please report it if it does so again: {why}"
                );
                if stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                    return;
                }
                restarts.get_or_create(&label).inc();
                pause = pace.longest_pause.min(pause * 2);
            }
        });
    }

    /// Runs until `asked` resolves (with the reason, for the log) or an essential task ends; then stops all stages in order.
    ///
    /// # Errors
    /// [`Fatal`] if nobody asked.
    pub async fn run(&self, mut ends: FatalEnds, asked: impl Future<Output = &'static str>) -> Result<(), Fatal> {
        let outcome = tokio::select! {
            biased;
            // The sender lives in `self`, so the channel cannot be closed here.
            Some(fatal) = ends.0.recv() => Err(fatal),
            why = asked => { tracing::info!("stopping: {why}"); Ok(()) }
        };
        if let Err(fatal) = &outcome {
            tracing::error!(
                code = "program_gives_up",
                "stopping: {fatal}; start it again (a service manager does), and report it with the lines before"
            );
        }
        self.stop(self.pace.deadline).await;
        outcome
    }

    /// Stops stage by stage; what still runs at the deadline is aborted and named in the log.
    async fn stop(&self, within: Duration) {
        let begun = Instant::now();
        for (stage, tenths) in STAGES {
            let deadline = begun + within * tenths / 10;
            let crew = self.shared.crew(stage);
            crew.stop.cancel();
            crew.tracker.close();
            if timeout_at(deadline, crew.tracker.wait()).await.is_err() {
                tracing::warn!(
                    code = "stop_too_slow",
                    "not stopped in time and abandoned: {}; nothing needs to be done, but report it if every stop says so",
                    crew.abort_all().join(", ")
                );
            }
        }
    }
}

impl Shared {
    fn crew(&self, stage: Stage) -> &Crew {
        let [doors, work, farewell, broker] = &self.crews;
        match stage {
            Stage::Doors => doors,
            Stage::Work => work,
            Stage::Farewell => farewell,
            Stage::Broker => broker,
        }
    }

    fn track(self: &Arc<Self>, stage: Stage, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        let shared = Arc::clone(self);
        // Spawned under the lock, so that a task that ends at once finds itself in the list it takes itself from.
        let mut running = self.crew(stage).running.lock();
        let handle = self.crew(stage).tracker.spawn(async move {
            task.await;
            shared.crew(stage).running.lock().remove(&id);
        });
        running.insert(id, (name, handle.abort_handle()));
    }
}

impl Crew {
    fn abort_all(&self) -> Vec<&'static str> {
        let mut running = self.running.lock();
        std::mem::take(&mut *running)
            .into_values()
            .map(|(name, handle)| {
                handle.abort();
                name
            })
            .collect()
    }
}

/// Runs a task on its own, so that a panic ends it alone. Returns why it failed. Dropping this aborts the task.
async fn contained<T>(task: T) -> Option<String>
where
    T: Future + Send + 'static,
    T::Output: Ended,
{
    let mut inner = tokio::task::JoinSet::new();
    inner.spawn(task);
    match inner.join_next().await? {
        Ok(ended) => ended.failure(),
        Err(error) if error.is_panic() => Some("it panicked; see the log line before".to_owned()),
        Err(_) => Some("it was aborted".to_owned()),
    }
}

fn log_late_failure(name: &str, why: Option<String>) {
    if let Some(why) = why {
        tracing::warn!(code = "failed_at_stop", task = name, "failed while it was stopping, please report it: {why}");
    }
}

#[cfg(test)]
mod tests {
    use std::{future::pending, sync::mpsc as std_mpsc};

    use super::*;

    const QUICK: Pace = Pace {
        first_pause: Duration::from_millis(10),
        longest_pause: Duration::from_millis(30),
        well_after: Duration::from_secs(60),
        deadline: Duration::from_millis(500),
    };

    #[tokio::test]
    async fn stages_stop_in_order_and_the_outcome_is_good() {
        let (supervisor, ends) = Supervisor::new();
        let (sender, order) = std_mpsc::channel();
        let parts =
            [(Stage::Farewell, "status"), (Stage::Broker, "broker"), (Stage::Doors, "rest"), (Stage::Work, "bridge")];
        for (stage, name) in parts {
            let sender = sender.clone();
            supervisor.essential(stage, name, move |stop| async move {
                stop.cancelled().await;
                tokio::task::yield_now().await;
                sender.send(name).unwrap();
            });
        }
        supervisor.run(ends, async { "a test" }).await.unwrap();
        assert_eq!(order.try_iter().collect::<Vec<_>>(), ["rest", "bridge", "status", "broker"]);
    }

    #[tokio::test]
    async fn an_essential_task_that_ends_panics_or_fails_stops_the_program() {
        for (what, expected) in [(0, "by itself"), (1, "panicked"), (2, "no room")] {
            let (supervisor, ends) = Supervisor::new();
            supervisor.essential(Stage::Work, "bridge", move |_| async move {
                match what {
                    0 => Ok(()),
                    1 => panic!("on purpose"),
                    _ => Err("no room"),
                }
            });
            let fatal = supervisor.run(ends, pending()).await.unwrap_err();
            assert!(fatal.task == "bridge" && fatal.why.contains(expected), "{fatal}");
        }
    }

    #[tokio::test]
    async fn a_restarting_task_comes_back_with_growing_pauses() {
        let (supervisor, ends) = Supervisor::with_pace(QUICK);
        let mut registry = Registry::default();
        supervisor.register(&mut registry);
        let (sender, mut starts) = mpsc::channel(10);
        supervisor.restarting(Stage::Work, "flaky", move |_| {
            let sender = sender.clone();
            async move {
                sender.send(Instant::now()).await.unwrap();
                Err("again")
            }
        });
        let mut times = Vec::new();
        for _ in 0..5 {
            times.push(starts.recv().await.unwrap());
        }
        let pauses = times.windows(2).map(|pair| (pair[1] - pair[0]).as_millis());
        for (pause, least) in pauses.zip([10, 20, 30, 30]) {
            assert!((least..least + 500).contains(&pause), "{pause} ms where {least} ms are due");
        }
        supervisor.run(ends, async { "a test" }).await.unwrap();
        let text = crate::telemetry::metrics::encode(&registry);
        assert!(text.contains("sense_butler_task_restarts_total{task=\"flaky\"} 4"), "{text}");
    }

    #[tokio::test]
    async fn what_does_not_stop_is_abandoned_at_the_deadline() {
        let (supervisor, ends) = Supervisor::with_pace(QUICK);
        let (sender, mut ended) = mpsc::channel(1);
        supervisor.essential(Stage::Doors, "stuck", |_| pending::<()>());
        supervisor.essential(Stage::Farewell, "status", |stop| async move {
            stop.cancelled().await;
            sender.send(Instant::now()).await.unwrap();
        });
        supervisor.essential(Stage::Broker, "stuck too", |_| pending::<()>());
        let begun = Instant::now();
        supervisor.run(ends, async { "a test" }).await.unwrap();
        assert!(begun.elapsed() >= QUICK.deadline);
        let status = ended.recv().await.unwrap() - begun;
        assert!(status < QUICK.deadline * 7 / 10, "the stage behind the stuck one had its time: {status:?}");
    }
}
