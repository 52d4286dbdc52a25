//! The work on one start request: check the filter, find the tasks, start them, say what happened.
//!
//! Invariants: nothing is started before every target was looked up; a task that several targets lead to is started once and belongs to
//! the first of them; outcomes come in the order of the targets, a tag's tasks in QRS's order.

use std::{collections::HashSet, future::Future};

use tokio::task::JoinSet;

use super::{
    allow,
    request::{IdRule, StartOutcome, StartRequest, StartStatus, StartTarget},
};
use crate::{
    config::settings::StartTaskFilter,
    sense::qrs::{Qrs, QrsError, StartReply, model::Task},
};

/// Calls to QRS one request may have under way at a time.
const AT_ONCE: usize = 16;

/// What looking a target up led to.
enum Found {
    /// A task to start.
    Task(StartTarget, Task),
    /// The final word.
    Done(StartOutcome),
}

/// Carries requests out.
#[derive(Clone)]
pub(super) struct Work {
    qrs: Qrs,
    filter: StartTaskFilter,
}

impl Work {
    pub(super) fn new(qrs: Qrs, filter: StartTaskFilter) -> Self {
        Self { qrs, filter }
    }

    /// Carries a request out, from the filter to the last start.
    pub(super) async fn run(&self, request: StartRequest) -> Vec<StartOutcome> {
        let StartRequest { targets, id_rule, door, requested_by, .. } = request;
        let work = self.clone();
        let found = in_order(targets, move |target| work.clone().find(target)).await;
        let mut found: Vec<Found> =
            found.into_iter().flat_map(|list| list.unwrap_or_else(|| vec![Found::Done(lost())])).collect();
        hold_back(&mut found, id_rule);
        let qrs = self.qrs.clone();
        let outcomes = in_order(once_each(found), move |step| carry_out(qrs.clone(), step)).await;
        let outcomes: Vec<_> = outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(lost)).collect();
        outcomes.iter().for_each(|outcome| audit(outcome, door, &requested_by));
        outcomes
    }

    /// The tasks a target leads to, or its final word.
    async fn find(self, target: StartTarget) -> Vec<Found> {
        if let Some(denied) = allow::refusal(&self.filter, &target) {
            return vec![Found::Done(denied)];
        }
        let tasks = match &target {
            StartTarget::Id(id) => self.qrs.task(*id).await.map(|task| task.into_iter().collect()),
            StartTarget::Tag(tag) => self.qrs.tasks_with_tag(tag).await,
            StartTarget::CustomProperty { name, value } => self.qrs.tasks_with_property(name, value).await,
        };
        match tasks {
            Err(error) => vec![Found::Done(not_found_out(&error).of(&target))],
            Ok(tasks) if tasks.is_empty() => vec![Found::Done(unknown(&target).of(&target))],
            Ok(tasks) => tasks.into_iter().map(|task| Found::Task(target.clone(), task)).collect(),
        }
    }
}

/// Applies the rule for ids: turns the tasks that must not start into refusals.
fn hold_back(found: &mut [Found], rule: IdRule) {
    let missing = |step: &Found| match step {
        Found::Done(outcome) => {
            outcome.status != StartStatus::Denied && matches!(outcome.target, Some(StartTarget::Id(_)))
        }
        Found::Task(..) => false,
    };
    let hold = match rule {
        IdRule::EachOnItsOwn => false,
        IdRule::AllMustExist => found.iter().any(missing),
        IdRule::NoneStarts => true,
    };
    for step in found.iter_mut().filter(|_| hold) {
        if let Found::Task(target @ StartTarget::Id(_), task) = step {
            let why = "not all task ids of this request exist, and `allTaskIdsMustExist` was asked for; none of them was started";
            let mut held = StartOutcome::failed(StartStatus::Denied, "not_all_exist", why).of(target);
            held.task_name = Some(task.name.clone());
            *step = Found::Done(held);
        }
    }
}

/// Leaves every task to start in once, and every failed id. The two do not touch: an id may be denied and yet belong to a tag that is not.
fn once_each(found: Vec<Found>) -> Vec<Found> {
    let (mut tasks, mut failed) = (HashSet::new(), HashSet::new());
    let mut first = |step: &Found| match step {
        Found::Task(_, task) => tasks.insert(task.id),
        Found::Done(outcome) => outcome.task_id.is_none_or(|id| failed.insert(id)),
    };
    found.into_iter().filter(|step| first(step)).collect()
}

async fn carry_out(qrs: Qrs, step: Found) -> StartOutcome {
    let (target, task) = match step {
        Found::Task(target, task) => (target, task),
        Found::Done(outcome) => return outcome,
    };
    let mut outcome = match qrs.start(task.id).await {
        Ok(StartReply::Started(execution_id)) => StartOutcome {
            status: StartStatus::Started,
            task_id: None,
            task_name: None,
            execution_id,
            target: None,
            error: None,
        },
        Ok(StartReply::NotStarted) => StartOutcome::failed(
            StartStatus::NotStarted,
            "not_started",
            "QRS did not start the task: it may be disabled, its app missing, no scheduler free, or it runs already",
        ),
        Err(error) => not_started(&error),
    };
    outcome = outcome.of(&target);
    (outcome.task_id, outcome.task_name) = (Some(task.id), Some(task.name));
    outcome
}

/// The outcome when the task could not be looked up: nothing was started.
fn not_found_out(error: &QrsError) -> StartOutcome {
    let (status, code) = match error {
        QrsError::Filter(_) => (StartStatus::Invalid, "bad_name"),
        QrsError::Status { .. } => (StartStatus::Unreachable, "qrs_refused"),
        _ => (StartStatus::Unreachable, "qrs_unreachable"),
    };
    StartOutcome::failed(status, code, format!("nothing was started: {error}"))
}

