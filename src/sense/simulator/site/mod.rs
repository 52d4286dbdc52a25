//! The simulated site: tasks, executions, nodes, users; a state machine without clock and network.
//!
//! It is told the moment ([`Site::advance`]), does everything that was due until then in order, and hands out what the outside should see as
//! [`Effect`]s. So its whole course is decided by plan, seed and calls, and a day of it runs in a test in no time.

mod execution;
mod records;
pub mod status;
mod task;
mod timers;
mod visitors;

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde_json::Value;
use uuid::Uuid;

pub use self::task::condensed;
use self::{
    execution::Execution,
    records::{Results, StartedBy, Starts},
    status::Status,
    task::{Task, app_json, named_guid},
    timers::{Timer, Timers},
};
use super::{
    clock::{Calendar, Moment},
    datagram::{DatagramKind, Profile},
    plan::{AppPlan, OnRunning, Outcome, Plan, TaskKind, VisitorsPlan, millis},
    rng::Rng,
};
use crate::names::{ExecutionId, TaskId};

/// Effects that may wait for the driver; more are dropped and counted.
const EFFECTS_WAITING: usize = 200_000;
/// Who starts tasks by schedule.
const SCHEDULER_USER: &str = r"INTERNAL\sa_scheduler";

/// A node with its slots.
#[derive(Debug)]
struct Node {
    id: Uuid,
    name: String,
    slots: u32,
    busy: u32,
}

/// An execution took a step.
#[derive(Debug, Clone)]
pub struct Change {
    /// When, as log4net would write it.
    pub at: String,
    /// The task.
    pub task_id: TaskId,
    /// Its name.
    pub task_name: String,
    /// The execution.
    pub execution_id: ExecutionId,
    /// The state before; `None`: it was just started.
    pub from: Option<Status>,
    /// The state now.
    pub to: Status,
    /// The node, once one has it.
    pub node: Option<String>,
    /// `DIR\user` who started it.
    pub user: String,
}

/// What the outside should see.
#[derive(Debug, Clone)]
pub enum Effect {
    /// An execution took a step.
    Changed(Box<Change>),
    /// A datagram goes out.
    Send {
        /// Place of the sending node in the list.
        node: usize,
        /// What it reports.
        kind: DatagramKind,
        /// Its content.
        text: String,
    },
}

/// The answer to a wish to start a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAnswer {
    /// It is on its way.
    Started(ExecutionId),
    /// The task is disabled.
    Disabled,
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
    now: Moment,
    rng: Rng,
    rate: f64,
    rate_epoch: u32,
    nodes: Vec<Node>,
    apps: Vec<AppPlan>,
    app_json: Vec<Value>,
    tasks: Vec<Task>,
    by_id: HashMap<TaskId, usize>,
    visitors: VisitorsPlan,
    visits: usize,
    executions: BTreeMap<ExecutionId, Execution>,
    queue: VecDeque<ExecutionId>,
    results: Results,
    starts: Starts,
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
            now: 0,
            rng: Rng::new(seed),
            rate: 0.0,
            rate_epoch: 0,
            nodes: plan.nodes.iter().map(Node::new).collect(),
            apps: plan.apps.clone(),
            app_json: plan.apps.iter().map(|app| app_json(app, calendar)).collect(),
            tasks: plan.tasks.iter().map(|task| Task::new(plan, task, calendar)).collect(),
            by_id: plan.tasks.iter().enumerate().map(|(index, task)| (task.id, index)).collect(),
            visitors: plan.visitors.clone(),
            visits: 0,
            executions: BTreeMap::new(),
            queue: VecDeque::new(),
            results: Results::default(),
            starts: Starts::default(),
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
        let every = self.tasks.get(index).filter(|task| task.plan.enabled).and_then(|task| task.plan.every);
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
        if self.tasks.get(index).is_some_and(|task| task.running == 0) {
            self.begin(index, SCHEDULER_USER, StartedBy::Schedule);
        }
    }

    /// Starts a task for a user (`DIR\user`).
    pub fn start(&mut self, task: TaskId, user: &str) -> StartAnswer {
        let Some(&index) = self.by_id.get(&task) else { return StartAnswer::Unknown };
        let Some(found) = self.tasks.get(index).filter(|task| task.plan.enabled) else { return StartAnswer::Disabled };
        if self.on_running != OnRunning::SecondSession && found.running > 0 {
            return StartAnswer::Running(self.on_running);
        }
        StartAnswer::Started(self.begin(index, user, StartedBy::Call))
    }

    /// Stops every execution of a task; `None`: there is no such task.
    pub fn stop(&mut self, task: TaskId) -> Option<usize> {
        self.force(task, Outcome::Abort)
    }

    /// Ends every execution of a task now, this way; the answer is how many, or `None`: there is no such task.
    pub fn force(&mut self, task: TaskId, outcome: Outcome) -> Option<usize> {
        let &index = self.by_id.get(&task)?;
        let running = self.executions.iter().filter(|(_, execution)| execution.task == index);
        let ids: Vec<ExecutionId> = running.map(|(id, _)| *id).collect();
        for id in &ids {
            self.end_now(*id, outcome);
        }
        Some(ids.len())
    }

    /// Every start there was.
    pub fn starts_json(&self) -> Value {
        self.starts.json(self.calendar)
    }

    /// The apps as JSON.
    pub fn apps(&self) -> &[Value] {
        &self.app_json
    }

    /// The tasks of some kinds as JSON; `only`: none but this one.
    pub fn tasks(&mut self, of: fn(TaskKind) -> bool, only: Option<TaskId>) -> impl Iterator<Item = &Value> {
        let (results, calendar) = (&self.results, self.calendar);
        let wanted = move |task: &&mut Task| of(task.plan.kind) && only.is_none_or(|only| only == task.plan.id);
        self.tasks.iter_mut().filter(wanted).map(move |task| {
            let last = task.last_result;
            task.json(|| Some(results.get(last?)?.summary(calendar)))
        })
    }

    /// The execution results as JSON, oldest first; `only`: none but those of this execution.
    pub fn results(&mut self, only: Option<ExecutionId>) -> impl Iterator<Item = &Value> {
        self.results.json(self.calendar, only)
    }

    /// The running executions as JSON; `only`: none but those of this task.
    pub fn sessions(&self, only: Option<TaskId>) -> impl Iterator<Item = Value> {
        let index = only.map(|id| self.by_id.get(&id).copied());
        let wanted = move |execution: &Execution| index.is_none_or(|index| index == Some(execution.task));
        let executions = self.executions.iter().filter(move |(_, execution)| wanted(execution));
        executions.map(|(id, execution)| self.session_json(*id, execution))
    }

    /// The session of one running execution.
    pub fn session(&self, id: ExecutionId) -> Option<Value> {
        self.executions.get(&id).map(|execution| self.session_json(id, execution))
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
    fn new(plan: &super::plan::NodePlan) -> Self {
        Self { id: named_guid("node", &plan.name), name: plan.name.clone(), slots: plan.slots, busy: 0 }
    }
}

#[cfg(test)]
mod tests;
