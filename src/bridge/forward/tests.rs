//! Order, waiting, and what is published whatever QRS says, against a bus and a directory that are doubles.

use std::{
    sync::{Mutex, atomic::AtomicUsize, atomic::Ordering},
    time::SystemTime,
};

use serde_json::json;
use tokio::sync::{Notify, oneshot};

use super::*;
use crate::{
    bus::{BoxFuture, PublishError, Receipt, Routed, Subscription, Transport},
    config::settings::{BrokerChoice, SessionTopics, SessionUser},
    names::TopicFilter,
    sense::{datagram, directory::BoxFuture as DirectoryFuture},
};

type Sent = Arc<Mutex<Vec<(String, String)>>>;

/// Records what is submitted; answers every receipt with `word`.
#[derive(Clone)]
struct Recorder {
    sent: Sent,
    arrived: Arc<Notify>,
    word: Result<Routed, PublishError>,
    /// Takes nothing: every submission waits for ever.
    stuck: bool,
}

impl Recorder {
    fn new() -> Self {
        Self { sent: Sent::default(), arrived: Arc::default(), word: Ok(Routed::passing(true)), stuck: false }
    }

    async fn wait_for(&self, count: usize) -> Vec<(String, String)> {
        loop {
            let arrived = self.arrived.notified();
            let sent = self.sent.lock().unwrap().clone();
            if sent.len() >= count {
                return sent;
            }
            arrived.await;
        }
    }
}

impl Transport for Recorder {
    fn submit(&self, publication: Publication) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        let payload = String::from_utf8(publication.payload.to_vec()).unwrap();
        self.sent.lock().unwrap().push((publication.topic.to_string(), payload));
        self.arrived.notify_waiters();
        if self.stuck {
            return Box::pin(std::future::pending());
        }
        let (sender, receipt) = Receipt::channel();
        sender.send(self.word.clone()).unwrap();
        Box::pin(async { Ok(receipt) })
    }

    fn subscribe(&self, _: &str, _: Vec<TopicFilter>) -> BoxFuture<'_, Result<Subscription, PublishError>> {
        Box::pin(async { Err(PublishError::Refused("not in this test".into())) })
    }

    fn is_up(&self) -> bool {
        true
    }
}

/// Answers task `slow` only when let go, all others at once.
#[derive(Default)]
struct Directory {
    asked: AtomicUsize,
    gate: Mutex<Option<oneshot::Receiver<()>>>,
    silent: bool,
}

const SLOW: &str = "0000aaaa-0000-4000-8000-00000000000a";
const FAST: &str = "0000aaaa-0000-4000-8000-00000000000b";

impl TaskDirectory for Directory {
    fn enrich<'a>(&'a self, task_id: &'a str, _: &'a str) -> DirectoryFuture<'a, Option<Enrichment>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let gate = if task_id == SLOW { self.gate.lock().unwrap().take() } else { None };
        Box::pin(async move {
            if let Some(gate) = gate {
                gate.await.ok()?;
            }
            (!self.silent).then(|| Enrichment { task: Some(json!({"taskType": 0, "id": task_id})), app: None })
        })
    }
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn pair(name: &str) -> EventTopics {
    EventTopics { send: true, send_full: true, basic: topic(name), full: topic(&format!("{name}_full")) }
}

pub(crate) fn settings() -> MqttSettings {
    MqttSettings {
        enable: true,
        broker: BrokerChoice::Embedded { port: 0 },
        broker_reason: String::new(),
        subscription_root: TopicFilter::new("q/#").unwrap(),
        task_start: topic("q/start"),
        failed: pair("q/failed"),
        aborted: pair("q/aborted"),
        succeeded: pair("q/succeeded"),
        distributed: pair("q/distributed"),
        failure_server_status: topic("q/server"),
        session: Some(SessionTopics {
            session_start: topic("q/session/start"),
            session_stop: topic("q/session/stop"),
            connection_open: topic("q/connection/open"),
            connection_close: topic("q/connection/close"),
            server_status: topic("q/session_server"),
            active_user_count: topic("q/users/count"),
            active_users: topic("q/users/names"),
            user: SessionUser::Full,
        }),
        own_topics: topic("q/butler"),
        task_types: None,
        enrichment_wait: Duration::from_secs(3600),
        rest_qos_retain: false,
    }
}

