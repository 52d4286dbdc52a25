//! Good and bad configurations against the real program: what starts, what is refused with which exit code and words, what runs without a
//! peer and says so.
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

use std::{
    fs,
    net::{TcpListener, UdpSocket},
};

use app::{App, Dir, assert_refused, root, said};
use mqtt::Client;
use rumqttc::QoS;
use serde_json::json;

const TASK: &str = "5a1e5000-0000-4000-8000-000000000001";

fn sample(name: &str) -> String {
    fs::read_to_string(root().join("config/samples").join(name)).unwrap()
}

/// Both generations of Butler's file, as a user has it on one machine.
#[tokio::test]
async fn full_configurations_of_both_generations_start() {
    let files = [("valid/v5.4.0-full.yaml", "5.4", 200), ("valid/head-full.yaml", "head", 201)];
    for (name, generation, published) in files {
        let dir = Dir::new();
        dir.write("config/production.yaml", &sample(name));
        let app = App::run(&dir, &[]).await;
        let mut client = Client::connect(app.mqtt().await, "watcher").await;
        client.subscribe("#", QoS::AtLeastOnce).await;
        let info = client.json("qliksense/butler/info").await;
        assert_eq!(info["compatibility"], generation, "{info}");
        let (status, _) = app.put("/v4/mqttpublishmessage", r#"{"topic":"t","message":"m"}"#).await;
        assert_eq!(status, published, "{name}");
        assert_eq!(client.find(|publish| publish.topic == "t").await.payload, "m".as_bytes());
        assert!(fs::read_dir(dir.0.join("config/log")).unwrap().count() > 0, "fileLogging is on in {name}");
        app.stop().await;
    }
}

/// The one deliberate step of a move from Butler: refused, with lines that cure it when pasted where the place says.
#[tokio::test]
async fn rest_open_to_the_network_is_refused_with_the_lines_to_add_and_starts_with_them() {
    let names = ["invalid/v5.4.0-open.yaml", "invalid/head-open.yaml"];
    for name in names {
        let dir = Dir::new();
        let text = sample(name);
        let file = dir.write("butler.yaml", &text);
        let path = file.to_str().unwrap().to_owned();
        let refused = assert_refused(&dir, &["run", "-c", &path], 64, &["allowPlaintext: true", "allowedSources: ["]);
        let (_, place) = refused.split_once(&format!("{path}:")).unwrap_or_else(|| panic!("no place in {refused}"));
        let below: usize = place.split(':').next().unwrap().parse().unwrap();
        let added: Vec<&str> = refused.lines().skip(1).filter_map(|line| line.strip_prefix("    ")).collect();
        assert!(added.len() >= 2, "{refused}");
        let mut lines: Vec<&str> = text.lines().collect();
        lines.splice(below..below, added);
        dir.write("butler.yaml", &lines.join("\n"));
        // A port of the system's choice, and the file's own wide address.
        let addresses = app::free_ports_but("--rest", "0.0.0.0:0");
        let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let app = App::run_at(&dir, &addresses, &["-c", &path]).await;
        assert!(app.said().contains("REST on http://0.0.0.0:"), "{}", app.said());
        assert_eq!(app.get("/livez").await.0, 200);
        app.stop().await;
    }
}

#[test]
fn a_port_that_is_taken_is_named_with_its_holder() {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let taken = [
        ("--mqtt", tcp.local_addr().unwrap(), "mqttConfig.broker: external"),
        ("--rest", tcp.local_addr().unwrap(), "restServerConfig.serverPort"),
        ("--udp", udp.local_addr().unwrap(), "give one of the two another port"),
        ("--udp-sessions", udp.local_addr().unwrap(), "give one of the two another port"),
    ];
    let mine = format!("process {} (", std::process::id());
    for (option, address, advice) in taken {
        let dir = Dir::new();
        let addresses = app::free_ports_but(option, &address.to_string());
        let arguments: Vec<&str> = std::iter::once("run").chain(addresses.iter().map(String::as_str)).collect();
        let holder = if cfg!(target_os = "linux") { mine.as_str() } else { "is held by" };
        assert_refused(&dir, &arguments, 1, &[&format!("Port {} is held by", address.port()), holder, advice]);
    }
}

/// Exit code 64 before anything is opened; file, line and column where there is one.
#[test]
fn what_is_wrong_in_the_files_is_said_where_it_stands() {
    let dir = Dir::new();
    let cases: [(&str, &str, &[&str]); 6] = [
        ("Butler:\n  mqttConfig:\n    brokerPrt: 1883\n", "", &["butler.yaml:3:5: ", "`brokerPort`"]),
        ("Butler:\n  mqttConfig: {enable: true\n  x: [\n", "", &["butler.yaml:"]),
        (
            "Butler:\n  configQRS:\n    host: <FQDN or IP of Sense>\n",
            "",
            &["butler.yaml:3:11: ", "<FQDN or IP of Sense>"],
        ),
        (
            "Butler:\n",
            "[[listeners]]\naddress = \"127.0.0.1:0\"\ntls = { cert = \"certs/absent.pem\", key = \"certs/absent_key.pem\" }\n",
            &["broker.toml:3:16: ", "absent.pem"],
        ),
        (
            "Butler:\n",
            "[[listeners]]\naddress = \"0.0.0.0:1883\"\n",
            &["broker.toml:2:11: ", "[[users]]", "hash-password", "allow_anonymous = true"],
        ),
        ("Butler:\n", "[limits]\nclient = 3\n", &["broker.toml:2:1: ", "`clients`"]),
    ];
    let mut tried = 0;
    for (butler, broker, words) in cases {
        dir.write("config/butler.yaml", butler);
        dir.write("broker.toml", broker);
        for verb in ["run", "check"] {
            assert_refused(&dir, &[verb], 64, words);
            tried += 1;
        }
    }
    assert_eq!(tried, 12);
    assert_refused(&dir, &["run", "-c", "nowhere.yaml"], 64, &["nowhere.yaml: the file cannot be read"]);
    for (kind, file) in [("--mqtt", "0.0.0.0:1883"), ("--rest", "0.0.0.0:8080")] {
        dir.write("config/butler.yaml", "Butler:\n");
        dir.write("broker.toml", "");
        assert_refused(&dir, &["run", kind, file], 64, &[]);
    }
}

/// A certificate file that is there and is none is found out when the listener is built: still the configuration's fault.
#[test]
fn a_listener_certificate_that_is_none_is_refused() {
    let dir = Dir::new();
    dir.write("server.pem", "nothing");
    dir.write("server_key.pem", "nothing");
    let tls = "tls = { cert = \"server.pem\", key = \"server_key.pem\" }";
    dir.write("broker.toml", &format!("[[listeners]]\naddress = \"127.0.0.1:0\"\n{tls}\n"));
    let arguments = [&["run"], &app::FREE_PORTS[2..]].concat();
    assert_refused(&dir, &arguments, 64, &["server.pem", "holds no certificate in PEM form"]);
}

/// Everything but the task part runs, and the part that does not says which file is missing.
#[tokio::test]
async fn without_the_qrs_certificate_it_runs_and_names_the_path() {
    let dir = Dir::new();
    let cert =
        "cert: {clientCert: nowhere/client.pem, clientCertKey: nowhere/client_key.pem, clientCertCA: nowhere/root.pem}";
    let qrs = "configQRS: {host: 127.0.0.1, port: 1}";
    let file = dir.write("butler.yaml", &format!("Butler:\n  {cert}\n  {qrs}\n"));
    let app = App::run(&dir, &["-c", file.to_str().unwrap()]).await;
    let path = dir.0.join("nowhere").to_str().unwrap().to_owned();
    let status = until_qrs_is_known(&app).await;
    assert!(status["ready"] == true && part(&status, "qrs")["ready"] == false, "{status}");
    assert!(part(&status, "qrs")["detail"].as_str().unwrap().contains(&path), "{status}");

    let mut client = Client::connect(app.mqtt().await, "asker").await;
    client.subscribe("qliksense/#", QoS::AtLeastOnce).await;
    let names_it = |payload: &[u8]| String::from_utf8_lossy(payload).contains(&path);
    client.find(|publish| publish.topic == "qliksense/butler/health" && names_it(&publish.payload)).await;
    let answer = start(&mut client).await;
    assert_eq!(answer["status"], "unreachable", "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains(&path), "{answer}");
    assert_eq!(app.get("/readyz").await.0, 200);
    app.stop().await;
}

#[tokio::test]
async fn without_qrs_it_runs_and_a_start_waits_or_is_answered_unreachable() {
    let dir = Dir::new();
    // Bound and not listening: nobody else can take it, and connecting is refused.
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let qrs = format!("configQRS: {{host: 127.0.0.1, port: {}, useSSL: false}}", closed.port());
    let file = dir.write("butler.yaml", &format!("Butler:\n  {qrs}\n"));
    let app = App::run(&dir, &["-c", file.to_str().unwrap()]).await;
    let mut client = Client::connect(app.mqtt().await, "asker").await;
    client.subscribe("qliksense/#", QoS::AtLeastOnce).await;
    let answer = start(&mut client).await;
    assert_eq!((&answer["status"], &answer["taskId"]), (&json!("accepted"), &json!(TASK)), "{answer}");
    let at_once = json!({"taskId": TASK, "deadlineSeconds": 0}).to_string();
    client.publish("qliksense/start_task", QoS::AtLeastOnce, false, at_once).await;
    let answer = client.json("qliksense/start_task/response").await;
    assert_eq!((&answer["status"], &answer["taskId"]), (&json!("unreachable"), &json!(TASK)), "{answer}");
    let (status, body) = app.put(&format!("/v4/reloadtask/{TASK}/start"), "").await;
    assert_eq!(status, 503, "{body}");
    let status = until_qrs_is_known(&app).await;
    assert!(part(&status, "qrs")["detail"].as_str().unwrap().contains(&closed.to_string()), "{status}");
    assert_eq!(app.get("/readyz").await.0, 200);
    app.stop().await;
}

async fn start(client: &mut Client) -> serde_json::Value {
    client.publish("qliksense/start_task", QoS::AtLeastOnce, false, TASK).await;
    client.json("qliksense/start_task/response").await
}

fn part(status: &serde_json::Value, name: &str) -> serde_json::Value {
    let parts = status["parts"].as_array().unwrap();
    parts.iter().find(|part| part["name"] == name).unwrap_or_else(|| panic!("no part {name} in {status}")).clone()
}

/// Polls the status until QRS was asked once.
async fn until_qrs_is_known(app: &App) -> serde_json::Value {
    let search = async {
        loop {
            let status = app.json("/api/v1/status").await;
            let detail = part(&status, "qrs")["detail"].as_str().unwrap_or_default().to_owned();
            if !["starting", "The Qlik Repository Service was not called yet."].contains(&detail.as_str()) {
                return status;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(app::PATIENCE, search).await.expect("a word about QRS")
}

/// A web page open in a browser on this machine neither publishes nor starts.
#[tokio::test]
async fn a_foreign_origin_is_refused_and_nothing_is_published() {
    let dir = Dir::new();
    let app = App::run(&dir, &[]).await;
    let mut client = Client::connect(app.mqtt().await, "watcher").await;
    client.subscribe("#", QoS::AtLeastOnce).await;
    let body = r#"{"topic":"forged","message":"x"}"#;
    let own = format!("http://127.0.0.1:{}", app.rest().await);
    let cases: [(&[(&str, &str)], u16); 5] = [
        (&[("origin", "https://evil.example")], 403),
        (&[("origin", "null")], 403),
        (&[("host", "evil.example")], 403),
        (&[("origin", "https://evil.example"), ("content-type", "text/plain")], 403),
        (&[("origin", &own)], 201),
    ];
    for (headers, expected) in cases {
        let (status, answer) = app.call("PUT", "/v4/mqttpublishmessage", headers, body).await;
        assert_eq!(status, expected, "{headers:?}: {answer}");
        let (status, answer) = app.call("POST", &format!("/v4/reloadtask/{TASK}/start"), headers, "").await;
        assert_eq!(status == 403, expected == 403, "{headers:?}: {answer}");
    }
    let arrived = client.find(|publish| publish.topic == "forged").await;
    assert_eq!(arrived.payload, "x".as_bytes());
    client.publish("end", QoS::AtLeastOnce, false, "").await;
    let next = client.find(|publish| ["forged", "end"].contains(&publish.topic.as_str())).await;
    assert_eq!(next.topic, "end", "one of the refused ones was published");
    app.stop().await;
}

/// With no file at all it says so and runs on its defaults.
#[tokio::test]
async fn without_files_it_runs_on_the_defaults() {
    let dir = Dir::new();
    let app = App::run(&dir, &[]).await;
    assert!(app.said().contains("none found, built-in defaults"), "{}", app.said());
    let (status, ping) = app.get("/v4/butlerping").await;
    assert_eq!(status, 200, "{ping}");
    app.stop().await;
    let checked = app::run_to_end(&dir, &["check"]);
    assert!(checked.status.success() && said(&checked).contains("none found: built-in defaults"), "{}", said(&checked));
}
