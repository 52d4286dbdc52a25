//! The receiver over real sockets on loopback.

use std::net::UdpSocket;

use super::*;
use crate::config::settings::Forwarding;

fn settings() -> UdpSettings {
    UdpSettings {
        enable: true,
        host: "127.0.0.1".into(),
        task_port: 0,
        session_port: Some(0),
        max_message_size: 65_507,
        allowed_sources: None,
        rate_limit: None,
        deduplication: Some(Duration::from_secs(600)),
        queue_max_bytes: 64 << 20,
        receive_buffer: 4 << 20,
        forward: Forwarding::default(),
    }
}

struct House {
    registry: Registry,
    events: mpsc::Receiver<SenseEvent>,
    stop: CancellationToken,
    running: tokio::task::JoinHandle<Result<(), ReceiverError>>,
    sender: UdpSocket,
    task: std::net::SocketAddr,
    session: Option<std::net::SocketAddr>,
}

impl House {
    fn open(settings: &UdpSettings, room: usize) -> Self {
        let mut registry = Registry::default();
        let receiver = Receiver::bind(settings, Generation::Head, &mut registry).unwrap();
        let of = |port| receiver.listening().iter().find(|open| open.port == port).map(|open| open.address);
        let (task, session) = (of(Port::Task).unwrap(), of(Port::Session));
        let (sink, events) = mpsc::channel(room);
        let stop = CancellationToken::new();
        let running = tokio::spawn(receiver.run(sink, stop.clone()));
        Self { registry, events, stop, running, sender: UdpSocket::bind("127.0.0.1:0").unwrap(), task, session }
    }

    fn send(&self, text: &str) {
        self.sender.send_to(text.as_bytes(), self.task).unwrap();
    }

    async fn next(&mut self) -> SenseEvent {
        tokio::time::timeout(Duration::from_secs(10), self.events.recv()).await.unwrap().unwrap()
    }

    fn metrics(&self) -> String {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text
    }

    async fn end(mut self) -> (Vec<SenseEvent>, String) {
        self.stop.cancel();
        let mut left = Vec::new();
        while let Some(event) = self.events.recv().await {
            left.push(event);
        }
        (&mut self.running).await.unwrap().unwrap();
        let metrics = self.metrics();
        (left, metrics)
    }
}

fn failed(number: usize) -> String {
    format!(
        "/scheduler-task-failed/;h;t{number};a;u;0000aaaa-0000-4000-8000-000000000001;;2026-05-04 10:00:01,234;INFO;ec000000-0000-4000-8000-{number:012};m"
    )
}

