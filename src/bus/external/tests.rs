//! The connection to a broker elsewhere, against a broker that is played: it writes down every message before it acknowledges it, so what
//! was lost, repeated or out of order is known exactly, and it dies when the script says so.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::BytesMut;
use rumqttc::mqttbytes::v4::{
    ConnAck, ConnectReturnCode, Packet, PingResp, PubAck, Publish, SubAck, SubscribeReasonCode,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::JoinHandle,
};

use super::*;
use crate::{
    bus::{Bus, PUBLISH_TIMEOUT, Routed},
    config::settings::MqttProtocol,
    names::{QoS, TopicName},
};

/// What the played broker does with a message.
#[derive(Clone, Copy, PartialEq)]
enum Play {
    /// Write down, acknowledge.
    Take,
    /// Write down, end the connection.
    TakeAndDie,
    /// End the connection.
    Die,
}

/// What the played broker saw.
#[derive(Debug, PartialEq)]
enum Saw {
    Connect { will: Option<(String, bool)> },
    Subscribe(Vec<String>),
    Message(String),
    Disconnect,
}

struct Broker {
    address: SocketAddr,
    saw: mpsc::UnboundedReceiver<Saw>,
    running: JoinHandle<()>,
}

impl Broker {
    /// A broker that plays `script` for the n-th message (from 0) it sees in its life.
    async fn play(address: &str, mut script: impl FnMut(usize, &str) -> Play + Send + 'static) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (sender, saw) = mpsc::unbounded_channel();
        let running = tokio::spawn(async move {
            let mut count = 0;
            loop {
                let (socket, _) = listener.accept().await.unwrap();
                converse(socket, &sender, &mut count, &mut script).await;
            }
        });
        Self { address, saw, running }
    }

    /// Messages in the order of their first coming, and how many came again.
    async fn messages(&mut self, count: usize) -> (Vec<String>, usize) {
        let (mut first, mut again) = (Vec::new(), 0);
        while first.len() < count {
            match self.saw.recv().await.unwrap() {
                Saw::Message(text) if first.contains(&text) => again += 1,
                Saw::Message(text) => first.push(text),
                _ => {}
            }
        }
        (first, again)
    }
}

