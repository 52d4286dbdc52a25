//! Looking for tasks, and what is known of one.
//!
//! Full task objects are large (5 KB each); a site has up to ten thousand. So the short list is asked for first, and the full objects of as
//! many as are wanted. Invariants: a task is found by a tag or property exactly as a start by it would find it; at most `limit` come out,
//! ordered by name.

use serde_json::Value;
use time::OffsetDateTime;

use super::{
    client::{Purpose, Qrs},
    error::QrsError,
    executions::{ExecutionStatus, IDS},
    fields,
    filter::{Filter, FilterError},
    model::{Task, custom_properties, tags},
};
use crate::names::{AppId, TaskId};

/// Which tasks are wanted; what is absent does not matter. All that is given must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskSearch {
    /// A part of the name, in any case.
    pub name: Option<String>,
    /// A tag, exactly.
    pub tag: Option<String>,
    /// A custom property and one of its values, exactly.
    pub property: Option<(String, String)>,
}

/// Kind of a task (`TaskType` of QRS).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TaskType {
    /// 0
    Reload,
    /// 1
    ExternalProgram,
    /// 2
    UserSync,
    /// 3
    Distribute,
    /// 4
    Preload,
    /// A number this program does not know.
    Other(i64),
}

impl TaskType {
    /// The kind with this number.
    pub const fn from_number(number: i64) -> Self {
        match number {
            0 => Self::Reload,
            1 => Self::ExternalProgram,
            2 => Self::UserSync,
            3 => Self::Distribute,
            4 => Self::Preload,
            other => Self::Other(other),
        }
    }

    /// The word `mqttConfig.taskTypes` has for it; `other` for a number this program does not know.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Reload => "reload",
            Self::ExternalProgram => "externalProgram",
            Self::UserSync => "userSync",
            Self::Distribute => "distribute",
            Self::Preload => "preload",
            Self::Other(_) => "other",
        }
    }
}

/// The app of a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppRef {
    /// Id.
    pub id: AppId,
    /// Name.
    pub name: String,
}

/// How a task went last.
#[derive(Debug, Clone, PartialEq)]
pub struct LastRun {
    /// State.
    pub status: ExecutionStatus,
    /// When it began, UTC.
    pub started: Option<OffsetDateTime>,
    /// When it ended, UTC.
    pub stopped: Option<OffsetDateTime>,
    /// How long it ran, milliseconds.
    pub duration_ms: Option<u64>,
    /// The node it ran on.
    pub node: Option<String>,
}

/// What is known of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskInfo {
    /// Id.
    pub id: TaskId,
    /// Name as the QMC shows it.
    pub name: String,
    /// Kind.
    pub task_type: TaskType,
    /// Whether it may be started.
    pub enabled: bool,
    /// Its app; external programs and user synchronisations have none.
    pub app: Option<AppRef>,
    /// Tags, in QRS's order.
    pub tags: Vec<String>,
    /// Custom properties, name and value, in QRS's order.
    pub custom_properties: Vec<(String, String)>,
    /// How it went last; `None`: it never ran.
    pub last: Option<LastRun>,
    /// When its schedule starts it next, UTC; `None`: it has none.
    pub next_execution: Option<OffsetDateTime>,
    /// How often a failed run is repeated.
    pub max_retries: Option<u64>,
    /// After how many minutes it is stopped.
    pub timeout_minutes: Option<u64>,
}

impl TaskInfo {
    fn read(object: &Value) -> Option<Self> {
        let Task { id, name } = Task::read(object)?;
        let operational = fields::field(object, "operational");
        let count = |name| fields::number(object, name).and_then(|number| u64::try_from(number).ok());
        Some(Self {
            id,
            name,
            task_type: TaskType::from_number(fields::number(object, "taskType").unwrap_or_default()),
            enabled: fields::flag(object, "enabled").unwrap_or(true),
            app: fields::field(object, "app").and_then(AppRef::read),
            tags: tags(object),
            custom_properties: custom_properties(object),
            last: operational
                .and_then(|operational| fields::field(operational, "lastExecutionResult"))
                .and_then(LastRun::read),
            next_execution: operational.and_then(|operational| fields::date(operational, "nextExecution")),
            max_retries: count("maxRetries"),
            timeout_minutes: count("taskSessionTimeout"),
        })
    }
}

