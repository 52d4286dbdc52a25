//! Start messages and `kill -9`: what was acknowledged, by whichever door, reaches Qlik Sense after however many restarts.
//!
//! The Qlik Repository Service outlives the program and writes down every start. What was asked of it when the program was killed may be
//! answered `unknown` instead: whether it came to a start cannot be known then. No task is ever asked for twice. `KEPT_ROUNDS` (default 6), `KEPT_SEED` (default: the clock's;
//! printed).
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
#[path = "support/oracle/chance.rs"]
#[allow(dead_code)]
mod chance;
#[path = "support/fake_qrs.rs"]
mod fake_qrs;
#[path = "support/mqtt.rs"]
mod mqtt;
#[allow(dead_code)]
#[path = "support/running.rs"]
mod running;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use app::{App, Dir, PATIENCE};
use chance::Chance;
use fake_qrs::{FakeQrs, Mode};
use mqtt::Client;
use rumqttc::QoS;
use running::Running;
use sense_butler::{broker::seen::PageAsk, names::ClientId};
use serde_json::json;
use tokio::task::JoinSet;

const START: &str = "qliksense/start_task";
const RESPONSE: &str = "qliksense/start_task/response";

/// Ids of tasks whose starts were acknowledged.
#[derive(Clone, Default)]
struct Acknowledged(Arc<Mutex<Vec<String>>>);

impl Acknowledged {
    fn add(&self, id: String) {
        self.0.lock().unwrap().push(id);
    }

    fn all(&self) -> BTreeSet<String> {
        self.0.lock().unwrap().iter().cloned().collect()
    }

