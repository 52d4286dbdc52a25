//! The course of one execution: Triggered, perhaps Queued, Started, and one of the ends; retries, time limit, stopping.
//!
//! Invariants: an execution is in the map exactly while its execution session exists; it holds a slot from placement to end of attempt and gives
//! it back exactly once; every change of state raises its epoch, so that a step planned before the change comes to nothing.

use uuid::Uuid;

use super::{
    Change, Effect, Origin, Site, notifications::ChangeType, records::ResultRow, scriptlog, starts::Start,
    status::Status, timers::Timer,
};
use crate::{
    names::ExecutionId,
    sense::simulator::{
        clock::Moment,
        datagram::DatagramKind,
        plan::{Outcome, TaskKind},
    },
};

/// From placement on a node to the start of the run, milliseconds.
const START_DELAY: Moment = 100;
/// Each of the two steps of stopping.
const ABORT_STEP: Moment = 100;
/// Each of the steps of a distribute task around its run; its datagram is out this long before its final state.
const DISTRIBUTE_STEP: Moment = 200;
/// From a failed attempt to the next.
const RETRY_PAUSE: Moment = 1_000;
/// The scheduler reports a failure up to this long after the failure.
const LATEST_FAILURE_REPORT: Moment = 3_000;

/// How the present attempt will end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ending {
    Outcome(Outcome),
    TimeLimit,
}

/// A running execution.
#[derive(Debug)]
pub struct Execution {
    pub(super) task: usize,
    pub(super) user: String,
    pub(super) state: Option<Status>,
    pub(super) began: Moment,
    pub(super) changed: Moment,
    epoch: u32,
    /// Attempts before this one.
    retries: u32,
    /// The node whose slot it holds.
    slot: Option<usize>,
    /// The node that had it last.
    pub(super) node: usize,
    result: u64,
    pub(super) result_id: Uuid,
    ending: Ending,
    /// A distribute task has left its run, and said so.
    exited: bool,
    pub(super) abort_at: Option<Moment>,
    pub(super) abort_reason: u8,
}

/// `abortReason`: a person or a program.
const MANUAL: u8 = 1;
/// `abortReason`: the time limit.
const TIMEOUT: u8 = 2;
/// `abortReason`: the task was deleted.
pub const DELETED_TASK: u8 = 3;

impl Site {
    /// Begins an execution of the task at `index`.
    pub(super) fn begin(&mut self, index: usize, user: &str, by: Origin) -> ExecutionId {
        let id = ExecutionId::from_u128(self.rng.guid().as_u128());
        let (result, result_id) = self.open_result(index, id);
        let execution = Execution {
            task: index,
            user: user.to_owned(),
            state: None,
            began: self.now,
            changed: self.now,
            epoch: 0,
            retries: 0,
            slot: None,
            node: 0,
            result,
            result_id,
            ending: Ending::Outcome(Outcome::Success),
            exited: false,
            abort_at: None,
            abort_reason: 0,
        };
        self.executions.insert(id, execution);
        if let Some(task) = self.tasks.get_mut(index) {
            task.executions.push(id);
            self.starts.add(Start { execution: id, task: task.plan.id, at: self.now, user: user.to_owned(), by });
        }
        self.note_session(id, ChangeType::Add);
        self.note_result(id, ChangeType::Add, &[]);
        self.change(id, Status::Triggered);
        self.place(id);
        id
    }

    fn open_result(&mut self, index: usize, execution: ExecutionId) -> (u64, Uuid) {
        let id = self.rng.guid();
        let Some(task) = self.tasks.get_mut(index) else { return (u64::MAX, id) };
        let number = self.results.add(ResultRow::new(id, task.plan.id, execution, task.app, self.now));
        task.last_result = Some(number);
        (number, id)
    }

    /// A planned step of an execution, unless something else happened to it meanwhile.
    pub(super) fn step(&mut self, id: ExecutionId, epoch: u32) {
        let Some(execution) = self.executions.get(&id).filter(|execution| execution.epoch == epoch) else { return };
        let distributes = self.is_kind(execution.task, TaskKind::Distribute);
        match execution.state {
            Some(Status::Triggered | Status::Queued) => self.run(id, distributes),
            Some(Status::Started) if distributes => {
                self.change(id, Status::DistributionQueue);
                self.plan_step(id, DISTRIBUTE_STEP);
            }
            Some(Status::DistributionQueue) => {
                self.change(id, Status::DistributionRunning);
                self.plan_ending(id);
            }
            Some(Status::Started | Status::DistributionRunning) => self.end(id),
            Some(Status::AbortInitiated) => {
                self.change(id, Status::Aborting);
                self.report(id, DatagramKind::Aborted, 0);
                self.plan_step(id, ABORT_STEP);
            }
            Some(Status::Aborting) => self.finish(id, Status::Aborted),
            Some(Status::Retry) => self.retry(id),
            _ => {}
        }
    }

