//! `GET /api/v1/executions?limit=&state=running|ended`: executions this program follows or has followed, those under way first.

use serde_json::json;

use super::{answer, limit};
use crate::api::{
    answer::{Answer, Request},
    broker_desk::Query,
    fault::{Fault, Kind},
    state::State,
};

/// Rows if no other number is asked for, and the most.
const ROWS: (usize, usize) = (100, 1_000);

/// # Errors
/// 400 for a wrong query.
pub(in crate::api) fn list(state: &State, request: &Request) -> Result<Answer, Fault> {
    let query = Query::read(request, &["limit", "state"])?;
    let limit = limit(&query, ROWS.1, ROWS.0)?;
    let over = match query.get("state") {
        None => None,
        Some("running") => Some(false),
        Some("ended") => Some(true),
        Some(_) => return Err(Fault::new(Kind::Value, "`state` may be running or ended")),
    };
    let mut all = state.setup.tasks.starter.follower().all();
    all.retain(|execution| over.is_none_or(|over| execution.over == over));
    let executions: Vec<_> = all.iter().take(limit).map(|execution| execution.report()).collect();
    Ok(answer(200, &json!({"executions": executions})))
}
