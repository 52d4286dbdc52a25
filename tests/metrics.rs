//! `/metrics` of the real program after real traffic: read by a strict parser, and asked everything that the shipped dashboard and alerts ask.
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
#[path = "support/openmetrics.rs"]
mod openmetrics;
#[path = "support/site.rs"]
mod site;
#[path = "support/tls.rs"]
#[allow(dead_code)]
mod tls;

use std::{collections::BTreeSet, fs, net::UdpSocket};

use app::{App, Dir, PATIENCE, root};
use mqtt::Client;
use openmetrics::{Family, Labels, Sample, parse};
use rumqttc::QoS;
use serde_json::{Value, json};
use site::Site;

const TASK: &str = "5a1e5000-0000-4000-8000-000000000001";

/// A text without its end, made whole.
fn whole(text: &str) -> String {
    format!("{text}# EOF\n")
}

#[test]
fn the_reader_is_strict() {
    let good = "# HELP a_seconds What \\\\ it\\n takes\n# TYPE a_seconds gauge\n# UNIT a_seconds seconds\na_seconds{x=\"1\\\"\\\\\\n\",y=\"\"} -1.5e3\n\
                # HELP b Counts\n# TYPE b counter\nb_total 3\n# HELP c Info\n# TYPE c info\nc_info{v=\"1\"} 1\n\
                # HELP h Takes\n# TYPE h histogram\nh_sum 2.5\nh_count 3\nh_bucket{le=\"1.0\"} 1\nh_bucket{le=\"+Inf\"} 3\n";
    let families = parse(&whole(good)).unwrap();
    assert_eq!(families.len(), 4);
    assert_eq!(families[0].help.as_deref(), Some("What \\ it\n takes"));
    assert_eq!(families[0].samples[0].labels["x"], "1\"\\\n");
    assert!(parse("# EOF\n").unwrap().is_empty());
    let head = "# HELP a A\n# TYPE a gauge\n";
    let counter = "# HELP a A\n# TYPE a counter\n";
    let histogram = "# HELP a A\n# TYPE a histogram\n";
    let wrong: [(String, &str); 33] = [
        (good.to_owned(), "# EOF"),
        (format!("{good}# EOF"), "# EOF"),
        (whole("a 1\n"), "before any descriptor"),
        (whole("# TYPE a gauge\na 1\n"), "no HELP"),
        (whole("# HELP a A\na 1\n"), "no sample with the ending"),
        (whole(&format!("{head}a 1\n{head}a{{x=\"1\"}} 1\n")), "a descriptor behind samples"),
        (whole(&format!("{head}a 1\n# HELP b B\n# TYPE b gauge\nb 1\n{head}a 2\n")), "this family was there already"),
        (whole(&format!("{head}# TYPE a gauge\n")), "a second TYPE"),
        (whole(&format!("{head}# HELP a gauge\n")), "a second HELP"),
        (whole("# HELP a A\n# TYPE a number\n"), "no such type"),
        (whole(&format!("{head}# UNIT a seconds\n")), "UNIT"),
        (whole(&format!("{head}b 1\n")), "another family"),
        (whole(&format!("{head}a_total 1\n")), "no sample with the ending"),
        (whole(&format!("{counter}a 1\n")), "no sample with the ending"),
        (whole(&format!("{counter}a_total -1\n")), "negative"),
        (whole(&format!("{head}a 1\na 1\n")), "there already"),
        (whole(&format!("{head}a{{x=\"1\",y=\"2\"}} 1\na{{y=\"2\",x=\"1\"}} 1\n")), "there already"),
        (whole(&format!("{head}a{{x=\"1\",x=\"2\"}} 1\n")), "twice"),
        (whole(&format!("{head}a{{x=\"\\t\"}} 1\n")), "no escape"),
        (whole(&format!("{head}a{{x=\"1}} 1\n")), "without an end"),
        (whole(&format!("{head}a{{x=\"1\" }} 1\n")), "neither"),
        (whole(&format!("{head}a{{1x=\"1\"}} 1\n")), "no name of a label"),
        (whole(&format!("{head}a  1\n")), "no number"),
        (whole(&format!("{head}a 1 1700000000\n")), "no number"),
        (whole(&format!("{head}a 1\r\n")), "carriage return"),
        (whole(&format!("{head}\na 1\n")), "no value"),
        (whole(&format!("{head}a one\n")), "no number"),
        (whole(&format!("{histogram}a_sum 1\na_count 1\na_bucket{{le=\"1.0\"}} 1\n")), "+Inf"),
        (
            whole(&format!("{histogram}a_sum 1\na_count 1\na_bucket{{le=\"1.0\"}} 2\na_bucket{{le=\"+Inf\"}} 1\n")),
            "cumulative",
        ),
        (whole(&format!("{histogram}a_sum 1\na_count 2\na_bucket{{le=\"+Inf\"}} 1\n")), "count"),
        (
            whole(&format!(
                "{histogram}a_sum 1\na_count 1\na_bucket{{le=\"2.0\"}} 1\na_bucket{{le=\"1.0\"}} 1\na_bucket{{le=\"+Inf\"}} 1\n"
            )),
            "rise",
        ),
        (whole(&format!("{head}a{{le=\"1\"}} 1\n")), "`le`"),
        (whole(&format!("{counter}# HELP a_total B\n# TYPE a_total gauge\n")), "could be of"),
    ];
    for (text, why) in &wrong {
        let said = parse(text).expect_err(text);
        assert!(said.contains(why), "{said} instead of {why} for\n{text}");
    }
    assert_eq!(wrong.len(), 33);
}

