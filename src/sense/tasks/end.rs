//! How an execution ended, as it stands in answers, on the execution topic and in REST.

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, macros::format_description};

use super::request::StartStatus;
use crate::sense::qrs::{Attempt, ExecutionStatus};

/// The end of an execution. Key order on the wire is the field order here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionEnd {
    /// Qlik's word, e.g. `FinishedSuccess`.
    pub status: String,
    /// When the first attempt started: UTC, RFC 3339.
    pub started_at: Option<String>,
    /// When the last attempt ended.
    pub stopped_at: Option<String>,
    /// How long the last attempt took, milliseconds.
    pub duration_ms: Option<u64>,
    /// How often it was tried.
    pub attempts: usize,
    /// Where the last attempt ran.
    pub node: Option<String>,
    /// The last lines of the script log, of an execution that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub log_tail: Vec<String>,
}

impl ExecutionEnd {
    /// Of the attempts of one execution, oldest first; `None`: there are none.
    pub(super) fn of(attempts: &[Attempt]) -> Option<Self> {
        let last = attempts.last()?;
        Some(Self {
            status: last.status.as_str().to_owned(),
            started_at: attempts.iter().find_map(|attempt| attempt.started).map(timestamp),
            stopped_at: last.stopped.map(timestamp),
            duration_ms: last.duration_ms,
            attempts: attempts.len(),
            node: last.node.clone(),
            log_tail: Vec::new(),
        })
    }
}

/// What the end of an execution means to who asked for it.
pub(super) const fn verdict(status: ExecutionStatus) -> StartStatus {
    match status {
        ExecutionStatus::FinishedSuccess => StartStatus::Finished,
        ExecutionStatus::AbortInitiated | ExecutionStatus::Aborting | ExecutionStatus::Aborted => StartStatus::Aborted,
        _ => StartStatus::Failed,
    }
}

/// UTC, RFC 3339 with milliseconds.
pub fn timestamp(at: OffsetDateTime) -> String {
    let form = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    // All components exist in a date with time: formatting cannot fail.
    at.to_offset(time::UtcOffset::UTC).format(form).unwrap_or_default()
}
