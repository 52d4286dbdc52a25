//! Parameters of starts, and what a requester may start and how much of it: the real program against the simulated site.
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

use std::{fs, net::SocketAddr, time::Duration};

use app::{App, Dir, http};
use mqtt::Client;
use rumqttc::QoS;
use sense_butler::sense::simulator::{Simulator, SimulatorError, SimulatorSettings, SiteSource, Transport};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

const START: &str = "qliksense/start_task";
const RESPONSE: &str = "qliksense/start_task/response";
const QUICK: &str = "00000000-0000-0000-0000-000000000001";
const SLOW: &str = "00000000-0000-0000-0000-000000000002";
const PROGRAM: &str = "00000000-0000-0000-0000-000000000003";
const APP: &str = "a9900000-0000-4000-8000-000000000001";
const OTHER_APP: &str = "a9900000-0000-4000-8000-000000000002";
const SITE: &str = "version: 31.37.0.0
sampleTask: 00000000-0000-0000-0000-000000000001
onRunning: zeroGuid
onMissingUser: admin
nodes:
  - { name: sense-1, slots: 100 }
users:
  - { directory: INTERNAL, id: sa_api, role: admin }
apps:
  - { id: a9900000-0000-4000-8000-000000000001, name: App }
  - { id: a9900000-0000-4000-8000-000000000002, name: Other }
tasks:
  - { id: 00000000-0000-0000-0000-000000000001, name: Quick, app: App, duration: 1, tags: [quick] }
  - { id: 00000000-0000-0000-0000-000000000002, name: Slow, app: Other, duration: 4000 }
  - { id: 00000000-0000-0000-0000-000000000003, name: Program, type: externalProgram, duration: 1 }
";

/// The simulated site.
struct Site {
    qrs: SocketAddr,
    control: SocketAddr,
    stop: CancellationToken,
    running: JoinHandle<Result<(), SimulatorError>>,
}

impl Site {
    async fn start() -> Self {
        // The program's `main` does this.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let settings = SimulatorSettings {
            qrs: vec!["127.0.0.1:0".parse().unwrap()],
            control: Some("127.0.0.1:0".parse().unwrap()),
            seed: Some(1),
            speed: 20.0,
            rate: 0.0,
            transport: Transport::Plain,
            site: SiteSource::Text(SITE.to_owned()),
            ..SimulatorSettings::new(std::env::temp_dir())
        };
        let simulator = Simulator::bind(settings).await.unwrap();
        let (qrs, control) = (simulator.addresses().qrs[0], simulator.addresses().control.unwrap());
        let stop = CancellationToken::new();
        let running = tokio::spawn(simulator.run(stop.clone()));
        Self { qrs, control, stop, running }
    }

    async fn control(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let (status, answer) = http(self.control.port(), method, &format!("/control/{path}"), &[], &body).await;
        assert!((200..300).contains(&status), "{path}: {status} {answer}");
        serde_json::from_str(&answer).unwrap_or_default()
    }

    /// Starts of a task the site got.
    async fn starts(&self, task: &str) -> usize {
        let starts = self.control("GET", "starts", &Value::Null).await;
        starts["starts"].as_array().unwrap().iter().filter(|start| start["taskId"] == task).count()
    }

    async fn finish(self) {
        self.stop.cancel();
        timeout(Duration::from_secs(5), self.running).await.expect("stops in time").unwrap().unwrap();
    }

    /// The program's configuration for this site.
    fn config(&self, dir: &Dir, more: &str) -> String {
        let text = format!(
            "Butler:\n  configQRS:\n    host: 127.0.0.1\n    port: {}\n    useSSL: false\n    headers:\n      static:\n        - name: X-Qlik-User\n          \
             value: UserDirectory=INTERNAL; UserId=sa_api\n  logDirectory: log\n{more}",
            self.qrs.port()
        );
        dir.write("butler.yaml", &text).to_str().unwrap().to_owned()
    }

    async fn program(&self, dir: &Dir, more: &str) -> App {
        let config = self.config(dir, more);
        App::run(dir, &["--data", "data", "--config", &config]).await
    }
}

/// A start by REST; the answer to its one task.
async fn rest(app: &App, body: &Value) -> Value {
    let (status, text) = app.call("POST", "/api/v1/tasks/start?timeout=30", &[], &body.to_string()).await;
    let answer: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{status} {error}: {text}"));
    assert_eq!(answer["results"].as_array().map(Vec::len), Some(1), "{status} {answer}");
    answer["results"][0].clone()
}

/// A start by MQTT; the next answer.
async fn mqtt(client: &mut Client, body: &Value) -> Value {
    client.publish(START, QoS::AtLeastOnce, false, body.to_string()).await;
    client.json(RESPONSE).await
}