fn broker_toml(dir: &Dir) -> String {
    let authority = tls::Authority::new("test");
    let pair = authority.server();
    dir.write("server.pem", &pair.cert);
    dir.write("server_key.pem", &pair.key);
    let hash = {
        use argon2::PasswordHasher;
        let params = argon2::Params::new(8, 1, 1, None).unwrap();
        let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
        argon2.hash_password(b"geheim").unwrap().to_string()
    };
    format!(
        "[[listeners]]\nname = \"local\"\naddress = \"127.0.0.1:0\"\nallow_anonymous = true\nanonymous_rights = [\"publish\", \"subscribe\", \"start\"]\n\
         [[listeners]]\nname = \"secure\"\naddress = \"127.0.0.1:0\"\ntls = {{ cert = \"server.pem\", key = \"server_key.pem\" }}\n\
         [[users]]\nname = \"anna\"\npassword_hash = \"{hash}\"\n[[access]]\ndeny = [\"publish\"]\ntopics = [\"secret/#\"]\n"
    )
}

/// Asks until `/metrics` shows a line that begins like this.
async fn shown(app: &App, beginning: &str) -> String {
    let look = async {
        loop {
            let (status, text) = app.get("/metrics").await;
            assert_eq!(status, 200);
            if text.lines().any(|line| line.starts_with(beginning)) {
                return text;
            }
            tokio::task::yield_now().await;
        }
    };
    match tokio::time::timeout(PATIENCE, look).await {
        Ok(text) => text,
        Err(_) => panic!("no `{beginning}` in\n{}", app.get("/metrics").await.1),
    }
}

