//! Replays the recordings of Butler (`tests/golden/udp_*.json`) against parser, de-duplication, forwarder and active users.
//!
//! Every case is either equal to the recording or listed in `tests/golden/differences_events.json` with what happens here instead and why.
//! The test fails when the list and the behaviour disagree in either direction, and when the section "Events" of
//! `docs/differences-from-butler.md` is not the one made of the list.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use prometheus_client::registry::Registry;
use sense_butler::{
    bridge::{active_users::ActiveUsers, forward::Forwarder},
    bus::{BoxFuture, Bus, Publication, PublishError, Receipt, Routed, Subscription, Transport},
    config::settings::{BrokerChoice, EventTopics, Generation, MqttSettings, SessionTopics, SessionUser},
    names::{TopicFilter, TopicName},
    sense::{
        datagram,
        dedup::Deduplicator,
        directory::{Enrichment, TaskDirectory},
        event::SenseEvent,
    },
};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

const OWN_EVENTS: &str = "qliksense/butler/event";
const DIFFERENCES: &str = "tests/golden/differences_events.json";
const DOCUMENT: &str = "docs/differences-from-butler.md";

/// One deliberate difference.
#[derive(Debug, Deserialize)]
struct Difference {
    what: String,
    butler: String,
    here: String,
    why: String,
    /// Recorded cases it shows in; none for a difference no recording shows.
    cases: Vec<Case>,
}

#[derive(Debug, Deserialize)]
struct Case {
    file: String,
    name: String,
    /// `topic payload` of what is published here on Butler's topics, full messages (their topics end in `_full`) without payload.
    published: Vec<String>,
}

fn differences() -> Vec<Difference> {
    serde_json::from_str(&read(DIFFERENCES)).unwrap()
}

fn listed<'a>(differences: &'a [Difference], file: &str) -> Vec<&'a Case> {
    differences.iter().flat_map(|difference| &difference.cases).filter(|case| case.file == file).collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(format!("{}/{path}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn recording(file: &str) -> Vec<Value> {
    let recording: Value = serde_json::from_str(&read(&format!("tests/golden/{file}.json"))).unwrap();
    recording["cases"].as_array().unwrap().clone()
}

/// The bytes of a recorded datagram: `text`, `hex`, or `text_prefix` with `fill` up to `total_bytes`. `complete` is what a prefix that was
/// cut in the recording goes on with.
fn bytes(datagram: &Value, complete: &str) -> Vec<u8> {
    if let Some(text) = datagram["text"].as_str() {
        return text.as_bytes().to_vec();
    }
    if let Some(hex) = datagram["hex"].as_str() {
        return (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    }
    let mut bytes = format!("{}{complete}", datagram["text_prefix"].as_str().unwrap()).into_bytes();
    let total = usize::try_from(datagram["total_bytes"].as_u64().unwrap()).unwrap();
    let fill = datagram["fill"].as_str().unwrap().as_bytes();
    while bytes.len() < total {
        bytes.extend_from_slice(fill);
    }
    bytes
}

fn recorded(published: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    published
        .as_array()
        .unwrap()
        .iter()
        .inspect(|sent| assert!(sent["qos"] == 0 && sent["retain"] == false))
        .map(|sent| (text(&sent["topic"]), text(&sent["payload"])))
        .collect()
}

/// Records what is published, and tells when an event is through (its CloudEvent is its last publication).
#[derive(Clone, Default)]
struct Recorder {
    sent: Arc<Mutex<Vec<(String, String)>>>,
    through: Arc<Notify>,
}

impl Recorder {
    fn take(&self) -> Vec<(String, String)> {
        let mut sent = std::mem::take(&mut *self.sent.lock().unwrap());
        sent.retain(|(topic, _)| topic != OWN_EVENTS);
        sent
    }
}

impl Transport for Recorder {
    fn submit(&self, publication: Publication) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        assert!(!publication.retain && publication.qos as u8 == 0);
        let topic = publication.topic.to_string();
        let is_last = topic == OWN_EVENTS;
        // A payload that is no text would show as a difference; there is none.
        let payload = String::from_utf8(publication.payload.to_vec()).unwrap();
        self.sent.lock().unwrap().push((topic, payload));
        if is_last {
            self.through.notify_one();
        }
        let (sender, receipt) = Receipt::channel();
        sender.send(Ok(Routed::passing(true))).unwrap();
        Box::pin(async { Ok(receipt) })
    }

    fn subscribe(&self, _: &str, _: Vec<TopicFilter>) -> BoxFuture<'_, Result<Subscription, PublishError>> {
        Box::pin(async { Err(PublishError::Refused("nobody subscribes here".into())) })
    }

    fn is_up(&self) -> bool {
        true
    }
}