fn name(event: &SenseEvent) -> &str {
    match event {
        SenseEvent::Task(event) => event.task_name.as_deref().unwrap(),
        SenseEvent::Session(event) => event.user.as_deref().unwrap(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn both_ports_are_read_and_order_is_kept() {
    let mut house = House::open(&settings(), 16);
    for number in 0..50 {
        house.send(&failed(number));
    }
    for number in 0..50 {
        assert_eq!(name(&house.next().await), format!("t{number}"));
    }
    let session = house.session.unwrap();
    house.sender.send_to(b"/proxy-session/;p;Start session;D;anna;o;c;m", session).unwrap();
    assert_eq!(name(&house.next().await), "anna");
    let (left, metrics) = house.end().await;
    assert!(left.is_empty());
    assert!(metrics.contains(r#"received_total{port="task"} 50"#), "{metrics}");
    assert!(metrics.contains(r#"received_total{port="session"} 1"#), "{metrics}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_drop_has_its_reason() {
    let mut house = House::open(&UdpSettings { max_message_size: 400, ..settings() }, 16);
    for text in [&failed(1), &failed(1), "", "/unknown/;x", "/scheduler-task-failed/;x", &"y".repeat(401)] {
        house.send(text);
    }
    house.send(&failed(2));
    assert_eq!(name(&house.next().await), "t1");
    assert_eq!(name(&house.next().await), "t2");
    let (_, metrics) = house.end().await;
    for reason in ["duplicate", "empty", "unknown_type", "malformed", "too_large"] {
        assert!(
            metrics.contains(&format!(r#"dropped_total{{port="task",reason="{reason}"}} 1"#)),
            "{reason} {metrics}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rate_limit_and_sources_are_obeyed() {
    let mut house = House::open(&UdpSettings { rate_limit: Some(2), ..settings() }, 16);
    for number in 0..5 {
        house.send(&failed(number));
    }
    assert_eq!((name(&house.next().await), name(&house.next().await)), ("t0", "t1"));
    let (left, metrics) = house.end().await;
    assert!(left.is_empty() && metrics.contains(r#"reason="rate_limit"} 3"#), "{metrics}");

    let mut house = House::open(&UdpSettings { allowed_sources: Some(vec!["192.0.2.1".into()]), ..settings() }, 16);
    house.send(&failed(1));
    let admitted = UdpSettings { allowed_sources: Some(vec!["127.0.0.1".into()]), ..settings() };
    let mut other = House::open(&admitted, 16);
    other.send(&failed(1));
    assert_eq!(name(&other.next().await), "t1");
    assert!(house.events.try_recv().is_err());
    other.end().await;
    let (left, metrics) = house.end().await;
    assert!(left.is_empty() && metrics.contains(r#"reason="source"} 1"#), "{metrics}");
}

#[test]
fn the_rate_limit_starts_anew_every_minute() {
    let start = Instant::now();
    let mut limit = RateLimit::new(2, start);
    let admitted: Vec<bool> = (0..3).map(|_| limit.admits(start)).collect();
    assert_eq!(admitted, [true, true, false]);
    assert!(!limit.admits(start + Duration::from_secs(59)));
    assert!(limit.admits(start + MINUTE));
}

/// Nobody takes events, and still everything is taken from the kernel; what does not fit the queue is counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_is_received_whole_and_accounted_for() {
    const BURST: usize = 20_000;
    let house = House::open(&UdpSettings { queue_max_bytes: 2 << 20, ..settings() }, 8);
    let address = house.task;
    let sending = thread::spawn(move || {
        let sender = UdpSocket::bind("127.0.0.1:0").unwrap();
        for number in 0..BURST {
            sender.send_to(failed(number).as_bytes(), address).unwrap();
        }
    });
    tokio::task::spawn_blocking(|| sending.join().unwrap()).await.unwrap();
    let received = |metrics: &str| value(metrics, r#"datagrams_received_total{port="task"}"#);
    let kernel = |metrics: &str| value(metrics, r#"kernel_dropped_total{port="task"}"#);
    let before = house.metrics();
    let (events, after) = house.end().await;
    let lost_in_kernel = kernel(&before).max(kernel(&after));
    assert_eq!(received(&after) + lost_in_kernel, BURST as u64, "{after}");
    let dropped = value(&after, r#"dropped_total{port="task",reason="queue_full"}"#)
        + value(&after, r#"dropped_total{port="task",reason="stopping"}"#);
    assert_eq!(events.len() as u64 + dropped, received(&after), "{after}");
    assert!(dropped > 0 && events.len() > 1_000, "{}", events.len());
}

fn value(metrics: &str, name: &str) -> u64 {
    metrics
        .lines()
        .filter(|line| line.contains(name))
        .find_map(|line| line.rsplit(' ').next()?.parse().ok())
        .unwrap_or(0)
}

#[test]
fn a_taken_port_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let wanted = UdpSettings { task_port: port, ..settings() };
    let error = Receiver::bind(&wanted, Generation::Head, &mut Registry::default()).err().unwrap();
    assert!(matches!(error, ReceiverError::PortTaken { .. }));
    let text = error.to_string();
    assert!(text.contains(&port.to_string()) && text.contains("portTaskFailure"), "{text}");
}

#[test]
fn a_receiver_switched_off_opens_nothing() {
    let off = UdpSettings { enable: false, ..settings() };
    assert!(Receiver::bind(&off, Generation::Head, &mut Registry::default()).unwrap().listening().is_empty());
}
