//! What stays of executions: the execution results, bounded, and the list of everything that was ever started.
//!
//! Invariants: a result's JSON is rendered when somebody reads it and forgotten at every change; the oldest results go first; the number
//! of all starts is exact even when the list of them was cut.

use std::collections::{BTreeMap, VecDeque};

use serde_json::{Value, json};
use uuid::Uuid;

use super::status::Status;
use crate::{
    names::{ExecutionId, TaskId},
    sense::simulator::clock::{Calendar, Moment, NULL_DATE},
};

/// Results that are kept.
const RESULTS_KEPT: usize = 2_000;
/// Starts that are kept with their details.
const STARTS_KEPT: usize = 200_000;

/// A line of an execution result's `details`.
#[derive(Debug, Clone)]
struct Detail {
    id: Uuid,
    message: String,
    at: Moment,
}

/// An execution result: one attempt of an execution.
#[derive(Debug, Clone)]
pub struct ResultRow {
    /// Its id.
    pub id: Uuid,
    /// The task.
    pub task: TaskId,
    /// The execution, shared by all its attempts.
    pub execution: ExecutionId,
    /// The task's app.
    pub app: Option<Uuid>,
    /// The node that runs it, once one does.
    pub node: Option<(Uuid, String)>,
    /// State.
    pub status: Status,
    /// When it was made.
    pub created: Moment,
    /// When it changed last.
    pub modified: Moment,
    /// When the run began.
    pub started: Option<Moment>,
    /// When the run ended.
    pub stopped: Option<Moment>,
    details: Vec<Detail>,
    json: Option<Value>,
}

impl ResultRow {
    /// A new attempt.
    pub fn new(id: Uuid, task: TaskId, execution: ExecutionId, app: Option<Uuid>, now: Moment) -> Self {
        Self {
            id,
            task,
            execution,
            app,
            node: None,
            status: Status::Triggered,
            created: now,
            modified: now,
            started: None,
            stopped: None,
            details: Vec::new(),
            json: None,
        }
    }

    /// Adds a line, and marks the row as changed.
    pub fn note(&mut self, id: Uuid, message: String, at: Moment) {
        self.details.push(Detail { id, message, at });
        self.modified = at;
        self.json = None;
    }

    fn duration(&self) -> u64 {
        self.started.zip(self.stopped).map_or(0, |(start, stop)| stop.saturating_sub(start))
    }

    /// The short form inside `operational.lastExecutionResult`: without task and execution.
    pub fn summary(&self, calendar: Calendar) -> Value {
        let date = |moment: Option<Moment>| moment.map_or(NULL_DATE.to_owned(), |at| calendar.qrs(at));
        json!({
            "id": self.id.to_string(),
            "executingNodeName": self.node.as_ref().map_or("", |(_, name)| name.as_str()),
            "status": self.status.number(),
            "startTime": date(self.started),
            "stopTime": date(self.stopped),
            "duration": self.duration(),
            "fileReferenceID": Uuid::nil().to_string(),
            "scriptLogAvailable": false,
            "details": self.details(calendar),
            "scriptLogLocation": "",
            "scriptLogSize": 0,
            "privileges": null,
        })
    }

    fn details(&self, calendar: Calendar) -> Value {
        self.details.iter().map(|detail| detail.json(calendar)).collect()
    }

    fn render(&self, calendar: Calendar) -> Value {
        let date = |moment: Option<Moment>| moment.map_or(NULL_DATE.to_owned(), |at| calendar.qrs(at));
        let nil = || Uuid::nil().to_string();
        json!({
            "id": self.id.to_string(),
            "createdDate": calendar.qrs(self.created),
            "modifiedDate": calendar.qrs(self.modified),
            "modifiedByUserName": r"INTERNAL\sa_scheduler",
            "taskID": self.task.to_string(),
            "executionID": self.execution.to_string(),
            "appID": self.app.map_or_else(nil, |id| id.to_string()),
            "executingNodeID": self.node.as_ref().map_or_else(nil, |(id, _)| id.to_string()),
            "executingNodeName": self.node.as_ref().map_or("", |(_, name)| name.as_str()),
            "status": self.status.number(),
            "startTime": date(self.started),
            "stopTime": date(self.stopped),
            "duration": self.duration(),
            "fileReferenceID": nil(),
            "scriptLogAvailable": false,
            "details": self.details(calendar),
            "scriptLogLocation": "",
            "scriptLogSize": 0,
            "privileges": null,
            "schemaPath": "ExecutionResult",
        })
    }
}

