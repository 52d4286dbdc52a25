//! `udpServerConfig.forwardTo` from outside: what goes on is what came, byte for byte, and whoever is to get it can be absent, deaf or ourselves
//! without an event being lost here.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "support/app.rs"]
mod app;
#[path = "support/mqtt.rs"]
mod mqtt;

use std::{net::UdpSocket, time::Duration};

use app::{App, Dir, PATIENCE, assert_refused};
use mqtt::Client;
use rumqttc::QoS;

/// The other program.
fn butler() -> (UdpSocket, u16) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let port = socket.local_addr().unwrap().port();
    (socket, port)
}

fn yaml(udp: &str) -> String {
    format!("Butler:\n  mqttConfig: {{enable: true}}\n  udpServerConfig: {{{udp}}}\n")
}

fn failed(number: usize) -> String {
    format!(
        "/scheduler-task-failed/;h;t{number};a;u;0000aaaa-0000-4000-8000-000000000001;;2026-05-04 10:00:01,234;INFO;ec000000-0000-4000-8000-{number:012};m"
    )
}

async fn received(socket: UdpSocket, count: usize) -> (Vec<Vec<u8>>, UdpSocket) {
    let read = move || {
        let mut buffer = vec![0; 70_000];
        let one = |_| {
            let length = socket.recv(&mut buffer).expect("a datagram in time");
            buffer[..length].to_vec()
        };
        ((0..count).map(one).collect(), socket)
    };
    tokio::task::spawn_blocking(read).await.unwrap()
}

/// Asks for the metrics until a line is there.
async fn counts(app: &App, line: &str) -> String {
    let look = async {
        loop {
            let (_, text) = app.get("/metrics").await;
            if text.lines().any(|found| found == line) {
                return text;
            }
            tokio::task::yield_now().await;
        }
    };
    match tokio::time::timeout(PATIENCE, look).await {
        Ok(text) => text,
        Err(_) => panic!("no `{line}` in\n{}", app.get("/metrics").await.1),
    }
}

#[tokio::test]
async fn every_datagram_goes_on_as_it_came_also_what_is_none_of_ours() {
    let dir = Dir::new();
    let (tasks, task_port) = butler();
    let (sessions, session_port) = butler();
    let forward = format!(
        "forwardTo: ['127.0.0.1:{task_port}'], forwardSessionsTo: ['localhost:{session_port}'], maxMessageSize: 5000"
    );
    let app = App::configured(&dir, &yaml(&forward)).await;
    let mut client = Client::connect(app.mqtt().await, "events").await;
    client.subscribe("qliksense/task_failure", QoS::AtLeastOnce).await;
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let sent: Vec<Vec<u8>> = vec![
        failed(1).into_bytes(),
        b"\xff\xfe\x00 no text at all".to_vec(),
        Vec::new(),
        vec![b'x'; 60_000],
        "/unknown/;h\u{e4}".as_bytes().to_vec(),
        // The same again: dropped here, sent on all the same.
        failed(1).into_bytes(),
        failed(2).into_bytes(),
    ];
    for datagram in &sent {
        sender.send_to(datagram, ("127.0.0.1", app.udp().await)).unwrap();
    }
    let (found, tasks) = received(tasks, sent.len()).await;
    assert_eq!(found, sent);
    let session = b"/proxy-session/;p;Start session;D;anna;o;c;m";
    let session_udp =
        app.printed(|text| text.split("UDP on 127.0.0.1:").nth(2)?.split(' ').next()?.parse::<u16>().ok()).await;
    sender.send_to(session, ("127.0.0.1", session_udp)).unwrap();
    let (found, _) = received(sessions, 1).await;
    assert_eq!(found, [session.to_vec()]);
    for name in ["t1", "t2"] {
        assert_eq!(client.next().await.payload, name, "events go their own way");
    }
    let text = counts(&app, &format!("sense_butler_udp_forwarded_total{{target=\"127.0.0.1:{task_port}\"}} 7")).await;
    assert!(text.contains(&format!("forwarded_total{{target=\"localhost:{session_port}\"}} 1")), "{text}");
    assert!(!text.contains("sense_butler_udp_forward_dropped_total{"), "{text}");
    tasks.set_nonblocking(true).unwrap();
    assert!(tasks.recv(&mut [0; 8]).is_err(), "session datagrams have a place of their own");
    app.stop().await;
}

