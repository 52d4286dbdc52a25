//! The JSON of the full topics and the data of CloudEvents: Butler's keys in Butler's order, compact, non-ASCII as it is.

use std::borrow::Cow;

use serde::Serialize;
use serde_json::Value;

use crate::{
    bridge::cloud_event::digest,
    config::settings::SessionUser,
    sense::{
        directory::Enrichment,
        event::{Origin, SessionEvent, TaskEvent, TaskEventKind},
    },
};

/// The order of the fields is the order on the wire; the `qs_` part exists in generation head only.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Full<'a> {
    host_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    task_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    app_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_time_stamp: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_level: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_message: Option<&'a str>,
    #[serde(rename = "qs_appTags", skip_serializing_if = "Option::is_none")]
    app_tags: Option<Vec<&'a str>>,
    #[serde(rename = "qs_appCustomProperties", skip_serializing_if = "Option::is_none")]
    app_properties: Option<Vec<Property<'a>>>,
    #[serde(rename = "qs_taskTags", skip_serializing_if = "Option::is_none")]
    task_tags: Option<Vec<&'a str>>,
    #[serde(rename = "qs_taskCustomProperties", skip_serializing_if = "Option::is_none")]
    task_properties: Option<Vec<Property<'a>>>,
    #[serde(rename = "qs_appMetadata", skip_serializing_if = "Option::is_none")]
    app: Option<&'a Value>,
    #[serde(rename = "qs_taskMetadata", skip_serializing_if = "Option::is_none")]
    task: Option<&'a Value>,
}

#[derive(Serialize)]
struct Property<'a> {
    name: &'a str,
    value: &'a str,
}

/// The full payload of a task event; with `qs_` fields as far as QRS gave them. Only an aborted task's carries the app's object.
pub(super) fn full(event: &TaskEvent, enrichment: Option<&Enrichment>) -> Vec<u8> {
    let app = enrichment.and_then(|enrichment| enrichment.app.as_ref());
    let task = enrichment.and_then(|enrichment| enrichment.task.as_ref());
    let payload = Full {
        host_name: &event.host,
        user: event.user.as_deref(),
        task_name: event.task_name.as_deref(),
        task_id: event.task_id.as_deref(),
        app_name: event.app_name.as_deref(),
        app_id: event.app_id.as_deref(),
        log_time_stamp: event.log_time.as_deref(),
        log_level: event.log_level.as_deref(),
        execution_id: event.execution_id.as_deref(),
        log_message: event.message.as_deref(),
        app_tags: app.map(tags),
        app_properties: app.map(properties),
        task_tags: task.map(tags),
        task_properties: task.map(properties),
        app: app.filter(|_| event.kind == TaskEventKind::Aborted),
        task,
    };
    json(&payload, 320)
}

/// What stands in the data of a CloudEvent beside the full payload.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Beside<'a> {
    /// Left out for datagrams.
    #[serde(skip_serializing_if = "Option::is_none")]
    event_source: Option<&'static str>,
    #[serde(rename = "qs_appOwner", skip_serializing_if = "Option::is_none")]
    owner: Option<Owner<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Owner<'a> {
    user_directory: &'a str,
    user_id: &'a str,
    name: &'a str,
}

/// The data of the CloudEvent: the full payload, and what Butler's payload has no room for.
pub(super) fn with_more(full: &[u8], event: &TaskEvent, enrichment: Option<&Enrichment>) -> Vec<u8> {
    let app = enrichment.and_then(|enrichment| enrichment.app.as_ref());
    let source = Some(event.origin).filter(|origin| *origin != Origin::Datagram).map(Origin::as_str);
    let beside = Beside { event_source: source, owner: app.and_then(owner) };
    let (more, mut data) = (json(&beside, 120), full.to_vec());
    if more.len() > 2 && data.pop() == Some(b'}') {
        data.push(b',');
        data.extend(more.iter().skip(1));
    } else {
        data = full.to_vec();
    }
    data
}

fn owner(app: &Value) -> Option<Owner<'_>> {
    let owner = app.get("owner")?;
    let text = |key: &str| owner.get(key).and_then(Value::as_str);
    let user_id = text("userId")?;
    Some(Owner {
        user_directory: text("userDirectory").unwrap_or_default(),
        user_id,
        name: text("name").unwrap_or_default(),
    })
}

fn tags(object: &Value) -> Vec<&str> {
    entries(object, "tags").filter_map(|tag| tag.get("name")?.as_str()).collect()
}

fn properties(object: &Value) -> Vec<Property<'_>> {
    entries(object, "customProperties").filter_map(property).collect()
}

fn property(entry: &Value) -> Option<Property<'_>> {
    Some(Property { name: entry.get("definition")?.get("name")?.as_str()?, value: entry.get("value")?.as_str()? })
}

fn entries<'a>(object: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    object.get(key).and_then(Value::as_array).into_iter().flatten()
}

/// Strings, and values that came from JSON, always serialise.
fn json(payload: &impl Serialize, capacity: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(capacity);
    if serde_json::to_writer(&mut bytes, payload).is_err() {
        bytes.clear();
    }
    bytes
}

/// A user as far as `mqttConfig.sessionUser` lets it out. Butler's word for a part that a datagram does not have is `undefined`.
pub(super) struct ShownUser<'a> {
    /// `DIR/user`; `DIR/hash`; `-`.
    pub path: String,
    /// What stands in the list of active users and makes a user one user; `None`: not listed.
    pub listed: Option<Cow<'a, str>>,
    /// What the counting goes by.
    pub key: Cow<'a, str>,
}

