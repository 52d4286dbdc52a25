//! The journal of events from outside: real datagrams and real starts in, `GET /api/v1/events` out; bounds, restarts, `kill -9`.
#![cfg(unix)]
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
#[path = "support/site.rs"]
mod site;

use std::{
    net::UdpSocket,
    time::{Duration, Instant},
};

use app::{App, Dir, PATIENCE, free_ports_but, run_to_end, said};
use sense_butler::sense::simulator::{Profile, Targets};
use serde_json::{Value, json};
use site::{Site, task};

const PATH: &str = "/api/v1/events";
const SALES: &str = "5a1e5000-0000-4000-8000-000000000001";
const STOCK: &str = "5a1e5000-0000-4000-8000-000000000002";
const APP: &str = "a9900000-0000-4000-8000-000000000001";
const FIELDS: [&str; 13] = [
    "id",
    "time",
    "type",
    "taskId",
    "taskName",
    "appId",
    "appName",
    "executionId",
    "user",
    "host",
    "source",
    "logTime",
    "message",
];

fn execution(number: usize) -> String {
    format!("ec000000-0000-4000-8000-{number:012}")
}

/// What the scheduler of a node sends.
fn datagram(word: &str, (task, name): (&str, &str), execution: &str) -> String {
    format!(
        "/{word}/;qlik1;{name};An app;LAB\\anna;{task};{APP};2026-11-23 06:00:01,234;INFO;{execution};It \"said\" so"
    )
}

/// Sends what the nodes of a site would send.
struct Nodes {
    socket: UdpSocket,
    port: u16,
}

impl Nodes {
    async fn of(app: &App) -> Self {
        Self { socket: UdpSocket::bind("127.0.0.1:0").unwrap(), port: app.udp().await }
    }

    fn send(&self, text: &str) {
        self.socket.send_to(text.as_bytes(), ("127.0.0.1", self.port)).unwrap();
    }

    /// The end of an execution of its own.
    fn ended(&self, number: usize) {
        self.send(&datagram("scheduler-task-success", (SALES, &number.to_string()), &execution(number)));
    }
}

async fn events(app: &App, query: &str) -> Vec<Value> {
    let (status, body) = app.get(&format!("{PATH}{query}")).await;
    assert_eq!(status, 200, "{query}: {body}");
    let Value::Array(rows) = serde_json::from_str(&body).unwrap() else { panic!("{query}: {body}") };
    for row in &rows {
        let fields: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(fields, FIELDS, "always the same, in one order");
        assert!(row.as_object().unwrap().values().all(Value::is_string), "{row}");
    }
    rows
}

async fn names(app: &App, query: &str) -> Vec<String> {
    events(app, query).await.iter().map(|row| row["taskName"].as_str().unwrap().to_owned()).collect()
}

async fn count(app: &App) -> usize {
    let summary = app.json(&format!("{PATH}?summary=true")).await;
    usize::try_from(summary["count"].as_u64().unwrap()).unwrap()
}

/// Waits until something holds.
async fn until<F: Future<Output = bool>>(app: &App, mut holds: impl FnMut() -> F) {
    let begun = Instant::now();
    while !holds().await {
        assert!(begun.elapsed() < PATIENCE, "it has {}\n{}", count(app).await, app.get("/metrics").await.1);
        tokio::task::yield_now().await;
    }
}

async fn has(app: &App, number: usize) {
    until(app, || async { count(app).await >= number }).await;
}

/// Waits for a line of the metrics.
async fn metric(app: &App, line: &str) {
    until(app, || async { app.get("/metrics").await.1.lines().any(|known| known == line) }).await;
}

async fn configured(dir: &Dir, journal: &str) -> App {
    App::configured(dir, &format!("Butler:\n  eventJournal: {{{journal}}}\n")).await
}

