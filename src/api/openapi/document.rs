//! The document, put together: what the router's table has, with what the files say of it.
//!
//! Invariants: every method of every route that is switched on has its operation, and there are no others; an error answer that several
//! operations have is there once.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{
    JSON,
    faults::{self, ByStatus},
    schema::{name, schema},
    source::{self, Example, Group, Operation, Reply, SourceError},
};
use crate::{
    api::{
        catalogue::Line,
        fault::Space,
        router::table::{self, Route},
    },
    config::settings::{Endpoints, Generation},
};

/// The name of the way to show a token.
const TOKEN: &str = "token";

/// The document of the routes that are on.
///
/// # Errors
/// A file is not what is expected.
pub(super) fn of(generation: Generation, on: &Endpoints) -> Result<Value, SourceError> {
    let mut sheet = Sheet { generation, groups: source::groups()?, shared: Vec::new(), ids: Vec::new() };
    let mut paths = Map::new();
    for route in table::all().filter(|route| (route.is_on)(on)) {
        paths.insert(route.path.to_owned(), sheet.path(route)?);
    }
    Ok(json!({
        "openapi": "3.1.0",
        "info": {
            "title": "sense-butler",
            "version": env!("CARGO_PKG_VERSION"),
            "summary": "MQTT broker, event bridge and REST API for Qlik Sense servers",
            "description": include_str!("introduction.md"),
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "tags": sheet.tags(),
        "paths": paths,
        "components": sheet.components(),
    }))
}

/// The methods of a route that have operations of their own. (HEAD is GET without a body.)
pub(super) fn methods(route: &Route) -> impl Iterator<Item = &'static str> {
    route.resource.allow().split(", ").filter(|method| *method != "HEAD")
}

/// Under which key of the files an operation stands.
pub(super) fn key(route: &Route, method: &str) -> String {
    format!("{:?} {method}", route.resource)
}

struct Sheet {
    generation: Generation,
    groups: Vec<Group>,
    /// Error answers with their names.
    shared: Vec<(String, Value)>,
    /// Ids of operations that are taken.
    ids: Vec<String>,
}

impl Sheet {
    fn tags(&self) -> Value {
        self.groups.iter().map(|group| json!({"name": group.name, "description": group.text})).collect()
    }

    fn components(&self) -> Value {
        let all = self.groups.iter().flat_map(|group| &group.schemas);
        let mut schemas: BTreeMap<&str, Value> = all.map(|(name, short)| (name.as_str(), schema(short))).collect();
        schemas.insert(faults::BUTLER_ERROR, faults::butler_error(self.generation));
        let responses: Map<String, Value> = self.shared.iter().cloned().collect();
        json!({
            "schemas": schemas,
            "responses": responses,
            "securitySchemes": {
                TOKEN: {"type": "http", "scheme": "bearer", "description": "`sense-butler token create` makes one"}
            },
        })
    }

    fn path(&mut self, route: &Route) -> Result<Value, SourceError> {
        let mut item = Map::new();
        for method in methods(route) {
            let key = key(route, method);
            let found = self.groups.iter().find_map(|group| {
                let read = group.operation(&key, self.generation).transpose()?;
                Some(read.map(|operation| (group.name.clone(), operation)))
            });
            if let Some((group, operation)) = found.transpose()? {
                let described = self.operation(route, (&key, method), &group, &operation)?;
                item.insert(method.to_ascii_lowercase(), described);
            }
        }
        Ok(Value::Object(item))
    }

