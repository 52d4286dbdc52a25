//! `deploy/qlik/sense_butler_subs.qvs`, evaluated (`support/qlik_script`), against the real program: every argument arrives as it was handed over,
//! whatever is in it, and no call ends a reload. The examples of `docs/load-scripts.md` are run, too.
#![cfg(unix)]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

#[path = "support/app.rs"]
mod app;
#[path = "support/mqtt.rs"]
mod mqtt;
#[path = "support/qlik_script/mod.rs"]
mod qlik_script;
#[path = "support/site.rs"]
mod site;

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use app::{App, Dir, root};
use mqtt::Client;
use proptest::{
    prelude::{Strategy, any},
    prop_oneof, sample,
    strategy::ValueTree as _,
    test_runner::TestRunner,
};
use qlik_script::{Ended, Request, Script, Sender};
use rumqttc::QoS;
use site::{Site, task};

const WELL: &str = "5a1e5000-0000-4000-8000-000000000001";
const BADLY: &str = "5a1e5000-0000-4000-8000-000000000002";
const SLOWLY: &str = "5a1e5000-0000-4000-8000-000000000003";
/// Like the first; only the page starts it.
const OTHER: &str = "5a1e5000-0000-4000-8000-000000000004";
/// A task's name with all that hurts.
const NAME: &str = r#"Größe "A"; 'B' & $(C) \ 100 %"#;

/// What a careless sub breaks on.
const NASTY: [&str; 46] = [
    "",
    "plain",
    "\"",
    "He said \"no\"",
    "\"\"",
    "'",
    "It's 5 o'clock",
    "''",
    "\\",
    "C:\\temp\\new",
    "\\u0041",
    "\\\"",
    "\n",
    "a\r\nb\tc",
    "\u{1}\u{8}\u{b}\u{1f}",
    "\u{7f}",
    "$",
    "$(vSbUrl)",
    "$(nobody)",
    "$(=1+1)",
    "$()",
    "a & b",
    "&topic=x&retain=1",
    "a=b",
    "100 %",
    "%41%zz",
    "a+b",
    "a;b",
    "');DROP TABLE x;",
    "// no comment",
    "/* neither */",
    "http://x//y",
    "[x]",
    "{\"a\":[1]}",
    "#?@!",
    "`´",
    "äöüß ÄÖÜ",
    "日本語",
    "😀",
    "A\u{301}",
    "\u{feff}x",
    " around ",
    "null",
    "007",
    "1e5",
    "<a href=\"x\">&amp;</a>",
];

/// Arbitrary texts, rich in what hurts.
fn arbitrary(number: usize) -> Vec<String> {
    let hurts = sample::select("\"'\\$()%&=+;/*[]{}`´#?\n\r\t\u{1}\u{1b} äß😀".chars().collect::<Vec<_>>());
    let character = prop_oneof![3 => hurts, 1 => any::<char>().prop_filter("Qlik has no zero", |c| *c != '\0')];
    let texts = proptest::collection::vec(character, 0..40);
    let mut runner = TestRunner::default();
    let text = |_| texts.new_tree(&mut runner).unwrap().current().into_iter().collect();
    (0..number).map(text).collect()
}

/// As the REST connector: the method is the connection's, what is no ASCII in an address is encoded.
fn exchange(port: u16, request: &Request) -> Result<(u16, String), String> {
    let method = match &*request.connection {
        "Butler_GET" => "GET",
        "Butler_POST" => "POST",
        other => return Err(format!("there is no connection {other}")),
    };
    let base = "http://127.0.0.1:";
    let (address, path) = request.url.strip_prefix(base).unwrap().split_once('/').unwrap();
    assert!(address.parse::<u16>().is_ok(), "{request:?}");
    let mut target = String::from("/");
    for byte in path.bytes() {
        if byte.is_ascii() {
            assert!(byte.is_ascii_alphanumeric() || b"-._~%/?&=".contains(&byte), "no address: {request:?}");
            target.push(char::from(byte));
        } else {
            write!(target, "%{byte:02X}").unwrap();
        }
    }
    let body = request.body.as_deref().unwrap_or_default();
    assert_eq!(request.body.is_some(), method == "POST", "{request:?}");
    let mut head = format!(
        "{method} {target} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\ncontent-length: {}\r\n",
        body.len()
    );
    for (name, value) in &request.headers {
        write!(head, "{name}: {value}\r\n").unwrap();
    }
    let said = |error: std::io::Error| error.to_string();
    let mut stream = TcpStream::connect(("127.0.0.1", address.parse::<u16>().unwrap())).map_err(said)?;
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).map_err(said)?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(said)?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or("no whole answer")?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or("no status")?;
    Ok((status, body.to_owned()))
}

