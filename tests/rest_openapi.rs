//! The OpenAPI document is true: every example in it is sent to the real program beside a simulated Qlik Sense site, in both generations of Butler, and what
//! comes back is held against the example's status and body and against the schema of that status.
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
#[path = "support/schema.rs"]
mod schema;
#[path = "support/site.rs"]
mod site;

use std::time::Duration;

use app::{App, Dir, PATIENCE};
use mqtt::Client;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use reqwest::{Method, header::HeaderMap};
use rumqttc::{MqttOptions, QoS};
use schema::Spec;
use sense_butler::sense::simulator::SiteSource;
use serde_json::{Value, json};
use site::{Site, task};

/// A task that takes some seconds, and one that takes less.
const SLOW: &str = "5a1e5000-0000-4000-8000-000000000007";
const QUICK: &str = "5a1e5000-0000-4000-8000-000000000004";
/// The executions in the document's examples: one that runs, one that has ended.
const RUNNING: &str = "d0bad0da-572b-4af1-ae84-379630af89ee";
const ENDED: &str = "9b679c85-9acd-4aaf-a7cd-5f9ec8c694cc";
/// Fields of answers whose values are in the examples to the letter.
const FACTS: [&str; 22] = [
    "code",
    "message",
    "reason_code",
    "ok",
    "error",
    "stored",
    "topic",
    "filter",
    "encoding",
    "payload",
    "cut",
    "size",
    "taskName",
    "namespace",
    "key",
    "value",
    "ttl",
    "keyExists",
    "connected",
    "persistent",
    "door",
    "transaction",
];

/// What was answered.
struct Reply {
    status: u16,
    headers: HeaderMap,
    text: String,
}

impl Reply {
    /// Media type without parameters.
    fn media(&self) -> &str {
        let kind = self.headers.get("content-type").map_or("", |kind| kind.to_str().unwrap());
        kind.split(';').next().unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|error| panic!("{error}: {}", self.text))
    }
}

/// An example with the operation it belongs to.
struct Case<'a> {
    path: &'a str,
    method: &'a str,
    operation: &'a Value,
    name: &'a str,
    status: u16,
}

impl Case<'_> {
    fn id(&self) -> &str {
        self.operation["operationId"].as_str().unwrap()
    }

    /// The values of its parameters in one place.
    fn parameters(&self, place: &str) -> Vec<(&str, String)> {
        let all = self.operation["parameters"].as_array().map_or(&[][..], Vec::as_slice);
        let here = all.iter().filter(|one| one["in"] == place);
        let given = here.filter_map(|one| Some((one["name"].as_str()?, one["examples"].get(self.name)?.get("value")?)));
        given.map(|(name, value)| (name, value.as_str().map_or_else(|| value.to_string(), str::to_owned))).collect()
    }

    /// Media type, value and schema of its body.
    fn body(&self) -> Option<(&str, &Value, &Value)> {
        let mut content = self.operation["requestBody"]["content"].as_object()?.iter();
        content
            .find_map(|(media, of)| Some((media.as_str(), of["examples"].get(self.name)?.get("value")?, &of["schema"])))
    }
}

fn encoded(text: &str) -> String {
    const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');
    utf8_percent_encode(text, RESERVED).to_string()
}

/// The program with everything the examples speak of.
struct World {
    site: Site,
    app: App,
    http: reqwest::Client,
    origin: String,
    mqtt: u16,
    dash: Option<Client>,
    /// Ids of the document, and those that are meant here.
    ids: Vec<(&'static str, String)>,
    _dir: Dir,
}

impl World {
    async fn start(compatibility: &str) -> Self {
        let built_in = |settings: &mut sense_butler::sense::simulator::SimulatorSettings| {
            settings.site = SiteSource::BuiltIn;
        };
        let (site, dir) = (Site::with(&task(SLOW, "unused", "duration: 1"), built_in).await, Dir::new());
        let yaml = site.butler_yaml(&format!("  compatibility: \"{compatibility}\"\n"));
        let app = App::configured(&dir, &yaml).await;
        let (origin, mqtt) = (format!("http://127.0.0.1:{}", app.rest().await), app.mqtt().await);
        let mut world =
            Self { site, app, http: reqwest::Client::new(), origin, mqtt, dash: None, ids: Vec::new(), _dir: dir };
        world.connect().await;
        world
    }

