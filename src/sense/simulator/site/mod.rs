//! The simulated site: tasks, executions, nodes, users; a state machine without clock and network.
//!
//! It is told the moment ([`Site::advance`]), does everything that was due until then in order, and hands out what the outside should see as
//! [`Effect`]s. So its whole course is decided by plan, seed and calls, and a day of it runs in a test in no time.

mod chains;
mod edits;
mod effects;
mod execution;
mod notifications;
mod queries;
mod records;
mod scriptlog;
mod shown;
mod starts;
pub mod status;
mod subjects;
mod task;
mod timers;
mod visitors;

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use serde_json::Value;
use uuid::Uuid;

use self::{
    chains::Event,
    execution::Execution,
    notifications::Notifications,
    records::Results,
    scriptlog::Tickets,
    starts::{NotStarted, Starts},
    status::Status,
    task::{Task, app_json, named_guid},
    timers::{Timer, Timers},
};
pub use self::{
    edits::EditError,
    effects::{Change, Effect},
    notifications::{ChangeType, ObjectType, Subscription},
    records::{RESULTS_KEPT, Wanted},
    scriptlog::LogKey,
    starts::{NOT_STARTED_KEPT, Origin, Request, STARTS_KEPT, StartsView},
    subjects::Subjects,
    task::condensed,
};
use super::{
    clock::{Calendar, Moment},
    datagram::{DatagramKind, Profile},
    plan::{AppPlan, NodePlan, OnRunning, Outcome, Plan, VisitorsPlan, millis},
    rng::Rng,
};
use crate::names::{ExecutionId, TaskId};

/// Effects that may wait for the driver; more are dropped and counted.
const EFFECTS_WAITING: usize = 200_000;
/// Who starts tasks by schedule and in chains.
const SCHEDULER_USER: &str = r"INTERNAL\sa_scheduler";

/// A node with its slots.
#[derive(Debug)]
struct Node {
    id: Uuid,
    name: String,
    slots: u32,
    busy: u32,
}

/// The answer to a wish to start a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAnswer {
    /// It is on its way.
    Started(ExecutionId),
    /// The task is disabled.
    Disabled,
    /// No node with a scheduler is available.
    NoScheduler,
    /// The task runs already, and the policy is not to start a second execution.
    Running(OnRunning),
    /// There is no such task.
    Unknown,
}

/// The site.
#[derive(Debug)]
pub struct Site {
    calendar: Calendar,
    profile: Profile,
    on_running: OnRunning,
    duplicate_notifications: f64,
    now: Moment,
    rng: Rng,
    rate: f64,
    rate_epoch: u32,
    nodes: Vec<Node>,
    /// Whether a scheduler is available.
    scheduler: bool,
    apps: Vec<AppPlan>,
    app_rows: Vec<Arc<Value>>,
    tasks: Vec<Task>,
    by_id: HashMap<TaskId, usize>,
    events: Vec<Event>,
    visitors: VisitorsPlan,
    visits: usize,
    executions: BTreeMap<ExecutionId, Execution>,
    queue: VecDeque<ExecutionId>,
    results: Results,
    tickets: Tickets,
    starts: Starts,
    notifications: Notifications,
    timers: Timers,
    effects: Vec<Effect>,
    effects_dropped: u64,
}

/// How a site is set up beyond its plan.
#[derive(Debug, Clone, Copy)]
pub struct SiteOptions {
    /// Which appenders are installed.
    pub profile: Profile,
    /// Seed of all chance.
    pub seed: u64,
    /// Factor on the frequency of everything that happens by itself; 0: nothing does.
    pub rate: f64,
    /// When it starts.
    pub calendar: Calendar,
}

impl Site {
    /// Builds a site; its clock stands at 0.
    pub fn new(plan: &Plan, options: SiteOptions) -> Self {
        let SiteOptions { profile, seed, rate, calendar } = options;
        let mut site = Self {
            calendar,
            profile,
            on_running: plan.on_running,
            duplicate_notifications: plan.notifications.duplicates,
            now: 0,
            rng: Rng::new(seed),
            rate: 0.0,
            rate_epoch: 0,
            nodes: plan.nodes.iter().map(Node::new).collect(),
            scheduler: true,
            apps: plan.apps.clone(),
            app_rows: plan.apps.iter().map(|app| Arc::new(app_json(app, calendar))).collect(),
            tasks: plan.tasks.iter().map(|task| Task::new(plan.app_of(task), task, calendar)).collect(),
            by_id: plan.tasks.iter().enumerate().map(|(index, task)| (task.id, index)).collect(),
            events: Event::of(plan),
            visitors: plan.visitors.clone(),
            visits: 0,
            executions: BTreeMap::new(),
            queue: VecDeque::new(),
            results: Results::default(),
            tickets: Tickets::default(),
            starts: Starts::default(),
            notifications: Notifications::default(),
            timers: Timers::default(),
            effects: Vec::new(),
            effects_dropped: 0,
        };
        site.set_rate(rate);
        site
    }

    /// Does everything that is due until `now`.
    pub fn advance(&mut self, now: Moment) {
        while let Some((at, timer)) = self.timers.pop_due(now) {
            self.now = self.now.max(at);
            match timer {
                Timer::Step { execution, epoch } => self.step(execution, epoch),
                Timer::Schedule { task, epoch } if epoch == self.rate_epoch => self.scheduled(task),
                Timer::Arrival { epoch } if epoch == self.rate_epoch => self.visitor_arrives(),
                Timer::Schedule { .. } | Timer::Arrival { .. } => {}
                Timer::Visit(visit) => self.visit(visit),
                Timer::Report(report) => self.send_report(&report),
            }
        }
        self.now = self.now.max(now);
    }

