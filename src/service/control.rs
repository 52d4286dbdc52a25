//! The orders of Windows' service manager and what is reported to it, as a state machine that needs no Windows.
//!
//! Invariants: an order is answered at once, without waiting for anything but a report under way; stopping begins once, whatever comes how often;
//! reports go out in the order of the phases, and none after `Stopped`; while something is pending the check point grows, so that
//! the manager sees that it goes on.

use std::{fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::app::STOP_DEADLINE;

/// What the manager may say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Somebody stops the service.
    Stop,
    /// The machine goes down; the last moment.
    Shutdown,
    /// The machine will go down; there is time.
    Preshutdown,
    /// How are you? The manager keeps the last report, so that nothing has to be done.
    Interrogate,
    /// Anything else.
    Other,
}

/// What is said to an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Heard.
    Done,
    /// This service does not know that order.
    NotOffered,
}

/// Where the service is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Binding its sockets, opening its stores.
    Starting,
    /// At work.
    Running,
    /// Told to stop, and stopping in order.
    Stopping,
    /// Over.
    Stopped,
}

impl Phase {
    const fn is_pending(self) -> bool {
        matches!(self, Self::Starting | Self::Stopping)
    }
}

/// What the manager is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// The phase.
    pub phase: Phase,
    /// Whether Stop and Preshutdown are taken now. (A service takes Shutdown or Preshutdown, not both: after the latter there is nobody left
    /// to hear the former.)
    pub accepts: bool,
    /// Grows while something is pending; 0 otherwise.
    pub checkpoint: u32,
    /// Within which time the next report comes; zero when nothing is pending.
    pub wait_hint: Duration,
    /// 0, or with which exit code it ended.
    pub exit_code: u8,
}

/// How long the manager may wait for the next report while the service starts; they come every second, but a machine that boots is slow.
pub const START_HINT: Duration = Duration::from_secs(20);
/// The same for stopping: what the program promises, and as much again.
pub const STOP_HINT: Duration = Duration::from_secs(2 * STOP_DEADLINE.as_secs());
/// What the manager is asked to grant before the machine goes down.
pub const PRESHUTDOWN: Duration = Duration::from_secs(4 * STOP_DEADLINE.as_secs());
/// Between two reports while something is pending.
pub const TICK: Duration = Duration::from_secs(1);

type Tell = Box<dyn Fn(&Report) + Send>;

/// The service's side of the conversation. All clones are one.
#[derive(Clone)]
pub struct Controller {
    state: Arc<Mutex<State>>,
    stop: CancellationToken,
}

struct State {
    phase: Phase,
    checkpoint: u32,
    exit_code: u8,
    tell: Option<Tell>,
}

impl fmt::Debug for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Controller").field("phase", &self.phase()).finish_non_exhaustive()
    }
}

impl Default for Controller {
    fn default() -> Self {
        Self::new()
    }
}

impl Controller {
    /// A service that starts, with nobody to tell yet.
    pub fn new() -> Self {
        let state = State { phase: Phase::Starting, checkpoint: 0, exit_code: 0, tell: None };
        Self { state: Arc::new(Mutex::new(state)), stop: CancellationToken::new() }
    }

    /// Cancelled, once, when the manager wants the service to stop.
    pub fn stop(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Where the service is.
    pub fn phase(&self) -> Phase {
        self.state.lock().phase
    }

    /// From now on reports go to `tell`, beginning with how things are. It must not call back.
    pub fn attach(&self, tell: impl Fn(&Report) + Send + 'static) {
        let mut state = self.state.lock();
        state.tell = Some(Box::new(tell));
        state.step();
    }

    /// An order of the manager.
    pub fn control(&self, control: Control) -> Answer {
        match control {
            Control::Stop | Control::Shutdown | Control::Preshutdown => {
                self.stopping();
                Answer::Done
            }
            Control::Interrogate => Answer::Done,
            Control::Other => Answer::NotOffered,
        }
    }

    /// It stops, because it was told to or because it has to. Only the first call does anything.
    pub fn stopping(&self) {
        let mut state = self.state.lock();
        if matches!(state.phase, Phase::Starting | Phase::Running) {
            state.enter(Phase::Stopping);
            drop(state);
            self.stop.cancel();
        }
    }

    /// It is at work. Nothing, if it was told to stop meanwhile.
    pub fn running(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Starting {
            state.enter(Phase::Running);
        }
    }

    /// It goes on with what is pending; see [`TICK`].
    pub fn tick(&self) {
        let mut state = self.state.lock();
        if state.phase.is_pending() {
            state.step();
        }
    }

    /// It is over. The last report; only the first call makes one.
    pub fn stopped(&self, exit_code: u8) {
        let mut state = self.state.lock();
        if state.phase != Phase::Stopped {
            state.exit_code = exit_code;
            state.enter(Phase::Stopped);
        }
    }
}

impl State {
    fn enter(&mut self, phase: Phase) {
        self.phase = phase;
        self.checkpoint = 0;
        self.step();
    }

