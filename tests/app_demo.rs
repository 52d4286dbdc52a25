//! `sense-butler demo` from outside: what the banner promises is tried word for word, on ports of the system's choice.
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

use std::process::Command;

use app::{App, Dir, FREE_PORTS, has_program};
use mqtt::Client;
use rumqttc::QoS;
use serde_json::{Value, json};

const START: &str = "qliksense/start_task";
const RESPONSE: &str = "qliksense/start_task/response";
const SUCCESS: &str = "qliksense/task_success_full";

/// The demo, ready, with its sample task's id.
async fn demo(dir: &Dir) -> (App, String) {
    let arguments = [&["demo"], &FREE_PORTS[..], &["--qrs", "127.0.0.1:0"]].concat();
    let mut app = App::start(dir, &arguments);
    app.wait_until_ready().await;
    let id = app.printed(|text| Some(text.split_once("id=")?.1.get(..36)?.to_owned())).await;
    (app, id)
}

/// What the banner says behind `N. some words`.
fn command_of(banner: &str, number: usize) -> String {
    let start = banner.find(&format!("\n{number}. ")).unwrap_or_else(|| panic!("no command {number} in\n{banner}"));
    let text = banner[start + 1..].replace("\\\n", " ");
    let line = text.lines().next().unwrap();
    let program = ["mosquitto_sub", "mosquitto_pub", "curl"].into_iter().find_map(|program| line.find(program));
    line[program.unwrap_or_else(|| panic!("no program in `{line}`"))..].to_owned()
}

/// Waits for the answer to a start and for the end of that very execution.
async fn started_and_ended(app: &App, client: &mut Client, id: &str) {
    let answer = client.json(RESPONSE).await;
    assert_eq!((answer["status"].as_str(), answer["taskId"].as_str()), (Some("started"), Some(id)), "{answer}");
    let execution = answer["executionId"].as_str().unwrap().to_owned();
    app.printed(|text| text.contains(&format!("Triggered  execution {execution}")).then_some(())).await;
    ended(client, id, &execution).await;
}

async fn ended(client: &mut Client, id: &str, execution: &str) {
    loop {
        let event = client.json(SUCCESS).await;
        if event["executionId"] == execution {
            assert_eq!(event["taskId"], id, "{event}");
            return;
        }
    }
}

async fn watching(app: &App) -> Client {
    let mut client = Client::connect(app.mqtt().await, "watcher").await;
    client.subscribe("#", QoS::AtLeastOnce).await;
    client
}

#[tokio::test]
async fn the_banner_names_addresses_commands_and_a_task_before_any_event() {
    let dir = Dir::new();
    let (app, id) = demo(&dir).await;
    let text = app.printed(|text| text.contains("{\"state\":\"online\"}").then(|| text.to_owned())).await;
    let (banner, _) = text.split_once(&format!("id={id}")).unwrap();
    assert!(
        !banner.contains("  MQTT   ") && !banner.contains("  Sense  "),
        "events came before the banner was through:\n{text}"
    );
    for address in [app.mqtt().await, app.rest().await, app.udp().await] {
        assert!(banner.contains(&format!("127.0.0.1:{address}")), "{banner}");
    }
    assert!(banner.contains("Simulated QRS  https://127.0.0.1:"), "{banner}");
    assert!(command_of(banner, 1).starts_with("mosquitto_sub "), "{banner}");
    assert!(command_of(banner, 2).ends_with(&format!("-t {START} -m {id}")), "{banner}");
    assert!(command_of(banner, 3).starts_with("curl -X PUT http://localhost:"), "{banner}");
    let status = format!("Connected to MQTT broker localhost:{} with client ID sense-butler", app.mqtt().await);
    assert!(text.contains(&status), "{text}");
    app.stop().await;
}