impl std::ops::Drop for Broker {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn converse(
    mut socket: TcpStream,
    saw: &mpsc::UnboundedSender<Saw>,
    count: &mut usize,
    script: &mut impl FnMut(usize, &str) -> Play,
) {
    let (mut input, mut output) = (BytesMut::new(), BytesMut::new());
    loop {
        let Ok(packet) = Packet::read(&mut input, 1 << 20) else {
            match socket.read_buf(&mut input).await {
                Ok(1..) => continue,
                _ => return,
            }
        };
        match packet {
            Packet::Connect(connect) => {
                let will = connect.last_will.map(|will| (will.topic, will.retain));
                saw.send(Saw::Connect { will }).unwrap();
                ConnAck::new(ConnectReturnCode::Success, false).write(&mut output).unwrap();
            }
            Packet::Subscribe(subscribe) => {
                let filters: Vec<_> = subscribe.filters.iter().map(|filter| filter.path.clone()).collect();
                let codes = vec![SubscribeReasonCode::Success(rumqttc::QoS::AtLeastOnce); filters.len()];
                SubAck::new(subscribe.pkid, codes).write(&mut output).unwrap();
                Publish::new("q/start", rumqttc::QoS::AtMostOnce, "go").write(&mut output).unwrap();
                saw.send(Saw::Subscribe(filters)).unwrap();
            }
            Packet::Publish(publish) => {
                assert_eq!(publish.qos, rumqttc::QoS::AtLeastOnce, "everything goes out at QoS 1");
                let text = String::from_utf8(publish.payload.to_vec()).unwrap();
                let play = script(*count, &text);
                *count += 1;
                if play != Play::Die {
                    saw.send(Saw::Message(text)).unwrap();
                }
                if play != Play::Take {
                    return;
                }
                PubAck::new(publish.pkid).write(&mut output).unwrap();
            }
            Packet::PingReq => drop(PingResp.write(&mut output).unwrap()),
            Packet::Disconnect => return saw.send(Saw::Disconnect).unwrap(),
            other => panic!("a client does not send {other:?}"),
        }
        if socket.write_all_buf(&mut output).await.is_err() {
            return;
        }
    }
}

struct Client {
    external: External,
    bus: Bus,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

fn client(address: SocketAddr, outbox_bytes: usize) -> Client {
    let broker = ExternalBroker {
        host: address.ip().to_string(),
        port: address.port(),
        user: None,
        password: None,
        client_id: None,
        protocol: MqttProtocol::V3,
        tls: None,
    };
    let will = message("offline").retained();
    let (external, mut driver) = External::build(Config { broker, will: Some(will), outbox_bytes });
    driver.pace.first_pause = Duration::from_millis(5);
    driver.pace.longest_pause = Duration::from_millis(20);
    driver.pace.quiet = Duration::from_millis(50);
    let stop = CancellationToken::new();
    let running = tokio::spawn(driver.run(stop.clone()));
    Client { bus: Bus::new(external.clone()), external, stop, running }
}

fn message(text: &str) -> Publication {
    Publication::new(TopicName::new("a/b").unwrap(), text.to_owned())
}

#[tokio::test]
async fn a_broker_that_dies_under_load_loses_nothing_and_keeps_the_order() {
    const MESSAGES: usize = 3_000;
    const DEATHS: usize = 20;
    let mut broker = Broker::play("127.0.0.1:0", |count, _| match count % 97 {
        13 if count < DEATHS * 97 => Play::TakeAndDie,
        _ => Play::Take,
    })
    .await;
    let client = client(broker.address, OUTBOX_BYTES);
    let mut receipts = Vec::new();
    for number in 0..MESSAGES {
        receipts.push(client.bus.submit(message(&number.to_string())).await.unwrap());
        tokio::task::yield_now().await;
    }
    let (first, again) = broker.messages(MESSAGES).await;
    let expected: Vec<String> = (0..MESSAGES).map(|number| number.to_string()).collect();
    assert_eq!(first, expected);
    assert!(again >= DEATHS, "what was not acknowledged came again: {again}");
    for receipt in receipts {
        assert_eq!(receipt.wait(PUBLISH_TIMEOUT).await, Ok(Routed::UNTOLD));
    }
    assert!(*client.bus.connections().borrow() > DEATHS as u64);
    let mut registry = Registry::default();
    client.external.register(&mut registry);
    let text = crate::telemetry::metrics::encode(&registry);
    for line in [
        "sense_butler_external_acknowledged_total 3000",
        "sense_butler_outbox_depth 0",
        "sense_butler_outbox_bytes 0",
        "sense_butler_outbox_oldest_age_seconds 0.0",
        "sense_butler_external_connected 1",
    ] {
        assert!(text.contains(line), "{line} in\n{text}");
    }
}

#[tokio::test]
async fn without_a_broker_events_wait_and_who_cannot_wait_is_refused() {
    let probe = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = probe.local_addr().unwrap();
    drop(probe);
    let client = client(address, 2_000);
    let mut waiting = Vec::new();
    let refused = loop {
        match client.bus.submit(message("event")).await {
            Ok(receipt) => waiting.push(receipt),
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, PublishError::Refused(_)), "{refused}");
    assert_eq!(client.external.dropped("overflow"), 1);
    let refused = client.bus.publish(message("rest")).await;
    assert!(matches!(refused, Err(PublishError::Unavailable(_))), "{refused:?}");
    assert!(!client.bus.is_up());
    assert_eq!(client.external.health().outbox.messages, waiting.len());

    let mut broker = Broker::play(&address.to_string(), |_, _| Play::Take).await;
    assert_eq!(broker.messages(1).await.0, ["event"]);
    for receipt in waiting {
        assert!(receipt.wait(PUBLISH_TIMEOUT).await.is_ok());
    }
    assert!(client.bus.publish(message("rest")).await.is_ok());
    assert!(client.bus.is_up() && client.external.health().error.is_none());
}

#[tokio::test]
async fn a_message_the_broker_dies_of_is_given_up_and_the_others_pass() {
    let mut broker = Broker::play("127.0.0.1:0", |_, text| if text == "poison" { Play::Die } else { Play::Take }).await;
    let client = client(broker.address, OUTBOX_BYTES);
    let mut receipts = Vec::new();
    for text in ["one", "poison", "two", "three"] {
        receipts.push(client.bus.submit(message(text)).await.unwrap());
    }
    assert_eq!(broker.messages(3).await.0, ["one", "two", "three"]);
    let mut words = Vec::new();
    for receipt in receipts {
        words.push(receipt.wait(PUBLISH_TIMEOUT).await.is_ok());
    }
    assert_eq!(words, [true, false, true, true]);
    assert_eq!(client.external.dropped("poison"), 1);
}

#[tokio::test]
async fn a_broker_that_dies_by_itself_costs_no_message() {
    // It ends every connection at the first message, whichever it is, until told otherwise.
    let well = Arc::new(AtomicBool::new(false));
    let plays_well = Arc::clone(&well);
    let mut deaths = 0;
    let (died, mut dying) = mpsc::unbounded_channel();
    let mut broker = Broker::play("127.0.0.1:0", move |_, _| {
        if plays_well.load(Ordering::Relaxed) {
            return Play::Take;
        }
        deaths += 1;
        died.send(deaths).unwrap();
        Play::Die
    })
    .await;
    let client = client(broker.address, OUTBOX_BYTES);
    let _receipt = client.bus.submit(message("kept")).await.unwrap();
    // Three losses make it suspicious, two more are strikes; the third strike would end the message.
    while dying.recv().await.unwrap() < 5 {}
    well.store(true, Ordering::Relaxed);
    assert_eq!(broker.messages(1).await.0, ["kept"]);
    assert_eq!(client.external.dropped("poison"), 0);
}

#[tokio::test]
async fn every_connection_brings_will_and_subscriptions_back() {
    let mut broker = Broker::play("127.0.0.1:0", |count, _| if count == 0 { Play::Die } else { Play::Take }).await;
    let client = client(broker.address, OUTBOX_BYTES);
    let filters = ["q/#", "q/start", "other"].map(|text| TopicFilter::new(text).unwrap());
    let mut subscription = client.bus.subscribe("test", filters.to_vec()).await.unwrap();
    let mut connections = client.bus.connections();
    let receipt = client.bus.submit(message("again")).await.unwrap();
    receipt.wait(PUBLISH_TIMEOUT).await.unwrap();
    let (mut connects, mut subscribed) = (0, Vec::new());
    while connects < 2 || subscribed.len() < connects {
        match broker.saw.recv().await.unwrap() {
            Saw::Connect { will } => {
                assert_eq!(will, Some(("a/b".to_owned(), true)));
                connects += 1;
            }
            Saw::Subscribe(filters) => subscribed.push(filters),
            _ => {}
        }
    }
    // The subscription may have come in two packets on the first connection; on the last it is one, without what `q/#` covers.
    assert_eq!(subscribed.last().unwrap(), &["q/#", "other"]);
    assert_eq!(*connections.borrow_and_update(), 2);
    let delivery = subscription.recv().await.unwrap();
    assert_eq!((delivery.topic.as_str(), &*delivery.payload, delivery.qos), ("q/start", &b"go"[..], QoS::AtMostOnce));
    assert!(delivery.origin.may_start);
}

#[tokio::test]
async fn stopping_sends_what_is_under_way_and_says_goodbye() {
    let mut broker = Broker::play("127.0.0.1:0", |_, _| Play::Take).await;
    let client = client(broker.address, OUTBOX_BYTES);
    let mut connections = client.bus.connections();
    connections.wait_for(|count| *count == 1).await.unwrap();
    let receipts: Vec<_> = submitted(&client.bus, 500).await;
    client.stop.cancel();
    client.running.await.unwrap();
    assert_eq!(broker.messages(500).await.0.len(), 500);
    assert_eq!(broker.saw.recv().await, Some(Saw::Disconnect));
    for receipt in receipts {
        assert!(receipt.wait(PUBLISH_TIMEOUT).await.is_ok());
    }
    let late = client.bus.submit(message("late")).await;
    assert!(matches!(late, Err(PublishError::Unavailable(_))), "{late:?}");
    assert_eq!(client.external.dropped("stopped"), 0);
}

async fn submitted(bus: &Bus, count: usize) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    for number in 0..count {
        receipts.push(bus.submit(message(&number.to_string())).await.unwrap());
    }
    receipts
}
