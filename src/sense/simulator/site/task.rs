//! A task of the site and its JSON.

use std::sync::Arc;

use serde_json::{Value, json};
use uuid::Uuid;

use crate::{
    names::ExecutionId,
    sense::simulator::{
        clock::{Calendar, Moment, NEVER, NULL_DATE},
        plan::{AppPlan, TaskPlan},
    },
};

/// A task.
#[derive(Debug)]
pub struct Task {
    /// What the plan says, with what was changed since.
    pub plan: TaskPlan,
    /// Its app's id.
    pub app: Option<Uuid>,
    /// Its id as text, for datagrams.
    pub id_text: String,
    /// Attempts so far: the place in a scripted sequence of outcomes.
    pub turn: usize,
    /// Executions that are running.
    pub executions: Vec<ExecutionId>,
    /// Number of its latest execution result.
    pub last_result: Option<u64>,
    /// It was made by a reload of an app.
    pub manual: bool,
    /// It is there no more.
    pub deleted: bool,
    /// When it was made.
    pub created: Moment,
    /// When it was changed last.
    pub modified: Moment,
    /// By whom.
    pub modified_by: String,
    app_reference: Value,
    json: Arc<Value>,
    stale: bool,
}

impl Task {
    /// A task as the plan says.
    pub fn new(app: Option<&AppPlan>, task: &TaskPlan, calendar: Calendar) -> Self {
        let mut task = Self {
            plan: task.clone(),
            app: app.map(|app| app.id),
            id_text: task.id.to_string(),
            turn: 0,
            executions: Vec::new(),
            last_result: None,
            manual: false,
            deleted: false,
            created: 0,
            modified: 0,
            modified_by: r"INTERNAL\sa_repository".to_owned(),
            app_reference: app.map(app_reference).unwrap_or_default(),
            json: Arc::default(),
            stale: false,
        };
        task.render(calendar);
        task
    }

    /// Its last result changed.
    pub fn touch(&mut self) {
        self.stale = true;
    }

    /// Whether anything may start it.
    pub fn can_start(&self) -> bool {
        self.plan.enabled && !self.deleted
    }

    /// Its JSON; `last` is asked for its last result, and only when that changed since the last time.
    pub fn json(&mut self, last: impl FnOnce(u64) -> Option<Value>) -> Arc<Value> {
        if self.stale {
            self.stale = false;
            let summary = self.last_result.and_then(last);
            if let (Some(summary), Some(place)) =
                (summary, Arc::make_mut(&mut self.json).pointer_mut("/operational/lastExecutionResult"))
            {
                *place = summary;
            }
        }
        Arc::clone(&self.json)
    }

    /// As other objects refer to it.
    pub fn reference(&self) -> Value {
        let mut value = json!({ "id": self.id_text });
        if let Value::Object(fields) = &mut value {
            if self.plan.kind.has_app() {
                fields.insert("app".to_owned(), self.app_reference.clone());
                fields.insert("isManuallyTriggered".to_owned(), self.manual.into());
                fields.insert("isPartialReload".to_owned(), false.into());
                fields.insert("timeToLive".to_owned(), 0.into());
                fields.insert("preloadNodes".to_owned(), json!([]));
            }
            fields.insert("name".to_owned(), self.plan.name.as_str().into());
            fields.insert("taskType".to_owned(), self.plan.kind.number().into());
            fields.insert("enabled".to_owned(), self.plan.enabled.into());
            fields.insert("taskSessionTimeout".to_owned(), self.plan.timeout_minutes.into());
            fields.insert("maxRetries".to_owned(), self.plan.max_retries.into());
            fields.insert("privileges".to_owned(), Value::Null);
        }
        value
    }

    /// Makes its JSON anew; the last result is put in when somebody reads it.
    pub fn render(&mut self, calendar: Calendar) {
        self.stale |= self.last_result.is_some();
        let task = &self.plan;
        let mut value = json!({
            "id": self.id_text,
            "createdDate": calendar.qrs(self.created),
            "modifiedDate": calendar.qrs(self.modified),
            "modifiedByUserName": self.modified_by,
            "customProperties": custom_properties(task),
        });
        let rest = json!({
            "operational": {
                "id": named_guid("operational", &self.id_text).to_string(),
                "lastExecutionResult": never_run(&self.id_text),
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
        if let (Value::Object(full), Value::Object(rest)) = (&mut value, rest) {
            if task.kind.has_app() {
                full.insert("app".to_owned(), self.app_reference.clone());
                full.insert("isManuallyTriggered".to_owned(), self.manual.into());
                full.insert("isPartialReload".to_owned(), false.into());
                full.insert("timeToLive".to_owned(), 0.into());
                full.insert("preloadNodes".to_owned(), json!([]));
            }
            full.extend(rest);
        }
        self.json = Arc::new(value);
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
