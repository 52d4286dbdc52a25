//! What happened in Qlik Sense, whoever told us: the one event model of the house.
//!
//! Fields are kept as they were sent (Butler's payloads are byte for byte), so most are text; where a part of the house needs a proven
//! id it parses it once with [`TaskEvent::task_id`]. A field is `None` when the datagram did not have it at all.

use std::time::SystemTime;

use crate::names::{ExecutionId, TaskId};

/// Something that happened in Qlik Sense.
#[derive(Debug, Clone, PartialEq)]
pub enum SenseEvent {
    /// A task ended (or engine reload failed).
    Task(TaskEvent),
    /// A user's session or connection.
    Session(SessionEvent),
}

impl SenseEvent {
    /// The node it is about.
    pub fn host(&self) -> &str {
        match self {
            Self::Task(event) => &event.host,
            Self::Session(event) => &event.host,
        }
    }
}

/// What a task did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskEventKind {
    /// Failed after its last retry.
    Failed,
    /// Aborted.
    Aborted,
    /// Succeeded.
    Succeeded,
    /// A distribute task ended (its outcome is not in the datagram).
    Distributed,
    /// The engine's own report of a failed reload (9 fields; published nowhere but as CloudEvent).
    EngineReloadFailed,
}

impl TaskEventKind {
    /// The type of its CloudEvent, and of its row in the journal.
    pub const fn type_name(self) -> &'static str {
        match self {
            Self::Failed => "sense.task.failed",
            Self::Aborted => "sense.task.aborted",
            Self::Succeeded => "sense.task.succeeded",
            Self::Distributed => "sense.task.distributed",
            Self::EngineReloadFailed => "sense.engine.reload_failed",
        }
    }
}

/// Which source brought an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// A datagram of a log appender.
    Datagram,
    /// QRS was asked what ended.
    Polling,
    /// QRS told that an execution changed, and was asked how.
    Notification,
}

impl Origin {
    /// As in metrics and in the data of CloudEvents.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Datagram => "datagram",
            Self::Polling => "polling",
            Self::Notification => "notification",
        }
    }
}

/// A task event: the 11 fields of the scheduler's datagram (format: `type;host;taskName;appName;user;taskId;appId;timestamp;level;
/// executionId;message`).
#[derive(Debug, Clone, PartialEq)]
pub struct TaskEvent {
    /// What happened.
    pub kind: TaskEventKind,
    /// Host that sent it (short machine name).
    pub host: String,
    /// Task name.
    pub task_name: Option<String>,
    /// App name.
    pub app_name: Option<String>,
    /// `DIR\user`, backslashes already normalised.
    pub user: Option<String>,
    /// Task id as sent.
    pub task_id: Option<String>,
    /// App id as sent.
    pub app_id: Option<String>,
    /// The log's own time, local to the host, without zone.
    pub log_time: Option<String>,
    /// Log level (INFO even for failures: no severity).
    pub log_level: Option<String>,
    /// Execution id as sent.
    pub execution_id: Option<String>,
    /// Log message.
    pub message: Option<String>,
    /// When we received it.
    pub received: SystemTime,
    /// The datagram could be read in several ways and the likeliest was taken.
    pub ambiguous: bool,
    /// Which source brought it.
    pub origin: Origin,
}

impl TaskEvent {
    /// The task's id, if what was sent is one.
    pub fn task_id(&self) -> Option<TaskId> {
        self.task_id.as_deref()?.parse().ok()
    }

    /// The execution's id, if what was sent is one.
    pub fn execution_id(&self) -> Option<ExecutionId> {
        self.execution_id.as_deref()?.parse().ok()
    }
}

/// What a user did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SessionEventKind {
    /// `Start session`
    SessionStarted,
    /// `Stop session`
    SessionStopped,
    /// `Open connection`
    ConnectionOpened,
    /// `Close connection`
    ConnectionClosed,
}

impl SessionEventKind {
    /// The type of its CloudEvent, and of its row in the journal.
    pub const fn type_name(self) -> &'static str {
        match self {
            Self::SessionStarted => "sense.session.started",
            Self::SessionStopped => "sense.session.stopped",
            Self::ConnectionOpened => "sense.connection.opened",
            Self::ConnectionClosed => "sense.connection.closed",
        }
    }
}

/// A user event: the 8 fields of the proxy's datagram (`type;host;command;userDirectory;userId;origin;context;message`).
#[derive(Debug, Clone, PartialEq)]
pub struct SessionEvent {
    /// What happened.
    pub kind: SessionEventKind,
    /// Host of the proxy.
    pub host: String,
    /// User directory.
    pub directory: Option<String>,
    /// User id.
    pub user: Option<String>,
    /// Origin, as sent.
    pub origin: Option<String>,
    /// Context, as sent.
    pub context: Option<String>,
    /// Log message.
    pub message: Option<String>,
    /// When we received it.
    pub received: SystemTime,
}