async fn mqtt_traffic(app: &App) {
    let port = app.listener("local").await;
    let mut subscriber = Client::connect(port, "sub").await;
    subscriber.subscribe("plant/#", QoS::ExactlyOnce).await;
    let mut publisher = Client::connect(port, "pub").await;
    for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
        publisher.publish("plant/a", qos, true, "x").await;
        subscriber.next().await;
    }
    publisher.publish("nobody/hears", QoS::AtLeastOnce, false, "x").await;
    publisher.publish("secret/a", QoS::AtLeastOnce, false, "x").await;
    let mut stranger = rumqttc::MqttOptions::new("stranger", "127.0.0.1", port);
    stranger.set_credentials("anna", "wrong");
    assert!(Client::open(stranger).await.is_err());
    let mut kept = rumqttc::MqttOptions::new("kept", "127.0.0.1", port);
    kept.set_clean_session(false);
    let (mut kept, _) = Client::open(kept).await.unwrap();
    kept.subscribe("kept/#", QoS::AtLeastOnce).await;
    drop(kept);
    publisher.publish("kept/a", QoS::AtLeastOnce, false, "x").await;
    // A start by MQTT.
    subscriber.subscribe("qliksense/start_task/response", QoS::AtLeastOnce).await;
    publisher.publish("qliksense/start_task", QoS::AtLeastOnce, false, TASK).await;
    subscriber.find(|message| message.topic.ends_with("/response")).await;
}

async fn datagrams(app: &App) {
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let failed = format!(
        "/scheduler-task-failed/;sense1;t;a;u;{TASK};;2026-05-04 10:00:01,234;INFO;ec000000-0000-4000-8000-000000000001;m"
    );
    for datagram in [failed.as_str(), failed.as_str(), "/unknown/;x", "", "/scheduler-task-failed/;x"] {
        sender.send_to(datagram.as_bytes(), ("127.0.0.1", app.udp().await)).unwrap();
    }
    shown(app, "sense_butler_events_accepted_total 1").await;
}

async fn rest_traffic(app: &App, site: &Site) {
    let publish = json!({"topic": "rest/a", "message": "x"}).to_string();
    assert_eq!(app.put("/v4/mqttpublishmessage", &publish).await.0, 201);
    let headers = [("content-type", "application/json")];
    let pair = json!({"key": "k", "value": "v"}).to_string();
    assert_eq!(app.call("POST", "/v4/keyvalues/ns", &headers, &pair).await.0, 201);
    let start = |task: &str| json!({"taskId": task}).to_string();
    app.call("POST", "/api/v1/tasks/start", &headers, &start(TASK)).await;
    app.call("POST", "/api/v1/tasks/start", &headers, &start("5a1e5000-0000-4000-8000-0000000000ff")).await;
    assert_eq!(app.get("/nothing/here").await.0, 404);
    assert_eq!(app.get("/api/v1/tasks").await.0, 200);
    site.fault("/qrs/task", json!({"action": "status", "status": 503, "text": "busy"})).await;
    assert_eq!(app.get("/api/v1/tasks").await.0, 503);
    assert_eq!(app.get("/api/v1/tasks").await.0, 200);
}

