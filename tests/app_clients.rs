//! Clients of four families against the real program: rumqttc in MQTT 3.1.1 and 5, paho (Python) and mosquitto_pub/sub in both.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "support/app.rs"]
mod app;
#[path = "support/mqtt.rs"]
mod mqtt;
#[path = "support/mqtt5.rs"]
mod mqtt5;

use std::{
    process::{Command, Output},
    time::Duration,
};

use app::{App, Dir, said};
use mqtt::{Client, options};
use mqtt5::{Client5, options_5};
use rumqttc::{
    ConnectReturnCode, ConnectionError, LastWill, QoS,
    v5::{self, mqttbytes::v5::PublishProperties},
};

const NAME: &str = "plc/7";
const PASSWORD: &str = "geheim å";
const TOPIC: &str = "å/ö/日本";

/// The program with two listeners: one lets anybody in, the other its one user.
struct Site {
    app: App,
    open: u16,
    users: u16,
    _dir: Dir,
}

impl Site {
    async fn start() -> Self {
        let dir = Dir::new();
        let hashed = app::run_with_input(&dir, &["hash-password"], &format!("{PASSWORD}\n"));
        let text = said(&hashed);
        let hash = text.lines().next().unwrap();
        assert!(hashed.status.success() && hash.starts_with("$argon2id$"), "{text}");
        let listener = |name: &str, anybody: bool| {
            format!("[[listeners]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\nallow_anonymous = {anybody}\n")
        };
        let user = format!("[[users]]\nname = \"{NAME}\"\npassword_hash = \"{hash}\"\n");
        dir.write("broker.toml", &[listener("open", true), listener("users", false), user].concat());
        let arguments = [&["run"], &app::FREE_PORTS[2..]].concat();
        let mut app = App::start(&dir, &arguments);
        app.wait_until_ready().await;
        let (open, users) = (app.listener("open").await, app.listener("users").await);
        Self { app, open, users, _dir: dir }
    }
}

#[tokio::test]
async fn rumqttc_in_3_1_1() {
    let site = Site::start().await;
    let mut keepalive_0 = options(site.open, "with/slash");
    keepalive_0.set_keep_alive(Duration::ZERO);
    let mut subscriber = Client::with(keepalive_0).await;
    subscriber.subscribe("å/#", QoS::ExactlyOnce).await;
    let mut publisher = Client::connect(site.open, "pub").await;
    for number in 0..60 {
        let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][number % 3];
        publisher.publish(TOPIC, qos, false, number.to_string()).await;
        let got = subscriber.next().await;
        assert_eq!((got.topic.as_str(), got.qos, got.payload), (TOPIC, qos, number.to_string().into()));
    }

    publisher.publish("å/retained", QoS::AtLeastOnce, true, "kept").await;
    assert!(!subscriber.next().await.retain);
    let mut late = Client::connect(site.open, "late").await;
    late.subscribe("å/retained", QoS::AtLeastOnce).await;
    let kept = late.next().await;
    assert_eq!((kept.retain, kept.payload), (true, "kept".into()));

    for (id, says_goodbye) in [("polite", true), ("mortal", false)] {
        let mut mortal = options(site.open, id);
        mortal.set_last_will(LastWill::new("å/will", id, QoS::AtLeastOnce, false));
        let mortal = Client::with(mortal).await;
        if says_goodbye { mortal.leave().await } else { mortal.vanish().await }
    }
    let will = subscriber.next().await;
    assert_eq!((will.topic.as_str(), will.payload), ("å/will", "mortal".into()));

    let mut keeps = options(site.open, "keeps");
    keeps.set_clean_session(false);
    let (mut first, present) = Client::open(keeps.clone()).await.unwrap();
    assert!(!present);
    first.subscribe("while/away", QoS::ExactlyOnce).await;
    first.leave().await;
    for (qos, text) in [(QoS::AtLeastOnce, "one"), (QoS::ExactlyOnce, "two")] {
        publisher.publish("while/away", qos, false, text).await;
    }
    let (mut again, present) = Client::open(keeps).await.unwrap();
    assert!(present);
    assert_eq!((again.next().await.payload, again.next().await.payload), ("one".into(), "two".into()));

    for (user, code) in [
        (Some((NAME, "wrong")), ConnectReturnCode::BadUserNamePassword),
        (Some(("nobody", PASSWORD)), ConnectReturnCode::BadUserNamePassword),
        (None, ConnectReturnCode::NotAuthorized),
    ] {
        let mut stranger = options(site.users, "stranger");
        if let Some((name, password)) = user {
            stranger.set_credentials(name, password);
        }
        let Err(ConnectionError::ConnectionRefused(found)) = Client::open(stranger).await else { panic!("{user:?}") };
        assert_eq!(found, code, "{user:?}");
    }
    let mut known = options(site.users, "known");
    known.set_credentials(NAME, PASSWORD);
    Client::with(known).await.leave().await;
    site.app.stop().await;
}

