//! What is asked and what is answered when somebody wants a task started: one type for all doors.
//!
//! Wire form of the JSON: design, "Names on the wire". Plain data; the doing is in the sibling files.

use std::{borrow::Cow, time::Duration};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{audit::Asker, end::ExecutionEnd};
use crate::names::{ExecutionId, TaskId};

/// Which task or tasks.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
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
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum IdRule {
    /// Each is started or not on its own.
    #[default]
    EachOnItsOwn,
    /// If one does not exist, none is started (`allTaskIdsMustExist`). Ids the filter denies do not count as missing.
    AllMustExist,
    /// None is started: the caller knows already that one cannot exist. They are only looked up.
    NoneStarts,
}

/// What the final answer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Wait {
    /// That QRS started the task.
    #[default]
    Started,
    /// That the execution ended.
    Finished,
}

/// What happens to a task that runs already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnRunning {
    /// It is not started: [`StartStatus::Skipped`].
    #[default]
    Skip,
    /// It is started when it has ended; one request per task waits, a further one is skipped.
    Queue,
    /// QRS is asked all the same.
    Start,
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
    /// What the final answer waits for.
    pub wait: Wait,
    /// What happens to a task that runs already.
    pub on_running: OnRunning,
    /// How long it waits for a QRS that cannot be reached, or for a running task to end; zero: not at all.
    pub patience: Duration,
    /// What the started load script shall find; stored before the task is started.
    pub parameters: Option<Map<String, Value>>,
    /// Door it came by: `mqtt`, `rest`, `external`.
    pub door: &'static str,
    /// Who asked: user, client id or address; for logs and the answer.
    pub requested_by: String,
    /// The same in parts, for the audit log.
    pub asker: Asker,
    /// Where answers go, in the words of the door; kept with the request over a restart. `None`: somebody waits for them here, and a request
    /// that was under way when the program went down is not taken up again.
    pub return_address: Option<Value>,
}

impl StartRequest {
    /// A request for these targets and nothing else: each on its own, answered when started, not waiting for anything.
    pub fn new(targets: Vec<StartTarget>, door: &'static str, requested_by: impl Into<String>) -> Self {
        Self {
            targets,
            id_rule: IdRule::default(),
            transaction: None,
            redelivery: None,
            kept: None,
            wait: Wait::default(),
            on_running: OnRunning::default(),
            patience: Duration::ZERO,
            parameters: None,
            door,
            requested_by: requested_by.into(),
            asker: Asker::default(),
            return_address: None,
        }
    }
}

/// Final and intermediate words on a start request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartStatus {
    /// Taken, waiting: for QRS, or for the running task to end.
    Accepted,
    /// QRS started it.
    Started,
    /// Its execution ended well.
    Finished,
    /// Its execution failed, retries included.
    Failed,
    /// Its execution was stopped: by hand, by its time-out, or with its task.
    Aborted,
    /// It runs already.
    Skipped,
    /// It waited until its deadline; nothing was started.
    Expired,
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
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
            Self::Skipped => "skipped",
            Self::Expired => "expired",
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StartError {
    /// Stable word for programs, e.g. `retained`, `task_filter`, `qrs_unreachable`.
    pub code: Cow<'static, str>,
    /// Sentence for people: what, where, what to do.
    pub message: String,
}

/// What became of one task of a request. Key order on the wire is the field order here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
    /// How the execution went, where it was followed to its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Box<ExecutionEnd>>,
}

impl StartOutcome {
    /// An outcome without a reason.
    pub fn of_status(status: StartStatus) -> Self {
        Self { status, task_id: None, task_name: None, execution_id: None, target: None, error: None, end: None }
    }

    /// An outcome that is a refusal or failure, with its reason.
    pub fn failed(status: StartStatus, code: &'static str, message: impl Into<String>) -> Self {
        let error = Some(StartError { code: code.into(), message: message.into() });
        Self { error, ..Self::of_status(status) }
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