impl Detail {
    fn json(&self, calendar: Calendar) -> Value {
        json!({
            "id": self.id.to_string(),
            "detailsType": 2,
            "message": self.message,
            "detailCreatedDate": calendar.qrs(self.at),
            "privileges": null,
        })
    }
}

/// The results that are kept, oldest first.
#[derive(Debug, Default)]
pub struct Results {
    rows: BTreeMap<u64, ResultRow>,
    next: u64,
}

impl Results {
    /// Keeps a row; the answer is its number.
    pub fn add(&mut self, row: ResultRow) -> u64 {
        let number = self.next;
        self.next += 1;
        self.rows.insert(number, row);
        while self.rows.len() > RESULTS_KEPT {
            self.rows.pop_first();
        }
        number
    }

    /// A row, as long as it is kept.
    pub fn get(&self, number: u64) -> Option<&ResultRow> {
        self.rows.get(&number)
    }

    /// A row, to be changed.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut ResultRow> {
        self.rows.get_mut(&number)
    }

    /// Everything, or everything of one execution, as JSON.
    pub fn json(&mut self, calendar: Calendar, only: Option<ExecutionId>) -> impl Iterator<Item = &Value> {
        let wanted = move |row: &&mut ResultRow| only.is_none_or(|only| only == row.execution);
        self.rows.values_mut().filter(wanted).map(move |row| {
            let json = row.json.take().unwrap_or_else(|| row.render(calendar));
            &*row.json.insert(json)
        })
    }
}

/// Who started an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartedBy {
    /// A call to the repository.
    Call,
    /// The task's own schedule.
    Schedule,
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
    pub by: StartedBy,
}

/// Every start.
#[derive(Debug, Default)]
pub struct Starts {
    recent: VecDeque<Start>,
    total: u64,
}

impl Starts {
    /// Notes a start.
    pub fn add(&mut self, start: Start) {
        if self.recent.len() >= STARTS_KEPT {
            self.recent.pop_front();
        }
        self.recent.push_back(start);
        self.total += 1;
    }

    /// How many there were, and those still listed.
    pub fn json(&self, calendar: Calendar) -> Value {
        let starts: Value = self.recent.iter().map(|start| start.json(calendar)).collect();
        json!({ "total": self.total, "listed": self.recent.len(), "starts": starts })
    }
}

impl Start {
    fn json(&self, calendar: Calendar) -> Value {
        let by = match self.by {
            StartedBy::Call => "call",
            StartedBy::Schedule => "schedule",
        };
        json!({
            "executionId": self.execution.to_string(),
            "taskId": self.task.to_string(),
            "at": calendar.qrs(self.at),
            "user": self.user,
            "by": by,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;

    #[test]
    fn results_and_starts_are_bounded_and_the_count_is_not() {
        let (mut results, mut starts) = (Results::default(), Starts::default());
        for number in 0..2_500u32 {
            let execution = ExecutionId::from_u128(number.into());
            results.add(ResultRow::new(Uuid::nil(), TaskId::ZERO, execution, None, 0));
        }
        for number in 0..200_010u32 {
            let execution = ExecutionId::from_u128(number.into());
            starts.add(Start { execution, task: TaskId::ZERO, at: 0, user: String::new(), by: StartedBy::Call });
        }
        let calendar = Calendar::new(SystemTime::UNIX_EPOCH);
        assert_eq!(results.json(calendar, None).count(), RESULTS_KEPT);
        assert!(results.get(499).is_none() && results.get(500).is_some());
        assert_eq!((starts.total, starts.recent.len()), (200_010, STARTS_KEPT));
    }
}
