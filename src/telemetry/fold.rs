//! Folds identical lines of the log: the same again within ten seconds is counted, and told by one line at the end of that time.
//!
//! Two kinds meet here: lines that are word for word the same, and lines a [`Throttle`](super::throttle::Throttle) kept back, of which otherwise nobody
//! hears when nothing follows them. Invariants: every line that is not written is in a number that is; a table that is full writes lines instead of losing
//! them; who logs waits for no disk and no timer; lines for debugging are never folded, and a few of plain information neither: somebody may be looking on.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex, MutexGuard};
use tracing::Level;

/// How long the same again is counted.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines that are known at a time; of those that are mere information, half as many.
const ROOM: usize = 256;
/// How often the same information is written before it is folded.
const INFORMED: u64 = 5;
/// Longest beginning of a line that is kept to tell what was folded, characters.
const BEGINNING: usize = 300;

/// What a throttle keeps back after a line it let pass.
#[derive(Debug, Clone)]
pub(super) struct Rest {
    /// Counts on; whoever tells the number sets it to zero.
    pub(super) left: Arc<AtomicU64>,
    /// When the throttle lets the next line pass, from now.
    pub(super) interval: Duration,
}

/// A line about to be written.
#[derive(Debug)]
pub(super) struct Line<'a> {
    pub(super) level: Level,
    pub(super) target: &'static str,
    pub(super) message: &'a str,
    pub(super) values: &'a str,
    pub(super) code: Option<&'a str>,
    /// Lines it speaks for itself.
    pub(super) suppressed: u64,
    /// Of the throttle that let it pass.
    pub(super) rest: Option<Rest>,
}

/// Lines that were not written.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Folded {
    pub(super) level: Level,
    pub(super) target: &'static str,
    pub(super) code: Option<String>,
    /// How many, what, for how long.
    pub(super) message: String,
}

#[derive(Debug)]
struct Known {
    level: Level,
    target: &'static str,
    beginning: String,
    code: Option<String>,
    first: Instant,
    due: Instant,
    written: u64,
    more: u64,
    rest: Option<Rest>,
}

#[derive(Debug, Default)]
struct Table {
    lines: HashMap<u64, Known>,
    closed: bool,
}

/// The table of lines written lately.
#[derive(Debug)]
pub(super) struct Fold {
    window: Duration,
    /// Keyed at random: nobody can make two lines look the same.
    hasher: RandomState,
    table: Mutex<Table>,
    changed: Condvar,
}

impl Default for Fold {
    fn default() -> Self {
        Self::within(WINDOW)
    }
}

impl Fold {
    fn within(window: Duration) -> Self {
        Self { window, hasher: RandomState::new(), table: Mutex::default(), changed: Condvar::new() }
    }

    /// Whether to write a line, and what is to be told before it.
    pub(super) fn judge(&self, line: &Line<'_>, now: Instant) -> (bool, Option<Folded>) {
        let Some((room, free)) = bounds(line.level) else { return (true, None) };
        let sum = self.hasher.hash_one((line.level.as_str(), line.target, line.message, line.values));
        let mut table = self.table.lock();
        if table.closed {
            return (true, None);
        }
        if let Some(known) = table.lines.get_mut(&sum).filter(|known| now < known.due) {
            let write = known.written < free;
            if write {
                known.written += 1;
            } else {
                known.more += 1 + line.suppressed;
            }
            return (write, None);
        }
        let before = table.lines.remove(&sum).and_then(|known| known.tell(now));
        if table.lines.len() < room {
            table.lines.insert(sum, Known::new(line, now, self.window));
            self.changed.notify_one();
        }
        (true, before)
    }

    /// Tells of folded lines when their time is over, until [`Self::close`]; then of all that are left.
    pub(super) fn attend(&self, tell: impl Fn(&Folded)) {
        let mut open = true;
        while open {
            let mut table = self.table.lock();
            open = self.wait(&mut table);
            let now = Instant::now();
            let over: Vec<Known> =
                table.lines.extract_if(|_, known| !open || known.due <= now).map(|(_, known)| known).collect();
            drop(table);
            over.into_iter().filter_map(|known| known.tell(now)).for_each(|folded| tell(&folded));
        }
    }