    /// A client that listens to `plant/#`, and one that is away and keeps its session for `orders/#`.
    async fn connect(&mut self) {
        let mut kept = MqttOptions::new("plc-7", "127.0.0.1", self.mqtt);
        kept.set_clean_session(false);
        let mut kept = Client::with(kept).await;
        kept.subscribe("orders/#", QoS::AtLeastOnce).await;
        kept.mqtt.disconnect().await.unwrap();
        drop(kept);
        let mut dash = Client::connect(self.mqtt, "dash").await;
        dash.subscribe("plant/#", QoS::AtLeastOnce).await;
        self.dash = Some(dash);
        self.until("/api/v1/broker/clients/plc-7", |body| body["connected"] == false).await;
    }

    async fn get(&self, path: &str) -> Value {
        self.send(Method::GET, path, &[], None).await.json()
    }

    async fn post(&self, path: &str, body: &Value) -> Value {
        let reply = self.send(Method::POST, path, &[], Some(("application/json", body.to_string()))).await;
        assert!(reply.status < 300, "{path} {body}: {} {}", reply.status, reply.text);
        reply.json()
    }

    async fn until(&self, path: &str, fits: impl Fn(&Value) -> bool) {
        let search = async {
            while !fits(&self.get(path).await) {
                // The pause between two looks, not what the test relies on.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, search)
            .await
            .unwrap_or_else(|_| panic!("{path} does not become what it should"));
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, String)],
        body: Option<(&str, String)>,
    ) -> Reply {
        let mut request = self.http.request(method, format!("{}{path}", self.origin));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        if let Some((media, text)) = body {
            request = request.header("content-type", media).body(text);
        }
        let reply = request.send().await.unwrap();
        let (status, headers) = (reply.status().as_u16(), reply.headers().clone());
        Reply { status, headers, text: reply.text().await.unwrap() }
    }

    /// Sends what an example says.
    async fn ask(&self, case: &Case<'_>) -> Reply {
        let mut path = case.path.to_owned();
        for (name, value) in case.parameters("path") {
            path = path.replace(&format!("{{{name}}}"), &encoded(&self.meant(&value)));
        }
        let query: Vec<_> = case
            .parameters("query")
            .iter()
            .map(|(name, value)| format!("{}={}", encoded(name), encoded(value)))
            .collect();
        if !query.is_empty() {
            path = format!("{path}?{}", query.join("&"));
        }
        let body = case.body().map(|(media, value, _)| {
            (media, if media == "application/json" { value.to_string() } else { value.as_str().unwrap().to_owned() })
        });
        let method = case.method.to_uppercase().parse().unwrap();
        self.send(method, &path, &case.parameters("header"), body).await
    }

    fn meant(&self, text: &str) -> String {
        self.ids.iter().fold(text.to_owned(), |text, (known, meant)| text.replace(known, meant))
    }

    /// Makes sure that what an example speaks of is there.
    async fn prepare(&mut self, case: &Case<'_>) {
        match case.id() {
            "executions" | "execution" | "execution_stop" => self.prepare_executions().await,
            "tasks_start" | "reloadtask_start" | "reloadtask_start_post" => {
                let others_run =
                    |body: &Value| body["executions"].as_array().unwrap().iter().any(|one| one["taskId"] != SLOW);
                self.until("/api/v1/executions?state=running", |body| !others_run(body)).await;
            }
            id if id.starts_with("broker") => self.prepare_broker().await,
            id if id.starts_with("key") || id.starts_with("namespace") => {
                let pair = json!({"key": "from", "value": "2026-11-01", "ttl": 3_600_000});
                self.post("/v4/keyvalues/sales", &pair).await;
            }
            _ => {}
        }
    }

