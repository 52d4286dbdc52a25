//! How answers travel, and what the program's own client makes of it: compressed, in chunks, broken, far too long; to another name; and when no
//! scheduler is there.

use std::time::Duration;

use reqwest::{Client, Method};
use sense_butler::{
    config::{LoadOptions, built_in, settings::QrsSettings},
    names::TaskId,
    sense::{
        qrs::{Qrs, QrsError, StartReply, TaskSearch},
        simulator::{SiteSource, plan::DEFAULT_SITE},
    },
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::timeout,
};

use crate::support::{FAILING, KEY, SAMPLE, SLOW, Site, ZERO};

fn settings(host: &str, port: u16) -> QrsSettings {
    QrsSettings {
        host: Some(host.to_owned()),
        port,
        use_tls: false,
        headers: vec![("X-Qlik-User".into(), "UserDirectory=LAB; UserId=goran".into())],
        ..built_in(&LoadOptions::default()).unwrap().settings.qrs
    }
}

impl Site {
    /// The program's own client.
    fn qrs(&self, host: &str) -> Qrs {
        let files = self.files.clone();
        let port = self.qrs.rsplit(':').next().and_then(|rest| rest.strip_suffix("/qrs")).unwrap().parse().unwrap();
        let certificates = (Some(files.client), Some(files.client_key), Some(files.root));
        let (client_cert, client_key, ca) = certificates;
        Qrs::new(&QrsSettings { use_tls: true, client_cert, client_key, ca, ..settings(host, port) })
    }

    async fn must(&self, path: &str, body: Value) {
        assert_eq!(self.order(path, body).await, (204, String::new()), "{path}");
    }

    /// The headers of a list to a client that accepts `encoding`, and the length of its body as it came.
    async fn headers(&self, bare: &Client, encoding: &str) -> (Option<String>, Option<String>, Option<u64>, usize) {
        let request = bare.get(format!("{}/task/full?xrfkey={KEY}", self.qrs)).header("X-Qlik-Xrfkey", KEY);
        let response = request.header("Accept-Encoding", encoding).send().await.unwrap();
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let (coded, sent) = (header("content-encoding"), header("transfer-encoding"));
        let length = header("content-length").map(|length| length.parse().unwrap());
        (coded, sent, length, response.bytes().await.unwrap().len())
    }
}

/// A client that takes bodies as they come.
fn bare(site: &Site) -> Client {
    let read = |path| std::fs::read(path).unwrap();
    let pem = [read(&site.files.client), read(&site.files.client_key)].concat();
    Client::builder()
        .tls_certs_only([reqwest::Certificate::from_pem(&read(&site.files.root)).unwrap()])
        .identity(reqwest::Identity::from_pem(&pem).unwrap())
        .no_gzip()
        .build()
        .unwrap()
}

#[tokio::test]
async fn compressed_answers_and_answers_in_chunks_are_read_like_others() {
    let site = Site::start("wire", |_| {}).await;
    let (qrs, bare) = (site.qrs("127.0.0.1"), bare(&site));
    let plain = qrs.search_tasks(&TaskSearch::default(), 100).await.unwrap();
    assert!(plain.len() >= 12);
    let (.., whole) = site.headers(&bare, "gzip").await;
    for (gzip, chunked) in [(false, false), (true, false), (false, true), (true, true)] {
        site.must("/answers", json!({ "gzip": gzip, "chunked": chunked })).await;
        let (coded, sent, length, came) = site.headers(&bare, "deflate, gzip").await;
        assert_eq!(coded.as_deref(), gzip.then_some("gzip"));
        assert_eq!(sent.as_deref(), chunked.then_some("chunked"));
        assert_eq!(length, (!chunked).then_some(came as u64));
        assert!(if gzip { came < whole / 2 } else { came == whole }, "{came} of {whole}");
        let (coded, .., came) = site.headers(&bare, "br").await;
        assert_eq!((coded, came), (None, whole), "to a client that does not accept it");

        assert_eq!(qrs.search_tasks(&TaskSearch::default(), 100).await.unwrap(), plain);
        let refused = json!({ "path": "/qrs/about", "action": "status", "status": 500, "text": "out of order" });
        site.must("/fault", refused).await;
        match qrs.about().await {
            Err(QrsError::Status { status: 500, text, .. }) => assert_eq!(text, "out of order"),
            other => panic!("{other:?}"),
        }
    }
    // A whole life: start, session, result, script log.
    let StartReply::Started(Some(execution)) = qrs.start(FAILING.parse().unwrap()).await.unwrap() else {
        panic!("it starts")
    };
    site.until_done(&execution.to_string()).await;
    let attempts = qrs.attempts(&[execution]).await.unwrap();
    let log = qrs.script_log(FAILING.parse().unwrap(), &attempts[0], 20).await.unwrap().unwrap();
    assert!(log.iter().any(|line| line.contains("Field 'Amount' not found")), "{log:?}");
    // The connection breaks in the middle of a compressed body: what only reads is asked again.
    site.must("/fault", json!({ "path": "/qrs/about", "action": "cutBody" })).await;
    assert_eq!(qrs.about().await.unwrap()["schemaPath"], "About");
    for wrong in [json!({ "gzip": 1 }), json!({ "brotli": true }), json!([])] {
        assert_eq!(site.order("/answers", wrong).await.0, 400);
    }
    site.finish().await;
}

