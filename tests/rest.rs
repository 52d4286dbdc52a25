//! The REST API from outside, over real sockets, with a broker double.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod rest_support;

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use rest_support::{Client, Word, settings, start, start_with};
use sense_butler::{
    api::{ApiError, Server, answer::Answer},
    bus::{Door, PublishError},
    config::settings::{Generation, RestSettings, RestTls},
    names::{QoS, TopicFilter},
};
use serde_json::json;
use tokio::sync::Notify;

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

#[tokio::test]
async fn bodies_over_the_limit() {
    let rest = RestSettings { max_body: 1_000, ..settings() };
    let server = start(Generation::Head, rest);
    let body = vec![b'x'; 3_000_000];
    let announced = server.connect().await.send("PUT", PUBLISH, &[], Some(&body)).await;
    assert_eq!((announced.status, announced.header("connection")), (413, Some("close")));
    let mut client = server.connect().await;
    let head = "PUT /v4/mqttpublishmessage HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n";
    client.raw(head.as_bytes()).await;
    for _ in 0..50 {
        client.raw(b"3e8\r\n").await;
        client.raw(&[b'x'; 1_000]).await;
        client.raw(b"\r\n").await;
    }
    client.raw(b"0\r\n\r\n").await;
    assert_eq!(client.reply(false).await.unwrap().status, 413);
    let mut polite = server.connect().await;
    let headers = [("expect", "100-continue"), ("content-length", "3000000")];
    assert_eq!(polite.send("PUT", PUBLISH, &headers, None).await.status, 413, "told before the body is sent");
    let small = format!(r#"{{"topic":"a","message":"{}"}}"#, "x".repeat(900));
    assert_eq!(server.put(PUBLISH, &small).await.status, 201);
    assert_eq!(server.broker.take().len(), 1);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let server = start(Generation::Head, settings());
    let mut client = server.connect().await;
    let one = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n");
    client.raw([one("/livez"), one("/v4/nosuch"), one("/v4/butlerping")].concat().as_bytes()).await;
    let mut seen = Vec::new();
    for _ in 0..3 {
        seen.push(client.reply(false).await.unwrap().status);
    }
    assert_eq!(seen, [200, 404, 200]);
}

#[tokio::test]
async fn silent_and_babbling_peers_hurt_nobody() {
    let server = start(Generation::Head, settings());
    let mut idle = Vec::new();
    for _ in 0..50 {
        let mut client = server.connect().await;
        client.raw(b"PUT /v4/mqttpubl").await;
        idle.push(client);
    }
    let mut babbler = server.connect().await;
    babbler.raw(b"\x16\x03\x01 this is not HTTP\r\n\r\n").await;
    assert_eq!(babbler.reply(false).await.unwrap().status, 400);
    assert_eq!(server.put(PUBLISH, HELLO).await.status, 201);
}

#[tokio::test]
async fn a_start_outlives_its_caller() {
    let (entered, go, done) = (Arc::new(Notify::new()), Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tell, wait, finish) = (entered.clone(), go.clone(), done.clone());
    let server = start_with(Generation::Head, settings(), |setup| {
        setup.start_task = Arc::new(move |_| {
            let (tell, wait, finish) = (tell.clone(), wait.clone(), finish.clone());
            Box::pin(async move {
                tell.notify_one();
                wait.notified().await;
                finish.notify_one();
                Answer::json(200, "{}")
            })
        });
    });
    let mut client = server.connect().await;
    client.raw(format!("PUT {START} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 2\r\n\r\n[]").as_bytes()).await;
    entered.notified().await;
    drop(client);
    // The server has noticed the hang-up when the gauge is back to the connection that asks.
    loop {
        if server.get("/metrics").await.text().contains("sense_butler_rest_connections 1\n") {
            break;
        }
    }
    go.notify_one();
    tokio::time::timeout(rest_support::PATIENCE, done.notified()).await.expect("the start was cut in half");
}

#[tokio::test]
async fn a_panicking_start_is_answered() {
    let server = start_with(Generation::Head, settings(), |setup| {
        setup.start_task = Arc::new(|_| Box::pin(async { panic!("told to") }));
    });
    assert_eq!(server.put(START, "[]").await.status, 500);
    assert_eq!(server.get("/livez").await.status, 200);
}

#[tokio::test]
async fn a_stop_finishes_what_is_in_hand() {
    let server = start(Generation::Head, settings());
    server.broker.says(Word::Silence);
    let (mut idle, mut busy) = (server.connect().await, server.connect().await);
    assert_eq!(idle.send("GET", "/livez", &[], None).await.status, 200);
    let broker = server.broker.clone();
    let stop = server.stop.clone();
    let when_submitted = async {
        while broker.published.lock().unwrap().is_empty() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        assert!(idle.reply(false).await.is_none(), "an idle connection is closed");
        broker.release();
    };
    let (reply, ()) = tokio::join!(busy.send("PUT", PUBLISH, &[], Some(HELLO.as_bytes())), when_submitted);
    assert_eq!((reply.status, reply.header("connection")), (201, Some("close")));
    let begin = Instant::now();
    server.task.await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_request_that_never_ends_does_not_hold_the_stop() {
    let server = start(Generation::Head, settings());
    server.broker.says(Word::Silence);
    let mut client = server.connect().await;
    client
        .raw(format!("PUT {PUBLISH} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 36\r\n\r\n{HELLO}").as_bytes())
        .await;
    while server.broker.published.lock().unwrap().is_empty() {
        tokio::task::yield_now().await;
    }
    server.stop.cancel();
    let begin = Instant::now();
    server.task.await.unwrap();
    assert!(begin.elapsed() < Duration::from_secs(4), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let server = start(Generation::Head, settings());
    let error = Server::bind(&RestSettings { port: server.address.port(), ..settings() }).unwrap_err();
    assert!(matches!(&error, ApiError::Bind { address, source }
        if *address == server.address && source.kind() == std::io::ErrorKind::AddrInUse));
    assert!(error.to_string().contains(&server.address.to_string()), "{error}");
    assert!(!error.is_configuration());
}

/// A certificate for `localhost` and its key, as files.
fn certificate(name: &str) -> (RestTls, rustls::pki_types::CertificateDer<'static>) {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let (cert, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}_key.pem")));
    std::fs::write(&cert, made.cert.pem()).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    (RestTls { cert, key }, made.cert.der().clone())
}

#[tokio::test]
async fn tls() {
    let (tls, der) = certificate("rest_tls");
    let server = start(Generation::Head, RestSettings { tls: Some(tls), ..settings() });
    let mut roots = rustls::RootCertStore::empty();
    roots.add(der).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    // A peer that speaks no TLS, and one that says nothing, stand in nobody's way.
    let mut plain = server.connect().await;
    plain.raw(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await;
    let _silent = server.connect().await;
    let tcp = tokio::net::TcpStream::connect(server.address).await.unwrap();
    let stream = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    let mut client = Client::over(stream, server.address);
    let own = format!("https://localhost:{}", server.address.port());
    let headers = [("host", "localhost"), ("origin", own.as_str())];
    assert_eq!(client.send("PUT", PUBLISH, &headers, Some(HELLO.as_bytes())).await.status, 201);
    let plain_origin = [("origin", own.replace("https", "http"))];
    let plain_origin = [("origin", plain_origin[0].1.as_str())];
    assert_eq!(client.send("GET", "/livez", &plain_origin, None).await.status, 403);
}

#[tokio::test]
async fn a_missing_certificate_is_named() {
    let (mut tls, _) = certificate("rest_missing");
    tls.cert = tls.cert.with_file_name("no_such_file.pem");
    let error = Server::bind(&RestSettings { tls: Some(tls), ..settings() }).unwrap_err();
    assert!(error.to_string().contains("no_such_file.pem"), "{error}");
    assert!(error.is_configuration());
    let (mut tls, _) = certificate("rest_no_key");
    std::fs::write(&tls.key, "nothing").unwrap();
    tls.cert = tls.cert.clone();
    let error = Server::bind(&RestSettings { tls: Some(tls), ..settings() }).unwrap_err();
    assert!(error.to_string().contains("rest_no_key_key.pem"), "{error}");
}