#[tokio::test]
async fn what_happened_is_found_by_what_is_known_of_it() {
    let dir = Dir::new();
    let app = configured(&dir, "").await;
    assert_eq!(events(&app, "").await, Vec::<Value>::new());
    let nothing = app.json(&format!("{PATH}?summary=true")).await;
    assert_eq!(
        (nothing["count"].as_u64(), nothing["id"].as_str(), nothing["message"].as_str()),
        (Some(0), Some(""), Some(""))
    );
    let nodes = Nodes::of(&app).await;
    let sales = (SALES, "Reload Sales; Nordics");
    // Told one after the other, so that their order is known.
    for (word, task, number) in [
        ("scheduler-task-success", sales, 1),
        ("scheduler-reload-failed", (STOCK, "Lager ü"), 2),
        ("scheduler-reload-aborted", sales, 3),
        ("scheduler-distribute", (STOCK, "Lager ü"), 4),
    ] {
        let text = datagram(word, task, &execution(number));
        nodes.send(&text);
        // What the next removes as a repetition shows nowhere.
        nodes.send(&text);
        has(&app, number).await;
    }
    let rows = events(&app, "").await;
    assert_eq!(rows.len(), 4);
    let types: Vec<_> = rows.iter().map(|row| row["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["sense.task.distributed", "sense.task.aborted", "sense.task.failed", "sense.task.succeeded"]);
    let told = &rows[2];
    let expected = json!({
        "id": told["id"], "time": told["time"], "type": "sense.task.failed", "taskId": STOCK, "taskName": "Lager ü", "appId": APP,
        "appName": "An app", "executionId": execution(2), "user": "LAB\\anna", "host": "qlik1", "source": "datagram",
        "logTime": "2026-11-23 06:00:01,234", "message": "It \"said\" so",
    });
    assert_eq!(told, &expected);
    let id = |at: usize| rows[at]["id"].as_str().unwrap().to_owned();
    let mut ran = 0;
    for (query, expected) in [
        ("?type=sense.task.succeeded".to_owned(), "1"),
        ("?type=sense.task".to_owned(), "4321"),
        ("?type=sense.task.failed,sense.task.aborted&order=oldest".to_owned(), "23"),
        ("?type=sense.session".to_owned(), ""),
        (format!("?taskId={SALES}"), "31"),
        (format!("?taskId={}&since=1h", SALES.to_uppercase()), "31"),
        ("?taskName=Lager%20%C3%BC&limit=1".to_owned(), "4"),
        (format!("?appId={APP}&executionId={}", execution(3)), "3"),
        ("?since=1h&until=30m".to_owned(), ""),
        ("?since=2020-01-01&until=2099-12-31T06:00".to_owned(), "4321"),
        (format!("?before={}&limit=2", id(0)), "32"),
        (format!("?after={}&order=oldest&limit=1", id(2)), "3"),
        ("?since=&taskId=&type=".to_owned(), "4321"),
    ] {
        let found: String = events(&app, &query)
            .await
            .iter()
            .map(|row| row["executionId"].as_str().unwrap()[35..].to_owned())
            .collect();
        assert_eq!(found, expected, "{query}");
        let summary = app.json(&format!("{PATH}{query}&summary=true")).await;
        let first = expected.chars().next().map_or(String::new(), |number| number.to_string());
        assert!(summary["executionId"].as_str().unwrap().ends_with(&first), "{query}: {summary}");
        assert_eq!(summary.as_object().unwrap().len(), FIELDS.len() + 1, "{summary}");
        ran += 1;
    }
    for query in [
        "?sinc=1h",
        "?since=soon",
        "?taskId=1",
        "?type=task",
        "?limit=0",
        "?limit=10001",
        "?before=1",
        "?order=up",
        "?limit=1&limit=2",
    ] {
        let (status, body) = app.get(&format!("{PATH}{query}")).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, body["error"]["code"].as_str()), (400, Some("invalid_value")), "{query}: {body}");
        ran += 1;
    }
    assert_eq!(ran, 22);
    assert_eq!(app.call("POST", PATH, &[], "").await.0, 405);
    let before = app.get(PATH).await;
    app.stop().await;
    let app = configured(&dir, "").await;
    assert_eq!(app.get(PATH).await, before, "a restart keeps them, to the letter");
    // A new execution goes on behind them; the end of an old one is known.
    let nodes = Nodes::of(&app).await;
    nodes.send(&datagram("scheduler-task-success", sales, &execution(1)));
    nodes.ended(9);
    has(&app, 5).await;
    assert_eq!(names(&app, "?limit=1").await, ["9"]);
    assert_eq!(names(&app, &format!("?executionId={}", execution(1))).await.len(), 1);
    app.stop().await;
}

