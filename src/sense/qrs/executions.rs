//! Following executions: which are under way (`executionsession`), how each attempt went (`executionresult`), stopping one.
//!
//! A session is deleted when its execution ends; an execution that was retried has several results. Invariants: at most [`IDS`] ids go into
//! one call; an entry that cannot be read is skipped and counted, never an error of the whole list; lists come out oldest first.

use std::time::Duration;

use serde_json::Value;
use time::OffsetDateTime;

pub use super::status::ExecutionStatus;
use super::{
    client::{Purpose, Qrs},
    error::QrsError,
    fields,
    filter::Filter,
    kinds::REFERENCES,
};
use crate::names::{AppId, ExecutionId, ResultId, TaskId};

/// Ids in one call: a filter of 50 has about 4 KB, a quarter of what the server takes as an address.
pub(super) const IDS: usize = 50;
/// A span of time that is not halved again when its attempts do not fit into one answer.
const SHORTEST_SPAN: Duration = Duration::from_secs(1);

/// An execution under way (`executionsession`).
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// The execution.
    pub id: ExecutionId,
    /// Its task.
    pub task: Option<TaskId>,
    /// State of the present attempt.
    pub status: Option<ExecutionStatus>,
    /// Why it is being stopped: 0 it is not, 1 somebody asked, 2 it took too long, 3 the task was deleted.
    pub abort_reason: i64,
}

/// One attempt (`executionresult`).
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// Its own id.
    pub id: ResultId,
    /// The execution, shared by all its attempts.
    pub execution: Option<ExecutionId>,
    /// The task.
    pub task: Option<TaskId>,
    /// The task's app, if it has one.
    pub app: Option<AppId>,
    /// State.
    pub status: ExecutionStatus,
    /// When it began to run, UTC.
    pub started: Option<OffsetDateTime>,
    /// When it ended, UTC.
    pub stopped: Option<OffsetDateTime>,
    /// How long it ran, milliseconds.
    pub duration_ms: Option<u64>,
    /// The node it ran on.
    pub node: Option<String>,
    /// When QRS changed it last, UTC.
    pub modified: Option<OffsetDateTime>,
    /// For whom QRS changed it last, `DIR\user`: the scheduler's account.
    pub modified_by: Option<String>,
    /// When QRS made it, UTC.
    pub created: Option<OffsetDateTime>,
    /// Whether QRS says that there is a script log.
    pub script_log_available: bool,
    /// Id of the script log's file, for the older of the two interfaces.
    pub file_reference: Option<String>,
    /// What the scheduler wrote about it, in its order.
    pub details: Vec<String>,
}

impl Session {
    fn read(object: &Value) -> Option<Self> {
        let task = |name: &str| fields::field(object, name).and_then(|task| fields::id(task, "id"));
        let result = fields::field(object, "executionResult");
        let status = result.and_then(|result| fields::number(result, "status"));
        Some(Self {
            id: fields::id(object, "id")?,
            task: REFERENCES.into_iter().find_map(task),
            status: status.map(ExecutionStatus::from_number),
            abort_reason: fields::number(object, "abortReason").unwrap_or_default(),
        })
    }
}

impl Attempt {
    fn read(object: &Value) -> Option<Self> {
        let reference: Option<uuid::Uuid> = fields::id(object, "fileReferenceID");
        Some(Self {
            id: fields::id(object, "id")?,
            execution: fields::id(object, "executionID"),
            task: fields::id(object, "taskID"),
            app: fields::id(object, "appID"),
            status: ExecutionStatus::from_number(fields::number(object, "status")?),
            started: fields::date(object, "startTime"),
            stopped: fields::date(object, "stopTime"),
            duration_ms: fields::number(object, "duration").and_then(|millis| u64::try_from(millis).ok()),
            node: fields::text(object, "executingNodeName"),
            modified: fields::date(object, "modifiedDate"),
            modified_by: fields::text(object, "modifiedByUserName"),
            created: fields::date(object, "createdDate"),
            script_log_available: fields::flag(object, "scriptLogAvailable").unwrap_or_default(),
            file_reference: reference.map(|id| id.to_string()),
            details: fields::items(object, "details").filter_map(|line| fields::text(line, "message")).collect(),
        })
    }
}

impl Qrs {
    /// Executions of a task that are under way. Has the turns of starts, which ask it. `GET /qrs/executionsession?filter=reloadTask.id eq <id>`
    ///
    /// # Errors
    /// If QRS gives no usable answer.
    pub async fn sessions_of(&self, task: TaskId) -> Result<Vec<Session>, QrsError> {
        let Some(filter) = Filter::sessions_of(task, self.kinds().references(task)) else { return Ok(Vec::new()) };
        let found = self.list("sessions", Purpose::Start, "executionsession", &filter).await?;
        // Whoever follows a task must never take another's session for its own, whatever a server makes of the filter.
        let sessions = self.entries("sessions", &found, Session::read);
        Ok(sessions.into_iter().filter(|session| session.task.is_none_or(|of| of == task)).collect())
    }

