//! Holds JSON against the schemas of the OpenAPI document: the part of JSON Schema (2020-12) that the document uses, and no other.
//!
//! Stricter than the standard in one point: a field that an object's schema does not name is a fault, unless it says `additionalProperties`. So an
//! answer cannot have what is not described. A keyword that is not known here is a panic: nothing passes because nobody looked.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use serde_json::{Map, Value};

/// The pattern of ids of Qlik Sense in the document.
const GUID: &str = "^[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}$";

/// An OpenAPI document.
pub struct Spec(pub Value);

impl Spec {
    /// What a reference leads to; what is none, is itself.
    pub fn meant<'a>(&'a self, value: &'a Value) -> &'a Value {
        match value["$ref"].as_str() {
            None => value,
            Some(name) => {
                self.meant(self.0.pointer(name.strip_prefix('#').unwrap()).unwrap_or_else(|| panic!("{name}")))
            }
        }
    }

    /// What a value has that its schema does not allow.
    pub fn faults(&self, schema: &Value, value: &Value) -> Vec<String> {
        let mut found = Vec::new();
        self.check(schema, value, "", &mut found);
        found
    }

    fn check(&self, schema: &Value, value: &Value, at: &str, found: &mut Vec<String>) {
        let schema = self.meant(schema);
        let fields = schema.as_object().unwrap_or_else(|| panic!("no schema: {schema}"));
        if let Some(all) = fields.get("allOf") {
            let merged = all.as_array().unwrap().iter().fold(Value::Null, |sum, part| self.merged(&sum, part));
            return self.check(&merged, value, at, found);
        }
        for (key, rule) in fields {
            if !self.keeps(key, rule, fields, value, at, found) {
                found.push(format!("{at}: {value} breaks {key} {rule}"));
            }
        }
    }

    /// Whether a value keeps one rule; what is wrong further inside goes to `found`.
    fn keeps(
        &self,
        key: &str,
        rule: &Value,
        schema: &Map<String, Value>,
        value: &Value,
        at: &str,
        found: &mut Vec<String>,
    ) -> bool {
        let fits = |schema: &Value| self.faults(schema, value).is_empty();
        let length = || value.as_str().map(|text| text.chars().count() as u64);
        let items = || value.as_array().map(|items| items.len() as u64);
        let limit = || rule.as_u64().unwrap();
        match key {
            "description" | "default" => true,
            "additionalProperties" | "patternProperties" => true,
            "type" => match rule {
                Value::String(kind) => is_of(kind, value),
                kinds => kinds.as_array().unwrap().iter().any(|kind| is_of(kind.as_str().unwrap(), value)),
            },
            "const" => value == rule,
            "enum" => rule.as_array().unwrap().contains(value),
            "anyOf" => rule.as_array().unwrap().iter().any(fits),
            "oneOf" => rule.as_array().unwrap().iter().filter(|schema| fits_required(schema, value)).count() == 1,
            "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap()),
            "minLength" => length().is_none_or(|length| length >= limit()),
            "maxLength" => length().is_none_or(|length| length <= limit()),
            "minItems" => items().is_none_or(|count| count >= limit()),
            "maxItems" => items().is_none_or(|count| count <= limit()),
            "maxProperties" => value.as_object().is_none_or(|fields| fields.len() as u64 <= limit()),
            "pattern" => {
                assert_eq!(rule, GUID, "a pattern this test does not know");
                value.as_str().is_none_or(is_guid)
            }
            "format" => {
                assert_eq!(rule, "date-time", "a format this test does not know");
                value.as_str().is_none_or(is_time)
            }
            "required" => {
                let names = rule.as_array().unwrap();
                value
                    .as_object()
                    .is_none_or(|fields| names.iter().all(|name| fields.contains_key(name.as_str().unwrap())))
            }
            "items" => {
                for (place, item) in value.as_array().into_iter().flatten().enumerate() {
                    self.check(rule, item, &format!("{at}/{place}"), found);
                }
                true
            }
            "properties" => {
                for (name, field) in value.as_object().into_iter().flatten() {
                    let at = format!("{at}/{name}");
                    match (rule.get(name), schema.get("additionalProperties")) {
                        (Some(schema), _) => self.check(schema, field, &at, found),
                        (None, Some(Value::Bool(true))) => {}
                        (None, None | Some(Value::Bool(false))) => found.push(format!("{at} is not described")),
                        (None, Some(schema)) => self.check(schema, field, &at, found),
                    }
                }
                true
            }
            _ => panic!("a keyword this test does not know: {key}"),
        }
    }

    /// Two schemas as one: the second narrows the first.
    fn merged(&self, one: &Value, other: &Value) -> Value {
        let (one, other) = (self.meant(one), self.meant(other));
        let (Some(first), Some(second)) = (one.as_object(), other.as_object()) else { return other.clone() };
        let mut out = first.clone();
        for (key, value) in second {
            let both = match (key.as_str(), first.get(key)) {
                ("properties", Some(known)) => self.merged_properties(known, value),
                ("required", Some(known)) => {
                    Value::Array([known, value].iter().flat_map(|names| names.as_array().unwrap().clone()).collect())
                }
                _ => value.clone(),
            };
            out.insert(key.clone(), both);
        }
        Value::Object(out)
    }

    fn merged_properties(&self, one: &Value, other: &Value) -> Value {
        let mut out = one.as_object().unwrap().clone();
        for (name, schema) in other.as_object().unwrap() {
            let both = out.get(name).map_or_else(|| schema.clone(), |known| self.merged(known, schema));
            out.insert(name.clone(), both);
        }
        Value::Object(out)
    }
}

/// `oneOf` in the document names required fields alone.
fn fits_required(schema: &Value, value: &Value) -> bool {
    let fields = schema.as_object().unwrap();
    assert!(fields.len() == 1 && fields.contains_key("required"), "{schema}");
    schema["required"].as_array().unwrap().iter().all(|name| value.get(name.as_str().unwrap()).is_some())
}

fn is_of(kind: &str, value: &Value) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => panic!("a type this test does not know: {kind}"),
    }
}

fn is_guid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(place, byte)| match place {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// RFC 3339 in UTC, as all times of this program are.
fn is_time(text: &str) -> bool {
    let form: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    let fraction = form.strip_prefix("0000-00-00T00:00:00").and_then(|rest| rest.strip_suffix('Z'));
    fraction.is_some_and(|text| text.is_empty() || (text.starts_with(".0") && text.len() <= 10))
}