    fn operation(
        &mut self,
        route: &Route,
        (key, method): (&str, &str),
        group: &str,
        operation: &Operation,
    ) -> Result<Value, SourceError> {
        let space = Space::of(route.path, self.generation);
        let common = faults::common(route.resource, method);
        let codes = operation.errors.iter().map(String::as_str).chain(common);
        let errors = faults::by_status(codes, space)
            .map_err(|code| SourceError::Code { key: key.to_owned(), code: code.to_owned() })?;
        let mut out = Map::new();
        out.insert("operationId".into(), self.id(&operation.id).into());
        out.insert("tags".into(), json!([group]));
        out.insert("summary".into(), operation.summary.as_str().into());
        out.insert("description".into(), description(route, method, operation).into());
        out.insert("security".into(), security(route));
        let parameters = parameters(operation);
        if !parameters.is_empty() {
            out.insert("parameters".into(), parameters.into());
        }
        if !operation.body.is_empty() {
            out.insert("requestBody".into(), body(operation));
        }
        out.insert("responses".into(), self.answers(operation, errors, space));
        let examples = operation.examples.iter();
        let told = examples.map(|one| json!({"name": one.name, "summary": one.summary, "status": one.status}));
        out.insert("x-examples".into(), told.collect());
        Ok(Value::Object(out))
    }

    /// An id of its own: a resource may have two paths.
    fn id(&mut self, wanted: &str) -> String {
        let count = self.ids.iter().filter(|id| *id == wanted).count();
        self.ids.push(wanted.to_owned());
        if count == 0 { wanted.to_owned() } else { format!("{wanted}_{}", count + 1) }
    }

    fn answers(&mut self, operation: &Operation, mut errors: ByStatus, space: Space) -> Value {
        let mut all: BTreeMap<u16, Value> = BTreeMap::new();
        for (status, reply) in &operation.answers {
            let status = status.parse().unwrap_or_default();
            all.insert(status, answer(reply, errors.remove(&status), operation, (status, space)));
        }
        for (status, lines) in errors {
            let examples = examples_of(operation, status);
            let told = refusal(&lines, (status, space), &examples);
            all.insert(status, if examples.is_empty() { self.share(status, told) } else { told });
        }
        all.into_iter().map(|(status, answer)| (status.to_string(), answer)).collect::<Map<_, _>>().into()
    }

    /// A reference to an answer that others may have, too.
    fn share(&mut self, status: u16, answer: Value) -> Value {
        let known = self.shared.iter().find(|(_, known)| *known == answer).map(|(name, _)| name.clone());
        let name = known.unwrap_or_else(|| {
            let start = format!("Error{status}");
            let count = self.shared.iter().filter(|(name, _)| name.starts_with(&start)).count();
            let name = if count == 0 { start } else { format!("{start}_{}", count + 1) };
            self.shared.push((name.clone(), answer));
            name
        });
        json!({"$ref": format!("#/components/responses/{name}")})
    }
}

fn description(route: &Route, method: &str, operation: &Operation) -> String {
    let text = operation.text.trim_end();
    let doors = if route.resource.needs_trust() {
        let rights: Vec<_> = route.resource.rights(method).iter().map(|right| format!("`{right}`")).collect();
        format!(
            "Open to this machine and `allowedSources`; anybody else shows a token with the right {}.",
            rights.join(" or ")
        )
    } else {
        "Open to everybody who reaches the port.".to_owned()
    };
    if text.is_empty() { doors } else { format!("{text}\n\n{doors}") }
}

fn security(route: &Route) -> Value {
    if route.resource.needs_trust() { json!([{}, {TOKEN: []}]) } else { json!([]) }
}

fn parameters(operation: &Operation) -> Vec<Value> {
    let of = |example: &Example, place| match place {
        "path" => example.path.clone(),
        "query" => example.query.clone(),
        _ => example.headers.clone(),
    };
    let places = [("path", &operation.path), ("query", &operation.query), ("header", &operation.headers)];
    let all = places.into_iter().flat_map(|(place, named)| named.iter().map(move |(key, short)| (place, key, short)));
    let one = |(place, key, short): (&'static str, &String, &Value)| {
        let (name, is_optional) = name(key);
        let values = operation.examples.iter().filter_map(|example| {
            let value = of(example, place).remove(name)?;
            Some((example.name.clone(), json!({"summary": example.summary, "value": value})))
        });
        let (schema, text) = described(short);
        let mut out = Map::new();
        out.insert("name".into(), name.into());
        out.insert("in".into(), place.into());
        out.insert("required".into(), (!is_optional).into());
        out.extend(text.map(|text| ("description".to_owned(), text)));
        out.insert("schema".into(), schema);
        insert_examples(&mut out, values.collect());
        Value::Object(out)
    };
    all.map(one).collect()
}

