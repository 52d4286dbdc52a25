//! Tasks and executions by REST, the topics of executions and the audit log: the real program against the simulated site.
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
#[path = "support/mqtt.rs"]
mod mqtt;
#[path = "support/site.rs"]
mod site;

use std::{fs, time::Duration};

use app::{App, Dir, http};
use mqtt::Client;
use rumqttc::QoS;
use serde_json::{Value, json};
use site::{Site, task};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, time::timeout};

const QUICK: &str = "00000000-0000-0000-0000-000000000001";
const FAILS: &str = "00000000-0000-0000-0000-000000000002";
const SLOW: &str = "00000000-0000-0000-0000-000000000003";
const NEXT: &str = "00000000-0000-0000-0000-000000000004";
const LISTED_BY_TAG: &str = "00000000-0000-0000-0000-000000000005";
const NOBODY: &str = "00000000-0000-0000-0000-0000000000ff";
fn tasks() -> String {
    [
        task(QUICK, "Quick", "duration: 2, tags: [quick], customProperties: { StartBy: [rest] }"),
        task(FAILS, "Fails", "duration: 1, outcome: fail"),
        task(SLOW, "Slow", "duration: 4000"),
        task(NEXT, "Next", &format!("duration: 2, after: [{{ fail: [{SLOW}] }}]")),
        task(LISTED_BY_TAG, "Tagged", "duration: 4000, tags: [allowed]"),
    ]
    .concat()
}

/// A call, its status and its JSON.
async fn call(app: &App, method: &str, path: &str, body: &Value) -> (u16, Value) {
    with_key(app, method, path, None, body).await
}

async fn with_key(app: &App, method: &str, path: &str, key: Option<&str>, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let headers: Vec<_> = key.map(|key| ("Idempotency-Key", key)).into_iter().collect();
    let (status, text) = app.call(method, path, &headers, &body).await;
    let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {status} {error}: {text}"));
    (status, value)
}

async fn start(app: &App, query: &str, body: &Value) -> (u16, Value) {
    call(app, "POST", &format!("/api/v1/tasks/start{query}"), body).await
}

/// The error of an answer: status and code; its body has exactly the three members.
fn refusal((status, body): (u16, Value)) -> (u16, String) {
    let error = body["error"].as_object().unwrap_or_else(|| panic!("{status} {body}"));
    let names: Vec<_> = error.keys().map(String::as_str).collect();
    assert_eq!((names.len(), body.as_object().unwrap().len()), (3, 1), "{body}");
    assert!(error["message"].as_str().is_some_and(|text| text.len() > 10), "{body}");
    assert!(error["request_id"].is_string(), "{body}");
    (status, error["code"].as_str().unwrap().to_owned())
}

