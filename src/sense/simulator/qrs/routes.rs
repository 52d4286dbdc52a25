//! The endpoints of the repository: which call means what.

use std::sync::Arc;

use serde_json::{Map, Value, json};

use super::{
    super::{Shared, filter::schema::ENUMERATIONS, http::Call, reply::Reply, site::Request, site::Subjects},
    collections,
    gate::{Caller, Rights},
    logs, notification,
    query::Query,
    selection, starts,
};

/// An admitted call and all that belongs to it.
pub struct Context<'a> {
    /// The site and its doors.
    pub shared: &'a Shared,
    /// The call.
    pub call: &'a Call,
    /// Its query.
    pub query: &'a Query,
    /// For whom it is made.
    pub caller: &'a Caller,
    /// How the oracle will name it.
    pub request: &'a Arc<Request>,
}

/// Answers an admitted call.
pub fn answer(context: &Context<'_>) -> Reply {
    let path = context.call.path.to_lowercase();
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let Some((&"qrs", rest)) = segments.split_first() else { return no_endpoint() };
    match context.call.method.as_str() {
        "GET" => get(context, rest),
        "POST" => post(context, rest),
        "PUT" => match rest {
            ["reloadtask", id] => starts::change(context, id),
            _ => no_endpoint(),
        },
        "DELETE" => match rest {
            ["reloadtask", id] => starts::delete(context, id),
            ["notification"] => notification::unsubscribe(context),
            ["selection", id] => selection::forget(context, id),
            _ => no_endpoint(),
        },
        _ => no_endpoint(),
    }
}

fn get(context: &Context<'_>, path: &[&str]) -> Reply {
    match path {
        ["about"] => about(context.shared),
        ["about", "api", "enums"] => enumerations(),
        ["about", "api", "description"] => Reply::json(200, description().to_string()),
        ["license"] => licence(context),
        ["notification", "changes"] => notification::changes(context),
        ["selection", id, kind, "full"] => selection::read(context, id, kind),
        ["reloadtask", id, "scriptlog"] => logs::by_file(context, id),
        ["reloadtask", id, "scriptlogfile"] => logs::by_result(context, id),
        ["download", "reloadtask", ticket, _] => logs::download(context, ticket),
        [kind, "count"] => collections::count(context, kind),
        [kind, "full"] => collections::full(context, kind),
        [kind] => collections::short(context, kind),
        [kind, id] | [kind, id, "full"] => collections::one(context, kind, id),
        _ => no_endpoint(),
    }
}

fn post(context: &Context<'_>, path: &[&str]) -> Reply {
    match path {
        ["task", "start"] => starts::by_name(context, false),
        ["task", "start", "synchronous"] => starts::by_name(context, true),
        ["task", "start", "many"] => starts::many(context),
        ["task", id, "start"] => starts::by_id(context, id, false),
        ["task", id, "start", "synchronous"] => starts::by_id(context, id, true),
        ["task", id, "stop"] => starts::stop(context, id),
        ["app", id, "reload"] => starts::app(context, id),
        ["notification"] => notification::subscribe(context),
        ["selection"] => selection::make(context),
        _ => no_endpoint(),
    }
}

/// The path means nothing.
pub fn no_endpoint() -> Reply {
    Reply::text(404, "No matching endpoint found")
}

/// There is no such object, or the caller may not see it.
pub fn not_found() -> Reply {
    Reply::text(404, "The object does not exist")
}

/// An id that is none.
pub fn malformed_id() -> Reply {
    Reply::text(400, "The id is not a GUID")
}

fn about(shared: &Shared) -> Reply {
    let about = json!({
        "buildVersion": shared.plan.version,
        "buildDate": "6/7/2024 09:04:33 AM",
        "databaseProvider": "Devart.Data.PostgreSql",
        "nodeType": 1,
        "sharedPersistence": true,
        "requiresBootstrap": false,
        "singleNodeOnly": false,
        "schemaPath": "About",
    });
    Reply::json(200, about.to_string())
}

/// Every enumeration with its values as `number: name`.
fn enumerations() -> Reply {
    let values = |all: &[(&str, i64)]| all.iter().map(|(name, number)| format!("{number}: {name}")).collect::<Value>();
    let all = ENUMERATIONS
        .iter()
        .map(|(name, usages, all)| ((*name).to_owned(), json!({ "values": values(all), "usages": usages })));
    Reply::json(200, Value::Object(all.collect::<Map<_, _>>()).to_string())
}

/// The paths there are.
fn description() -> Value {
    const PATHS: [&str; 24] = [
        "get /about",
        "get /about/api/enums",
        "get /license",
        "get /task",
        "get /reloadtask",
        "put /reloadtask/{id}",
        "delete /reloadtask/{id}",
        "get /reloadtask/{id}/scriptlog",
        "get /reloadtask/{id}/scriptlogfile",
        "get /download/reloadtask/{id}/{name}",
        "get /externalprogramtask",
        "get /usersynctask",
        "get /app",
        "post /app/{id}/reload",
        "get /executionresult",
        "get /executionsession",
        "get /event",
        "get /tag",
        "get /custompropertydefinition",
        "get /user",
        "post /task/{id}/start",
        "post /task/{id}/start/synchronous",
        "post /task/{id}/stop",
        "post /notification",
    ];
    PATHS.iter().map(|path| Value::from(*path)).collect()
}

fn licence(context: &Context<'_>) -> Reply {
    if context.caller.rights != Rights::All {
        return not_found();
    }
    let calendar = context.shared.with_site(|site| site.calendar());
    Reply::json(200, Subjects::licence(calendar).to_string())
}