    /// Until the time of a line is over; false when the table was closed.
    fn wait(&self, table: &mut MutexGuard<'_, Table>) -> bool {
        while !table.closed {
            let due = table.lines.values().map(|known| known.due).min();
            match due {
                None => self.changed.wait(table),
                Some(due) if due <= Instant::now() => return true,
                Some(due) => {
                    // Why it ended is seen by the next look.
                    let _ = self.changed.wait_until(table, due);
                }
            }
        }
        false
    }

    /// Nothing is folded any more.
    pub(super) fn close(&self) {
        self.table.lock().closed = true;
        self.changed.notify_one();
    }
}

/// How full the table may be for a line of this level, and how often the same is written; `None`: it is never folded.
const fn bounds(level: Level) -> Option<(usize, u64)> {
    match level {
        Level::ERROR | Level::WARN => Some((ROOM, 1)),
        Level::INFO => Some((ROOM / 2, INFORMED)),
        Level::DEBUG | Level::TRACE => None,
    }
}

impl Known {
    fn new(line: &Line<'_>, now: Instant, window: Duration) -> Self {
        let for_how_long = line.rest.as_ref().map_or(window, |rest| rest.interval.max(window));
        Self {
            level: line.level,
            target: line.target,
            beginning: line.message.chars().chain(line.values.chars()).take(BEGINNING).collect(),
            code: line.code.map(str::to_owned),
            first: now,
            due: now + for_how_long,
            written: 1,
            more: 0,
            rest: line.rest.clone(),
        }
    }

    fn tell(self, now: Instant) -> Option<Folded> {
        let kept_back = self.rest.map_or(0, |rest| rest.left.swap(0, Ordering::Relaxed));
        let more = self.more + kept_back;
        let seconds = now.saturating_duration_since(self.first).as_secs().max(1);
        let lines = if more == 1 { "line" } else { "lines" };
        let message = format!("{more} more {lines} like this one within {seconds} s: {}", self.beginning);
        (more > 0).then_some(Folded { level: self.level, target: self.target, code: self.code, message })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(level: Level, message: &str) -> Line<'_> {
        Line {
            level,
            target: "sense_butler::sense",
            message,
            values: " from=x",
            code: Some("a_word"),
            suppressed: 0,
            rest: None,
        }
    }

    fn message(folded: Option<Folded>) -> Option<String> {
        folded.map(|folded| folded.message)
    }

    #[test]
    fn the_same_again_is_counted_and_told_before_it_is_written_anew() {
        let (fold, start) = (Fold::within(WINDOW), Instant::now());
        for level in [Level::ERROR, Level::WARN] {
            assert_eq!(fold.judge(&line(level, "no"), start), (true, None));
            for second in 0..9 {
                assert_eq!(fold.judge(&line(level, "no"), start + Duration::from_secs(second)), (false, None));
            }
            let (write, before) = fold.judge(&line(level, "no"), start + WINDOW);
            let expected = Folded {
                level,
                target: "sense_butler::sense",
                code: Some("a_word".into()),
                message: "9 more lines like this one within 10 s: no from=x".into(),
            };
            assert_eq!((write, before), (true, Some(expected)));
            // It was written once more, and nothing is left to tell.
            assert_eq!(fold.judge(&line(level, "no"), start + WINDOW * 2), (true, None));
        }
    }

    #[test]
    fn what_differs_is_written_and_debugging_is_left_alone() {
        let (fold, now) = (Fold::within(WINDOW), Instant::now());
        let written = |line: &Line<'_>, times: usize| (0..times).filter(|_| fold.judge(line, now).0).count();
        assert_eq!(written(&line(Level::WARN, "a"), 3), 1);
        assert_eq!(written(&line(Level::WARN, "b"), 3), 1);
        assert_eq!(written(&line(Level::ERROR, "a"), 3), 1);
        assert_eq!(written(&Line { values: " from=y", ..line(Level::WARN, "a") }, 3), 1);
        assert_eq!(written(&Line { target: "other", ..line(Level::WARN, "a") }, 3), 1);
        assert_eq!(written(&line(Level::INFO, "a"), 20), 5);
        assert_eq!(written(&line(Level::DEBUG, "a"), 20), 20);
    }

