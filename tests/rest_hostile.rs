//! Callers that mean no good, or know no better: whatever they send, the server keeps answering the others, and no answer is a 500.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod rest_support;

use std::time::{Duration, Instant};

use rest_support::{Client, Reply, Running, Word, settings, start, start_in};
use sense_butler::config::settings::{Generation, RestSettings};

const ONE: &str = "/api/v1/publish";
const HELLO: &str = r#"{"topic":"lab/t1","payload":"hello"}"#;
/// What an honest caller may wait while all this goes on.
const LONGEST: Duration = Duration::from_secs(5);

async fn post(client: &mut Client, headers: &[(&str, &str)], body: &[u8]) -> Reply {
    client.send("POST", ONE, headers, Some(body)).await
}

/// An honest caller on a connection of his own is served, and soon.
async fn is_served(server: &Running) {
    let begun = Instant::now();
    assert_eq!(post(&mut server.connect().await, &[], HELLO.as_bytes()).await.status, 200);
    assert!(begun.elapsed() < LONGEST, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn bodies_that_are_none() {
    let rest = RestSettings { max_body: 300_000, ..settings() };
    let server = start(Generation::Head, rest);
    let mut client = server.connect().await;
    let deep = b"[".repeat(250_000);
    let deep_object = format!("{{\"properties\":{}", "{\"user_properties\":".repeat(10_000));
    let deep_client = format!("{{\"topic\":\"a\",\"payload\":\"b\",\"clientid\":{}", "[".repeat(250_000));
    let wide = format!("{{{}}}", vec![r#""topic":"a""#; 20_000].join(","));
    let numbers = format!(r#"{{"topic":"a","payload":"b","qos":{}}}"#, "9".repeat(100_000));
    let mut ran = 0;
    for (body, what) in [
        (b"\xff\xfe\x00\x01".to_vec(), "no UTF-8"),
        (b"{\"topic\":\"a\",\"payload\":\"\xc3\x28\"}".to_vec(), "UTF-8 that breaks off"),
        (br#"{"topic":"a","payload":"\ud83d"}"#.to_vec(), "half a surrogate pair"),
        (deep, "deep arrays"),
        (deep_object.into_bytes(), "deep objects"),
        (deep_client.into_bytes(), "deep in a field that is not looked at"),
        (wide.into_bytes(), "one key 20,000 times"),
        (br#"{"topic":"a","payload":"b","payload":"c"}"#.to_vec(), "one key twice"),
        (numbers.into_bytes(), "a long number"),
        (b"{\"topic\":\"a\",\"payload\":\"b\"} x".to_vec(), "more behind it"),
        (b"\0".repeat(1_000), "nothing but zeros"),
    ] {
        for path in [ONE, "/api/v1/publish/bulk", "/api/v1/tasks/start", "/v4/mqttpublishmessage"] {
            // Butler's route takes the last of equal keys, as Butler did.
            if path.starts_with("/v4") && what.contains("one key") {
                continue;
            }
            let reply = client.send("POST", path, &[("content-type", "application/json")], Some(&body)).await;
            assert!((400..500).contains(&reply.status), "{path}, {what}: {} {}", reply.status, reply.text());
            if reply.header("connection") == Some("close") {
                client = server.connect().await;
            }
            ran += 1;
        }
    }
    assert_eq!((ran, server.broker.take().len()), (42, 0));
    is_served(&server).await;
}

#[tokio::test]
async fn framing_that_is_none() {
    let server = start(Generation::Head, settings());
    let head = format!("POST {ONE} HTTP/1.1\r\nhost: localhost\r\n");
    let mut ran = 0;
    for (rest, what) in [
        ("transfer-encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n", "a chunk without a size"),
        ("transfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\nabc\r\n", "a size beyond numbers"),
        ("transfer-encoding: chunked\r\n\r\n-1\r\nabc\r\n0\r\n\r\n", "a size below zero"),
        ("transfer-encoding: chunked\r\n\r\n3\r\nabcdef\r\n0\r\n\r\n", "more than its size"),
        ("transfer-encoding: gzip, chunked\r\ncontent-length: 3\r\n\r\n3\r\nabc\r\n0\r\n\r\n", "two lengths"),
        ("content-length: 3\r\ncontent-length: 4\r\n\r\nabc", "two lengths that differ"),
        ("content-length: -3\r\n\r\nabc", "a length below zero"),
        ("content-length: 18446744073709551616\r\n\r\nabc", "a length beyond numbers"),
        ("x: \u{1}\r\n\r\n", "a control character in a header"),
        (" folded\r\n\r\n", "a folded header"),
    ] {
        let mut client = server.connect().await;
        client.raw(format!("{head}{rest}").as_bytes()).await;
        client.finish().await;
        if let Some(reply) = client.reply(false).await {
            assert!((400..500).contains(&reply.status), "{what}: {}", reply.status);
        }
        ran += 1;
    }
    let mut long = server.connect().await;
    long.raw(format!("{head}{}\r\n", "x: y\r\n".repeat(20_000)).as_bytes()).await;
    assert!(long.reply(false).await.is_none_or(|reply| (400..500).contains(&reply.status)));
    assert_eq!((ran, server.broker.take().len()), (10, 0));
    is_served(&server).await;
}

#[tokio::test]
async fn those_who_dawdle_stand_in_nobodys_way() {
    let server = start(Generation::Head, settings());
    let (mut heads, mut bodies) = (Vec::new(), Vec::new());
    for _ in 0..100 {
        let mut head = server.connect().await;
        head.raw(format!("POST {ONE} HTTP/1.1\r\nhost: loc").as_bytes()).await;
        heads.push(head);
        let mut body = server.connect().await;
        body.raw(format!("POST {ONE} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 36\r\n\r\n{{").as_bytes()).await;
        bodies.push(body);
    }
    for round in 0..5 {
        for one in heads.iter_mut().chain(&mut bodies) {
            one.raw(b"a").await;
        }
        is_served(&server).await;
        assert_eq!(server.broker.take().len(), 1, "round {round}");
    }
}

/// Callers without end, of whom none says what he wants: who has waited longest goes when somebody comes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_connections_however_many_keep_nobody_out() {
    const ROOM: usize = 64;
    let server = start_in(Generation::Head, settings(), ROOM, |_| {});
    let mut honest = server.connect().await;
    let (mut silent, mut half) = (Vec::new(), Vec::new());
    for number in 0..10 * ROOM {
        let mut client = server.connect().await;
        if number % 2 == 0 {
            client.raw(b"POST /api/v1/pub").await;
            half.push(client);
        } else {
            silent.push(client);
        }
        if number % (ROOM / 2) == 0 {
            assert_eq!(post(&mut honest, &[], HELLO.as_bytes()).await.status, 200, "who keeps asking keeps his place");
            is_served(&server).await;
        }
    }
    is_served(&server).await;
    assert!(silent[0].reply(false).await.is_none(), "the first one was sent away");
    assert_eq!(server.broker.take().len(), 41);
}

/// A request in hand is finished, and its answer arrives, also when its connection has to go.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_a_request_in_hand_is_not_sent_away() {
    const ROOM: usize = 8;
    let server = start_in(Generation::Head, settings(), ROOM, |_| {});
    server.broker.says(Word::Silence);
    let mut busy = Vec::new();
    for _ in 0..ROOM {
        let mut client = server.connect().await;
        busy.push(tokio::spawn(async move { post(&mut client, &[], HELLO.as_bytes()).await.status }));
    }
    while server.broker.published.lock().unwrap().len() < ROOM {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut refused = server.connect().await;
    assert_eq!(refused.reply(false).await.unwrap().status, 503, "all places are at work");
    server.broker.says(Word::Take);
    server.broker.release();
    for one in busy {
        assert_eq!(one.await.unwrap(), 200);
    }
    is_served(&server).await;
}
