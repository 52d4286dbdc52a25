//! Who may do what, over real sockets: access rules, rights that are taken away, log-ins that fail, clients that send too much.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use argon2::PasswordHasher;
use sense_butler::{
    broker::settings::{Action, Rate, Rights, Rule, Settings, TopicPattern, User},
    names::Secret,
};
use support::{
    raw::{Hello, Raw},
    running::Running,
};

const NOT_AUTHORIZED: u8 = 0x87;
const ADMINISTRATIVE: u8 = 0x98;
const ALL: Rights = Rights { publish: true, subscribe: true, start: true };

/// A user whose password is `geheim`, with a hash that is cheap to verify, always the same.
fn user(name: &str) -> User {
    static HASH: LazyLock<Secret> = LazyLock::new(|| hash("geheim"));
    User { rights: ALL, ..User::new(name, HASH.clone()) }
}

fn hash(password: &str) -> Secret {
    let params = argon2::Params::new(8, 1, 1, None).unwrap();
    let argon2 = argon2::Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, params);
    Secret::new(argon2.hash_password(password.as_bytes()).unwrap().to_string())
}

fn rule(allow: bool, actions: &[Action], topics: &[&str]) -> Rule {
    Rule {
        allow,
        actions: actions.iter().copied().collect(),
        users: None,
        groups: None,
        clients: None,
        listeners: None,
        topics: topics.iter().map(|text| TopicPattern::new(text).unwrap()).collect(),
    }
}

fn of_user(name: &str, rule: Rule) -> Rule {
    Rule { users: Some(vec![name.into()]), ..rule }
}

/// Users only.
fn with(users: Vec<User>, access: Vec<Rule>) -> Settings {
    let mut settings = Running::settings();
    settings.listeners[0].allow_anonymous = false;
    Settings { users, access, ..settings }
}

fn start(settings: Settings) -> Running {
    Running::start(|present| *present = settings)
}

/// In MQTT 5, as a user whose password is `geheim`.
async fn connect(broker: &Running, user: &str, id: &str) -> Raw {
    let (raw, connack) = Raw::connect(broker.address, &Hello::v5(id).user(user, "geheim")).await;
    assert_eq!(connack[1], 0, "{user} {id}");
    raw
}

/// Publishes at QoS 1; the code of the PUBACK.
async fn publish(client: &mut Raw, topic: &str, payload: &str) -> u8 {
    client.publish(topic, payload.as_bytes(), 1, 7, false).await;
    let (first, body) = client.receive().await.expect("a PUBACK");
    assert_eq!(first, 0x40);
    body.get(2).copied().unwrap_or(0)
}

