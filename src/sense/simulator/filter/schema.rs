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

/// The property of this name, whatever its case.
pub fn find(schema: &Schema, name: &str) -> Option<(&'static str, Kind)> {
    schema.iter().find(|(path, _)| path.eq_ignore_ascii_case(name)).copied()
}
