//! Publishing by REST under `kill -9`: what was answered as stored reaches its subscriber, and a key that was used is still known.
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
#[path = "support/mqtt.rs"]
mod mqtt;

use std::{collections::HashMap, time::Duration};

use app::{App, Dir, try_http};
use mqtt::Client;
use rumqttc::{MqttOptions, QoS};
use serde_json::{Value, json};

const PATH: &str = "/api/v1/publish";
const TOPIC: &str = "plant/orders";

/// A client whose session is kept.
fn kept(port: u16) -> MqttOptions {
    let mut options = mqtt::options(port, "orders");
    options.set_clean_session(false);
    options
}

fn body(text: &str) -> String {
    json!({"topic": TOPIC, "payload": text, "durability": "stored"}).to_string()
}

/// One request with a key; `None` when the program was gone before it had answered.
async fn publish(port: u16, key: &str, text: &str) -> Option<(u16, Value)> {
    let headers = [("idempotency-key", key)];
    let (status, answer) = try_http(port, "POST", PATH, &headers, &body(text)).await.ok()?;
    Some((status, serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{status} {error}: {answer}"))))
}

/// Publishes one after the other until the program is gone: key, text, and the answer if there was one.
async fn work(port: u16, name: String) -> Vec<(String, String, Option<Value>)> {
    let mut done = Vec::new();
    loop {
        let key = format!("{name} {}", done.len());
        let answer = publish(port, &key, &key).await;
        let gone = answer.is_none();
        if let Some((status, body)) = &answer {
            assert_eq!((*status, &body["stored"]), (200, &json!(1)), "{body}");
        }
        done.push((key.clone(), key, answer.map(|(_, body)| body)));
        if gone {
            return done;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_a_stored_message_is_delivered_and_a_used_key_is_known() {
    const WORKERS: usize = 6;
    const ROUNDS: usize = 5;
    let dir = Dir::new();
    let mut all: Vec<(String, String, Option<Value>)> = Vec::new();
    let app = App::run(&dir, &["--data", "data"]).await;
    let (mut client, _) = Client::open(kept(app.mqtt().await)).await.unwrap();
    client.subscribe("plant/#", QoS::AtLeastOnce).await;
    drop(client);
    let mut app = app;
    for round in 0..ROUNDS {
        let port = app.rest().await;
        let workers: Vec<_> =
            (0..WORKERS).map(|worker| tokio::spawn(work(port, format!("r{round} w{worker}")))).collect();
        // The moment of the kill is any; it is later from round to round.
        let published = "sense_butler_idempotency_requests_total{known=\"new\"} ";
        loop {
            let (_, metrics) = app.get("/metrics").await;
            let count =
                metrics.split_once(published).and_then(|(_, rest)| rest.split_once('\n')?.0.parse::<usize>().ok());
            if count.is_some_and(|count| count >= 20 + 15 * round) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        app.signal("KILL");
        for one in workers {
            all.extend(one.await.unwrap());
        }
        drop(app.ended().await);
        app = App::run(&dir, &["--data", "data"]).await;
    }
    let port = app.rest().await;
    let (mut answered, mut unknown, mut tried_anew, mut certain) = (0, 0, 0, Vec::new());
    for (key, text, before) in &all {
        let (status, now) = publish(port, key, text).await.unwrap();
        match (before, status) {
            (Some(before), 200) => {
                assert_eq!(now, *before, "{key}: the first answer again");
                answered += 1;
            }
            (None, 409) => {
                assert_eq!(now["error"]["code"], "outcome_unknown", "{key}");
                unknown += 1;
            }
            // The kill was before the key was on disk, or after the answer was.
            (None, 200) => {
                tried_anew += 1;
                certain.push(key);
            }
            _ => panic!("{key}: {before:?}, now {status} {now}"),
        }
        if before.is_some() {
            let (status, other) = publish(port, key, "other").await.unwrap();
            assert_eq!((status, &other["error"]["code"]), (422, &json!("idempotency_key_reused")), "{key}");
        }
    }
    let (mut client, present) = Client::open(kept(app.mqtt().await)).await.unwrap();
    assert!(present);
    let end = publish(port, "end", "end").await.unwrap();
    assert_eq!(end.0, 200, "{end:?}");
    let mut arrived: HashMap<String, usize> = HashMap::new();
    loop {
        let got = client.next().await;
        let text = String::from_utf8(got.payload.to_vec()).unwrap();
        if text == "end" {
            break;
        }
        *arrived.entry(text).or_default() += 1;
    }
    for (key, text, before) in &all {
        let times = arrived.get(text).copied().unwrap_or(0);
        let expected = if before.is_some() || certain.contains(&key) { 1..=1 } else { 0..=1 };
        assert!(expected.contains(&times), "{key} arrived {times} times, answered: {before:?}");
    }
    assert!(!arrived.contains_key("other"));
    println!("{answered} answered, {unknown} unknown, {tried_anew} anew");
    assert_eq!(unknown + tried_anew, ROUNDS * WORKERS);
    assert!(answered > 100, "{answered}");
    app.stop().await;
}