    #[test]
    fn a_full_table_writes_every_line_and_information_leaves_room_for_trouble() {
        let (fold, now) = (Fold::within(WINDOW), Instant::now());
        for number in 0..10 * ROOM {
            assert!(fold.judge(&line(Level::INFO, &number.to_string()), now).0);
        }
        assert_eq!(fold.table.lock().lines.len(), ROOM / 2);
        for round in 0..2 {
            let written = (0..10 * ROOM).filter(|n| fold.judge(&line(Level::ERROR, &format!("{n}")), now).0).count();
            let known = if round == 0 { 0 } else { ROOM / 2 };
            assert_eq!(written, 10 * ROOM - known);
        }
        assert_eq!(fold.table.lock().lines.len(), ROOM);
    }

    #[test]
    fn what_a_throttle_keeps_back_is_told_though_nothing_follows() {
        let (fold, start) = (Fold::within(WINDOW), Instant::now());
        let rest = Rest { left: Arc::new(AtomicU64::new(0)), interval: Duration::from_secs(60) };
        let first = Line { rest: Some(rest.clone()), ..line(Level::WARN, "dropped") };
        assert_eq!(fold.judge(&first, start), (true, None));
        rest.left.store(999, Ordering::Relaxed);
        let again = Line { suppressed: 5, ..line(Level::WARN, "dropped") };
        assert_eq!(fold.judge(&again, start + WINDOW * 2), (false, None), "its time is the throttle's");
        let (_, before) = fold.judge(&line(Level::WARN, "dropped"), start + Duration::from_secs(60));
        // 999 kept back, and the one that was folded with the five it spoke for.
        assert_eq!(message(before).unwrap(), "1005 more lines like this one within 60 s: dropped from=x");
        assert_eq!(rest.left.load(Ordering::Relaxed), 0, "told once");
    }

    #[test]
    fn numbers_are_told_when_the_time_is_over_and_at_the_end() {
        let fold = Fold::within(Duration::from_millis(20));
        let told = Mutex::new(Vec::new());
        let (say, heard) = std::sync::mpsc::channel();
        std::thread::scope(|scope| {
            let (fold, told) = (&fold, &told);
            scope.spawn(move || {
                fold.attend(|folded| {
                    told.lock().push(folded.message.clone());
                    let _ = say.send(());
                });
            });
            let now = Instant::now();
            fold.judge(&line(Level::WARN, "a"), now);
            fold.judge(&line(Level::WARN, "alone"), now);
            assert!(!fold.judge(&line(Level::WARN, "a"), now).0);
            heard.recv_timeout(Duration::from_secs(30)).unwrap();
            let later = Instant::now() + Duration::from_secs(3_600);
            fold.judge(&line(Level::WARN, "b"), later);
            assert!(!fold.judge(&line(Level::WARN, "b"), later).0);
            assert!(!fold.judge(&line(Level::WARN, "b"), later).0);
            fold.close();
        });
        let told = told.into_inner();
        assert_eq!(
            told,
            ["1 more line like this one within 1 s: a from=x", "2 more lines like this one within 1 s: b from=x"]
        );
        assert!(fold.judge(&line(Level::WARN, "b"), Instant::now()).0, "closed: everything is written");
    }

    #[test]
    fn a_long_line_is_told_by_its_beginning() {
        let (fold, start) = (Fold::within(WINDOW), Instant::now());
        let long = "é".repeat(10_000);
        fold.judge(&line(Level::ERROR, &long), start);
        fold.judge(&line(Level::ERROR, &long), start);
        let (_, before) = fold.judge(&line(Level::ERROR, &long), start + WINDOW);
        assert!(message(before).unwrap().chars().count() < BEGINNING + 60);
    }
}
