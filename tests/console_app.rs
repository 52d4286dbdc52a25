//! The console of the real program: log-in with a user of `broker.toml`, a test event that goes the whole way, the switch that turns it off.
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

use app::{App, Dir, run_with_input};
use serde_json::{Value, json};

const MARK: (&str, &str) = ("x-sense-butler-console", "1");

async fn trial(app: &App, kind: &str) -> (u16, Value) {
    let body = json!({ "kind": kind }).to_string();
    let (status, body) = app.call("POST", "/console/test-event", &[MARK], &body).await;
    (status, serde_json::from_str(&body).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_event_arrives_as_a_message() {
    let dir = Dir::new();
    let app = App::run(&dir, &[]).await;
    let (status, page) = app.get("/console").await;
    assert!(status == 200 && page.contains("/console/main.js"), "{page}");
    for kind in ["succeeded", "failed"] {
        let (status, report) = trial(&app, kind).await;
        assert_eq!((status, &report["arrived"]), (200, &json!(true)), "{report}");
        assert_eq!(report["sentTo"], format!("127.0.0.1:{}", app.udp().await));
        let took = report["milliseconds"].as_f64().unwrap();
        assert!(took > 0.0 && took < 3_000.0, "{took}");
    }
    assert_eq!(trial(&app, "other").await.0, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_event_that_does_not_arrive_is_told_with_what_to_look_at() {
    let dir = Dir::new();
    let yaml = "Butler:\n  udpServerConfig: {enable: true, enableSourceValidation: true, allowedSources: [192.0.2.1]}\n  mqttConfig: {enable: true}\n";
    let app = App::configured(&dir, yaml).await;
    let (status, report) = trial(&app, "succeeded").await;
    assert_eq!((status, &report["arrived"]), (200, &json!(false)), "{report}");
    let remedy = report["remedy"].as_str().unwrap();
    assert!(remedy.contains("allowedSources let 127.0.0.1 pass"), "{remedy}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_no_events_are_published_there_is_no_test_event() {
    let dir = Dir::new();
    let app = App::configured(&dir, "Butler:\n  mqttConfig: {enable: false}\n").await;
    let (status, body) = trial(&app, "succeeded").await;
    assert_eq!((status, &body["error"]["code"]), (409, &json!("no_datagrams")), "{body}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_is_switched_off_by_its_key() {
    let dir = Dir::new();
    let app = App::configured(&dir, "Butler:\n  restServerEndpointsEnable: {console: false}\n").await;
    assert_eq!((app.get("/console").await.0, app.get("/console/main.js").await.0), (404, 404));
    assert_eq!(app.get("/livez").await.0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_of_the_file_logs_in() {
    let dir = Dir::new();
    let hash = run_with_input(&dir, &["hash-password"], "open sesame\n");
    let text = String::from_utf8(hash.stdout).unwrap();
    let hash = text.lines().find(|line| line.starts_with("$argon2id$")).unwrap();
    let user = format!("[[users]]\nname = \"anna\"\npassword_hash = \"{hash}\"\nrights = [\"console\"]\n");
    let file = dir.write("broker.toml", &user);
    let app = App::run(&dir, &["--broker-config", file.to_str().unwrap()]).await;
    let log_in = async |password: &str| {
        let body = json!({"user": "anna", "password": password}).to_string();
        app.call("POST", "/console/session", &[MARK], &body).await
    };
    assert_eq!(log_in("open").await.0, 401);
    assert_eq!(log_in("open sesame").await.0, 204);
    let (status, _) = app.call("GET", "/console/session", &[MARK], "").await;
    assert_eq!(status, 401, "without the cookie nobody is logged in");
    app.printed(|text| text.contains("somebody logged in to the console").then_some(())).await;
    assert!(!app.said().contains("open sesame"));
}