fn task(id: &str, name: &str) -> SenseEvent {
    let text = format!("/scheduler-task-failed/;h;{name};a;u;{id};;2026-05-04 10:00:01,234;INFO;;m");
    SenseEvent::Task(datagram::parse_task(text.as_bytes(), Generation::Head, SystemTime::UNIX_EPOCH).unwrap())
}

fn session(user: &str) -> SenseEvent {
    let text = format!("/proxy-session/;p;Start session;D;{user};o;c;m");
    SenseEvent::Session(datagram::parse_session(text.as_bytes(), Generation::Head, SystemTime::UNIX_EPOCH).unwrap())
}

struct House {
    recorder: Recorder,
    events: mpsc::Sender<SenseEvent>,
    switches: Switches,
    registry: Registry,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<()>,
}

impl House {
    fn build(settings: &MqttSettings, directory: Option<Directory>, recorder: Recorder) -> Self {
        let mut registry = Registry::default();
        let directory = directory.map(|directory| Arc::new(directory) as Arc<dyn TaskDirectory>);
        let (generation, bus) = (Generation::Head, Bus::new(recorder.clone()));
        let forwarder =
            Forwarder::new(settings, generation, bus, directory, ActiveUsers::new(), &mut registry).unwrap();
        let (events, receiver) = mpsc::channel(1_024);
        let stop = CancellationToken::new();
        let switches = forwarder.switches();
        let running = tokio::spawn(forwarder.run(receiver, stop.clone()));
        Self { recorder, events, switches, registry, stop, running }
    }

    async fn send(&self, event: SenseEvent) {
        self.events.send(event).await.unwrap();
    }

    /// Ends it; what was sent, and the metrics.
    async fn end(self) -> (Vec<(String, String)>, String) {
        drop(self.events);
        self.running.await.unwrap();
        let mut metrics = String::new();
        prometheus_client::encoding::text::encode(&mut metrics, &self.registry).unwrap();
        let sent = self.recorder.sent.lock().unwrap().clone();
        (sent, metrics)
    }
}

fn topics_of(sent: &[(String, String)]) -> Vec<&str> {
    sent.iter().map(|(topic, _)| topic.as_str()).collect()
}

#[tokio::test]
async fn what_is_published_changes_while_it_runs_and_topics_do_not() {
    let house = House::build(&settings(), None, Recorder::new());
    house.send(task(FAST, "one")).await;
    house.recorder.wait_for(3).await;
    let mut newer = settings();
    newer.failed = EventTopics { send_full: false, ..pair("elsewhere") };
    house.switches.set(&newer);
    house.send(task(FAST, "two")).await;
    let sent = house.recorder.wait_for(5).await;
    assert_eq!(topics_of(&sent), ["q/failed", "q/failed_full", "q/butler/event", "q/failed", "q/butler/event"]);
    house.switches.set(&settings());
    house.send(task(FAST, "three")).await;
    let (sent, metrics) = house.end().await;
    assert_eq!(topics_of(&sent)[5..], ["q/failed", "q/failed_full", "q/butler/event"]);
    assert!(metrics.contains("sense_butler_events_total{kind=\"failed\"} 3"), "{metrics}");
}

#[tokio::test]
async fn a_waiting_event_delays_no_other_and_its_task_keeps_its_order() {
    let (release, gate) = oneshot::channel();
    let directory = Directory { gate: Mutex::new(Some(gate)), ..Directory::default() };
    let house = House::build(&settings(), Some(directory), Recorder::new());
    for event in [task(SLOW, "slow 1"), task(FAST, "fast"), task(SLOW, "slow 2")] {
        house.send(event).await;
    }
    // Three basic messages, and the fast one's other two.
    let sent = house.recorder.wait_for(5).await;
    let basics: Vec<_> = sent.iter().filter(|(topic, _)| topic == "q/failed").map(|(_, name)| name.as_str()).collect();
    assert_eq!(basics, ["slow 1", "fast", "slow 2"]);
    let fulls: Vec<_> = sent.iter().filter(|(topic, _)| topic == "q/failed_full").collect();
    assert!(fulls.len() == 1 && fulls[0].1.contains("fast") && fulls[0].1.contains("qs_taskMetadata"));
    release.send(()).unwrap();
    let (sent, metrics) = house.end().await;
    let fulls: Vec<_> = sent.iter().filter(|(topic, _)| topic == "q/failed_full").map(|(_, full)| full).collect();
    assert!(fulls[1].contains("slow 1") && fulls[2].contains("slow 2"));
    assert_eq!(sent.len(), 9);
    assert!(metrics.contains("sense_butler_events_accepted_total 3"), "{metrics}");
}

