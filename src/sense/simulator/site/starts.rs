//! The truth about starts: every execution with how it came about, and every wish that was not carried out.
//!
//! Invariants: numbers count from 0 without gaps, so that a reader sees what was cut; the totals are exact even when the lists were cut; the
//! lists are cut at [`STARTS_KEPT`] and [`NOT_STARTED_KEPT`], oldest first.

use std::{collections::VecDeque, sync::Arc};

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    names::{ExecutionId, TaskId},
    sense::simulator::clock::{Calendar, Moment},
};

/// Starts that are kept with their details.
pub const STARTS_KEPT: usize = 200_000;
/// Wishes that were not carried out and are kept with their details.
pub const NOT_STARTED_KEPT: usize = 50_000;

/// A request to the repository, as far as it tells who asked for a start.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    /// Its number in the log, from 0.
    pub number: u64,
    /// When it had been read completely, microseconds since 1970.
    pub micros: u64,
    /// Method.
    pub method: String,
    /// Path as sent.
    pub path: String,
    /// Number of the connection it came by.
    pub connection: u64,
    /// `X-Qlik-User` as sent.
    pub user: Option<String>,
    /// The key of the query, which clients may choose anew for each request.
    pub xrfkey: Option<String>,
}

/// How an execution came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// A call to the repository.
    Call(Arc<Request>),
    /// The task's own schedule.
    Schedule,
    /// The end of other tasks.
    Chain {
        /// The composite event.
        event: Uuid,
        /// The execution whose end fulfilled it.
        after: ExecutionId,
    },
    /// The control door.
    Control,
}

impl Origin {
    fn word(&self) -> &'static str {
        match self {
            Self::Call(_) => "call",
            Self::Schedule => "schedule",
            Self::Chain { .. } => "chain",
            Self::Control => "control",
        }
    }

    /// Adds what it knows to an object.
    fn describe(&self, value: Value) -> Value {
        let Value::Object(mut fields) = value else { return value };
        fields.insert("by".to_owned(), self.word().into());
        match self {
            Self::Call(request) => {
                fields.insert("request".to_owned(), request.json());
            }
            Self::Chain { event, after } => {
                let chain = json!({ "eventId": event.to_string(), "afterExecutionId": after.to_string() });
                fields.insert("chain".to_owned(), chain);
            }
            Self::Schedule | Self::Control => {}
        }
        Value::Object(fields)
    }
}

impl Request {
    fn json(&self) -> Value {
        json!({ "number": self.number, "micros": self.micros, "method": self.method, "path": self.path,
            "connection": self.connection, "xQlikUser": self.user, "xrfkey": self.xrfkey })
    }
}

/// An execution that was started: the truth against which a client's claims are checked.
#[derive(Debug, Clone)]
pub struct Start {
    /// The execution.
    pub execution: ExecutionId,
    /// Its task.
    pub task: TaskId,
    /// When.
    pub at: Moment,
    /// `DIR\user`
    pub user: String,
    /// By what.
    pub by: Origin,
}

/// A wish that was not carried out.
#[derive(Debug, Clone)]
pub struct NotStarted {
    /// The task as it was named: an id, a name, or what stood in the place of an id.
    pub task: String,
    /// When.
    pub at: Moment,
    /// Why not: one word.
    pub reason: &'static str,
    /// Who asked.
    pub by: Origin,
}

/// A list that forgets its oldest entries and keeps count.
#[derive(Debug)]
struct Kept<T> {
    recent: VecDeque<T>,
    total: u64,
    most: usize,
}

impl<T> Kept<T> {
    fn new(most: usize) -> Self {
        Self { recent: VecDeque::new(), total: 0, most }
    }

    fn add(&mut self, entry: T) {
        if self.recent.len() >= self.most {
            self.recent.pop_front();
        }
        self.recent.push_back(entry);
        self.total += 1;
    }

    /// The entries from number `from` on, with their numbers.
    fn from(&self, from: u64) -> impl Iterator<Item = (u64, &T)> {
        let first = self.total - self.recent.len() as u64;
        let skip = usize::try_from(from.saturating_sub(first)).unwrap_or(usize::MAX);
        (first..).zip(&self.recent).skip(skip)
    }
}

/// Every start, and every wish that came to nothing.
#[derive(Debug)]
pub struct Starts {
    started: Kept<Start>,
    not_started: Kept<NotStarted>,
}

