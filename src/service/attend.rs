//! Tells whoever runs the program how it is: ready, alive, stopping.
//!
//! Invariants: ready is what `/readyz` says; a sign of life goes out only while the program is ready, and `/readyz` follows the broker's
//! self-probe: a program that is alive and deaf falls silent; whoever cannot watch for silence himself ([`Pace::patience`]) is spared it: the program stops
//! and says so.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::telemetry::readiness::Readiness;

/// Between two looks where nobody asks for signs of life.
const LOOK: Duration = Duration::from_secs(5);
/// Longest text about the state, bytes.
const LONGEST: usize = 300;

/// Whoever runs the program.
pub trait Manager {
    /// It is ready; said once.
    fn ready(&mut self);
    /// A sign of life.
    fn alive(&mut self);
    /// The state in one line, whenever it has changed.
    fn status(&mut self, text: &str);
    /// It stops; said once.
    fn stopping(&mut self);
    /// What the manager wants.
    fn pace(&self) -> Pace;
}

/// What a manager wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pace {
    /// A sign of life each so often; `None`: none.
    pub signs: Option<Duration>,
    /// After how long without being ready the program gives up, so that it is started again; `None`: the manager watches.
    pub patience: Option<Duration>,
    /// After how long it counts as started though it is not ready; `None`: the manager decides.
    pub start: Option<Duration>,
}

/// Nobody runs it but a person.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nobody;

impl Manager for Nobody {
    fn ready(&mut self) {}
    fn alive(&mut self) {}
    fn status(&mut self, _text: &str) {}
    fn stopping(&mut self) {}
    fn pace(&self) -> Pace {
        Pace::default()
    }
}

/// Whoever may be there: `None` is nobody.
impl<M: Manager> Manager for Option<M> {
    fn ready(&mut self) {
        self.iter_mut().for_each(M::ready);
    }
    fn alive(&mut self) {
        self.iter_mut().for_each(M::alive);
    }
    fn status(&mut self, text: &str) {
        self.iter_mut().for_each(|manager| manager.status(text));
    }
    fn stopping(&mut self) {
        self.iter_mut().for_each(M::stopping);
    }
    fn pace(&self) -> Pace {
        self.as_ref().map(M::pace).unwrap_or_default()
    }
}

/// Whether the program gave itself up. All clones are one.
#[derive(Debug, Clone, Default)]
pub struct GivenUp(Arc<AtomicBool>);

impl GivenUp {
    /// Whether it did.
    pub fn is_so(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// Tells `manager` how things are until the program is `asked` to stop, or gives itself up; resolves with the reason.
pub async fn attend(
    manager: impl Manager,
    readiness: Readiness,
    given_up: GivenUp,
    asked: impl Future<Output = &'static str>,
) -> &'static str {
    let mut attendance = Attendance::new(manager);
    let why = tokio::select! {
        why = asked => why,
        () = attendance.watch(&readiness) => {
            given_up.0.store(true, Ordering::Release);
            "it was not ready for too long"
        }
    };
    attendance.manager.stopping();
    why
}

struct Attendance<M> {
    manager: M,
    pace: Pace,
    begun: Instant,
    /// When it was ready last, or began.
    well: Instant,
    /// Whether it was said that it is ready.
    told: bool,
    /// Whether a sign of life is due.
    due: bool,
    said: String,
}

impl<M: Manager> Attendance<M> {
    fn new(manager: M) -> Self {
        let (pace, begun) = (manager.pace(), Instant::now());
        Self { manager, pace, begun, well: begun, told: false, due: false, said: String::new() }
    }

    /// Ends when patience does.
    async fn watch(&mut self, readiness: &Readiness) {
        let mut changes = readiness.watch();
        let mut signs = interval(self.pace.signs.unwrap_or(LOOK));
        signs.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !self.look(readiness) {
            tokio::select! {
                () = changes.changed() => {}
                _ = signs.tick() => self.due = true,
            }
        }
    }

    /// One look; whether patience is at its end.
    fn look(&mut self, readiness: &Readiness) -> bool {
        let (ready, now) = (readiness.is_ready(), Instant::now());
        let status = describe(readiness, ready);
        if status != self.said {
            self.manager.status(&status);
            self.said = status;
        }
        if ready {
            self.well = now;
        }
        if !self.told && (ready || self.pace.start.is_some_and(|start| now - self.begun >= start)) {
            self.told = true;
            self.manager.ready();
        }
        if ready && std::mem::take(&mut self.due) && self.pace.signs.is_some() {
            self.manager.alive();
        }
        self.pace.patience.is_some_and(|patience| now - self.well >= patience)
    }
}

/// One line: `ready`, or what is missing.
fn describe(readiness: &Readiness, ready: bool) -> String {
    if ready {
        return "ready".to_owned();
    }
    let mut text = "not ready".to_owned();
    for part in readiness.parts().iter().filter(|part| part.required && !part.ready) {
        // Writing to a string cannot fail.
        let _ = write!(text, "; {}: {}", part.name, part.detail);
    }
    let line: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    match line.char_indices().find(|(at, _)| *at >= LONGEST) {
        Some((at, _)) => line.split_at_checked(at).map_or(String::new(), |(head, _)| format!("{head}…")),
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        sync::mpsc::{self, Receiver, Sender},
        time::timeout,
    };
    use tokio_util::sync::CancellationToken;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);
    const BRIEF: Duration = Duration::from_millis(40);

