//! What stays of executions: the execution results, bounded.
//!
//! Invariants: the oldest results go first; every index names exactly the rows that are kept; whoever knows an id, an execution, a task or a
//! date finds rows without walking through all of them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use serde_json::{Value, json};
use uuid::Uuid;

use super::status::Status;
use crate::{
    names::{ExecutionId, TaskId},
    sense::simulator::clock::{Calendar, Moment, NULL_DATE},
};

/// Results that are kept.
pub const RESULTS_KEPT: usize = 20_000;

/// A line of an execution result's `details`.
#[derive(Debug, Clone)]
struct Detail {
    id: Uuid,
    message: String,
    at: Moment,
    kind: u8,
}

/// `detailsType`: an error.
const ERROR: u8 = 0;
/// `detailsType`: for information.
const INFORMATION: u8 = 2;

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
    /// Its script log, once the run began: what `fileReferenceID` says.
    pub file: Option<Uuid>,
    /// Length of the script log, bytes, once the run ended.
    pub log_size: usize,
    details: Vec<Detail>,
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
            file: None,
            log_size: 0,
            details: Vec::new(),
        }
    }

    /// Adds a line.
    pub fn note(&mut self, id: Uuid, message: String, at: Moment) {
        let kind = if message.starts_with("Error") { ERROR } else { INFORMATION };
        self.details.push(Detail { id, message, at, kind });
    }

    fn duration(&self) -> u64 {
        self.started.zip(self.stopped).map_or(0, |(start, stop)| stop.saturating_sub(start))
    }

    fn location(&self) -> String {
        let file = self.file.filter(|_| self.stopped.is_some());
        file.map_or_else(String::new, |file| format!("{file}.log"))
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
            "fileReferenceID": self.file.unwrap_or_default().to_string(),
            "scriptLogAvailable": self.log_size > 0,
            "details": self.details(calendar),
            "scriptLogLocation": self.location(),
            "scriptLogSize": self.log_size,
            "privileges": null,
        })
    }

    fn details(&self, calendar: Calendar) -> Value {
        self.details.iter().map(|detail| detail.json(calendar)).collect()
    }

    /// The whole row.
    pub fn json(&self, calendar: Calendar) -> Value {
        let date = |moment: Option<Moment>| moment.map_or(NULL_DATE.to_owned(), |at| calendar.qrs(at));
        let id = |id: Option<Uuid>| id.unwrap_or_default().to_string();
        json!({
            "id": self.id.to_string(),
            "createdDate": calendar.qrs(self.created),
            "modifiedDate": calendar.qrs(self.modified),
            "modifiedByUserName": r"INTERNAL\sa_scheduler",
            "taskID": self.task.to_string(),
            "executionID": self.execution.to_string(),
            "appID": id(self.app),
            "executingNodeID": id(self.node.as_ref().map(|(id, _)| *id)),
            "executingNodeName": self.node.as_ref().map_or("", |(_, name)| name.as_str()),
            "status": self.status.number(),
            "startTime": date(self.started),
            "stopTime": date(self.stopped),
            "duration": self.duration(),
            "fileReferenceID": id(self.file),
            "scriptLogAvailable": self.log_size > 0,
            "details": self.details(calendar),
            "scriptLogLocation": self.location(),
            "scriptLogSize": self.log_size,
            "privileges": null,
            "schemaPath": "ExecutionResult",
        })
    }
}

impl Detail {
    fn json(&self, calendar: Calendar) -> Value {
        json!({
            "id": self.id.to_string(),
            "detailsType": self.kind,
            "message": self.message,
            "detailCreatedDate": calendar.qrs(self.at),
            "privileges": null,
        })
    }
}

/// Which rows are worth a look; what is not said leaves all.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Wanted {
    /// With one of these ids.
    pub ids: Option<Vec<Uuid>>,
    /// Of one of these executions.
    pub executions: Option<Vec<ExecutionId>>,
    /// Of one of these tasks.
    pub tasks: Option<Vec<TaskId>>,
    /// Changed then or later.
    pub since: Option<Moment>,
}

/// The results that are kept, oldest first.
#[derive(Debug, Default)]
pub struct Results {
    rows: BTreeMap<u64, ResultRow>,
    by_id: HashMap<Uuid, u64>,
    by_execution: HashMap<ExecutionId, Vec<u64>>,
    by_task: HashMap<TaskId, VecDeque<u64>>,
    by_change: BTreeSet<(Moment, u64)>,
    next: u64,
}