/// A schema, and what is said of it.
fn described(short: &Value) -> (Value, Option<Value>) {
    let mut schema = schema(short);
    let text = schema.as_object_mut().and_then(|fields| fields.shift_remove("description"));
    (schema, text)
}

fn insert_examples(out: &mut Map<String, Value>, examples: Map<String, Value>) {
    if !examples.is_empty() {
        out.insert("examples".into(), Value::Object(examples));
    }
}

fn body(operation: &Operation) -> Value {
    let one = |(media, short): (&String, &Value)| {
        let examples = operation.examples.iter().filter_map(|example| {
            let (_, value) = example.body().filter(|(of, _)| of == media)?;
            Some((example.name.clone(), json!({"summary": example.summary, "value": value})))
        });
        let mut out = Map::new();
        out.insert("schema".into(), schema(short));
        insert_examples(&mut out, examples.collect());
        (media.clone(), Value::Object(out))
    };
    let content: Map<String, Value> = operation.body.iter().map(one).collect();
    json!({"required": !operation.body_optional, "content": content})
}

/// The answers of the examples with this status.
fn examples_of(operation: &Operation, status: u16) -> Map<String, Value> {
    let fitting = operation.examples.iter().filter(|example| example.status == status);
    let told = fitting.filter_map(|example| {
        let answer = example.answer.clone()?;
        Some((example.name.clone(), json!({"summary": example.summary, "value": answer})))
    });
    told.collect()
}

/// An answer that is no error, or not only one.
fn answer(reply: &Reply, errors: Option<Vec<Line>>, operation: &Operation, (status, space): (u16, Space)) -> Value {
    let mut out = Map::new();
    let mut content = Map::new();
    let (mut text, mut heads) = (reply.text.clone(), headers_of(reply));
    let own = reply.schema.as_ref().map(schema);
    for media in reply.media().filter(|_| own.is_some()) {
        content.insert(media.to_owned(), json!({"schema": own}));
    }
    if let Some(lines) = errors {
        text = format!("{text} Or an error:\n\n{}", faults::text(&lines));
        let error = faults::schema(&lines, space);
        let both = match content.get(JSON) {
            Some(own) => json!({"schema": {"anyOf": [own.get("schema"), error]}}),
            None => json!({ "schema": error }),
        };
        content.insert(JSON.to_owned(), both);
        heads.extend(faults::headers(status).and_then(|heads| heads.as_object().cloned()).unwrap_or_default());
    }
    if let Some(Value::Object(json)) = content.get_mut(JSON) {
        insert_examples(json, examples_of(operation, status));
    }
    out.insert("description".into(), text.into());
    if !heads.is_empty() {
        out.insert("headers".into(), Value::Object(heads));
    }
    if !content.is_empty() {
        out.insert("content".into(), Value::Object(content));
    }
    Value::Object(out)
}

fn headers_of(reply: &Reply) -> Map<String, Value> {
    let one = |(key, short): (&String, &Value)| {
        let (schema, text) = described(short);
        (name(key).0.to_owned(), json!({"description": text, "schema": schema}))
    };
    reply.headers.iter().map(one).collect()
}

/// An error answer.
fn refusal(lines: &[Line], (status, space): (u16, Space), examples: &Map<String, Value>) -> Value {
    let mut json = Map::new();
    json.insert("schema".into(), faults::schema(lines, space));
    insert_examples(&mut json, examples.clone());
    let mut out = Map::new();
    out.insert("description".into(), faults::text(lines).into());
    out.extend(faults::headers(status).map(|heads| ("headers".to_owned(), heads)));
    out.insert("content".into(), json!({JSON: json}));
    Value::Object(out)
}
