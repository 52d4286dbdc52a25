//! Schemas in short: a word for what is plain, `fields` for an object, everything else as JSON Schema (2020-12) has it.
//!
//! `text`, `count` (a whole number from 0), `integer`, `number`, `flag`, `time` (RFC 3339), `any`, or the name of a schema; `list of …`; `… or null`. In
//! `fields`, what stands in parentheses may be absent. `is` begins a schema with another one.

use serde_json::{Map, Value, json};

/// The schema a short form stands for.
pub(super) fn schema(short: &Value) -> Value {
    match short {
        Value::String(word) => of_word(word),
        Value::Object(fields) => of_fields(fields),
        other => other.clone(),
    }
}

/// A name, and whether what it names may be absent.
pub(super) fn name(text: &str) -> (&str, bool) {
    let inside = text.strip_prefix('(').and_then(|rest| rest.strip_suffix(')'));
    inside.map_or((text, false), |name| (name, true))
}

fn of_word(word: &str) -> Value {
    if let Some(word) = word.strip_suffix(" or null") {
        return or_null(of_word(word));
    }
    if let Some(item) = word.strip_prefix("list of ") {
        return json!({"type": "array", "items": of_word(item)});
    }
    match word {
        "text" => json!({"type": "string"}),
        "count" => json!({"type": "integer", "minimum": 0}),
        "integer" | "number" => json!({ "type": word }),
        "flag" => json!({"type": "boolean"}),
        "time" => json!({"type": "string", "format": "date-time"}),
        "any" => json!({}),
        name => json!({"$ref": format!("#/components/schemas/{name}")}),
    }
}

fn or_null(mut schema: Value) -> Value {
    match schema.get_mut("type") {
        Some(kind) => {
            *kind = json!([kind.take(), "null"]);
            schema
        }
        None => json!({"anyOf": [schema, {"type": "null"}]}),
    }
}

fn of_fields(fields: &Map<String, Value>) -> Value {
    let mut out = Map::new();
    for (key, value) in fields {
        match (key.as_str(), value) {
            ("is", base) => extend(&mut out, schema(base)),
            ("fields", Value::Object(fields)) => extend(&mut out, object(fields)),
            ("anyOf" | "allOf" | "oneOf", Value::Array(all)) => {
                out.insert(key.clone(), all.iter().map(schema).collect());
            }
            ("items" | "additionalProperties", _) => {
                out.insert(key.clone(), schema(value));
            }
            _ => {
                out.insert(key.clone(), value.clone());
            }
        }
    }
    Value::Object(out)
}

fn extend(out: &mut Map<String, Value>, schema: Value) {
    if let Value::Object(fields) = schema {
        out.extend(fields);
    }
}

fn object(fields: &Map<String, Value>) -> Value {
    let (mut properties, mut required) = (Map::new(), Vec::new());
    for (key, short) in fields {
        let (name, is_optional) = name(key);
        if !is_optional {
            required.push(name);
        }
        properties.insert(name.to_owned(), schema(short));
    }
    if required.is_empty() {
        json!({"type": "object", "properties": properties})
    } else {
        json!({"type": "object", "properties": properties, "required": required})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms() {
        let cases = [
            (json!("text"), json!({"type": "string"})),
            (json!("count or null"), json!({"type": ["integer", "null"], "minimum": 0})),
            (json!("Task or null"), json!({"anyOf": [{"$ref": "#/components/schemas/Task"}, {"type": "null"}]})),
            (json!("list of Task"), json!({"type": "array", "items": {"$ref": "#/components/schemas/Task"}})),
            (json!({"is": "text", "minLength": 1}), json!({"type": "string", "minLength": 1})),
            (json!({"enum": ["a", "b"]}), json!({"enum": ["a", "b"]})),
            (
                json!({"fields": {"a": "flag", "(b)": {"fields": {"(c)": "time"}}}, "additionalProperties": false}),
                json!({
                    "type": "object",
                    "properties": {
                        "a": {"type": "boolean"},
                        "b": {"type": "object", "properties": {"c": {"type": "string", "format": "date-time"}}}
                    },
                    "required": ["a"],
                    "additionalProperties": false
                }),
            ),
            (json!({"anyOf": ["number", "any"]}), json!({"anyOf": [{"type": "number"}, {}]})),
        ];
        let count = cases.len();
        for (short, long) in cases {
            assert_eq!(schema(&short), long, "{short}");
        }
        assert_eq!(count, 8);
    }
}
