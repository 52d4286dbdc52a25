//! The embedded broker from outside, over real sockets, with clients that are not ours.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use prometheus_client::registry::Registry;
use rumqttc::{AsyncClient, Event, EventLoop, MqttOptions, Packet, QoS};
use sense_butler::{
    broker::{
        Broker, BrokerHandle,
        settings::{Limits, Listener, Rights, Settings},
    },
    names::{TopicFilter, TopicName},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

struct Running {
    address: SocketAddr,
    handle: BrokerHandle,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    fn start(change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = Settings {
            listeners: vec![Listener {
                name: "test".into(),
                addresses: vec!["127.0.0.1:0".parse().unwrap()],
                written: "127.0.0.1:0".into(),
                tls: None,
                allow_anonymous: true,
                anonymous_rights: Rights { publish: true, subscribe: true, start: true },
            }],
            users: vec![],
            limits: Limits::default(),
            start_topics: vec![TopicFilter::new("q/start").unwrap()],
            protected_topics: vec![TopicFilter::new("q/own/#").unwrap()],
            own_prefix: TopicName::new("q/own").unwrap(),
            engine_test_hook: true,
        };
        change(&mut settings);
        let broker = Broker::bind(&settings, &mut Registry::default()).unwrap();
        let (address, handle, stop) = (broker.addresses()[0].1, broker.handle(), CancellationToken::new());
        let task = tokio::spawn({
            let stop = stop.clone();
            async move { broker.run(stop).await.unwrap() }
        });
        Self { address, handle, stop, task }
    }

    fn client(&self, id: &str) -> (AsyncClient, EventLoop) {
        let mut options = MqttOptions::new(id, self.address.ip().to_string(), self.address.port());
        options.set_keep_alive(Duration::from_secs(30));
        AsyncClient::new(options, 100)
    }

    async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_engine_dies_under_load_and_nobody_notices() {
    let broker = Running::start(|_| {});
    let (subscriber, mut inbound) = broker.client("sub");
    subscribed(&subscriber, &mut inbound, "t", QoS::AtLeastOnce).await;
    let (publisher, mut outbound) = broker.client("pub");
    tokio::spawn(async move { while outbound.poll().await.is_ok() {} });
    let handle = broker.handle.clone();
    let count = 20_000u32;
    tokio::spawn(async move {
        for number in 0..count {
            publisher.publish("t", QoS::AtLeastOnce, false, number.to_le_bytes().to_vec()).await.unwrap();
            if number % 1_000 == 500 {
                handle.kill_engine();
            }
        }
        std::future::pending::<()>().await;
    });
    for number in 0..count {
        let (_, payload, _, _) = until(&mut inbound, publish).await;
        assert_eq!(payload, number.to_le_bytes());
    }
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
    assert_eq!(until(&mut inbound, publish).await.1, b"later");

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
    let broker_stop = Arc::new(broker);
    Arc::try_unwrap(broker_stop).ok().unwrap().stop().await;
}
