//! A key with its value and time to live, as a body gives it and as an answer shows it.

use serde_json::{Map, Value};

use crate::{
    api::{
        fault::{Fault, Kind},
        js_number,
    },
    config::settings::Generation,
    keep::values::Item,
};

/// Reads `key`, `value` and `ttl`.
///
/// # Errors
/// No key, no value, a value this generation does not take, a time to live that is no whole number.
pub(in crate::api) fn read(
    namespace: String,
    fields: &Map<String, Value>,
    generation: Generation,
) -> Result<Item, Fault> {
    let key = key(fields.get("key"))?;
    let value = fields.get("value").ok_or_else(|| {
        Fault::new(Kind::Missing, format!("`value` of `{key}` is missing; to store an empty one, send \"\""))
    })?;
    if generation == Generation::Head && (value.is_object() || value.is_array()) {
        let message =
            format!("`value` of `{key}` must be text; to store JSON, send it as a string with its quotes escaped");
        return Err(Fault::new(Kind::Value, message));
    }
    let ttl = ttl(fields.get("ttl"))?;
    // Writing a `Value` gives UTF-8.
    let value = String::from_utf8(js_number::stringify(value)).unwrap_or_default();
    Ok(Item { namespace, key, value: value.into(), ttl })
}

fn key(value: Option<&Value>) -> Result<String, Fault> {
    let key = match value {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => js_number::text(number),
        Some(Value::Bool(flag)) => flag.to_string(),
        Some(_) => return Err(Fault::new(Kind::Value, "`key` must be text")),
    };
    if key.is_empty() { Err(Fault::new(Kind::NoKey, "`key` is missing or empty")) } else { Ok(key) }
}

/// Milliseconds, as a number or its text; absent: 0.
fn ttl(value: Option<&Value>) -> Result<i64, Fault> {
    let number = |number: f64| {
        // Beyond 2^53 a float is no exact count of anything.
        let whole = number.fract() == 0.0 && number.abs() <= 9_007_199_254_740_992.0;
        whole.then_some(number as i64)
    };
    let read = match value {
        None | Some(Value::Null) => Some(0),
        Some(Value::Number(found)) => found.as_i64().or_else(|| number(found.as_f64()?)),
        Some(Value::String(text)) => text.trim().parse().ok().or_else(|| number(text.trim().parse().ok()?)),
        Some(_) => None,
    };
    read.ok_or_else(|| Fault::new(Kind::Value, "`ttl` must be a whole number of milliseconds; 0 or nothing: for ever"))
}

/// A stored value as the generation shows it.
pub(super) fn shown(generation: Generation, text: &str) -> Value {
    // The store holds JSON.
    let value = serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
    match (generation, value) {
        (Generation::V5_4, value) | (Generation::Head, value @ Value::String(_)) => value,
        (Generation::Head, Value::Null) => Value::String(String::new()),
        (Generation::Head, value) => Value::String(String::from_utf8(js_number::stringify(&value)).unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn item(fields: &Value, generation: Generation) -> Result<Item, Fault> {
        read("n".into(), fields.as_object().unwrap(), generation)
    }

    #[test]
    fn values_keep_their_type_and_head_shows_text() {
        let cases = [
            (json!("a"), json!("a")),
            (json!(7), json!("7")),
            (json!(12.50), json!("12.5")),
            (json!(true), json!("true")),
            (json!(null), json!("")),
            (json!(""), json!("")),
        ];
        let count = cases.len();
        for (value, text) in cases {
            for generation in [Generation::V5_4, Generation::Head] {
                let item = item(&json!({"key": "k", "value": value}), generation).unwrap();
                assert_eq!((item.key.as_str(), item.ttl), ("k", 0));
                assert_eq!(shown(Generation::Head, &item.value), text);
                assert_eq!(shown(Generation::V5_4, &item.value), value);
            }
        }
        assert_eq!(count, 6);
        let object = json!({"key": "k", "value": {"a": [1]}});
        assert_eq!(&*item(&object, Generation::V5_4).unwrap().value, r#"{"a":[1]}"#);
        assert_eq!(item(&object, Generation::Head).unwrap_err().kind, Kind::Value);
        assert_eq!(
            shown(Generation::Head, r#"{"a":[1]}"#),
            json!(r#"{"a":[1]}"#),
            "parameters of a start may be objects"
        );
    }

    #[test]
    fn times_to_live() {
        for (ttl, read) in [
            (json!(60_000), Some(60_000)),
            (json!("60000"), Some(60_000)),
            (json!(" 5 "), Some(5)),
            (json!(6e4), Some(60_000)),
            (json!(-5), Some(-5)),
            (json!(null), Some(0)),
            (json!("abc"), None),
            (json!(""), None),
            (json!(0.5), None),
            (json!("Infinity"), None),
            (json!(1e300), None),
            (json!(true), None),
            (json!([1]), None),
        ] {
            let found = item(&json!({"key": "k", "value": "", "ttl": ttl}), Generation::Head);
            assert_eq!(found.map(|item| item.ttl).ok(), read, "{ttl}");
        }
    }

    #[test]
    fn keys() {
        for (key, read) in [
            (json!("k"), Ok("k")),
            (json!(7), Ok("7")),
            (json!(""), Err(Kind::NoKey)),
            (json!(null), Err(Kind::NoKey)),
            (json!({}), Err(Kind::Value)),
        ] {
            let found = item(&json!({"key": key, "value": ""}), Generation::Head);
            assert_eq!(found.map(|item| item.key).map_err(|fault| fault.kind), read.map(str::to_owned), "{key}");
        }
        assert_eq!(item(&json!({"value": ""}), Generation::V5_4).unwrap_err().kind, Kind::NoKey);
        assert_eq!(item(&json!({"key": "k"}), Generation::V5_4).unwrap_err().kind, Kind::Missing);
    }
}
