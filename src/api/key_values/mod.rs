//! Butler's key-value store: `/v4/keyvalues/{namespace}`, `/v4/keyvalues/{namespace}/{key}`, `/v4/keyvalues/{namespace}/keyexists`,
//! `/v4/keylist/{namespace}`, `/v4/keyvaluesnamespaces`.
//!
//! Generation 5.4 keeps the JSON type of a value and tells its time to live with it; generation head tells values as text, without.
//! Invariant: an answer that says something was stored or deleted is given when that is on disk (unless `keyValueStore.durable` is false).

mod item;

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

pub(super) use self::item::read as read_item;
use self::item::shown;
use super::{
    answer::{Answer, Request},
    fault::{Fault, Kind},
    form, js_number, json_object,
    state::State,
};
use crate::{
    config::settings::Generation,
    keep::values::{Found, ValuesError},
};

/// Where a namespace is.
pub(super) const ROOT: &str = "/v4/keyvalues/";
/// Where its list of keys is.
pub(super) const LIST: &str = "/v4/keylist/";

/// What `POST` expects.
const EXPECTED: &str = r#"{"key":"...","value":"...","ttl":60000}"#;

/// All namespaces.
pub(super) fn namespaces(state: &State) -> Answer {
    let names = state.setup.values.namespaces();
    let names: Vec<&str> = names.iter().map(|name| &**name).collect();
    Answer::json(200, json!(names).to_string())
}

/// The keys of a namespace, without their values.
pub(super) fn list(state: &State, request: &Request) -> Result<Answer, Fault> {
    let (namespace, _) = names(request, LIST)?;
    let keys = state.setup.values.keys(&namespace).map_err(|error| fault(&error))?;
    let keys: Vec<Value> = keys.iter().map(|key| json!({ "key": **key })).collect();
    Ok(Answer::json(200, json!({ "namespace": namespace, "keys": keys }).to_string()))
}

/// The value of a key.
pub(super) fn get(state: &State, request: &Request) -> Result<Answer, Fault> {
    let ((namespace, _), key) = (names(request, ROOT)?, asked_key(request)?);
    let found = state.setup.values.get(&namespace, &key).map_err(|error| fault(&error))?;
    Ok(Answer::json(200, js_number::stringify(&pair(state.setup.generation, &namespace, &key, &found))))
}

/// Whether a key is there, and its value if so.
pub(super) fn exists(state: &State, request: &Request) -> Result<Answer, Fault> {
    let ((namespace, _), key) = (names(request, ROOT)?, asked_key(request)?);
    let answer = match state.setup.values.get(&namespace, &key) {
        Ok(found) => {
            json!({ "keyExists": true, "keyValue": pair(state.setup.generation, &namespace, &key, &found) })
        }
        Err(ValuesError::UnknownKey { .. }) => json!({ "keyExists": false, "keyValue": {} }),
        Err(error) => return Err(fault(&error)),
    };
    Ok(Answer::json(200, js_number::stringify(&answer)))
}

/// Stores a value.
pub(super) async fn post(state: &State, request: &Request) -> Result<Answer, Fault> {
    let (namespace, _) = names(request, ROOT)?;
    let fields = json_object::read(request, EXPECTED)?;
    let item = read_item(namespace, &fields, state.setup.generation)?;
    let echo = json!({
        "namespace": item.namespace,
        "key": item.key,
        "value": shown(state.setup.generation, &item.value),
        "ttl": item.ttl,
    });
    state.setup.values.put(vec![item]).await.map_err(|error| fault(&error))?;
    Ok(Answer::json(201, js_number::stringify(&echo)))
}

/// Deletes a key.
pub(super) async fn delete(state: &State, request: &Request) -> Result<Answer, Fault> {
    let (namespace, key) = names(request, ROOT)?;
    state.setup.values.remove(&namespace, &key).await.map_err(|error| fault(&error))?;
    Ok(Answer::empty(204))
}

/// Deletes a namespace, and no other.
pub(super) async fn delete_namespace(state: &State, request: &Request) -> Result<Answer, Fault> {
    let (namespace, _) = names(request, ROOT)?;
    state.setup.values.remove_namespace(&namespace).await.map_err(|error| fault(&error))?;
    Ok(Answer::empty(204))
}

/// How the store's refusals are told.
pub(super) fn fault(error: &ValuesError) -> Fault {
    let kind = match error {
        ValuesError::UnknownNamespace(_) => Kind::UnknownNamespace,
        ValuesError::UnknownKey { .. } => Kind::UnknownKey,
        ValuesError::Name { .. } | ValuesError::Off => Kind::Value,
        ValuesError::TooLarge { .. } => Kind::TooLarge,
        ValuesError::Full { .. } => Kind::StoreFull,
        ValuesError::Keep(_) => Kind::NotStored,
    };
    Fault::new(kind, error.to_string())
}

/// Namespace and key in the path; the key is empty where there is none.
fn names(request: &Request, root: &str) -> Result<(String, String), Fault> {
    let rest = request.path.strip_prefix(root).unwrap_or_default();
    let (namespace, key) = rest.split_once('/').unwrap_or((rest, ""));
    Ok((decode(namespace)?, decode(key)?))
}

/// A segment of a path, decoded.
fn decode(segment: &str) -> Result<String, Fault> {
    let bad = || Fault::new(Kind::Path, format!("`{segment}` in the path is no percent-encoded UTF-8"));
    let is_escape =
        |rest: &str| rest.as_bytes().first_chunk().is_some_and(|two: &[u8; 2]| two.iter().all(u8::is_ascii_hexdigit));
    if !segment.split('%').skip(1).all(is_escape) {
        return Err(bad());
    }
    percent_decode_str(segment).decode_utf8().map(std::borrow::Cow::into_owned).map_err(|_| bad())
}

/// `key` of the query.
fn asked_key(request: &Request) -> Result<String, Fault> {
    let mut pairs = form::pairs(&request.query).filter_map(Result::ok);
    let key = pairs.find(|(name, _)| name == "key").map(|(_, key)| key).filter(|key| !key.is_empty());
    key.ok_or_else(|| Fault::new(Kind::Missing, "the address needs `?key=...`, the key that is asked for"))
}

fn pair(generation: Generation, namespace: &str, key: &str, found: &Found) -> Value {
    let value = shown(generation, &found.value);
    match generation {
        Generation::V5_4 => json!({ "namespace": namespace, "key": key, "value": value, "ttl": found.ttl }),
        Generation::Head => json!({ "namespace": namespace, "key": key, "value": value }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments() {
        for (segment, name) in [("ns1", "ns1"), ("n%C3%A5%20s", "nå s"), ("a+b", "a+b"), ("%2F", "/"), ("", "")] {
            assert_eq!(decode(segment).unwrap(), name);
        }
        for segment in ["%zz", "%", "a%2", "%C3", "%C3%"] {
            assert_eq!(decode(segment).unwrap_err().kind, Kind::Path, "{segment}");
        }
    }
}