    /// Gives the execution a slot on the node with the most free ones, or lets it wait.
    fn place(&mut self, id: ExecutionId) {
        if self.take_slot(id) {
            self.plan_step(id, START_DELAY);
        } else {
            self.change(id, Status::Queued);
            self.queue.push_back(id);
        }
    }

    fn take_slot(&mut self, id: ExecutionId) -> bool {
        let free = self.nodes.iter_mut().enumerate().filter(|(_, node)| node.busy < node.slots);
        // The first of the freest: `max_by_key` would give the last, hence the reversed order.
        let Some((index, node)) = free.rev().max_by_key(|(_, node)| node.slots - node.busy) else { return false };
        let Some(execution) = self.executions.get_mut(&id) else { return false };
        node.busy += 1;
        execution.slot = Some(index);
        execution.node = index;
        let (node_id, name) = (node.id, node.name.clone());
        let (result, detail, now) = (execution.result, self.rng.guid(), self.now);
        self.results.change(result, now, |row| {
            let text = format!("Trying to start task. Sending task to slave-node {name}");
            row.node = Some((node_id, name));
            row.note(detail, text, now);
        });
        true
    }

    fn free_slot(&mut self, id: ExecutionId) {
        let slot = self.executions.get_mut(&id).and_then(|execution| execution.slot.take());
        if let Some(node) = slot.and_then(|slot| self.nodes.get_mut(slot)) {
            node.busy = node.busy.saturating_sub(1);
        }
        while let Some(next) = self.queue.front().copied() {
            if self.executions.contains_key(&next) && !self.take_slot(next) {
                return;
            }
            self.queue.pop_front();
            self.plan_step(next, START_DELAY);
        }
    }

    fn plan_step(&mut self, id: ExecutionId, pause: Moment) {
        if let Some(execution) = self.executions.get(&id) {
            let step = Timer::Step { execution: id, epoch: execution.epoch };
            self.timers.add(self.now.saturating_add(pause), step);
        }
    }

    fn run(&mut self, id: ExecutionId, distributes: bool) {
        self.change(id, Status::Started);
        let (detail, file, now) = (self.rng.guid(), self.rng.guid(), self.now);
        if let Some(execution) = self.executions.get(&id) {
            let has_log = self.tasks.get(execution.task).is_some_and(|task| task.plan.kind == TaskKind::Reload);
            self.results.change(execution.result, now, |row| {
                row.started = Some(now);
                if has_log {
                    row.file = Some(file);
                    row.note(detail, "Reference to scriptlog added".to_owned(), now);
                }
            });
        }
        if distributes {
            self.plan_step(id, DISTRIBUTE_STEP);
        } else {
            self.plan_ending(id);
        }
    }

    /// Draws how long the run takes and how it ends.
    fn plan_ending(&mut self, id: ExecutionId) {
        let Some(execution) = self.executions.get_mut(&id) else { return };
        let Some(task) = self.tasks.get_mut(execution.task) else { return };
        let outcome = task.plan.outcome.draw(task.turn, &mut self.rng);
        task.turn += 1;
        let limit = u64::from(task.plan.timeout_minutes) * 60_000;
        let duration = task.plan.duration.draw(&mut self.rng);
        execution.ending = if duration > limit { Ending::TimeLimit } else { Ending::Outcome(outcome) };
        self.plan_step(id, duration.min(limit));
    }

    /// The run is over.
    fn end(&mut self, id: ExecutionId) {
        let Some(execution) = self.executions.get_mut(&id) else { return };
        let ending = execution.ending;
        let distributes = execution.state == Some(Status::DistributionRunning);
        if distributes && !execution.exited && !matches!(ending, Ending::TimeLimit | Ending::Outcome(Outcome::Abort)) {
            execution.exited = true;
            self.report(id, DatagramKind::Distribute, 0);
            self.plan_step(id, DISTRIBUTE_STEP);
            return;
        }
        match ending {
            Ending::Outcome(Outcome::Success) => self.succeed(id),
            Ending::Outcome(Outcome::Fail) => self.fail(id),
            Ending::Outcome(Outcome::Abort) => self.abort(id, MANUAL),
            Ending::TimeLimit => self.abort(id, TIMEOUT),
        }
    }

    fn succeed(&mut self, id: ExecutionId) {
        // Of a distribute task only its own report is sent.
        if self.executions.get(&id).is_some_and(|execution| !execution.exited) {
            self.report(id, DatagramKind::Success, 0);
        }
        self.finish(id, Status::FinishedSuccess);
    }

    fn fail(&mut self, id: ExecutionId) {
        let Some(execution) = self.executions.get(&id) else { return };
        let most = self.tasks.get(execution.task).map_or(0, |task| task.plan.max_retries);
        if execution.retries >= most {
            if !execution.exited {
                let late = (LATEST_FAILURE_REPORT as f64 * self.rng.unit()) as Moment;
                self.report(id, DatagramKind::Failed, late);
            }
            self.finish(id, Status::FinishedFail);
            return;
        }
        self.close_result(id, Status::FinishedFail);
        self.free_slot(id);
        let index = self.executions.get(&id).map_or(usize::MAX, |execution| execution.task);
        let (result, result_id) = self.open_result(index, id);
        if let Some(execution) = self.executions.get_mut(&id) {
            (execution.result, execution.result_id) = (result, result_id);
            execution.retries += 1;
            execution.exited = false;
        }
        self.note_result(id, ChangeType::Add, &[]);
        self.change(id, Status::Retry);
        self.plan_step(id, RETRY_PAUSE);
    }

