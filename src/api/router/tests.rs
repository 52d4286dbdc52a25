//! What paths and methods mean.

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

#[test]
fn start_paths() {
    assert!(is_start("/v4/reloadtask/abc/start"));
    assert!(is_start("/v4/reloadtask/-/start"));
    for path in ["/v4/reloadtask/start", "/v4/reloadtask/a/b/start", "/v4/reloadtask/a", "/v4/reloadtask//start"] {
        assert!(!is_start(path), "{path}");
    }
}

#[test]
fn key_paths() {
    for (path, key) in [
        ("/v4/keyvalues/ns/k", Some(Resource::Key)),
        ("/v4/keyvalues/ns/keyexists", Some(Resource::KeyExists)),
        ("/v4/keyvalues/keyexists", None),
        ("/v4/keyvalues/ns/a/b", None),
        ("/v4/keyvalues/", None),
    ] {
        assert_eq!(is_key(path).then(|| of_key(path)), key, "{path}");
    }
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
