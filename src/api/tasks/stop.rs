//! `POST /api/v1/executions/{id}/stop`: asks QRS to stop an execution. 202: it was asked; that the execution has ended comes later.

use serde_json::json;

use super::{DOOR, EXECUTIONS, STOP, answer, asker, error, execution_id};
use crate::{
    api::{
        answer::{Answer, Request},
        broker_desk::Query,
        fault::Fault,
        state::State,
    },
    sense::tasks::halt::HaltError,
};

/// # Errors
/// 400 for what is no id.
pub(in crate::api) async fn stop(state: &State, request: &Request) -> Result<Answer, Fault> {
    Query::read(request, &[])?;
    let id = request.path.strip_prefix(EXECUTIONS).and_then(|rest| rest.strip_suffix(STOP));
    let id = execution_id(id.unwrap_or_default())?;
    let (requested_by, who) = asker(request);
    let halted = state.setup.tasks.starter.halt(id, (DOOR, &requested_by, &who)).await;
    Ok(match halted {
        Ok(execution) => answer(202, &json!(execution.report())),
        Err(why) => error(status(&why), why.code(), &why.to_string()),
    })
}

const fn status(why: &HaltError) -> u16 {
    match why {
        HaltError::Unknown(_) => 404,
        HaltError::Over(_) => 409,
        HaltError::Denied(_) => 403,
        HaltError::Qrs(_) => 503,
    }
}
