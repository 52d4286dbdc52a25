//! `GET /api/v1/tasks/{id}`: what is known of a task, its executions under way, and what is started next when it ends.

use serde_json::{Value, json};

use super::{TASKS, answer, list, not_seen, task_id};
use crate::{
    api::{
        answer::{Answer, Request},
        broker_desk::{Query, named},
        fault::{Fault, Kind},
        state::State,
    },
    sense::{
        qrs::{ChainLink, QrsError, Session, TaskInfo},
        tasks::Execution,
    },
};

/// # Errors
/// 400 for what is no id, 404 for a task QRS does not know, 503 when it cannot be asked.
pub(in crate::api) async fn one(state: &State, request: &Request) -> Result<Answer, Fault> {
    Query::read(request, &[])?;
    let id = task_id(&named(request, TASKS)?)?;
    let qrs = state.setup.tasks.starter.qrs();
    let all = async { tokio::try_join!(qrs.task_info(id), qrs.sessions_of(id), qrs.next_in_chain(id)) };
    let (task, sessions, next) = all.await.map_err(|error: QrsError| not_seen(&error))?;
    let unknown = format!("Qlik Sense has no task {id}, or hides it from the user of `configQRS`");
    let task = task.ok_or_else(|| Fault::new(Kind::NotFound, unknown))?;
    let running = sessions.iter().map(|session| running(state, &task, session)).collect::<Vec<_>>();
    let mut body = list::task(&task);
    if let Value::Object(fields) = &mut body {
        fields.insert("running".into(), running.into());
        fields.insert("next".into(), next.iter().map(link).collect::<Vec<_>>().into());
    }
    Ok(answer(200, &body))
}

/// An execution under way: as it is followed, or as QRS just told.
fn running(state: &State, task: &TaskInfo, session: &Session) -> Value {
    let followed = state.setup.tasks.starter.follower().get(session.id).map(|followed| followed.borrow().clone());
    let execution = followed.unwrap_or_else(|| Execution {
        id: session.id,
        task: task.id,
        task_name: Some(task.name.clone()),
        started_by: None,
        status: session.status,
        end: None,
        over: false,
    });
    json!(execution.report())
}

fn link(link: &ChainLink) -> Value {
    let also = link.also.iter().map(|rule| json!({"taskId": rule.task, "taskName": rule.name, "on": rule.on.as_str()}));
    json!({
        "taskId": link.task,
        "taskName": link.name,
        "on": link.on.as_str(),
        "trigger": link.trigger,
        "enabled": link.enabled,
        "also": also.collect::<Vec<_>>(),
    })
}
