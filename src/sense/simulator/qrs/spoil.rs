//! What faults make of an answer.

use serde_json::{Map, Value};

use super::super::{
    Shared,
    fault::FaultKind,
    reply::{Delivery, Reply},
};

/// Longest list a padded answer is made of, rows.
const MOST_ROWS: usize = 1_000_000;

/// The reply with another content type, if one is given.
pub fn with_type(mut reply: Reply, kind: Option<String>) -> Reply {
    if let Some(kind) = kind {
        reply.content_type = Some(kind.into());
    }
    reply
}

/// What a proxy answers to somebody who is not logged in.
pub fn login_page() -> Reply {
    Reply::html(
        200,
        "<!DOCTYPE html>\n<html><head><title>Log in</title></head><body><form>Please log in</form></body></html>\n",
    )
}

/// An answer with something wrong in it; the faults that replace the answer are no business of this function.
pub fn spoil(mut reply: Reply, fault: FaultKind, shared: &Shared) -> Reply {
    match fault {
        FaultKind::Drip(pause, piece) => reply.delivery = Delivery::Drip(pause, piece),
        FaultKind::CutBody => reply.delivery = Delivery::Half,
        FaultKind::Truncate => {
            let half = reply.body.len() / 2;
            let cut = (0..=half).rev().find(|at| reply.body.is_char_boundary(*at)).unwrap_or_default();
            reply.body.truncate(cut);
        }
        FaultKind::ContentType(kind) => reply = with_type(reply, Some(kind)),
        FaultKind::Huge(bytes) => reply.body = padded(&reply.body, bytes),
        FaultKind::Edit { set, remove, twice } => {
            change(&mut reply, |value| edited(value, &set, &remove, twice));
        }
        FaultKind::Late(millis) => {
            // The site's clock may run faster than ours.
            let ago = (millis as f64 * shared.clock.speed()) as u64;
            let limit = shared.with_site(|site| site.calendar().qrs(site.now().saturating_sub(ago)));
            late(&mut reply, &limit);
        }
        _ => {}
    }
    reply
}

/// Changes the JSON of a reply; what is no JSON stays as it is.
fn change(reply: &mut Reply, deed: impl FnOnce(Value) -> Value) {
    if let Ok(value) = serde_json::from_str(&reply.body) {
        reply.body = deed(value).to_string();
    }
}

fn edited(value: Value, set: &Map<String, Value>, remove: &[String], twice: bool) -> Value {
    match value {
        Value::Array(rows) => {
            let rows = rows.into_iter().map(|row| edited(row, set, remove, false));
            rows.flat_map(|row| if twice { vec![row.clone(), row] } else { vec![row] }).collect()
        }
        Value::Object(mut fields) => {
            fields.retain(|key, _| !remove.contains(key));
            fields.extend(set.iter().map(|(key, value)| (key.clone(), value.clone())));
            Value::Object(fields)
        }
        other => other,
    }
}

/// Leaves out what changed after a date.
fn late(reply: &mut Reply, limit: &str) {
    let is_late = |row: &Value| row.get("modifiedDate").and_then(Value::as_str).is_some_and(|date| date > limit);
    match serde_json::from_str(&reply.body) {
        Ok(Value::Array(mut rows)) => {
            rows.retain(|row| !is_late(row));
            reply.body = Value::Array(rows).to_string();
        }
        Ok(row) if is_late(&row) => *reply = Reply::text(404, "The object does not exist"),
        _ => {}
    }
}

/// Valid JSON of about so many bytes: the rows of a list again and again, or blanks behind anything else.
fn padded(body: &str, bytes: usize) -> String {
    match serde_json::from_str::<Value>(body) {
        Ok(Value::Array(rows)) => {
            let rows: Vec<String> = rows.iter().map(Value::to_string).collect();
            let some = ["{}".to_owned()];
            let rows: &[String] = if rows.is_empty() { &some } else { &rows };
            let mut text = String::with_capacity(bytes + 4_096);
            text.push('[');
            for (number, row) in rows.iter().cycle().take(MOST_ROWS).enumerate() {
                if text.len() >= bytes {
                    break;
                }
                if number > 0 {
                    text.push(',');
                }
                text.push_str(row);
            }
            text.push(']');
            text
        }
        _ => format!("{body}{}", " ".repeat(bytes.saturating_sub(body.len()))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn rows_are_edited_doubled_and_late() {
        let set = json!({ "status": 99 });
        let Value::Object(set) = set else { panic!("an object") };
        let rows = json!([{ "status": 7, "name": "a" }, { "status": 8 }]);
        let spoilt = edited(rows, &set, &["name".to_owned()], true);
        assert_eq!(spoilt, json!([{ "status": 99 }, { "status": 99 }, { "status": 99 }, { "status": 99 }]));
        let mut reply = Reply::json(200, r#"[{"modifiedDate":"2024-02"},{"modifiedDate":"2024-04"}]"#.to_owned());
        late(&mut reply, "2024-03");
        assert_eq!(reply.body, r#"[{"modifiedDate":"2024-02"}]"#);
        let mut reply = Reply::json(200, r#"{"modifiedDate":"2024-04"}"#.to_owned());
        late(&mut reply, "2024-03");
        assert_eq!(reply.status, 404);
    }

    #[test]
    fn a_padded_answer_is_as_long_as_asked_for_and_still_json() {
        for (body, long) in [(r#"[{"a":1},{"b":2}]"#, 10_000), ("[]", 1_000), (r#"{"value":"x"}"#, 500)] {
            let text = padded(body, long);
            assert!((long..long + 50).contains(&text.len()), "{}", text.len());
            assert!(serde_json::from_str::<Value>(&text).is_ok());
        }
    }
}
