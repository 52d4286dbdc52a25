//! Events by datagram, by polling and by notification of the same executions, against the simulated site: each is told once, and none is missing
//! when datagrams are lost, when QRS restarts, and when the program does.
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

use std::{collections::HashMap, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use app::Dir;
use prometheus_client::registry::Registry;
use sense_butler::{
    config::settings::{EventSources, Generation, NotificationSettings, UdpSettings},
    keep::Keep,
    names::TaskId,
    sense::{
        directory::Cache,
        event::{Origin, SenseEvent, TaskEvent, TaskEventKind},
        qrs::Qrs,
        receiver::Receiver,
        simulator::{Profile, Targets},
        sources::{Once, Sources, Surroundings},
    },
    telemetry::metrics::encode,
};
use serde_json::json;
use site::{Site, task};
use tokio::{sync::mpsc, time::timeout};
use tokio_util::sync::CancellationToken;

/// How each task ends, and what that is to a listener.
const TASKS: [(u128, &str, TaskEventKind); 5] = [
    (1, "duration: 2", TaskEventKind::Succeeded),
    (2, "duration: 1, outcome: fail", TaskEventKind::Failed),
    (3, "duration: 1, outcome: fail, maxRetries: 2", TaskEventKind::Failed),
    (4, "duration: 4, outcome: abort", TaskEventKind::Aborted),
    (5, "duration: 2, type: distribute", TaskEventKind::Distributed),
];
/// Tasks of each kind.
const EACH: u128 = 8;

fn id(kind: u128, number: u128) -> TaskId {
    TaskId::from_u128((kind << 64) + number + 1)
}

fn tasks() -> String {
    let kinds = TASKS.iter().flat_map(|(kind, more, _)| (0..EACH).map(move |number| (*kind, number, *more)));
    kinds.map(|(kind, number, more)| task(id(kind, number), &format!("Task {kind}.{number}"), more)).collect()
}

/// A site whose datagrams go to an address.
async fn site_of(udp: Option<SocketAddr>) -> Site {
    Site::with(&tasks(), |settings| {
        settings.speed = 10.0;
        settings.profile = Profile::Butler16;
        settings.targets = Targets { tasks: udp.into_iter().collect(), sessions: Vec::new() };
    })
    .await
}

/// Starts the tasks of these numbers, of every kind; how many executions.
async fn start_tasks(site: &Site, numbers: std::ops::Range<u128>) -> usize {
    let mut started = 0;
    for (kind, ..) in TASKS {
        for number in numbers.clone() {
            site.start_elsewhere(id(kind, number)).await;
            started += 1;
        }
    }
    started
}

async fn lose(site: &Site, loss: f64) {
    site.order("datagrams", json!({"loss": loss, "duplicate": 0.1})).await;
}

async fn subscriptions(site: &Site) -> usize {
    site.ask("notifications").await["subscriptions"].as_array().unwrap().len()
}

fn polling(every: Duration) -> EventSources {
    EventSources { polling: Some(every), ..EventSources::default() }
}

/// `port`: a free one that stays the same over lives.
fn notifications(port: u16) -> EventSources {
    let notifications = NotificationSettings {
        listen: vec![format!("127.0.0.1:{port}").parse().unwrap()],
        callback: format!("http://127.0.0.1:{port}"),
        allowed_sources: Vec::new(),
        renew: Duration::from_secs(3_600),
    };
    EventSources { notifications: Some(notifications), ..EventSources::default() }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn receiver() -> Receiver {
    let settings = UdpSettings {
        forward: Default::default(),
        enable: true,
        host: "127.0.0.1".into(),
        task_port: 0,
        session_port: None,
        max_message_size: 65_507,
        allowed_sources: None,
        rate_limit: None,
        deduplication: Some(Duration::from_secs(600)),
        queue_max_bytes: 1 << 20,
        receive_buffer: 1 << 20,
    };
    Receiver::bind(&settings, Generation::Head, &mut Registry::default()).unwrap()
}

/// One life of the sources.
struct Life {
    events: mpsc::Receiver<SenseEvent>,
    registry: Registry,
    keep: Keep,
    stop: CancellationToken,
    tasks: tokio::task::JoinSet<()>,
}

impl Life {
    fn begin(site: &Site, directory: Option<&Path>, settings: &EventSources, receiver: Option<Receiver>) -> Self {
        let mut registry = Registry::default();
        let keep = Keep::open(directory, &mut Registry::default()).unwrap();
        let hosts = site.settings();
        let qrs = Qrs::new(&hosts);
        let around = Surroundings { qrs: &qrs, hosts: &hosts, keep: &keep, cache: Arc::new(Cache::default()) };
        let sources = Sources::build(settings, &around, &mut registry).unwrap();
        let once = Once::open(keep.shelf("told"), None, &mut registry).unwrap();
        let stop = CancellationToken::new();
        let (datagrams, heard) = mpsc::channel(100);
        let (found, others) = mpsc::channel(100);
        let (out, events) = mpsc::channel(10_000);
        let mut tasks = tokio::task::JoinSet::new();
        if let Some(sources) = sources {
            let stop = stop.clone();
            tasks.spawn(async move { sources.run(found, stop).await.unwrap() });
        }
        if let Some(receiver) = receiver {
            let stop = stop.clone();
            tasks.spawn(async move { receiver.run(datagrams, stop).await.unwrap() });
        }
        tasks.spawn(qrs.watch(stop.clone()));
        tasks.spawn(once.run(heard, others, out));
        Self { events, registry, keep, stop, tasks }
    }

    /// The next so many events.
    async fn events(&mut self, number: usize) -> Vec<TaskEvent> {
        let mut events = Vec::new();
        while events.len() < number {
            let next = timeout(Duration::from_secs(60), self.events.recv()).await;
            let Ok(Some(SenseEvent::Task(event))) = next else {
                panic!("{} of {number} events came: {}", events.len(), encode(&self.registry))
            };
            events.push(event);
        }
        events
    }

    /// Ends; what came and nobody took, and the counters.
    async fn end(mut self) -> (Vec<SenseEvent>, String) {
        self.stop.cancel();
        while let Some(ended) = timeout(Duration::from_secs(5), self.tasks.join_next()).await.expect("stops in time") {
            ended.unwrap();
        }
        let mut left = Vec::new();
        while let Some(event) = self.events.recv().await {
            left.push(event);
        }
        let keep = self.keep.clone();
        tokio::task::spawn_blocking(move || keep.stop()).await.unwrap();
        (left, encode(&self.registry))
    }
}

/// Each execution has one event, of the kind its task's end has. How many came from each source.
fn each_once(events: &[TaskEvent], executions: usize) -> HashMap<Origin, usize> {
    let (mut seen, mut origins) = (HashMap::new(), HashMap::new());
    for event in events {
        let task = event.task_id().unwrap();
        let kind = TASKS.iter().find(|(kind, ..)| *kind == task.to_u128() >> 64).unwrap().2;
        assert_eq!(event.kind, kind, "{event:?}");
        assert!(event.task_name.as_ref().unwrap().starts_with("Task "), "{event:?}");
        assert_eq!(event.app_name.as_deref(), Some("App"));
        *seen.entry(event.execution_id().unwrap()).or_insert(0) += 1;
        *origins.entry(event.origin).or_insert(0) += 1;
    }
    assert!(seen.values().all(|times| *times == 1), "{seen:?}");
    assert_eq!(seen.len(), executions);
    origins
}

fn counter(text: &str, name: &str) -> u64 {
    let lines = text.lines().filter_map(|line| line.strip_prefix(name)?.rsplit_once(' '));
    lines.map(|(_, number)| number.parse::<u64>().unwrap()).sum()
}

const QUICK: Duration = Duration::from_millis(200);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn polling_alone_tells_each_end_once() {
    let site = site_of(None).await;
    let mut life = Life::begin(&site, None, &polling(QUICK), None);
    let started = start_tasks(&site, 0..EACH).await;
    let events = life.events(started).await;
    assert_eq!(each_once(&events, 40), HashMap::from([(Origin::Polling, 40)]));
    let failed = events.iter().find(|event| event.kind == TaskEventKind::Failed).unwrap();
    assert_eq!((failed.host.as_str(), failed.log_level.as_deref()), ("sense-1", Some("INFO")));
    assert!(failed.message.as_ref().unwrap().starts_with("Error"), "{failed:?}");
    assert!(failed.log_time.as_ref().unwrap().ends_with('Z'), "{failed:?}");
    assert!(life.end().await.0.is_empty());
    site.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn notifications_alone_tell_each_end_once_also_after_qrs_restarted() {
    let site = site_of(None).await;
    let mut life = Life::begin(&site, None, &notifications(free_port()), None);
    let subscribed = async {
        while subscriptions(&site).await != 2 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(20), subscribed).await.expect("subscriptions");
    let first = start_tasks(&site, 0..4).await;
    let events = life.events(first).await;
    assert_eq!(each_once(&events, 20), HashMap::from([(Origin::Notification, 20)]));
    // It forgets its subscribers and says so to nobody.
    site.order("restart", json!({"downSeconds": 6, "initialisingSeconds": 1})).await;
    assert_eq!(subscriptions(&site).await, 0);
    let second = start_tasks(&site, 4..8).await;
    let events = life.events(second).await;
    assert_eq!(each_once(&events, 20).values().sum::<usize>(), 20);
    let (left, _) = life.end().await;
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(subscriptions(&site).await, 0, "ended with the program");
    site.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_three_together_tell_each_end_once() {
    let receiver = receiver();
    let site = site_of(Some(receiver.listening()[0].address)).await;
    let settings = EventSources { polling: Some(QUICK), ..notifications(free_port()) };
    let mut life = Life::begin(&site, None, &settings, Some(receiver));
    let started = start_tasks(&site, 0..EACH).await;
    let events = life.events(started).await;
    each_once(&events, 40);
    // What comes later is counted, until every source has told of everything.
    let told = async {
        loop {
            let text = encode(&life.registry);
            if counter(&text, "sense_butler_event_duplicates_total") >= 40 {
                return text;
            }
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(30), told).await.expect("the same again from another source");
    assert!(life.end().await.0.is_empty());
    site.finish().await;
}

/// A third of the datagrams is lost, QRS restarts, and the program does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missing_with_lost_datagrams_and_restarts() {
    let first_receiver = receiver();
    let udp = first_receiver.listening()[0].address;
    let (site, dir) = (site_of(Some(udp)).await, Dir::new());
    lose(&site, 0.3).await;
    let mut life = Life::begin(&site, Some(&dir.0), &polling(QUICK), Some(first_receiver));
    let mut events = Vec::new();
    let started = start_tasks(&site, 0..3).await;
    events.extend(life.events(started).await);
    // QRS is away for a while, with nothing under way: what runs when it stops is reset, and no datagram tells that.
    site.order("restart", json!({"downSeconds": 1, "initialisingSeconds": 1})).await;
    let started = start_tasks(&site, 3..5).await;
    events.extend(life.events(started).await);
    // The program is away: nobody hears the datagrams, the next life finds the ends.
    let (left, _) = life.end().await;
    events.extend(left.into_iter().map(|event| match event {
        SenseEvent::Task(event) => event,
        other => panic!("{other:?}"),
    }));
    start_tasks(&site, 5..7).await;
    let over = async {
        while site.ask("datagrams").await["list"].as_array().unwrap().len() < 35 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(30), over).await.expect("the tasks end");
    let mut life = Life::begin(&site, Some(&dir.0), &polling(QUICK), Some(receiver()));
    events.extend(life.events(10).await);
    let started = start_tasks(&site, 7..8).await;
    events.extend(life.events(started).await);
    let origins = each_once(&events, 40);
    assert!(origins[&Origin::Polling] >= 10, "{origins:?}");
    let (left, _) = life.end().await;
    assert!(left.is_empty(), "{left:?}");
    let datagrams = site.ask("datagrams").await;
    let lost = datagrams["list"].as_array().unwrap().iter().filter(|sent| sent["times"] == 0).count();
    assert!(lost > 0, "{datagrams}");
    site.finish().await;
}
