//! Starting and stopping: every form of it, with every wish handed to the oracle.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    super::{
        http::Call,
        plan::OnRunning,
        reply::Reply,
        site::{EditError, Origin, StartAnswer},
    },
    gate::Rights,
    routes::{Context, malformed_id, not_found},
};
use crate::names::{ExecutionId, TaskId};

/// Most tasks of one `start/many`.
const MOST_AT_ONCE: usize = 10_000;

/// What a call that is a wish to start something names: an id or a name; `None`: it is no such wish.
pub fn asked_for(call: &Call) -> Option<String> {
    let path = call.path.to_lowercase();
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    match (call.method.as_str(), segments.as_slice()) {
        ("POST", ["qrs", "task", "start", ..]) => Some(call.query.clone()),
        ("POST", ["qrs", "task", id, "start", ..]) => Some((*id).to_owned()),
        ("POST", ["qrs", "app", id, "reload"]) => Some(format!("app {id}")),
        _ => None,
    }
}

/// `POST task/{id}/start[/synchronous]`
pub fn by_id(context: &Context<'_>, id: &str, synchronous: bool) -> Reply {
    let Ok(task) = id.parse::<TaskId>() else {
        refuse(context, id, "malformed");
        return malformed_id();
    };
    match start(context, task) {
        Some(answer) => reply(answer, synchronous),
        None => Reply::text(403, "Forbidden"),
    }
}

/// `POST task/start[/synchronous]?name=`: names are not unique; the first task of that name is started.
pub fn by_name(context: &Context<'_>, synchronous: bool) -> Reply {
    let Some(name) = context.query.get("name") else {
        refuse(context, "", "malformed");
        return Reply::text(400, "Missing parameter value(s)");
    };
    let named = context.shared.with_site(|site| site.tasks_named(name));
    let Some(task) = named.first() else {
        refuse(context, name, "unknown");
        return not_found();
    };
    match start(context, *task) {
        Some(answer) => reply(answer, synchronous),
        None => Reply::text(403, "Forbidden"),
    }
}

/// `POST task/start/many`: the body is an array of ids. What cannot be started is passed over.
pub fn many(context: &Context<'_>) -> Reply {
    let ids: Option<Vec<String>> = serde_json::from_slice(&context.call.body).ok();
    let Some(ids) = ids.filter(|ids| ids.len() <= MOST_AT_ONCE) else {
        refuse(context, "", "malformed");
        return Reply::text(400, "The body is not an array of ids");
    };
    let Ok(tasks) = ids.iter().map(|id| id.parse::<TaskId>()).collect::<Result<Vec<_>, _>>() else {
        ids.iter().for_each(|id| refuse(context, id, "malformed"));
        return malformed_id();
    };
    let answers: Vec<_> = tasks.into_iter().map(|task| start(context, task)).collect();
    let forbidden = !answers.is_empty() && answers.iter().all(Option::is_none);
    if forbidden { Reply::text(403, "Forbidden") } else { Reply::empty(204) }
}

/// `POST app/{id}/reload`
pub fn app(context: &Context<'_>, id: &str) -> Reply {
    let Ok(app) = Uuid::try_parse(id) else {
        refuse(context, id, "malformed");
        return malformed_id();
    };
    if context.caller.rights == Rights::None {
        refuse(context, id, "forbidden");
        return Reply::text(403, "Forbidden");
    }
    let by = Origin::Call(Arc::clone(context.request));
    match context.shared.with_site(|site| site.reload_app(app, &context.caller.name, by)) {
        Some(answer) => reply(answer, false),
        None => {
            refuse(context, id, "unknown");
            not_found()
        }
    }
}

/// `POST task/{id}/stop`
pub fn stop(context: &Context<'_>, id: &str) -> Reply {
    let Ok(task) = id.parse::<TaskId>() else { return malformed_id() };
    let rights = context.caller.rights;
    context.shared.with_site(|site| match site.kind_of(task) {
        None => not_found(),
        Some(kind) if !rights.cover(kind) => Reply::text(403, "Forbidden"),
        Some(_) => site.stop(task).map_or_else(not_found, |_| Reply::empty(204)),
    })
}

/// Starts, if the caller may; `None`: it may not.
fn start(context: &Context<'_>, task: TaskId) -> Option<StartAnswer> {
    let by = Origin::Call(Arc::clone(context.request));
    let (rights, user) = (context.caller.rights, &context.caller.name);
    context.shared.with_site(|site| match site.kind_of(task) {
        Some(kind) if !rights.cover(kind) => {
            site.not_started(task.to_string(), "forbidden", by);
            None
        }
        None if rights == Rights::None => {
            site.not_started(task.to_string(), "forbidden", by);
            None
        }
        _ => Some(site.start(task, user, by)),
    })
}

fn reply(answer: StartAnswer, synchronous: bool) -> Reply {
    let session = match answer {
        StartAnswer::Started(session) => session,
        StartAnswer::Unknown => return not_found(),
        StartAnswer::Running(OnRunning::Conflict) => return Reply::text(409, "The task is already running"),
        StartAnswer::Running(OnRunning::BadRequest) => return Reply::text(400, "The task is already running"),
        StartAnswer::Running(OnRunning::ZeroGuid | OnRunning::SecondSession)
        | StartAnswer::Disabled
        | StartAnswer::NoScheduler => ExecutionId::ZERO,
    };
    if synchronous { Reply::json(201, json!({ "value": session.to_string() }).to_string()) } else { Reply::empty(204) }
}

fn refuse(context: &Context<'_>, task: &str, reason: &'static str) {
    let by = Origin::Call(Arc::clone(context.request));
    context.shared.with_site(|site| site.not_started(task.to_owned(), reason, by));
}

/// `PUT reloadtask/{id}`
pub fn change(context: &Context<'_>, id: &str) -> Reply {
    let Ok(task) = id.parse::<TaskId>() else { return malformed_id() };
    let Ok(new) = serde_json::from_slice::<Value>(&context.call.body) else {
        return Reply::text(400, "The body is not JSON");
    };
    if context.caller.rights == Rights::None {
        return not_found();
    }
    let changed: Result<_, EditError> = context.shared.with_site(|site| {
        site.change_task(task, &context.caller.name, &new)?;
        Ok(site.task(task))
    });
    match changed {
        Ok(Some(row)) => Reply::json(200, row.to_string()),
        Ok(None) => not_found(),
        Err(error) => refused(error),
    }
}

/// `DELETE reloadtask/{id}`
pub fn delete(context: &Context<'_>, id: &str) -> Reply {
    let Ok(task) = id.parse::<TaskId>() else { return malformed_id() };
    if context.caller.rights == Rights::None {
        return not_found();
    }
    context.shared.with_site(|site| site.delete_task(task)).map_or_else(refused, |()| Reply::empty(204))
}

fn refused(error: EditError) -> Reply {
    let status = match error {
        EditError::Unknown => 404,
        EditError::Conflict => 409,
        EditError::Malformed => 400,
    };
    Reply::text(status, error.to_string())
}
