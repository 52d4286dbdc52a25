//! The endpoints of the repository.

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::super::{
    Shared,
    filter::{
        Filter, Schema,
        schema::{self, find},
    },
    http::{Call, Reply},
    plan::{OnRunning, TaskKind},
    site::{Site, StartAnswer, condensed},
};
use super::{gate::Caller, query::Query};
use crate::names::{ExecutionId, TaskId};

/// The kinds of object that can be listed.
#[derive(Clone, Copy)]
enum Collection {
    Tasks(fn(TaskKind) -> bool),
    Apps,
    Results,
    Sessions,
}

impl Collection {
    fn named(word: &str) -> Option<Self> {
        Some(match word {
            "task" => Self::Tasks(|_| true),
            "reloadtask" => Self::Tasks(|kind| kind.schema_path() == "ReloadTask"),
            "externalprogramtask" => Self::Tasks(|kind| kind == TaskKind::ExternalProgram),
            "usersynctask" => Self::Tasks(|kind| kind == TaskKind::UserSync),
            "app" => Self::Apps,
            "executionresult" => Self::Results,
            "executionsession" => Self::Sessions,
            _ => return None,
        })
    }

    fn schema(self) -> &'static Schema {
        match self {
            Self::Tasks(_) => schema::TASK,
            Self::Apps => schema::APP,
            Self::Results => schema::RESULT,
            Self::Sessions => schema::SESSION,
        }
    }

    /// The short form of an object.
    fn condense(self, object: Value) -> Value {
        match self {
            Self::Tasks(_) => condensed(&object),
            Self::Results => without(object, &["taskID", "executionID", "appID", "executingNodeID"]),
            Self::Apps => without(object, &["customProperties", "owner", "tags"]),
            Self::Sessions => object,
        }
    }
}

/// An object without what only its full form has.
fn without(object: Value, further: &[&str]) -> Value {
    const FULL_ONLY: [&str; 4] = ["createdDate", "modifiedDate", "modifiedByUserName", "schemaPath"];
    let Value::Object(object) = object else { return object };
    let kept = |key: &String| !FULL_ONLY.contains(&key.as_str()) && !further.contains(&key.as_str());
    Value::Object(object.into_iter().filter(|(key, _)| kept(key)).collect())
}

/// Answers an admitted call.
pub fn answer(shared: &Shared, call: &Call, query: &Query, caller: &Caller) -> Reply {
    let path = call.path.to_lowercase();
    let segments: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    let Some((&"qrs", rest)) = segments.split_first() else { return no_endpoint() };
    match (call.method.as_str(), rest) {
        ("GET", ["about"]) => about(shared),
        ("GET", [kind, "count"]) => with_list(shared, kind, query, caller, |_, rows| {
            Reply::json(200, json!({ "value": rows.len() }).to_string())
        }),
        ("GET", [kind, "full"]) => with_list(shared, kind, query, caller, |_, rows| list(rows)),
        ("GET", [kind]) => with_list(shared, kind, query, caller, |kind, rows| {
            list(rows.into_iter().map(|row| kind.condense(row)).collect())
        }),
        ("GET", [kind, id]) | ("GET", [kind, id, "full"]) => one(shared, kind, id, caller),
        ("POST", ["task", id, "start"]) => start(shared, id, caller, false),
        ("POST", ["task", id, "start", "synchronous"]) => start(shared, id, caller, true),
        ("POST", ["task", id, "stop"]) => stop(shared, id, caller),
        _ => no_endpoint(),
    }
}

fn no_endpoint() -> Reply {
    Reply::text(404, "No matching endpoint found")
}

fn not_found() -> Reply {
    Reply::text(404, "The object does not exist")
}

