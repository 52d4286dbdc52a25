//! What paths and methods mean.

use std::collections::BTreeSet;

use super::*;

#[test]
fn slashes() {
    for (path, expected) in [
        ("/", "/"),
        ("//", "/"),
        ("", ""),
        ("/v4/x", "/v4/x"),
        ("/v4/x/", "/v4/x"),
        ("//v4//x///", "/v4/x"),
        ("*", "*"),
    ] {
        assert_eq!(tidy(path), expected, "{path}");
    }
}

fn found(path: &str) -> Option<Resource> {
    table::at(path).map(|route| route.resource)
}

#[test]
fn start_paths() {
    for path in ["/v4/reloadtask/abc/start", "/v4/reloadtask/-/start", "/v4/reloadtask/start/start"] {
        assert_eq!(found(path), Some(Resource::StartTask), "{path}");
    }
    for path in ["/v4/reloadtask/start", "/v4/reloadtask/a/b/start", "/v4/reloadtask/a", "/v4/reloadtask//start"] {
        assert_eq!(found(path), None, "{path}");
    }
    assert_eq!(found("/api/v1/tasks/start"), Some(Resource::TasksStart), "no task's id");
}

#[test]
fn key_paths() {
    for (path, key) in [
        ("/v4/keyvalues/ns/k", Some(Resource::Key)),
        ("/v4/keyvalues/ns/keyexists", Some(Resource::KeyExists)),
        ("/v4/keyvalues/keyexists", Some(Resource::KeyNamespace)),
        ("/v4/keyvalues/ns/a/b", None),
        ("/v4/keyvalues/", None),
        ("/v4/keyvalues", None),
    ] {
        assert_eq!(found(path), key, "{path}");
    }
}

/// Every resource has a line in the table, but those of the console and of Butler's other routes; and every line is found by its own path.
#[test]
fn the_table_has_every_resource() {
    let text = include_str!("../router.rs");
    let (_, rest) = text.split_once("pub(super) enum Resource {").unwrap();
    let (list, _) = rest.split_once("\n}").unwrap();
    let names = list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with("//"));
    let names: BTreeSet<&str> = names.map(|line| line.split([',', '(']).next().unwrap()).collect();
    let in_table: BTreeSet<String> = table::all().map(|route| format!("{:?}", route.resource)).collect();
    let elsewhere = ["ConsoleLive", "ConsolePage", "ConsoleSession", "ConsoleTrial", "NotOffered"];
    let missing: Vec<&str> = names.into_iter().filter(|name| !in_table.contains(*name)).collect();
    assert_eq!(missing, elsewhere, "a resource without a line in src/api/router/table.rs");
    for route in table::all() {
        let path = route.path.replace(['{', '}'], "x");
        assert_eq!(table::at(&path).map(|found| found.path), Some(route.path), "{path} leads to another route");
    }
    assert!(in_table.len() >= 30, "{in_table:?}");
}

#[test]
fn overrides() {
    assert_eq!(effective_method("POST", Some("put")), Ok(Some("PUT")));
    assert_eq!(effective_method("POST", Some("DELETE")), Ok(Some("DELETE")));
    assert_eq!(effective_method("POST", None), Ok(None));
    assert_eq!(effective_method("GET", Some("PUT")), Ok(None), "not obeyed on GET: it changes nothing");
    for wrong in ["GET", "BOGUS", "", "POST"] {
        assert!(effective_method("POST", Some(wrong)).is_err(), "{wrong}");
    }
}

#[test]
fn methods() {
    assert!(check_method(Resource::MqttPublish, "POST").is_ok());
    assert!(check_method(Resource::Butlerping, "HEAD").is_ok());
    let fault = check_method(Resource::Butlerping, "DELETE").unwrap_err();
    assert_eq!(fault.kind, Kind::Method("GET, HEAD"));
    let options = check_method(Resource::MqttPublish, "OPTIONS").unwrap().unwrap();
    assert_eq!((options.status, options.headers), (204, vec![("allow", "PUT, POST, OPTIONS".to_owned())]));
}
