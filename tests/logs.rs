//! The log from outside: a flood of the same trouble is few lines that state its number, and every line can be one for programs.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]
#![cfg(unix)]

#[path = "support/app.rs"]
mod app;

use std::{fs, net::UdpSocket};

use app::{App, Dir, PATIENCE};
use serde_json::Value;

const FLOOD: u64 = 1_000;

/// Sends datagrams nobody can read, each when the one before was counted, so that the system drops none.
async fn flood(app: &App, number: u64) {
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let udp = app.udp().await;
    for batch in 0..number / 50 {
        for _ in 0..50 {
            sender.send_to(b"/nonsense/;x", ("127.0.0.1", udp)).unwrap();
        }
        let counted = async { while rejected(app).await < (batch + 1) * 50 {} };
        tokio::time::timeout(PATIENCE, counted).await.expect("they are counted");
    }
}

/// All datagrams that were dropped for their type.
async fn rejected(app: &App) -> u64 {
    let (_, metrics) = app.get("/metrics").await;
    let line =
        |line: &&str| line.starts_with("sense_butler_udp_datagrams_dropped_total{") && line.contains("unknown_type");
    metrics.lines().filter(line).map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
}

#[tokio::test]
async fn a_thousand_bad_datagrams_are_few_lines_that_state_their_number() {
    let dir = Dir::new();
    let app = App::configured(&dir, "Butler:\n  logFormat: json\n  fileLogging: true\n").await;
    flood(&app, FLOOD).await;
    app.signal("TERM");
    let ended = app.ended().await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.output);
    // Everything on standard error, line by line, is for programs.
    let lines: Vec<Value> = ended.output.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let about: Vec<&Value> = lines.iter().filter(|line| line["code"] == "udp_ignored").collect();
    assert!((2..=10).contains(&about.len()), "{about:?}");
    let number: u64 = about
        .iter()
        .map(|line| match line["message"].as_str().unwrap().split_once(" more line") {
            Some((number, rest)) => {
                assert!(
                    rest.contains("like this one within ") && rest.contains("datagram ignored: its type"),
                    "{rest}"
                );
                number.parse::<u64>().unwrap()
            }
            None => 1 + line["suppressed"].as_u64().unwrap_or(0),
        })
        .sum();
    assert_eq!(number, FLOOD, "{about:?}");
    assert_eq!(about[0]["level"], "warn");
    assert_eq!(about[0]["part"], "sense");
    assert_eq!(about[0]["fields"]["reason"], "unknown_type");
    // The file says the same, the last number included.
    let file = fs::read_dir(dir.0.join("data/log")).unwrap().map(|entry| entry.unwrap().path());
    let file = file.filter(|path| path.extension().is_some_and(|ending| ending == "log")).last().unwrap();
    let text = fs::read_to_string(file).unwrap();
    let written: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    assert_eq!(written.iter().filter(|line| line["code"] == "udp_ignored").count(), about.len());
    assert!(written.iter().any(|line| line["message"] == "ready"), "{text}");
}

#[tokio::test]
async fn the_same_trouble_by_hand_is_written_once_and_counted() {
    let dir = Dir::new();
    let app = App::configured(&dir, "Butler:\n  logLevel: info\n").await;
    dir.write("butler.yaml", "Butler:\n  logLevel: loud\n");
    for _ in 0..4 {
        assert_eq!(app.call("POST", "/api/v1/reload", &[], "").await.0, 422, "who asks is told each time");
    }
    app.signal("TERM");
    let output = app.ended().await.output;
    let refused = |line: &&str| line.contains("the configuration cannot be used; what was in force before still is");
    let lines: Vec<&str> = output.lines().filter(refused).collect();
    assert_eq!(lines.len(), 2, "{output}");
    assert!(
        lines[0].contains("ERROR app: the configuration") && lines[1].contains("3 more lines like this one"),
        "{lines:?}"
    );
    assert_eq!(output.matches("code=config_refused").count(), 2, "{output}");
}