#[tokio::test]
async fn an_answer_that_becomes_far_too_long_when_it_is_unpacked_is_put_down() {
    let site = Site::start("bomb", |_| {}).await;
    let (qrs, bare) = (site.qrs("127.0.0.1"), bare(&site));
    site.must("/answers", json!({ "gzip": true })).await;
    let bomb = json!({ "path": "/qrs/task*", "action": "huge", "bytes": 80_000_000, "times": 2 });
    site.must("/fault", bomb).await;
    let (.., came) = site.headers(&bare, "gzip").await;
    assert!(came < 8_000_000, "{came} bytes on the wire");
    match qrs.tasks_with_tag("mqtt").await {
        Err(QrsError::TooMuch { limit, .. }) => assert_eq!(limit, 64 << 20),
        other => panic!("{:?}", other.map(|tasks| tasks.len())),
    }
    assert_eq!(qrs.tasks_with_tag("mqtt").await.unwrap().len(), 4, "the next call is answered");
    site.finish().await;
}

/// Answers every call with these bytes, as gzip.
async fn packs_badly(body: &'static [u8]) -> Qrs {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n{}") && stream.read_buf(&mut request).await.unwrap_or(0) > 0 {}
            let head = format!("HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {}\r\n\r\n", body.len());
            let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
        }
    });
    Qrs::new(&settings("127.0.0.1", port))
}

#[tokio::test]
async fn an_answer_that_cannot_be_unpacked_is_no_answer_and_may_have_been_obeyed() {
    // No gzip at all; the beginning of some and no end.
    for body in [&b"{\"value\":\"x\"}"[..], &b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\x4b"[..]] {
        let qrs = packs_badly(body).await;
        let error = timeout(Duration::from_secs(10), qrs.start(SAMPLE.parse().unwrap())).await.unwrap().unwrap_err();
        assert!(matches!(error, QrsError::BadAnswer { .. }), "{error:?}");
        assert!(error.may_have_arrived() && error.to_string().contains("unpack"), "{error}");
    }
}

#[tokio::test]
async fn without_a_scheduler_nothing_starts_and_what_runs_goes_on() {
    let site = Site::start("scheduler", |_| {}).await;
    let qrs = site.qrs("127.0.0.1");
    let running = site.start_task(SAMPLE).await;
    site.must("/scheduler", json!({ "available": false })).await;
    let slow: TaskId = SLOW.parse().unwrap();
    assert_eq!(qrs.start(slow).await.unwrap(), StartReply::NotStarted);
    assert_eq!(site.start_task(SLOW).await, ZERO);
    assert_eq!(site.post(&format!("/task/{SLOW}/start")).await, (204, String::new()));
    assert_eq!(site.order(&format!("/task/{SLOW}/start"), json!({})).await.0, 409);
    site.must("/rate", json!({ "rate": 1_000 })).await;
    site.order("/clock", json!({ "advanceSeconds": 600 })).await;
    site.until_done(&running).await;
    let truth = site.control("/starts").await;
    assert_eq!(truth["total"], 1, "no schedule and no chain starts anything either");
    let asked: Vec<Value> = truth["notStarted"]["asked"].as_array().unwrap().clone();
    let of_slow = asked.iter().filter(|wish| wish["task"] == SLOW && wish["reason"] == "no scheduler").count();
    assert_eq!(of_slow, 4);
    let result = site.filtered("/executionresult/full", &format!("ExecutionId eq {running}")).await;
    assert_eq!(result[0]["status"], 7, "what ran has finished");
    site.must("/rate", json!({ "rate": 0 })).await;
    site.must("/scheduler", json!({ "available": true })).await;
    assert!(matches!(qrs.start(slow).await.unwrap(), StartReply::Started(Some(_))));
    assert_eq!(site.order("/scheduler", json!({ "available": "no" })).await.0, 400);
    site.finish().await;
}

#[tokio::test]
async fn calls_to_another_name_are_told_that_their_header_is_wrong() {
    let text = DEFAULT_SITE.replace("allowedHosts: []", "allowedHosts: [LocalHost, sense-1.lab.example]");
    assert_ne!(text, DEFAULT_SITE);
    let site = Site::start("hosts", |settings| settings.site = SiteSource::Text(text)).await;
    assert_eq!(site.qrs("localhost").about().await.unwrap()["schemaPath"], "About");
    let error = site.qrs("127.0.0.1").about().await.unwrap_err();
    match &error {
        QrsError::Page { status: 400, text, .. } => {
            assert!(text.contains("The http request header is incorrect."), "{text}");
        }
        other => panic!("{other:?}"),
    }
    let started = site.qrs("127.0.0.1").start(SAMPLE.parse().unwrap()).await;
    assert!(!started.unwrap_err().may_have_arrived(), "a refusal");
    let named = site.client.request(Method::GET, format!("{}/about?xrfkey={KEY}", site.qrs));
    let named = named.header("X-Qlik-Xrfkey", KEY).header("Host", "SENSE-1.lab.example:4242");
    assert_eq!(named.send().await.unwrap().status().as_u16(), 200);
    assert_eq!(site.control("/starts").await["notStarted"]["asked"][0]["reason"], "refused");
    site.finish().await;
}
