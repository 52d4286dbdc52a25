//! The REST API from outside, over real sockets, with a broker double: resources, doors, methods.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod rest_support;

use std::time::Duration;

use rest_support::{Word, settings, start, start_with};
use sense_butler::{
    bus::{Door, PublishError},
    config::settings::{Generation, RestSettings},
    names::{QoS, TopicFilter},
};
use serde_json::json;

const PUBLISH: &str = "/v4/mqttpublishmessage";
const START: &str = "/v4/reloadtask/0000aaaa-0000-4000-8000-000000000001/start";
const HELLO: &str = r#"{"topic":"lab/t1","message":"hello"}"#;

#[tokio::test]
async fn a_publish_reaches_the_broker_and_is_echoed() {
    for (generation, status) in [(Generation::V5_4, 200), (Generation::Head, 201)] {
        let server = start(generation, settings());
        let reply = server.put(PUBLISH, HELLO).await;
        assert_eq!((reply.status, reply.text()), (status, HELLO));
        assert_eq!(reply.header("content-type"), Some("application/json; charset=utf-8"));
        let published = server.broker.take();
        assert_eq!(published.len(), 1);
        assert_eq!((published[0].topic.as_str(), &published[0].payload[..]), ("lab/t1", &b"hello"[..]));
        let origin = published[0].origin.as_ref().unwrap();
        assert_eq!((origin.door, origin.may_start), (Door::Rest, true));
    }
}

#[tokio::test]
async fn the_answer_waits_for_the_brokers_word() {
    let server = start(Generation::Head, settings());
    server.broker.says(Word::Silence);
    let mut client = server.connect().await;
    let send = client.send("PUT", PUBLISH, &[], Some(HELLO.as_bytes()));
    tokio::pin!(send);
    // Until the broker has the message, then a little longer: there must be no answer.
    while server.broker.published.lock().unwrap().is_empty() {
        assert!(tokio::time::timeout(Duration::from_millis(5), &mut send).await.is_err(), "answered too early");
    }
    assert!(tokio::time::timeout(Duration::from_millis(100), &mut send).await.is_err(), "answered too early");
    server.broker.release();
    assert_eq!(send.await.status, 201);
}

#[tokio::test]
async fn a_broker_that_cannot_take_it_is_a_503() {
    let cases = [
        (PublishError::Unavailable("connection refused".into()), 503),
        (PublishError::Timeout(Duration::from_secs(5)), 503),
        (PublishError::Refused("quota".into()), 503),
        (PublishError::TooLarge { size: 20, limit: 10 }, 413),
    ];
    for (error, status) in cases {
        for (generation, fields) in [
            (Generation::V5_4, vec!["code", "message"]),
            (Generation::Head, vec!["statusCode", "code", "error", "message"]),
        ] {
            let server = start(generation, settings());
            server.broker.says(Word::Refuse(error.clone()));
            let reply = server.put(PUBLISH, HELLO).await;
            assert_eq!(reply.status, status, "{error}");
            let body = reply.json();
            assert_eq!(body.as_object().unwrap().keys().collect::<Vec<_>>(), fields);
            assert_eq!(body["message"], error.to_string());
            assert_eq!(reply.header("retry-after"), (status == 503).then_some("1"));
        }
    }
}

#[tokio::test]
async fn a_panicking_handler_is_answered_and_counted() {
    let server = start(Generation::Head, settings());
    server.broker.says(Word::Panic);
    let mut client = server.connect().await;
    let reply = client.send("PUT", PUBLISH, &[], Some(HELLO.as_bytes())).await;
    assert_eq!(reply.status, 500);
    server.broker.says(Word::Take);
    assert_eq!(client.send("PUT", PUBLISH, &[], Some(HELLO.as_bytes())).await.status, 201, "the connection lives on");
    let metrics = client.send("GET", "/metrics", &[], None).await;
    assert!(metrics.text().contains("sense_butler_rest_handler_panics_total 1\n"), "{}", metrics.text());
}

#[tokio::test]
async fn a_foreign_page_does_nothing() {
    let rest = RestSettings { allowed_origins: vec!["https://sense.example.com".into()], ..settings() };
    let server = start(Generation::Head, rest);
    let own = format!("http://{}", server.address);
    let mut ran = 0;
    for (origin, passes) in [
        ("http://evil.example", false),
        ("null", false),
        ("https://sense.example.com.evil.example", false),
        (own.as_str(), true),
        ("https://sense.example.com", true),
    ] {
        for (path, body) in [(PUBLISH, HELLO), (START, "[]")] {
            let headers = [("origin", origin), ("content-type", "text/plain")];
            let reply = server.connect().await.send("POST", path, &headers, Some(body.as_bytes())).await;
            assert_eq!(reply.status < 300, passes, "{origin} {path}: {reply:?}");
            assert_eq!(reply.status == 403, !passes, "{origin} {path}: {reply:?}");
            let listed = (origin == "https://sense.example.com").then_some(origin);
            assert_eq!(reply.header("access-control-allow-origin"), listed, "{origin}");
            ran += 1;
        }
        let done = server.broker.take().len() + std::mem::take(&mut *server.starts.lock().unwrap()).len();
        assert_eq!(done, if passes { 2 } else { 0 }, "{origin}");
    }
    assert_eq!(ran, 10);
}

