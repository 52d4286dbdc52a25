//! One after the other: requests for the same task, and the one that waits for its end.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Weak},
};

use parking_lot::Mutex;
use tokio::sync::Mutex as Line;

use crate::names::TaskId;

/// Tasks whose line is thrown away when nobody stands in it are looked for when there are so many.
const SWEEP: usize = 1_024;

/// The lines before tasks.
#[derive(Debug, Default)]
pub(super) struct Lines {
    lines: Mutex<HashMap<TaskId, Weak<Line<()>>>>,
    waiting: Arc<Mutex<HashSet<TaskId>>>,
}

/// The place of the one request that waits for a task's end.
#[derive(Debug)]
pub(super) struct Waiting {
    task: TaskId,
    waiting: Arc<Mutex<HashSet<TaskId>>>,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.waiting.lock().remove(&self.task);
    }
}

impl Lines {
    /// The line before a task: who has its lock decides about the task.
    pub(super) fn of(&self, task: TaskId) -> Arc<Line<()>> {
        let mut lines = self.lines.lock();
        if let Some(line) = lines.get(&task).and_then(Weak::upgrade) {
            return line;
        }
        if lines.len() >= SWEEP {
            lines.retain(|_, line| line.strong_count() > 0);
        }
        let line = Arc::default();
        lines.insert(task, Arc::downgrade(&line));
        line
    }

    /// The place of who waits for a task's end; `None`: it is taken.
    pub(super) fn wait(&self, task: TaskId) -> Option<Waiting> {
        let free = self.waiting.lock().insert(task);
        free.then(|| Waiting { task, waiting: Arc::clone(&self.waiting) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_waits_at_a_time_and_lines_of_nobody_go() {
        let lines = Lines::default();
        let place = lines.wait(TaskId::ZERO).unwrap();
        assert!(lines.wait(TaskId::ZERO).is_none());
        drop(place);
        assert!(lines.wait(TaskId::ZERO).is_some());
        let kept = lines.of(TaskId::ZERO);
        assert!(Arc::ptr_eq(&kept, &lines.of(TaskId::ZERO)));
        (1..=2 * SWEEP as u128).for_each(|number| drop(lines.of(TaskId::from_u128(number))));
        assert!(lines.lines.lock().len() <= SWEEP);
        assert!(Arc::ptr_eq(&kept, &lines.of(TaskId::ZERO)));
    }
}
