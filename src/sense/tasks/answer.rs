//! The answer to a start request as it is written on the wire, one shape for every door.
//!
//! `{"status","taskId","taskName","executionId","transaction","error":{"code","message"},"door","requestedBy","at"}`, all of them always
//! present, `null` where there is nothing to say; `execution` only when its end is known, `duplicate` only when true.

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;

use super::{
    end::{ExecutionEnd, timestamp},
    request::{StartError, StartOutcome, StartRequest, StartStatus},
};
use crate::names::{ExecutionId, TaskId};

/// One answer, in the order of the wire.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer<'a> {
    status: StartStatus,
    task_id: Option<TaskId>,
    task_name: Option<&'a str>,
    execution_id: Option<ExecutionId>,
    transaction: Option<&'a Value>,
    error: Option<&'a StartError>,
    door: &'static str,
    requested_by: &'a str,
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution: Option<&'a ExecutionEnd>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

/// What all answers to one request have in common.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Echoed unchanged.
    pub transaction: Option<Value>,
    /// Door it came by.
    pub door: &'static str,
    /// Who asked.
    pub requested_by: String,
}

impl Asked {
    /// What the answers to a request have in common.
    pub fn of(request: &StartRequest) -> Self {
        let StartRequest { transaction, door, requested_by, .. } = request;
        Self { transaction: transaction.clone(), door, requested_by: requested_by.clone() }
    }

    /// The answer that tells this outcome, now. `duplicate`: the request was one that came before.
    pub fn answer<'a>(&'a self, outcome: &'a StartOutcome, duplicate: bool) -> Answer<'a> {
        Answer {
            status: outcome.status,
            task_id: outcome.task_id,
            task_name: outcome.task_name.as_deref(),
            execution_id: outcome.execution_id,
            transaction: self.transaction.as_ref(),
            error: outcome.error.as_ref(),
            door: self.door,
            requested_by: &self.requested_by,
            at: now(),
            execution: outcome.end.as_deref(),
            duplicate,
        }
    }
}

impl Answer<'_> {
    /// As text.
    pub fn to_json(&self) -> String {
        // Texts, ids and a value that was JSON: writing them as JSON cannot fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// The present time, UTC, RFC 3339 with milliseconds.
pub fn now() -> String {
    timestamp(OffsetDateTime::now_utc())
}