#[tokio::test]
async fn a_preflight_of_a_listed_page_is_answered() {
    let rest = RestSettings { allowed_origins: vec!["https://sense.example.com".into()], ..settings() };
    let server = start(Generation::Head, rest);
    let headers = [("origin", "https://sense.example.com"), ("access-control-request-method", "PUT")];
    let reply = server.connect().await.send("OPTIONS", PUBLISH, &headers, None).await;
    assert_eq!((reply.status, reply.body.len()), (204, 0));
    assert_eq!(reply.header("access-control-allow-origin"), Some("https://sense.example.com"));
    assert!(reply.header("access-control-allow-methods").unwrap().contains("PUT"));
    assert!(reply.header("access-control-allow-headers").unwrap().contains("content-type"));
}

#[tokio::test]
async fn host_must_name_this_machine() {
    let server = start(Generation::Head, settings());
    for (host, status) in [("localhost", 201), ("127.0.0.1:1", 201), ("evil.example", 403), ("", 403)] {
        let reply = server.connect().await.send("PUT", PUBLISH, &[("host", host)], Some(HELLO.as_bytes())).await;
        assert_eq!(reply.status, status, "{host}");
    }
    let twice = [("host", "localhost"), ("host", "evil.example")];
    assert_eq!(server.connect().await.send("PUT", PUBLISH, &twice, Some(HELLO.as_bytes())).await.status, 403);
    assert_eq!(server.broker.take().len(), 2);
}

#[tokio::test]
async fn methods() {
    let server = start(Generation::Head, settings());
    let mut client = server.connect().await;
    let mut ran = 0;
    for (method, path, headers, status, allow) in [
        ("GET", "/v4/butlerping", vec![], 200, None),
        ("HEAD", "/v4/butlerping", vec![], 200, None),
        ("POST", "/v4/butlerping", vec![], 405, Some("GET, HEAD")),
        ("DELETE", PUBLISH, vec![], 405, Some("PUT, POST")),
        ("GET", PUBLISH, vec![], 405, Some("PUT, POST")),
        ("GET", PUBLISH, vec![("x-http-method-override", "PUT")], 405, Some("PUT, POST")),
        ("GET", START, vec![("x-http-method-override", "PUT")], 405, Some("PUT, POST")),
        ("POST", PUBLISH, vec![("x-http-method-override", "put")], 201, None),
        ("POST", PUBLISH, vec![("x-http-method-override", "DELETE")], 405, Some("PUT, POST")),
        ("POST", PUBLISH, vec![("x-http-method-override", "GET")], 400, None),
        ("POST", PUBLISH, vec![], 201, None),
        ("OPTIONS", "/v4/butlerping", vec![], 204, Some("GET, HEAD, OPTIONS")),
        ("OPTIONS", "/v4/nosuch", vec![], 404, None),
        ("PROPFIND", "/v4/butlerping", vec![], 405, Some("GET, HEAD")),
    ] {
        let reply = client.send(method, path, &headers, Some(HELLO.as_bytes())).await;
        assert_eq!((reply.status, reply.header("allow")), (status, allow), "{method} {path} {headers:?}");
        ran += 1;
    }
    assert_eq!((ran, server.broker.take().len()), (14, 2));
}

#[tokio::test]
async fn head_has_the_length_and_no_body() {
    let server = start(Generation::Head, settings());
    let mut client = server.connect().await;
    let get = client.send("GET", "/v4/butlerping", &[], None).await;
    let head = client.send("HEAD", "/v4/butlerping", &[], None).await;
    assert_eq!(head.header("content-length"), get.header("content-length"));
    let expected = concat!(
        r#"{"response":"Butler reporting for duty","butlerVersion":"sense-butler "#,
        env!("CARGO_PKG_VERSION"),
        r#""}"#
    );
    assert_eq!(get.text(), expected);
    assert_eq!(client.send("GET", "/livez", &[], None).await.status, 200, "no body was left on the connection");
}

#[tokio::test]
async fn own_errors_carry_a_request_id() {
    let server = start(Generation::V5_4, settings());
    let reply = server.get("/nosuch").await;
    let body = reply.json();
    assert_eq!((reply.status, &body["error"]["code"]), (404, &json!("not_found")));
    assert!(!body["error"]["request_id"].as_str().unwrap().is_empty());
    let other = server.get("/nosuch").await.json();
    assert_ne!(other["error"]["request_id"], body["error"]["request_id"]);
}