#[tokio::test]
async fn without_an_answer_the_event_goes_out_when_its_time_is_up() {
    let (_never, gate) = oneshot::channel();
    let directory = Directory { gate: Mutex::new(Some(gate)), ..Directory::default() };
    let wait = Duration::from_millis(60);
    let house = House::build(&MqttSettings { enrichment_wait: wait, ..settings() }, Some(directory), Recorder::new());
    let start = Instant::now();
    house.send(task(SLOW, "slow")).await;
    let sent = house.recorder.wait_for(3).await;
    assert!(start.elapsed() >= wait, "{:?}", start.elapsed());
    assert!(!sent[1].1.contains("qs_"));
    assert_eq!(topics_of(&sent), ["q/failed", "q/failed_full", "q/butler/event"]);
    house.end().await;
}

#[tokio::test]
async fn a_directory_that_never_answers_is_left_alone_for_a_while() {
    let directory = Directory { silent: true, ..Directory::default() };
    let house = House::build(&settings(), Some(directory), Recorder::new());
    for number in 0..100 {
        house.send(task(&format!("0000aaaa-0000-4000-8000-{number:012}"), "t")).await;
        house.recorder.wait_for(3 * (number + 1)).await;
    }
    let (sent, metrics) = house.end().await;
    assert_eq!(sent.len(), 300);
    assert!(metrics.contains("sense_butler_events_not_enriched_total 100"), "{metrics}");
}

#[tokio::test]
async fn task_types_hold_the_basic_message_until_qrs_has_spoken() {
    let judged = MqttSettings { task_types: Some(vec![1]), ..settings() };
    let house = House::build(&judged, Some(Directory::default()), Recorder::new());
    house.send(task(FAST, "a reload")).await;
    let (sent, metrics) = house.end().await;
    assert!(sent.is_empty() && metrics.contains("sense_butler_events_suppressed_total 1"), "{metrics}");

    let house = House::build(&judged, Some(Directory { silent: true, ..Directory::default() }), Recorder::new());
    house.send(task(FAST, "nobody knows")).await;
    let (sent, _) = house.end().await;
    assert_eq!(topics_of(&sent), ["q/failed", "q/failed_full", "q/butler/event"]);
}

#[tokio::test]
async fn switches_are_obeyed_and_the_cloud_event_comes_always() {
    let mut settings = settings();
    settings.failed.send_full = false;
    let house = House::build(&settings, None, Recorder::new());
    house.send(task(FAST, "t")).await;
    assert_eq!(topics_of(&house.end().await.0), ["q/failed", "q/butler/event"]);

    settings.failed.send = false;
    let house = House::build(&settings, None, Recorder::new());
    house.send(task(FAST, "t")).await;
    assert_eq!(topics_of(&house.end().await.0), ["q/butler/event"]);
}

