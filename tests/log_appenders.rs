//! The log appender files that are shipped: well-formed, complete, and what they would send is what the parser reads. And the verb that puts them
//! where they belong, into the files of others.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "support/app.rs"]
mod app;

use std::{collections::BTreeSet, fs, path::PathBuf, time::SystemTime};

use app::{Dir, assert_refused, run_to_end, said};
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

const ADDRESS: [&str; 5] = ["appenders", "--directory", ".", "--address", "10.1.2.3:19998"];
const FILE: &str = "Scheduler/LocalLogConfig.xml";

/// A directory like that of Qlik Sense, and what it holds, by name.
fn sense() -> Dir {
    let dir = Dir::new();
    for service in ["Scheduler", "Proxy"] {
        fs::create_dir(dir.0.join(service)).unwrap();
    }
    dir
}

fn files(dir: &Dir) -> Vec<PathBuf> {
    let below = |service: &str| fs::read_dir(dir.0.join(service)).unwrap().map(|entry| entry.unwrap().path());
    let mut all: Vec<_> = below("Scheduler").chain(below("Proxy")).collect();
    all.sort();
    all
}

/// What the verb says, which ends well.
fn merged(dir: &Dir, more: &[&str]) -> String {
    let output = run_to_end(dir, &[&ADDRESS, more].concat());
    assert!(output.status.success() && output.stderr.is_empty(), "{}", said(&output));
    said(&output)
}

#[test]
fn the_verb_makes_the_files_and_leaves_them_when_they_are_as_they_should_be() {
    let dir = sense();
    let text = merged(&dir, &[]);
    assert!(text.contains("was made") && text.matches("  added     ").count() == 6, "{text}");
    assert_eq!(files(&dir), [dir.0.join(FILE)], "nothing of users unless they are asked for");
    let made = fs::read_to_string(dir.0.join(FILE)).unwrap();
    let shipped = read("Scheduler").replace("\"127.0.0.1\"", "\"10.1.2.3\"").replace("\"9998\"", "\"19998\"");
    assert_eq!(made, shipped);
    let text = merged(&dir, &[]);
    assert!(text.contains("nothing was written") && text.matches("  unchanged ").count() == 6, "{text}");
    assert_eq!(files(&dir).len(), 1);
    let text = merged(&dir, &["--sessions", "butler.example.com:9997"]);
    assert!(text.contains("Proxy") && text.matches("  added     ").count() == 3, "{text}");
    assert!(fs::read_to_string(dir.0.join("Proxy/LocalLogConfig.xml")).unwrap().contains("butler.example.com"));
}

#[test]
fn the_verb_keeps_what_others_have_and_a_copy() {
    let dir = sense();
    let before = "\u{feff}<?xml version=\"1.0\"?>\r\n<configuration>\r\n  <!-- Größe -->\r\n\
        \t<logger   name='System.Scheduler.Scheduler.Master.Task.TaskSession'>\r\n    <appender-ref ref=\"Mail\"/>\r\n  </logger>\r\n\
        </configuration>\r\n";
    fs::write(dir.0.join(FILE), before).unwrap();
    let shown = merged(&dir, &["--dry-run"]);
    assert!(shown.contains("changes of the file that is there") && shown.contains("SenseButlerTaskFailed"), "{shown}");
    assert_eq!(fs::read_to_string(dir.0.join(FILE)).unwrap(), before, "a dry run writes nothing");
    let text = merged(&dir, &[]);
    let after = fs::read_to_string(dir.0.join(FILE)).unwrap();
    assert!(
        after.starts_with(
            "\u{feff}<?xml version=\"1.0\"?>\r\n<configuration>\r\n  <!-- Größe -->\r\n\t<logger   name='"
        ),
        "{after}"
    );
    assert!(
        after.contains("<appender-ref ref=\"Mail\"/>\r\n    <appender-ref ref=\"SenseButlerTaskFailed\" />\r\n"),
        "{after}"
    );
    assert!(!after.replace("\r\n", "").contains('\n') && after.ends_with("</configuration>\r\n"), "{after}");
    let copies: Vec<_> =
        files(&dir).into_iter().filter(|file| file.extension().is_some_and(|end| end == "bak")).collect();
    assert_eq!((copies.len(), files(&dir).len()), (1, 2), "{:?}", files(&dir));
    assert!(text.contains(&*copies[0].file_name().unwrap().to_string_lossy()), "{text}");
    assert_eq!(fs::read_to_string(&copies[0]).unwrap(), before);
    // Another address later: replaced, with a copy of its own, also within the same second.
    let output = run_to_end(&dir, &["appenders", "--directory", ".", "--address", "10.1.2.4:19998"]);
    assert!(said(&output).matches("  replaced  ").count() == 4, "{}", said(&output));
    assert_eq!(fs::read_to_string(dir.0.join(FILE)).unwrap(), after.replace("10.1.2.3", "10.1.2.4"));
    assert_eq!(files(&dir).len(), 3);
}

#[test]
fn the_verb_leaves_alone_what_it_does_not_understand() {
    let dir = sense();
    let proxy = dir.0.join("Proxy/LocalLogConfig.xml");
    let both = [&ADDRESS[..], &["--sessions", "10.1.2.3:9997"]].concat();
    let mut ran = 0;
    for (text, word) in [
        (&b"<configuration>"[..], "no XML"),
        (b"<log4net/>", "`log4net`"),
        (b"<configuration><!-- Gr\xf6\xdfe --></configuration>", "not UTF-8"),
        (b"\xff\xfe<\x00c\x00", "not UTF-8"),
    ] {
        fs::write(&proxy, text).unwrap();
        assert_refused(&dir, &both, 1, &["Proxy", "nothing was written", word]);
        assert_eq!((fs::read(&proxy).unwrap().as_slice(), files(&dir)), (text, vec![proxy.clone()]), "{word}");
        ran += 1;
    }
    assert_eq!(ran, 4);
    fs::remove_dir_all(dir.0.join("Scheduler")).unwrap();
    assert_refused(&dir, &ADDRESS, 1, &["there is no directory", "--dry-run"]);
    assert!(merged(&dir, &["--dry-run"]).contains("there is no such file yet"));
    for wrong in ["10.1.2.3", "10.1.2.3:0", "a b:1", "\"/>:1"] {
        let output = run_to_end(&dir, &["appenders", "--address", wrong]);
        assert_eq!(output.status.code(), Some(64), "{}", said(&output));
    }
}