impl Results {
    /// Keeps a row; the answer is its number.
    pub fn add(&mut self, row: ResultRow) -> u64 {
        let number = self.next;
        self.next += 1;
        self.by_id.insert(row.id, number);
        self.by_execution.entry(row.execution).or_default().push(number);
        self.by_task.entry(row.task).or_default().push_back(number);
        self.by_change.insert((row.modified, number));
        self.rows.insert(number, row);
        while self.rows.len() > RESULTS_KEPT {
            self.forget_oldest();
        }
        number
    }

    fn forget_oldest(&mut self) {
        let Some((number, row)) = self.rows.pop_first() else { return };
        self.by_id.remove(&row.id);
        self.by_change.remove(&(row.modified, number));
        if let Some(numbers) = self.by_execution.get_mut(&row.execution) {
            numbers.retain(|kept| *kept != number);
            if numbers.is_empty() {
                self.by_execution.remove(&row.execution);
            }
        }
        if let Some(numbers) = self.by_task.get_mut(&row.task) {
            // Rows are forgotten in the order in which they came.
            numbers.pop_front();
            if numbers.is_empty() {
                self.by_task.remove(&row.task);
            }
        }
    }

    /// A row, as long as it is kept.
    pub fn get(&self, number: u64) -> Option<&ResultRow> {
        self.rows.get(&number)
    }

    /// The row with this id.
    pub fn with_id(&self, id: Uuid) -> Option<&ResultRow> {
        self.rows.get(self.by_id.get(&id)?)
    }

    /// Changes a row, as long as it is kept.
    pub fn change(&mut self, number: u64, now: Moment, deed: impl FnOnce(&mut ResultRow)) {
        if let Some(row) = self.rows.get_mut(&number) {
            deed(row);
            self.by_change.remove(&(row.modified, number));
            row.modified = now;
            self.by_change.insert((now, number));
        }
    }

    /// The rows that are worth a look, oldest first.
    pub fn select(&self, wanted: &Wanted) -> Vec<&ResultRow> {
        let mut numbers: Vec<u64> = if let Some(ids) = &wanted.ids {
            ids.iter().filter_map(|id| self.by_id.get(id).copied()).collect()
        } else if let Some(executions) = &wanted.executions {
            executions.iter().filter_map(|id| self.by_execution.get(id)).flatten().copied().collect()
        } else if let Some(tasks) = &wanted.tasks {
            tasks.iter().filter_map(|id| self.by_task.get(id)).flatten().copied().collect()
        } else if let Some(since) = wanted.since {
            self.by_change.range((since, 0)..).map(|(_, number)| *number).collect()
        } else {
            return self.rows.values().collect();
        };
        numbers.sort_unstable();
        numbers.dedup();
        numbers.iter().filter_map(|number| self.rows.get(number)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_bounded_and_found_by_whatever_is_known() {
        let mut results = Results::default();
        let count = RESULTS_KEPT as u64 + 500;
        for number in 0..count {
            let (id, execution) = (Uuid::from_u128(number.into()), ExecutionId::from_u128((number / 2).into()));
            results.add(ResultRow::new(id, TaskId::from_u128((number % 10).into()), execution, None, number));
        }
        assert!(results.get(499).is_none() && results.get(500).is_some());
        let found = |wanted: Wanted| results.select(&wanted).len();
        assert_eq!(found(Wanted::default()), RESULTS_KEPT);
        assert_eq!(found(Wanted { ids: Some(vec![Uuid::from_u128(499)]), ..Wanted::default() }), 0);
        assert_eq!(found(Wanted { ids: Some(vec![Uuid::from_u128(500)]), ..Wanted::default() }), 1);
        let of = |number| Wanted { executions: Some(vec![ExecutionId::from_u128(number)]), ..Wanted::default() };
        assert_eq!((found(of(249)), found(of(250))), (0, 2));
        assert_eq!(found(Wanted { tasks: Some(vec![TaskId::from_u128(3)]), ..Wanted::default() }), RESULTS_KEPT / 10);
        assert_eq!(found(Wanted { since: Some(count - 7), ..Wanted::default() }), 7);
        results.change(600, count + 5, |row| row.status = Status::Started);
        let late = results.select(&Wanted { since: Some(count), ..Wanted::default() });
        assert_eq!((late.len(), late[0].status, late[0].modified), (1, Status::Started, count + 5));
        assert_eq!(results.by_change.len(), RESULTS_KEPT);
        assert_eq!(results.by_execution.len(), RESULTS_KEPT / 2);
    }
}
