//! Log lines that cannot flood: per subject one line in ten seconds, which says how many there would have been.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Time between two lines of one subject.
const PERIOD: Duration = Duration::from_secs(10);

/// Decides when a line about a subject is due. Bounded: subjects are words of the program, not of the network.
#[derive(Debug, Default)]
pub struct DropLog(HashMap<&'static str, (Instant, u64)>);

impl DropLog {
    /// Counts one; `Some(times)` when a line is due that stands for `times` of them.
    pub fn due(&mut self, subject: &'static str) -> Option<u64> {
        self.due_at(subject, Instant::now())
    }

    fn due_at(&mut self, subject: &'static str, now: Instant) -> Option<u64> {
        let Some((last, times)) = self.0.get_mut(subject) else {
            self.0.insert(subject, (now, 0));
            return Some(1);
        };
        *times += 1;
        if now.duration_since(*last) < PERIOD {
            return None;
        }
        *last = now;
        Some(std::mem::take(times))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_stands_for_many() {
        let (mut log, start) = (DropLog::default(), Instant::now());
        assert_eq!(log.due_at("a", start), Some(1));
        assert_eq!(log.due_at("a", start + Duration::from_secs(1)), None);
        assert_eq!(log.due_at("b", start + Duration::from_secs(1)), Some(1));
        assert_eq!(log.due_at("a", start + PERIOD), Some(2));
        assert_eq!(log.due_at("a", start + PERIOD), None);
    }
}
