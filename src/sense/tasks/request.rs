//! What is asked and what is answered when somebody wants a task started: one type for all doors.
//!
//! Wire form of the JSON: design, "Names on the wire". Plain data and its parsing; the doing is in the sibling files.

use serde_json::Value;

use crate::names::{ExecutionId, TaskId};

/// Which task or tasks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StartTarget {
    /// One task by id.
    Id(TaskId),
    /// All tasks with a tag, compared exactly.
    Tag(String),
    /// All tasks with a value of a custom property, compared exactly.
    CustomProperty {
        /// Name of the property.
        name: String,
        /// Its value.
        value: String,
    },
}

/// A wish to start tasks, with who wishes it. Several targets of one request are answered one by one.
#[derive(Debug, Clone)]
pub struct StartRequest {
    /// What to start; the same task twice is started once.
    pub targets: Vec<StartTarget>,
    /// Echoed unchanged.
    pub transaction: Option<Value>,
    /// Door it came by: `mqtt`, `rest`, `external`.
    pub door: &'static str,
    /// Who asked: user, client id or address; for logs and the answer.
    pub requested_by: String,
}

/// Final and intermediate words on a start request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StartStatus {
    /// Taken, waiting.
    Accepted,
    /// QRS started it.
    Started,
    /// QRS said it did not start (zero GUID).
    NotStarted,
    /// Not allowed.
    Denied,
    /// QRS does not know the task.
    UnknownTask,
    /// The request cannot be read.
    Invalid,
    /// QRS could not be reached, or refused us.
    Unreachable,
    /// A crash or time-out left it undecided.
    Unknown,
}

/// Why something was not started.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct StartError {
    /// Stable word for programs, e.g. `retained`, `task_filter`, `qrs_unreachable`.
    pub code: &'static str,
    /// Sentence for people: what, where, what to do.
    pub message: String,
}

/// What became of one task of a request. Key order on the wire is the field order here.
#[derive(Debug, Clone)]
pub struct StartOutcome {
    /// The word.
    pub status: StartStatus,
    /// The task, where one is known.
    pub task_id: Option<TaskId>,
    /// Its name in QRS, where known.
    pub task_name: Option<String>,
    /// The execution session QRS opened.
    pub execution_id: Option<ExecutionId>,
    /// The target of the request this answers.
    pub target: Option<StartTarget>,
    /// Why not.
    pub error: Option<StartError>,
}
