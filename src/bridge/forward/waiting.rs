//! Events that wait for QRS, as a state machine without a clock, tasks or sockets of its own.
//!
//! Invariants: an event waits until its deadline at most; events of one task leave in the order in which they came; events of different
//! tasks do not wait for each other; one look-up per task is under way at a time, and it serves only events that came before it began
//! (QRS's answer carries the last execution, so an older answer would be wrong for a newer event); bytes held and look-ups under way are
//! bounded, and what does not fit leaves at once, without QRS's fields.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use tokio::time::Instant;

use super::publisher::Tally;
use crate::sense::event::TaskEvent;

/// Look-ups under way at most.
const MAX_LOOKUPS: usize = 64;
/// Bytes of events held at most, roughly.
const MAX_BYTES: usize = 16 << 20;

/// The task an event belongs to: its id in lower case.
pub(super) type Lane = Arc<str>;

/// An event that waits.
#[derive(Debug)]
pub(super) struct Held {
    /// The event.
    pub event: TaskEvent,
    /// Its tally.
    pub tally: Tally,
    /// Whether its basic message is out already.
    pub basic_sent: bool,
}

#[derive(Debug)]
struct Entry {
    number: u64,
    bytes: usize,
    held: Held,
}

#[derive(Debug, Default)]
struct LaneState {
    entries: VecDeque<Entry>,
    /// How many of the first entries the look-up under way serves; `None`: none is under way.
    serving: Option<usize>,
    /// Whether it stands in `ready`.
    queued: bool,
}

/// A look-up to begin.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LookUp {
    /// Whose.
    pub lane: Lane,
    /// Task id as sent.
    pub task_id: String,
    /// App id as sent.
    pub app_id: String,
}

/// All events that wait.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    lanes: HashMap<Lane, LaneState>,
    /// Oldest first: every event waits equally long.
    deadlines: VecDeque<(Instant, u64, Lane)>,
    ready: VecDeque<Lane>,
    lookups: usize,
    bytes: usize,
    next: u64,
}

impl Waiting {
    /// The lane of a task.
    pub(super) fn lane(task_id: &str) -> Lane {
        Arc::from(task_id.to_ascii_lowercase())
    }

