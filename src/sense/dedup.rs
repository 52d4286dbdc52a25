//! De-duplication of task events by (type, task id, execution id): the same end of the same execution is told once.
//!
//! Not by execution id alone: an execution that is aborted may be told as failed, too, and both are news. An event without a task id or an
//! execution id (absent, empty, `(null)`, the zero GUID) is never a duplicate. Invariant: memory is bounded; when full, the oldest entry
//! is forgotten first.

use std::{
    collections::{HashSet, VecDeque},
    time::{Duration, Instant},
};

use super::event::{TaskEvent, TaskEventKind};
use crate::names::{ExecutionId, TaskId};

/// Entries kept at most; about 10 MB.
const MAX_ENTRIES: usize = 100_000;

type Key = (TaskEventKind, TaskId, ExecutionId);

/// The memory of what was told.
#[derive(Debug)]
pub struct Deduplicator {
    ttl: Duration,
    seen: HashSet<Key>,
    /// In order of arrival, so the oldest stands in front.
    order: VecDeque<(Instant, Key)>,
    max_entries: usize,
}

impl Deduplicator {
    /// `ttl`: how long an event is remembered.
    pub fn new(ttl: Duration) -> Self {
        Self { ttl, seen: HashSet::new(), order: VecDeque::new(), max_entries: MAX_ENTRIES }
    }

    /// Whether this event was told within the last `ttl`; remembers it if not. A duplicate does not prolong the memory.
    pub fn is_duplicate(&mut self, event: &TaskEvent, now: Instant) -> bool {
        let Some(key) = key(event) else { return false };
        self.forget(now);
        if !self.seen.insert(key) {
            return true;
        }
        self.order.push_back((now, key));
        false
    }

    fn forget(&mut self, now: Instant) {
        while let Some((since, key)) = self.order.front().copied() {
            if self.order.len() < self.max_entries && now.duration_since(since) < self.ttl {
                break;
            }
            self.order.pop_front();
            self.seen.remove(&key);
        }
    }
}

fn key(event: &TaskEvent) -> Option<Key> {
    let execution = event.execution_id().filter(|id| !id.is_zero())?;
    Some((event.kind, event.task_id()?, execution))
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{config::settings::Generation, sense::datagram::parse_task};

    fn event(word: &str, task: &str, execution: &str) -> TaskEvent {
        let text = format!("/{word}/;h;t;a;u;{task};;2026-05-04 10:00:01,234;INFO;{execution};m");
        parse_task(text.as_bytes(), Generation::V5_4, SystemTime::now()).unwrap()
    }

    const TASK: &str = "0000aaaa-0000-4000-8000-000000000001";
    const EXECUTION: &str = "ec000000-0000-4000-8000-000000000001";

    #[test]
    fn type_task_and_execution_make_the_key() {
        let mut dedup = Deduplicator::new(Duration::from_secs(600));
        let now = Instant::now();
        assert!(!dedup.is_duplicate(&event("scheduler-task-failed", TASK, EXECUTION), now));
        assert!(dedup.is_duplicate(&event("scheduler-reload-failed", &TASK.to_uppercase(), EXECUTION), now));
        assert!(!dedup.is_duplicate(&event("scheduler-task-aborted", TASK, EXECUTION), now));
        assert!(
            !dedup
                .is_duplicate(&event("scheduler-task-failed", "0000aaab-0000-4000-8000-000000000001", EXECUTION), now)
        );
    }

    #[test]
    fn without_ids_nothing_is_a_duplicate() {
        let mut dedup = Deduplicator::new(Duration::from_secs(600));
        for (task, execution) in [
            (TASK, ""),
            (TASK, "(null)"),
            (TASK, " x1"),
            (TASK, "00000000-0000-0000-0000-000000000000"),
            ("", EXECUTION),
        ] {
            for _ in 0..2 {
                assert!(!dedup.is_duplicate(&event("scheduler-task-failed", task, execution), Instant::now()));
            }
        }
    }

    #[test]
    fn memory_ends_with_time_and_is_bounded() {
        let ttl = Duration::from_secs(600);
        let mut dedup = Deduplicator { max_entries: 2, ..Deduplicator::new(ttl) };
        let start = Instant::now();
        let first = event("scheduler-task-failed", TASK, EXECUTION);
        assert!(!dedup.is_duplicate(&first, start));
        assert!(dedup.is_duplicate(&first, start + ttl - Duration::from_secs(1)));
        assert!(!dedup.is_duplicate(&first, start + ttl));
        for last in 2..10 {
            let other = event("scheduler-task-failed", TASK, &format!("ec000000-0000-4000-8000-00000000000{last}"));
            assert!(!dedup.is_duplicate(&other, start + ttl));
            assert!(dedup.order.len() <= 2 && dedup.seen.len() == dedup.order.len());
        }
        assert!(!dedup.is_duplicate(&first, start + ttl));
    }
}