    async fn reaches(&self, count: usize) {
        let reached = async {
            while self.0.lock().unwrap().len() < count {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(PATIENCE, reached).await.expect("acknowledgements in time");
    }
}

/// A task nobody else asks for.
fn task() -> String {
    // Not one of those the service says do not exist.
    format!("0000{}", &uuid::Uuid::new_v4().to_string()[4..])
}

fn payload(id: &str, padding: usize) -> String {
    json!({"taskId": id, "transaction": format!("{id}{}", "x".repeat(padding))}).to_string()
}

/// Publishes starts as fast as they are acknowledged, until the connection ends.
async fn publish(port: u16, name: String, qos: QoS, padding: usize, acknowledged: Acknowledged) {
    let mut options = mqtt::options(port, &name);
    options.set_inflight(50);
    let starts = std::iter::repeat_with(task).map(move |id| (id.clone(), payload(&id, padding)));
    mqtt::feed(options, START, qos, starts, |id| acknowledged.add(id)).await;
}

/// The same by REST, until nobody answers.
async fn put(port: u16, acknowledged: Acknowledged) {
    loop {
        let id = task();
        let body = json!({"topic": START, "message": id}).to_string();
        match app::try_http(port, "PUT", "/v4/mqttpublishmessage", &[], &body).await {
            Ok((201, _)) => acknowledged.add(id),
            _ => return,
        }
    }
}

/// The program on a directory of its own, before a service that outlives it.
struct Site {
    dir: Dir,
    qrs: FakeQrs,
}

impl Site {
    async fn new() -> Self {
        let (dir, qrs) = (Dir::new(), FakeQrs::start().await);
        let site = Self { dir, qrs };
        site.configure("", "");
        site
    }

    fn configure(&self, more: &str, broker: &str) {
        let port = self.qrs.address.port();
        let file = format!("Butler:\n  configQRS: {{host: 127.0.0.1, port: {port}, useSSL: false}}\n{more}");
        self.dir.write("butler.yaml", &file);
        if !broker.is_empty() {
            self.dir.write("broker.toml", broker);
        }
    }

    async fn run(&self) -> App {
        let file = self.dir.0.join("butler.yaml");
        App::run(&self.dir, &["-c", file.to_str().unwrap()]).await
    }

    /// Somebody who is told every answer, whenever he comes. His session is kept by the broker.
    async fn watcher(port: u16) -> Client {
        let mut options = mqtt::options(port, "watcher");
        options.set_clean_session(false);
        let (mut watcher, _) = Client::open(options).await.unwrap();
        watcher.subscribe(RESPONSE, QoS::AtLeastOnce).await;
        watcher
    }

    /// Waits until the service was asked for every task, once, or it was said that this cannot be known.
    async fn sees(&self, wanted: &BTreeSet<String>, port: u16) {
        let (mut watcher, begun, mut unknown) = (Self::watcher(port).await, std::time::Instant::now(), BTreeSet::new());
        loop {
            // What was said so far.
            while let Ok(said) = tokio::time::timeout(Duration::from_millis(20), watcher.next()).await {
                let answer: serde_json::Value = serde_json::from_slice(&said.payload).unwrap();
                let task = answer["taskId"].as_str().unwrap().to_owned();
                assert_ne!(answer["status"], "denied", "{task} was acknowledged, and nothing denies it: {answer}");
                if answer["status"] == "unknown" {
                    unknown.insert(task);
                }
            }
            let starts = self.qrs.starts();
            let mut seen: BTreeSet<String> = starts.iter().cloned().collect();
            assert_eq!(seen.len(), starts.len(), "some tasks were started twice");
            seen.extend(unknown.iter().cloned());
            let missing: Vec<_> = wanted.difference(&seen).collect();
            if missing.is_empty() {
                println!("{} acknowledged, {} unknown", wanted.len(), unknown.len());
                return watcher.leave().await;
            }
            let (all, lost) = (wanted.len(), missing.len());
            assert!(begun.elapsed() < PATIENCE, "{lost} of {all} acknowledged starts are lost, e.g. {:?}", missing[0]);
        }
    }
}

/// Killed at any moment, with starts under way by MQTT at QoS 1 and 2 and by REST.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_no_acknowledged_start_is_lost() {
    let mut chance = Chance::new(app::seed("KEPT_SEED"));
    let rounds = app::variable("KEPT_ROUNDS").unwrap_or(6);
    let (site, acknowledged) = (Site::new().await, Acknowledged::default());
    for round in 0..rounds {
        // While it is slow, starts pile up in the program and in its store.
        site.qrs.set(if round % 2 == 0 { Mode::Slow } else { Mode::Well });
        let app = site.run().await;
        let (mqtt, rest) = (app.mqtt().await, app.rest().await);
        Site::watcher(mqtt).await.leave().await;
        let (mut publishers, before) = (JoinSet::new(), acknowledged.all().len());
        for (at, qos) in [QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter().enumerate() {
            publishers.spawn(publish(mqtt, format!("plc-{at}"), qos, 0, acknowledged.clone()));
        }
        publishers.spawn(put(rest, acknowledged.clone()));
        acknowledged.reaches(before + 1).await;
        tokio::time::sleep(chance.millis(250)).await;
        // Dropped, it is killed.
        drop(app);
        publishers.join_all().await;
    }
    site.qrs.set(Mode::Well);
    let app = site.run().await;
    let all = acknowledged.all();
    site.sees(&all, app.mqtt().await).await;
    assert!(all.len() > 100, "only {} starts acknowledged: no trial", all.len());
    app.stop().await;
}

/// More than the window, the outbox and a page hold is read back from the store, and comes to an end: nothing is done again afterwards.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_memory_cannot_hold_is_read_back_after_a_kill() {
    let (site, acknowledged) = (Site::new().await, Acknowledged::default());
    // One publisher asks for more than one may have under way: what is beyond that would be answered with a refusal.
    let starts = "  startTask: {limits: {atOncePerRequester: 10000}}\n";
    site.configure(starts, "[limits]\nqueue_bytes = 65536\nqueue_messages = 100\n");
    site.qrs.set(Mode::Slow);
    let app = site.run().await;
    Site::watcher(app.mqtt().await).await.leave().await;
    let publisher = tokio::spawn(publish(app.mqtt().await, "plc".into(), QoS::AtLeastOnce, 600, acknowledged.clone()));
    acknowledged.reaches(2_500).await;
    drop(app);
    publisher.await.unwrap();
    site.qrs.set(Mode::Well);
    let app = site.run().await;
    let all = acknowledged.all();
    site.sees(&all, app.mqtt().await).await;
    // In order, what is settled is settled.
    app.stop().await;
    site.qrs.take_seen();
    let app = site.run().await;
    let mut client = Client::connect(app.mqtt().await, "asker").await;
    client.subscribe(RESPONSE, QoS::AtLeastOnce).await;
    let last = task();
    client.publish(START, QoS::AtLeastOnce, false, payload(&last, 0)).await;
    assert_eq!(client.json(RESPONSE).await["taskId"], last);
    assert_eq!(site.qrs.starts(), [last]);
    app.stop().await;
}

/// A client that calls itself as the table's session gets nothing of it, and takes nothing away.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_cannot_name_itself_into_the_session() {
    let (site, acknowledged) = (Site::new().await, Acknowledged::default());
    let app = site.run().await;
    for clean in [false, true, false] {
        let mut options = mqtt::options(app.mqtt().await, "$internal/actions");
        options.set_clean_session(clean);
        let (mut thief, present) = Client::open(options).await.unwrap();
        assert!(!present, "clean {clean}");
        let id = task();
        thief.publish(START, QoS::AtLeastOnce, false, id.clone()).await;
        acknowledged.add(id);
        site.sees(&acknowledged.all(), app.mqtt().await).await;
        let clients = app.json("/api/v1/broker/clients").await;
        let shown: Vec<_> = clients["clients"].as_array().unwrap_or_else(|| panic!("{clients}")).iter().collect();
        let ids: Vec<_> = shown.iter().map(|client| client["id"].as_str().unwrap()).collect();
        assert_eq!(ids, ["$internal/actions", "watcher"], "{clients}");
        assert_eq!(shown[0]["subscriptions"], 0, "the thief's own: {clients}");
        thief.leave().await;
        let (status, answer) =
            app.call("DELETE", "/api/v1/broker/clients/$internal%2Factions?session=true", &[], "").await;
        assert!([200, 204, 404].contains(&status), "{status} {answer}");
    }
    drop(app);
    let app = site.run().await;
    let id = task();
    let (status, answer) = app.put("/v4/mqttpublishmessage", &json!({"topic": START, "message": id}).to_string()).await;
    assert_eq!(status, 201, "{answer}");
    acknowledged.add(id);
    site.sees(&acknowledged.all(), app.mqtt().await).await;
    app.stop().await;
}