#[tokio::test]
async fn the_oldest_go_first_and_a_switch_takes_all_away() {
    let dir = Dir::new();
    let app = configured(&dir, "maxEntries: 10").await;
    let nodes = Nodes::of(&app).await;
    for number in 0..25 {
        nodes.ended(number);
    }
    metric(&app, "sense_butler_journal_removed_total{reason=\"entries\"} 15").await;
    let expected: Vec<String> = (15..25).map(|number| number.to_string()).collect();
    assert_eq!(names(&app, "?order=oldest").await, expected);
    let text = app.get("/metrics").await.1;
    for line in [
        "sense_butler_journal_entries 10",
        "sense_butler_journal_noted_total 25",
        "sense_butler_journal_dropped_total{reason=\"busy\"} 0",
    ] {
        assert!(text.lines().any(|known| known == line), "{line}\n{text}");
    }
    app.stop().await;
    let app = configured(&dir, "maxEntries: 10").await;
    assert_eq!(names(&app, "?order=oldest").await, expected);
    app.stop().await;
    let app = configured(&dir, "enable: false").await;
    assert_eq!(app.get(PATH).await.0, 404);
    app.stop().await;
    let app = configured(&dir, "").await;
    assert_eq!(events(&app, "").await, Vec::<Value>::new());
    app.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_nothing_is_missing_but_the_end() {
    const ROUNDS: usize = 4;
    const SETTLED: usize = 300;
    let dir = Dir::new();
    let (mut kept, mut seen_at_kill) = (0, 0);
    for round in 0..ROUNDS {
        let app = configured(&dir, "").await;
        let rows = names(&app, "?order=oldest&limit=10000").await;
        let expected: Vec<String> = (0..rows.len()).map(|number| number.to_string()).collect();
        assert_eq!(rows, expected, "no gap");
        assert!((kept..=seen_at_kill + 200).contains(&rows.len()), "{kept} {seen_at_kill} {}", rows.len());
        let nodes = Nodes::of(&app).await;
        let first = rows.len();
        // Slowly enough for the socket's buffer.
        for number in first..first + SETTLED {
            nodes.ended(number);
            if number % 50 == 49 {
                has(&app, number - 49).await;
            }
        }
        has(&app, first + SETTLED).await;
        metric(&app, "sense_butler_keep_queued_bytes 0").await;
        kept = first + SETTLED;
        // And now in full flight.
        for number in kept..kept + 40 * round + 7 {
            nodes.ended(number);
        }
        has(&app, kept + 20 * round).await;
        seen_at_kill = count(&app).await;
        app.signal("KILL");
        drop(app.ended().await);
    }
    let app = configured(&dir, "").await;
    let rows = names(&app, "?order=oldest&limit=10000").await;
    let expected: Vec<String> = (0..rows.len()).map(|number| number.to_string()).collect();
    assert_eq!(rows, expected);
    assert!(rows.len() >= kept && kept >= ROUNDS * SETTLED, "{} {kept}", rows.len());
    app.stop().await;
}

#[tokio::test]
async fn what_became_of_a_start_is_found_by_its_task() {
    let tasks = [task(SALES, "Sales", "duration: 2"), task(STOCK, "Stock", "duration: 1, outcome: fail")].concat();
    let (site, dir) = (Site::start(&tasks).await, Dir::new());
    let app = App::configured(&dir, &site.butler_yaml("")).await;
    let mut ran = 0;
    for (id, kind, name) in [(SALES, "sense.task.succeeded", "Sales"), (STOCK, "sense.task.failed", "Stock")] {
        let wish = json!({"taskId": id, "wait": "finished"}).to_string();
        let (status, body) = app.call("POST", "/api/v1/tasks/start?timeout=60", &[], &wish).await;
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(status, 200, "{body}");
        has(&app, ran + 1).await;
        // One call: did it end, and how?
        let summary = app.json(&format!("{PATH}?taskId={id}&since=00:00&summary=true")).await;
        assert_eq!((summary["count"].as_u64(), summary["type"].as_str()), (Some(1), Some(kind)), "{summary}");
        assert_eq!(summary["executionId"], body["results"][0]["executionId"], "{summary}");
        assert_eq!((&summary["taskName"], &summary["source"]), (&json!(name), &json!("followed")), "{summary}");
        if kind == "sense.task.failed" {
            let lines = body["results"][0]["execution"]["logTail"].as_array().unwrap().clone();
            let last = lines.iter().rev().find(|line| !line.as_str().unwrap().trim().is_empty()).unwrap();
            assert_eq!(&summary["message"], last);
        }
        ran += 1;
    }
    assert_eq!(ran, 2);
    app.stop().await;
    site.finish().await;
}

/// A datagram and the follower tell of the same end: whoever is first.
#[tokio::test]
async fn an_end_that_two_tell_of_is_one_row() {
    let free = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = free.local_addr().unwrap();
    let site = Site::with(&task(SALES, "Sales", "duration: 2"), |settings| {
        settings.profile = Profile::Butler16;
        settings.targets = Targets { tasks: vec![address], sessions: Vec::new() };
    })
    .await;
    let dir = Dir::new();
    let file = dir.write("butler.yaml", &site.butler_yaml(""));
    drop(free);
    let ports = free_ports_but("--udp", &address.to_string());
    let ports: Vec<&str> = ports.iter().map(String::as_str).collect();
    let app = App::run_at(&dir, &ports, &["--data", "data", "--config", file.to_str().unwrap()]).await;
    const STARTS: usize = 5;
    for _ in 0..STARTS {
        let wish = json!({"taskId": SALES, "wait": "finished"}).to_string();
        let (status, body) = app.call("POST", "/api/v1/tasks/start?timeout=60", &[], &wish).await;
        assert_eq!(status, 200, "{body}");
    }
    metric(&app, &format!("sense_butler_journal_duplicates_total {STARTS}")).await;
    let rows = events(&app, &format!("?taskId={SALES}")).await;
    assert_eq!(rows.len(), STARTS);
    assert!(rows.iter().all(|row| row["type"] == "sense.task.succeeded"), "{rows:?}");
    app.stop().await;
    site.finish().await;
}

#[tokio::test]
async fn users_are_noted_only_where_that_is_wanted_and_no_further_than_they_may_be_told() {
    let dir = Dir::new();
    let text = "/proxy-session/;p;Start session;LAB;anna;o;c;Start session for user 'LAB\\anna'";
    let mut ran = 0;
    for (journal, expected) in [("", 1), ("sessions: true", 2)] {
        let app = configured(&dir, journal).await;
        let nodes = Nodes::of(&app).await;
        let sessions = app
            .printed(|text| {
                let (_, rest) = text.split("UDP on 127.0.0.1:").nth(2).map(|rest| ((), rest))?;
                rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u16>().ok()
            })
            .await;
        nodes.socket.send_to(text.as_bytes(), ("127.0.0.1", sessions)).unwrap();
        metric(&app, "sense_butler_events_total{kind=\"session\"} 1").await;
        nodes.ended(7 + ran);
        has(&app, expected + ran).await;
        let rows = events(&app, "?type=sense.session").await;
        assert_eq!(rows.len(), expected - 1, "{rows:?}");
        for row in rows {
            assert_eq!((&row["type"], &row["user"]), (&json!("sense.session.started"), &json!("-")), "{row}");
            assert!(!row.to_string().contains("anna"), "{row}");
        }
        app.stop().await;
        ran += 1;
    }
    assert_eq!(ran, 2);
}

#[tokio::test]
async fn a_token_needs_the_right_to_read() {
    let dir = Dir::new();
    let app = configured(&dir, "").await;
    let make = |name: &str, rights: &str| {
        let output = run_to_end(&dir, &["token", "create", name, "--rights", rights, "--data", "data"]);
        assert!(output.status.success(), "{}", said(&output));
        format!("Bearer {}", String::from_utf8(output.stdout).unwrap().trim_end())
    };
    let (reader, writer) = (make("reader", "read"), make("writer", "publish,start,values"));
    assert_eq!(app.call("GET", PATH, &[("authorization", &reader)], "").await, (200, "[]".into()));
    let (status, body) = app.call("GET", PATH, &[("authorization", &writer)], "").await;
    assert!(status == 403 && body.contains("insufficient_rights"), "{status} {body}");
    app.stop().await;
}

/// Under a storm nothing is delayed: the journal has what there was room for, and every other is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_costs_few_records_and_loses_nothing_uncounted() {
    const STORM: usize = 3_000;
    let dir = Dir::new();
    let app = configured(&dir, "").await;
    let nodes = Nodes::of(&app).await;
    for number in 0..STORM {
        nodes.ended(number);
        if number % 100 == 99 {
            has(&app, number - 99).await;
        }
    }
    has(&app, STORM).await;
    metric(&app, &format!("sense_butler_events_accepted_total {STORM}")).await;
    let text = app.get("/metrics").await.1;
    assert!(text.contains("sense_butler_journal_dropped_total{reason=\"busy\"} 0\n"), "{text}");
    tokio::time::timeout(Duration::from_secs(30), app.stop()).await.unwrap();
}