/// Answers as the fake Repository Service of the recordings did: ids that begin with `dead` are unknown, the tenth character is the type,
/// everything else is what the recordings show in `qs_taskMetadata` and `qs_appMetadata`.
struct FakeQrs {
    task: Value,
    app: Value,
}

impl FakeQrs {
    fn from_recording() -> Self {
        let cases = recording("udp_task_head");
        let case = cases.iter().find(|case| case["name"] == "type \"/scheduler-task-aborted/\"").unwrap();
        let full: Value = serde_json::from_str(case["published"][1]["payload"].as_str().unwrap()).unwrap();
        Self { task: full["qs_taskMetadata"].clone(), app: full["qs_appMetadata"].clone() }
    }
}

impl TaskDirectory for FakeQrs {
    fn enrich<'a>(
        &'a self,
        task_id: &'a str,
        app_id: &'a str,
    ) -> sense_butler::sense::directory::BoxFuture<'a, Option<Enrichment>> {
        let mut task = self.task.clone();
        task["id"] = task_id.into();
        task["name"] = format!("Reload task {}", &task_id[..8]).into();
        task["taskType"] = task_id[9..10].parse::<u8>().unwrap().into();
        let mut app = self.app.clone();
        app["id"] = app_id.into();
        let known = !task_id.starts_with("dead");
        let enrichment = Enrichment { task: known.then_some(task), app: (app_id.len() == 36).then_some(app) };
        Box::pin(async move { Some(enrichment) })
    }
}

fn topic(name: &str) -> TopicName {
    TopicName::new(format!("qliksense/{name}")).unwrap()
}

/// The defaults of the recordings' configuration files.
fn settings() -> MqttSettings {
    let pair = |name: &str, send| EventTopics {
        send,
        send_full: true,
        basic: topic(name),
        full: topic(&format!("{name}_full")),
    };
    MqttSettings {
        enable: true,
        broker: BrokerChoice::Embedded { port: 1883 },
        broker_reason: String::new(),
        subscription_root: TopicFilter::new("qliksense/#").unwrap(),
        task_start: topic("start_task"),
        failed: pair("task_failure", true),
        aborted: pair("task_aborted", true),
        succeeded: pair("task_success", false),
        distributed: pair("task_distribute", false),
        failure_server_status: topic("butler/task_failure_server"),
        session: Some(SessionTopics {
            session_start: topic("session/start"),
            session_stop: topic("session/stop"),
            connection_open: topic("connection/open"),
            connection_close: topic("connection/close"),
            server_status: topic("butler/session_server"),
            active_user_count: topic("users/active/count"),
            active_users: topic("users/active/usernames"),
            user: SessionUser::Full,
        }),
        own_topics: topic("butler"),
        task_types: None,
        // Long enough that the double always answers, however busy the machine is.
        enrichment_wait: Duration::from_secs(60),
        rest_qos_retain: false,
    }
}

struct House {
    events: mpsc::Sender<SenseEvent>,
    recorder: Recorder,
    users: ActiveUsers,
    running: tokio::task::JoinHandle<()>,
}

fn house(generation: Generation) -> House {
    let (recorder, users) = (Recorder::default(), ActiveUsers::new());
    let directory: Arc<dyn TaskDirectory> = Arc::new(FakeQrs::from_recording());
    let bus = Bus::new(recorder.clone());
    let forwarder =
        Forwarder::new(&settings(), generation, bus, Some(directory), users.clone(), &mut Registry::default()).unwrap();
    let (events, receiver) = mpsc::channel(16);
    let running = tokio::spawn(forwarder.run(receiver, CancellationToken::new()));
    House { events, recorder, users, running }
}

/// The recordings keep 200 characters of a long datagram's beginning, which end within the execution id; the recorded message has the rest.
fn rest_of_prefix(case: &Value) -> String {
    let Some(prefix) = case["datagrams"][0]["text_prefix"].as_str() else { return String::new() };
    let full: Value = serde_json::from_str(case["published"][1]["payload"].as_str().unwrap()).unwrap();
    let (_, begun) = prefix.rsplit_once(';').unwrap();
    format!("{};", full["executionId"].as_str().unwrap().strip_prefix(begun).unwrap())
}

