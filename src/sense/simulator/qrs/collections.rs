//! Lists of objects and single ones: filtered, ordered, counted, full or in short.
//!
//! Invariant: the site is held only while rows are looked up; filtering, sorting and writing happen afterwards. Where a filter names the ids
//! that can pass, only those are looked up: clients poll so, and sites have thousands of tasks.

use std::{cmp::Ordering, sync::Arc};

use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    super::{
        filter::{
            Filter, Schema,
            schema::{self, find},
        },
        plan::TaskKind,
        reply::Reply,
        site::{Site, Subjects, Wanted, condensed},
    },
    gate::Rights,
    routes::{Context, malformed_id, no_endpoint, not_found},
};
use crate::names::{ExecutionId, TaskId};

/// The kinds of object that can be listed.
#[derive(Clone, Copy)]
enum Collection {
    Tasks(fn(TaskKind) -> bool),
    Apps,
    Results,
    Sessions,
    Streams,
    Tags,
    Properties,
    Users,
    /// Triggers; `Some`: only composite ones (1) or only schedules (0).
    Events(Option<u64>),
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
            "stream" => Self::Streams,
            "tag" => Self::Tags,
            "custompropertydefinition" => Self::Properties,
            "user" => Self::Users,
            "event" => Self::Events(None),
            "compositeevent" => Self::Events(Some(1)),
            "schemaevent" => Self::Events(Some(0)),
            _ => return None,
        })
    }

    fn schema(self) -> &'static Schema {
        match self {
            Self::Tasks(_) => schema::TASK,
            Self::Apps => schema::APP,
            Self::Results => schema::RESULT,
            Self::Sessions => schema::SESSION,
            Self::Streams => schema::STREAM,
            Self::Tags => schema::TAG,
            Self::Properties => schema::PROPERTY,
            Self::Users => schema::USER,
            Self::Events(_) => schema::EVENT,
        }
    }

    /// The short form of an object.
    fn condense(self, object: &Value) -> Value {
        match self {
            Self::Tasks(_) => condensed(object),
            Self::Results => without(object, &["taskID", "executionID", "appID", "executingNodeID"]),
            Self::Apps => without(object, &["customProperties", "owner", "tags"]),
            Self::Sessions | Self::Events(_) | Self::Streams | Self::Tags => without(object, &[]),
            Self::Properties => without(object, &["objectTypes", "description"]),
            Self::Users => without(object, &["customProperties", "roles", "attributes", "inactive", "tags"]),
        }
    }

    fn is_seen(self, rights: Rights) -> bool {
        match rights {
            Rights::All => true,
            Rights::Content => !matches!(self, Self::Users),
            Rights::None => false,
        }
    }
}

