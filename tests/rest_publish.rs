//! `POST /api/v1/publish` and `/api/v1/publish/bulk` from outside: what arrives at subscribers, what is answered, what a key remembers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod rest_support;
mod support;

use std::time::Duration;

use rest_support::{Client, Reply, Word, settings, start, start_with};
use sense_butler::{
    broker::settings::{Action, Rule, TopicPattern},
    bus::{Bus, Door, PublishError, embedded::Embedded},
    config::settings::{Generation, RestSettings},
    names::{QoS, TopicFilter},
};
use serde_json::{Value, json};
use support::{
    raw::{Got, Hello, Raw},
    running::Running,
};

const ONE: &str = "/api/v1/publish";
const BULK: &str = "/api/v1/publish/bulk";

/// A broker and a REST server in this process.
struct House {
    broker: Running,
    rest: rest_support::Running,
}

impl House {
    fn start() -> Self {
        Self::with(Vec::new(), settings())
    }

    fn with(access: Vec<Rule>, rest: RestSettings) -> Self {
        let broker = Running::start(|settings| {
            settings.access = access;
            settings.limits.packet_size = 2_000;
        });
        let handle = broker.handle.clone();
        let rest = start_with(Generation::Head, rest, |setup| {
            setup.bus = Bus::new(Embedded::new(handle, Door::Rest));
            setup.protected_topics = vec![TopicFilter::new("q/own/#").unwrap()];
        });
        Self { broker, rest }
    }

    /// A client that listens to everything with QoS 2.
    async fn listener(&self, id: &str) -> Raw {
        let (mut raw, _) = Raw::connect(self.broker.address, &Hello::v5(id)).await;
        assert_eq!(raw.subscribe("#", 2).await, 2);
        raw
    }

    async fn post(&self, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        self.rest.connect().await.send("POST", path, headers, Some(body)).await
    }

    async fn json(&self, path: &str, body: &Value) -> Reply {
        self.post(path, &[("content-type", "application/json")], body.to_string().as_bytes()).await
    }

    async fn stop(self) {
        self.rest.stop.cancel();
        self.rest.task.await.unwrap();
        self.broker.stop().await;
    }
}

/// The next message; QoS 1 is acknowledged.
async fn next(raw: &mut Raw) -> Got {
    let got = raw.receive_publish().await;
    if got.qos == 1 {
        raw.ack(0x40, got.id).await;
    }
    got
}

fn code(reply: &Reply) -> (u16, String) {
    let body = reply.json();
    assert!(body["error"]["request_id"].is_string(), "{body}");
    (reply.status, body["error"]["code"].as_str().unwrap().to_owned())
}

