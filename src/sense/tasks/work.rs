//! The work on one start request: check the filter, find the tasks, start them, follow them, say what happened.
//!
//! Invariants: nothing is started before every target was looked up; a task that several targets lead to is started once and belongs to
//! the first of them; last words are numbered in the order of the targets, a tag's tasks in QRS's order; the call that starts a task is
//! written down before it is made, what became of it before it is told, and it is never repeated.

use std::{collections::HashMap, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::task::JoinSet;
use tokio_util::task::{AbortOnDropHandle, TaskTracker, task_tracker::TaskTrackerToken};

use super::{
    audit::Audit,
    end::verdict,
    follow::{Execution, Follower},
    found::{Found, hold_back, in_order, once_each},
    journal::{Journal, Record, RequestId, Step},
    lines::Lines,
    request::{StartOutcome, StartRequest, StartStatus, StartTarget, Wait},
    rules::Rules,
    settle::{self, Before, Patience},
    story::{Teller, Word, lost},
    wall_ms,
    words::{accepted_for, audit, may_pass, not_found_out, started, too_late, undecided, unfollowed, unknown},
};
use crate::{
    names::TaskId,
    sense::qrs::{Qrs, model::Task},
};

/// Shortest and longest pause before a QRS that cannot be reached is asked again.
pub(super) const PAUSES: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));

/// What all targets of a request lead to, being looked up; given up when nobody waits for it any more.
pub(super) struct Looked {
    found: AbortOnDropHandle<Vec<Found>>,
    /// A stop of the program waits for what comes of it; `None`: it stops already.
    call: Option<TaskTrackerToken>,
}

/// A request on its way.
pub(super) struct Order {
    pub id: RequestId,
    pub request: StartRequest,
    /// Milliseconds since 1970.
    pub deadline: u64,
    /// What an earlier life of the program did of it.
    pub steps: HashMap<TaskId, Step>,
    pub teller: Teller,
    /// How it comes to the disk.
    pub record: Record,
    /// An earlier life of the program began it.
    pub resumed: bool,
    pub audit: Audit,
}

impl Order {
    /// Pauses before the next try; false: it would be too late then.
    pub(super) async fn pause(&self, pause: &mut Duration) -> bool {
        let left = self.deadline.saturating_sub(wall_ms());
        if left == 0 {
            return false;
        }
        tokio::time::sleep((*pause).min(Duration::from_millis(left))).await;
        *pause = (*pause * 2).min(PAUSES.1);
        true
    }

    fn say(&self, place: usize, last: bool, outcome: StartOutcome) {
        if last {
            audit(&outcome, &self.request);
        }
        self.audit.word(self.id.number(), &self.request, last, &outcome);
        self.teller.say(Word { place, last, outcome });
    }

    /// It was interrupted, and by now it is too late for it.
    pub(super) fn is_late(&self) -> bool {
        self.resumed && wall_ms() >= self.deadline
    }

    pub(super) fn waits(&self) -> bool {
        self.request.patience > Duration::ZERO
    }
}

/// Carries requests out.
#[derive(Clone)]
pub(super) struct Work {
    pub qrs: Qrs,
    /// Those of the moment.
    pub rules: Arc<ArcSwap<Rules>>,
    pub follower: Follower,
    pub journal: Arc<Journal>,
    pub lines: Arc<Lines>,
    pub patience: Patience,
    /// What a stop waits for: calls under way.
    pub calls: TaskTracker,
    pub audit: Audit,
}

impl Work {
    /// Carries a request out, from the filter to the last word on its last task.
    pub(super) async fn run(&self, order: Arc<Order>, looked: Looked) {
        let (mut found, call) = self.find_all(&order, looked).await;
        hold_back(&mut found, order.request.id_rule);
        let (mut running, mut places) = (JoinSet::new(), HashMap::new());
        for (place, step) in once_each(found).into_iter().enumerate() {
            match step {
                Found::Done(outcome) => order.say(place, true, outcome),
                Found::Later(target, error) => order.say(place, true, too_late(order.waits(), &target, &error)),
                Found::Task(target, task) => {
                    let (work, order, call) = (self.clone(), Arc::clone(&order), call.clone());
                    let handle = running.spawn(async move { work.carry_out(&order, place, target, task, call).await });
                    places.insert(handle.id(), place);
                }
            }
        }
        drop(call);
        while let Some(ended) = running.join_next().await {
            if let Err(error) = ended {
                // It panicked; nobody cancels it.
                let place = places.get(&error.id()).copied().unwrap_or_default();
                order.say(place, true, lost());
            }
        }
    }

    /// Looks every target up, once.
    pub(super) fn look(&self, order: &Order) -> Looked {
        let rules = self.rules.load();
        let wish = |target: &StartTarget| (target.clone(), rules.refusal(&order.request.asker, target));
        let (work, wishes) = (self.clone(), order.request.targets.iter().map(wish).collect());
        let call = (!self.calls.is_closed()).then(|| self.calls.token());
        let found = AbortOnDropHandle::new(tokio::spawn(async move {
            let found = in_order(wishes, move |wish| work.clone().find(wish)).await;
            found.into_iter().flat_map(|list| list.unwrap_or_else(|| vec![Found::Done(lost())])).collect()
        }));
        Looked { found, call }
    }