    fn step(&mut self) {
        let pending = self.phase.is_pending();
        if pending {
            self.checkpoint = self.checkpoint.saturating_add(1);
        }
        let wait_hint = match self.phase {
            Phase::Starting => START_HINT,
            Phase::Stopping => STOP_HINT,
            Phase::Running | Phase::Stopped => Duration::ZERO,
        };
        let (phase, accepts) = (self.phase, self.phase == Phase::Running);
        let report = Report { phase, accepts, checkpoint: self.checkpoint, wait_hint, exit_code: self.exit_code };
        if let Some(tell) = &self.tell {
            tell(&report);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use super::*;

    const STOPS: [Control; 3] = [Control::Stop, Control::Shutdown, Control::Preshutdown];

    /// A service and all that was reported of it.
    struct Scene {
        service: Controller,
        reports: Arc<Mutex<Vec<Report>>>,
    }

    impl Scene {
        fn new() -> Self {
            let scene = Self { service: Controller::new(), reports: Arc::default() };
            let reports = Arc::clone(&scene.reports);
            scene.service.attach(move |report| reports.lock().push(*report));
            scene
        }

        fn running() -> Self {
            let scene = Self::new();
            scene.service.running();
            scene.reports.lock().clear();
            scene
        }

        /// What was reported since the last time.
        fn told(&self) -> Vec<Report> {
            std::mem::take(&mut self.reports.lock())
        }
    }

    fn report(phase: Phase, accepts: bool, checkpoint: u32, wait_hint: Duration) -> Report {
        Report { phase, accepts, checkpoint, wait_hint, exit_code: 0 }
    }

    #[test]
    fn a_start_is_pending_until_it_runs_and_takes_no_order_meanwhile() {
        let scene = Scene::new();
        scene.service.tick();
        scene.service.running();
        scene.service.tick();
        let starting = |checkpoint| report(Phase::Starting, false, checkpoint, START_HINT);
        let running = report(Phase::Running, true, 0, Duration::ZERO);
        assert_eq!(scene.told(), [starting(1), starting(2), running], "nothing is pending while it runs");
        assert!(!scene.service.stop().is_cancelled());
    }

    #[test]
    fn each_of_the_three_orders_stops_in_the_same_way() {
        for order in STOPS {
            let scene = Scene::running();
            assert_eq!(scene.service.control(order), Answer::Done, "{order:?}");
            let stopping = |checkpoint| report(Phase::Stopping, false, checkpoint, STOP_HINT);
            assert_eq!(scene.told(), [stopping(1)], "{order:?}: said before the order is answered");
            assert!(scene.service.stop().is_cancelled(), "{order:?}");
            scene.service.tick();
            scene.service.tick();
            scene.service.stopped(0);
            let stopped = report(Phase::Stopped, false, 0, Duration::ZERO);
            assert_eq!(scene.told(), [stopping(2), stopping(3), stopped], "{order:?}");
        }
    }

    #[test]
    fn a_second_order_is_heard_and_changes_nothing() {
        let mut pairs = 0;
        for (first, second) in STOPS.iter().flat_map(|first| STOPS.iter().map(move |second| (*first, *second))) {
            let scene = Scene::running();
            scene.service.control(first);
            scene.told();
            assert_eq!(scene.service.control(second), Answer::Done);
            assert_eq!(scene.told(), [], "{first:?}, {second:?}");
            scene.service.stopped(0);
            scene.told();
            assert_eq!(scene.service.control(second), Answer::Done);
            scene.service.tick();
            scene.service.running();
            scene.service.stopped(1);
            assert_eq!(scene.told(), [], "nothing is reported after the end");
            pairs += 1;
        }
        assert_eq!(pairs, 9);
    }

    #[tokio::test]
    async fn who_waits_for_the_stop_is_woken_once() {
        let scene = Scene::running();
        let (stop, woken) = (scene.service.stop(), Arc::new(AtomicU32::new(0)));
        let counted = Arc::clone(&woken);
        let waiting = tokio::spawn(async move {
            stop.cancelled().await;
            counted.fetch_add(1, Ordering::Relaxed);
        });
        for order in STOPS {
            scene.service.control(order);
        }
        waiting.await.unwrap();
        assert_eq!(woken.load(Ordering::Relaxed), 1);
        assert_eq!(scene.told().len(), 1, "one report of stopping");
    }

    #[test]
    fn questions_are_answered_and_unknown_orders_refused() {
        let scene = Scene::running();
        assert_eq!(scene.service.control(Control::Interrogate), Answer::Done);
        assert_eq!(scene.service.control(Control::Other), Answer::NotOffered);
        assert_eq!(scene.told(), []);
        assert_eq!(scene.service.phase(), Phase::Running);
        assert!(!scene.service.stop().is_cancelled());
    }

    #[test]
    fn a_stop_that_comes_early_is_not_forgotten() {
        let service = Controller::new();
        assert_eq!(service.control(Control::Preshutdown), Answer::Done);
        let reports = Arc::new(Mutex::new(Vec::new()));
        let told = Arc::clone(&reports);
        service.attach(move |report| told.lock().push(report.phase));
        service.running();
        service.stopped(0);
        assert_eq!(*reports.lock(), [Phase::Stopping, Phase::Stopped], "it never says that it runs");
        assert!(service.stop().is_cancelled());
    }

    #[test]
    fn who_cannot_start_says_with_which_exit_code() {
        let scene = Scene::new();
        scene.told();
        scene.service.stopped(64);
        let last = Report { exit_code: 64, ..report(Phase::Stopped, false, 0, Duration::ZERO) };
        assert_eq!(scene.told(), [last]);
        assert!(!scene.service.stop().is_cancelled(), "nobody asked it to stop");
    }
}
