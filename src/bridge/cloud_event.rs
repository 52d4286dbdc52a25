//! Every Sense event as one CloudEvents 1.0 object in JSON (structured mode; CloudEvents 1.0.2, JSON event format 1.0.2).
//!
//! The `id` is stable: the same datagram sent twice gives the same id, so consumers can drop duplicates by `source` and `id` as CloudEvents
//! wants it. It is the first 128 bits of BLAKE2s-256, in lower-case hex, of the parts named at [`task_id`] and [`session_id`], each
//! followed by a zero byte.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use blake2::{Blake2s256, Digest};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Serialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::sense::event::{SessionEvent, TaskEvent};

/// What may stand in `source` as it is: RFC 3986's unreserved characters.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// The attributes; `data` follows them. The order of the fields is the order on the wire.
#[derive(Serialize)]
struct Attributes<'a> {
    specversion: &'static str,
    id: &'a str,
    source: &'a str,
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<&'a str>,
    time: &'a str,
    datacontenttype: &'static str,
}

/// The CloudEvent of a task event. `data`: its full payload, JSON already.
pub fn of_task(event: &TaskEvent, data: &[u8]) -> Vec<u8> {
    let subject = [&event.task_id, &event.task_name, &event.app_id]
        .into_iter()
        .flatten()
        .map(String::as_str)
        .find(|text| !text.is_empty() && *text != "(null)");
    write(&task_id(event), &event.host, event.kind.type_name(), subject, event.received, data)
}

/// The CloudEvent of a session event. `subject`: the user as far as it may be told. `data`: JSON already.
pub fn of_session(event: &SessionEvent, subject: Option<&str>, data: &[u8]) -> Vec<u8> {
    write(&session_id(event), &event.host, event.kind.type_name(), subject, event.received, data)
}

fn write(id: &str, host: &str, kind: &'static str, subject: Option<&str>, at: SystemTime, data: &[u8]) -> Vec<u8> {
    let attributes = Attributes {
        specversion: "1.0",
        id,
        source: &format!("/sense/{}", utf8_percent_encode(host, SEGMENT)),
        kind,
        subject,
        time: &utc(at),
        datacontenttype: "application/json",
    };
    let mut json = Vec::with_capacity(data.len() + 320);
    // Writing plain strings into memory cannot fail; if it ever does, nothing is published rather than half an object.
    if serde_json::to_writer(&mut json, &attributes).is_err() || json.pop() != Some(b'}') {
        return Vec::new();
    }
    json.extend_from_slice(br#","data":"#);
    json.extend_from_slice(data);
    json.push(b'}');
    json
}

/// RFC 3339 in UTC, to the millisecond.
pub(crate) fn utc(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    let rounded = UNIX_EPOCH + Duration::from_millis(u64::try_from(since.as_millis()).unwrap_or_default());
    OffsetDateTime::from(rounded).format(&Rfc3339).unwrap_or_default()
}

/// Of type, task id, app id, execution id and log time. An event without a log time has nothing that tells it from the next one: the time
/// of receipt takes its place.
fn task_id(event: &TaskEvent) -> String {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let time = event.log_time.clone().filter(|time| !time.is_empty()).unwrap_or_else(|| nanoseconds(event.received));
    digest(&[event.kind.type_name(), &text(&event.task_id), &text(&event.app_id), &text(&event.execution_id), &time])
}

/// Of type, directory, user, context and time of receipt (session datagrams carry no time of their own).
fn session_id(event: &SessionEvent) -> String {
    let text = |field: &Option<String>| field.clone().unwrap_or_default();
    let (directory, user, context) = (text(&event.directory), text(&event.user), text(&event.context));
    digest(&[event.kind.type_name(), &directory, &user, &context, &nanoseconds(event.received)])
}

fn nanoseconds(at: SystemTime) -> String {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_string()
}

/// 128 bits of BLAKE2s-256 over the parts, each followed by a zero byte, as 32 hex digits.
pub(crate) fn digest(parts: &[&str]) -> String {
    let mut hasher = Blake2s256::new();
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update([0]);
    }
    let hash = hasher.finalize();
    let number = hash.iter().take(16).fold(0u128, |number, byte| (number << 8) | u128::from(*byte));
    format!("{number:032x}")
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{config::settings::Generation, sense::datagram};

    fn task(text: &str, at: u64) -> TaskEvent {
        datagram::parse_task(text.as_bytes(), Generation::V5_4, UNIX_EPOCH + Duration::from_millis(at)).unwrap()
    }

    #[test]
    fn a_task_event_has_every_attribute_in_order() {
        let text = "/scheduler-task-failed/;värd 1;Load;App;u;0000aaaa-0000-4000-8000-000000000001;;2026-05-04 10:00:01,234;INFO;;m";
        let json = of_task(&task(text, 1_500), br#"{"a":1}"#);
        let value: Value = serde_json::from_slice(&json).unwrap();
        let keys: Vec<&String> = value.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["specversion", "id", "source", "type", "subject", "time", "datacontenttype", "data"]);
        assert_eq!(value["specversion"], "1.0");
        assert_eq!(value["source"], "/sense/v%C3%A4rd%201");
        assert_eq!(value["type"], "sense.task.failed");
        assert_eq!(value["subject"], "0000aaaa-0000-4000-8000-000000000001");
        assert_eq!(value["time"], "1970-01-01T00:00:01.5Z");
        assert_eq!(value["data"]["a"], 1);
    }

    #[test]
    fn the_id_is_stable_and_tells_events_apart() {
        let text = |exec: &str| format!("/scheduler-task-failed/;h;t;a;u;;;2026-05-04 10:00:01,234;INFO;{exec};m");
        let id = |text: &str, at| task_id(&task(text, at));
        assert_eq!(id(&text("e"), 1), id(&text("e"), 2), "the time of receipt does not matter when the log has a time");
        assert_ne!(id(&text("e"), 1), id(&text("f"), 1));
        assert_ne!(id("/scheduler-task-failed/;h;t;a", 1), id("/scheduler-task-failed/;h;t;a", 2));
        assert_eq!(id(&text("e"), 1).len(), 32);
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        // Known answer: an id must not change from release to release.
        assert_eq!(digest(&["sense.task.failed", "", "", "e", "t"]), "730cc7fbd558df92c2ed03a63b83f212");
    }
}