impl AppRef {
    fn read(object: &Value) -> Option<Self> {
        Some(Self { id: fields::id(object, "id")?, name: fields::text(object, "name").unwrap_or_default() })
    }
}

impl LastRun {
    fn read(object: &Value) -> Option<Self> {
        let status = ExecutionStatus::from_number(fields::number(object, "status")?);
        if status == ExecutionStatus::NeverStarted {
            return None;
        }
        Some(Self {
            status,
            started: fields::date(object, "startTime"),
            stopped: fields::date(object, "stopTime"),
            duration_ms: fields::number(object, "duration").and_then(|millis| u64::try_from(millis).ok()),
            node: fields::text(object, "executingNodeName"),
        })
    }
}

impl TaskSearch {
    fn filter(&self) -> Result<Option<Filter>, FilterError> {
        let name = self.name.as_deref().map(Filter::name_part).transpose()?;
        let tag = self.tag.as_deref().map(Filter::tag).transpose()?;
        let property = self.property.as_ref().map(|(name, value)| Filter::custom_property(name, value)).transpose()?;
        Ok([name, tag, property].into_iter().flatten().reduce(Filter::and))
    }

    /// What QRS compares without regard to case, or across properties, is compared again.
    fn fits(&self, task: &TaskInfo) -> bool {
        let tag = self.tag.as_ref().is_none_or(|tag| task.tags.contains(tag));
        tag && self.property.as_ref().is_none_or(|property| task.custom_properties.contains(property))
    }
}

impl Qrs {
    /// Tasks that fit a search, with all that is known of them; at most `limit`, ordered by name.
    /// `GET /qrs/task?orderby=name asc&filter=…`, then `GET /qrs/task/full?filter=id eq <id> or …` for each 50.
    ///
    /// # Errors
    /// If nothing can have such a name, or QRS gives no usable answer.
    pub async fn search_tasks(&self, search: &TaskSearch, limit: usize) -> Result<Vec<TaskInfo>, QrsError> {
        let filter = search.filter()?.map(|filter| format!("&filter={}", filter.encoded())).unwrap_or_default();
        let short = self.list_at("search", Purpose::Enrich, &format!("task?orderby=name%20asc{filter}")).await?;
        let mut short = self.entries("search", &short, Task::read);
        short.sort_by_cached_key(|task| (task.name.to_lowercase(), task.id));
        let mut found = Vec::new();
        for some in short.chunks(IDS) {
            if found.len() >= limit {
                break;
            }
            let ids: Vec<TaskId> = some.iter().map(|task| task.id).collect();
            let mut full = self.infos(&ids).await?;
            full.retain(|task| search.fits(task));
            found.append(&mut full);
        }
        found.truncate(limit);
        Ok(found)
    }

    /// What is known of a task; `None`: QRS does not know it, or hides it from our user. `GET /qrs/task/full?filter=id eq <id>`
    ///
    /// # Errors
    /// If QRS gives no usable answer.
    pub async fn task_info(&self, id: TaskId) -> Result<Option<TaskInfo>, QrsError> {
        Ok(self.infos(&[id]).await?.into_iter().find(|task| task.id == id))
    }

    /// Of these tasks, ordered by name.
    async fn infos(&self, ids: &[TaskId]) -> Result<Vec<TaskInfo>, QrsError> {
        let Some(filter) = Filter::tasks(ids) else { return Ok(Vec::new()) };
        let full = self.list("task_info", Purpose::Enrich, "task/full", &filter).await?;
        self.kinds().note(&full);
        let mut infos = self.entries("task_info", &full, TaskInfo::read);
        infos.retain(|task| ids.contains(&task.id));
        infos.sort_by_cached_key(|task| (task.name.to_lowercase(), task.id));
        Ok(infos)
    }
}
