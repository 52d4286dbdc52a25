//! A task of the site and its JSON.

use serde_json::{Value, json};
use uuid::Uuid;

use crate::sense::simulator::{
    clock::{Calendar, NEVER, NULL_DATE},
    plan::{AppPlan, Plan, TaskKind, TaskPlan},
};

/// A task.
#[derive(Debug)]
pub struct Task {
    /// What the plan says.
    pub plan: TaskPlan,
    /// Its app's id.
    pub app: Option<Uuid>,
    /// Its id as text, for datagrams.
    pub id_text: String,
    /// Attempts so far: the place in a scripted sequence of outcomes.
    pub turn: usize,
    /// Executions that are running.
    pub running: usize,
    /// Number of its latest execution result.
    pub last_result: Option<u64>,
    json: Value,
    stale: bool,
}

impl Task {
    /// A task as the plan says.
    pub fn new(plan: &Plan, task: &TaskPlan, calendar: Calendar) -> Self {
        let app = task.app.as_deref().and_then(|name| plan.app(name));
        Self {
            plan: task.clone(),
            app: app.map(|app| app.id),
            id_text: task.id.to_string(),
            turn: 0,
            running: 0,
            last_result: None,
            json: render(task, app, calendar),
            stale: false,
        }
    }

    /// Its last result changed.
    pub fn touch(&mut self) {
        self.stale = true;
    }

    /// Its JSON; `last` is asked for only when something changed since the last time.
    pub fn json(&mut self, last: impl FnOnce() -> Option<Value>) -> &Value {
        if self.stale
            && let Some(place) = self.json.pointer_mut("/operational/lastExecutionResult")
        {
            *place = last().unwrap_or(Value::Null);
            self.stale = false;
        }
        &self.json
    }
}

/// A GUID that is always the same for one name: tags and properties need ids and the plan gives none.
pub fn named_guid(kind: &str, name: &str) -> Uuid {
    // FNV-1a, 128 bits (RFC 9923); the result is marked as a name-made GUID of no registered hash (version 8).
    let mut hash: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    for byte in kind.bytes().chain([0]).chain(name.bytes()) {
        hash = (hash ^ u128::from(byte)).wrapping_mul(0x0000_0000_0100_0000_0000_0000_0000_013b);
    }
    uuid::Builder::from_custom_bytes(hash.to_be_bytes()).into_uuid()
}

/// An app, short form.
fn app_reference(app: &AppPlan) -> Value {
    let published = app.stream.is_some();
    json!({
        "id": app.id.to_string(),
        "name": app.name,
        "appId": "",
        "publishTime": if published { "2024-01-01T08:00:00.000Z" } else { NULL_DATE },
        "published": published,
        "stream": app.stream.as_deref().map(stream),
        "savedInProductVersion": "12.1600.0",
        "migrationHash": "",
        "availabilityStatus": 0,
        "privileges": null,
    })
}

fn stream(name: &str) -> Value {
    json!({ "id": named_guid("stream", name).to_string(), "name": name, "privileges": null })
}

/// An app, full form.
pub fn app_json(app: &AppPlan, calendar: Calendar) -> Value {
    let mut value = json!({
        "id": app.id.to_string(),
        "createdDate": calendar.qrs(0),
        "modifiedDate": calendar.qrs(0),
        "modifiedByUserName": r"INTERNAL\sa_repository",
        "customProperties": [],
        "owner": { "id": named_guid("user", "sa_repository").to_string(), "userId": "sa_repository",
            "userDirectory": "INTERNAL", "name": "sa_repository", "privileges": null },
    });
    if let (Value::Object(full), Value::Object(short)) = (&mut value, app_reference(app)) {
        full.extend(short.into_iter().filter(|(key, _)| key != "id"));
        full.insert("tags".to_owned(), json!([]));
        full.insert("schemaPath".to_owned(), json!("App"));
    }
    value
}

fn render(task: &TaskPlan, app: Option<&AppPlan>, calendar: Calendar) -> Value {
    let mut value = json!({
        "id": task.id.to_string(),
        "createdDate": calendar.qrs(0),
        "modifiedDate": calendar.qrs(0),
        "modifiedByUserName": r"INTERNAL\sa_repository",
        "customProperties": custom_properties(task),
    });
    let rest = json!({
        "operational": {
            "id": named_guid("operational", &task.id.to_string()).to_string(),
            "lastExecutionResult": never_run(&task.id.to_string()),
            "nextExecution": NEVER,
            "privileges": null,
        },
        "name": task.name,
        "taskType": task.kind.number(),
        "enabled": task.enabled,
        "taskSessionTimeout": task.timeout_minutes,
        "maxRetries": task.max_retries,
        "tags": task.tags.iter().map(|tag| {
            json!({ "id": named_guid("tag", tag).to_string(), "name": tag, "privileges": null })
        }).collect::<Value>(),
        "privileges": null,
        "schemaPath": task.kind.schema_path(),
    });
    if let Value::Object(full) = &mut value {
        if !matches!(task.kind, TaskKind::ExternalProgram | TaskKind::UserSync) {
            full.insert("app".to_owned(), app.map(app_reference).unwrap_or_default());
            full.insert("isManuallyTriggered".to_owned(), json!(false));
            full.insert("isPartialReload".to_owned(), json!(false));
            full.insert("timeToLive".to_owned(), json!(0));
            full.insert("preloadNodes".to_owned(), json!([]));
        }
        if let Value::Object(rest) = rest {
            full.extend(rest);
        }
    }
    value
}

fn never_run(task: &str) -> Value {
    json!({
        "id": named_guid("result", task).to_string(),
        "executingNodeName": "",
        "status": 0,
        "startTime": NULL_DATE,
        "stopTime": NULL_DATE,
        "duration": 0,
        "fileReferenceID": Uuid::nil().to_string(),
        "scriptLogAvailable": false,
        "details": [],
        "scriptLogLocation": "",
        "scriptLogSize": 0,
        "privileges": null,
    })
}

fn custom_properties(task: &TaskPlan) -> Value {
    let pairs = task.custom_properties.iter().flat_map(|(name, values)| values.iter().map(move |value| (name, value)));
    pairs
        .map(|(name, value)| {
            json!({
                "id": named_guid(name, value).to_string(),
                "createdDate": NULL_DATE,
                "modifiedDate": NULL_DATE,
                "modifiedByUserName": r"INTERNAL\sa_repository",
                "value": value,
                "definition": { "id": named_guid("definition", name).to_string(), "name": name, "valueType": "Text",
                    "choiceValues": [], "privileges": null },
                "schemaPath": "CustomPropertyValue",
            })
        })
        .collect()
}

/// The short form of a task: what the lists without `/full` carry.
pub fn condensed(full: &Value) -> Value {
    const KEPT: [&str; 7] = ["id", "privileges", "name", "taskType", "enabled", "taskSessionTimeout", "maxRetries"];
    KEPT.iter()
        .filter_map(|key| Some(((*key).to_owned(), full.get(key)?.clone())))
        .collect::<serde_json::Map<_, _>>()
        .into()
}
