//! `GET /api/v1/executions/{id}?wait=finished&timeout=`: one execution. One this program did not start is asked of QRS, and followed from then on.

use serde_json::json;

use super::{EXECUTIONS, answer, execution_id, not_seen, patience, wait_for};
use crate::api::{
    answer::{Answer, Request},
    broker_desk::{Query, named},
    fault::{Fault, Kind},
    state::State,
};

/// # Errors
/// 400 for a wrong query or what is no id, 404 for an execution QRS has no trace of, 503 when it cannot be asked.
pub(in crate::api) async fn one(state: &State, request: &Request) -> Result<Answer, Fault> {
    let query = Query::read(request, &["wait", "timeout"])?;
    let patience = patience(&query)?;
    let waits = match query.get("wait") {
        None => false,
        Some("finished") => true,
        Some(_) => return Err(Fault::new(Kind::Value, "`wait` may be finished")),
    };
    if !waits && query.get("timeout").is_some() {
        return Err(Fault::new(Kind::Value, "`timeout` goes with `wait=finished`"));
    }
    let id = execution_id(&named(request, EXECUTIONS)?)?;
    let found = state.setup.tasks.starter.follower().find(id).await.map_err(|error| not_seen(&error))?;
    let unknown = format!("Qlik Sense has no execution {id}, or hides it from the user of `configQRS`");
    let mut execution = found.ok_or_else(|| Fault::new(Kind::NotFound, unknown))?;
    if waits {
        let end = async {
            if execution.wait_for(|execution| execution.over).await.is_err() {
                // It is not followed: there were too many.
                std::future::pending::<()>().await;
            }
        };
        wait_for(state, patience, end).await;
    }
    let execution = execution.borrow().clone();
    let status = if waits && !execution.over { 202 } else { 200 };
    Ok(answer(status, &json!(execution.report())))
}