    /// What every target leads to; while QRS cannot be asked, until the deadline.
    async fn find_all(&self, order: &Order, mut looked: Looked) -> (Vec<Found>, TaskTrackerToken) {
        let (mut pause, mut accepted) = (PAUSES.0, false);
        loop {
            let call = match looked.call.take() {
                Some(call) => call,
                None => self.call().await,
            };
            // Nobody aborts it while it is waited for, and panics were caught in it.
            let found: Vec<Found> = looked.found.await.unwrap_or_else(|_| vec![Found::Done(lost())]);
            let later = found.iter().enumerate().filter_map(|(place, step)| match step {
                Found::Later(target, error) => Some((place, accepted_for(target, error))),
                _ => None,
            });
            let later: Vec<_> = later.collect();
            if later.is_empty() || !order.waits() {
                return (found, call);
            }
            if !std::mem::replace(&mut accepted, true) {
                later.into_iter().for_each(|(place, outcome)| order.say(place, false, outcome));
            }
            drop(call);
            if !order.pause(&mut pause).await {
                return (found, self.call().await);
            }
            looked = self.look(order);
        }
    }

    /// The tasks a target leads to, or its final word; `denied`: the refusal it got already.
    async fn find(self, (target, denied): (StartTarget, Option<StartOutcome>)) -> Vec<Found> {
        if let Some(denied) = denied {
            return vec![Found::Done(denied)];
        }
        let tasks = match &target {
            StartTarget::Id(id) => self.qrs.task(*id).await.map(|task| task.into_iter().collect()),
            StartTarget::Tag(tag) => self.qrs.tasks_with_tag(tag).await,
            StartTarget::CustomProperty { name, value } => self.qrs.tasks_with_property(name, value).await,
        };
        match tasks {
            Err(error) if may_pass(&error) => vec![Found::Later(target, error)],
            Err(error) => vec![Found::Done(not_found_out(&error).of(&target))],
            Ok(tasks) if tasks.is_empty() => vec![Found::Done(unknown(&target).of(&target))],
            Ok(tasks) => tasks.into_iter().map(|task| Found::Task(target.clone(), task)).collect(),
        }
    }

    /// One task, to its last word.
    async fn carry_out(&self, order: &Order, place: usize, target: StartTarget, task: Task, call: TaskTrackerToken) {
        let named = |outcome: StartOutcome| {
            let mut outcome = outcome.of(&target);
            (outcome.task_id, outcome.task_name) = (Some(task.id), Some(task.name.clone()));
            outcome
        };
        let (outcome, call) = match order.steps.get(&task.id) {
            Some(Step::Done(outcome)) => (outcome.clone(), call),
            Some(Step::Calling { before, .. }) => {
                let line = self.lines.of(task.id);
                let _alone = line.lock().await;
                let why = "the program was interrupted while it asked for the start";
                (self.settled(order, task.id, before, why, &named).await, call)
            }
            None => {
                let mut said = false;
                let mut accepted = |outcome: StartOutcome| {
                    if !std::mem::replace(&mut said, true) {
                        order.say(place, false, named(outcome));
                    }
                };
                let (outcome, call) = self.start(order, &task, call, &mut accepted).await;
                (self.noted(order, task.id, named(outcome)).await, call)
            }
        };
        self.finish(order, place, outcome, call).await;
    }

    /// Writes down what became of a task; what cannot be written is told all the same.
    async fn noted(&self, order: &Order, task: TaskId, outcome: StartOutcome) -> StartOutcome {
        if let Err(error) = self.journal.step(&order.record, task, &Step::Done(outcome.clone())).await {
            tracing::error!(
                code = "start_not_written",
                %error,
                %task,
                "what became of a start could not be written down; check the disk with the data directory"
            );
        }
        outcome
    }

    /// What became of a call that nobody answered.
    async fn settled(
        &self,
        order: &Order,
        task: TaskId,
        before: &Before,
        why: &str,
        named: &impl Fn(StartOutcome) -> StartOutcome,
    ) -> StartOutcome {
        let outcome = match settle::find_out(&self.qrs, task, before, self.patience).await {
            Some(execution) => started(Some(execution)),
            None => undecided(why),
        };
        self.noted(order, task, named(outcome)).await
    }

    /// The last word on a task that was started, or not.
    async fn finish(&self, order: &Order, place: usize, outcome: StartOutcome, call: TaskTrackerToken) {
        let (StartStatus::Started, Some(task)) = (outcome.status, outcome.task_id) else {
            return order.say(place, true, outcome);
        };
        let wait = order.request.wait == Wait::Finished;
        let Some(id) = outcome.execution_id else {
            let unfollowed = wait.then(|| unfollowed("QRS told no execution id", &outcome));
            return order.say(place, true, unfollowed.unwrap_or(outcome));
        };
        let execution = Execution {
            id,
            task,
            task_name: outcome.task_name.clone(),
            started_by: Some((order.request.door, order.request.requested_by.clone())),
            status: None,
            end: None,
            over: false,
        };
        let followed = self.follower.follow(execution);
        if !wait {
            return order.say(place, true, outcome);
        }
        order.say(place, false, outcome.clone());
        // It is followed on when the program is up again.
        drop(call);
        let Some(mut followed) = followed else {
            return order.say(place, true, unfollowed("too many executions are followed already", &outcome));
        };
        let over = followed.wait_for(|execution| execution.over).await.map(|execution| execution.clone());
        let last = match over {
            Ok(Execution { status: Some(status), end: Some(end), .. }) => {
                StartOutcome { status: verdict(status), end: Some(Box::new(end)), ..outcome }
            }
            _ => unfollowed("Qlik Sense has no trace of it any more", &outcome),
        };
        let last = self.noted(order, task, last).await;
        order.say(place, true, last);
    }
}