    /// Writes down what it is told.
    struct Witness(Sender<String>, Pace);

    impl Manager for Witness {
        fn ready(&mut self) {
            self.0.try_send("ready!".into()).unwrap();
        }
        fn alive(&mut self) {
            self.0.try_send("alive".into()).unwrap();
        }
        fn status(&mut self, text: &str) {
            self.0.try_send(text.into()).unwrap();
        }
        fn stopping(&mut self) {
            self.0.try_send("stopping".into()).unwrap();
        }
        fn pace(&self) -> Pace {
            self.1
        }
    }

    struct Scene {
        told: Receiver<String>,
        given_up: GivenUp,
        stop: CancellationToken,
        task: tokio::task::JoinHandle<&'static str>,
    }

    impl Scene {
        fn new(readiness: &Readiness, pace: Pace) -> Self {
            let (sender, told) = mpsc::channel(10_000);
            let (given_up, stop) = (GivenUp::default(), CancellationToken::new());
            let asked = stop.clone();
            let attended = attend(Witness(sender, pace), readiness.clone(), given_up.clone(), async move {
                asked.cancelled().await;
                "a test"
            });
            Self { told, given_up, stop, task: tokio::spawn(attended) }
        }

        async fn next(&mut self) -> String {
            timeout(PATIENCE, self.told.recv()).await.expect("something is said").expect("it goes on")
        }

        /// What is said from now on up to `text`.
        async fn until(&mut self, text: &str) -> Vec<String> {
            let mut said = Vec::new();
            while said.last().is_none_or(|last| last != text) {
                said.push(self.next().await);
            }
            said
        }
    }

    #[tokio::test]
    async fn ready_is_told_once_and_signs_of_life_follow_it() {
        let readiness = Readiness::new();
        let latch = readiness.latch("broker");
        let mut scene = Scene::new(&readiness, Pace { signs: Some(BRIEF), ..Pace::default() });
        assert_eq!(scene.next().await, "not ready; broker: starting");
        latch.up();
        assert_eq!([scene.next().await, scene.next().await, scene.next().await], ["ready", "ready!", "alive"]);
        assert_eq!([scene.next().await, scene.next().await], ["alive", "alive"]);
        scene.stop.cancel();
        let rest = scene.until("stopping").await;
        assert!(rest.iter().all(|word| word == "alive" || word == "stopping"), "{rest:?}");
        assert_eq!(scene.task.await.unwrap(), "a test");
        assert!(!scene.given_up.is_so());
    }

    #[tokio::test]
    async fn who_is_deaf_falls_silent_until_he_hears_again() {
        let readiness = Readiness::new();
        let latch = readiness.latch("broker");
        latch.up();
        let mut scene = Scene::new(&readiness, Pace { signs: Some(BRIEF), ..Pace::default() });
        scene.until("alive").await;
        latch.down("no answer to PUBLISH\nwithin 3s");
        let said = scene.until("not ready; broker: no answer to PUBLISH within 3s").await;
        assert!(said.iter().rev().skip(1).all(|word| word == "alive"), "{said:?}");
        assert!(timeout(BRIEF * 5, scene.told.recv()).await.is_err(), "not a sign of life");
        latch.up();
        assert_eq!([scene.next().await, scene.next().await], ["ready", "alive"], "the sign that was due");
        assert_eq!(scene.next().await, "alive");
        scene.stop.cancel();
        scene.until("stopping").await;
    }

    #[tokio::test]
    async fn a_word_whose_term_has_run_out_is_no_sign_of_life() {
        let readiness = Readiness::new();
        let latch = readiness.latch("broker");
        latch.up_for(BRIEF * 2);
        let mut scene = Scene::new(&readiness, Pace { signs: Some(BRIEF), ..Pace::default() });
        scene.until("not ready; broker: no word for too long").await;
        assert!(timeout(BRIEF * 5, scene.told.recv()).await.is_err());
    }

    #[tokio::test]
    async fn who_is_not_watched_gives_himself_up() {
        let readiness = Readiness::new();
        let latch = readiness.latch("broker");
        latch.up();
        let pace = Pace { signs: Some(BRIEF), patience: Some(BRIEF * 4), start: None };
        let mut scene = Scene::new(&readiness, pace);
        scene.until("alive").await;
        latch.down("deaf");
        scene.until("stopping").await;
        assert_eq!(scene.task.await.unwrap(), "it was not ready for too long");
        assert!(scene.given_up.is_so());
    }

    #[tokio::test]
    async fn a_start_that_takes_too_long_is_called_one() {
        let readiness = Readiness::new();
        let _latch = readiness.latch("broker");
        let pace = Pace { signs: Some(BRIEF), patience: None, start: Some(BRIEF * 2) };
        let mut scene = Scene::new(&readiness, pace);
        assert_eq!(scene.until("ready!").await, ["not ready; broker: starting", "ready!"]);
    }

    #[test]
    fn the_state_is_one_short_line() {
        let readiness = Readiness::new();
        let latch = readiness.latch("rest");
        latch.down("é\n".repeat(400));
        let line = describe(&readiness, false);
        assert!(line.len() <= LONGEST + 5 && !line.contains('\n'), "{} bytes", line.len());
    }
}