#[tokio::test]
async fn who_is_absent_or_deaf_costs_no_event() {
    const EVENTS: usize = 5_000;
    let dir = Dir::new();
    // Never read from; and a port where nobody listens.
    let (_deaf, deaf) = butler();
    let absent = butler().1;
    let app = App::configured(&dir, &yaml(&format!("forwardTo: ['127.0.0.1:{absent}', '127.0.0.1:{deaf}']"))).await;
    let port = app.udp().await;
    tokio::task::spawn_blocking(move || {
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for number in 0..EVENTS {
            sender.send_to(failed(number).as_bytes(), ("127.0.0.1", port)).unwrap();
            // Bursts that every kernel's buffer holds, so that what is missing was lost by the program.
            if number % 100 == 99 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    })
    .await
    .unwrap();
    let text = counts(&app, &format!("sense_butler_events_accepted_total {EVENTS}")).await;
    let text = match text.contains("reason=\"refused\"") {
        true => text,
        false => panic!("nobody was told that nobody listens:\n{text}"),
    };
    assert!(text.contains(&format!("sense_butler_udp_datagrams_received_total{{port=\"task\"}} {EVENTS}")), "{text}");
    counts(&app, &format!("sense_butler_udp_forwarded_total{{target=\"127.0.0.1:{deaf}\"}} {EVENTS}")).await;
    let said = app.said();
    let lines = said.lines().filter(|line| line.contains("a datagram did not go on")).count();
    assert!((1..10).contains(&lines), "{lines} lines:\n{said}");
    app.stop().await;
}

#[tokio::test]
async fn what_may_not_come_in_does_not_go_on() {
    let dir = Dir::new();
    let (socket, port) = butler();
    let text = format!("forwardTo: ['127.0.0.1:{port}'], enableSourceValidation: true, allowedSources: ['192.0.2.1']");
    let app = App::configured(&dir, &yaml(&text)).await;
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    sender.send_to(failed(1).as_bytes(), ("127.0.0.1", app.udp().await)).unwrap();
    counts(&app, "sense_butler_udp_datagrams_dropped_total{port=\"task\",reason=\"source\"} 1").await;
    socket.set_nonblocking(true).unwrap();
    assert!(socket.recv(&mut [0; 8]).is_err());
    app.stop().await;
}

#[test]
fn a_circle_is_refused_before_anything_is_opened() {
    let dir = Dir::new();
    let cases = [
        ("portTaskFailure: 19998, forwardTo: ['127.0.0.1:19998']", "forwardTo[0]", "own portTaskFailure"),
        (
            "serverHost: 0.0.0.0, portTaskFailure: 19998, forwardTo: ['localhost:19998']",
            "forwardTo[0]",
            "own portTaskFailure",
        ),
        (
            "portSessionConnectionEvents: 19997, forwardTo: ['[::1]:19997']",
            "forwardTo[0]",
            "own portSessionConnectionEvents",
        ),
        (
            "portTaskFailure: 19998, forwardTo: ['127.0.0.1:9988'], forwardSessionsTo: ['127.0.0.1:9987', '127.0.0.1:19998']",
            "forwardSessionsTo[1]",
            "come back for ever",
        ),
        ("forwardTo: ['0.0.0.0:9988']", "forwardTo[0]", "write e.g. 127.0.0.1:9988"),
        ("forwardTo: ['127.0.0.1']", "forwardTo[0]", "has no port"),
        ("forwardTo: ['127.0.0.1:0']", "forwardTo[0]", "no port to send to"),
        ("forwardTo: ['127.0.0.1:9988', '127.0.0.1:9988']", "forwardTo[1]", "twice"),
    ];
    let mut ran = 0;
    for (udp, key, words) in cases {
        let file = dir.write("butler.yaml", &yaml(udp));
        assert_refused(&dir, &["check", "-c", file.to_str().unwrap()], 64, &[key, words]);
        assert_refused(&dir, &["run", "-c", file.to_str().unwrap()], 64, &[key, words]);
        ran += 1;
    }
    assert_eq!(ran, 8);
    // An override is what counts, not the file.
    let file = dir.write("butler.yaml", &yaml("portTaskFailure: 19998, forwardTo: ['127.0.0.1:19996']"));
    let arguments = ["run", "-c", file.to_str().unwrap(), "--udp", "127.0.0.1:19996"];
    assert_refused(&dir, &arguments, 64, &["127.0.0.1:19996 is this program's own portTaskFailure"]);
}
