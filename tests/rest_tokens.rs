//! Tokens: made, shown and revoked on the command line; what they open at the running program, and what they never do: appear in a log.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

#[path = "support/app.rs"]
mod app;

use std::fs;

use app::{App, Dir, assert_refused, run_to_end, said};
use serde_json::Value;

const PUBLISH: &str = "/api/v1/publish";
const BUTLER: &str = "/v4/mqttpublishmessage";

/// A verb of `token` on the data directory; its standard output.
fn token(dir: &Dir, arguments: &[&str]) -> String {
    let output = run_to_end(dir, &[&["token"], arguments, &["--data", "data"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn make(dir: &Dir, name: &str, rights: &str, further: &[&str]) -> String {
    let text = token(dir, &[&["create", name, "--rights", rights], further].concat());
    text.strip_suffix('\n').unwrap().to_owned()
}

/// A call with a token: status and code.
async fn call(app: &App, method: &str, path: &str, token: &str, body: &str) -> (u16, String) {
    let bearer = format!("Bearer {token}");
    let (status, text) = app.call(method, path, &[("authorization", &bearer)], body).await;
    let code =
        serde_json::from_str::<Value>(&text).ok().and_then(|body| body["error"]["code"].as_str().map(str::to_owned));
    (status, code.unwrap_or_default())
}

fn message(topic: &str) -> String {
    format!(r#"{{"topic":"{topic}","payload":"x"}}"#)
}

fn refused(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

#[cfg(unix)]
#[tokio::test]
async fn wrong_expired_revoked_and_insufficient_tokens_are_told_apart_and_never_logged() {
    let dir = Dir::new();
    let app = App::configured(&dir, "Butler:\n  logLevel: debug\n").await;
    assert_eq!(token(&dir, &["list"]), "there are no tokens in data/tokens.toml\n");
    let plant = make(&dir, "plant", "publish", &["--topic", "plant/#", "--days", "1"]);
    let reader = make(&dir, "dash board", "read", &[]);
    assert!(plant.starts_with("sbt_") && plant != reader);
    assert_eq!(
        call(&app, "POST", PUBLISH, &plant, &message("plant/a")).await,
        (202, String::new()),
        "made while it runs"
    );
    let mut ran = 0;
    for (method, path, token, body, expected) in [
        ("POST", PUBLISH, "sbt_00000000_AAAA", message("plant/a"), refused(401, "bad_token")),
        ("POST", PUBLISH, "eyJhbGciOi", message("plant/a"), refused(401, "bad_token")),
        ("POST", PUBLISH, &plant[..plant.len() - 1], message("plant/a"), refused(401, "bad_token")),
        ("POST", PUBLISH, plant.as_str(), message("office/a"), refused(403, "insufficient_rights")),
        ("POST", PUBLISH, plant.as_str(), message("qliksense/start_task"), refused(403, "insufficient_rights")),
        ("POST", PUBLISH, reader.as_str(), message("plant/a"), refused(403, "insufficient_rights")),
        ("POST", "/api/v1/tasks/start", plant.as_str(), "{}".into(), refused(403, "insufficient_rights")),
        ("GET", "/api/v1/broker/clients", plant.as_str(), String::new(), refused(403, "insufficient_rights")),
        ("GET", "/api/v1/broker/clients", reader.as_str(), String::new(), (200, String::new())),
        ("DELETE", "/api/v1/broker/clients/x", reader.as_str(), String::new(), refused(403, "insufficient_rights")),
        ("GET", "/v4/keyvaluesnamespaces", reader.as_str(), String::new(), (403, String::new())),
        ("GET", "/v4/butlerping", "sbt_x", String::new(), (200, String::new())),
    ] {
        assert_eq!(call(&app, method, path, token, &body).await, expected, "{method} {path} {token}");
        ran += 1;
    }
    assert_eq!(ran, 12);
    let butler = r#"{"topic":"plant/a","message":"x"}"#;
    assert_eq!(call(&app, "PUT", BUTLER, &plant, butler).await.0, 201);
    assert_eq!(call(&app, "PUT", BUTLER, &reader, butler).await.0, 403, "who shows a token is judged by it");
    assert_eq!(call(&app, "PUT", BUTLER, "somebody's", butler).await.0, 201, "Butler looks at no token");
    assert_eq!(app.put(BUTLER, butler).await.0, 201, "and this machine needs none");

    token(&dir, &["revoke", "plant"]);
    assert_eq!(
        call(&app, "POST", PUBLISH, &plant, &message("plant/a")).await,
        refused(401, "token_revoked"),
        "at once"
    );
    let file = dir.0.join("data/tokens.toml");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(
        &file,
        text.replace("\nrights = [\"read\"]", "\nexpires = \"2020-01-01T00:00:00Z\"\nrights = [\"read\"]"),
    )
    .unwrap();
    assert_eq!(call(&app, "GET", "/api/v1/status", &reader, "").await, refused(401, "token_expired"));
    let listed = token(&dir, &["list"]);
    assert!(listed.contains("  revoked  plant: publish; publishes to plant/#; revoked "), "{listed}");
    assert!(listed.contains("  expired  dash board: read; until 2020-01-01T00:00:00Z"), "{listed}");
    let (_, metrics) = app.get("/metrics").await;
    assert!(metrics.contains("sense_butler_rest_tokens_refused_total{reason=\"token_revoked\"} 1\n"), "{metrics}");
    app.signal("TERM");
    let ended = app.ended().await;
    assert!(ended.output.contains("REST: the token"), "{}", ended.output);
    for secret in [&plant, &reader] {
        let part = secret.rsplit('_').next().unwrap();
        assert!(!ended.output.contains(part) && !metrics.contains(part) && !text.contains(part), "a token is in a log");
    }
}

#[cfg(unix)]
#[tokio::test]
async fn a_start_by_token_names_the_token_and_keys_are_each_callers_own() {
    let dir = Dir::new();
    let app = App::configured(&dir, "Butler:\n  logLevel: info\n").await;
    let starter = make(&dir, "night shift", "start,publish", &[]);
    let body = r#"{"taskId":"00000000-0000-4000-8000-000000000001","deadlineSeconds":0}"#;
    assert_eq!(call(&app, "POST", "/api/v1/tasks/start", &starter, body).await.0, 503, "no Qlik Sense here");
    app.printed(|text| {
        text.lines().any(|line| line.contains("start request") && line.contains("night shift")).then_some(())
    })
    .await;
    let (bearer, key) = (format!("Bearer {starter}"), ("idempotency-key", "k"));
    let (_, first) = app.call("POST", PUBLISH, &[key], &message("a")).await;
    let (_, by_token) = app.call("POST", PUBLISH, &[key, ("authorization", &bearer)], &message("b")).await;
    assert!(first.contains("\"id\"") && by_token.contains("\"id\""), "{first} {by_token}");
    app.stop().await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_token_that_may_manage_has_the_configuration_read_again_and_no_other() {
    let dir = Dir::new();
    let app = App::configured(&dir, "Butler:\n  logLevel: info\n").await;
    let (manager, other) = (make(&dir, "ops", "manage", &[]), make(&dir, "rest", "publish,start,read,values", &[]));
    dir.write("butler.yaml", "Butler:\n  logLevel: debug\n");
    assert_eq!(call(&app, "POST", "/api/v1/reload", &other, "").await, refused(403, "insufficient_rights"));
    assert_eq!(call(&app, "POST", "/api/v1/reload", "sbt_00000000_AAAA", "").await, refused(401, "bad_token"));
    let bearer = format!("Bearer {manager}");
    let (status, told) = app.call("POST", "/api/v1/reload", &[("authorization", &bearer)], "").await;
    assert_eq!(status, 200, "{told}");
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(told["applied"], Value::from(vec!["Butler.logLevel"]), "what was refused before had changed nothing");
    app.printed(|text| text.contains("token `ops`").then_some(())).await;
    app.stop().await;
}

#[cfg(unix)]
#[tokio::test]
async fn tokens_can_be_switched_off_and_can_open_rest_to_others() {
    let dir = Dir::new();
    let app = App::configured(&dir, "Butler:\n  restServerConfig: {tokens: false}\n").await;
    let made = make(&dir, "a", "publish", &[]);
    assert_eq!(call(&app, "POST", PUBLISH, &made, &message("a")).await, refused(401, "bad_token"));
    app.stop().await;
    let open = dir
        .write("open.yaml", "Butler:\n  restServerConfig: {serverHost: 0.0.0.0, allowPlaintext: true, tokens: true}\n");
    let checked = run_to_end(&dir, &["check", "--config", open.to_str().unwrap()]);
    assert!(checked.status.success(), "{}", said(&checked));
    let closed = dir.write("closed.yaml", "Butler:\n  restServerConfig: {serverHost: 0.0.0.0, allowPlaintext: true}\n");
    assert_refused(&dir, &["check", "--config", closed.to_str().unwrap()], 64, &["nobody is named who may publish"]);
}

#[test]
fn what_the_command_line_refuses() {
    let dir = Dir::new();
    let at = ["--data", "data"];
    assert_refused(
        &dir,
        &["token", "create", "a", "--rights", "publish", "--data", "data"],
        1,
        &["there is no data directory data"],
    );
    fs::create_dir(dir.0.join("data")).unwrap();
    let mut ran = 0;
    for (arguments, code, word) in [
        (&["create", "a"][..], 64, "--rights"),
        (&["create", "a", "--rights", "all"], 64, "is no right"),
        (&["create", "127.0.0.1", "--rights", "read"], 64, "begins with a letter"),
        (&["create", "a", "--rights", "publish", "--topic", "a/#/b"], 64, "--topic"),
        (&["create", "a", "--rights", "publish", "--days", "0"], 64, "--days"),
        (&["revoke", "nobody"], 1, "there is no token `nobody`"),
    ] {
        assert_refused(&dir, &[&["token"], arguments, &at].concat(), code, &[word]);
        ran += 1;
    }
    assert_eq!(ran, 6);
    make(&dir, "a", "read", &[]);
    assert_refused(
        &dir,
        &["token", "create", "a", "--rights", "read", "--data", "data"],
        1,
        &["there is a token `a` already"],
    );
}
