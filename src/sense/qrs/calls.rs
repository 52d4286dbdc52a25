//! The calls that find and start tasks, one function each, and what all calls share. Paths and answers: Qlik Sense Repository Service API.

use std::{str::FromStr, time::Duration};

use bytes::Bytes;
use reqwest::Method;
use serde_json::Value;
use time::OffsetDateTime;

use super::{
    client::{Purpose, Qrs, StartTurn},
    error::QrsError,
    fields,
    filter::Filter,
    model::{Task, custom_properties, tags},
};
use crate::{
    names::{AppId, ExecutionId, ResultId, TaskId},
    telemetry::throttle::Throttle,
};

/// QRS's word on a start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartReply {
    /// It started; with the execution session, unless QRS answered without one.
    Started(Option<ExecutionId>),
    /// It did not start: QRS answered the zero id (task disabled, no scheduler, app missing).
    NotStarted,
}

/// How a task went last, as far as it can be told apart from how it goes next.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LastAttempt {
    /// Its result.
    pub id: Option<ResultId>,
    /// When it began, UTC by QRS's clock; `None`: the task never ran.
    pub started: Option<OffsetDateTime>,
    /// The app the task reloads; external programs and user synchronisations have none.
    pub app: Option<AppId>,
}

impl Qrs {
    /// The task with this id, if QRS knows it. `GET /qrs/task?filter=id eq <id>`
    ///
    /// # Errors
    /// If QRS gives no usable answer.
    pub async fn task(&self, id: TaskId) -> Result<Option<Task>, QrsError> {
        let found = self.tasks("find_task", "task", &Filter::task(id)).await?;
        Ok(found.iter().filter_map(Task::read).find(|task| task.id == id))
    }

    /// All tasks with exactly this tag, in QRS's order. `GET /qrs/task/full?filter=tags.name eq '<tag>'`
    ///
    /// # Errors
    /// If no tag can have that name, or QRS gives no usable answer.
    pub async fn tasks_with_tag(&self, tag: &str) -> Result<Vec<Task>, QrsError> {
        let found = self.tasks("find_tag", "task/full", &Filter::tag(tag)?).await?;
        // QRS compares without regard to case.
        let exact = |task: &&Value| tags(task).iter().any(|name| name == tag);
        Ok(found.iter().filter(exact).filter_map(Task::read).collect())
    }

    /// All tasks with exactly this value of this custom property, in QRS's order.
    ///
    /// # Errors
    /// If no property can have that name or value, or QRS gives no usable answer.
    pub async fn tasks_with_property(&self, name: &str, value: &str) -> Result<Vec<Task>, QrsError> {
        let filter = Filter::custom_property(name, value)?;
        let found = self.tasks("find_property", "task/full", &filter).await?;
        // QRS may match the name of one property with the value of another, and compares without regard to case.
        let exact = |task: &&Value| custom_properties(task).iter().any(|(n, v)| n == name && v == value);
        Ok(found.iter().filter(exact).filter_map(Task::read).collect())
    }

    /// A task as the whole object of QRS, keys in original order; `None`: unknown. `GET /qrs/task/full?filter=id eq <id>`
    ///
    /// # Errors
    /// If QRS gives no usable answer.
    pub async fn task_full(&self, id: TaskId) -> Result<Option<Value>, QrsError> {
        Ok(self.list("task_full", Purpose::Enrich, "task/full", &Filter::task(id)).await?.into_iter().next())
    }

    /// An app as the whole object of QRS, keys in original order; `None`: unknown. `GET /qrs/app/full?filter=id eq <id>`
    ///
    /// # Errors
    /// If QRS gives no usable answer.
    pub async fn app_full(&self, id: AppId) -> Result<Option<Value>, QrsError> {
        Ok(self.list("app_full", Purpose::Enrich, "app/full", &Filter::app(id)).await?.into_iter().next())
    }

    /// The last attempt of a task that QRS shows with it (not of one that is under way), and the app it reloads. `GET /qrs/task/full?filter=id eq <id>`
    ///
    /// # Errors
    /// If QRS gives no usable answer.
    pub async fn last_attempt(&self, id: TaskId) -> Result<LastAttempt, QrsError> {
        let found = self.list("last_attempt", Purpose::Start, "task/full", &Filter::task(id)).await?;
        let Some(task) = found.first() else { return Ok(LastAttempt::default()) };
        let last = task.get("operational").and_then(|operational| operational.get("lastExecutionResult"));
        Ok(LastAttempt {
            id: last.and_then(|last| fields::id(last, "id")),
            started: last.and_then(|last| fields::date(last, "startTime")),
            app: fields::field(task, "app").and_then(|app| fields::id(app, "id")),
        })
    }

