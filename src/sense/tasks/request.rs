//! What is asked and what is answered when somebody wants a task started: one type for all doors.
//!
//! Wire form of the JSON: design, "Names on the wire". Plain data; the doing is in the sibling files.

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

/// What happens to the tasks named by id when one of them does not exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IdRule {
    /// Each is started or not on its own.
    #[default]
    EachOnItsOwn,
    /// If one does not exist, none is started (`allTaskIdsMustExist`). Ids the filter denies do not count as missing.
    AllMustExist,
    /// None is started: the caller knows already that one cannot exist. They are only looked up.
    NoneStarts,
}

/// How a request is known again when the network delivers it a second time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redelivery {
    /// What both deliveries have in common and no other request has (sender, packet id, content).
    pub mark: String,
    /// Whether the network says that this is not the first delivery.
    pub repeated: bool,
}

/// A wish to start tasks, with who wishes it. Several targets of one request are answered one by one.
#[derive(Debug, Clone)]
pub struct StartRequest {
    /// What to start; the same task twice is started once.
    pub targets: Vec<StartTarget>,
    /// How the ids among them depend on each other.
    pub id_rule: IdRule,
    /// Echoed unchanged. A second request of the same requester with the same transaction is a duplicate of the first.
    pub transaction: Option<Value>,
    /// How a second delivery of this request is known; `None`: it cannot be.
    pub redelivery: Option<Redelivery>,
    /// How it is known again when the broker that kept it hands it over again.
    pub kept: Option<Redelivery>,
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

impl StartStatus {
    /// The word on the wire, in logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Started => "started",
            Self::NotStarted => "not_started",
            Self::Denied => "denied",
            Self::UnknownTask => "unknown_task",
            Self::Invalid => "invalid",
            Self::Unreachable => "unreachable",
            Self::Unknown => "unknown",
        }
    }
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
#[derive(Debug, Clone, PartialEq, Eq)]
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

impl StartOutcome {
    /// An outcome that is a refusal or failure, with its reason.
    pub fn failed(status: StartStatus, code: &'static str, message: impl Into<String>) -> Self {
        let error = Some(StartError { code, message: message.into() });
        Self { status, task_id: None, task_name: None, execution_id: None, target: None, error }
    }

    /// The same for a target; an id among targets is the task.
    #[must_use]
    pub fn of(mut self, target: &StartTarget) -> Self {
        if let StartTarget::Id(id) = target {
            self.task_id = Some(*id);
        }
        self.target = Some(target.clone());
        self
    }
}
