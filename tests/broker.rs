//! The embedded broker from outside, over real sockets, with clients that are not ours.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use sense_butler::{broker::settings::Rights, names::TopicFilter};
use support::{
    raw::{Hello, Raw},
    running::Running,
};

trait Clients {
    fn client(&self, id: &str) -> (AsyncClient, EventLoop);
}

impl Clients for Running {
    fn client(&self, id: &str) -> (AsyncClient, EventLoop) {
        let mut options = MqttOptions::new(id, self.address.ip().to_string(), self.address.port());
        options.set_keep_alive(Duration::from_secs(30));
        AsyncClient::new(options, 100)
    }
}

async fn until<T>(events: &mut EventLoop, mut found: impl FnMut(Packet) -> Option<T>) -> T {
    let search = async {
        loop {
            if let Event::Incoming(packet) = events.poll().await.unwrap()
                && let Some(value) = found(packet)
            {
                return value;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), search).await.expect("in time")
}

async fn subscribed(client: &AsyncClient, events: &mut EventLoop, filter: &str, qos: QoS) {
    client.subscribe(filter, qos).await.unwrap();
    until(events, |packet| matches!(packet, Packet::SubAck(_)).then_some(())).await;
}

fn publish(packet: Packet) -> Option<(String, Vec<u8>, QoS, bool)> {
    match packet {
        Packet::Publish(p) => Some((p.topic, p.payload.to_vec(), p.qos, p.retain)),
        _ => None,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_every_qos_arrive_once_and_in_order() {
    let broker = Running::start(|_| {});
    let (subscriber, mut inbound) = broker.client("sub");
    subscribed(&subscriber, &mut inbound, "å/#", QoS::ExactlyOnce).await;
    let (publisher, mut outbound) = broker.client("pub/with#odd+id");
    let sent = tokio::spawn(async move {
        for number in 0..300u32 {
            let qos = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce][number as usize % 3];
            publisher.publish("å/ö/日本", qos, false, number.to_string()).await.unwrap();
        }
        publisher.disconnect().await.unwrap();
    });
    let driver = tokio::spawn(async move { while outbound.poll().await.is_ok() {} });
    for number in 0..300u32 {
        let (topic, payload, qos, retain) = until(&mut inbound, publish).await;
        assert_eq!((topic.as_str(), payload), ("å/ö/日本", number.to_string().into_bytes()));
        assert_eq!((qos as u32, retain), (number % 3, false));
    }
    sent.await.unwrap();
    driver.await.unwrap();
    broker.stop().await;
}

/// Longest time a publisher waits for an acknowledgement while engines die.
const LONGEST_ACKNOWLEDGEMENT: Duration = Duration::from_secs(3);

/// Publishes numbered messages of one quality of service, asking for the engine's death at some of them; ends with the longest time an
/// acknowledgement took, when all are there.
async fn publish_while_engines_die(broker: &Running, qos: QoS, count: u32, deaths: u32) -> Duration {
    let (client, mut events) = broker.client(&format!("pub-{}", qos as u8));
    let handle = broker.handle.clone();
    let publishing = tokio::spawn(async move {
        for number in 0..count {
            let payload = [&[qos as u8], &number.to_le_bytes()[..]].concat();
            client.publish("t", qos, false, payload).await.unwrap();
            if deaths > 0 && number % (count / deaths) == count / deaths / 2 {
                handle.kill_engine();
            }
        }
        client
    });
    let (mut open, mut sent, mut longest) = (BTreeMap::new(), 0, Duration::ZERO);
    while sent < count || !open.is_empty() {
        // The connection must hold: an error is a disconnection.
        let event = tokio::time::timeout(Duration::from_secs(60), events.poll()).await.expect("in time").unwrap();
        let acknowledged = match event {
            Event::Outgoing(rumqttc::Outgoing::Publish(id)) => {
                sent += 1;
                if qos != QoS::AtMostOnce {
                    assert!(open.insert(id, Instant::now()).is_none());
                }
                None
            }
            Event::Incoming(Packet::PubAck(ack)) => open.remove(&ack.pkid),
            // The first half of the handshake is timed; the second begins anew.
            Event::Incoming(Packet::PubRec(ack)) => open.insert(ack.pkid, Instant::now()),
            Event::Incoming(Packet::PubComp(ack)) => open.remove(&ack.pkid),
            _ => None,
        };
        longest = longest.max(acknowledged.map_or(Duration::ZERO, |since| since.elapsed()));
    }
    drop(publishing.await.unwrap());
    longest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_dies_under_load_and_nobody_notices() {
    const COUNTS: [u32; 3] = [7_000, 10_000, 7_000];
    let broker = Running::start(|_| {});
    let (subscriber, mut inbound) = broker.client("sub");
    subscribed(&subscriber, &mut inbound, "t", QoS::ExactlyOnce).await;
    let listening = tokio::spawn(async move {
        let mut next = [0_u32; 3];
        while next != COUNTS {
            let (_, payload, qos, _) = until(&mut inbound, publish).await;
            let (kind, number) = (usize::from(payload[0]), u32::from_le_bytes(payload[1..].try_into().unwrap()));
            assert_eq!((qos as usize, number), (kind, next[kind]), "each once, in order");
            next[kind] += 1;
        }
        (subscriber, inbound)
    });
    // 20 deaths altogether, asked for from the midst of the QoS 1 load.
    let (_, first, second) = tokio::join!(
        publish_while_engines_die(&broker, QoS::AtMostOnce, COUNTS[0], 0),
        publish_while_engines_die(&broker, QoS::AtLeastOnce, COUNTS[1], 20),
        publish_while_engines_die(&broker, QoS::ExactlyOnce, COUNTS[2], 0),
    );
    let (_subscriber, mut inbound) = listening.await.unwrap();
    for longest in [first, second] {
        assert!(longest < LONGEST_ACKNOWLEDGEMENT, "an acknowledgement took {longest:?}");
    }
    assert_eq!(broker.counter("sense_butler_mqtt_engine_restarts_total"), 20);
    // Nothing comes twice: a marker is the next message.
    let (marker, mut events) = broker.client("marker");
    marker.publish("t", QoS::AtLeastOnce, false, "end").await.unwrap();
    until(&mut events, |packet| matches!(packet, Packet::PubAck(_)).then_some(())).await;
    assert_eq!(until(&mut inbound, publish).await.1, b"end");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn retained_messages_wills_and_persistent_sessions() {
    let broker = Running::start(|_| {});
    let (publisher, mut outbound) = broker.client("pub");
    publisher.publish("r/1", QoS::AtLeastOnce, true, "kept").await.unwrap();
    publisher.publish("q/start", QoS::AtLeastOnce, true, "never kept").await.unwrap();
    let mut acks = 0;
    until(&mut outbound, |packet| {
        acks += u32::from(matches!(packet, Packet::PubAck(_)));
        (acks == 2).then_some(())
    })
    .await;

    let mut options = MqttOptions::new("keeps", "127.0.0.1", broker.address.port());
    options.set_clean_session(false);
    let (subscriber, mut inbound) = AsyncClient::new(options.clone(), 10);
    subscriber.subscribe("#", QoS::AtLeastOnce).await.unwrap();
    assert_eq!(until(&mut inbound, publish).await, ("r/1".into(), b"kept".to_vec(), QoS::AtLeastOnce, true));
    drop((subscriber, inbound));

    // While the subscriber is away.
    publisher.publish("live", QoS::AtLeastOnce, false, "later").await.unwrap();
    until(&mut outbound, |packet| matches!(packet, Packet::PubAck(_)).then_some(())).await;
    let (_subscriber, mut inbound) = AsyncClient::new(options, 10);
    let present = until(&mut inbound, |packet| match packet {
        Packet::ConnAck(ack) => Some(ack.session_present),
        _ => None,
    })
    .await;
    assert!(present);
    let mut payload = until(&mut inbound, publish).await.1;
    if payload == b"kept" {
        // Its acknowledgement went down with the connection.
        payload = until(&mut inbound, publish).await.1;
    }
    assert_eq!(payload, b"later");

    let mut options = MqttOptions::new("mortal", "127.0.0.1", broker.address.port());
    options.set_last_will(rumqttc::LastWill::new("will", "gone", QoS::AtLeastOnce, false));
    let (mortal, mut its_events) = AsyncClient::new(options, 10);
    until(&mut its_events, |packet| matches!(packet, Packet::ConnAck(_)).then_some(())).await;
    drop((mortal, its_events));
    assert_eq!(until(&mut inbound, publish).await.0, "will");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_stops_reading_hurts_nobody() {
    let broker = Running::start(|_| {});
    let (sleeper, mut asleep) = broker.client("sleeper");
    subscribed(&sleeper, &mut asleep, "t", QoS::AtLeastOnce).await;
    let (subscriber, mut inbound) = broker.client("awake");
    subscribed(&subscriber, &mut inbound, "t", QoS::AtLeastOnce).await;
    let (publisher, mut outbound) = broker.client("pub");
    tokio::spawn(async move { while outbound.poll().await.is_ok() {} });
    let count = 30_000u32;
    tokio::spawn(async move {
        for number in 0..count {
            let mut payload = vec![0; 1024];
            payload[..4].copy_from_slice(&number.to_le_bytes());
            publisher.publish("t", QoS::AtLeastOnce, false, payload).await.unwrap();
        }
        std::future::pending::<()>().await;
    });
    for number in 0..count {
        assert_eq!(until(&mut inbound, publish).await.1[..4], number.to_le_bytes());
    }
    drop((sleeper, asleep));
    broker.stop().await;
}

/// A QoS 2 publisher whose connection is taken over again and again by its own next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn take_over_of_a_publisher_in_mid_flight() {
    let broker = Running::start(|_| {});
    let (mut subscriber, _) = Raw::connect(broker.address, &Hello::v3("sub")).await;
    assert_eq!(subscriber.subscribe("t", 0).await, 0);
    let hello = Hello::v3("pub").kept();
    let (mut publisher, _) = Raw::connect(broker.address, &hello).await;
    // What the client knows: id -> (payload, PUBREC seen).
    let mut open: BTreeMap<u16, (u32, bool)> = BTreeMap::new();
    let (mut next, mut left_open) = (0u32, Vec::new());
    for round in 0..100u32 {
        for _ in 0..8 {
            let id = (next % 60_000) as u16 + 1;
            open.insert(id, (next, false));
            publisher.publish("t", &next.to_le_bytes(), 2, id, false).await;
            next += 1;
        }
        for _ in 0..round % 7 {
            settle(&mut publisher, &mut open).await;
        }
        // The old connection stays open: the broker, not the client, ends it.
        let (again, connack) = Raw::connect(broker.address, &hello).await;
        assert_eq!(connack, [1, 0], "the session is resumed");
        left_open.push(std::mem::replace(&mut publisher, again));
        for (id, (payload, received)) in &open {
            match received {
                true => publisher.ack(0x62, *id).await,
                false => publisher.publish("t", &payload.to_le_bytes(), 2, *id, true).await,
            }
        }
    }
    while !open.is_empty() {
        settle(&mut publisher, &mut open).await;
    }
    let mut seen = BTreeSet::new();
    for _ in 0..next {
        let payload = subscriber.receive_publish().await.payload;
        assert!(seen.insert(payload.clone()), "{payload:?} came twice");
    }
    // Nothing more is on its way: a marker comes next.
    publisher.publish("t", b"end", 0, 0, false).await;
    assert_eq!(subscriber.receive_publish().await.payload, b"end");
    for mut old in left_open {
        while old.receive().await.is_some() {}
    }
    broker.stop().await;
}

/// One acknowledgement of the publisher's handshakes.
async fn settle(publisher: &mut Raw, open: &mut BTreeMap<u16, (u32, bool)>) {
    let (first, body) = publisher.receive().await.expect("an acknowledgement");
    let id = u16::from_be_bytes([body[0], body[1]]);
    match first {
        0x50 => {
            open.get_mut(&id).expect("an open id").1 = true;
            publisher.ack(0x62, id).await;
        }
        0x70 => drop(open.remove(&id)),
        other => panic!("{other:02x}"),
    }
}

/// A QoS 2 subscriber whose connection is taken over again and again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn take_over_of_a_subscriber_in_mid_flight() {
    let broker = Running::start(|_| {});
    let hello = Hello::v5("sub").kept();
    let (mut subscriber, _) = Raw::connect(broker.address, &hello).await;
    assert_eq!(subscriber.subscribe("t", 2).await, 2);
    let (publisher, mut outbound) = broker.client("pub");
    tokio::spawn(async move { while outbound.poll().await.is_ok() {} });
    let count = 1_000u32;
    tokio::spawn(async move {
        for number in 0..count {
            publisher.publish("t", QoS::ExactlyOnce, false, number.to_le_bytes().to_vec()).await.unwrap();
        }
        std::future::pending::<()>().await;
    });
    let (mut received, mut next, mut packets, mut changes) = (BTreeSet::new(), 0u32, 0u32, 0);
    let mut left_open = Vec::new();
    while next < count || !received.is_empty() {
        let (first, body) = subscriber.receive().await.expect("a packet");
        if first >> 4 == 3 {
            let got = subscriber.read_publish(first, &body);
            if received.insert(got.id) {
                assert_eq!(got.payload, next.to_le_bytes(), "in order, nothing twice, nothing lost");
                next += 1;
            }
            subscriber.ack(0x50, got.id).await;
        } else {
            assert_eq!(first, 0x62);
            let id = u16::from_be_bytes([body[0], body[1]]);
            received.remove(&id);
            subscriber.ack(0x70, id).await;
        }
        packets += 1;
        if changes < 100 && packets % 17 == 0 {
            let (again, connack) = Raw::connect(broker.address, &hello).await;
            assert_eq!(connack[..2], [1, 0]);
            left_open.push(std::mem::replace(&mut subscriber, again));
            changes += 1;
        }
    }
    assert_eq!(changes, 100);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_refusal_has_its_code() {
    use argon2::PasswordHasher;
    let hash = argon2::Argon2::default().hash_password(b"geheim").unwrap().to_string();
    let broker = Running::start(|settings| {
        settings.listeners[0].allow_anonymous = false;
        settings.users.push(sense_butler::broker::settings::User::new("plc", sense_butler::names::Secret::new(hash)));
    });
    let cases: [(Hello, u8); 8] = [
        (Hello::v3("a").user("plc", "geheim"), 0),
        (Hello::v5("a").user("plc", "geheim"), 0),
        (Hello::v3("a").user("plc", "falsch"), 4),
        (Hello::v5("a").user("plc", "falsch"), 0x86),
        (Hello::v3("a"), 5),
        (Hello::v5("a"), 0x87),
        (Hello::v3("").kept().user("plc", "geheim"), 2),
        (Hello { will: Some(("q/own/x".into(), "w".into(), 0)), ..Hello::v5("a").user("plc", "geheim") }, 0x87),
    ];
    for (at, (hello, code)) in cases.iter().enumerate() {
        let (_raw, connack) = Raw::connect(broker.address, hello).await;
        assert_eq!(connack[1], *code, "case {at}");
    }
    // MQTT 3.1 is told which version it would need.
    let mut old = Raw::open(broker.address, 3).await;
    old.bytes(b"\x10\x0f\0\x06MQIsdp\x03\x02\0\x3c\0\x01a").await;
    assert_eq!(old.receive().await, Some((0x20, vec![0, 1])));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closed_doors_stay_closed() {
    let rights = Rights { publish: true, subscribe: true, start: false };
    let broker = Running::start(|settings| settings.listeners[0].anonymous_rights = rights);
    let mut inside = broker.handle.subscribe("starts", vec![TopicFilter::new("q/start").unwrap()]).await.unwrap();
    let (mut stranger, _) = Raw::connect(broker.address, &Hello::v5("stranger")).await;
    for (topic, code) in [("q/start", 0x87), ("q/own/state", 0x87), ("$SYS/x", 0x87), ("free", 0x10)] {
        stranger.publish(topic, b"x", 1, 7, false).await;
        let (first, body) = stranger.receive().await.unwrap();
        assert_eq!((first, body.get(2).copied().unwrap_or(0)), (0x40, code), "{topic}");
    }
    // In 3.1.1 there is no code for it: acknowledged, and it goes nowhere.
    let (mut old, _) = Raw::connect(broker.address, &Hello::v3("old")).await;
    old.publish("q/start", b"x", 1, 7, false).await;
    assert_eq!(old.receive().await, Some((0x40, vec![0, 7])));
    assert!(inside.try_recv().is_err());
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_too_large_and_larger_than_the_window() {
    let broker = Running::start(|_| {});
    let (mut subscriber, _) = Raw::connect(broker.address, &Hello::v5("sub")).await;
    subscriber.subscribe("big", 1).await;
    let (mut publisher, _) = Raw::connect(broker.address, &Hello::v5("pub")).await;
    publisher.publish("big", &vec![7; 5 << 20], 1, 1, false).await;
    let got = subscriber.receive_publish().await;
    assert_eq!((got.payload.len(), got.payload.iter().all(|byte| *byte == 7)), (5 << 20, true));
    assert_eq!(publisher.receive().await.unwrap().0, 0x40);
    publisher.publish("big", &vec![7; 11 << 20], 1, 2, false).await;
    let (first, body) = publisher.receive().await.unwrap();
    assert_eq!((first, body[0]), (0xe0, 0x95));
    assert!(publisher.is_closed().await);
    let (mut other, _) = Raw::connect(broker.address, &Hello::v5("other")).await;
    other.publish("big", b"still here", 0, 0, false).await;
    assert_eq!(subscriber.receive_publish().await.payload, b"still here");
    broker.stop().await;
}