/// Waits for something that happens by itself.
async fn until(mut happened: impl AsyncFnMut() -> bool) {
    let wait = async {
        while !happened().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), wait).await.expect("in time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_rule() {
    let group = Rule { groups: Some(vec!["machines".into()]), ..rule(true, &[Action::Publish], &["machines/%u/#"]) };
    let rules = vec![
        group,
        rule(false, &[Action::Publish], &["machines/#"]),
        of_user("hmi", rule(false, &[Action::Subscribe], &["plant/secret/#"])),
        of_user("plc", rule(true, &[Action::Subscribe], &["orders/%c/+"])),
        of_user("hmi", rule(false, &[Action::Start], &["#"])),
        Rule {
            clients: Some(vec![sense_butler::broker::settings::ClientPattern::new("guest-*").unwrap()]),
            ..rule(false, &[Action::Publish, Action::Subscribe], &["#"])
        },
    ];
    let plc = User { groups: vec!["machines".into()], subscribe: Some(vec![]), ..user("plc") };
    let broker = start(with(vec![plc, user("hmi")], rules));
    let (mut plc, mut hmi) = (connect(&broker, "plc", "plc-7").await, connect(&broker, "hmi", "panel").await);
    let mut guest = connect(&broker, "hmi", "guest-1").await;
    let (no, nobody) = (NOT_AUTHORIZED, 0x10);
    let mut cases = 0;
    for (client, topic, code) in [
        ("plc", "machines/plc/state", nobody),
        ("plc", "machines/hmi/state", no),
        ("hmi", "machines/hmi/state", no),
        ("hmi", "plant/a", nobody),
        ("plc", "q/start", nobody),
        ("hmi", "q/start", no),
        ("guest", "plant/a", no),
    ] {
        let client = match client {
            "plc" => &mut plc,
            "hmi" => &mut hmi,
            _ => &mut guest,
        };
        assert_eq!(publish(client, topic, "x").await, code, "{topic}");
        cases += 1;
    }
    for (client, filter, code) in [
        ("hmi", "plant/secret/a", no),
        ("hmi", "plant/+/a", no),
        ("hmi", "#", no),
        ("hmi", "plant/open/#", 0),
        ("hmi", "$share/g/plant/secret/#", no),
        ("plc", "orders/plc-7/+", 0),
        ("plc", "orders/plc-8/+", no),
        ("plc", "orders/#", no),
        ("guest", "plant/open/a", no),
    ] {
        let client = match client {
            "plc" => &mut plc,
            "hmi" => &mut hmi,
            _ => &mut guest,
        };
        assert_eq!(client.subscribe(filter, 0).await, code, "{filter}");
        cases += 1;
    }
    assert_eq!(cases, 16);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_with_wildcards_match_nothing() {
    let names = ["+", "#", "a/b", "+/+", "a#"];
    let rules = vec![
        rule(true, &[Action::Subscribe, Action::Publish], &["users/%u/#", "clients/%c/#"]),
        rule(false, &[Action::Subscribe, Action::Publish], &["#"]),
    ];
    let users = names.iter().chain(&["anna"]).map(|name| user(name)).collect();
    let broker = start(with(users, rules));
    for name in names {
        // As user name, and as client id.
        for (user, id, filter) in [(name, "c", format!("users/{name}/x")), ("anna", name, format!("clients/{name}/x"))]
        {
            let mut client = connect(&broker, user, id).await;
            let is_filter = sense_butler::names::TopicFilter::new(&filter).is_ok();
            let refusal = if is_filter { NOT_AUTHORIZED } else { 0x8f };
            assert_eq!(client.subscribe(&filter, 0).await, refusal, "{filter}");
            for filter in ["users/#", "clients/#", "users/anna/c", "clients/x/#"] {
                let own = user == "anna" && filter == "users/anna/c";
                assert_eq!(
                    client.subscribe(filter, 0).await,
                    if own { 0 } else { NOT_AUTHORIZED },
                    "{user} {id}: {filter}"
                );
            }
            assert_eq!(publish(&mut client, "users/a/b/x", "x").await, NOT_AUTHORIZED);
        }
    }
    let mut anna = connect(&broker, "anna", "c1").await;
    assert_eq!(anna.subscribe("users/anna/#", 0).await, 0);
    assert_eq!(publish(&mut anna, "clients/c1/x", "x").await, 0x10);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wide_subscription_brings_what_may_be_received() {
    let rules = vec![of_user("hmi", rule(false, &[Action::Receive], &["plant/secret/#"]))];
    let broker = start(with(vec![user("plc"), user("hmi")], rules));
    let mut plc = connect(&broker, "plc", "plc").await;
    // Retained before, live after.
    plc.publish_with(0x31, "plant/secret/kept", 0, &[], b"1").await;
    plc.publish_with(0x31, "plant/kept", 0, &[], b"2").await;
    assert_eq!(publish(&mut plc, "marker", "").await, 0x10);
    let mut hmi = connect(&broker, "hmi", "hmi").await;
    assert_eq!(hmi.subscribe("$share/g/plant/#", 0).await, NOT_AUTHORIZED, "shared, it would lose messages to others");
    assert_eq!(hmi.subscribe("#", 2).await, 2);
    for topic in ["plant/secret/a", "plant/a", "plant/secret", "plant/b"] {
        assert_eq!(publish(&mut plc, topic, "3").await, 0);
    }
    for expected in ["plant/kept", "plant/a", "plant/b"] {
        let got = hmi.receive_publish().await;
        assert_eq!(got.topic, expected);
        if got.qos > 0 {
            hmi.ack(0x40, got.id).await;
        }
    }
    assert_eq!(broker.labelled("sense_butler_mqtt_messages_dropped_total{reason=\"not_receivable\"}"), 3);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_will_is_judged_at_connect_and_again_when_it_is_published() {
    let deny = || of_user("plc", rule(false, &[Action::Publish], &["wills/#"]));
    let broker = start(with(vec![user("plc"), user("hmi")], vec![]));
    let mut observer = connect(&broker, "hmi", "observer").await;
    assert_eq!(observer.subscribe("wills/#", 0).await, 0);
    let will =
        |id: &str| Hello { will: Some((format!("wills/{id}"), "w".into(), 0)), ..Hello::v5(id).user("plc", "geheim") };
    let (mut allowed, connack) = Raw::connect(broker.address, &will("first")).await;
    assert_eq!(connack[1], 0);
    allowed.bytes(b"\xff").await;
    assert_eq!(observer.receive_publish().await.topic, "wills/first");
    let (second, _) = Raw::connect(broker.address, &will("second")).await;
    broker.handle.reload(&with(vec![user("plc"), user("hmi")], vec![deny()]));
    drop(second);
    until(async || broker.labelled("sense_butler_mqtt_messages_dropped_total{reason=\"not_authorized\"}") == 1).await;
    let (_, connack) = Raw::connect(broker.address, &will("third")).await;
    assert_eq!(connack[1], NOT_AUTHORIZED);
    let mut hmi = connect(&broker, "hmi", "other").await;
    assert_eq!(publish(&mut hmi, "wills/marker", "").await, 0);
    assert_eq!(observer.receive_publish().await.topic, "wills/marker", "no second will");
    broker.stop().await;
}

/// A session that holds subscriptions, unacknowledged and queued messages when its rights shrink.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_promised_under_other_rules_is_not_delivered() {
    let broker = start(with(vec![user("plc"), user("hmi")], vec![]));
    let mut plc = connect(&broker, "plc", "plc").await;
    plc.publish_with(0x31, "secret/kept", 0, &[], b"k").await;
    let hello = Hello::v5("hmi").kept().user("hmi", "geheim");
    let (mut hmi, _) = Raw::connect(broker.address, &hello).await;
    assert_eq!(hmi.subscribe_with("secret/live", 1, &[]).await, 1);
    assert_eq!(hmi.subscribe("open/#", 1).await, 1);
    // Sent and not acknowledged.
    assert_eq!(publish(&mut plc, "secret/live", "1").await, 0);
    assert_eq!(publish(&mut plc, "open/a", "2").await, 0);
    assert_eq!(hmi.receive_publish().await.payload, b"1");
    assert_eq!(hmi.receive_publish().await.payload, b"2");
    drop(hmi);
    // Queued while away.
    assert_eq!(publish(&mut plc, "secret/live", "3").await, 0);
    assert_eq!(publish(&mut plc, "open/a", "4").await, 0);
    let secret = of_user("hmi", rule(false, &[Action::Subscribe], &["secret/#"]));
    broker.handle.reload(&with(vec![user("plc"), user("hmi")], vec![secret]));
    // The subscription is ended although its client is away.
    until(async || publish(&mut plc, "secret/live", "5").await == 0x10).await;
    let (mut hmi, connack) = Raw::connect(broker.address, &hello).await;
    assert_eq!(connack[..2], [1, 0], "the session goes on");
    let again = hmi.receive_publish().await;
    assert_eq!((again.payload.as_slice(), again.dup), (&b"2"[..], true));
    hmi.ack(0x40, again.id).await;
    let queued = hmi.receive_publish().await;
    assert_eq!(queued.payload, b"4");
    hmi.ack(0x40, queued.id).await;
    assert_eq!(hmi.subscribe("secret/kept", 0).await, NOT_AUTHORIZED);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_reaches_connections_under_way() {
    let broker = start(with(vec![user("plc"), user("hmi")], vec![]));
    let mut plc = connect(&broker, "plc", "plc").await;
    let mut hmi = connect(&broker, "hmi", "hmi").await;
    assert_eq!(hmi.subscribe("a", 0).await, 0);
    assert_eq!(hmi.subscribe("b", 0).await, 0);
    assert_eq!(publish(&mut plc, "a", "1").await, 0);
    assert_eq!(hmi.receive_publish().await.topic, "a");
    let rules = vec![
        of_user("hmi", rule(false, &[Action::Subscribe], &["a"])),
        of_user("plc", rule(false, &[Action::Publish], &["c"])),
    ];
    broker.handle.reload(&with(vec![user("plc"), user("hmi")], rules));
    // From here on nothing of it is delivered, whether the subscription is ended yet or not.
    publish(&mut plc, "a", "2").await;
    assert_eq!(publish(&mut plc, "b", "3").await, 0);
    assert_eq!(hmi.receive_publish().await.topic, "b");
    until(async || publish(&mut plc, "a", "4").await == 0x10).await;
    assert_eq!(publish(&mut plc, "c", "5").await, NOT_AUTHORIZED, "the remembered verdict is forgotten");
    assert_eq!(hmi.subscribe("a", 0).await, NOT_AUTHORIZED);
    broker.handle.reload(&with(vec![user("plc"), user("hmi")], vec![]));
    assert_eq!(publish(&mut plc, "c", "6").await, 0x10);
    assert_eq!(hmi.subscribe("a", 0).await, 0, "what is allowed again is");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_has_no_place_any_more_is_disconnected_with_the_reason() {
    let names = ["stays", "goes", "changes", "nothing"];
    let broker = start(with(names.map(user).to_vec(), vec![]));
    let mut clients = Vec::new();
    for name in names {
        let (raw, connack) = Raw::connect(broker.address, &Hello::v5(name).kept().user(name, "geheim")).await;
        assert_eq!(connack[1], 0);
        clients.push(raw);
    }
    assert_eq!(clients[1].subscribe("goes", 1).await, 1);
    let (mut old, _) = Raw::connect(broker.address, &Hello::v3("old").user("goes", "geheim")).await;
    let after = vec![
        user("stays"),
        User { password_hash: Some(hash("other")), ..user("changes") },
        User { rights: Rights::default(), ..user("nothing") },
    ];
    broker.handle.reload(&with(after, vec![]));
    for (at, code) in [(1, ADMINISTRATIVE), (2, ADMINISTRATIVE), (3, NOT_AUTHORIZED)] {
        assert_eq!(clients[at].receive().await, Some((0xe0, vec![code])), "{}", names[at]);
        assert!(clients[at].is_closed().await);
    }
    assert!(old.is_closed().await, "3.1.1 has no word for it");
    assert_eq!(publish(&mut clients[0], "x", "still here").await, 0x10);
    let (_, connack) = Raw::connect(broker.address, &Hello::v5("goes").user("goes", "geheim")).await;
    assert_eq!(connack[1], 0x86);
    // Back again: the session went with the user, so the client subscribes anew; the one whose password changed keeps its session.
    broker.handle.reload(&with(names.map(user).to_vec(), vec![]));
    for (name, present) in [("goes", 0), ("nothing", 1), ("changes", 1)] {
        let (_, connack) = Raw::connect(broker.address, &Hello::v5(name).kept().user(name, "geheim")).await;
        assert_eq!(connack[..2], [present, 0], "{name}");
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reload_closes_the_anonymous_door_and_never_opens_it() {
    let broker = Running::start(|_| {});
    let (mut anybody, connack) = Raw::connect(broker.address, &Hello::v5("anybody")).await;
    assert_eq!(connack[1], 0);
    broker.handle.reload(&with(vec![user("plc")], vec![]));
    assert_eq!(anybody.receive().await, Some((0xe0, vec![ADMINISTRATIVE])));
    let mut plc = connect(&broker, "plc", "plc").await;
    // Emptied: what such a file says by default is that everybody may come in.
    broker.handle.reload(&Running::settings());
    assert_eq!(plc.receive().await, Some((0xe0, vec![ADMINISTRATIVE])));
    for hello in [Hello::v5("a"), Hello::v5("a").user("plc", "geheim"), Hello::v3("a")] {
        let (_, connack) = Raw::connect(broker.address, &hello).await;
        assert_ne!(connack[1], 0);
    }
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_is_its_users_own() {
    let broker = start(with(vec![user("anna"), user("bo")], vec![]));
    let hello = |user: &str| Hello::v5("same").kept().user(user, "geheim");
    let (mut anna, _) = Raw::connect(broker.address, &hello("anna")).await;
    assert_eq!(anna.subscribe("for/anna", 1).await, 1);
    drop(anna);
    let mut plc = connect(&broker, "bo", "plc").await;
    assert_eq!(publish(&mut plc, "for/anna", "secret").await, 0);
    let (mut bo, connack) = Raw::connect(broker.address, &hello("bo")).await;
    assert_eq!(connack[..2], [0, 0], "another user finds no session");
    assert_eq!(publish(&mut bo, "for/anna", "x").await, 0x10, "and nothing in it");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guessing_is_throttled_and_locks_nobody_out() {
    let broker = start({
        let mut settings = with(vec![user("plc"), user("hmi")], vec![]);
        settings.limits.failed_logins = 5;
        settings
    });
    let mut known = connect_from(&broker, [127, 0, 0, 2], "plc", "geheim").await;
    assert_eq!(known.pop(), Some(0));
    let (mut wrong, mut throttled) = (0, 0);
    for number in 0..20 {
        let hello = Hello::v5("guess").user("plc", &number.to_string());
        match Raw::connect(broker.address, &hello).await.1[1] {
            0x86 => wrong += 1,
            0x9f => throttled += 1,
            other => panic!("{other:02x}"),
        }
    }
    assert_eq!((wrong, throttled), (5, 15));
    let (_, connack) = Raw::connect(broker.address, &Hello::v3("old").user("hmi", "geheim")).await;
    assert_eq!(connack[1], 3, "the address is throttled, in the words of 3.1.1");
    // The name is spent as well; who was right with it before comes in, from elsewhere.
    assert_eq!(connect_from(&broker, [127, 0, 0, 2], "plc", "geheim").await.pop(), Some(0));
    assert_eq!(connect_from(&broker, [127, 0, 0, 3], "plc", "geheim").await.pop(), Some(0));
    assert_eq!(connect_from(&broker, [127, 0, 0, 4], "plc", "wrong").await.pop(), Some(0x9f));
    assert_eq!(connect_from(&broker, [127, 0, 0, 4], "hmi", "geheim").await.pop(), Some(0));
    assert_eq!(broker.labelled("sense_butler_mqtt_connections_refused_total{reason=\"login_rate\"}"), 17);
    broker.stop().await;
}

/// A log-in from another loopback address; the CONNACK's code last.
async fn connect_from(broker: &Running, from: [u8; 4], user: &str, password: &str) -> Vec<u8> {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    let stream = socket.connect(broker.address).await.unwrap();
    let (_, connack) = Raw::greet(stream, &Hello::v5("from elsewhere").user(user, password)).await;
    connack.expect("a CONNACK")[..2].to_vec()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connect_storm_ends_at_the_door() {
    let broker = Running::start(|settings| settings.limits.connects = 6);
    for number in 0..6 {
        let (_, connack) = Raw::connect(broker.address, &Hello::v5(&number.to_string())).await;
        assert_eq!(connack[1], 0);
    }
    let mut seventh = Raw::open(broker.address, 5).await;
    assert!(seventh.is_closed().await);
    assert_eq!(broker.labelled("sense_butler_mqtt_connections_refused_total{reason=\"connect_rate\"}"), 1);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_sends_too_much_is_slowed_and_loses_nothing() {
    let fast = User { rate: Some(Rate::default()), ..user("fast") };
    let broker = start({
        let mut settings = with(vec![user("slow"), fast], vec![]);
        settings.limits.rate = Rate { messages: 100, bytes: 0 };
        settings
    });
    let mut subscriber = connect(&broker, "fast", "sub").await;
    assert_eq!(subscriber.subscribe("t/#", 1).await, 1);
    let (mut slow, mut fast) = (connect(&broker, "slow", "slow").await, connect(&broker, "fast", "fast").await);
    let (begun, count) = (Instant::now(), 150u8);
    for number in 0..count {
        slow.publish("t/slow", &[number], 0, 0, false).await;
        fast.publish("t/fast", &[number], 0, 0, false).await;
    }
    slow.publish("t/slow", b"end", 1, 1, false).await;
    let (mut of_slow, mut of_fast, mut fast_done) = (0, 0, None);
    while of_slow < count {
        let got = subscriber.receive_publish().await;
        let next = if got.topic == "t/slow" { &mut of_slow } else { &mut of_fast };
        assert_eq!(got.payload, [*next], "in order, nothing lost");
        *next += 1;
        if of_fast == count && fast_done.is_none() {
            fast_done = Some(of_slow);
        }
    }
    // A second's worth at once, the rest in half a second; who has no limit does not wait for who has.
    assert!(begun.elapsed() >= Duration::from_millis(300), "{:?}", begun.elapsed());
    assert!(fast_done.is_some_and(|slow| slow < count), "{fast_done:?}");
    let (first, _) = slow.receive().await.unwrap();
    assert_eq!(first, 0x40);
    broker.stop().await;
}