fn subs() -> String {
    fs::read_to_string(root().join("deploy/qlik/sense_butler_subs.qvs")).unwrap()
}

/// A reload that has included the file, against this port.
fn reload(port: u16) -> Script {
    let sender: Sender = Box::new(move |request| exchange(port, request));
    let mut script = Script::new(sender);
    script.run(&subs()).unwrap();
    script.set("vSbUrl", &format!("http://127.0.0.1:{port}"));
    script
}

/// Calls a sub with these texts, each in a variable of its own.
fn call(script: &mut Script, name: &str, arguments: &[&str]) {
    let names: Vec<String> = (0..arguments.len()).map(|at| format!("vArgument{at}")).collect();
    names.iter().zip(arguments).for_each(|(name, text)| script.set(name, text));
    script.run(&format!("CALL {name}({});", names.join(", "))).unwrap();
}

/// The same with the texts in the script: what a literal cannot have stands there as `Chr`.
fn call_in_letters(script: &mut Script, name: &str, arguments: &[&str]) {
    let expression = |text: &&str| {
        let part = |c: char| match c {
            '\'' => "''".to_owned(),
            '$' | '\n' | '\r' => format!("' & Chr({}) & '", u32::from(c)),
            c => c.to_string(),
        };
        format!("'{}'", text.chars().map(part).collect::<String>())
    };
    let list: Vec<String> = arguments.iter().map(expression).collect();
    script.run(&format!("CALL {name}({});", list.join(", "))).unwrap();
}

/// What the last call became.
fn outcome(script: &Script) -> (String, String, String) {
    (script.get("vSbOk"), script.get("vSbStatus"), script.get("vSbError"))
}

fn well(status: &str) -> (String, String, String) {
    ("1".into(), status.into(), String::new())
}