    /// An execution that runs and one that has ended. (The slow one ends after some seconds, too.)
    async fn prepare_executions(&mut self) {
        let id = |told: &Value| told["executionId"].as_str().unwrap_or_else(|| panic!("{told}")).to_owned();
        let known = self.get("/api/v1/executions?state=running").await;
        let running = match known["executions"].as_array().unwrap().iter().find(|one| one["taskId"] == SLOW) {
            Some(one) => id(one),
            None => id(&self.post("/api/v1/tasks/start", &json!({"taskId": SLOW})).await["results"][0]),
        };
        let ended = match self.ids.get(1) {
            Some((_, id)) => id.clone(),
            None => {
                id(&self.post("/api/v1/tasks/start", &json!({"taskId": QUICK, "wait": "finished"})).await["results"][0])
            }
        };
        self.ids = vec![(RUNNING, running), (ENDED, ended)];
    }

    async fn prepare_broker(&mut self) {
        let connected = self.get("/api/v1/broker/clients/dash").await["connected"] == true;
        let kept = self.get("/api/v1/broker/clients/plc-7").await["connected"] == false;
        if !connected || !kept {
            self.connect().await;
        }
        let message = json!({"topic": "plant/line1", "payload": "running", "qos": 1, "retain": true});
        self.post("/api/v1/publish", &message).await;
    }
}

/// What an answer lacks of its example, or has otherwise.
fn differences(example: &Value, found: &Value, at: &str, told: &mut Vec<String>) {
    match (example, found) {
        (Value::Object(example), Value::Object(found)) => {
            for (key, value) in example {
                let at = format!("{at}/{key}");
                match found.get(key) {
                    None => told.push(format!("{at} is missing")),
                    Some(found) if FACTS.contains(&key.as_str()) && !value.is_object() && value != found => {
                        told.push(format!("{at} is {found}, the example says {value}"));
                    }
                    Some(found) => differences(value, found, &at, told),
                }
            }
        }
        (Value::Array(example), Value::Array(found)) => {
            let none = example.is_empty() || found.is_empty();
            if none && example.len() != found.len() {
                told.push(format!("{at} has {} rows, the example {}", found.len(), example.len()));
            }
            for (place, (example, found)) in example.iter().zip(found).enumerate() {
                differences(example, found, &format!("{at}/{place}"), told);
            }
        }
        _ => {}
    }
}

/// Why an answer is not what the document says of it.
fn judge(spec: &Spec, world: &World, case: &Case<'_>, reply: &Reply) -> Vec<String> {
    let mut told = Vec::new();
    if reply.status != case.status {
        return vec![format!("{} instead of {}: {}", reply.status, case.status, reply.text)];
    }
    let answer = spec.meant(&case.operation["responses"][case.status.to_string()]);
    let Some(content) = answer["content"].as_object() else {
        return if reply.text.is_empty() { told } else { vec![format!("a body: {}", reply.text)] };
    };
    let Some(of) = content.get(reply.media()) else { return vec![format!("the media type {}", reply.media())] };
    if reply.media() != "application/json" {
        return if reply.text.is_empty() { vec!["nothing".to_owned()] } else { told };
    }
    let found = reply.json();
    told.extend(spec.faults(&of["schema"], &found));
    if let Some(example) = of["examples"].get(case.name) {
        let example = &example["value"];
        told.extend(spec.faults(&of["schema"], example).into_iter().map(|fault| format!("the example: {fault}")));
        let meant = serde_json::from_str(&world.meant(&example.to_string())).unwrap();
        differences(&meant, &found, "", &mut told);
    }
    told
}

/// Every example of the document; how many there were.
async fn examples_are_true(compatibility: &str) -> usize {
    let mut world = World::start(compatibility).await;
    let spec = Spec(world.get("/openapi.json").await);
    assert_eq!(spec.0["openapi"], "3.1.0");
    assert_eq!(world.get("/api/v1/openapi.json").await, spec.0, "one document at two places");
    let (mut ran, mut wrong) = (0, Vec::new());
    for (path, item) in spec.0["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            for example in operation["x-examples"].as_array().unwrap() {
                let (name, status) = (example["name"].as_str().unwrap(), example["status"].as_u64().unwrap() as u16);
                let case = Case { path, method, operation, name, status };
                world.prepare(&case).await;
                if let Some((_, value, schema)) = case.body().filter(|(media, ..)| *media == "application/json")
                    && status < 300
                    && case.parameters("query").iter().all(|(name, _)| *name != "soft")
                {
                    let faults = spec.faults(schema, value);
                    wrong.extend(faults.into_iter().map(|fault| format!("{method} {path}, {name}, its body: {fault}")));
                }
                let reply = world.ask(&case).await;
                let told = judge(&spec, &world, &case, &reply);
                wrong.extend(
                    told.into_iter().map(|told| format!("{method} {path}, {name}: {told}\n    {}", reply.text)),
                );
                ran += 1;
            }
        }
    }
    assert!(wrong.is_empty(), "{} things are not as described:\n{}", wrong.len(), wrong.join("\n"));
    world.app.stop().await;
    world.site.finish().await;
    ran
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_is_answered_as_described() {
    assert_eq!(examples_are_true("head").await, 79);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_example_is_answered_as_described_in_generation_5_4() {
    assert_eq!(examples_are_true("5.4").await, 75);
}

/// What the introduction says of requests that are none: a status, and no body.
#[tokio::test]
async fn what_is_no_request_is_answered_without_a_body() {
    let dir = Dir::new();
    let app = App::run(&dir, &["--data", "data"]).await;
    let names: Vec<String> = (0..150).map(|number| format!("x-{number}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let mut ran = 0;
    for (path, headers, status) in [
        (format!("/livez?{}", "a".repeat(65_600)), &[][..], 414),
        ("/livez".to_owned(), &many[..], 431),
        ("/livez".to_owned(), &[("no name", "1")][..], 400),
    ] {
        assert_eq!(app.call("GET", &path, headers, "").await, (status, String::new()));
        ran += 1;
    }
    assert_eq!(ran, 3);
    app.stop().await;
}

/// The check itself: it finds what is not described, missing, or of another type.
#[test]
fn the_check_of_schemas_finds_what_is_wrong() {
    let spec = Spec(json!({"components": {"schemas": {
        "Error": {"type": "object", "required": ["error"], "properties": {"error": {
            "type": "object", "required": ["code"], "properties": {"code": {"type": "string"}, "at": {"type": "string", "format": "date-time"}}}}},
    }}}));
    let schema = json!({"allOf": [
        {"$ref": "#/components/schemas/Error"},
        {"properties": {"error": {"properties": {"code": {"enum": ["a", "b"]}}}}},
    ]});
    let cases = [
        (json!({"error": {"code": "a"}}), 0),
        (json!({"error": {"code": "b", "at": "2026-11-23T02:58:36.840Z"}}), 0),
        (json!({"error": {"code": "b", "at": "2026-11-23T02:58:36.84Z"}}), 0),
        (json!({"error": {"code": "b", "at": "2026-11-23T02:58:36Z"}}), 0),
        (json!({"error": {"code": "b", "at": "2026-11-23T02:58:36.84"}}), 1),
        (json!({"error": {"code": "c"}}), 1),
        (json!({"error": {"code": 1}}), 2),
        (json!({"error": {}}), 1),
        (json!({"error": {"code": "a", "more": 1}}), 1),
        (json!({"error": {"code": "a", "at": "today"}}), 1),
        (json!({}), 1),
        (json!([]), 1),
    ];
    let mut ran = 0;
    for (value, faults) in cases {
        assert_eq!(spec.faults(&schema, &value).len(), faults, "{value}: {:?}", spec.faults(&schema, &value));
        ran += 1;
    }
    assert_eq!(ran, 12);
}