    /// Whether events of a task wait. A later one must then wait, too.
    pub(super) fn is_waiting(&self, lane: &Lane) -> bool {
        self.lanes.get(lane).is_some_and(|lane| !lane.entries.is_empty())
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Takes an event in; what has to leave to make room comes back.
    pub(super) fn hold(&mut self, lane: Lane, held: Held, deadline: Instant) -> Vec<Held> {
        let bytes = weight(&held.event);
        self.next += 1;
        self.bytes += bytes;
        self.deadlines.push_back((deadline, self.next, lane.clone()));
        self.lanes.entry(lane.clone()).or_default().entries.push_back(Entry { number: self.next, bytes, held });
        self.queue(&lane);
        let mut pushed_out = Vec::new();
        while self.bytes > MAX_BYTES {
            let Some((_, number, lane)) = self.deadlines.pop_front() else { break };
            self.take_up_to(&lane, number, &mut pushed_out);
        }
        pushed_out
    }

    /// A look-up to begin, if there is one and room for it.
    pub(super) fn next_look_up(&mut self) -> Option<LookUp> {
        while self.lookups < MAX_LOOKUPS {
            let lane = self.ready.pop_front()?;
            if let Some(look_up) = self.begin(&lane) {
                self.lookups += 1;
                return Some(look_up);
            }
        }
        None
    }

    fn begin(&mut self, lane: &Lane) -> Option<LookUp> {
        let state = self.lanes.get_mut(lane)?;
        state.queued = false;
        let Some(first) = state.entries.front() else {
            self.lanes.remove(lane);
            return None;
        };
        let app_id = app_id(first).to_owned();
        let task_id = first.held.event.task_id.clone().unwrap_or_default();
        state.serving =
            Some(state.entries.iter().take_while(|entry| app_id.eq_ignore_ascii_case(self::app_id(entry))).count());
        Some(LookUp { lane: lane.clone(), task_id, app_id })
    }

    /// A look-up ended, whatever its answer: the events it served.
    pub(super) fn answered(&mut self, lane: &Lane) -> Vec<Held> {
        self.lookups = self.lookups.saturating_sub(1);
        let Some(state) = self.lanes.get_mut(lane) else { return Vec::new() };
        let served = state.serving.take().unwrap_or(0).min(state.entries.len());
        let entries: Vec<Entry> = state.entries.drain(..served).collect();
        self.bytes -= entries.iter().map(|entry| entry.bytes).sum::<usize>();
        if state.entries.is_empty() {
            self.lanes.remove(lane);
        } else {
            self.queue(lane);
        }
        entries.into_iter().map(|entry| entry.held).collect()
    }

    /// The events whose time is up.
    pub(super) fn expired(&mut self, now: Instant) -> Vec<Held> {
        let mut due = Vec::new();
        while let Some((deadline, ..)) = self.deadlines.front()
            && *deadline <= now
        {
            if let Some((_, number, lane)) = self.deadlines.pop_front() {
                self.take_up_to(&lane, number, &mut due);
            }
        }
        due
    }

    /// All events, because nothing is waited for any more.
    pub(super) fn give_up(&mut self) -> Vec<Held> {
        let mut all = Vec::new();
        while let Some((_, number, lane)) = self.deadlines.pop_front() {
            self.take_up_to(&lane, number, &mut all);
        }
        all
    }

    /// When the next event's time is up. Entries of events that left already are passed over.
    pub(super) fn next_deadline(&mut self) -> Option<Instant> {
        while let Some((deadline, number, lane)) = self.deadlines.front() {
            let first = self.lanes.get(lane).and_then(|state| state.entries.front());
            if first.is_some_and(|first| first.number <= *number) {
                return Some(*deadline);
            }
            self.deadlines.pop_front();
        }
        None
    }

    fn queue(&mut self, lane: &Lane) {
        if let Some(state) = self.lanes.get_mut(lane)
            && !state.queued
            && state.serving.is_none()
        {
            state.queued = true;
            self.ready.push_back(lane.clone());
        }
    }

    fn take_up_to(&mut self, lane: &Lane, number: u64, taken: &mut Vec<Held>) {
        let Some(state) = self.lanes.get_mut(lane) else { return };
        while let Some(entry) = state.entries.pop_front_if(|entry| entry.number <= number) {
            self.bytes -= entry.bytes;
            state.serving = state.serving.map(|serving| serving.saturating_sub(1));
            taken.push(entry.held);
        }
        // A lane with a look-up under way or a place in the queue is removed when that comes around.
        if state.entries.is_empty() && state.serving.is_none() && !state.queued {
            self.lanes.remove(lane);
        }
    }
}

fn app_id(entry: &Entry) -> &str {
    entry.held.event.app_id.as_deref().unwrap_or_default()
}

/// Bytes an event keeps, roughly; never zero.
fn weight(event: &TaskEvent) -> usize {
    let texts = [&event.task_name, &event.app_name, &event.user, &event.message];
    600 + event.host.len() + texts.into_iter().flatten().map(String::len).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use super::*;
    use crate::{config::settings::Generation, sense::datagram};

    fn held(task: &str, app: &str, message: &str) -> Held {
        let text = format!("/scheduler-task-failed/;h;t;a;u;{task};{app};;;;{message}");
        let event = datagram::parse_task(text.as_bytes(), Generation::V5_4, SystemTime::UNIX_EPOCH).unwrap();
        Held { event, tally: Tally::default(), basic_sent: true }
    }

    fn messages(held: Vec<Held>) -> Vec<String> {
        held.into_iter().map(|held| held.event.message.unwrap()).collect()
    }

    struct Bench {
        waiting: Waiting,
        start: Instant,
    }

    impl Bench {
        fn new() -> Self {
            Self { waiting: Waiting::default(), start: Instant::now() }
        }

        fn at(&self, millis: u64) -> Instant {
            self.start + Duration::from_millis(millis)
        }

        fn hold(&mut self, task: &str, app: &str, message: &str, deadline: u64) {
            let deadline = self.at(deadline);
            assert!(self.waiting.hold(Waiting::lane(task), held(task, app, message), deadline).is_empty());
        }
    }

    #[test]
    fn an_answer_serves_those_who_were_there_when_it_was_asked_for() {
        let mut bench = Bench::new();
        bench.hold("T", "a", "1", 300);
        bench.hold("t", "A", "2", 310);
        let look_up = bench.waiting.next_look_up().unwrap();
        assert_eq!((look_up.task_id.as_str(), look_up.app_id.as_str()), ("T", "a"));
        bench.hold("t", "a", "3", 320);
        assert_eq!(bench.waiting.next_look_up(), None, "one look-up per task at a time");
        assert_eq!(messages(bench.waiting.answered(&look_up.lane)), ["1", "2"]);
        assert!(bench.waiting.is_waiting(&look_up.lane));
        assert!(bench.waiting.next_look_up().is_some());
        assert_eq!(messages(bench.waiting.answered(&look_up.lane)), ["3"]);
        assert!(bench.waiting.is_empty() && bench.waiting.lanes.is_empty());
        assert_eq!(bench.waiting.next_deadline(), None);
    }

    #[test]
    fn another_app_is_asked_for_on_its_own() {
        let mut bench = Bench::new();
        bench.hold("t", "a", "1", 300);
        bench.hold("t", "b", "2", 300);
        let first = bench.waiting.next_look_up().unwrap();
        assert_eq!(messages(bench.waiting.answered(&first.lane)), ["1"]);
        assert_eq!(bench.waiting.next_look_up().unwrap().app_id, "b");
    }

    #[test]
    fn time_runs_out_for_each_event_alone() {
        let mut bench = Bench::new();
        bench.hold("t", "a", "1", 300);
        bench.hold("u", "a", "2", 310);
        bench.hold("t", "a", "3", 320);
        let (t, u) = (bench.waiting.next_look_up().unwrap(), bench.waiting.next_look_up().unwrap());
        assert_eq!(bench.waiting.next_deadline(), Some(bench.at(300)));
        assert_eq!(messages(bench.waiting.expired(bench.at(300))), ["1"]);
        assert_eq!(messages(bench.waiting.answered(&u.lane)), ["2"]);
        assert_eq!(messages(bench.waiting.answered(&t.lane)), ["3"], "it was there when the look-up began");
        assert!(bench.waiting.expired(bench.at(400)).is_empty());
        assert_eq!((bench.waiting.lookups, bench.waiting.lanes.len()), (0, 0));
    }

    #[test]
    fn a_late_answer_finds_nobody_and_leaves_nothing_behind() {
        let mut bench = Bench::new();
        bench.hold("t", "a", "1", 300);
        let look_up = bench.waiting.next_look_up().unwrap();
        assert_eq!(messages(bench.waiting.expired(bench.at(300))), ["1"]);
        assert!(bench.waiting.answered(&look_up.lane).is_empty());
        assert!(bench.waiting.lanes.is_empty());
    }

    #[test]
    fn look_ups_are_bounded_and_bytes_push_out_the_oldest() {
        let mut bench = Bench::new();
        for task in 0..MAX_LOOKUPS + 1 {
            bench.hold(&task.to_string(), "a", "m", 300);
        }
        let begun = std::iter::from_fn(|| bench.waiting.next_look_up()).count();
        assert_eq!(begun, MAX_LOOKUPS);
        let big = "x".repeat(60_000);
        let mut pushed_out = 0;
        for _ in 0..400 {
            let deadline = bench.at(300);
            pushed_out += bench.waiting.hold(Waiting::lane("big"), held("big", "a", &big), deadline).len();
        }
        assert!(bench.waiting.bytes <= MAX_BYTES);
        assert!(pushed_out > MAX_LOOKUPS, "{pushed_out}");
        let left = bench.waiting.give_up().len();
        assert_eq!(left + pushed_out, MAX_LOOKUPS + 1 + 400);
        assert!(bench.waiting.is_empty());
    }
}