async fn running() -> (Site, Dir, App) {
    let tasks = [
        task(WELL, NAME, "duration: 2"),
        task(BADLY, "Badly", "duration: 1, outcome: fail"),
        task(SLOWLY, "Slowly", "duration: 4000"),
        task(OTHER, "Other", "duration: 2"),
    ];
    let (site, dir) = (Site::start(&tasks.concat()).await, Dir::new());
    let app = App::configured(&dir, &site.butler_yaml("")).await;
    (site, dir, app)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn every_text_arrives_as_it_was_handed_over() {
    let (site, _dir, app) = running().await;
    let mut script = reload(app.rest().await);
    let mut client = Client::connect(app.mqtt().await, "watcher").await;
    client.subscribe("t/#", QoS::AtLeastOnce).await;
    let texts: Vec<String> = NASTY.iter().map(|text| (*text).to_owned()).chain(arbitrary(100)).collect();
    let (mut published, mut topics, mut stored) = (0, 0, 0);
    for (number, text) in texts.iter().enumerate() {
        let calls: [fn(&mut Script, &str, &[&str]); 2] = [call, call_in_letters];
        for call in calls {
            call(&mut script, "SenseButler_Publish", &["t/a", text]);
            assert_eq!(outcome(&script), well("200"), "{text:?}");
            let message = client.next().await;
            assert_eq!((message.topic.as_str(), &*message.payload), ("t/a", text.as_bytes()), "{text:?}");
            published += 1;
        }
        let topic = format!("t/{text}");
        call(&mut script, "SenseButler_PublishWith", &[&topic, text, "1", "0", &format!("{number} {text}")]);
        if script.get("vSbOk") == "1" {
            let message = client.next().await;
            assert_eq!((message.topic.as_str(), &*message.payload), (topic.as_str(), text.as_bytes()), "{text:?}");
            topics += 1;
        } else {
            // MQTT has no such topic.
            let refused =
                text.contains(['+', '#']) || text.chars().any(char::is_control) || text.matches('/').count() > 100;
            assert!(refused && script.get("vSbStatus") == "400", "{text:?} {:?}", outcome(&script));
        }
        if !text.is_empty() && !matches!(&**text, "." | "..") {
            call(&mut script, "SenseButler_SetValue", &[text, text, text, "0"]);
            assert_eq!(outcome(&script), well("201"), "{text:?}");
            assert_eq!(script.get("vSbId"), *text);
            call_in_letters(&mut script, "SenseButler_GetValue", &[text, text]);
            assert_eq!((outcome(&script), script.get("vSbFound")), (well("200"), text.clone()), "{text:?}");
            stored += 1;
        }
    }
    assert_eq!(published, 2 * texts.len());
    assert!(topics > 40 && stored > 100, "{topics} {stored}");
    let namespaces = app.json("/v4/keyvaluesnamespaces").await;
    for text in NASTY.iter().filter(|text| !text.is_empty()) {
        assert!(namespaces.as_array().unwrap().iter().any(|name| name == text), "{text:?}");
    }
    app.stop().await;
    site.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn what_became_of_a_call_is_told_and_never_ends_the_reload() {
    let (site, _dir, app) = running().await;
    let mut script = reload(app.rest().await);
    let mut client = Client::connect(app.mqtt().await, "watcher").await;
    client.subscribe("#", QoS::AtLeastOnce).await;
    script.document = "a9900000-0000-4000-8000-000000000001".into();
    let line = "50 % done; \"Größe\"\nC:\\x $(y)";
    call(&mut script, "SenseButler_Trace", &[line]);
    assert_eq!((outcome(&script), script.traced.pop().unwrap()), (well("200"), r"50 % done GrößeC:\x y".to_owned()));
    let traced = loop {
        let message = client.next().await;
        if message.topic.starts_with("qliksense/reload_trace/") {
            break message;
        }
    };
    assert_eq!((traced.topic.rsplit('/').next(), &*traced.payload), (Some(&*script.document), line.as_bytes()));
    // A key makes a message that comes again harmless.
    call(&mut script, "SenseButler_PublishWith", &["k", "once", "2", "1", "order 'x'"]);
    let first = (outcome(&script), script.get("vSbId"));
    call(&mut script, "SenseButler_PublishWith", &["k", "once", "2", "1", "order 'x'"]);
    assert_eq!((outcome(&script), script.get("vSbId")), first);
    call(&mut script, "SenseButler_PublishWith", &["k", "other", "2", "1", "order 'x'"]);
    assert_eq!((script.get("vSbOk"), script.get("vSbStatus")), ("0".into(), "422".into()));
    let retained = app.json("/api/v1/broker/retained?filter=k").await;
    assert_eq!(retained["retained"][0]["payload"], "once", "{retained}");
    // Tasks.
    call(&mut script, "SenseButler_StartTask", &[WELL]);
    assert_eq!(outcome(&script), well("200"));
    assert!(script.get("vSbId").len() == 36);
    call(&mut script, "SenseButler_Happened", &["sense.task.failed", BADLY, "1h"]);
    assert_eq!((outcome(&script), script.get("vSbCount")), (("0".into(), "200".into(), String::new()), "0".into()));
    call(&mut script, "SenseButler_StartTaskAndWait", &[BADLY, "60"]);
    let execution = script.get("vSbId");
    let (ok, status, error) = outcome(&script);
    assert!(ok == "0" && status == "200" && error.starts_with("failed: "), "{error}");
    call(&mut script, "SenseButler_StartTaskAndWait", &[SLOWLY, "0"]);
    assert_eq!((script.get("vSbOk"), script.get("vSbStatus")), ("0".into(), "202".into()));
    for (wrong, status) in [("5a1e5000-0000-4000-8000-0000000000ff", "200"), (NAME, "400"), ("", "400")] {
        call(&mut script, "SenseButler_StartTask", &[wrong]);
        assert_eq!(
            (script.get("vSbOk"), script.get("vSbStatus")),
            ("0".into(), status.into()),
            "{wrong}: {:?}",
            outcome(&script)
        );
        assert!(!script.get("vSbError").is_empty() && script.get("vSbId").is_empty(), "{wrong}");
    }
    // Also what is wrong with the call itself.
    let asked = app.call("POST", "/api/v1/tasks/start?soft=1&timeout=x", &[], "{}").await;
    let expected =
        r#"{"ok":false,"status":400,"error":"`timeout` must be a number of seconds from 0 to 1000","id":""}"#;
    assert_eq!(asked, (200, expected.to_owned()));
    // What happened: the journal hears of it a moment after the answer.
    let asked = ["sense.task.failed", BADLY, "1h"];
    let begun = std::time::Instant::now();
    while script.get("vSbCount") != "1" {
        assert!(begun.elapsed() < app::PATIENCE);
        call(&mut script, "SenseButler_Happened", &asked);
    }
    assert_eq!((outcome(&script), script.get("vSbEventType")), (well("200"), "sense.task.failed".into()));
    call(&mut script, "SenseButler_Happened", &["sense.task", WELL, ""]);
    while script.get("vSbCount") != "1" {
        assert!(begun.elapsed() < app::PATIENCE);
        call(&mut script, "SenseButler_Happened", &["sense.task", WELL, ""]);
    }
    assert_eq!(script.get("vSbEventTask"), NAME, "it comes back whole");
    assert!(script.get("vSbEventTime").ends_with('Z') && !execution.is_empty());
    // Pairs that are not there.
    call(&mut script, "SenseButler_GetValue", &["nobody", "nothing"]);
    assert_eq!((script.get("vSbOk"), script.get("vSbFound")), ("0".into(), String::new()));
    call(&mut script, "SenseButler_SetValue", &["n", "", "x", ""]);
    assert_eq!((script.get("vSbOk"), script.get("vSbStatus")), ("0".into(), "0".into()));
    // Errors are as they were, whatever that was, and with nobody there at all.
    app.stop().await;
    for mode in ["0", "1", "2"] {
        script.set("ErrorMode", mode);
        for (name, arguments) in [
            ("SenseButler_Publish", vec!["a", "b"]),
            ("SenseButler_GetValue", vec!["a", "b"]),
            ("SenseButler_Happened", vec!["", "", ""]),
        ] {
            call(&mut script, name, &arguments);
            assert_eq!(
                (script.get("vSbOk"), script.get("vSbStatus"), script.get("ErrorMode")),
                ("0".into(), "0".into(), mode.into())
            );
            assert!(script.get("vSbError").contains("script log"));
        }
    }
    let mut every: Vec<&String> = script.subs();
    every.retain(|name| !script.called.contains(*name));
    assert_eq!(every, Vec::<&String>::new(), "a sub that no test calls");
    site.finish().await;
}

/// Every block of the page is a script of its own that begins with the include and ends well.
#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn the_examples_of_the_page_do_what_they_say() {
    const INCLUDE: &str = "$(Must_Include=lib://Scripts/sense_butler_subs.qvs);\n";
    let (site, _dir, app) = running().await;
    let page = fs::read_to_string(root().join("docs/load-scripts.md")).unwrap();
    let mut client = Client::connect(app.mqtt().await, "watcher").await;
    client.subscribe("#", QoS::AtLeastOnce).await;
    let mut script = reload(app.rest().await);
    let (mut ran, mut called) = (0, std::collections::HashSet::new());
    for block in page.split("```qlik\n").skip(1) {
        let block = block.split("```").next().unwrap();
        let text = block.replace(INCLUDE, "");
        if text.contains("SenseButler_Happened") {
            // What the blocks before it started has ended, and the journal has heard of it.
            let begun = std::time::Instant::now();
            while app.json(&format!("/api/v1/events?summary=true&taskId={WELL}")).await["count"] == 0 {
                assert!(begun.elapsed() < app::PATIENCE);
                tokio::task::yield_now().await;
            }
        }
        let ended = script.run(&text);
        assert_eq!(ended, Ok::<(), Ended>(()), "{block}");
        assert_eq!(outcome(&script).0, "1", "{block}\n{:?}", outcome(&script));
        called.extend(std::mem::take(&mut script.called));
        ran += 1;
    }
    assert!(page.contains(INCLUDE.trim()));
    assert!(ran >= 6, "{ran}");
    for name in script.subs().into_iter().filter(|name| page.contains(name.as_str())) {
        assert!(called.contains(name), "{name} is named and not shown");
    }
    app.stop().await;
    site.finish().await;
}

/// What the evaluator is for: a sub that expands its arguments fails here as it would there.
#[test]
fn a_careless_script_is_found_out() {
    let script = || Script::new(Box::new(|_| Err("nobody".into())));
    let careless = "SUB Say (vText)\n  LET vSaid = '$(vText)';\nEND SUB\n";
    let mut fine = script();
    fine.run(&format!("{careless}CALL Say('x');")).unwrap();
    assert_eq!(fine.get("vSaid"), "x");
    let mut ran = 0;
    for text in ["It''s", "a' & 'b", "x'; DROP TABLE y; LET z = '"] {
        let caught = std::panic::catch_unwind(|| {
            let mut script = script();
            script.set("vText", &text.replace("''", "'"));
            script.run(&format!("{careless}CALL Say(vText);")).unwrap();
            script.get("vSaid")
        });
        assert!(caught.is_err() || caught.is_ok_and(|said| said != text), "{text}");
        ran += 1;
    }
    assert_eq!(ran, 3);
}
