//! The log appender files that are shipped: well-formed, complete, and what they would send is what the parser reads.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::{collections::BTreeSet, time::SystemTime};

use roxmltree::{Document, Node};
use sense_butler::{
    config::settings::Generation,
    sense::{
        datagram::{parse_session, parse_task},
        event::{SessionEventKind, TaskEventKind},
    },
};

fn read(service: &str) -> String {
    let path = format!("{}/deploy/qlik/{service}/LocalLogConfig.xml", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    assert!(text.len() < 1 << 20, "Qlik Sense refuses files of more than 1 MB");
    text
}

fn elements<'a>(parent: Node<'a, 'a>, name: &'a str) -> impl Iterator<Item = Node<'a, 'a>> {
    parent.descendants().filter(move |node| node.has_tag_name(name))
}

fn param<'a>(node: Node<'a, 'a>, name: &str) -> Option<&'a str> {
    elements(node, "param").find(|param| param.attribute("name") == Some(name))?.attribute("value")
}

/// Pattern of every appender, after everything an appender needs was found in it.
fn patterns<'a>(document: &'a Document<'a>, port: &str) -> Vec<&'a str> {
    let root = document.root_element();
    assert!(root.has_tag_name("configuration"));
    let mut names = BTreeSet::new();
    let patterns = elements(root, "appender").map(|appender| {
        assert!(names.insert(appender.attribute("name").unwrap()), "two appenders of one name");
        assert_eq!(appender.attribute("type"), Some("log4net.Appender.UdpAppender"));
        let filters: Vec<_> = elements(appender, "filter").map(|filter| filter.attribute("type").unwrap()).collect();
        let (last, matches) = filters.split_last().unwrap();
        assert_eq!(*last, "log4net.Filter.DenyAllFilter");
        assert!(!matches.is_empty() && matches.iter().all(|kind| *kind == "log4net.Filter.StringMatchFilter"));
        assert_eq!((param(appender, "remotePort"), param(appender, "encoding")), (Some(port), Some("utf-8")));
        assert!(param(appender, "remoteAddress").is_some() && param(appender, "stringToMatch").is_some());
        let converter = elements(appender, "converter").next().unwrap();
        assert_eq!(param(converter, "name"), Some("hostname"));
        param(appender, "conversionpattern").unwrap()
    });
    let patterns = patterns.collect();
    let referred: BTreeSet<_> = elements(root, "appender-ref").map(|node| node.attribute("ref").unwrap()).collect();
    assert_eq!(referred, names, "every appender is used by a logger, and no other");
    patterns
}

/// What log4net makes of a pattern; an unknown conversion would stay and fail the test.
fn render(pattern: &str, values: &[(&str, &str)]) -> String {
    let text = values.iter().fold(pattern.to_owned(), |text, (name, value)| text.replace(&format!("%{name}"), value));
    assert!(!text.contains('%'), "{text}");
    text
}

#[test]
fn scheduler() {
    let text = read("Scheduler");
    let document = Document::parse(&text).unwrap();
    let patterns = patterns(&document, "9998");
    let values = [
        ("hostname", "pro2-win1"),
        ("property{TaskName}", "Reload of Sales; Nordics (🤪)"),
        ("property{AppName}", "Sales"),
        ("property{User}", r"LAB\goran"),
        ("property{TaskId}", "22b106a8-e7ed-4466-b700-014f060bef16"),
        ("property{AppId}", "(null)"),
        ("date", "2024-04-12 07:33:03,508"),
        ("level", "INFO"),
        ("property{ExecutionId}", "c073f112-4318-4d1f-ae82-14492aa0c35f"),
        ("message", "Max retries reached; giving up"),
    ];
    for generation in [Generation::V5_4, Generation::Head] {
        let mut kinds = Vec::new();
        for pattern in &patterns {
            let event = parse_task(render(pattern, &values).as_bytes(), generation, SystemTime::now()).unwrap();
            assert_eq!(event.task_name.as_deref(), Some("Reload of Sales; Nordics (🤪)"));
            assert_eq!((event.host.as_str(), event.app_name.as_deref()), ("pro2-win1", Some("Sales")));
            assert_eq!(event.message.as_deref(), Some("Max retries reached; giving up"));
            assert!(event.execution_id().is_some() && !event.ambiguous);
            kinds.push(event.kind);
        }
        use TaskEventKind::{Aborted, Distributed, Failed, Succeeded};
        assert_eq!(kinds, [Failed, Aborted, Succeeded, Distributed]);
    }
}

#[test]
fn proxy() {
    let text = read("Proxy");
    let document = Document::parse(&text).unwrap();
    let patterns = patterns(&document, "9997");
    let commands = [
        ("Start session", SessionEventKind::SessionStarted),
        ("Stop session", SessionEventKind::SessionStopped),
        ("Open connection", SessionEventKind::ConnectionOpened),
        ("Close connection", SessionEventKind::ConnectionClosed),
    ];
    let mut read = 0;
    for (command, kind) in commands {
        for pattern in &patterns {
            let values = [
                ("hostname", "pro2-win1"),
                ("property{Command}", command),
                ("property{UserDirectory}", "LAB"),
                ("property{UserId}", "goran"),
                ("property{Origin}", "Not available"),
                ("property{Context}", "/hub/"),
                ("message", "Start session for user 'LAB\\goran' - UserAgent: 'Mozilla/5.0 (Windows NT 10.0; x64)'"),
            ];
            let event =
                parse_session(render(pattern, &values).as_bytes(), Generation::Head, SystemTime::now()).unwrap();
            assert_eq!((event.kind, event.user.as_deref()), (kind, Some("goran")));
            assert!(event.message.unwrap().ends_with("x64)'"));
            read += 1;
        }
    }
    assert_eq!(read, 8);
}
