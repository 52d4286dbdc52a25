//! What the targets of a request lead to, before anything is started: tasks, last words, or nobody to ask.
//!
//! Invariants: of tasks that several targets lead to one is left, that of the first; what the rule for ids holds back is refused, never
//! forgotten; the order of the targets is kept.

use std::collections::HashSet;

use tokio::task::JoinSet;

use super::request::{IdRule, StartOutcome, StartStatus, StartTarget};
use crate::sense::qrs::{QrsError, model::Task};

/// Calls to QRS one request may have under way at a time.
const AT_ONCE: usize = 16;

/// What looking a target up led to.
pub(super) enum Found {
    /// A task to start.
    Task(StartTarget, Task),
    /// The final word.
    Done(StartOutcome),
    /// Nobody could be asked.
    Later(StartTarget, QrsError),
}

/// Applies the rule for ids: turns the tasks that must not start into refusals.
pub(super) fn hold_back(found: &mut [Found], rule: IdRule) {
    let missing = |step: &Found| match step {
        Found::Done(outcome) => {
            outcome.status != StartStatus::Denied && matches!(outcome.target, Some(StartTarget::Id(_)))
        }
        Found::Later(StartTarget::Id(_), _) => true,
        Found::Task(..) | Found::Later(..) => false,
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
pub(super) fn once_each(found: Vec<Found>) -> Vec<Found> {
    let (mut tasks, mut failed) = (HashSet::new(), HashSet::new());
    let mut first = |step: &Found| match step {
        Found::Task(_, task) => tasks.insert(task.id),
        Found::Done(outcome) => outcome.task_id.is_none_or(|id| failed.insert(id)),
        Found::Later(StartTarget::Id(id), _) => failed.insert(*id),
        Found::Later(..) => true,
    };
    found.into_iter().filter(|step| first(step)).collect()
}

/// Runs `step` on every item, [`AT_ONCE`] at a time; results in the order of the items, `None` for one that panicked.
pub(super) async fn in_order<I, T, F>(items: Vec<I>, step: impl Fn(I) -> F) -> Vec<Option<T>>
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