/// The outcome when the start itself failed.
fn not_started(error: &QrsError) -> StartOutcome {
    if error.may_have_arrived() {
        let why = format!("whether the task started is not known: {error}. Look in the QMC before starting it again");
        return StartOutcome::failed(StartStatus::Unknown, "undecided", why);
    }
    let (status, code) = match error {
        QrsError::Status { status: 404, .. } => (StartStatus::UnknownTask, "qrs_refused"),
        QrsError::Status { status: 401 | 403, .. } => (StartStatus::Unreachable, "qrs_refused"),
        QrsError::Status { .. } => (StartStatus::NotStarted, "qrs_refused"),
        _ => (StartStatus::Unreachable, "qrs_unreachable"),
    };
    StartOutcome::failed(status, code, format!("the task was not started: {error}"))
}

fn unknown(target: &StartTarget) -> StartOutcome {
    let (code, message) = match target {
        StartTarget::Id(id) => {
            ("unknown_task", format!("Qlik Sense has no task {id}, or hides it from the user of `configQRS`"))
        }
        StartTarget::Tag(tag) => ("no_match", format!("no task has the tag `{tag}` (upper and lower case count)")),
        StartTarget::CustomProperty { name, value } => (
            "no_match",
            format!("no task has the value `{value}` of the custom property `{name}` (upper and lower case count)"),
        ),
    };
    StartOutcome::failed(StartStatus::UnknownTask, code, message)
}

/// The outcome of a step that panicked.
fn lost() -> StartOutcome {
    let why = "the work on this task ended without a result; look in the QMC whether it runs before starting it again";
    StartOutcome::failed(StartStatus::Unknown, "interrupted", why)
}

/// One line per task and request: who started what by which door.
fn audit(outcome: &StartOutcome, door: &str, requested_by: &str) {
    let task = outcome.task_id.map(|id| id.to_string()).unwrap_or_default();
    let (name, status) = (outcome.task_name.as_deref().unwrap_or_default(), outcome.status.as_str());
    let why = outcome.error.as_ref().map(|error| error.message.as_str()).unwrap_or_default();
    tracing::info!(door, requested_by, task, name, status, why, "start request");
}

/// Runs `step` on every item, [`AT_ONCE`] at a time; results in the order of the items, `None` for one that panicked.
async fn in_order<I, T, F>(items: Vec<I>, step: impl Fn(I) -> F) -> Vec<Option<T>>
where
    F: Future<Output = T> + Send + 'static,
    T: Send + 'static,
{
    let mut results: Vec<Option<T>> = Vec::new();
    results.resize_with(items.len(), || None);
    let mut running = JoinSet::new();
    let mut items = items.into_iter().enumerate();
    loop {
        let next = if running.len() < AT_ONCE { items.next() } else { None };
        if let Some((index, item)) = next {
            let work = step(item);
            running.spawn(async move { (index, work.await) });
            continue;
        }
        match running.join_next().await {
            None => return results,
            Some(Ok((index, result))) => {
                if let Some(slot) = results.get_mut(index) {
                    *slot = Some(result);
                }
            }
            Some(Err(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::TaskId;

    #[tokio::test]
    async fn results_keep_the_order_of_the_items_and_a_panic_costs_only_its_own() {
        let slow_first = |number: u64| async move {
            assert_ne!(number, 3, "this one panics");
            for _ in 0..(100 - number) {
                tokio::task::yield_now().await;
            }
            number
        };
        let results = in_order((0..100).collect(), slow_first).await;
        let expected: Vec<_> = (0..100).map(|number| (number != 3).then_some(number)).collect();
        assert_eq!(results, expected);
        assert!(in_order(Vec::new(), slow_first).await.is_empty());
    }

    #[test]
    fn ids_are_held_back_as_the_rule_says() {
        let id = |number: u128| TaskId::from_u128(number);
        let task = |number| Task { id: id(number), name: "t".into() };
        let ok = |number| Found::Task(StartTarget::Id(id(number)), task(number));
        let tagged = |number| Found::Task(StartTarget::Tag("a".into()), task(number));
        let failed =
            |status, number| Found::Done(StartOutcome::failed(status, "x", "").of(&StartTarget::Id(id(number))));
        let started = |mut found: Vec<Found>, rule| {
            hold_back(&mut found, rule);
            found.iter().filter(|step| matches!(step, Found::Task(..))).count()
        };
        let missing = || vec![ok(1), failed(StartStatus::UnknownTask, 2), tagged(3)];
        assert_eq!(started(missing(), IdRule::EachOnItsOwn), 2);
        assert_eq!(started(missing(), IdRule::AllMustExist), 1);
        assert_eq!(started(missing(), IdRule::NoneStarts), 1);
        assert_eq!(started(vec![ok(1), failed(StartStatus::Denied, 2)], IdRule::AllMustExist), 1);
    }

    #[test]
    fn a_task_is_left_in_once() {
        let task = Task { id: TaskId::from_u128(1), name: "t".into() };
        let found = vec![
            Found::Task(StartTarget::Id(task.id), task.clone()),
            Found::Task(StartTarget::Tag("a".into()), task.clone()),
            Found::Done(StartOutcome::failed(StartStatus::Denied, "task_filter", "").of(&StartTarget::Id(task.id))),
            Found::Done(
                StartOutcome::failed(StartStatus::UnknownTask, "no_match", "").of(&StartTarget::Tag("b".into())),
            ),
            Found::Done(
                StartOutcome::failed(StartStatus::UnknownTask, "no_match", "").of(&StartTarget::Tag("c".into())),
            ),
        ];
        let left = once_each(found);
        assert_eq!(left.len(), 4);
        assert!(matches!(left.first(), Some(Found::Task(StartTarget::Id(_), _))));
    }
}
