//! What the YAML files beside this one say: one file per group of operations.
//!
//! An operation stands under its resource and method (`Publish POST`). Its own words:
//!
//! | key | meaning |
//! |---|---|
//! | `as` | another operation of the file, of which it has everything it does not say itself |
//! | `in 5.4` | what is otherwise where generation 5.4 of Butler is spoken |
//! | `path`, `query`, `headers` | parameters and their schemas; what stands in parentheses may be left out |
//! | `body` | schemas by media type |
//! | `answers` | what is no error, by status |
//! | `errors` | codes of the catalogue, besides those every route has |
//! | `examples` | requests with their answers; each is sent to the running program by a test |
//!
//! Invariant: a key that is not known makes the whole unreadable, which a test would see.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use crate::config::settings::Generation;

const FILES: [&str; 7] = [
    include_str!("publish.yaml"),
    include_str!("tasks.yaml"),
    include_str!("events.yaml"),
    include_str!("broker.yaml"),
    include_str!("program.yaml"),
    include_str!("butler.yaml"),
    include_str!("values.yaml"),
];

/// What is wrong with the files; a test sees to it that nothing is.
#[derive(Debug, thiserror::Error)]
pub(super) enum SourceError {
    #[error("a file of src/api/openapi is not what is expected: {0}")]
    File(#[from] serde_yaml::Error),
    #[error("the operation `{key}` in src/api/openapi is not what is expected: {why}")]
    Operation { key: String, why: serde_json::Error },
    #[error("the operation `{key}` names the error `{code}`, which the catalogue does not have")]
    Code { key: String, code: String },
}

/// A group of operations.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    pub name: String,
    /// Markdown.
    pub text: String,
    operations: Map<String, Value>,
    /// In their short form.
    #[serde(default)]
    pub schemas: Map<String, Value>,
}

/// An operation, with schemas in their short form.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Operation {
    pub id: String,
    pub summary: String,
    /// Markdown.
    #[serde(default)]
    pub text: String,
    #[serde(default)]
    pub path: Map<String, Value>,
    #[serde(default)]
    pub query: Map<String, Value>,
    #[serde(default)]
    pub headers: Map<String, Value>,
    #[serde(default)]
    pub body: Map<String, Value>,
    /// Whether the body may be left out.
    #[serde(default)]
    pub body_optional: bool,
    #[serde(default)]
    pub answers: BTreeMap<String, Reply>,
    #[serde(default)]
    pub errors: Vec<String>,
    #[serde(default)]
    pub examples: Vec<Example>,
}

/// An answer that is no error.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reply {
    pub text: String,
    /// Media types, separated by `, `; JSON unless written.
    media: Option<String>,
    /// Absent: there is no body.
    pub schema: Option<Value>,
    #[serde(default)]
    pub headers: Map<String, Value>,
}

impl Reply {
    pub(super) fn media(&self) -> impl Iterator<Item = &str> {
        self.media.as_deref().unwrap_or(super::JSON).split(", ")
    }
}

/// A request and what is answered to it.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Example {
    pub name: String,
    pub summary: String,
    #[serde(default)]
    pub path: Map<String, Value>,
    #[serde(default)]
    pub query: Map<String, Value>,
    #[serde(default)]
    pub headers: Map<String, Value>,
    json: Option<Value>,
    form: Option<String>,
    raw: Option<String>,
    pub status: u16,
    pub answer: Option<Value>,
}

impl Example {
    /// Media type and value of its body.
    pub(super) fn body(&self) -> Option<(&'static str, Value)> {
        let text = |media, text: &Option<String>| text.clone().map(|text| (media, Value::String(text)));
        let json = self.json.clone().map(|json| (super::JSON, json));
        json.or_else(|| text("application/x-www-form-urlencoded", &self.form)).or_else(|| text("text/plain", &self.raw))
    }
}

/// All groups, in the order in which they are shown.
///
/// # Errors
/// A file is not what is expected.
pub(super) fn groups() -> Result<Vec<Group>, SourceError> {
    FILES.iter().map(|text| Ok(serde_yaml::from_str(text)?)).collect()
}

impl Group {
    /// The operation under a key, as it is where this generation of Butler is spoken.
    ///
    /// # Errors
    /// It is not what is expected.
    pub(super) fn operation(&self, key: &str, generation: Generation) -> Result<Option<Operation>, SourceError> {
        let Some(own) = self.operations.get(key) else { return Ok(None) };
        let model = own.get("as").and_then(Value::as_str).and_then(|model| self.operations.get(model));
        let mut fields = Map::new();
        for layer in model.into_iter().chain([own]) {
            overlay(&mut fields, layer);
        }
        fields.remove("as");
        let old = fields.remove("in 5.4");
        if let Some(old) = old.filter(|_| generation == Generation::V5_4) {
            overlay(&mut fields, &old);
        }
        let read = serde_json::from_value(Value::Object(fields));
        read.map(Some).map_err(|why| SourceError::Operation { key: key.to_owned(), why })
    }

    #[cfg(test)]
    pub(super) fn keys(&self) -> impl Iterator<Item = &str> {
        self.operations.keys().map(String::as_str)
    }
}

fn overlay(fields: &mut Map<String, Value>, layer: &Value) {
    if let Value::Object(layer) = layer {
        fields.extend(layer.clone());
    }
}