/// While messages are switched off, nothing new is kept, and what was acknowledged before waits until they are on again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_waits_while_messages_are_switched_off() {
    let (site, acknowledged) = (Site::new().await, Acknowledged::default());
    site.qrs.set(Mode::Slow);
    let app = site.run().await;
    Site::watcher(app.mqtt().await).await.leave().await;
    let publisher = tokio::spawn(publish(app.mqtt().await, "plc".into(), QoS::AtLeastOnce, 0, acknowledged.clone()));
    acknowledged.reaches(200).await;
    drop(app);
    publisher.await.unwrap();
    site.qrs.set(Mode::Well);
    site.configure("  mqttConfig: {enable: false}\n", "");
    let app = site.run().await;
    let unwanted = unwanted(app.mqtt().await).await;
    let seen_while_off = site.qrs.starts().len();
    drop(app);
    assert_eq!(site.qrs.starts().len(), seen_while_off);
    site.configure("", "");
    let app = site.run().await;
    site.sees(&acknowledged.all(), app.mqtt().await).await;
    assert!(!site.qrs.starts().contains(&unwanted));
    app.stop().await;
}

/// Publishes starts until the broker says that nobody wants them; the task of the one of which it said so.
async fn unwanted(port: u16) -> String {
    use rumqttc::v5::{
        AsyncClient, Event, Incoming, MqttOptions,
        mqttbytes::{QoS, v5::PubAckReason},
    };
    let (client, mut events) = AsyncClient::new(MqttOptions::new("plc", "127.0.0.1", port), 10);
    let asking = async {
        let mut id = task();
        client.publish(START, QoS::AtLeastOnce, false, id.clone()).await.unwrap();
        loop {
            let Event::Incoming(Incoming::PubAck(ack)) = events.poll().await.unwrap() else { continue };
            if ack.reason == PubAckReason::NoMatchingSubscribers {
                return id;
            }
            id = task();
            client.publish(START, QoS::AtLeastOnce, false, id.clone()).await.unwrap();
        }
    };
    tokio::time::timeout(PATIENCE, asking).await.expect("the table to give up its topics")
}

/// With a broker elsewhere, which keeps our session: killed, started again, and cut off while starts are under way.
async fn killed_before_a_broker_elsewhere(protocol: u8) {
    let (site, acknowledged) = (Site::new().await, Acknowledged::default());
    let broker = Running::start(|_| ());
    let port = broker.address.port();
    let choice =
        format!("{{broker: external, brokerHost: 127.0.0.1, brokerPort: {port}, protocol: {protocol}, clientId: us}}");
    site.configure(&format!("  mqttConfig: {choice}\n"), "");
    let file = site.dir.0.join("butler.yaml");
    let file = file.to_str().unwrap();
    for round in 0..4 {
        site.qrs.set(if round % 2 == 0 { Mode::Slow } else { Mode::Well });
        let app = App::run_at(&site.dir, &app::FREE_PORTS[2..], &["-c", file]).await;
        until_subscribed(&broker).await;
        Site::watcher(port).await.leave().await;
        let mut publishers = JoinSet::new();
        for (at, qos) in [QoS::AtLeastOnce, QoS::ExactlyOnce].into_iter().enumerate() {
            publishers.spawn(publish(port, format!("plc-{at}"), qos, 0, acknowledged.clone()));
        }
        acknowledged.reaches(acknowledged.all().len() + 100).await;
        if round == 1 {
            // Only the connection ends; the program goes on with what it has, and makes another.
            broker.handle.desk().disconnect(ClientId::new("us").unwrap(), false).await.unwrap();
            acknowledged.reaches(acknowledged.all().len() + 100).await;
        }
        drop(app);
        publishers.abort_all();
        while publishers.join_next().await.is_some() {}
    }
    site.qrs.set(Mode::Well);
    let app = App::run_at(&site.dir, &app::FREE_PORTS[2..], &["-c", file]).await;
    let all = acknowledged.all();
    site.sees(&all, port).await;
    assert!(all.len() > 400, "only {} starts acknowledged: no trial", all.len());
    app.stop().await;
    broker.stop().await;
}

async fn until_subscribed(broker: &Running) {
    let subscribed = async {
        loop {
            let found = broker.handle.desk().subscriptions(None, PageAsk { limit: 100, from: None }).await.unwrap();
            if found.rows.iter().any(|row| row.filter.as_str() == START) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, subscribed).await.expect("the subscription of the table");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_a_broker_elsewhere_in_mqtt_3() {
    killed_before_a_broker_elsewhere(3).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_before_a_broker_elsewhere_in_mqtt_5() {
    killed_before_a_broker_elsewhere(5).await;
}