#[tokio::test]
async fn rumqttc_in_5() {
    let site = Site::start().await;
    let mut subscriber = Client5::open(site.open, "with/slash").await;
    subscriber.subscribe("å/#").await;
    let mut publisher = Client5::open(site.open, "pub").await;
    let properties = PublishProperties {
        message_expiry_interval: Some(1_000),
        content_type: Some("text/plain".into()),
        user_properties: vec![("k".into(), "1".into()), ("k".into(), "2".into()), ("å".into(), "日本".into())],
        ..PublishProperties::default()
    };
    for number in 0..60_u8 {
        let text = number.to_string();
        publisher.publish(TOPIC, number % 3, false, text.as_str(), properties.clone()).await;
        let got = subscriber.next().await;
        assert_eq!((&got.topic[..], got.qos as u8, &got.payload[..]), (TOPIC.as_bytes(), number % 3, text.as_bytes()));
        let found = got.properties.unwrap();
        assert_eq!(found.user_properties, properties.user_properties);
        assert_eq!(found.content_type, properties.content_type);
        assert!(found.message_expiry_interval.is_some_and(|left| (1..=1_000).contains(&left)), "{found:?}");
    }

    publisher.publish("å/retained", 1, true, "kept", PublishProperties::default()).await;
    assert!(!subscriber.next().await.retain);
    let mut late = Client5::open(site.open, "late").await;
    late.subscribe("å/retained").await;
    let kept = late.next().await;
    assert_eq!((kept.retain, &kept.payload[..]), (true, &b"kept"[..]));

    let mut mortal = options_5(site.open, "mortal");
    let will = v5::mqttbytes::v5::LastWill::new("å/will", "gone", v5::mqttbytes::QoS::AtLeastOnce, false, None);
    mortal.set_last_will(will);
    drop(Client5::connect(mortal).await.unwrap());
    let will = subscriber.next().await;
    assert_eq!((&will.topic[..], &will.payload[..]), ("å/will".as_bytes(), &b"gone"[..]));

    let mut keeps = options_5(site.open, "keeps");
    keeps.set_clean_start(false).set_session_expiry_interval(Some(3_600));
    let (mut first, present) = Client5::connect(keeps.clone()).await.unwrap();
    assert!(!present);
    first.subscribe("while/away").await;
    drop(first);
    for qos in [1, 2] {
        publisher.publish("while/away", qos, false, qos.to_string(), PublishProperties::default()).await;
    }
    let (mut again, present) = Client5::connect(keeps).await.unwrap();
    assert!(present);
    assert_eq!((&again.next().await.payload[..], &again.next().await.payload[..]), (&b"1"[..], &b"2"[..]));

    use v5::mqttbytes::v5::ConnectReturnCode as Code;
    for (user, code) in [(Some((NAME, "wrong")), Code::BadUserNamePassword), (None, Code::NotAuthorized)] {
        let mut stranger = options_5(site.users, "stranger");
        if let Some((name, password)) = user {
            stranger.set_credentials(name, password);
        }
        let Err(v5::ConnectionError::ConnectionRefused(found)) = Client5::connect(stranger).await else {
            panic!("{user:?} came in");
        };
        assert_eq!(found, code, "{user:?}");
    }
    site.app.stop().await;
}

/// A message whose time has run out while its receiver was away does not come; one with time left does.
#[tokio::test]
async fn an_expired_message_does_not_arrive() {
    let site = Site::start().await;
    let mut keeps = options_5(site.open, "keeps");
    keeps.set_clean_start(false).set_session_expiry_interval(Some(3_600));
    let (mut first, _) = Client5::connect(keeps.clone()).await.unwrap();
    first.subscribe("news").await;
    drop(first);
    let mut publisher = Client5::open(site.open, "pub").await;
    let lasting =
        |seconds| PublishProperties { message_expiry_interval: Some(seconds), ..PublishProperties::default() };
    publisher.publish("news", 1, false, "stale", lasting(1)).await;
    publisher.publish("news", 1, false, "fresh", lasting(1_000)).await;
    // Time itself is what is waited for here.
    tokio::time::sleep(Duration::from_millis(2_100)).await;
    let (mut again, _) = Client5::connect(keeps).await.unwrap();
    let next = again.next().await;
    assert_eq!(&next.payload[..], b"fresh");
    assert!(next.properties.unwrap().message_expiry_interval.unwrap() < 1_000, "the wait is taken off");
    site.app.stop().await;
}

