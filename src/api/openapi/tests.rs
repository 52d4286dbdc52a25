//! The description and the router say the same; the document holds together.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{document, source};
use crate::{
    api::{catalogue, publish, router::table, state::tests::rest_settings},
    bus::desk::LARGEST_PAGE,
    config::settings::{Endpoints, Generation},
};

const GENERATIONS: [Generation; 2] = [Generation::Head, Generation::V5_4];

fn everything() -> Endpoints {
    let on = rest_settings().endpoints;
    assert!(table::all().all(|route| (route.is_on)(&on)), "a route is not on by default: switch it on here");
    on
}

fn whole(generation: Generation) -> Value {
    document::of(generation, &everything()).unwrap()
}

/// Path, method and operation.
fn operations(document: &Value) -> Vec<(&str, &str, &Value)> {
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            all.push((path.as_str(), method.as_str(), operation));
        }
    }
    all
}

/// Every reference in a document.
fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            found.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|value| references(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| references(value, found)),
        _ => {}
    }
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let groups = source::groups().unwrap();
    let keys: Vec<&str> = groups.iter().flat_map(source::Group::keys).collect();
    let described: BTreeSet<&str> = keys.iter().copied().collect();
    assert_eq!(keys.len(), described.len(), "an operation is described in two files");
    let (mut there, mut missing) = (BTreeSet::new(), Vec::new());
    for route in table::all() {
        for method in document::methods(route) {
            let key = document::key(route, method);
            if !described.contains(&*key) {
                missing.push(format!(
                    "{method} {} is not described: add the operation `{key}` to one of src/api/openapi/*.yaml, with id, summary, parameters (path, query, \
                     headers), body, answers, errors and examples, as its neighbours have them; then give tests/rest_openapi.rs the number of its examples",
                    route.path
                ));
            }
            there.insert(key);
        }
    }
    assert!(missing.is_empty(), "{}", missing.join("\n"));
    let strange: Vec<_> = described.iter().filter(|key| !there.contains(**key)).collect();
    assert!(strange.is_empty(), "described, and the router has no such route or method: {strange:?}");
    assert!(there.len() >= 39, "{}", there.len());
}

#[test]
fn the_document_has_every_method_of_every_path_that_is_on() {
    for generation in GENERATIONS {
        let document = whole(generation);
        let found: BTreeSet<String> =
            operations(&document).iter().map(|(path, method, _)| format!("{} {path}", method.to_uppercase())).collect();
        let there: BTreeSet<String> = table::all()
            .flat_map(|route| document::methods(route).map(|method| format!("{method} {}", route.path)))
            .collect();
        assert_eq!(found, there);
    }
    let on = Endpoints { publish: false, key_values: false, ..everything() };
    let document = document::of(Generation::Head, &on).unwrap();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.contains_key("/livez") && !paths.contains_key(publish::PATH), "{paths:?}");
    assert!(paths.keys().all(|path| !path.starts_with("/v4/key")), "{paths:?}");
}

#[test]
fn references_lead_somewhere_and_everything_is_referred_to() {
    let documents = GENERATIONS.map(whole);
    let mut found = Vec::new();
    for document in &documents {
        let before = found.len();
        references(document, &mut found);
        let new = found.iter().skip(before);
        let strange: Vec<_> = new.filter(|name| document.pointer(name.trim_start_matches('#')).is_none()).collect();
        assert!(strange.is_empty(), "{strange:?}");
    }
    let found: BTreeSet<&str> = found.into_iter().collect();
    for (document, kind) in documents.iter().flat_map(|document| [(document, "schemas"), (document, "responses")]) {
        let names = document["components"][kind].as_object().unwrap().keys();
        let unused: Vec<_> = names.filter(|name| !found.contains(&*format!("#/components/{kind}/{name}"))).collect();
        assert!(unused.is_empty(), "{unused:?}");
    }
}

#[test]
fn operations_are_whole() {
    let document = whole(Generation::Head);
    let (mut ids, mut ran) = (BTreeSet::new(), 0);
    for (path, method, operation) in operations(&document) {
        let id = operation["operationId"].as_str().unwrap();
        assert!(ids.insert(id), "{id} is there twice");
        let named = |place: &str| -> BTreeSet<&str> {
            let all = operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
            all.iter().filter(|one| one["in"] == place).filter_map(|one| one["name"].as_str()).collect()
        };
        let in_path: BTreeSet<&str> =
            path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}')).collect();
        assert_eq!(named("path"), in_path, "{method} {path}");
        let statuses: BTreeSet<&str> = operation["responses"].as_object().unwrap().keys().map(String::as_str).collect();
        assert!(
            ["403", "408", "413", "500", "503"].iter().all(|status| statuses.contains(status)),
            "{id} {statuses:?}"
        );
        assert_eq!(statuses.contains("401"), operation["security"] != serde_json::json!([]), "{id}");
        for example in operation["x-examples"].as_array().unwrap() {
            assert!(statuses.contains(&*example["status"].to_string()), "{id} {example}");
            ran += 1;
        }
        let without = operation["x-examples"].as_array().unwrap().is_empty();
        assert_eq!(without, id == "key_called_keyexists_delete", "{id} has no example");
    }
    assert!(ran >= 60, "{ran} examples");
}

#[test]
fn statuses_under_v4_are_those_of_the_generation() {
    let statuses = |generation, path: &str, method: &str| {
        let document = whole(generation);
        let all = document["paths"][path][method]["responses"].as_object().unwrap().keys().cloned();
        all.filter(|status| status.starts_with(['2', '4'])).collect::<Vec<_>>().join(" ")
    };
    let publish = "/v4/mqttpublishmessage";
    assert_eq!(statuses(Generation::Head, publish, "put"), "201 400 401 403 408 413 429");
    assert_eq!(statuses(Generation::V5_4, publish, "put"), "200 400 401 403 408 409 413 429");
    let value = "/v4/keyvalues/{namespace}";
    assert_eq!(statuses(Generation::Head, value, "get"), "200 400 401 403 408 413");
    assert_eq!(statuses(Generation::V5_4, value, "get"), "200 400 401 403 404 408 409 413");
}

/// Every code of the catalogue is one of some operation, but those of no operation.
#[test]
fn every_code_is_described() {
    let text = whole(Generation::Head).to_string() + &whole(Generation::V5_4).to_string();
    let butlers = ["no_key", "unknown_key", "unknown_namespace", "bad_path"];
    let missing: Vec<&str> =
        catalogue::words().filter(|code| !text.contains(&format!("\"{code}\"")) && !butlers.contains(code)).collect();
    assert_eq!(missing, ["method_not_allowed", "user_filter"]);
}

#[test]
fn limits_are_those_of_the_code() {
    let document = whole(Generation::Head);
    let at = |pointer: &str| document.pointer(pointer).unwrap_or_else(|| panic!("{pointer}")).as_u64();
    let bulk = "/paths/~1api~1v1~1publish~1bulk/post/requestBody/content/application~1json/schema/maxItems";
    assert_eq!(at(bulk), Some(publish::MOST as u64));
    let most = |path: &str, name: &str| {
        let parameters = document["paths"][path]["get"]["parameters"].as_array().unwrap();
        parameters.iter().find(|one| one["name"] == name).unwrap()["schema"]["maximum"].as_u64()
    };
    assert_eq!(most("/api/v1/broker/clients", "limit"), Some(LARGEST_PAGE as u64));
    assert_eq!(most("/api/v1/executions/{id}", "timeout"), Some(crate::api::tasks::LONGEST_WAIT.as_secs()));
}
