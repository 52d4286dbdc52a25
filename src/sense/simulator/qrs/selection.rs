//! Selections: a list of tasks is put down once, and then read by a short id. Management tools ask for the triggers of a task that way.

use std::collections::VecDeque;

use parking_lot::Mutex;
use serde_json::{Value, json};
use uuid::Uuid;

use super::{
    super::reply::Reply,
    collections,
    gate::Rights,
    routes::{Context, malformed_id, no_endpoint, not_found},
};

/// Selections that are kept.
const KEPT: usize = 1_000;
/// Most objects of one selection.
const MOST_ITEMS: usize = 1_000;

/// Selections, oldest first: id and what is selected.
#[derive(Debug, Default)]
pub struct Selections(Mutex<VecDeque<(Uuid, Vec<Uuid>)>>);

/// `POST selection`, body `{"items":[{"type":"ReloadTask","objectID":"..."}]}`
pub fn make(context: &Context<'_>) -> Reply {
    if context.caller.rights == Rights::None {
        return Reply::text(403, "Forbidden");
    }
    let Some(objects) = objects(&context.call.body) else { return Reply::text(400, "The body is not a selection") };
    let id = Uuid::new_v4();
    let items: Value = objects.iter().map(|object| json!({ "objectID": object.to_string() })).collect();
    let mut kept = context.shared.selections.0.lock();
    if kept.len() >= KEPT {
        kept.pop_front();
    }
    kept.push_back((id, objects));
    Reply::json(
        201,
        json!({ "id": id.to_string(), "items": items, "privileges": null, "schemaPath": "Selection" }).to_string(),
    )
}

fn objects(body: &[u8]) -> Option<Vec<Uuid>> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let items = body.get("items")?.as_array().filter(|items| items.len() <= MOST_ITEMS)?;
    let object = |item: &Value| Uuid::try_parse(item.get("objectID")?.as_str()?).ok();
    items.iter().map(object).collect()
}

/// `GET selection/{id}/{kind}/full`: of triggers those that start the selected tasks, of anything else the selected objects.
pub fn read(context: &Context<'_>, id: &str, kind: &str) -> Reply {
    let Ok(id) = Uuid::try_parse(id) else { return malformed_id() };
    let selected =
        context.shared.selections.0.lock().iter().find(|(known, _)| *known == id).map(|(_, all)| all.clone());
    let Some(selected) = selected else { return not_found() };
    let Some(rows) = collections::all(context, kind) else { return no_endpoint() };
    let is_selected = |value: Option<&Value>| {
        let text = value.and_then(Value::as_str);
        text.and_then(|text| Uuid::try_parse(text).ok()).is_some_and(|id| selected.contains(&id))
    };
    let concerns = |row: &Value| {
        let starts = ["/reloadTask/id", "/externalProgramTask/id", "/userSyncTask/id"];
        is_selected(row.get("id")) || starts.iter().any(|path| is_selected(row.pointer(path)))
    };
    let rows: Vec<String> = rows.iter().filter(|row| concerns(row)).map(|row| row.to_string()).collect();
    Reply::json(200, format!("[{}]", rows.join(",")))
}

/// `DELETE selection/{id}`
pub fn forget(context: &Context<'_>, id: &str) -> Reply {
    let Ok(id) = Uuid::try_parse(id) else { return malformed_id() };
    let mut kept = context.shared.selections.0.lock();
    let before = kept.len();
    kept.retain(|(known, _)| *known != id);
    if kept.len() < before { Reply::empty(204) } else { not_found() }
}
