//! Which properties the objects of the repository have, and of what kind they are.

use super::super::site::status::STATUS_NAMES;

/// Kind of a property.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A GUID, written without quotes.
    Guid,
    /// Free text, in quotes.
    Text,
    /// A whole number.
    Number,
    /// `true` or `false`.
    Truth,
    /// A date, in quotes.
    Date,
    /// A name or number of an enumeration.
    Enumeration(&'static [(&'static str, i64)]),
}

/// The properties of one kind of object: path in its JSON and kind.
pub type Schema = [(&'static str, Kind)];

const TASK_TYPES: &[(&str, i64)] =
    &[("Reload", 0), ("ExternalProgram", 1), ("UserSync", 2), ("Distribute", 3), ("Preload", 4)];
const ABORT_REASONS: &[(&str, i64)] = &[("Undefined", 0), ("Manual", 1), ("Timeout", 2), ("DeletedTask", 3)];

const EVENT_TYPES: &[(&str, i64)] = &[("Schema", 0), ("Composite", 1)];
const RULE_STATES: &[(&str, i64)] = &[("Undefined", 0), ("TaskSuccessful", 1), ("TaskFail", 2)];
const CHANGE_TYPES: &[(&str, i64)] = &[("Undefined", 0), ("Add", 1), ("Update", 2), ("Delete", 3)];

/// Tasks of all kinds.
pub const TASK: &Schema = &[
    ("id", Kind::Guid),
    ("name", Kind::Text),
    ("createdDate", Kind::Date),
    ("modifiedDate", Kind::Date),
    ("modifiedByUserName", Kind::Text),
    ("taskType", Kind::Enumeration(TASK_TYPES)),
    ("enabled", Kind::Truth),
    ("isManuallyTriggered", Kind::Truth),
    ("isPartialReload", Kind::Truth),
    ("taskSessionTimeout", Kind::Number),
    ("maxRetries", Kind::Number),
    ("tags.id", Kind::Guid),
    ("tags.name", Kind::Text),
    ("customProperties.id", Kind::Guid),
    ("customProperties.value", Kind::Text),
    ("customProperties.definition.id", Kind::Guid),
    ("customProperties.definition.name", Kind::Text),
    ("app.id", Kind::Guid),
    ("app.name", Kind::Text),
    ("app.published", Kind::Truth),
    ("app.stream.id", Kind::Guid),
    ("app.stream.name", Kind::Text),
    ("operational.id", Kind::Guid),
    ("operational.nextExecution", Kind::Date),
    ("operational.lastExecutionResult.id", Kind::Guid),
    ("operational.lastExecutionResult.status", Kind::Enumeration(STATUS_NAMES)),
    ("operational.lastExecutionResult.startTime", Kind::Date),
    ("operational.lastExecutionResult.stopTime", Kind::Date),
    ("operational.lastExecutionResult.duration", Kind::Number),
];

/// Apps.
pub const APP: &Schema = &[
    ("id", Kind::Guid),
    ("name", Kind::Text),
    ("createdDate", Kind::Date),
    ("modifiedDate", Kind::Date),
    ("published", Kind::Truth),
    ("publishTime", Kind::Date),
    ("stream.id", Kind::Guid),
    ("stream.name", Kind::Text),
    ("tags.id", Kind::Guid),
    ("tags.name", Kind::Text),
    ("customProperties.value", Kind::Text),
    ("customProperties.definition.name", Kind::Text),
    ("owner.userId", Kind::Text),
    ("owner.userDirectory", Kind::Text),
];

/// Execution results.
pub const RESULT: &Schema = &[
    ("id", Kind::Guid),
    ("createdDate", Kind::Date),
    ("modifiedDate", Kind::Date),
    ("modifiedByUserName", Kind::Text),
    ("taskID", Kind::Guid),
    ("executionID", Kind::Guid),
    ("appID", Kind::Guid),
    ("executingNodeID", Kind::Guid),
    ("executingNodeName", Kind::Text),
    ("status", Kind::Enumeration(STATUS_NAMES)),
    ("startTime", Kind::Date),
    ("stopTime", Kind::Date),
    ("duration", Kind::Number),
    ("fileReferenceID", Kind::Guid),
    ("scriptLogAvailable", Kind::Truth),
    ("scriptLogSize", Kind::Number),
    ("details.message", Kind::Text),
];

/// Execution sessions.
pub const SESSION: &Schema = &[
    ("id", Kind::Guid),
    ("createdDate", Kind::Date),
    ("modifiedDate", Kind::Date),
    ("abortAt", Kind::Date),
    ("abortReason", Kind::Enumeration(ABORT_REASONS)),
    ("executingNode.id", Kind::Guid),
    ("executingNode.name", Kind::Text),
    ("executionResult.id", Kind::Guid),
    ("executionResult.status", Kind::Enumeration(STATUS_NAMES)),
    ("reloadTask.id", Kind::Guid),
    ("reloadTask.name", Kind::Text),
    ("externalProgramTask.id", Kind::Guid),
    ("externalProgramTask.name", Kind::Text),
    ("userSyncTask.id", Kind::Guid),
    ("userSyncTask.name", Kind::Text),
];

/// Tags.
pub const TAG: &Schema =
    &[("id", Kind::Guid), ("name", Kind::Text), ("createdDate", Kind::Date), ("modifiedDate", Kind::Date)];

/// Custom property definitions.
pub const PROPERTY: &Schema = &[
    ("id", Kind::Guid),
    ("name", Kind::Text),
    ("createdDate", Kind::Date),
    ("modifiedDate", Kind::Date),
    ("valueType", Kind::Text),
    ("choiceValues", Kind::Text),
    ("objectTypes", Kind::Text),
];

/// Users.
pub const USER: &Schema = &[
    ("id", Kind::Guid),
    ("name", Kind::Text),
    ("createdDate", Kind::Date),
    ("modifiedDate", Kind::Date),
    ("userId", Kind::Text),
    ("userDirectory", Kind::Text),
    ("roles", Kind::Text),
    ("inactive", Kind::Truth),
];

/// Triggers: schema events and composite events.
pub const EVENT: &Schema = &[
    ("id", Kind::Guid),
    ("name", Kind::Text),
    ("createdDate", Kind::Date),
    ("modifiedDate", Kind::Date),
    ("enabled", Kind::Truth),
    ("eventType", Kind::Enumeration(EVENT_TYPES)),
    ("reloadTask.id", Kind::Guid),
    ("reloadTask.name", Kind::Text),
    ("externalProgramTask.id", Kind::Guid),
    ("externalProgramTask.name", Kind::Text),
    ("userSyncTask.id", Kind::Guid),
    ("userSyncTask.name", Kind::Text),
    ("compositeRules.reloadTask.id", Kind::Guid),
    ("compositeRules.reloadTask.name", Kind::Text),
    ("compositeRules.ruleState", Kind::Enumeration(RULE_STATES)),
];

/// Streams.
pub const STREAM: &Schema =
    &[("id", Kind::Guid), ("name", Kind::Text), ("createdDate", Kind::Date), ("modifiedDate", Kind::Date)];

/// An enumeration: its name, what it is used by, its values.
pub type Enumeration = (&'static str, &'static [&'static str], &'static [(&'static str, i64)]);

/// The enumerations, as `about/api/enums` tells them.
pub const ENUMERATIONS: &[Enumeration] = &[
    ("StatusEnum", &["ExecutionResult.Status"], STATUS_NAMES),
    ("TaskTypeEnum", &["ReloadTask.TaskType", "ExternalProgramTask.TaskType", "UserSyncTask.TaskType"], TASK_TYPES),
    ("AbortReasonEnum", &["ExecutionSession.AbortReason"], ABORT_REASONS),
    ("EventTypeEnum", &["SchemaEvent.EventType", "CompositeEvent.EventType"], EVENT_TYPES),
    ("RuleStateEnum", &["CompositeEventRule.RuleState"], RULE_STATES),
    ("ChangeTypeEnum", &["ExternalChangeInfo.ChangeType"], CHANGE_TYPES),
];

/// The property of this name, whatever its case.
pub fn find(schema: &Schema, name: &str) -> Option<(&'static str, Kind)> {
    schema.iter().find(|(path, _)| path.eq_ignore_ascii_case(name)).copied()
}