fn word(answer: &Value) -> (&str, Option<&str>) {
    (answer["status"].as_str().unwrap(), answer["error"]["code"].as_str())
}

/// What a load script of this app, or of a task without one, would read; `None`: nothing.
async fn parameter(app: &App, id: &str, name: &str) -> Option<String> {
    let found = app.json(&format!("/v4/keyvalues/parameters-{id}/keyexists?key={name}")).await;
    if found["keyExists"] == false || found.get("keyExists").is_none() {
        return None;
    }
    Some(found["keyValue"]["value"].as_str().unwrap_or_else(|| panic!("{found}")).to_owned())
}

#[cfg(unix)]
#[tokio::test]
async fn parameters_are_where_the_started_script_reads_them() {
    let (site, dir) = (Site::start().await, Dir::new());
    let app = site.program(&dir, "").await;
    let mut client = Client::connect(app.mqtt().await, "plc-7").await;
    client.subscribe(RESPONSE, QoS::AtLeastOnce).await;
    let answer = mqtt(&mut client, &json!({"taskId": QUICK, "parameters": {"from": "2026-11-01", "days": 7}})).await;
    assert_eq!(word(&answer), ("started", None), "{answer}");
    assert_eq!(parameter(&app, APP, "from").await.as_deref(), Some("2026-11-01"));
    assert_eq!(parameter(&app, APP, "days").await.as_deref(), Some("7"));
    app.stop().await;
    // On disk, and replaced as a whole by the next start, whichever door it comes by.
    let app = site.program(&dir, "").await;
    assert_eq!(parameter(&app, APP, "from").await.as_deref(), Some("2026-11-01"));
    let wish = |parameters: Value| json!({"tag": "quick", "onRunning": "queue", "parameters": parameters});
    let answer = rest(&app, &wish(json!({"to": {"day": 2}}))).await;
    assert_eq!(word(&answer), ("started", None), "{answer}");
    assert_eq!(parameter(&app, APP, "to").await.as_deref(), Some(r#"{"day":2}"#));
    assert_eq!(parameter(&app, APP, "from").await, None);
    let (status, text) = app.put(&format!("/v4/reloadtask/{PROGRAM}/start"), "").await;
    assert_eq!(status, 200, "{text}");
    assert_eq!(parameter(&app, APP, "to").await.as_deref(), Some(r#"{"day":2}"#), "another task's start");
    let answer = rest(&app, &json!({"taskId": QUICK, "onRunning": "queue"})).await;
    assert_eq!(word(&answer), ("started", None), "{answer}");
    assert_eq!(parameter(&app, APP, "to").await, None, "a start without parameters finds none");
    let program = json!({"taskId": PROGRAM, "onRunning": "queue", "parameters": {"mode": "full"}});
    assert_eq!(word(&rest(&app, &program).await), ("started", None));
    assert_eq!(parameter(&app, PROGRAM, "mode").await.as_deref(), Some("full"), "a task without an app");
    assert_eq!((site.starts(QUICK).await, site.starts(PROGRAM).await), (3, 2));
    app.stop().await;
    site.finish().await;
}

#[cfg(unix)]
#[tokio::test]
async fn parameters_wait_with_their_request() {
    let (site, dir) = (Site::start().await, Dir::new());
    let app = site.program(&dir, "").await;
    let mut client = Client::connect(app.mqtt().await, "plc-7").await;
    client.subscribe(RESPONSE, QoS::AtLeastOnce).await;
    let wish = |number: u32| json!({"taskId": SLOW, "onRunning": "queue", "deadlineSeconds": 600, "parameters": {"number": number}});
    assert_eq!(word(&mqtt(&mut client, &wish(1)).await), ("started", None));
    assert_eq!(word(&mqtt(&mut client, &wish(2)).await), ("accepted", Some("queued")));
    assert_eq!(word(&mqtt(&mut client, &wish(3)).await), ("skipped", Some("already_queued")));
    let now = mqtt(&mut client, &json!({"taskId": SLOW, "parameters": {"number": 4}})).await;
    assert_eq!(word(&now), ("skipped", Some("running")), "{now}");
    assert_eq!(parameter(&app, OTHER_APP, "number").await.as_deref(), Some("1"), "what runs reads its own");
    site.control("POST", &format!("task/{SLOW}/finish"), &Value::Null).await;
    let last = client.json(RESPONSE).await;
    assert_eq!(word(&last), ("started", None), "{last}");
    assert_eq!(parameter(&app, OTHER_APP, "number").await.as_deref(), Some("2"));
    assert_eq!(site.starts(SLOW).await, 2);
    app.stop().await;
    site.finish().await;
}

#[cfg(unix)]
#[tokio::test]
async fn what_cannot_be_stored_starts_nothing_and_says_why() {
    let (site, dir) = (Site::start().await, Dir::new());
    let small =
        "  keyValueStore: {maxValueBytes: 40, maxKeysPerNamespace: 3}\n  startTask: {parametersTtlSeconds: 1}\n";
    let app = site.program(&dir, small).await;
    let cases = [
        (json!({"text": "x".repeat(41)}), "keyValueStore.maxValueBytes"),
        (json!({"a": 1, "b": 2, "c": 3, "d": 4}), "keyValueStore.maxKeysPerNamespace"),
    ];
    let mut ran = 0;
    for (parameters, why) in cases {
        let answer = rest(&app, &json!({"taskId": QUICK, "parameters": parameters})).await;
        assert_eq!(word(&answer), ("not_started", Some("parameters_not_stored")), "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.starts_with("nothing was started") && message.contains(why), "{message}");
        ran += 1;
    }
    assert_eq!((ran, site.starts(QUICK).await), (2, 0));
    let answer = rest(&app, &json!({"taskId": QUICK, "parameters": {"a": 1, "b": 2, "c": 3}})).await;
    assert_eq!(word(&answer), ("started", None), "{answer}");
    let over = async { while parameter(&app, APP, "a").await.is_some() {} };
    timeout(Duration::from_secs(30), over).await.expect("their time is over after a second");
    app.stop().await;
    let app = site.program(&dir, "  restServerEndpointsEnable: {keyValueStore: false, senseStartTask: true}\n").await;
    let mut client = Client::connect(app.mqtt().await, "plc-7").await;
    client.subscribe(RESPONSE, QoS::AtLeastOnce).await;
    let answer = mqtt(&mut client, &json!({"taskId": QUICK, "onRunning": "start", "parameters": {"a": 1}})).await;
    assert_eq!(word(&answer), ("not_started", Some("parameters_not_stored")), "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("restServerEndpointsEnable.keyValueStore: true"));
    assert_eq!(word(&mqtt(&mut client, &json!({"taskId": PROGRAM})).await), ("started", None));
    assert_eq!((site.starts(QUICK).await, site.starts(PROGRAM).await), (1, 1));
    app.stop().await;
    site.finish().await;
}

const PASSWORD: &str = "geheim";

/// The program with two listeners: one lets anybody in, the other its users.
async fn with_users(site: &Site, dir: &Dir, users: &[&str], more: &str) -> App {
    let hashed = app::run_with_input(dir, &["hash-password"], &format!("{PASSWORD}\n"));
    let text = app::said(&hashed);
    let hash = text.lines().next().unwrap();
    let mut broker = String::from(
        "[[listeners]]\nname = \"open\"\naddress = \"127.0.0.1:0\"\nallow_anonymous = true\nanonymous_rights = [\"publish\", \
         \"subscribe\", \"start\"]\n[[listeners]]\nname = \"users\"\naddress = \"127.0.0.1:0\"\nallow_anonymous = false\n",
    );
    for user in users {
        broker += &format!(
            "[[users]]\nname = \"{user}\"\npassword_hash = \"{hash}\"\nrights = [\"publish\", \"subscribe\", \"start\"]\n"
        );
    }
    dir.write("broker.toml", &broker);
    let config = site.config(dir, more);
    let arguments = [&["run"], &app::FREE_PORTS[2..], &["--data", "data", "--config", &config]].concat();
    let mut app = App::start(dir, &arguments);
    app.wait_until_ready().await;
    app
}

/// A client who hears the answers, under a name or without one.
async fn client(app: &App, user: Option<&str>, id: &str) -> Client {
    let port = app.listener(if user.is_some() { "users" } else { "open" }).await;
    let mut options = mqtt::options(port, id);
    if let Some(user) = user {
        options.set_credentials(user, PASSWORD);
    }
    let mut client = Client::with(options).await;
    client.subscribe(RESPONSE, QoS::AtLeastOnce).await;
    client
}

/// The lines of the audit log.
fn audit(dir: &Dir) -> Vec<Value> {
    let mut files: Vec<_> = fs::read_dir(dir.0.join("log")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.file_name().unwrap().to_str().unwrap().starts_with("start-audit."));
    files.sort();
    let text: String = files.iter().map(|file| fs::read_to_string(file).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

#[cfg(unix)]
#[tokio::test]
async fn a_user_with_a_list_starts_what_it_and_the_filter_allow() {
    let (site, dir) = (Site::start().await, Dir::new());
    let more = format!(
        "  startTaskFilter: {{enable: true, allowTask: {{taskId: [{QUICK}, {PROGRAM}]}}}}\n  startTask:\n    users:\n      \
         - {{user: node-red, allowTask: {{taskId: [{QUICK}, {SLOW}], tag: [quick]}}}}\n      - {{user: hmi, allowTask: {{taskId: []}}}}\n"
    );
    let app = with_users(&site, &dir, &["node-red", "hmi", "plc"], &more).await;
    let cases = [
        (Some("node-red"), QUICK, ("started", None)),
        (Some("node-red"), PROGRAM, ("denied", Some("user_filter"))),
        (Some("node-red"), SLOW, ("denied", Some("task_filter"))),
        (Some("hmi"), PROGRAM, ("denied", Some("user_filter"))),
        (Some("plc"), PROGRAM, ("started", None)),
        (Some("plc"), SLOW, ("denied", Some("task_filter"))),
        (None, SLOW, ("denied", Some("task_filter"))),
        (None, PROGRAM, ("started", None)),
    ];
    let mut ran = 0;
    for (user, task, expected) in cases {
        // Whoever has a list cannot take another's place by his client id.
        let mut client = client(&app, user, "plc").await;
        let answer = mqtt(&mut client, &json!({"taskId": task.to_uppercase(), "onRunning": "queue"})).await;
        assert_eq!(word(&answer), expected, "{user:?} {answer}");
        client.leave().await;
        ran += 1;
    }
    assert_eq!(ran, 8);
    let mut client = client(&app, Some("node-red"), "x").await;
    let tag = mqtt(&mut client, &json!({"tag": "quick"})).await;
    assert_eq!(word(&tag), ("denied", Some("task_filter")), "his list takes away and never gives: {tag}");
    assert_eq!((site.starts(QUICK).await, site.starts(PROGRAM).await, site.starts(SLOW).await), (1, 2, 0));
    app.stop().await;
    let lines = audit(&dir);
    let denied: Vec<_> = lines.iter().filter(|line| line["code"] == "user_filter").collect();
    let who: Vec<_> = denied.iter().map(|line| line["user"].as_str().unwrap()).collect();
    assert_eq!(who, ["node-red", "hmi"], "{lines:?}");
    assert_eq!((&denied[0]["status"], &denied[0]["final"]), (&json!("denied"), &json!(true)));
    assert!(
        denied[0]["message"].as_str().unwrap().contains("of the user `node-red` in `startTask.users`"),
        "{}",
        denied[0]
    );
    let checked = app::run_to_end(&dir, &["check", "--data", "data", "--config", "butler.yaml"]);
    let list = "by the user \"node-red\" only what his own list allows of that: 2 ids, 1 tags, 0 custom properties";
    assert!(checked.status.success() && app::said(&checked).contains(list), "{}", app::said(&checked));
    site.finish().await;
}

/// The counter of requests that were too much, for a reason.
async fn refused(app: &App, reason: &str) -> u64 {
    let (_, text) = app.get("/metrics").await;
    let name = format!("sense_butler_task_starts_refused_total{{reason=\"{reason}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&name)?.parse().ok()).unwrap_or_default()
}

#[cfg(unix)]
#[tokio::test]
async fn who_asks_too_often_is_told_when_to_ask_again_and_others_are_not() {
    let (site, dir) = (Site::start().await, Dir::new());
    let more = "  startTask: {limits: {perMinute: 10, perRequesterPerMinute: 3}}\n";
    let app = with_users(&site, &dir, &["node-red", "plc"], more).await;
    let wish = json!({"taskId": PROGRAM, "transaction": null});
    let mut one = client(&app, Some("node-red"), "one").await;
    for number in 0..3 {
        let answer = mqtt(&mut one, &wish).await;
        assert!(matches!(word(&answer), ("started", None) | ("skipped", Some("running"))), "{number} {answer}");
    }
    one.leave().await;
    // Another connection of the same user is the same requester.
    let mut two = client(&app, Some("node-red"), "two").await;
    for _ in 0..2 {
        let answer = mqtt(&mut two, &json!({"taskId": QUICK, "transaction": "again"})).await;
        assert_eq!(word(&answer), ("denied", Some("rate_limited")), "{answer}");
        let message = answer["error"]["message"].as_str().unwrap();
        let told = message.strip_prefix(
            "more than 3 starts of one requester in a minute (`startTask.limits.perRequesterPerMinute`); nothing was started, ask again in ",
        );
        let seconds: u64 =
            told.and_then(|rest| rest.strip_suffix(" seconds")?.parse().ok()).unwrap_or_else(|| panic!("{message}"));
        assert!((1..=20).contains(&seconds), "{message}");
        assert!(answer.get("duplicate").is_none(), "a transaction that was refused may be asked for again: {answer}");
    }
    two.leave().await;
    let mut other = client(&app, Some("plc"), "two").await;
    assert_eq!(word(&mqtt(&mut other, &json!({"taskId": QUICK})).await), ("started", None));
    // By REST an address is the requester; every task of a request counts.
    let both = json!({"taskIds": [QUICK, PROGRAM], "onRunning": "skip"}).to_string();
    assert_eq!(app.call("POST", "/api/v1/tasks/start?timeout=30", &[], &both).await.0, 200);
    let (status, text) = app.call("POST", "/api/v1/tasks/start?timeout=30", &[], &both).await;
    let refusal: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &refusal["error"]["code"]), (429, &json!("rate_limited")), "{text}");
    let (status, text) = app.put(&format!("/v4/reloadtask/{QUICK}/start"), "").await;
    assert_eq!(status, 200, "one is left: {text}");
    let (status, text) = app.put(&format!("/v4/reloadtask/{QUICK}/start"), "").await;
    let lists: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &lists["tasksId"]["denied"][0]["taskId"]), (200, &json!(QUICK)), "{text}");
    assert_eq!(lists["errors"][0]["code"], "rate_limited", "{text}");
    // Ten for everybody: three, one and three were asked for.
    for number in 0..2 {
        let answer = mqtt(&mut other, &wish).await;
        assert_ne!(word(&answer).1, Some("rate_limited"), "{number} {answer}");
    }
    let mut last = client(&app, None, "last").await;
    let answers = [mqtt(&mut last, &wish).await, mqtt(&mut last, &wish).await];
    assert_eq!(word(&answers[1]), ("denied", Some("rate_limited")), "{answers:?}");
    assert!(answers[1]["error"]["message"].as_str().unwrap().contains("`startTask.limits.perMinute`"), "{answers:?}");
    assert_eq!((refused(&app, "requester_rate").await, refused(&app, "rate").await), (4, 1));
    app.printed(|text| text.contains("start request refused: there are too many").then_some(())).await;
    app.stop().await;
    let lines = audit(&dir);
    let limited = lines.iter().filter(|line| line["code"] == "rate_limited").count();
    assert_eq!(limited, 6, "two by MQTT, three tasks by REST, one of everybody");
    site.finish().await;
}

#[cfg(unix)]
#[tokio::test]
async fn one_who_floods_takes_no_place_of_others() {
    let (site, dir) = (Site::start().await, Dir::new());
    let app = site.program(&dir, "  startTask: {limits: {atOncePerRequester: 5}}\n").await;
    let mut flood = Client::connect(app.mqtt().await, "flood").await;
    let mut other = Client::connect(app.mqtt().await, "other").await;
    flood.subscribe(RESPONSE, QoS::AtLeastOnce).await;
    site.control("POST", "restart", &json!({"downSeconds": 80_000, "initialisingSeconds": 0})).await;
    let wish = |number: u32, seconds: u32| json!({"taskId": QUICK, "transaction": number, "deadlineSeconds": seconds});
    for number in 0..5 {
        let answer = mqtt(&mut flood, &wish(number, if number == 4 { 5 } else { 600 })).await;
        assert_eq!(word(&answer), ("accepted", Some("qrs_unreachable")), "{answer}");
    }
    let answer = mqtt(&mut flood, &wish(5, 600)).await;
    assert_eq!(word(&answer), ("denied", Some("requester_busy")), "{answer}");
    assert!(answer["error"]["message"].as_str().unwrap().contains("5 start requests"), "{answer}");
    other.publish(START, QoS::AtLeastOnce, false, wish(0, 600).to_string()).await;
    let answer = flood.json(RESPONSE).await;
    assert_eq!((word(&answer), &answer["requestedBy"]), (("accepted", Some("qrs_unreachable")), &json!("other")));
    let answer = flood.json(RESPONSE).await;
    assert_eq!((word(&answer), &answer["transaction"]), (("expired", Some("deadline")), &json!(4)), "{answer}");
    // The place is given back a moment after its last word.
    let again = async {
        loop {
            match word(&mqtt(&mut flood, &wish(6, 600)).await) {
                ("accepted", _) => return,
                refused => assert_eq!(refused, ("denied", Some("requester_busy"))),
            }
        }
    };
    timeout(Duration::from_secs(30), again).await.expect("a place is free again");
    assert!(refused(&app, "requester_busy").await >= 1);
    app.stop().await;
    site.finish().await;
}
