//! How many datagrams a second become publications. Measurements, not tests of behaviour: run by hand, optimised, on a quiet machine:
//! `cargo test --release --test udp_rate -- --ignored --nocapture --test-threads 1`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use prometheus_client::{encoding::text::encode, registry::Registry};
use sense_butler::{
    bridge::{active_users::ActiveUsers, forward::Forwarder},
    bus::{BoxFuture, Bus, Publication, PublishError, Receipt, Routed, Subscription, Transport},
    config::settings::{BrokerChoice, EventTopics, Generation, MqttSettings, UdpSettings},
    names::{TopicFilter, TopicName},
    sense::{
        directory::{Enrichment, TaskDirectory},
        receiver::{Port, Receiver},
    },
};
use tokio_util::sync::CancellationToken;

#[derive(Clone, Default)]
struct Counter(Arc<AtomicU64>);

impl Transport for Counter {
    fn submit(&self, _: Publication) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        let (sender, receipt) = Receipt::channel();
        sender.send(Ok(Routed { matched: Some(true) })).unwrap();
        Box::pin(async { Ok(receipt) })
    }

    fn subscribe(&self, _: &str, _: Vec<TopicFilter>) -> BoxFuture<'_, Result<Subscription, PublishError>> {
        Box::pin(async { Err(PublishError::Refused("nobody subscribes here".into())) })
    }

    fn is_up(&self) -> bool {
        true
    }
}

/// QRS is down: no answer, at once.
struct Down;

impl TaskDirectory for Down {
    fn enrich<'a>(
        &'a self,
        _: &'a str,
        _: &'a str,
    ) -> sense_butler::sense::directory::BoxFuture<'a, Option<Enrichment>> {
        Box::pin(async { None })
    }
}

fn topic(name: &str) -> TopicName {
    TopicName::new(name).unwrap()
}

fn mqtt() -> MqttSettings {
    let pair = || EventTopics { send: true, send_full: true, basic: topic("q/a"), full: topic("q/a_full") };
    MqttSettings {
        enable: true,
        broker: BrokerChoice::Embedded { port: 0 },
        broker_reason: String::new(),
        subscription_root: TopicFilter::new("q/#").unwrap(),
        task_start: topic("q/start"),
        failed: pair(),
        aborted: pair(),
        succeeded: pair(),
        distributed: pair(),
        failure_server_status: topic("q/server"),
        session: None,
        own_topics: topic("q/butler"),
        task_types: None,
        enrichment_wait: Duration::from_millis(300),
        rest_qos_retain: false,
    }
}

fn udp() -> UdpSettings {
    UdpSettings {
        enable: true,
        host: "127.0.0.1".into(),
        task_port: 0,
        session_port: None,
        max_message_size: 65_507,
        allowed_sources: None,
        rate_limit: None,
        deduplication: Some(Duration::from_secs(600)),
        queue_max_bytes: 64 << 20,
        receive_buffer: 4 << 20,
    }
}

/// Sends `count` datagrams, `rate` a second (0: as fast as it goes), from a thread of its own.
fn send(to: SocketAddr, count: u64, rate: u64) {
    let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
    let start = Instant::now();
    for number in 0..count {
        let text = format!(
            "/scheduler-task-failed/;pro2-win1;Reload of Sales {number};Sales {number};LAB\\goran;22b106a8-e7ed-4466-b700-{:012};8f1d1ecf-97a6-4eb5-8f47-f9156300b854;2024-04-12 07:33:03,508;INFO;c073f112-4318-4d1f-ae82-{number:012};Max retries reached",
            number % 1_000
        );
        sender.send_to(text.as_bytes(), to).unwrap();
        if rate > 0 && number % 50 == 49 {
            let due = start + Duration::from_micros(number * 1_000_000 / rate);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
        }
    }
    println!("  sent {count} in {:?}", start.elapsed());
}

fn value(metrics: &str, name: &str) -> u64 {
    metrics
        .lines()
        .filter(|line| line.starts_with(name))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
        .sum()
}

async fn measure(what: &str, count: u64, rate: u64, directory: Option<Arc<dyn TaskDirectory>>) {
    println!("{what}");
    let (mut registry, counter) = (Registry::default(), Counter::default());
    let receiver = Receiver::bind(&udp(), Generation::Head, &mut registry).unwrap();
    let open = receiver.listening()[0];
    assert_eq!(open.port, Port::Task);
    println!("  receive buffer {} bytes", open.receive_buffer);
    let bus = Bus::new(counter.clone());
    let forwarder =
        Forwarder::new(&mqtt(), Generation::Head, bus, directory, ActiveUsers::new(), &mut registry).unwrap();
    let (sink, events) = tokio::sync::mpsc::channel(1_024);
    let stop = CancellationToken::new();
    let forwarding = tokio::spawn(forwarder.run(events, CancellationToken::new()));
    let receiving = tokio::spawn(receiver.run(sink, stop.clone()));
    let start = Instant::now();
    let sending = tokio::task::spawn_blocking(move || send(open.address, count, rate));
    let snapshot = || {
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();
        text
    };
    sending.await.unwrap();
    let (mut before, mut still) = (0, 0);
    while still < 20 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        let now = counter.0.load(Ordering::Relaxed);
        still = if now == before { still + 1 } else { 0 };
        before = now;
    }
    let took = start.elapsed().saturating_sub(Duration::from_secs(1));
    let metrics = snapshot();
    let received = value(&metrics, "sense_butler_udp_datagrams_received_total");
    let kernel = value(&metrics, "sense_butler_udp_kernel_dropped_total");
    let dropped = value(&metrics, "sense_butler_udp_datagrams_dropped_total");
    let accepted = value(&metrics, "sense_butler_events_accepted_total");
    println!(
        "  received {received}, kernel dropped {kernel}, dropped {dropped}, accepted {accepted}, publications {before}; {:.0} events/s",
        accepted as f64 / took.as_secs_f64()
    );
    stop.cancel();
    receiving.await.unwrap().unwrap();
    forwarding.await.unwrap();
    assert_eq!(received + kernel, count);
    assert_eq!(accepted + dropped, received);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn rates() {
    measure("50,000/s for two seconds", 100_000, 50_000, None).await;
    measure("50,000/s for two seconds, QRS down", 100_000, 50_000, Some(Arc::new(Down))).await;
    measure("a burst of 100,000", 100_000, 0, None).await;
    measure("a burst of 300,000", 300_000, 0, None).await;
}