fn malformed_id() -> Reply {
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

fn list(rows: Vec<Value>) -> Reply {
    Reply::json(200, Value::Array(rows).to_string())
}

fn with_list(
    shared: &Shared,
    kind: &str,
    query: &Query,
    caller: &Caller,
    reply: fn(Collection, Vec<Value>) -> Reply,
) -> Reply {
    let Some(kind) = Collection::named(kind) else { return no_endpoint() };
    let filter = match query.get("filter").map(|text| Filter::parse(text, kind.schema())).transpose() {
        Ok(filter) => filter,
        Err(error) => return Reply::text(400, error.to_string()),
    };
    let order = match query.get("orderby").map(|text| Order::parse(text, kind.schema())) {
        Some(None) => return Reply::text(400, "Invalid expression"),
        order => order.flatten(),
    };
    let mut rows = if caller.rights { shared.with_site(|site| rows(site, kind, filter.as_ref())) } else { Vec::new() };
    if let Some(order) = order {
        rows.sort_by(|a, b| order.compare(a, b));
    }
    reply(kind, rows)
}

/// What passes the filter. Where the filter names the one id that can pass, only that is looked at: clients poll so.
fn rows(site: &mut Site, kind: Collection, filter: Option<&Filter>) -> Vec<Value> {
    let passes = |row: &&Value| filter.is_none_or(|filter| filter.matches(row));
    let pinned = |path: &str| filter.and_then(|filter| filter.pinned(path));
    match kind {
        Collection::Tasks(of) => {
            let only = pinned("id").and_then(|id| id.parse::<TaskId>().ok());
            site.tasks(of, only).filter(passes).cloned().collect()
        }
        Collection::Apps => site.apps().iter().filter(passes).cloned().collect(),
        Collection::Results => {
            let only = pinned("executionID").and_then(|id| id.parse::<ExecutionId>().ok());
            site.results(only).filter(passes).cloned().collect()
        }
        Collection::Sessions => {
            let paths = ["reloadTask.id", "externalProgramTask.id", "userSyncTask.id"];
            let only = paths.into_iter().find_map(pinned).and_then(|id| id.parse::<TaskId>().ok());
            site.sessions(only).filter(|row| passes(&row)).collect()
        }
    }
}

fn one(shared: &Shared, kind: &str, id: &str, caller: &Caller) -> Reply {
    let Some(kind) = Collection::named(kind) else { return no_endpoint() };
    let Ok(task) = id.parse::<TaskId>() else { return malformed_id() };
    if !caller.rights {
        return not_found();
    }
    let same = |row: &&Value| row.get("id").and_then(Value::as_str) == Some(id);
    let found = shared.with_site(|site| match kind {
        Collection::Tasks(of) => site.tasks(of, Some(task)).next().cloned(),
        Collection::Apps => site.apps().iter().find(same).cloned(),
        Collection::Results => site.results(None).find(same).cloned(),
        Collection::Sessions => id.parse().ok().and_then(|id| site.session(id)),
    });
    found.map_or_else(not_found, |row| Reply::json(200, row.to_string()))
}

fn start(shared: &Shared, id: &str, caller: &Caller, synchronous: bool) -> Reply {
    let Ok(task) = id.parse::<TaskId>() else { return malformed_id() };
    if !caller.rights {
        return Reply::text(403, "Forbidden");
    }
    let session = match shared.with_site(|site| site.start(task, &caller.name)) {
        StartAnswer::Started(session) => session,
        StartAnswer::Unknown => return not_found(),
        StartAnswer::Running(OnRunning::Conflict) => return Reply::text(409, "The task is already running"),
        StartAnswer::Running(OnRunning::BadRequest) => return Reply::text(400, "The task is already running"),
        StartAnswer::Running(OnRunning::ZeroGuid | OnRunning::SecondSession) | StartAnswer::Disabled => {
            ExecutionId::ZERO
        }
    };
    if synchronous { Reply::json(201, json!({ "value": session.to_string() }).to_string()) } else { Reply::empty(204) }
}

fn stop(shared: &Shared, id: &str, caller: &Caller) -> Reply {
    let Ok(task) = id.parse::<TaskId>() else { return malformed_id() };
    if !caller.rights {
        return Reply::text(403, "Forbidden");
    }
    shared.with_site(|site| site.stop(task)).map_or_else(not_found, |_| Reply::empty(204))
}

/// `orderby=name asc`
struct Order {
    pointer: String,
    descending: bool,
}

impl Order {
    fn parse(text: &str, schema: &Schema) -> Option<Self> {
        let mut words = text.split_whitespace();
        let (path, _) = find(schema, words.next()?)?;
        let descending = match words.next().map(str::to_lowercase).as_deref() {
            None | Some("asc") => false,
            Some("desc") => true,
            Some(_) => return None,
        };
        Some(Self { pointer: format!("/{}", path.replace('.', "/")), descending }).filter(|_| words.next().is_none())
    }

    fn compare(&self, a: &Value, b: &Value) -> Ordering {
        let (a, b) = (a.pointer(&self.pointer), b.pointer(&self.pointer));
        let number = |value: Option<&Value>| value.and_then(Value::as_i64);
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_lowercase);
        let order = number(a).cmp(&number(b)).then_with(|| text(a).cmp(&text(b)));
        if self.descending { order.reverse() } else { order }
    }
}