/// What is published for the datagrams of a case, by a fresh process.
async fn replay(case: &Value, generation: Generation) -> Vec<(String, String)> {
    let house = house(generation);
    let mut dedup = (generation == Generation::Head).then(|| Deduplicator::new(Duration::from_secs(600)));
    let rest = rest_of_prefix(case);
    for datagram in case["datagrams"].as_array().unwrap() {
        let Ok(event) = datagram::parse_task(&bytes(datagram, &rest), generation, SystemTime::now()) else { continue };
        if !dedup.as_mut().is_some_and(|dedup| dedup.is_duplicate(&event, Instant::now())) {
            house.events.send(SenseEvent::Task(event)).await.unwrap();
        }
    }
    drop(house.events);
    house.running.await.unwrap();
    house.recorder.take()
}

fn by_topic(mut sent: Vec<(String, String)>) -> Vec<(String, String)> {
    sent.sort_by(|a, b| a.0.cmp(&b.0));
    sent
}

/// Also where a case differs from the recording: the full messages are those of the basic ones.
fn full_and_basic_agree(sent: &[(String, String)]) {
    let (full, basic): (Vec<_>, Vec<_>) = sent.iter().partition(|(topic, _)| topic.ends_with("_full"));
    assert_eq!(full.len(), basic.len());
    for ((_, full), (_, name)) in full.into_iter().zip(basic) {
        let full: Value = serde_json::from_str(full).unwrap();
        assert_eq!((full["taskName"].as_str(), full["hostName"].is_string()), (Some(name.as_str()), true));
    }
}

fn summary(sent: &[(String, String)]) -> Vec<String> {
    let line = |(topic, payload): &(String, String)| {
        if topic.ends_with("_full") { topic.clone() } else { format!("{topic} {payload}") }
    };
    sent.iter().map(line).collect()
}