fn error(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

/// The lines of the audit log.
fn audit(dir: &Dir) -> Vec<Value> {
    let mut files: Vec<_> = fs::read_dir(dir.0.join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.file_name().unwrap().to_str().unwrap().starts_with("start-audit."));
    files.sort();
    let text: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[tokio::test]
async fn tasks_are_found_and_shown() {
    let (site, dir) = (Site::start(&tasks()).await, Dir::new());
    let app = App::configured(&dir, &site.butler_yaml("")).await;
    let mut ran = 0;
    for (query, names) in [
        ("", vec!["Fails", "Next", "Quick", "Slow", "Tagged"]),
        ("?name=UIC", vec!["Quick"]),
        ("?tag=quick", vec!["Quick"]),
        ("?tag=Quick", vec![]),
        ("?property=StartBy:rest", vec!["Quick"]),
        ("?property=StartBy:mqtt", vec![]),
        ("?limit=2", vec!["Fails", "Next"]),
        ("?name=s&tag=allowed", vec![]),
    ] {
        let (status, body) = call(&app, "GET", &format!("/api/v1/tasks{query}"), &Value::Null).await;
        let found: Vec<_> = body["tasks"].as_array().unwrap_or_else(|| panic!("{query} {body}")).iter().collect();
        let found: Vec<_> = found.iter().map(|task| task["taskName"].as_str().unwrap()).collect();
        assert_eq!((status, found), (200, names), "{query}");
        ran += 1;
    }
    for query in ["?limit=0", "?limit=1001", "?nme=x", "?property=x", "?name=a&name=b"] {
        let answer = call(&app, "GET", &format!("/api/v1/tasks{query}"), &Value::Null).await;
        assert_eq!(refusal(answer), error(400, "invalid_value"), "{query}");
        ran += 1;
    }
    assert_eq!(ran, 13);
    let (status, quick) = call(&app, "GET", &format!("/api/v1/tasks/{QUICK}"), &Value::Null).await;
    assert_eq!(status, 200, "{quick}");
    assert_eq!((&quick["type"], &quick["enabled"]), (&json!("reload"), &json!(true)), "{quick}");
    assert_eq!(quick["customProperties"], json!([{"name": "StartBy", "value": "rest"}]));
    assert_eq!((&quick["running"], &quick["next"]), (&json!([]), &json!([])), "{quick}");
    let execution = site.start_elsewhere(SLOW).await;
    let (_, slow) = call(&app, "GET", &format!("/api/v1/tasks/{SLOW}"), &Value::Null).await;
    assert_eq!(slow["running"][0]["executionId"], json!(execution), "{slow}");
    assert_eq!(slow["running"][0]["startedBy"], Value::Null, "{slow}");
    let next = &slow["next"][0];
    assert_eq!((&next["taskId"], &next["on"], &next["enabled"]), (&json!(NEXT), &json!("failure"), &json!(true)));
    let unknown = call(&app, "GET", &format!("/api/v1/tasks/{NOBODY}"), &Value::Null).await;
    assert_eq!(refusal(unknown), error(404, "not_found"));
    assert_eq!(refusal(call(&app, "GET", "/api/v1/tasks/x", &Value::Null).await), error(400, "invalid_value"));
    let method = call(&app, "DELETE", &format!("/api/v1/tasks/{QUICK}"), &Value::Null).await;
    assert_eq!(refusal(method), error(405, "method_not_allowed"));
    app.stop().await;
    site.finish().await;
}

#[tokio::test]
async fn a_start_is_answered_as_over_mqtt() {
    let (site, dir) = (Site::start(&tasks()).await, Dir::new());
    let app = App::configured(&dir, &site.butler_yaml("")).await;
    let (status, body) = start(&app, "", &json!({"taskId": QUICK, "transaction": {"order": 7}})).await;
    let result = &body["results"][0];
    assert_eq!((status, &result["status"], &result["taskName"]), (200, &json!("started"), &json!("Quick")), "{body}");
    assert_eq!((&result["door"], &result["requestedBy"]), (&json!("rest"), &json!("127.0.0.1")));
    assert_eq!((&result["transaction"], result.get("duplicate")), (&json!({"order": 7}), None));
    // The end, waited for; a failure tells the last lines of the script log.
    let (status, body) = start(&app, "?timeout=60", &json!({"taskId": FAILS, "wait": "finished"})).await;
    let result = &body["results"][0];
    assert_eq!((status, &result["status"]), (200, &json!("failed")), "{body}");
    assert!(!result["execution"]["logTail"].as_array().unwrap().is_empty(), "{body}");
    // Several at once, of which some do not exist: in the order of the request, each with its own word.
    let (status, body) = start(&app, "", &json!({"taskIds": [NOBODY, FAILS]})).await;
    let words: Vec<_> = body["results"].as_array().unwrap().iter().map(|one| one["status"].clone()).collect();
    assert_eq!((status, words), (200, vec![json!("unknown_task"), json!("started")]), "{body}");
    // A wait that runs out: what is known, with the execution.
    let (status, body) = start(&app, "?timeout=1", &json!({"taskId": SLOW, "wait": "finished"})).await;
    assert_eq!((status, &body["results"][0]["status"]), (202, &json!("started")), "{body}");
    let execution = body["results"][0]["executionId"].as_str().unwrap().to_owned();
    let queued = json!({"taskId": SLOW, "onRunning": "queue", "deadlineSeconds": 600});
    let (status, body) = start(&app, "?timeout=1", &queued).await;
    let result = &body["results"][0];
    assert_eq!((status, &result["status"], &result["error"]["code"]), (202, &json!("accepted"), &json!("queued")));
    assert_eq!(result["executionId"], json!(execution), "{body}");
    let mut ran = 0;
    for (body, code) in [
        (json!({"taskId": "x"}), "not_an_id"),
        (json!({"taskId": QUICK, "later": 1}), "unknown_field"),
        (json!({"tag": "a", "taskId": QUICK}), "bad_request"),
        (json!({}), "bad_request"),
        (Value::Null, "empty"),
    ] {
        assert_eq!(refusal(start(&app, "", &body).await), error(400, code), "{body}");
        ran += 1;
    }
    for query in ["?timeout=-1", "?timeout=1001", "?timeout=x", "?wait=1"] {
        assert_eq!(refusal(start(&app, query, &json!({"taskId": QUICK})).await), error(400, "invalid_value"));
        ran += 1;
    }
    assert_eq!(ran, 9);
    assert_eq!(site.starts_of(QUICK).await, 1, "no refused request started anything");
    app.stop().await;
    site.finish().await;
}

#[tokio::test]
async fn nobody_there_is_an_error_and_waiting_for_somebody_is_not() {
    let (site, dir) = (Site::start(&tasks()).await, Dir::new());
    let app = App::configured(&dir, &site.butler_yaml("")).await;
    site.order("restart", json!({"downSeconds": 3, "initialisingSeconds": 0})).await;
    let at_once = start(&app, "", &json!({"taskId": QUICK, "deadlineSeconds": 0})).await;
    assert_eq!(refusal(at_once), error(503, "qrs_unreachable"));
    assert_eq!(refusal(call(&app, "GET", "/api/v1/tasks", &Value::Null).await), error(503, "qrs_unreachable"));
    let wish = json!({"taskId": QUICK, "deadlineSeconds": 600});
    let (status, body) = with_key(&app, "POST", "/api/v1/tasks/start?timeout=0", Some("k"), &wish).await;
    assert_eq!(status, 202, "{body}");
    // The same key again waits for the same start.
    let (status, body) = with_key(&app, "POST", "/api/v1/tasks/start?timeout=60", Some("k"), &wish).await;
    let result = &body["results"][0];
    assert_eq!((status, &result["status"], &result["duplicate"]), (200, &json!("started"), &json!(true)), "{body}");
    assert_eq!(site.starts_of(QUICK).await, 1);
    app.stop().await;
    site.finish().await;
}

#[tokio::test]
async fn a_key_is_known_again_over_a_restart_and_hanging_up_stops_nothing() {
    let (site, dir) = (Site::start(&tasks()).await, Dir::new());
    let app = App::configured(&dir, &site.butler_yaml("")).await;
    let wish = json!({"taskId": QUICK});
    let path = "/api/v1/tasks/start";
    let (status, first) = with_key(&app, "POST", path, Some("order 4711"), &wish).await;
    assert_eq!((status, &first["results"][0]["status"]), (200, &json!("started")), "{first}");
    assert_eq!(first["results"][0]["transaction"], json!("order 4711"));
    let both = json!({"taskId": QUICK, "transaction": 1});
    let clash = with_key(&app, "POST", path, Some("k"), &both).await;
    assert_eq!(refusal(clash), error(400, "bad_idempotency_key"));
    // A caller who hangs up before the answer.
    let body = json!({"taskId": SLOW, "wait": "finished"}).to_string();
    let head = format!("POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {}\r\n\r\n", body.len());
    let mut stream = TcpStream::connect(("127.0.0.1", app.rest().await)).await.unwrap();
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let started = async {
        while site.starts_of(SLOW).await == 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(30), started).await.expect("the start arrives");
    drop(stream);
    let followed = async {
        loop {
            let (_, body) = call(&app, "GET", "/api/v1/executions?state=running", &Value::Null).await;
            if body["executions"].as_array().unwrap().iter().any(|one| one["taskId"] == SLOW) {
                return;
            }
        }
    };
    timeout(Duration::from_secs(30), followed).await.expect("it is followed all the same");
    app.stop().await;
    let app = App::configured(&dir, &site.butler_yaml("")).await;
    let (status, again) = with_key(&app, "POST", path, Some("order 4711"), &wish).await;
    let (result, before) = (&again["results"][0], &first["results"][0]);
    assert_eq!((status, &result["duplicate"]), (200, &json!(true)), "{again}");
    assert_eq!(result["executionId"], before["executionId"]);
    assert_eq!(site.starts_of(QUICK).await, 1);
    app.stop().await;
    site.finish().await;
}

/// An execution that ended before anybody here heard of it: a success is one at once, a failure is followed until it is sure that no retry comes.
#[tokio::test]
async fn ends_of_others_are_found_out() {
    let (site, dir) = (Site::start(&tasks()).await, Dir::new());
    let app = App::configured(&dir, &site.butler_yaml("")).await;
    for (task, qlik, tail) in [(QUICK, "FinishedSuccess", false), (FAILS, "FinishedFail", true)] {
        let execution = site.start_elsewhere(task).await;
        let ended = async {
            while call(&app, "GET", &format!("/api/v1/tasks/{task}"), &Value::Null).await.1["running"] != json!([]) {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(60), ended).await.expect("it ends");
        let path = format!("/api/v1/executions/{execution}?wait=finished&timeout=60");
        let (status, body) = call(&app, "GET", &path, &Value::Null).await;
        assert_eq!((status, &body["qlikStatus"], &body["end"]["attempts"]), (200, &json!(qlik), &json!(1)), "{body}");
        assert_eq!(body["end"]["logTail"].is_array(), tail, "{body}");
    }
    let (_, body) = call(&app, "GET", "/api/v1/executions?state=ended", &Value::Null).await;
    let known: Vec<_> = body["executions"].as_array().unwrap().iter().map(|one| one["taskId"].clone()).collect();
    assert_eq!(known, [json!(FAILS)], "{body}");
    app.stop().await;
    site.finish().await;
}

/// A stop of the program does not wait for who waits for an end, nor cut them off without a word.
#[cfg(unix)]
#[tokio::test]
async fn who_waits_is_answered_when_the_program_stops() {
    let (site, dir) = (Site::start(&tasks()).await, Dir::new());
    let app = App::configured(&dir, &site.butler_yaml("")).await;
    let (port, execution) = (app.rest().await, site.start_elsewhere(LISTED_BY_TAG).await);
    assert_eq!(call(&app, "GET", &format!("/api/v1/executions/{execution}"), &Value::Null).await.0, 200);
    let body = json!({"taskId": SLOW, "wait": "finished"}).to_string();
    let starting =
        tokio::spawn(async move { http(port, "POST", "/api/v1/tasks/start?timeout=1000", &[], &body).await });
    let path = format!("/api/v1/executions/{execution}?wait=finished&timeout=1000");
    let looking = tokio::spawn(async move { http(port, "GET", &path, &[], "").await });
    let both_there = async {
        let text = "sense_butler_rest_connections 3";
        while site.starts_of(SLOW).await == 0 || !app.get("/metrics").await.1.contains(text) {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(30), both_there).await.expect("both wait");
    app.stop().await;
    let (status, body) = starting.await.unwrap();
    assert!(status == 202 && body.starts_with(r#"{"results":["#), "{status} {body}");
    let (status, body) = looking.await.unwrap();
    assert!(status == 202 && body.contains(r#""status":"started""#), "{status} {body}");
    site.finish().await;
}

#[tokio::test]
async fn executions_are_told_on_their_topics_shown_and_stopped() {
    let (site, dir) = (Site::start(&tasks()).await, Dir::new());
    let app = App::configured(&dir, &site.butler_yaml("")).await;
    let mut client = Client::connect(app.mqtt().await, "watcher").await;
    client.subscribe("qliksense/butler/task/+/execution", QoS::AtLeastOnce).await;
    let (_, body) = start(&app, "", &json!({"taskId": SLOW})).await;
    let id = body["results"][0]["executionId"].as_str().unwrap().to_owned();
    let topic = format!("qliksense/butler/task/{SLOW}/execution");
    let told = client.find(|publish| publish.topic == topic).await;
    assert!(told.qos == QoS::AtLeastOnce && !told.retain, "{told:?}");
    let told: Value = serde_json::from_slice(&told.payload).unwrap();
    assert_eq!((&told["executionId"], &told["status"], &told["end"]), (&json!(id), &json!("started"), &Value::Null));
    assert_eq!(told["startedBy"], json!({"door": "rest", "requestedBy": "127.0.0.1"}), "{told}");
    // Also one of somebody else, from the moment it is asked about.
    let other = site.start_elsewhere(LISTED_BY_TAG).await;
    let (status, body) = call(&app, "GET", &format!("/api/v1/executions/{other}"), &Value::Null).await;
    assert_eq!((status, &body["status"], &body["taskName"]), (200, &json!("started"), &json!("Tagged")), "{body}");
    let wait = format!("/api/v1/executions/{other}?wait=finished&timeout=1");
    assert_eq!(call(&app, "GET", &wait, &Value::Null).await.0, 202);
    let (_, body) = call(&app, "GET", "/api/v1/executions?state=running", &Value::Null).await;
    assert_eq!(body["executions"].as_array().unwrap().len(), 2, "{body}");
    let (status, body) = call(&app, "POST", &format!("/api/v1/executions/{id}/stop"), &Value::Null).await;
    assert_eq!((status, &body["executionId"]), (202, &json!(id)), "{body}");
    let (status, body) =
        call(&app, "GET", &format!("/api/v1/executions/{id}?wait=finished&timeout=60"), &Value::Null).await;
    assert_eq!(
        (status, &body["status"], &body["end"]["status"]),
        (200, &json!("aborted"), &json!("Aborted")),
        "{body}"
    );
    loop {
        let told = client.json(&topic).await;
        assert_eq!(told["executionId"], json!(id));
        if told["status"] == "aborted" {
            assert_eq!(told["end"]["attempts"], json!(1), "{told}");
            break;
        }
    }
    let again = call(&app, "POST", &format!("/api/v1/executions/{id}/stop"), &Value::Null).await;
    assert_eq!(refusal(again), error(409, "not_running"));
    let unknown = call(&app, "POST", &format!("/api/v1/executions/{NOBODY}/stop"), &Value::Null).await;
    assert_eq!(refusal(unknown), error(404, "unknown_execution"));
    let mut ran = 0;
    for (path, status, code) in [
        (format!("/api/v1/executions/{NOBODY}"), 404, "not_found"),
        ("/api/v1/executions/x".to_owned(), 400, "invalid_value"),
        (format!("/api/v1/executions/{id}?wait=started"), 400, "invalid_value"),
        (format!("/api/v1/executions/{id}?timeout=1"), 400, "invalid_value"),
        ("/api/v1/executions?state=over".to_owned(), 400, "invalid_value"),
    ] {
        assert_eq!(refusal(call(&app, "GET", &path, &Value::Null).await), error(status, code), "{path}");
        ran += 1;
    }
    assert_eq!(ran, 5);
    app.stop().await;
    site.finish().await;
}

#[tokio::test]
async fn the_filter_holds_for_starts_and_stops_and_switches_take_routes_away() {
    let (site, dir) = (Site::start(&tasks()).await, Dir::new());
    let filter = "  startTaskFilter: { enable: true, allowTask: { taskId: [], tag: [allowed], customProperty: [] } }\n";
    let app = App::configured(&dir, &site.butler_yaml(filter)).await;
    let (status, body) = start(&app, "", &json!({"taskId": QUICK})).await;
    let result = &body["results"][0];
    assert_eq!((status, &result["status"], &result["error"]["code"]), (200, &json!("denied"), &json!("task_filter")));
    let slow = site.start_elsewhere(SLOW).await;
    let denied = call(&app, "POST", &format!("/api/v1/executions/{slow}/stop"), &Value::Null).await;
    assert_eq!(refusal(denied), error(403, "task_filter"));
    // Its tag may be started, so it may be stopped.
    let tagged = site.start_elsewhere(LISTED_BY_TAG).await;
    assert_eq!(call(&app, "POST", &format!("/api/v1/executions/{tagged}/stop"), &Value::Null).await.0, 202);
    app.stop().await;
    let switches = "  restServerEndpointsEnable: { senseStartTask: false, tasksRead: true }\n";
    let app = App::configured(&dir, &site.butler_yaml(&format!("{filter}{switches}"))).await;
    assert_eq!(refusal(start(&app, "", &json!({"taskId": QUICK})).await), error(404, "not_found"));
    let stop = call(&app, "POST", &format!("/api/v1/executions/{slow}/stop"), &Value::Null).await;
    assert_eq!(refusal(stop), error(404, "not_found"));
    assert_eq!(call(&app, "GET", "/api/v1/tasks", &Value::Null).await.0, 200);
    app.stop().await;
    site.finish().await;
}

#[tokio::test]
async fn every_word_and_every_refusal_is_in_the_audit_log() {
    let (site, dir) = (Site::start(&tasks()).await, Dir::new());
    let app = App::configured(&dir, &site.butler_yaml("")).await;
    let wish = json!({"taskId": QUICK, "wait": "finished"});
    let path = "/api/v1/tasks/start";
    assert_eq!(with_key(&app, "POST", path, Some("once"), &wish).await.0, 200);
    assert_eq!(with_key(&app, "POST", path, Some("once"), &wish).await.0, 200);
    assert_eq!(start(&app, "", &json!({"later": 1})).await.0, 400);
    let (_, body) = start(&app, "", &json!({"taskId": SLOW})).await;
    let slow = body["results"][0]["executionId"].as_str().unwrap().to_owned();
    assert_eq!(call(&app, "POST", &format!("/api/v1/executions/{slow}/stop"), &Value::Null).await.0, 202);
    let mut client = Client::connect(app.mqtt().await, "plc-7").await;
    client.subscribe("qliksense/start_task/response", QoS::AtLeastOnce).await;
    client.publish("qliksense/start_task", QoS::AtLeastOnce, false, "no task").await;
    assert_eq!(client.json("qliksense/start_task/response").await["status"], "invalid");
    app.stop().await;
    let lines = audit(&dir);
    let told: Vec<_> = lines
        .iter()
        .map(|line| {
            let text = |name: &str| line[name].as_str().unwrap_or("-").to_owned();
            format!(
                "{} {} {} {} {} {}",
                text("event"),
                text("door"),
                text("status"),
                text("code"),
                line["final"],
                line["duplicate"]
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "start rest started - false false",
            "start rest finished - true false",
            "start rest - - true true",
            "start rest invalid unknown_field true false",
            "start rest started - true false",
            "stop rest accepted - true false",
            "start mqtt invalid not_an_id true false",
        ],
        "{lines:#?}"
    );
    let first = &lines[0];
    assert_eq!(
        (&first["taskId"], &first["taskName"], &first["transaction"]),
        (&json!(QUICK), &json!("Quick"), &json!("once"))
    );
    assert_eq!((&first["address"], &first["target"]), (&json!("127.0.0.1"), &json!({"id": QUICK})), "{first}");
    assert!(first["at"].as_str().unwrap().ends_with('Z') && first["request"].is_u64(), "{first}");
    assert_eq!(first["request"], lines[1]["request"]);
    assert_eq!((&lines[5]["executionId"], &lines[6]["client"]), (&json!(slow), &json!("plc-7")));
    site.finish().await;
}

#[tokio::test]
async fn an_audit_log_that_was_asked_for_is_there_or_the_program_is_not() {
    let (site, dir) = (Site::start(&tasks()).await, Dir::new());
    dir.write("log", "a file where the directory should be");
    let config = dir.write("butler.yaml", &site.butler_yaml("  startTask: { auditLog: true }\n"));
    let arguments = ["run", "--data", "data", "--config", config.to_str().unwrap()];
    let all = [&arguments[..], &app::FREE_PORTS[..]].concat();
    app::assert_refused(&dir, &all, 1, &["startTask.auditLog"]);
    let app = App::configured(&dir, &site.butler_yaml("")).await;
    app.printed(|text| text.contains("there is no audit log").then_some(())).await;
    app.stop().await;
    let app = App::configured(&dir, &site.butler_yaml("  startTask: { auditLog: false }\n")).await;
    assert!(!app.said().contains("audit log"), "{}", app.said());
    app.stop().await;
    site.finish().await;
}