#[tokio::test]
async fn paho_in_both_versions() {
    let Some(python) = app::python_with_paho("paho_in_both_versions") else { return };
    let site = Site::start().await;
    let script = app::root().join("tests/python/clients.py");
    let ports = [site.open.to_string(), site.users.to_string()];
    let mut command = Command::new(python);
    command.arg(script).args(&ports).args([NAME, PASSWORD]).env("PYTHONIOENCODING", "utf-8");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap();
    assert!(output.status.success(), "{}\n{}", said(&output), site.app.said());
    let text = String::from_utf8(output.stdout).unwrap();
    let checks: u32 = text.trim().strip_suffix(" checks").unwrap_or_else(|| panic!("{text}")).parse().unwrap();
    assert_eq!(checks, 2 * 79 + 3);
    site.app.stop().await;
}

/// Runs one of mosquitto's clients to its end.
fn mosquitto(program: &str, version: &str, port: u16, arguments: &[&str]) -> Output {
    let port = port.to_string();
    Command::new(program).args(["-h", "127.0.0.1", "-p", &port, "-V", version]).args(arguments).output().unwrap()
}

fn must(output: Output) -> String {
    assert!(output.status.success(), "{}", said(&output));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn mosquitto_pub_and_sub_in_both_versions() {
    if !app::has_program("mosquitto_pub", "--help", "mosquitto_pub_and_sub_in_both_versions") {
        return;
    }
    let site = Site::start().await;
    let mut tried = 0;
    for version in ["311", "5"] {
        for qos in ["0", "1", "2"] {
            kept_while_away(&site, version, qos);
            tried += 1;
        }
        let topic = format!("{TOPIC}/{version}");
        must(mosquitto(
            "mosquitto_pub",
            version,
            site.open,
            &["-t", &topic, "-m", "kept", "-q", "1", "-r", "-i", "a/b"],
        ));
        let got = must(mosquitto("mosquitto_sub", version, site.open, &["-t", &topic, "-C", "1", "-F", "%t %r %p"]));
        assert_eq!(got, format!("{topic} 1 kept\n"));
        passwords(&site, version);
    }
    assert_eq!(tried, 6);
    mosquitto_properties(&site);
    site.app.stop().await;
}

/// A persistent session is made, left, filled and read again.
fn kept_while_away(site: &Site, version: &str, qos: &str) {
    let (id, topic) = (format!("kept/{version}/{qos}"), format!("away/å/{version}/{qos}"));
    let session = ["-i", &id, "-c", "-q", "2", "-t", &topic, "-x", "3600"];
    let session = if version == "5" { &session[..] } else { &session[..7] };
    // -E: leave when the SUBACK is there.
    must(mosquitto("mosquitto_sub", version, site.open, &[session, &["-E"]].concat()));
    must(mosquitto("mosquitto_pub", version, site.open, &["-t", &topic, "-m", "not kept for QoS 0", "-q", qos]));
    must(mosquitto("mosquitto_pub", version, site.open, &["-t", &topic, "-m", "end", "-q", "1"]));
    let count = if qos == "0" { "1" } else { "2" };
    let got = must(mosquitto("mosquitto_sub", version, site.open, &[session, &["-C", count, "-F", "%q %p"]].concat()));
    // mosquitto_sub hands a QoS 2 message over at its PUBREL: after the QoS 1 message that came later.
    let mut got: Vec<&str> = got.lines().collect();
    got.sort_by_key(|line| line.ends_with("end"));
    let first = format!("{qos} not kept for QoS 0");
    let expected = if qos == "0" { vec!["1 end"] } else { vec![&*first, "1 end"] };
    assert_eq!(got, expected, "MQTT {version}, QoS {qos}");
}

fn passwords(site: &Site, version: &str) {
    let login = |password| ["-t", "a", "-m", "b", "-q", "1", "-u", NAME, "-P", password];
    must(mosquitto("mosquitto_pub", version, site.users, &login(PASSWORD)));
    let refused = said(&mosquitto("mosquitto_pub", version, site.users, &login("wrong")));
    // Two versions of the program write it in two ways.
    let words = refused.to_lowercase().replace("user name", "username");
    assert!(words.contains("bad username or password"), "{refused}");
    let nobody = said(&mosquitto("mosquitto_pub", version, site.users, &["-t", "a", "-m", "b", "-q", "1"]));
    assert!(nobody.to_lowercase().contains("not authori"), "{nobody}");
}

fn mosquitto_properties(site: &Site) {
    let properties = ["-D", "publish", "user-property", "k", "å", "-D", "publish", "message-expiry-interval", "1000"];
    let publish = [&["-t", "props", "-m", "x", "-q", "1", "-r"], &properties[..]].concat();
    must(mosquitto("mosquitto_pub", "5", site.open, &publish));
    let got = must(mosquitto("mosquitto_sub", "5", site.open, &["-t", "props", "-C", "1", "-F", "%P %E"]));
    let (user, left) = got.trim().rsplit_once(' ').unwrap();
    assert_eq!(user, "k:å");
    assert!((1..=1_000).contains(&left.parse::<u32>().unwrap()), "{got}");
}
