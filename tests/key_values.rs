//! The key-value store of the real program: over restarts, under `kill -9`, with one owner of its file.
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

use std::{collections::BTreeMap, fs, time::Duration};

use app::{App, Dir, FREE_PORTS, assert_refused, http};
use serde_json::{Value, json};

const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

async fn post(app: &App, namespace: &str, body: &Value) -> (u16, String) {
    app.call("POST", &format!("/v4/keyvalues/{namespace}"), &JSON, &body.to_string()).await
}

#[cfg(unix)]
#[tokio::test]
async fn pairs_outlive_the_program_and_their_time_goes_on_without_it() {
    let dir = Dir::new();
    let app = App::run(&dir, &["--data", "data"]).await;
    assert_eq!(app.json("/v4/keyvaluesnamespaces").await, json!([]));
    let stored = post(&app, "n%C3%A5%20s", &json!({"key": "ä", "value": "ö \"x\""})).await;
    assert_eq!(stored, (201, r#"{"namespace":"nå s","key":"ä","value":"ö \"x\"","ttl":0}"#.into()));
    assert_eq!(post(&app, "n", &json!({"key": "z", "value": 7})).await.0, 201);
    assert_eq!(post(&app, "n", &json!({"key": "long", "value": "v", "ttl": 3_600_000})).await.0, 201);
    assert_eq!(post(&app, "n", &json!({"key": "short", "value": "v", "ttl": 1})).await.0, 201);
    assert_eq!(post(&app, "n", &json!({"key": "a", "value": ""})).await.0, 201);
    assert_eq!(app.call("DELETE", "/v4/keyvalues/n/z", &[], "").await, (204, String::new()));
    app.stop().await;
    let app = App::run(&dir, &["--data", "data"]).await;
    assert_eq!(app.json("/v4/keyvaluesnamespaces").await, json!(["nå s", "n"]));
    assert_eq!(app.json("/v4/keylist/n").await, json!({"namespace": "n", "keys": [{"key": "long"}, {"key": "a"}]}));
    let found = app.json("/v4/keyvalues/n%C3%A5%20s?key=%C3%A4").await;
    assert_eq!(found, json!({"namespace": "nå s", "key": "ä", "value": "ö \"x\""}));
    assert_eq!(app.json("/v4/keyvalues/n/keyexists?key=short").await, json!({"keyExists": false, "keyValue": {}}));
    let ready = app.json("/readyz").await;
    assert!(ready.to_string().contains("sense.redb"), "{ready}");
    let deleted = app.call("POST", "/v4/keyvalues/n", &[("x-http-method-override", "DELETE")], "").await;
    assert_eq!(deleted, (204, String::new()));
    assert_eq!(app.json("/v4/keyvaluesnamespaces").await, json!(["nå s"]));
    app.stop().await;
}

#[cfg(unix)]
#[tokio::test]
async fn what_is_not_to_last_does_not_and_a_switch_takes_the_routes_away() {
    let dir = Dir::new();
    let passing = dir.write("passing.yaml", "Butler:\n  keyValueStore: {durable: false, maxKeysPerNamespace: 1}\n");
    let arguments = ["--data", "data", "--config", passing.to_str().unwrap()];
    let app = App::run(&dir, &arguments).await;
    assert_eq!(post(&app, "n", &json!({"key": "a", "value": "1"})).await.0, 201);
    let (status, full) = post(&app, "n", &json!({"key": "b", "value": "2"})).await;
    assert!(status == 507 && full.contains("keyValueStore.maxKeysPerNamespace (1)"), "{status} {full}");
    app.stop().await;
    let app = App::run(&dir, &arguments).await;
    assert_eq!(app.json("/v4/keyvaluesnamespaces").await, json!([]));
    app.stop().await;
    let off = dir.write("off.yaml", "Butler:\n  restServerEndpointsEnable: {keyValueStore: false}\n");
    let app = App::run(&dir, &["--data", "data", "--config", off.to_str().unwrap()]).await;
    for path in ["/v4/keyvaluesnamespaces", "/v4/keylist/n", "/v4/keyvalues/n?key=a", "/v4/keyvalues/n/keyexists?key=a"]
    {
        assert_eq!(app.get(path).await.0, 404, "{path}");
    }
    let listed = app.json("/v4/configfile/endpointsenabled").await;
    assert!(!listed.as_array().unwrap().contains(&json!("keyValueStore")), "{listed}");
    let item = json!([{"type": "keyvaluestore", "payload": {"namespace": "n", "key": "a", "value": "1"}}]);
    let (status, refused) = app.put("/v4/reloadtask/-/start", &item.to_string()).await;
    assert!(status == 400 && refused.contains("restServerEndpointsEnable.keyValueStore"), "{status} {refused}");
    app.stop().await;
}

/// Puts one number after the other under a key of its own until the program is gone; the last number that was said to be stored, and the
/// first that was not.
async fn count(port: u16, worker: usize, from: u64) -> (u64, u64) {
    let (path, mut number) = (format!("/v4/keyvalues/w{worker}"), from);
    loop {
        let body = json!({"key": "number", "value": (number + 1).to_string()}).to_string();
        let (path, body) = (path.clone(), body.clone());
        // A connection that breaks is the end: `http` says so by a panic.
        match tokio::spawn(async move { http(port, "POST", &path, &JSON, &body).await.0 }).await {
            Ok(201) => number += 1,
            Ok(other) => panic!("{other}"),
            Err(_) => return (number, number + 1),
        }
    }
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_any_moment_nothing_that_was_acknowledged_is_lost() {
    const WORKERS: usize = 8;
    let dir = Dir::new();
    let mut stored: BTreeMap<usize, (u64, u64)> = BTreeMap::new();
    let mut rounds = 0;
    for round in 0..6_u64 {
        let app = App::run(&dir, &["--data", "data"]).await;
        let port = app.rest().await;
        for (worker, (least, most)) in &mut stored {
            let found = app.json(&format!("/v4/keyvalues/w{worker}?key=number")).await;
            let number: u64 = found["value"].as_str().unwrap().parse().unwrap();
            assert!(
                (*least..=*most).contains(&number),
                "round {round}, worker {worker}: {number}, not {least} to {most}"
            );
            *least = number;
        }
        let workers: Vec<_> = (0..WORKERS)
            .map(|worker| tokio::spawn(count(port, worker, stored.get(&worker).map_or(0, |(least, _)| *least))))
            .collect();
        // Until the work is well under way; the moment of the kill is any.
        let enough = stored.get(&0).map_or(0, |(least, _)| *least) + 5 + round * 3;
        loop {
            let found = app.json("/v4/keyvalues/w0/keyexists?key=number").await;
            if found["keyValue"]["value"].as_str().is_some_and(|number| number.parse::<u64>().unwrap() >= enough) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        app.signal("KILL");
        for (worker, ended) in workers.into_iter().enumerate() {
            stored.insert(worker, ended.await.unwrap());
        }
        drop(app.ended().await);
        rounds += 1;
    }
    assert_eq!((rounds, stored.len()), (6, WORKERS));
    assert!(stored.values().map(|(least, _)| least).sum::<u64>() > 100, "{stored:?}");
}

#[cfg(unix)]
#[tokio::test]
async fn a_data_directory_has_one_program() {
    let dir = Dir::new();
    // With a broker elsewhere there is no other store in the directory.
    let file =
        dir.write("butler.yaml", "Butler:\n  mqttConfig: {broker: external, brokerHost: 127.0.0.1, brokerPort: 1}\n");
    let arguments = ["--data", "data", "--config", file.to_str().unwrap()];
    let mut ports = FREE_PORTS.to_vec();
    ports.drain(..2);
    let mut app = App::start(&dir, &[&["run"], ports.as_slice(), &arguments].concat());
    app.wait_until_ready().await;
    let words = ["sense.redb", "another sense-butler", "--data"];
    assert_refused(&dir, &[&["run"], ports.as_slice(), &arguments].concat(), 1, &words);
    assert_eq!(post(&app, "n", &json!({"key": "a", "value": "1"})).await.0, 201, "the first one goes on");
    app.stop().await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_is_no_database_is_set_aside_and_said() {
    let dir = Dir::new();
    dir.write("data/sense.redb", "no database");
    let app = App::run(&dir, &["--data", "data"]).await;
    app.printed(|text| text.contains("it was set aside as").then_some(())).await;
    assert_eq!(post(&app, "n", &json!({"key": "a", "value": "1"})).await.0, 201);
    let parts = loop {
        let ready = app.json("/readyz").await.to_string();
        if ready.contains("set aside as") {
            break ready;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(parts.contains("sense.redb.bad-"), "{parts}");
    app.stop().await;
    let names: Vec<_> = fs::read_dir(dir.0.join("data")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    let aside = names.iter().find(|name| name.to_str().unwrap().starts_with("sense.redb.bad-"));
    assert_eq!(fs::read_to_string(dir.0.join("data").join(aside.unwrap())).unwrap(), "no database");
}