/// See [`ShownUser`].
pub(super) fn shown_user(event: &SessionEvent, mode: SessionUser) -> ShownUser<'_> {
    let directory = event.directory.as_deref().unwrap_or("undefined");
    let user = event.user.as_deref().unwrap_or("undefined");
    match mode {
        SessionUser::Full => {
            ShownUser { path: format!("{directory}/{user}"), listed: Some(user.into()), key: user.into() }
        }
        SessionUser::Hash => {
            let hash = pseudonym(user);
            ShownUser { path: format!("{directory}/{hash}"), listed: Some(hash.clone().into()), key: hash.into() }
        }
        SessionUser::None => ShownUser { path: "-".into(), listed: None, key: pseudonym(user).into() },
    }
}

/// The same user id gives the same 32 hex digits, today and after a restart. A pseudonym, not a secret: who has a list of all user ids can
/// hash them, too.
fn pseudonym(user: &str) -> String {
    digest(&["sense-butler user", user])
}

/// Data of a session event's CloudEvent. Origin, context and message go along only with the full user: Qlik writes the user into them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SessionData<'a> {
    host_name: &'a str,
    user: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    origin: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    context: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    log_message: Option<&'a str>,
}

/// See [`SessionData`].
pub(super) fn session_data(event: &SessionEvent, user: &ShownUser<'_>, mode: SessionUser) -> Vec<u8> {
    let told = mode == SessionUser::Full;
    let data = SessionData {
        host_name: &event.host,
        user: &user.path,
        origin: event.origin.as_deref().filter(|_| told),
        context: event.context.as_deref().filter(|_| told),
        log_message: event.message.as_deref().filter(|_| told),
    };
    json(&data, 200)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use serde_json::json;

    use super::*;
    use crate::{config::settings::Generation, sense::datagram};

    fn task(word: &str) -> TaskEvent {
        let text = format!("/{word}/;h;t\"å;a;D\\u;id;;time;INFO;e;m");
        datagram::parse_task(text.as_bytes(), Generation::V5_4, SystemTime::UNIX_EPOCH).unwrap()
    }

    #[test]
    fn keys_stand_in_butlers_order() {
        let plain = full(&task("scheduler-task-failed"), None);
        assert_eq!(
            String::from_utf8(plain).unwrap(),
            r#"{"hostName":"h","user":"D\\u","taskName":"t\"å","taskId":"id","appName":"a","appId":"","logTimeStamp":"time","logLevel":"INFO","executionId":"e","logMessage":"m"}"#
        );
    }

    #[test]
    fn only_an_aborted_task_carries_the_app() {
        let enrichment = Enrichment { task: Some(json!({"tags":[{"name":"T"}]})), app: Some(json!({"z":1,"a":2})) };
        let aborted = String::from_utf8(full(&task("scheduler-task-aborted"), Some(&enrichment))).unwrap();
        let tail = r#""qs_appTags":[],"qs_appCustomProperties":[],"qs_taskTags":["T"],"qs_taskCustomProperties":[],"qs_appMetadata":{"z":1,"a":2},"qs_taskMetadata":{"tags":[{"name":"T"}]}}"#;
        assert!(aborted.ends_with(tail), "{aborted}");
        let failed = String::from_utf8(full(&task("scheduler-task-failed"), Some(&enrichment))).unwrap();
        assert!(!failed.contains("qs_appMetadata") && failed.contains("qs_taskMetadata"));
    }

    #[test]
    fn more_than_butler_tells_stands_in_cloud_events_only() {
        let event = task("scheduler-task-failed");
        let plain = full(&event, None);
        assert_eq!(with_more(&plain, &event, None), plain);
        let owner = json!({"owner": {"id": "x", "userDirectory": "LAB", "userId": "goran", "name": "Göran"}});
        let enrichment = Enrichment { task: None, app: Some(owner) };
        let polled = TaskEvent { origin: Origin::Polling, ..event };
        let data = String::from_utf8(with_more(&plain, &polled, Some(&enrichment))).unwrap();
        let tail = r#""logMessage":"m","eventSource":"polling","qs_appOwner":{"userDirectory":"LAB","userId":"goran","name":"Göran"}}"#;
        assert!(data.ends_with(tail), "{data}");
    }

    #[test]
    fn what_qrs_does_not_know_is_left_out() {
        let enrichment = Enrichment { task: Some(json!({})), app: None };
        let payload = String::from_utf8(full(&task("scheduler-task-aborted"), Some(&enrichment))).unwrap();
        assert!(!payload.contains("qs_app") && payload.contains(r#""qs_taskTags":[]"#));
    }

    #[test]
    fn users_are_shown_as_configured() {
        let text = b"/x/;p;Start session;LAB;anna;o;c;Start session for user 'LAB\\anna'";
        let event = datagram::parse_session(text, Generation::Head, SystemTime::UNIX_EPOCH).unwrap();
        let path = |mode| shown_user(&event, mode).path;
        assert_eq!(path(SessionUser::Full), "LAB/anna");
        assert_eq!(path(SessionUser::Hash), format!("LAB/{}", pseudonym("anna")));
        assert_eq!(path(SessionUser::None), "-");
        for mode in [SessionUser::Hash, SessionUser::None] {
            let data = session_data(&event, &shown_user(&event, mode), mode);
            assert!(!String::from_utf8(data).unwrap().contains("anna"));
        }
        let data = session_data(&event, &shown_user(&event, SessionUser::Full), SessionUser::Full);
        assert!(String::from_utf8(data).unwrap().contains(r"LAB\\anna"));
    }
}