    /// Those of these executions that are under way; one call for each 50 ids. `GET /qrs/executionsession?filter=id eq <id> or …`
    ///
    /// # Errors
    /// If QRS gives no usable answer to one of the calls.
    pub async fn sessions(&self, ids: &[ExecutionId]) -> Result<Vec<Session>, QrsError> {
        let mut sessions = Vec::new();
        for some in ids.chunks(IDS) {
            let Some(filter) = Filter::executions_under_way(some) else { break };
            let found = self.list("sessions", Purpose::Follow, "executionsession", &filter).await?;
            sessions.extend(self.entries("sessions", &found, Session::read));
        }
        Ok(sessions)
    }

    /// Attempts of these executions, oldest first; one call for each 50 ids. `GET /qrs/executionresult/full?filter=ExecutionId eq <id> or …`
    ///
    /// # Errors
    /// If QRS gives no usable answer to one of the calls.
    pub async fn attempts(&self, ids: &[ExecutionId]) -> Result<Vec<Attempt>, QrsError> {
        let mut attempts = Vec::new();
        for some in ids.chunks(IDS) {
            let Some(filter) = Filter::attempts(some) else { break };
            attempts.extend(self.results(Purpose::Follow, &filter).await?);
        }
        attempts.sort_by_key(by_age);
        Ok(attempts)
    }

    /// Attempts of a task created since a moment (this moment included, down to milliseconds), oldest first. Has the turns of starts, which ask
    /// it.
    ///
    /// # Errors
    /// If QRS gives no usable answer.
    pub async fn attempts_of(&self, task: TaskId, since: OffsetDateTime) -> Result<Vec<Attempt>, QrsError> {
        let mut attempts = self.results(Purpose::Start, &Filter::attempts_of(task, since)).await?;
        attempts.sort_by_key(by_age);
        Ok(attempts)
    }

    /// All attempts that changed after a moment, in the order of their changes; at most `limit`, and with them those that changed in the same
    /// millisecond as the last, so that whoever goes on from there misses none. QRS keeps finer times than it tells: what changed within the
    /// millisecond of `since` may come again.
    ///
    /// # Errors
    /// If QRS gives no usable answer.
    pub async fn attempts_modified_after(&self, since: OffsetDateTime, limit: usize) -> Result<Vec<Attempt>, QrsError> {
        let mut until = None;
        let mut attempts = loop {
            match self.results(Purpose::Follow, &Filter::modified(since, until)).await {
                // After a long pause there may be more than one answer holds; the oldest are wanted first anyway.
                Err(QrsError::TooMuch { .. }) if let Some(middle) = middle(since, until) => until = Some(middle),
                answer => break answer?,
            }
        };
        attempts.sort_by_key(|attempt| (attempt.modified, by_age(attempt)));
        let last = limit.checked_sub(1).and_then(|last| attempts.get(last)).map(|attempt| attempt.modified);
        let Some(last) = last else {
            attempts.truncate(limit);
            return Ok(attempts);
        };
        let kept = attempts.iter().take_while(|attempt| attempt.modified <= last).count();
        attempts.truncate(kept);
        Ok(attempts)
    }

    /// One attempt; `None`: QRS has it no longer. `GET /qrs/executionresult/<id>`
    ///
    /// # Errors
    /// If QRS gives no usable answer.
    pub async fn attempt(&self, id: ResultId) -> Result<Option<Attempt>, QrsError> {
        match self.read("result", Purpose::Follow, &format!("executionresult/{id}")).await {
            Err(QrsError::Status { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
            Ok(answer) => {
                let object = self.parse(&answer)?;
                let attempt = Attempt::read(&object).filter(|attempt| attempt.id == id);
                attempt
                    .map(|attempt| Some(self.sensible(attempt)))
                    .ok_or_else(|| self.unexpected("it is not the execution result that was asked for"))
            }
        }
    }

    /// Asks QRS to stop a task; the end comes later (`AbortInitiated`, `Aborting`, `Aborted`). Sent once, never repeated.
    /// `POST /qrs/task/<id>/stop`
    ///
    /// # Errors
    /// If QRS refuses or gives no usable answer; [`QrsError::may_have_arrived`] tells whether the task may be stopped nevertheless.
    pub async fn stop_task(&self, id: TaskId) -> Result<(), QrsError> {
        self.act("stop", Purpose::Start, reqwest::Method::POST, &format!("task/{id}/stop"), "").await?;
        self.sensible(());
        Ok(())
    }

    async fn results(&self, purpose: Purpose, filter: &Filter) -> Result<Vec<Attempt>, QrsError> {
        let found = self.list("results", purpose, "executionresult/full", filter).await?;
        Ok(self.entries("results", &found, Attempt::read))
    }
}

/// Creation, beginning, id: the order in which attempts were made.
fn by_age(attempt: &Attempt) -> (Option<OffsetDateTime>, Option<OffsetDateTime>, ResultId) {
    (attempt.created, attempt.started, attempt.id)
}

/// The middle of a span of time, if it is long enough to have one.
fn middle(since: OffsetDateTime, until: Option<OffsetDateTime>) -> Option<OffsetDateTime> {
    let span = until.unwrap_or_else(OffsetDateTime::now_utc) - since;
    (span > SHORTEST_SPAN).then(|| since + span / 2)
}