    fn retry(&mut self, id: ExecutionId) {
        self.change(id, Status::Triggered);
        self.place(id);
    }

    pub(super) fn abort(&mut self, id: ExecutionId, reason: u8) {
        let Some(execution) = self.executions.get_mut(&id) else { return };
        // A distribute task that has left its run can no longer be stopped: it ends as it would have.
        if execution.exited || matches!(execution.state, Some(Status::AbortInitiated | Status::Aborting)) {
            return;
        }
        execution.abort_at = Some(self.now);
        execution.abort_reason = reason;
        self.queue.retain(|waiting| *waiting != id);
        self.change(id, Status::AbortInitiated);
        self.plan_step(id, ABORT_STEP);
    }

    /// Ends an execution before its time.
    pub(super) fn end_now(&mut self, id: ExecutionId, outcome: Outcome) {
        if outcome == Outcome::Abort {
            return self.abort(id, MANUAL);
        }
        let Some(execution) = self.executions.get_mut(&id) else { return };
        if matches!(execution.state, Some(Status::AbortInitiated | Status::Aborting)) {
            return;
        }
        execution.ending = Ending::Outcome(outcome);
        // A forced failure is final.
        execution.retries = u32::MAX;
        self.queue.retain(|waiting| *waiting != id);
        self.end(id);
    }

    /// Ends an execution in a state it never reaches by itself: `Reset`, `Skipped`, `Error`. The scheduler sends nothing about it.
    pub(super) fn end_as(&mut self, id: ExecutionId, last: Status) {
        self.queue.retain(|waiting| *waiting != id);
        self.finish(id, last);
    }

    fn finish(&mut self, id: ExecutionId, last: Status) {
        self.close_result(id, last);
        self.free_slot(id);
        let Some(ended) = self.executions.remove(&id) else { return };
        if let Some(task) = self.tasks.get_mut(ended.task) {
            task.executions.retain(|running| *running != id);
        }
        self.note_session(id, ChangeType::Delete);
        match last {
            Status::FinishedSuccess => self.task_ended(ended.task, true, id),
            Status::FinishedFail => self.task_ended(ended.task, false, id),
            _ => {}
        }
    }

    /// An attempt is over: its row and its script log are complete.
    fn close_result(&mut self, id: ExecutionId, last: Status) {
        let (now, detail, calendar) = (self.now, self.rng.guid(), self.calendar);
        let found = self.executions.get(&id).and_then(|execution| Some((execution, self.tasks.get(execution.task)?)));
        if let Some((execution, task)) = found {
            self.results.change(execution.result, now, |row| {
                row.stopped = Some(now);
                row.status = last;
                if row.file.is_some() {
                    row.log_size = scriptlog::text(row, task, calendar).len();
                }
                if last == Status::FinishedFail {
                    row.note(detail, format!("Error: {}", task.plan.error), now);
                }
            });
        }
        self.change(id, last);
    }

    /// Enters a state: everywhere it shows.
    fn change(&mut self, id: ExecutionId, to: Status) {
        let Some(execution) = self.executions.get_mut(&id) else { return };
        let from = execution.state.replace(to);
        execution.epoch = execution.epoch.wrapping_add(1);
        execution.changed = self.now;
        let Some(task) = self.tasks.get_mut(execution.task) else { return };
        task.touch();
        let (detail, now) = (self.rng.guid(), self.now);
        self.results.change(execution.result, now, |row| {
            row.status = to;
            row.note(detail, transition_text(from, to), now);
        });
        let node = execution.slot.and_then(|slot| self.nodes.get(slot)).map(|node| node.name.clone());
        let change = Change {
            at: self.calendar.log(self.now),
            task_id: task.plan.id,
            task_name: task.plan.name.clone(),
            execution_id: id,
            from,
            to,
            node,
            user: execution.user.clone(),
        };
        self.push(Effect::Changed(Box::new(change)));
        self.note_result(id, ChangeType::Update, changed_by(to));
    }
}

fn transition_text(from: Option<Status>, to: Status) -> String {
    match from {
        None => format!("Changing task state to {}", to.name()),
        Some(from) => format!("Changing task state from {} to {}", from.name(), to.name()),
    }
}

/// What a step changes of a result, as subscribers are told.
fn changed_by(to: Status) -> &'static [&'static str] {
    match to {
        Status::Started => &["modifiedDate", "status", "startTime", "executingNodeName", "fileReferenceID"],
        Status::FinishedSuccess | Status::FinishedFail | Status::Aborted | Status::Reset => {
            &["modifiedDate", "status", "stopTime", "duration", "scriptLogAvailable"]
        }
        _ => &["modifiedDate", "status"],
    }
}