    /// When something happens next by itself.
    pub fn next_due(&self) -> Option<Moment> {
        self.timers.next()
    }

    /// What the outside should see, in order; the site forgets it.
    pub fn take_effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }

    /// Effects that were dropped because nobody took them.
    pub fn effects_dropped(&self) -> u64 {
        self.effects_dropped
    }

    /// Changes how often things happen by themselves: 1 as planned, 2 twice as often, 0 never.
    pub fn set_rate(&mut self, rate: f64) {
        self.rate = rate.clamp(0.0, 1_000.0);
        self.rate_epoch = self.rate_epoch.wrapping_add(1);
        for task in 0..self.tasks.len() {
            // Somewhere within the first period, so that not everything starts at once.
            let part = 0.1 + 0.9 * self.rng.unit();
            self.plan_schedule(task, part);
        }
        self.expect_visitor();
    }

    fn plan_schedule(&mut self, index: usize, part: f64) {
        let every = self.tasks.get(index).filter(|task| task.can_start()).and_then(|task| task.plan.every);
        if let Some(every) = every
            && self.rate > 0.0
        {
            let at = self.now.saturating_add(millis(every * part / self.rate).max(1));
            self.timers.add(at, Timer::Schedule { task: index, epoch: self.rate_epoch });
        }
    }

    fn scheduled(&mut self, index: usize) {
        // A little irregular, as real sites are.
        let part = 0.9 + 0.2 * self.rng.unit();
        self.plan_schedule(index, part);
        if self.scheduler && self.tasks.get(index).is_some_and(|task| task.can_start() && task.executions.is_empty()) {
            self.begin(index, SCHEDULER_USER, Origin::Schedule);
        }
    }

    /// Starts a task for a user (`DIR\user`); a wish that comes to nothing is noted.
    pub fn start(&mut self, id: TaskId, user: &str, by: Origin) -> StartAnswer {
        let found = self.by_id.get(&id).copied().and_then(|index| Some((index, self.tasks.get(index)?)));
        let (answer, reason) = match found {
            None => (StartAnswer::Unknown, "unknown"),
            Some((_, task)) if !task.plan.enabled => (StartAnswer::Disabled, "disabled"),
            Some(_) if !self.scheduler => (StartAnswer::NoScheduler, "no scheduler"),
            Some((_, task)) if self.on_running != OnRunning::SecondSession && !task.executions.is_empty() => {
                (StartAnswer::Running(self.on_running), "running")
            }
            Some((index, _)) => return StartAnswer::Started(self.begin(index, user, by)),
        };
        self.not_started(id.to_string(), reason, by);
        answer
    }

    /// Notes a wish to start something that comes to nothing.
    pub fn not_started(&mut self, task: String, reason: &'static str, by: Origin) {
        self.starts.add_not_started(NotStarted { task, at: self.now, reason, by });
    }

    /// Stops every execution of a task; `None`: there is no such task.
    pub fn stop(&mut self, task: TaskId) -> Option<usize> {
        self.force(task, Outcome::Abort)
    }

    /// Ends every execution of a task now, this way; the answer is how many, or `None`: there is no such task.
    pub fn force(&mut self, task: TaskId, outcome: Outcome) -> Option<usize> {
        let index = *self.by_id.get(&task)?;
        let ids = self.tasks.get(index)?.executions.clone();
        for id in &ids {
            self.end_now(*id, outcome);
        }
        Some(ids.len())
    }

    /// Ends every execution of a task in a state it never reaches by itself; the answer is how many, or `None`: there is no such task.
    pub fn end_oddly(&mut self, task: TaskId, last: Status) -> Option<usize> {
        let ids = self.tasks.get(*self.by_id.get(&task)?)?.executions.clone();
        for id in &ids {
            self.end_as(*id, last);
        }
        Some(ids.len())
    }

    /// Repository and scheduler are started anew: what runs is lost (`Reset`), subscriptions are forgotten. The answer is how many executions.
    pub fn restart(&mut self) -> usize {
        self.forget_notifications();
        self.queue.clear();
        let ids: Vec<ExecutionId> = self.executions.keys().copied().collect();
        for id in &ids {
            self.end_as(*id, Status::Reset);
        }
        ids.len()
    }

    /// Whether a scheduler is available from now on. Without one nothing is started, by call, schedule or chain; what runs goes on.
    pub fn set_scheduler(&mut self, available: bool) {
        self.scheduler = available;
    }

    /// Every start there was, and every wish that came to nothing, from number `from` on; `only`: of one task.
    pub fn starts(&self, from: u64, only: Option<TaskId>) -> StartsView {
        self.starts.view(self.calendar, from, only)
    }

    /// From now on every date, past ones included, is so many milliseconds later than it would have been (or earlier).
    pub fn skew(&mut self, millis: i64) {
        self.calendar = self.calendar.skewed(millis);
        for task in &mut self.tasks {
            task.render(self.calendar);
        }
    }

    /// The moment up to which everything has been done.
    pub fn now(&self) -> Moment {
        self.now
    }

    /// The site's dates.
    pub fn calendar(&self) -> Calendar {
        self.calendar
    }

    /// Hands something to the outside.
    fn push(&mut self, effect: Effect) {
        if self.effects.len() < EFFECTS_WAITING {
            self.effects.push(effect);
        } else {
            self.effects_dropped += 1;
        }
    }

    fn emit(&mut self, node: usize, kind: DatagramKind, text: String) {
        self.push(Effect::Send { node, kind, text });
    }
}

impl Node {
    fn new(plan: &NodePlan) -> Self {
        Self { id: named_guid("node", &plan.name), name: plan.name.clone(), slots: plan.slots, busy: 0 }
    }
}

#[cfg(test)]
mod tests;