    /// Starts a task and waits until QRS says whether it started (not until it ends). Sent once, never repeated.
    /// `POST /qrs/task/<id>/start/synchronous`
    ///
    /// # Errors
    /// If QRS refuses or gives no usable answer; [`QrsError::may_have_arrived`] tells whether the task may run nevertheless.
    pub async fn start(&self, id: TaskId) -> Result<StartReply, QrsError> {
        let turn = self.turn_to_start().await?;
        self.start_now(turn, id).await
    }

    /// The same for who has waited for a turn: the call is made at once.
    ///
    /// # Errors
    /// As [`Qrs::start`].
    pub async fn start_now(&self, _turn: StartTurn<'_>, id: TaskId) -> Result<StartReply, QrsError> {
        let path = format!("task/{id}/start/synchronous");
        let answer = self.act_now("start", Method::POST, &path, Bytes::from_static(b"{}")).await?;
        if answer.is_empty() {
            return Ok(self.sensible(StartReply::Started(None)));
        }
        let value: Value = self.parse(&answer)?;
        let execution = value.get("value").and_then(Value::as_str).and_then(|text| text.parse::<ExecutionId>().ok());
        match execution {
            Some(id) if id.is_zero() => Ok(self.sensible(StartReply::NotStarted)),
            Some(id) => Ok(self.sensible(StartReply::Started(Some(id)))),
            None => Err(self.unexpected("a start was answered without an execution id")),
        }
    }

    /// What QRS says about itself. `GET /qrs/about`
    ///
    /// # Errors
    /// If QRS gives no usable answer.
    pub async fn about(&self) -> Result<Value, QrsError> {
        let answer = self.read("about", Purpose::Enrich, "about").await?;
        Ok(self.sensible(self.parse(&answer)?))
    }

    /// Tasks to be started.
    async fn tasks(&self, op: &'static str, path: &str, filter: &Filter) -> Result<Vec<Value>, QrsError> {
        let found = self.list(op, Purpose::Start, path, filter).await?;
        self.kinds().note(&found);
        Ok(found)
    }

    pub(super) async fn list(
        &self,
        op: &'static str,
        purpose: Purpose,
        path: &str,
        filter: &Filter,
    ) -> Result<Vec<Value>, QrsError> {
        self.list_at(op, purpose, &format!("{path}?filter={}", filter.encoded())).await
    }

    /// A list; `path` may have a query, made of nothing but [`Filter`]s and words of this program.
    pub(super) async fn list_at(&self, op: &'static str, purpose: Purpose, path: &str) -> Result<Vec<Value>, QrsError> {
        let answer = self.read(op, purpose, path).await?;
        match self.parse(&answer)? {
            Value::Array(objects) => Ok(self.sensible(objects)),
            _ => Err(self.unexpected("a list was expected")),
        }
    }

    /// The entries of a list that can be read; the others are skipped, counted, and told now and then.
    pub(super) fn entries<T>(&self, op: &'static str, objects: &[Value], read: impl Fn(&Value) -> Option<T>) -> Vec<T> {
        static TOLD: Throttle = Throttle::every(Duration::from_secs(60));
        let entries: Vec<T> = objects.iter().filter_map(read).collect();
        let skipped = objects.len() - entries.len();
        if skipped > 0 {
            self.metrics().skip(op, skipped);
            if let Some(suppressed) = TOLD.pass() {
                tracing::warn!(
                    code = "qrs_entries_skipped",
                    op,
                    skipped,
                    suppressed,
                    "entries of a list of the Qlik Repository Service are skipped: they have no id or no state; report it with the version of Qlik Sense"
                );
            }
        }
        entries
    }

    /// The `{"value": "<id>"}` of an answer.
    pub(super) fn value_of<T: FromStr>(&self, answer: &Bytes) -> Result<T, QrsError> {
        let object = self.parse(answer)?;
        let value = object.get("value").and_then(Value::as_str).and_then(|text| text.parse().ok());
        value.map(|value| self.sensible(value)).ok_or_else(|| self.unexpected("an id was expected"))
    }

    pub(super) fn parse(&self, answer: &Bytes) -> Result<Value, QrsError> {
        serde_json::from_slice(answer).map_err(|_| self.unexpected("it is not JSON"))
    }

    /// Notes that QRS is well: it gave an answer that makes sense.
    pub(super) fn sensible<T>(&self, answer: T) -> T {
        self.note(Ok(()));
        answer
    }

    pub(super) fn unexpected(&self, cause: &str) -> QrsError {
        let error = QrsError::BadAnswer { at: self.all_hosts().at().to_owned(), cause: cause.to_owned() };
        self.note(Err(&error));
        error
    }
}