/// `(equal, different)`; panics with everything that disagrees with the list.
async fn compare(file: &str, generation: Generation) -> (usize, usize) {
    let differences = differences();
    let mut open: BTreeSet<&str> = listed(&differences, file).iter().map(|case| case.name.as_str()).collect();
    let (mut equal, mut different, mut wrong) = (0, 0, Vec::new());
    for case in recording(file) {
        let name = case["name"].as_str().unwrap();
        let (expected, sent) = (recorded(&case["published"]), replay(&case, generation).await);
        // 5.4 waits for nobody, so its order is the recorded one. In head, a full message may wait while the next basic one goes out; the
        // order within a topic is what subscribers see.
        let order = |sent| if generation == Generation::Head { by_topic(sent) } else { sent };
        let (expected, sent) = (order(expected), order(sent));
        full_and_basic_agree(&sent);
        let listed = listed(&differences, file).into_iter().find(|listed| listed.name == name);
        open.remove(name);
        match listed {
            None if sent == expected => equal += 1,
            None => wrong.push(format!("{name}: not listed\n  recorded {expected:?}\n  here     {sent:?}")),
            Some(_) if sent == expected => wrong.push(format!("{name}: listed, but equal")),
            Some(listed) if listed.published == summary(&sent) => different += 1,
            Some(listed) => wrong.push(format!("{name}: listed {:?}, here {:?}", listed.published, summary(&sent))),
        }
    }
    assert!(wrong.is_empty(), "{} disagreements:\n{}", wrong.len(), wrong.join("\n"));
    assert!(open.is_empty(), "listed, but not recorded: {open:?}");
    (equal, different)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn task_events_of_v5_4() {
    assert_eq!(compare("udp_task_v540", Generation::V5_4).await, (43, 26));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn task_events_of_head() {
    assert_eq!(compare("udp_task_head", Generation::Head).await, (46, 23));
}

/// Names and proxies as they are here, where the recording has Butler's: users whose name a slash cut, a user at a host Butler could not
/// count, a host with a slash, and what another client forged over MQTT.
fn corrected_names(names: &str, case: usize) -> Vec<String> {
    let mut names: Vec<String> = serde_json::from_str(names).unwrap();
    for (butlers, here) in [("x", "x/y"), ("B", "eve")] {
        for name in names.iter_mut().filter(|name| *name == butlers) {
            *name = here.to_owned();
        }
    }
    names.retain(|name| name != "opn" && name != "mqttguy");
    if case > HOST_WITH_COLON {
        let after = names.iter().position(|name| name == "eve").unwrap() + 1;
        names.insert(after, "fay".to_owned());
    }
    names
}

/// Index of the case "host with colon-space".
const HOST_WITH_COLON: usize = 20;

fn corrected(published: Vec<(String, String)>, case: usize) -> Vec<(String, String)> {
    let names = published.iter().find(|(topic, _)| topic.ends_with("usernames"));
    let names = names.map(|(_, names)| corrected_names(names, case));
    let per_server = |host: &str| format!("qliksense/users/activeperserver/{host}/count");
    let mut corrected = Vec::new();
    for (topic, payload) in published {
        let payload = match (topic.as_str(), &names) {
            ("qliksense/users/active/usernames", Some(names)) => serde_json::to_string(names).unwrap(),
            ("qliksense/users/active/count", Some(names)) => names.len().to_string(),
            _ => payload,
        };
        let second = topic == per_server("PROXY-02");
        match topic == per_server("a/b") {
            true => corrected.push((per_server("a%2Fb"), payload)),
            false => corrected.push((topic, payload)),
        }
        if second && case > HOST_WITH_COLON {
            corrected.push((per_server("h: x"), "1".to_owned()));
        }
    }
    corrected.retain(|(topic, _)| *topic != per_server("PROXY-03"));
    corrected
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn session_events_of_v5_4() {
    let differences = differences();
    let mut open: BTreeSet<&str> =
        listed(&differences, "udp_session_v540").iter().map(|case| case.name.as_str()).collect();
    let house = house(Generation::V5_4);
    let (mut equal, mut different, mut forged, mut wrong) = (0, 0, 0, Vec::new());
    for (index, case) in recording("udp_session_v540").iter().enumerate() {
        let name = case["name"].as_str().unwrap();
        if case.get("mqtt_in").is_some() {
            // Another client published on a session topic; nothing here listens there.
            forged += 1;
            continue;
        }
        let datagram = bytes(&case["datagram"], "");
        if let Ok(event) = datagram::parse_session(&datagram, Generation::V5_4, SystemTime::now()) {
            house.events.send(SenseEvent::Session(event)).await.unwrap();
            house.recorder.through.notified().await;
        }
        let sent = house.recorder.take();
        let expected = corrected(recorded(&case["published"]), index);
        open.remove(name);
        match listed(&differences, "udp_session_v540").into_iter().find(|listed| listed.name == name) {
            None if sent == expected => {
                equal += 1;
                let answered: Value =
                    serde_json::from_str(case["rest_after"]["/v4/activeusers"].as_str().unwrap()).unwrap();
                let names: Vec<String> = house.users.names().iter().map(|name| name.to_string()).collect();
                assert_eq!(names, corrected_names(answered["response"].as_str().unwrap(), index), "{name}");
                assert_eq!(house.users.count(), names.len());
            }
            None => wrong.push(format!("{name}: not listed\n  expected {expected:?}\n  here     {sent:?}")),
            Some(_) if sent == expected => wrong.push(format!("{name}: listed, but equal")),
            Some(listed) if listed.published == summary(&sent) => different += 1,
            Some(listed) => {
                wrong.push(format!("{name}:\n  listed {:?}\n  here   {:?}", listed.published, summary(&sent)));
            }
        }
    }
    assert!(wrong.is_empty(), "{} disagreements:\n{}", wrong.len(), wrong.join("\n"));
    assert!(open.is_empty(), "listed, but not recorded: {open:?}");
    assert_eq!((equal, different, forged), (27, 4, 5));
}

#[test]
fn the_document_is_made_of_the_list() {
    let row = |d: &Difference| format!("| {} | {} | {} | {} |\n", d.what, d.butler, d.here, d.why);
    let table: String = differences().iter().map(row).collect();
    let document = read(DOCUMENT);
    let (_, section) = document.split_once("<!-- events: begin").unwrap();
    let (section, _) = section.split_once("<!-- events: end -->").unwrap();
    let (_, rows) = section.split_once("|---|---|---|---|\n").unwrap();
    assert_eq!(rows, table);
}
