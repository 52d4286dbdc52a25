//! The REST server's connections: limits, stops, TLS, peers that misbehave.

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
    config::settings::{Generation, RestSettings, RestTls},
    net::{bind::BindError, certificates::Certificates},
};
use tokio::sync::Notify;

const PUBLISH: &str = "/v4/mqttpublishmessage";
const START: &str = "/v4/reloadtask/0000aaaa-0000-4000-8000-000000000001/start";
const HELLO: &str = r#"{"topic":"lab/t1","message":"hello"}"#;

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
    let error = Server::bind(&RestSettings { port: server.address.port(), ..settings() }, &Certificates::default())
        .unwrap_err();
    assert!(matches!(&error, ApiError::Bind(BindError { address, source })
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

/// The certificate a server shows to a client that trusts everything in `trusted`.
async fn shown(
    address: std::net::SocketAddr,
    trusted: &[&rustls::pki_types::CertificateDer<'static>],
) -> rustls::pki_types::CertificateDer<'static> {
    let mut roots = rustls::RootCertStore::empty();
    trusted.iter().for_each(|der| roots.add((*der).clone()).unwrap());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let tcp = tokio::net::TcpStream::connect(address).await.unwrap();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let stream = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned()
}

#[tokio::test]
async fn a_new_certificate_is_taken() {
    let (tls, old) = certificate("rest_renewed");
    let server = start(Generation::Head, RestSettings { tls: Some(tls), ..settings() });
    assert_eq!(shown(server.address, &[&old]).await, old);
    let (_, new) = certificate("rest_renewed");
    let renewed = async {
        let mut interval = tokio::time::interval(Duration::from_millis(50));
        while shown(server.address, &[&old, &new]).await != new {
            interval.tick().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), renewed).await.expect("within seconds");
}

#[tokio::test]
async fn a_missing_certificate_is_named() {
    let (mut tls, _) = certificate("rest_missing");
    tls.cert = tls.cert.with_file_name("no_such_file.pem");
    let error = Server::bind(&RestSettings { tls: Some(tls), ..settings() }, &Certificates::default()).unwrap_err();
    assert!(error.to_string().contains("no_such_file.pem"), "{error}");
    assert!(error.is_configuration());
    let (mut tls, _) = certificate("rest_no_key");
    std::fs::write(&tls.key, "nothing").unwrap();
    tls.cert = tls.cert.clone();
    let error = Server::bind(&RestSettings { tls: Some(tls), ..settings() }, &Certificates::default()).unwrap_err();
    assert!(error.to_string().contains("rest_no_key_key.pem"), "{error}");
}