#[tokio::test]
async fn routes_of_butler_that_are_not_offered() {
    let rest = RestSettings { endpoints_not_offered: vec!["createDir".into()], ..settings() };
    let server = start(Generation::Head, rest);
    let mut client = server.connect().await;
    let reply = client.send("POST", "/v4/createdir", &[], Some(b"{}")).await;
    assert_eq!(reply.status, 501);
    assert!(reply.json()["message"].as_str().unwrap().contains("createDir"));
    assert_eq!(client.send("POST", "/v4/createdirqvd", &[], Some(b"{}")).await.status, 404);
}

#[tokio::test]
async fn qos_and_retain_only_where_switched_on() {
    let body = r#"{"topic":"lab/x","message":"m","qos":1,"retain":true}"#;
    for (on, qos, retain) in [(false, QoS::AtMostOnce, false), (true, QoS::AtLeastOnce, true)] {
        let server = start_with(Generation::Head, settings(), |setup| setup.rest_qos_retain = on);
        assert_eq!(server.put(PUBLISH, body).await.status, 201);
        let published = server.broker.take();
        assert_eq!((published[0].qos, published[0].retain), (qos, retain));
        let wrong = server.put(PUBLISH, r#"{"topic":"lab/x","message":"m","qos":3}"#).await;
        assert_eq!(wrong.status, if on { 400 } else { 201 });
    }
}

#[tokio::test]
async fn a_start_message_names_who_asked() {
    let server = start(Generation::Head, settings());
    let body = r#"{"topic":"qliksense/start_task","message":"0000aaaa-0000-4000-8000-000000000001"}"#;
    assert_eq!(server.put(PUBLISH, body).await.status, 201);
    let origin = server.broker.take()[0].origin.clone().unwrap();
    assert_eq!((origin.door, origin.may_start), (Door::Rest, true));
    assert_eq!(origin.user.as_deref(), Some("127.0.0.1"));
}

#[tokio::test]
async fn events_cannot_be_forged() {
    let protect = TopicFilter::new("qliksense/butler/#").unwrap();
    let server = start_with(Generation::Head, settings(), |setup| setup.protected_topics = vec![protect]);
    let reply = server.put(PUBLISH, r#"{"topic":"qliksense/butler/state","message":"x"}"#).await;
    assert_eq!((reply.status, server.broker.take().len()), (403, 0));
}

#[tokio::test]
async fn forms_are_published() {
    let server = start(Generation::Head, settings());
    let headers = [("content-type", "application/x-www-form-urlencoded")];
    let reply = server.connect().await.send("POST", PUBLISH, &headers, Some(b"topic=lab%2Fa&message=x+y")).await;
    assert_eq!((reply.status, reply.text()), (201, r#"{"topic":"lab/a","message":"x y"}"#));
    assert_eq!(server.broker.take()[0].payload, "x y");
}

#[tokio::test]
async fn active_users() {
    let server = start(Generation::V5_4, settings());
    *server.users.lock().unwrap() = vec!["joe".into(), "anna".into()];
    assert_eq!(server.get("/v4/activeusercount").await.text(), r#"{"response":2}"#);
    assert_eq!(server.get("/v4/activeusers?a=b").await.text(), r#"{"a":"b","response":"[\"joe\",\"anna\"]"}"#);
}

#[tokio::test]
async fn readiness_is_told_part_by_part() {
    let server = start(Generation::Head, settings());
    assert_eq!(server.get("/livez").await.status, 200);
    assert_eq!(server.get("/readyz").await.status, 503, "nothing has reported yet");
    let (broker, qrs) = (server.readiness.latch("broker"), server.readiness.note("qrs"));
    broker.up();
    qrs.down("no route to host");
    let reply = server.get("/readyz").await;
    let parts = json!([
        {"name": "broker", "ready": true, "required": true},
        {"name": "qrs", "ready": false, "required": false, "detail": "no route to host"},
    ]);
    assert_eq!((reply.status, reply.json()), (200, json!({"ready": true, "parts": parts})));
    let status = server.get("/api/v1/status").await.json();
    assert_eq!((&status["ready"], &status["brokerUp"]), (&json!(true), &json!(true)));
    assert_eq!(status["version"], env!("CARGO_PKG_VERSION"));
    drop(broker);
    assert_eq!(server.get("/readyz").await.status, 503);
}

#[tokio::test]
async fn metrics_are_open_metrics() {
    let server = start(Generation::Head, settings());
    server.put(PUBLISH, HELLO).await;
    let reply = server.get("/metrics").await;
    assert_eq!(reply.header("content-type"), Some("application/openmetrics-text; version=1.0.0; charset=utf-8"));
    let line = "sense_butler_rest_requests_total{route=\"mqttpublishmessage\",status=\"201\"} 1\n";
    assert!(reply.text().contains(line), "{}", reply.text());
    assert!(reply.text().contains("sense_butler_rest_connections 1\n"), "{}", reply.text());
    assert!(reply.text().ends_with("# EOF\n"));
}