impl Default for Starts {
    fn default() -> Self {
        Self { started: Kept::new(STARTS_KEPT), not_started: Kept::new(NOT_STARTED_KEPT) }
    }
}

impl Starts {
    /// Notes a start.
    pub fn add(&mut self, start: Start) {
        self.started.add(start);
    }

    /// Notes a wish that was not carried out.
    pub fn add_not_started(&mut self, wish: NotStarted) {
        self.not_started.add(wish);
    }

    /// What there is to tell from number `from` on; `only`: of one task.
    pub fn view(&self, calendar: Calendar, from: u64, only: Option<TaskId>) -> StartsView {
        let wanted = |(_, start): &(u64, &Start)| only.is_none_or(|only| only == start.task);
        let starts = self.started.from(from).filter(wanted).map(|(number, start)| (number, start.clone()));
        let only = only.map(|only| only.to_string());
        let wanted = |(_, wish): &(u64, &NotStarted)| only.as_ref().is_none_or(|only| *only == wish.task);
        let wishes = self.not_started.from(from).filter(wanted).map(|(number, wish)| (number, wish.clone()));
        StartsView {
            calendar,
            starts: starts.collect(),
            not_started: wishes.collect(),
            total: self.started.total,
            total_not_started: self.not_started.total,
            complete: self.started.total == self.started.recent.len() as u64,
        }
    }
}

/// A copy of what there is to tell, so that telling it holds up nobody who wants to start something.
#[derive(Debug)]
pub struct StartsView {
    calendar: Calendar,
    starts: Vec<(u64, Start)>,
    not_started: Vec<(u64, NotStarted)>,
    total: u64,
    total_not_started: u64,
    complete: bool,
}

impl StartsView {
    /// How many there were, and those that are listed.
    pub fn json(&self) -> Value {
        let starts: Value = self.starts.iter().map(|(number, start)| start.json(*number, self.calendar)).collect();
        let wishes: Value = self.not_started.iter().map(|(number, wish)| wish.json(*number, self.calendar)).collect();
        json!({
            "total": self.total,
            "listed": self.starts.len(),
            "complete": self.complete,
            "starts": starts,
            "notStarted": { "total": self.total_not_started, "listed": self.not_started.len(), "asked": wishes },
        })
    }
}

impl Start {
    fn json(&self, number: u64, calendar: Calendar) -> Value {
        self.by.describe(json!({
            "number": number,
            "executionId": self.execution.to_string(),
            "taskId": self.task.to_string(),
            "at": calendar.qrs(self.at),
            "user": self.user,
        }))
    }
}

impl NotStarted {
    fn json(&self, number: u64, calendar: Calendar) -> Value {
        let at = calendar.qrs(self.at);
        self.by.describe(json!({ "number": number, "task": self.task, "at": at, "reason": self.reason }))
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    fn start(number: u128) -> Start {
        let execution = ExecutionId::from_u128(number);
        Start { execution, task: TaskId::ZERO, at: 0, user: String::new(), by: Origin::Control }
    }

    #[test]
    fn the_list_is_bounded_and_the_count_is_not() {
        let mut starts = Starts::default();
        for number in 0..STARTS_KEPT as u128 {
            starts.add(start(number));
        }
        let calendar = Calendar::new(SystemTime::UNIX_EPOCH);
        assert_eq!(starts.view(calendar, 199_999, None).json()["complete"], true);
        for number in 0..10 {
            starts.add(start(number));
        }
        let value = starts.view(calendar, 200_005, None).json();
        assert_eq!(
            (&value["total"], &value["listed"], &value["complete"]),
            (&json!(200_010), &json!(5), &json!(false))
        );
        assert_eq!(value["starts"][0]["number"], 200_005);
        assert_eq!(starts.started.from(0).next().unwrap().0, 10, "the first that is left");
    }

    #[test]
    fn an_origin_says_all_it_knows() {
        let request = Request { number: 7, connection: 3, path: "/qrs/task/x/start".to_owned(), ..Request::default() };
        let wish = NotStarted { task: "x".to_owned(), at: 0, reason: "malformed", by: Origin::Call(Arc::new(request)) };
        let value = wish.json(0, Calendar::new(SystemTime::UNIX_EPOCH));
        assert_eq!((&value["by"], &value["request"]["number"]), (&json!("call"), &json!(7)));
        let chain = Origin::Chain { event: Uuid::nil(), after: ExecutionId::ZERO }.describe(json!({}));
        assert_eq!(chain["by"], "chain");
    }
}