/// The program after everything that can happen to it within seconds; what `/metrics` says then.
async fn scrape() -> String {
    let dir = Dir::new();
    let site = Site::start(&site::task(TASK, "Nightly", "duration: 1")).await;
    let absent = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let yaml = |level: &str| {
        site.butler_yaml(&format!("  logLevel: {level}\n  udpServerConfig: {{forwardTo: ['127.0.0.1:{absent}']}}\n"))
    };
    dir.write("broker.toml", &broker_toml(&dir));
    let file = dir.write("butler.yaml", &yaml("info"));
    let arguments = ["--data", "data", "--config", file.to_str().unwrap()];
    let app = App::run_at(&dir, &app::FREE_PORTS[2..], &arguments).await;
    mqtt_traffic(&app).await;
    datagrams(&app).await;
    rest_traffic(&app, &site).await;
    for (level, expected) in [("debug", 200), ("loud", 422), ("info", 200)] {
        dir.write("butler.yaml", &yaml(level));
        assert_eq!(app.call("POST", "/api/v1/reload", &[], "").await.0, expected);
    }
    shown(&app, "sense_butler_udp_forward_dropped_total{").await;
    shown(&app, "sense_butler_part_ready{part=\"qrs\",required=\"false\"} 1").await;
    let text = shown(&app, "sense_butler_mqtt_connections_closed_total{").await;
    app.stop().await;
    site.finish().await;
    if let Some(file) = std::env::var_os("METRICS_OUT") {
        // For tools/grafana-queries.
        fs::write(file, &text).unwrap();
    }
    text
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_whole_and_every_query_finds_data() {
    let text = scrape().await;
    let families = parse(&text).unwrap_or_else(|why| panic!("{why}\n{text}"));
    conventions(&families);
    let samples: Vec<&Sample> = families.iter().flat_map(|family| &family.samples).collect();
    for wanted in [
        "sense_butler_build_info",
        "process_resident_memory_bytes",
        "process_open_fds",
        "process_start_time_seconds",
        "sense_butler_tls_cert_expiry_timestamp_seconds",
        "sense_butler_store_file_bytes",
        "sense_butler_qrs_requests_total",
        "sense_butler_rest_requests_total",
        "sense_butler_udp_datagrams_received_total",
        "sense_butler_mqtt_messages_received_total",
    ] {
        // The process is only known on Linux.
        let told = !wanted.starts_with("process_") || cfg!(target_os = "linux");
        assert_eq!(samples.iter().any(|sample| sample.name == wanted), told, "{wanted}\n{text}");
    }
    let expiry = samples.iter().find(|sample| sample.name.contains("cert_expiry")).unwrap();
    assert!(expiry.labels["file"].ends_with("server.pem") && expiry.value > 1.7e9, "{expiry:?}");

    let queries = [dashboard(), alerts()].concat();
    assert!(queries.len() > 60, "{}", queries.len());
    let mut silent = Vec::new();
    for (place, query) in &queries {
        let selectors = selectors(query);
        let others = query.contains("up{job=");
        assert!(!selectors.is_empty() || others, "{place}: nothing of ours in `{query}`");
        for (name, matchers) in selectors {
            if !samples
                .iter()
                .any(|sample| sample.name == name && matchers.iter().all(|matcher| matcher.fits(&sample.labels)))
            {
                silent.push(format!("{place}: {name} {matchers:?}"));
            }
        }
    }
    assert!(silent.is_empty(), "no data for\n{}\nin\n{text}", silent.join("\n"));
}

/// Names of this program: prefix, and base units.
fn conventions(families: &[Family]) {
    assert!(families.len() > 90, "{}", families.len());
    let units = ["milliseconds", "_ms", "_mb", "_kb", "minutes", "hours", "percent", "_gauge", "_counter"];
    for Family { name, kind, .. } in families {
        assert!(name.starts_with("sense_butler_") || name.starts_with("process_"), "{name}");
        assert!(!units.iter().any(|unit| name.ends_with(unit)), "{name}");
        assert!(kind != "counter" || !name.ends_with("_total"), "{name}: the ending is the encoder's");
        assert!(
            kind != "histogram" || ["_seconds", "_bytes", "_messages"].iter().any(|unit| name.ends_with(unit)),
            "{name}"
        );
    }
}

/// Every query of the dashboard, with where it stands.
fn dashboard() -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join("deploy/grafana/dashboard.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&text).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "every panel has an id of its own");
    let mut queries = Vec::new();
    for panel in panels.iter().filter(|panel| panel["type"] != "row") {
        let title = panel["title"].as_str().unwrap();
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty() && panel["datasource"]["uid"] == "${datasource}", "{title}");
        for target in targets {
            let query = target["expr"].as_str().unwrap();
            assert!(query.contains("instance=~\"$instance\""), "{title}: {query}");
            // A legend may name only labels that are there.
            queries.push((format!("dashboard, {title}"), query.to_owned()));
        }
    }
    let variables = dashboard["templating"]["list"].as_array().unwrap();
    assert_eq!(
        variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect::<Vec<_>>(),
        ["datasource", "instance"]
    );
    queries
}