/// An object without what only its full form has.
fn without(object: &Value, further: &[&str]) -> Value {
    const FULL_ONLY: [&str; 4] = ["createdDate", "modifiedDate", "modifiedByUserName", "schemaPath"];
    let Value::Object(object) = object else { return object.clone() };
    let kept = |key: &String| !FULL_ONLY.contains(&key.as_str()) && !further.contains(&key.as_str());
    object.iter().filter(|(key, _)| kept(key)).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// `GET {kind}/count`
pub fn count(context: &Context<'_>, kind: &str) -> Reply {
    with_rows(context, kind, |_, rows| json!({ "value": rows.len() }).to_string())
}

/// `GET {kind}/full`
pub fn full(context: &Context<'_>, kind: &str) -> Reply {
    with_rows(context, kind, |_, rows| array(rows.iter().map(|row| row.to_string())))
}

/// `GET {kind}`
pub fn short(context: &Context<'_>, kind: &str) -> Reply {
    with_rows(context, kind, |kind, rows| array(rows.iter().map(|row| kind.condense(row).to_string())))
}

fn array(rows: impl Iterator<Item = String>) -> String {
    let mut text = "[".to_owned();
    for row in rows {
        if text.len() > 1 {
            text.push(',');
        }
        text.push_str(&row);
    }
    text.push(']');
    text
}

fn with_rows(context: &Context<'_>, kind: &str, write: fn(Collection, Vec<Arc<Value>>) -> String) -> Reply {
    let Some(kind) = Collection::named(kind) else { return no_endpoint() };
    let query = context.query;
    let filter = match query.get("filter").map(|text| Filter::parse(text, kind.schema())).transpose() {
        Ok(filter) => filter,
        Err(error) => return Reply::text(400, error.to_string()),
    };
    let order = match query.get("orderby").map(|text| Order::parse(text, kind.schema())) {
        Some(None) => return Reply::text(400, "Invalid expression"),
        order => order.flatten(),
    };
    let mut rows = match kind.is_seen(context.caller.rights) {
        true => candidates(context, kind, filter.as_ref()),
        false => Vec::new(),
    };
    if let Some(filter) = filter {
        rows.retain(|row| filter.matches(row));
    }
    if let Some(order) = order {
        rows.sort_by(|a, b| order.compare(a, b));
    }
    Reply::json(200, write(kind, rows))
}

/// Every object of a kind that the caller may see; `None`: there is no such kind.
pub fn all(context: &Context<'_>, kind: &str) -> Option<Vec<Arc<Value>>> {
    let kind = Collection::named(kind)?;
    Some(if kind.is_seen(context.caller.rights) { candidates(context, kind, None) } else { Vec::new() })
}

/// What may pass the filter.
fn candidates(context: &Context<'_>, kind: Collection, filter: Option<&Filter>) -> Vec<Arc<Value>> {
    let rights = context.caller.rights;
    context.shared.with_site(|site| match kind {
        Collection::Tasks(of) => {
            let only = ids::<TaskId>(filter, &["id"]);
            site.tasks(|kind| of(kind) && rights.cover(kind), only.as_deref())
        }
        Collection::Results => site.results(&wanted(site, filter)),
        Collection::Sessions => sessions(site, filter),
        Collection::Apps => site.apps(),
        Collection::Streams => Subjects::streams(site),
        Collection::Tags => Subjects::tags(site),
        Collection::Properties => Subjects::properties(site),
        Collection::Users => Subjects::users(&context.shared.plan, site.calendar()),
        Collection::Events(only) => events(site, only),
    })
}

/// The ids one of which one of these properties must have, if the filter says so.
fn ids<T: std::str::FromStr + Ord>(filter: Option<&Filter>, paths: &[&str]) -> Option<Vec<T>> {
    let texts = filter?.among(paths)?;
    let mut ids: Vec<T> = texts.into_iter().filter_map(|text| text.parse().ok()).collect();
    ids.sort_unstable();
    ids.dedup();
    Some(ids)
}

fn wanted(site: &Site, filter: Option<&Filter>) -> Wanted {
    // A result is changed last, so none of its dates is later than that.
    let dates = ["modifiedDate", "createdDate", "startTime", "stopTime"];
    let since = filter.and_then(|filter| filter.not_before(&dates)).and_then(|date| site.calendar().moment(date));
    Wanted {
        ids: ids::<Uuid>(filter, &["id"]),
        executions: ids::<ExecutionId>(filter, &["executionID"]),
        tasks: ids::<TaskId>(filter, &["taskID"]),
        since,
    }
}

fn sessions(site: &Site, filter: Option<&Filter>) -> Vec<Arc<Value>> {
    if let Some(only) = ids::<ExecutionId>(filter, &["id"]) {
        return only.into_iter().filter_map(|id| site.session(id)).map(Arc::new).collect();
    }
    // Ids of tasks are different whatever their kind, so clients that do not know it ask for all three.
    let only = ids::<TaskId>(filter, &["reloadTask.id", "externalProgramTask.id", "userSyncTask.id"]);
    site.sessions(only.as_deref())
}

fn events(site: &Site, only: Option<u64>) -> Vec<Arc<Value>> {
    let fits = |event: &Value| only.is_none_or(|only| event.get("eventType").and_then(Value::as_u64) == Some(only));
    site.events().into_iter().filter(fits).map(Arc::new).collect()
}

/// `GET {kind}/{id}`
pub fn one(context: &Context<'_>, kind: &str, id: &str) -> Reply {
    let Some(kind) = Collection::named(kind) else { return no_endpoint() };
    let Ok(uuid) = Uuid::try_parse(id) else { return malformed_id() };
    if !kind.is_seen(context.caller.rights) {
        return not_found();
    }
    let text = uuid.to_string();
    let found = match (kind, text.parse::<TaskId>(), text.parse::<ExecutionId>()) {
        (Collection::Tasks(of), Ok(task), _) => {
            let rights = context.caller.rights;
            let only = [task];
            context.shared.with_site(|site| site.tasks(|kind| of(kind) && rights.cover(kind), Some(&only))).pop()
        }
        (Collection::Sessions, _, Ok(id)) => context.shared.with_site(|site| site.session(id)).map(Arc::new),
        (Collection::Results, ..) => {
            let only = Wanted { ids: Some(vec![uuid]), ..Wanted::default() };
            context.shared.with_site(|site| site.results(&only)).pop()
        }
        _ => {
            let same = |row: &Arc<Value>| row.get("id").and_then(Value::as_str) == Some(text.as_str());
            candidates(context, kind, None).into_iter().find(same)
        }
    };
    found.map_or_else(not_found, |row| Reply::json(200, row.to_string()))
}

/// `orderby=name asc`; several properties are separated by commas.
struct Order(Vec<(String, bool)>);

impl Order {
    fn parse(text: &str, schema: &Schema) -> Option<Self> {
        text.split(',').map(|part| Self::part(part, schema)).collect::<Option<_>>().map(Self)
    }

    fn part(text: &str, schema: &Schema) -> Option<(String, bool)> {
        let mut words = text.split_whitespace();
        let (path, _) = find(schema, words.next()?)?;
        let descending = match words.next().map(str::to_lowercase).as_deref() {
            None | Some("asc") => false,
            Some("desc") => true,
            Some(_) => return None,
        };
        Some((format!("/{}", path.replace('.', "/")), descending)).filter(|_| words.next().is_none())
    }

    fn compare(&self, a: &Value, b: &Value) -> Ordering {
        let number = |value: Option<&Value>| value.and_then(Value::as_i64);
        let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_lowercase);
        let parts = self.0.iter().map(|(pointer, descending)| {
            let (a, b) = (a.pointer(pointer), b.pointer(pointer));
            let order = number(a).cmp(&number(b)).then_with(|| text(a).cmp(&text(b)));
            if *descending { order.reverse() } else { order }
        });
        parts.fold(Ordering::Equal, Ordering::then)
    }
}
