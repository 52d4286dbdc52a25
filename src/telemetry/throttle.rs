//! Rate-limited log lines: a peer that misbehaves a thousand times a second gets one line per interval, with the count of the others.
//!
//! One [`Throttle`] per call site, as a `static` or a field; [`Throttles`] where one call site speaks of several subjects. Invariants: never
//! blocks; every suppressed line is counted and named by the next line that passes, or, when none follows, by the log itself when the interval is over: a
//! throttle that let a line pass leaves word for the line that is then written on the same thread (`passed`; `fold.rs`).
//!
//! ```
//! use std::time::Duration;
//! use sense_butler::telemetry::throttle::Throttle;
//!
//! static UNREADABLE: Throttle = Throttle::every(Duration::from_secs(10));
//! if let Some(suppressed) = UNREADABLE.pass() {
//!     tracing::warn!(suppressed, "datagram dropped: it is not UTF-8");
//! }
//! ```

use std::{
    cell::RefCell,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::fold::Rest;

thread_local! {
    /// What the throttle keeps back that was passed last on this thread.
    static PASSED: RefCell<Option<Rest>> = const { RefCell::new(None) };
}

/// What the throttle keeps back that was passed last on this thread; asked once, by the line that was let through.
pub(super) fn passed() -> Option<Rest> {
    PASSED.try_with(RefCell::take).ok().flatten()
}

/// Lets at most one line per interval pass.
#[derive(Debug)]
pub struct Throttle {
    interval_ms: u64,
    /// Milliseconds since the first use of any throttle at which the next line may pass; 0: at once.
    next_ms: AtomicU64,
    /// Shared with the log.
    suppressed: OnceLock<Arc<AtomicU64>>,
}

impl Throttle {
    /// A throttle that lets one line pass per `interval` (rounded down to milliseconds). Usable in a `static`.
    pub const fn every(interval: Duration) -> Self {
        Self { interval_ms: interval.as_millis() as u64, next_ms: AtomicU64::new(0), suppressed: OnceLock::new() }
    }

    /// Asks whether a line may be written now: `Some(n)` with the number of lines suppressed since the last one, or `None`.
    pub fn pass(&self) -> Option<u64> {
        static START: OnceLock<Instant> = OnceLock::new();
        let now = START.get_or_init(Instant::now).elapsed().as_millis();
        self.pass_at(u64::try_from(now).unwrap_or(u64::MAX))
    }

    fn pass_at(&self, now_ms: u64) -> Option<u64> {
        let next = self.next_ms.load(Ordering::Relaxed);
        let due = now_ms >= next;
        // Of several threads that find it due, the one that moves the mark writes the line.
        let then = now_ms.saturating_add(self.interval_ms);
        if due && self.next_ms.compare_exchange(next, then, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            let rest = Rest { left: Arc::clone(self.suppressed()), interval: Duration::from_millis(self.interval_ms) };
            // It fails on a thread that ends; then the next line tells.
            let _ = PASSED.try_with(|passed| passed.replace(Some(rest)));
            return Some(self.suppressed().swap(0, Ordering::Relaxed));
        }
        self.suppressed().fetch_add(1, Ordering::Relaxed);
        None
    }

    fn suppressed(&self) -> &Arc<AtomicU64> {
        self.suppressed.get_or_init(Arc::default)
    }
}

/// A throttle for each of a few subjects, e.g. reasons to drop something: words of the program, not of the network, so the list stays short.
#[derive(Debug)]
pub struct Throttles {
    interval: Duration,
    subjects: Vec<(&'static str, Throttle)>,
}

impl Throttles {
    /// Lets one line per subject and `interval` pass.
    pub const fn every(interval: Duration) -> Self {
        Self { interval, subjects: Vec::new() }
    }

    /// As [`Throttle::pass`], for one subject.
    pub fn pass(&mut self, subject: &'static str) -> Option<u64> {
        match self.subjects.iter().find(|(known, _)| *known == subject) {
            Some((_, throttle)) => throttle.pass(),
            None => {
                let throttle = Throttle::every(self.interval);
                let passed = throttle.pass();
                self.subjects.push((subject, throttle));
                passed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subjects_do_not_silence_each_other() {
        let mut throttles = Throttles::every(Duration::from_secs(3_600));
        assert_eq!(throttles.pass("a"), Some(0));
        assert_eq!(throttles.pass("a"), None);
        assert_eq!(throttles.pass("b"), Some(0));
        assert_eq!(throttles.pass("a"), None);
    }

    #[test]
    fn one_line_per_interval_and_the_rest_is_counted() {
        let throttle = Throttle::every(Duration::from_secs(10));
        assert_eq!(throttle.pass_at(5), Some(0), "the first line passes");
        assert_eq!(throttle.pass_at(5), None);
        assert_eq!(throttle.pass_at(10_004), None);
        assert_eq!(throttle.pass_at(10_005), Some(2));
        assert_eq!(throttle.pass_at(90_000), Some(0));
    }

    #[test]
    fn of_many_threads_one_writes_and_nothing_is_lost_from_the_count() {
        let throttle = Throttle::every(Duration::from_secs(3_600));
        let passed: usize = std::thread::scope(|scope| {
            let workers: Vec<_> =
                (0..4).map(|_| scope.spawn(|| (0..1_000).filter(|_| throttle.pass_at(1).is_some()).count())).collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).sum()
        });
        assert_eq!(passed, 1);
        assert_eq!(throttle.suppressed().load(Ordering::Relaxed), 3_999);
    }

    #[test]
    fn a_line_that_passed_can_be_told_of_what_follows_it() {
        let throttle = Throttle::every(Duration::from_secs(3_600));
        drop(passed());
        assert_eq!(throttle.pass_at(1), Some(0));
        let rest = passed().unwrap();
        assert!(passed().is_none(), "asked once");
        assert_eq!((throttle.pass_at(1), throttle.pass_at(1)), (None, None));
        assert!(passed().is_none(), "nothing passed");
        assert_eq!((rest.left.load(Ordering::Relaxed), rest.interval), (2, Duration::from_secs(3_600)));
    }
}