fn message(topic: &str, payload: &str) -> Value {
    json!({"topic": topic, "payload": payload})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_arrives_as_it_was_asked_for_in_each_of_the_three_forms() {
    let house = House::start();
    let mut listener = house.listener("l").await;
    let body = json!({
        "topic": "plant/ä", "payload": "a \"quoted\"\nline \\ 'x'", "qos": 1, "retain": true,
        "properties": {"content_type": "text/plain", "payload_format_indicator": 1, "user_properties": {"n": "v"}},
    });
    let reply = house.json(ONE, &body).await;
    assert_eq!((reply.status, reply.header("content-type")), (200, Some("application/json; charset=utf-8")));
    assert_eq!(reply.header("cache-control"), Some("no-store"));
    let answer = reply.json();
    assert_eq!(answer.as_object().unwrap().keys().collect::<Vec<_>>(), ["id"]);
    assert!(answer["id"].as_str().unwrap().len() == 32, "{answer}");
    let form =
        b"topic=plant%2F%C3%A4&payload=a+%22quoted%22%0Aline+%5C+%27x%27&qos=1&retain=true&content_type=text%2Fplain&\
        payload_format_indicator=1&user_properties.n=v";
    let kind = [("content-type", "application/x-www-form-urlencoded")];
    assert_eq!(house.post(ONE, &kind, form).await.status, 200);
    let query =
        "?topic=plant%2F%C3%A4&qos=1&retain=1&content_type=text%2Fplain&payload_format_indicator=1&user_properties.n=v";
    let raw = "a \"quoted\"\nline \\ 'x'".as_bytes();
    assert_eq!(house.post(&format!("{ONE}{query}"), &[], raw).await.status, 200);
    for form in ["json", "form", "raw"] {
        let got = next(&mut listener).await;
        assert_eq!((got.topic.as_str(), &got.payload[..], got.qos), ("plant/ä", raw, 1), "{form}");
        assert_eq!(got.properties, b"\x01\x01\x03\x00\x0atext/plain\x26\x00\x01n\x00\x01v", "{form}");
    }
    let bytes = json!({"topic": "b", "payload": "/wA=", "payload_encoding": "base64"});
    assert_eq!(house.json(ONE, &bytes).await.status, 200);
    assert_eq!(next(&mut listener).await.payload, b"\xff\x00");
    let mut late = house.listener("late").await;
    let retained = next(&mut late).await;
    assert_eq!((retained.topic.as_str(), retained.retain, &retained.payload[..]), ("plant/ä", true, raw));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_listening_is_a_202_and_stored_counts_the_sessions_that_keep_it() {
    let house = House::start();
    let reply = house.json(ONE, &message("a", "x")).await;
    let body = reply.json();
    assert_eq!(
        (reply.status, &body["reason_code"], &body["message"]),
        (202, &json!(16), &json!("no_matching_subscribers"))
    );
    let stored = |topic: &str| json!({"topic": topic, "payload": "x", "durability": "stored"});
    assert_eq!(house.json(ONE, &stored("a")).await.json()["stored"], 0);
    for (id, filter, qos) in [("k1", "a/#", 1), ("k2", "a/b", 2), ("k3", "a/b", 0)] {
        let (mut raw, _) = Raw::connect(house.broker.address, &Hello::v5(id).kept()).await;
        assert_eq!(raw.subscribe(filter, qos).await, qos);
    }
    let mut passing = house.listener("passing").await;
    let reply = house.json(ONE, &stored("a/b")).await;
    assert_eq!(
        (reply.status, &reply.json()["stored"]),
        (200, &json!(2)),
        "not the one with QoS 0, nor the one that passes"
    );
    assert_eq!(next(&mut passing).await.qos, 1, "stored is at least QoS 1");
    let routed = house.json(ONE, &message("a/b", "x")).await.json();
    assert_eq!(routed["stored"], Value::Null);
    assert_eq!(next(&mut passing).await.qos, 0, "routed is QoS 0 unless it says otherwise");
    let row =
        json!([stored("a/b"), message("a/c", "x"), {"topic": "a/c", "payload": "x", "durability": "routed", "qos": 1}]);
    let rows = house.json(&format!("{BULK}?durability=stored"), &row).await;
    let counts: Vec<_> = rows.json().as_array().unwrap().iter().map(|one| one["stored"].clone()).collect();
    assert_eq!((rows.status, counts), (200, vec![json!(2), json!(1), Value::Null]));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bulk_is_answered_in_order_or_refused_as_a_whole() {
    let house = House::start();
    let mut listener = house.listener("l").await;
    let (mut other, _) = Raw::connect(house.broker.address, &Hello::v5("o")).await;
    assert_eq!(other.subscribe("n/#", 0).await, 0);
    let row: Vec<_> = (0..1_000)
        .map(|number| json!({"topic": format!("n/{number}"), "payload": number.to_string(), "qos": number % 2}))
        .collect();
    let reply = house.json(BULK, &Value::from(row)).await;
    let ids: Vec<String> =
        reply.json().as_array().unwrap().iter().map(|one| one["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!((reply.status, ids.len()), (200, 1_000));
    assert!(ids.is_sorted(), "in the order of the request");
    for number in 0..1_000 {
        let got = next(&mut listener).await;
        assert_eq!((got.topic, got.payload), (format!("n/{number}"), number.to_string().into_bytes()));
    }
    let large = "x".repeat(2_000);
    let mut ran = 0;
    for (wrong, status, expected) in [
        (json!([]), 400, "missing_value"),
        (json!({}), 400, "invalid_value"),
        (json!([message("n/a", "x"), message("n/+", "x")]), 400, "bad_topic"),
        (json!([message("n/a", "x"), {"topic": "n/b"}]), 400, "missing_value"),
        (json!([message("n/a", "x"), {"topic": "n/b", "payload": "x", "qos": 3}]), 400, "invalid_value"),
        (json!([message("n/a", "x"), message("q/own/state", "x")]), 403, "forbidden"),
        (json!([message("n/a", "x"), message("n/b", &large)]), 413, "message_too_large"),
        (json!([{"topic": "n/a", "payload": "x", "key": "k"}]), 400, "invalid_value"),
    ] {
        let reply = house.json(BULK, &wrong).await;
        assert_eq!(code(&reply), (status, expected.to_owned()), "{}", reply.text());
        ran += 1;
    }
    assert_eq!(ran, 8);
    let named = house.json(BULK, &json!([message("n/a", "x"), message("n/+", "x")])).await.json();
    assert_eq!(named["error"]["reason_code"], 144);
    assert!(
        named["error"]["message"].as_str().unwrap().starts_with("message 2 of 2, and nothing was published: "),
        "{named}"
    );
    assert_eq!(house.json(ONE, &message("end", "x")).await.status, 200);
    assert_eq!(next(&mut listener).await.topic, "end", "nothing of what was refused was published");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_refused_is_told_with_code_and_reason() {
    let house = House::start();
    let large = message("a", &"x".repeat(2_000));
    let cases = [
        (message("a/#", "x"), 400, "bad_topic", json!(144)),
        (json!({"topic": "a"}), 400, "missing_value", Value::Null),
        (json!({"topic": "a", "payload": "x", "retian": true}), 400, "invalid_value", Value::Null),
        (large, 413, "message_too_large", json!(151)),
        (message("q/own/state", "x"), 403, "forbidden", json!(135)),
    ];
    let mut ran = 0;
    for (body, status, expected, reason) in cases {
        let reply = house.json(ONE, &body).await;
        assert_eq!(code(&reply), (status, expected.to_owned()), "{}", reply.text());
        assert_eq!(reply.json()["error"]["reason_code"], reason, "{}", reply.text());
        ran += 1;
    }
    assert_eq!(ran, 5);
    let get = house.rest.get(ONE).await;
    assert_eq!((get.status, get.header("allow")), (405, Some("POST")));
    house.stop().await;
}

#[tokio::test]
async fn what_the_broker_cannot_take() {
    let server = start(Generation::Head, settings());
    let cases = [
        (PublishError::Unavailable("away".into()), 503, "broker_unavailable", json!(131)),
        (PublishError::Timeout(Duration::from_secs(5)), 503, "broker_unavailable", json!(131)),
        (PublishError::Full("no room".into()), 507, "store_full", json!(151)),
    ];
    let mut ran = 0;
    for (error, status, expected, reason) in cases {
        server.broker.says(Word::Refuse(error));
        let body = message("a", "x").to_string();
        let reply = server.connect().await.send("POST", ONE, &[], Some(body.as_bytes())).await;
        assert_eq!((code(&reply), &reply.json()["error"]["reason_code"]), ((status, expected.to_owned()), &reason));
        assert_eq!(reply.header("retry-after"), (status == 503).then_some("1"));
        let row = json!([message("a", "x"), message("b", "y")]).to_string();
        let reply = server.connect().await.send("POST", BULK, &[], Some(row.as_bytes())).await;
        let errors = reply.json();
        assert_eq!(
            (reply.status, &errors[0]["error"]["code"]),
            (503, &json!(expected)),
            "the second one was not tried"
        );
        assert_eq!(errors[1]["error"]["code"], "broker_unavailable");
        ran += 1;
    }
    assert_eq!((ran, server.broker.take().len()), (3, 0));
}

#[tokio::test]
async fn soft_answers_are_always_200_with_the_same_four_fields() {
    let rest = RestSettings { max_body: 1_000, ..settings() };
    let server = start(Generation::Head, rest);
    let body = message("a", "x").to_string();
    let mut ran = 0;
    let large = "x".repeat(2_000);
    for (path, word, body, headers, status) in [
        (ONE, Word::Take, &*body, vec![], 200),
        (ONE, Word::Refuse(PublishError::Unavailable("away".into())), &*body, vec![], 503),
        (ONE, Word::Take, "no JSON", vec![], 400),
        (ONE, Word::Take, &*large, vec![], 413),
        (ONE, Word::Take, &*body, vec![("origin", "http://evil.example")], 403),
        (ONE, Word::Take, &*body, vec![("x-http-method-override", "DELETE")], 405),
        (BULK, Word::Take, "[]", vec![], 400),
        (BULK, Word::Take, r#"[{"topic":"a","payload":"b"}]"#, vec![], 200),
        (ONE, Word::Panic, &*body, vec![], 500),
    ] {
        server.broker.says(word);
        let reply =
            server.connect().await.send("POST", &format!("{path}?soft=1"), &headers, Some(body.as_bytes())).await;
        let answer = reply.json();
        assert_eq!(reply.status, 200, "{answer}");
        assert_eq!(answer.as_object().unwrap().keys().collect::<Vec<_>>(), ["ok", "status", "error", "id"]);
        assert_eq!((&answer["ok"], &answer["status"]), (&json!(status == 200), &json!(status)), "{answer}");
        assert_eq!(answer["id"].as_str().unwrap().is_empty(), status != 200, "{answer}");
        assert_eq!(answer["error"].as_str().unwrap().is_empty(), status == 200, "{answer}");
        ran += 1;
    }
    assert_eq!(ran, 9);
    server.broker.says(Word::Take);
    let raw = server.connect().await.send("POST", "/api/v1/publish?topic=a&soft=1", &[], Some(b"x")).await;
    assert_eq!(raw.json()["ok"], true);
    for method in ["GET", "PUT", "TRACE"] {
        let other = server.connect().await.send(method, &format!("{ONE}?soft=1"), &[], None).await;
        assert_eq!((other.status, other.header("allow")), (405, Some("POST")), "{method}: {}", other.text());
    }
    let hard = server.connect().await.send("POST", &format!("{ONE}?soft=0"), &[], Some(b"no JSON")).await;
    assert_eq!(hard.status, 400);
    let metrics = server.get("/metrics").await;
    let counted = "sense_butler_rest_requests_total{route=\"publish\",status=\"413\"} 1\n";
    assert!(metrics.text().contains(counted), "metrics tell the truth: {}", metrics.text());
}

#[tokio::test]
async fn who_publishes_too_fast_is_told_when_to_come_back() {
    let rest = RestSettings { publish_per_second: Some(2), ..settings() };
    let server = start(Generation::Head, rest);
    let row = json!([message("a", "x"), message("b", "y")]).to_string();
    let send =
        async |path: &str, body: &str| server.connect().await.send("POST", path, &[], Some(body.as_bytes())).await;
    assert_eq!(send(BULK, &row).await.status, 200);
    let reply = send(BULK, &row).await;
    assert_eq!((code(&reply), reply.header("retry-after")), ((429, "rate_limited".to_owned()), Some("1")));
    assert_eq!(reply.json()["error"]["reason_code"], 150);
    let butler = server.put("/v4/mqttpublishmessage", r#"{"topic":"a","message":"b"}"#).await;
    assert!(matches!(butler.status, 201 | 429), "{}", butler.text());
}

async fn keyed(client: &mut Client, path: &str, key: &str, body: &str) -> Reply {
    client.send("POST", path, &[("idempotency-key", key)], Some(body.as_bytes())).await
}

#[tokio::test]
async fn the_same_key_gets_the_first_answer_again() {
    let server = start(Generation::Head, settings());
    let mut client = server.connect().await;
    let body = message("a", "x").to_string();
    let first = keyed(&mut client, ONE, "k", &body).await;
    assert_eq!((first.status, first.header("idempotent-replayed")), (200, None));
    let again = keyed(&mut client, ONE, "k", &body).await;
    assert_eq!((again.status, again.text(), again.header("idempotent-replayed")), (200, first.text(), Some("true")));
    let otherwise = r#" {"payload":"x", "qos":0, "key":"k", "topic":"a"}"#;
    assert_eq!(
        client.send("POST", ONE, &[], Some(otherwise.as_bytes())).await.text(),
        first.text(),
        "the same message"
    );
    let raw = client.send("POST", "/api/v1/publish?topic=a&key=k", &[], Some(b"x")).await;
    assert_eq!(raw.text(), first.text());
    let soft = keyed(&mut client, "/api/v1/publish?soft=1", "k", &body).await;
    assert_eq!(soft.json()["id"], first.json()["id"]);
    assert_eq!(server.broker.take().len(), 1, "published once");
    for other in [message("a", "y"), message("b", "x"), json!({"topic": "a", "payload": "x", "durability": "stored"})] {
        let reply = keyed(&mut client, ONE, "k", &other.to_string()).await;
        assert_eq!(code(&reply), (422, "idempotency_key_reused".into()));
    }
    let reply = keyed(&mut client, BULK, "k", &json!([message("a", "x")]).to_string()).await;
    assert_eq!(code(&reply), (422, "idempotency_key_reused".into()), "a bulk is another request");
    let row = json!([message("a", "x"), message("b", "y")]).to_string();
    let first = keyed(&mut client, BULK, "row", &row).await;
    let again = keyed(&mut client, BULK, "row", &row).await;
    assert_eq!((again.text(), again.header("idempotent-replayed")), (first.text(), Some("true")));
    assert_eq!(server.broker.take().len(), 2);
    let long = "k".repeat(256);
    for (key, body) in [("", &*body), (&*long, &*body), ("k", otherwise.replace("\"k\"", "\"l\"").as_str())] {
        assert_eq!(code(&keyed(&mut client, ONE, key, body).await), (400, "bad_idempotency_key".into()));
    }
    assert_eq!(server.broker.take().len(), 0);
}

#[tokio::test]
async fn what_published_nothing_may_be_tried_again_and_what_is_unknown_may_not() {
    let server = start(Generation::Head, settings());
    let mut client = server.connect().await;
    let body = message("a", "x").to_string();
    server.broker.says(Word::Refuse(PublishError::Unavailable("away".into())));
    assert_eq!(keyed(&mut client, ONE, "k", &body).await.status, 503);
    server.broker.says(Word::Take);
    let reply = keyed(&mut client, ONE, "k", &body).await;
    assert_eq!((reply.status, reply.header("idempotent-replayed")), (200, None));
    server.broker.says(Word::Refuse(PublishError::Timeout(Duration::from_secs(5))));
    assert_eq!(keyed(&mut client, ONE, "late", &body).await.status, 503);
    server.broker.says(Word::Take);
    assert_eq!(code(&keyed(&mut client, ONE, "late", &body).await), (409, "outcome_unknown".into()));
    assert_eq!(server.broker.take().len(), 1);
    assert_eq!(code(&keyed(&mut client, ONE, "wrong", "{}").await).0, 400);
    assert_eq!(keyed(&mut client, ONE, "wrong", &body).await.status, 200, "what could not be read used no key");
}

#[tokio::test]
async fn of_several_at_once_one_publishes_and_the_others_hear_it_also_when_the_first_hangs_up() {
    let server = start(Generation::Head, settings());
    server.broker.says(Word::Silence);
    let body = message("a", "x").to_string();
    let mut first = server.connect().await;
    let head = format!(
        "POST {ONE} HTTP/1.1\r\nhost: localhost\r\nidempotency-key: k\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    first.raw(head.as_bytes()).await;
    while server.broker.published.lock().unwrap().is_empty() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    drop(first);
    let mut waiting = Vec::new();
    for _ in 0..5 {
        let (mut client, body) = (server.connect().await, body.clone());
        waiting.push(tokio::spawn(async move { keyed(&mut client, ONE, "k", &body).await }));
    }
    // The metrics tell when all of them were read; none of them publishes.
    while !server.get("/metrics").await.text().contains("sense_butler_rest_connections 6\n") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    server.broker.release();
    let mut texts = Vec::new();
    for one in waiting {
        let reply = one.await.unwrap();
        assert_eq!((reply.status, reply.header("idempotent-replayed")), (200, Some("true")));
        texts.push(reply.text().to_owned());
    }
    assert!(texts.iter().all(|text| *text == texts[0]), "{texts:?}");
    assert_eq!(server.broker.take().len(), 1);
}

fn rule(allow: bool, action: Action, topic: &str) -> Rule {
    Rule {
        allow,
        actions: [action].into_iter().collect(),
        users: None,
        groups: None,
        clients: None,
        listeners: None,
        topics: vec![TopicPattern::new(topic).unwrap()],
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn access_rules_for_everybody_hold_by_rest_too_and_follow_a_reload() {
    let of_users = Rule { users: Some(vec!["anna".into()]), ..rule(true, Action::Publish, "m/anna") };
    let rules = vec![
        of_users,
        rule(true, Action::Publish, "m/open"),
        rule(false, Action::Publish, "m/#"),
        rule(false, Action::Start, "#"),
    ];
    let house = House::with(rules, settings());
    let butler = json!({"topic": "m/x", "message": "x"}).to_string();
    let mut ran = 0;
    for (topic, status) in [("m/open", 202), ("m/x", 403), ("m/anna", 403), ("n", 202), ("q/start", 403)] {
        let reply = house.json(ONE, &message(topic, "x")).await;
        assert_eq!(reply.status, status, "{topic}: {}", reply.text());
        assert_eq!(reply.json()["error"]["reason_code"], if status == 403 { json!(135) } else { Value::Null });
        ran += 1;
    }
    assert_eq!(ran, 5);
    assert_eq!(house.rest.put("/v4/mqttpublishmessage", &butler).await.status, 403);
    let mut changed = Running::settings();
    changed.access = vec![rule(false, Action::Publish, "n")];
    house.broker.handle.reload(&changed);
    assert_eq!(house.json(ONE, &message("m/x", "x")).await.status, 202);
    assert_eq!(house.json(ONE, &message("n", "x")).await.status, 403);
    assert_eq!(house.rest.put("/v4/mqttpublishmessage", &butler).await.status, 201);
    house.stop().await;
}

#[tokio::test]
async fn a_start_message_by_this_door_names_who_asked_and_is_kept() {
    let server = start(Generation::Head, settings());
    let body = message("qliksense/start_task", "0000aaaa-0000-4000-8000-000000000001").to_string();
    assert_eq!(server.connect().await.send("POST", ONE, &[], Some(body.as_bytes())).await.status, 200);
    let published = server.broker.take();
    let origin = published[0].origin.clone().unwrap();
    assert_eq!(
        (origin.door, origin.user.as_deref(), published[0].qos),
        (Door::Rest, Some("127.0.0.1"), QoS::AtLeastOnce)
    );
}

#[tokio::test]
async fn the_routes_have_a_switch() {
    let mut rest = settings();
    rest.endpoints.publish = false;
    let server = start(Generation::Head, rest);
    for path in [ONE, BULK] {
        assert_eq!(code(&server.connect().await.send("POST", path, &[], Some(b"{}")).await), (404, "not_found".into()));
    }
    assert_eq!(server.put("/v4/mqttpublishmessage", r#"{"topic":"a","message":"b"}"#).await.status, 201);
}
