//! The body of a start request, read as a whole before anything is done.
//!
//! Generation head refuses an item of an unknown type and what is no object; generation 5.4 looked at nothing but the path and ignored
//! them, and so they are ignored there. A payload that lacks what its type needs is refused in both.

use serde_json::Value;

use crate::{
    api::{
        fault::{Fault, Kind},
        key_values,
    },
    config::settings::Generation,
    keep::values,
    sense::tasks::request::StartTarget,
};

/// Most items in one request.
const MAX_ITEMS: usize = 1_000;

/// An item of the body.
#[derive(Debug, PartialEq)]
pub(super) enum Item {
    /// A task id, as written.
    Id(String),
    /// A tag or custom property.
    Group(StartTarget),
    /// A key and value, for whoever is started.
    Store(values::Item),
}

/// Reads the body.
pub(super) fn read(body: &[u8], generation: Generation) -> Result<Vec<Item>, Fault> {
    let text = str::from_utf8(body).map_err(|_| unreadable("it is not UTF-8"))?;
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let items = match serde_json::from_str(text).map_err(|error| unreadable(&error.to_string()))? {
        Value::Array(items) => items,
        Value::Object(fields) if fields.is_empty() => Vec::new(),
        _ => {
            return Err(Fault::new(
                Kind::Value,
                "the body must be an array of items like {\"type\":\"starttaskid\",\"payload\":{\"taskId\":\"...\"}}",
            ));
        }
    };
    if items.len() > MAX_ITEMS {
        return Err(Fault::new(
            Kind::Value,
            format!("the body has {} items; at most {MAX_ITEMS} are possible", items.len()),
        ));
    }
    let read = items.iter().enumerate().map(|(index, value)| item(value, index + 1, generation));
    read.filter_map(Result::transpose).collect()
}

fn unreadable(why: &str) -> Fault {
    Fault::new(Kind::Content, format!("the body is no JSON: {why}"))
}

/// One item; `None`: it asks for nothing.
fn item(value: &Value, number: usize, generation: Generation) -> Result<Option<Item>, Fault> {
    let strange = |what: &str| match generation {
        Generation::Head => Err(Fault::new(Kind::Value, format!("item {number} of the body {what}"))),
        Generation::V5_4 => Ok(None),
    };
    let Some(fields) = value.as_object() else { return strange("is no object") };
    let Some(kind) = fields.get("type") else { return Ok(None) };
    let text = |name: &str| {
        let text =
            fields.get("payload").and_then(|payload| payload.get(name)?.as_str()).filter(|text| !text.is_empty());
        let missing = || {
            Fault::new(
                Kind::Value,
                format!("item {number} of the body needs `payload.{name}`, a text that is not empty"),
            )
        };
        text.map(str::to_owned).ok_or_else(missing)
    };
    Ok(Some(match kind.as_str() {
        Some("starttaskid") => Item::Id(text("taskId")?),
        Some("starttasktag") => Item::Group(StartTarget::Tag(text("tag")?)),
        Some("starttaskcustomproperty") => Item::Group(StartTarget::CustomProperty {
            name: text("customPropertyName")?,
            value: text("customPropertyValue")?,
        }),
        Some("keyvaluestore") => {
            let payload = fields.get("payload").and_then(Value::as_object).cloned().unwrap_or_default();
            let in_item =
                |fault: Fault| Fault::new(fault.kind, format!("item {number} of the body: {}", fault.message));
            Item::Store(key_values::read_item(text("namespace")?, &payload, generation).map_err(in_item)?)
        }
        _ => {
            return strange(
                "has an unknown type; starttaskid, starttasktag, starttaskcustomproperty and keyvaluestore are known",
            );
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_bodies_ask_for_nothing() {
        for body in ["", " \r\n", "[]", "{}", r#"[{"payload":{}}]"#] {
            assert_eq!(read(body.as_bytes(), Generation::Head).unwrap(), [], "{body:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_refuses_the_request() {
        let both = [
            ("null", "array"),
            ("5", "array"),
            (r#"{"type":"starttaskid"}"#, "array"),
            ("[{", "no JSON"),
            ("hello", "no JSON"),
            (r#"[{"type":"starttasktag","payload":{"tag":""}}]"#, "payload.tag"),
            (r#"[{"type":"starttaskid"}]"#, "payload.taskId"),
            (
                r#"[{"type":"starttaskcustomproperty","payload":{"customPropertyName":"a"}}]"#,
                "payload.customPropertyValue",
            ),
            (r#"[{"type":"keyvaluestore","payload":{}}]"#, "payload.namespace"),
            (r#"[{"type":"keyvaluestore","payload":{"namespace":"n","value":""}}]"#, "`key` is missing"),
            (r#"[{"type":"keyvaluestore","payload":{"namespace":"n","key":"k"}}]"#, "`value` of `k` is missing"),
            (
                r#"[{"type":"keyvaluestore","payload":{"namespace":"n","key":"k","value":"","ttl":"x"}}]"#,
                "item 1 of the body: `ttl`",
            ),
        ];
        for (body, part) in both {
            for generation in [Generation::Head, Generation::V5_4] {
                let fault = read(body.as_bytes(), generation).unwrap_err();
                assert!(
                    matches!(fault.kind, Kind::Content | Kind::Value | Kind::NoKey | Kind::Missing),
                    "{body}: {fault:?}"
                );
                assert!(fault.message.contains(part), "{body}: {fault:?}");
            }
        }
        assert!(read(&[b'[', 0xff, b']'], Generation::Head).is_err());
        let many = format!("[{}]", vec!["{}"; MAX_ITEMS + 1].join(","));
        assert!(read(many.as_bytes(), Generation::Head).is_err());
        for strange in ["[5]", r#"[{"type":"other"}]"#, r#"[{"type":5}]"#] {
            assert!(read(strange.as_bytes(), Generation::Head).is_err(), "{strange}");
            assert_eq!(read(strange.as_bytes(), Generation::V5_4).unwrap(), [], "{strange}");
        }
    }
}