#[tokio::test]
async fn sessions_and_their_derived_topics() {
    let house = House::build(&settings(), None, Recorder::new());
    house.send(session("anna")).await;
    let (sent, _) = house.end().await;
    let expected = [
        ("q/session/start", "p: D/anna"),
        ("qliksense/users/activeperserver/p/count", "1"),
        ("q/users/count", "1"),
        ("q/users/names", r#"["anna"]"#),
    ];
    for ((topic, payload), expected) in sent.iter().zip(expected) {
        assert_eq!((topic.as_str(), payload.as_str()), expected);
    }
    assert_eq!((sent.len(), sent[4].0.as_str()), (5, "q/butler/event"));
}

#[tokio::test]
async fn behind_a_backlog_the_lists_are_made_once_for_many() {
    let mut registry = Registry::default();
    let recorder = Recorder::new();
    let bus = Bus::new(recorder.clone());
    let forwarder =
        Forwarder::new(&settings(), Generation::Head, bus, None, ActiveUsers::new(), &mut registry).unwrap();
    let (events, receiver) = mpsc::channel(1_024);
    for user in 0..1_000 {
        events.send(session(&user.to_string())).await.unwrap();
    }
    events.send(task(FAST, "t")).await.unwrap();
    drop(events);
    forwarder.run(receiver, CancellationToken::new()).await;
    let sent = recorder.sent.lock().unwrap().clone();
    let counts: Vec<_> = sent.iter().filter(|(topic, _)| topic == "q/users/count").map(|(_, count)| count).collect();
    assert_eq!(counts.last().map(|count| count.as_str()), Some("1000"));
    assert!(counts.len() < 100, "{}", counts.len());
    assert_eq!(sent.iter().filter(|(topic, _)| topic == "q/session/start").count(), 1_000);
}

#[tokio::test]
async fn what_the_broker_refuses_is_counted_as_failed() {
    let recorder = Recorder { word: Err(PublishError::Unavailable("away".into())), ..Recorder::new() };
    let house = House::build(&settings(), None, recorder);
    house.send(task(FAST, "t")).await;
    let (_, metrics) = house.end().await;
    assert!(metrics.contains("sense_butler_events_failed_total 1"), "{metrics}");
    assert!(metrics.contains("sense_butler_events_accepted_total 0"), "{metrics}");
}

#[tokio::test]
async fn stop_lets_go_of_what_waits() {
    let (_never, gate) = oneshot::channel();
    let directory = Directory { gate: Mutex::new(Some(gate)), ..Directory::default() };
    let house = House::build(&settings(), Some(directory), Recorder::new());
    house.send(task(SLOW, "slow")).await;
    house.recorder.wait_for(1).await;
    house.stop.cancel();
    house.running.await.unwrap();
    assert_eq!(house.recorder.sent.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn switched_off_nothing_goes_out_but_users_are_counted() {
    let users = ActiveUsers::new();
    let (recorder, mut registry) = (Recorder::new(), Registry::default());
    let off = MqttSettings { enable: false, ..settings() };
    let bus = Bus::new(recorder.clone());
    let forwarder = Forwarder::new(&off, Generation::Head, bus, None, users.clone(), &mut registry).unwrap();
    let (events, receiver) = mpsc::channel(4);
    events.send(session("anna")).await.unwrap();
    events.send(task(FAST, "t")).await.unwrap();
    drop(events);
    forwarder.run(receiver, CancellationToken::new()).await;
    assert!(recorder.sent.lock().unwrap().is_empty());
    assert_eq!(users.count(), 1);
}

#[test]
fn qrs_settles_which_name_a_semicolon_belongs_to() {
    let SenseEvent::Task(mut event) = task(FAST, "x;y;z") else { unreachable!() };
    assert!(event.ambiguous);
    let known =
        |task: &str, app: &str| Enrichment { task: Some(json!({"name": task})), app: Some(json!({"name": app})) };
    let sent = (event.task_name.clone(), event.app_name.clone());
    known_names(&mut event, &known("renamed", "since"));
    assert_eq!((event.task_name.clone(), event.app_name.clone()), sent);
    known_names(&mut event, &known("x", "y;z;a"));
    assert_eq!((event.task_name.as_deref(), event.app_name.as_deref()), (Some("x"), Some("y;z;a")));
}

#[tokio::test]
async fn a_broker_that_takes_nothing_does_not_hold_the_stop() {
    let house = House::build(&settings(), None, Recorder { stuck: true, ..Recorder::new() });
    house.send(task(FAST, "t")).await;
    house.recorder.wait_for(1).await;
    house.stop.cancel();
    tokio::time::timeout(DRAIN * 2, house.running).await.unwrap().unwrap();
}