/// Every expression of the alerts, with its name.
fn alerts() -> Vec<(String, String)> {
    let text = fs::read_to_string(root().join("deploy/grafana/alerts.yaml")).unwrap();
    let file: Value = serde_yaml::from_str(&text).unwrap();
    let mut queries = Vec::new();
    for rule in file["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()) {
        let name = rule["alert"].as_str().unwrap();
        assert!(["critical", "warning"].contains(&rule["labels"]["severity"].as_str().unwrap()), "{name}");
        assert!(rule["annotations"]["summary"].is_string(), "{name}");
        queries.push((format!("alert {name}"), rule["expr"].as_str().unwrap().to_owned()));
    }
    let names: BTreeSet<_> = queries.iter().map(|(name, _)| name).collect();
    assert_eq!(names.len(), queries.len(), "an alert stands there twice");
    queries
}

/// `name="value"` with one of four operators.
#[derive(Debug)]
struct Matcher {
    label: String,
    operator: String,
    value: String,
}

impl Matcher {
    /// Labels that Prometheus adds are not looked at.
    fn fits(&self, labels: &Labels) -> bool {
        let found = labels.get(&self.label).map_or("", String::as_str);
        match self.operator.as_str() {
            _ if ["instance", "job"].contains(&self.label.as_str()) => true,
            "=" => found == self.value,
            "!=" => found != self.value,
            "=~" => one_of(&self.value, found),
            "!~" => !one_of(&self.value, found),
            other => panic!("`{other}` is no operator"),
        }
    }
}

/// Of regular expressions, the shipped files use nothing but alternatives.
fn one_of(expression: &str, text: &str) -> bool {
    assert!(expression.chars().all(|c| c.is_ascii_alphanumeric() || "_|".contains(c)), "{expression}");
    expression.split('|').any(|word| word == text)
}

/// The metrics of ours a query asks for, each with its matchers.
fn selectors(query: &str) -> Vec<(String, Vec<Matcher>)> {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = Vec::new();
    let mut rest = query;
    while let Some(at) = rest.find(is_word) {
        let word = rest[at..].split(|c| !is_word(c)).next().unwrap();
        rest = &rest[at + word.len()..];
        if word.starts_with("sense_butler_") || word.starts_with("process_") {
            let inside = rest.strip_prefix('{').map(|inside| inside.split_once('}').expect(query).0);
            found.push((word.to_owned(), matchers(inside.unwrap_or_default())));
        }
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside.split_once('}').expect(query).1;
        }
    }
    found
}

fn matchers(inside: &str) -> Vec<Matcher> {
    let parts = inside.split("\",").map(|part| part.trim().trim_end_matches('"')).filter(|part| !part.is_empty());
    let read = |part: &str| {
        let (left, value) = part.split_once('"').unwrap_or_else(|| panic!("{inside}"));
        let at = left.find(['=', '!']).unwrap();
        Matcher { label: left[..at].to_owned(), operator: left[at..].to_owned(), value: value.to_owned() }
    };
    parts.map(read).collect()
}

#[test]
fn queries_are_taken_apart() {
    let query = "sum by (reason) (rate(sense_butler_a_total{instance=~\"$instance\", x!=\"1\",y=~\"a|b\"}[5m])) / process_b > 5 * up{job=\"x\"}";
    let found = selectors(query);
    let [(a, with), (b, without)] = &found[..] else { panic!("{found:?}") };
    assert_eq!((a.as_str(), b.as_str(), without.len()), ("sense_butler_a_total", "process_b", 0));
    let shown: Vec<_> = with.iter().map(|m| format!("{} {} {}", m.label, m.operator, m.value)).collect();
    assert_eq!(shown, ["instance =~ $instance", "x != 1", "y =~ a|b"]);
    let labels =
        |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect::<Labels>();
    let fits = |pairs: &[(&str, &str)]| with.iter().all(|matcher| matcher.fits(&labels(pairs)));
    assert!(fits(&[("x", "2"), ("y", "b")]) && !fits(&[("x", "1"), ("y", "b")]) && !fits(&[("y", "c")]));
}