#[tokio::test]
async fn a_task_is_started_by_mqtt_and_both_rest_routes_and_its_end_is_an_event() {
    let dir = Dir::new();
    let (app, id) = demo(&dir).await;
    let mut client = watching(&app).await;

    client.publish(START, QoS::AtLeastOnce, false, id.as_str()).await;
    started_and_ended(&app, &mut client, &id).await;

    let body = json!({"topic": START, "message": id}).to_string();
    let (status, echo) = app.put("/v4/mqttpublishmessage", &body).await;
    assert_eq!((status, serde_json::from_str::<Value>(&echo).unwrap()), (201, serde_json::from_str(&body).unwrap()));
    started_and_ended(&app, &mut client, &id).await;

    let (status, lists) = app.put(&format!("/v4/reloadtask/{id}/start"), "").await;
    assert_eq!(status, 200, "{lists}");
    let lists: Value = serde_json::from_str(&lists).unwrap();
    assert_eq!(lists["tasksId"]["started"][0]["taskId"], id, "{lists}");
    // This door's answer is Butler's and has no execution id; the simulated site tells it.
    let sales = format!(
        "Sense  task \"{}\" Triggered  execution ",
        lists["tasksId"]["started"][0]["taskName"].as_str().unwrap()
    );
    let third = app.printed(|text| Some(text.split(&sales).nth(3)?.get(..36)?.to_owned())).await;
    ended(&mut client, &id, &third).await;
    app.stop().await;
}

#[tokio::test]
async fn events_flow_and_a_rest_publish_reaches_the_subscriber() {
    let dir = Dir::new();
    let (app, _) = demo(&dir).await;
    let mut client = watching(&app).await;
    let (status, _) = app.put("/v4/mqttpublishmessage", r#"{"topic":"å/ö/日本","message":"from REST"}"#).await;
    assert_eq!(status, 201);
    let got = client.find(|publish| publish.topic == "å/ö/日本").await;
    assert_eq!(got.payload, "from REST".as_bytes());
    let event = client.json("qliksense/butler/event").await;
    assert_eq!(event["specversion"], "1.0", "{event}");
    assert!(event["type"].as_str().unwrap().starts_with("sense."), "{event}");
    let outcome = client.find(|publish| publish.topic.starts_with("qliksense/task_")).await;
    assert!(!outcome.payload.is_empty());
    app.stop().await;
}

/// The three commands, as somebody would paste them into a shell.
#[tokio::test]
async fn the_commands_of_the_banner_work_as_they_stand() {
    for (program, argument) in [("mosquitto_pub", "--help"), ("curl", "--version")] {
        if !has_program(program, argument, "the_commands_of_the_banner_work_as_they_stand") {
            return;
        }
    }
    let dir = Dir::new();
    let (app, id) = demo(&dir).await;
    let mut client = watching(&app).await;
    let banner = app.said();
    // Bounded, so that it ends: one retained message is there already, others follow.
    let watch = command_of(&banner, 1) + " -C 3";
    let seen = shell(&watch);
    assert_eq!(seen.lines().count(), 3, "{seen}");
    assert!(seen.contains("qliksense/butler/state {\"state\":\"online\"}"), "{seen}");
    assert!(shell(&command_of(&banner, 2)).is_empty());
    started_and_ended(&app, &mut client, &id).await;
    let echo = shell(&(command_of(&banner, 3) + " --silent --show-error --fail"));
    assert_eq!(
        serde_json::from_str::<Value>(&echo).unwrap(),
        json!({"topic": "qliksense/hello", "message": "from REST"})
    );
    assert_eq!(client.find(|publish| publish.topic == "qliksense/hello").await.payload, "from REST".as_bytes());
    app.stop().await;
}

/// Standard output of a command that must succeed.
fn shell(command: &str) -> String {
    let output = Command::new("sh").args(["-c", command]).output().unwrap();
    assert!(output.status.success(), "{command}: {}", app::said(&output));
    String::from_utf8(output.stdout).unwrap()
}

/// For those who have no mosquitto: the program's own two verbs, as the banner says.
#[tokio::test]
async fn the_programs_own_pub_and_sub_do_the_same() {
    let dir = Dir::new();
    let (app, id) = demo(&dir).await;
    let port = app.mqtt().await.to_string();
    let mut client = watching(&app).await;
    let output = app::run_to_end(&dir, &["pub", "-p", &port, "-t", START, "-m", &id]);
    assert!(output.status.success(), "{}", app::said(&output));
    started_and_ended(&app, &mut client, &id).await;
    let output = app::run_to_end(&dir, &["sub", "-p", &port, "-v", "-t", "qliksense/butler/state", "--count", "1"]);
    assert_eq!(app::said(&output), "qliksense/butler/state {\"state\":\"online\"}\n");
    app.stop().await;
}
