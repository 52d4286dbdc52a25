//! The real program with mosquitto as its external broker: killed and started again while events come in by UDP; wills; the end.
//!
//! Between the two stands a gate that lets an acknowledgement back to the program only when a subscriber has received the message. So
//! nothing that was acknowledged is lost with the broker, which keeps nothing, and what arrives shows what the program does.
#![cfg(unix)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "support/app.rs"]
mod app;
#[path = "support/mqtt.rs"]
mod mqtt;

use std::{
    net::{TcpListener, UdpSocket},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use app::{App, Dir, PATIENCE};
use mqtt::{Client, options};
use rumqttc::QoS;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    task::JoinHandle,
};

const STATE: &str = "qliksense/butler/state";
const FAILURE: &str = "qliksense/task_failure";

/// A mosquitto that keeps nothing.
struct Mosquitto {
    port: u16,
    dir: Dir,
    process: Child,
}

impl Mosquitto {
    async fn start(test: &str) -> Option<Self> {
        if !app::has_program(program(), "-h", test) {
            return None;
        }
        let dir = Dir::new();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let text =
            format!("listener {port} 127.0.0.1\npersistence false\nmax_queued_messages 0\nallow_anonymous true\n");
        dir.write("mosquitto.conf", &text);
        let process = spawn(&dir);
        let broker = Self { port, dir, process };
        broker.wait_until_up().await;
        Some(broker)
    }

    async fn wait_until_up(&self) {
        let up = async {
            while TcpStream::connect(("127.0.0.1", self.port)).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, up).await.expect("mosquitto listens");
    }

    fn kill(&mut self) {
        // `Child::kill` is SIGKILL.
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    async fn start_again(&mut self) {
        self.process = spawn(&self.dir);
        self.wait_until_up().await;
    }
}

/// Where Debian puts it, which is not in everybody's path.
fn program() -> &'static str {
    let places = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto"];
    places.into_iter().find(|path| std::path::Path::new(path).exists()).unwrap_or("mosquitto")
}

fn spawn(dir: &Dir) -> Child {
    let mut command = Command::new(program());
    command.arg("-c").arg(dir.0.join("mosquitto.conf")).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        // Dead already in some tests.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Passes bytes between the program and the broker; holds each PUBACK back until that many messages were received elsewhere.
struct Gate {
    port: u16,
    open: Arc<AtomicBool>,
    received: watch::Sender<u64>,
    running: JoinHandle<()>,
}

impl Gate {
    async fn before(broker: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (open, received) = (Arc::new(AtomicBool::new(true)), watch::Sender::new(0));
        let (is_open, seen) = (open.clone(), received.clone());
        let running = tokio::spawn(async move {
            loop {
                let (inside, _) = listener.accept().await.unwrap();
                if is_open.load(Ordering::SeqCst)
                    && let Ok(outside) = TcpStream::connect(("127.0.0.1", broker)).await
                {
                    tokio::spawn(pass(inside, outside, seen.subscribe()));
                }
            }
        });
        Self { port, open, received, running }
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Until either side ends; then both connections are closed.
async fn pass(inside: TcpStream, outside: TcpStream, mut received: watch::Receiver<u64>) {
    let (mut from_program, mut to_program) = inside.into_split();
    let (mut from_broker, mut to_broker) = outside.into_split();
    // Messages of earlier connections do not count for this one.
    let before = *received.borrow_and_update();
    let back = async {
        let (mut buffer, mut acknowledged) = (Vec::new(), 0);
        while from_broker.read_buf(&mut buffer).await.is_ok_and(|count| count > 0) {
            while let Some(packet) = take_packet(&mut buffer) {
                if packet[0] == 0x40 {
                    acknowledged += 1;
                    if received.wait_for(|count| *count >= before + acknowledged).await.is_err() {
                        return;
                    }
                }
                if to_program.write_all(&packet).await.is_err() {
                    return;
                }
            }
        }
    };
    tokio::select! {
        () = back => {}
        _ = tokio::io::copy(&mut from_program, &mut to_broker) => {}
    }
}

/// The first whole packet; remaining lengths of more than two bytes do not occur here from the broker.
fn take_packet(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let (head, length) = match buffer[..] {
        [_, length, ..] if length < 128 => (2, usize::from(length)),
        [_, low, high, ..] => (3, usize::from(low & 127) + (usize::from(high) << 7)),
        _ => return None,
    };
    (buffer.len() >= head + length).then(|| buffer.drain(..head + length).collect())
}

/// What a subscriber of the broker's present life has received.
struct Witness {
    heard: watch::Receiver<Vec<(String, String)>>,
    running: JoinHandle<()>,
}

impl Witness {
    /// Subscribed before anything of the program can arrive; tells the gate of each message.
    async fn before(broker: u16, received: &watch::Sender<u64>) -> Self {
        let mut witness_options = options(broker, "witness");
        witness_options.set_inflight(1_000);
        let mut client = Client::with(witness_options).await;
        client.subscribe("#", QoS::AtLeastOnce).await;
        let (sender, heard) = watch::channel(Vec::new());
        let received = received.clone();
        let running = tokio::spawn(async move {
            while let Some(publish) = client.next_or_end().await {
                let text = String::from_utf8(publish.payload.to_vec()).unwrap();
                sender.send_modify(|all| all.push((publish.topic, text)));
                received.send_modify(|count| *count += 1);
            }
        });
        Self { heard, running }
    }

    async fn wait_for(&mut self, what: &str, mut found: impl FnMut(&[(String, String)]) -> bool) {
        let wait = self.heard.wait_for(|all| found(all));
        let outcome = tokio::time::timeout(PATIENCE, wait).await;
        assert!(outcome.is_ok_and(|heard| heard.is_ok()), "{what} did not come");
    }

    async fn wait_for_state(&mut self, state: &str) {
        let payload = format!("{{\"state\":\"{state}\"}}");
        self.wait_for(state, |all| all.iter().any(|(topic, text)| topic == STATE && *text == payload)).await;
    }

    /// What it heard until the broker died, or until now.
    async fn numbers(self, wait_for_death: bool) -> Vec<u32> {
        if wait_for_death {
            tokio::time::timeout(PATIENCE, self.running).await.expect("the connection dies").unwrap();
        }
        let all = self.heard.borrow();
        let events = all.iter().filter(|(topic, _)| topic == FAILURE);
        events.map(|(_, text)| text.strip_prefix("Task ").unwrap().parse().unwrap()).collect()
    }
}

/// Sends a numbered failure event and, every hundred, waits until the program has taken them, so that no kernel buffer decides.
async fn send_events(app: &App, numbers: std::ops::Range<u32>) {
    let to = ("127.0.0.1", app.udp().await);
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    for number in numbers.clone() {
        let text = format!(
            "/scheduler-reload-failed/;sense-1;Task {number};App {number};LAB\\goran;22b106a8-e7ed-4466-b700-{number:012};\
             8f1d1ecf-97a6-4eb5-8f47-f9156300b854;2024-04-12 07:33:03,508;INFO;c073f112-4318-4d1f-ae82-{number:012};Max retries reached"
        );
        socket.send_to(text.as_bytes(), to).unwrap();
        if number % 100 == 99 || number + 1 == numbers.end {
            received(app, number + 1).await;
        }
    }
}

async fn received(app: &App, count: u32) {
    let all = async {
        loop {
            let (_, metrics) = app.get("/metrics").await;
            let lines = metrics.lines().filter(|line| line.starts_with("sense_butler_udp_datagrams_received_total"));
            let sum: f64 = lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum();
            if sum >= f64::from(count) {
                return;
            }
        }
    };
    tokio::time::timeout(PATIENCE, all)
        .await
        .unwrap_or_else(|_| panic!("not all of the first {count} datagrams are received"));
}

async fn publish(app: &App) -> u16 {
    app.put("/v4/mqttpublishmessage", r#"{"topic":"rest","message":"x"}"#).await.0
}

async fn until_the_broker_is(up: bool, app: &App) {
    let noticed = async { while app.json("/api/v1/status").await["brokerUp"] != up {} };
    tokio::time::timeout(PATIENCE, noticed).await.unwrap_or_else(|_| panic!("the broker is never seen to be {up}"));
}

fn butler_yaml(dir: &Dir) -> String {
    let text = "Butler:\n  mqttConfig: {broker: external, brokerHost: 127.0.0.1, taskFailureSendFull: true}\n";
    dir.write("butler.yaml", text).to_str().unwrap().to_owned()
}

async fn run(dir: &Dir, broker: u16) -> App {
    let addresses = app::free_ports_but("--mqtt", &format!("127.0.0.1:{broker}"));
    let addresses: Vec<&str> = addresses.iter().map(String::as_str).collect();
    App::run_at(dir, &addresses, &["-c", &butler_yaml(dir)]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_started_again_under_load_every_accepted_event_arrives_in_order() {
    let test = "killed_and_started_again_under_load_every_accepted_event_arrives_in_order";
    let Some(mut mosquitto) = Mosquitto::start(test).await else { return };
    let gate = Gate::before(mosquitto.port).await;
    let mut witness = Witness::before(mosquitto.port, &gate.received).await;
    let dir = Dir::new();
    let app = run(&dir, gate.port).await;
    let (mut arrived, mut next) = (Vec::new(), 0);
    for _ in 0..3 {
        witness.wait_for_state("online").await;
        assert_eq!(publish(&app).await, 201);
        let (first, end) = (next, next + 2_000);
        next = end;
        let half = format!("Task {}", first + 300);
        let (_, ()) = tokio::join!(send_events(&app, first..end), async {
            witness.wait_for("some events", |all| all.iter().any(|(_, text)| *text == half)).await;
            // In the middle of it.
            gate.open.store(false, Ordering::SeqCst);
            mosquitto.kill();
        });
        until_the_broker_is(false, &app).await;
        assert_eq!(publish(&app).await, 503);
        assert_eq!(app.get("/readyz").await.0, 200, "a peer that is away does not make the program unready");
        send_events(&app, next..next + 500).await;
        next += 500;
        arrived.extend(witness.numbers(true).await);
        mosquitto.start_again().await;
        witness = Witness::before(mosquitto.port, &gate.received).await;
        gate.open.store(true, Ordering::SeqCst);
        until_the_broker_is(true, &app).await;
        assert_eq!(publish(&app).await, 201);
    }
    witness.wait_for_state("online").await;
    let last = format!("Task {}", next - 1);
    witness.wait_for("the last event", |all| all.iter().any(|(topic, text)| topic == FAILURE && *text == last)).await;
    app.signal("TERM");
    let (ended, ()) = tokio::join!(app.ended(), witness.wait_for_state("offline"));
    assert_eq!(ended.status.code(), Some(0), "{}", ended.output);
    assert!(ended.took < Duration::from_secs(5), "{:?}", ended.took);
    arrived.extend(witness.numbers(false).await);
    // QoS 1: what was not acknowledged when the broker died comes once more.
    let mut highest = None;
    for number in arrived {
        let due = highest.map_or(0, |highest| highest + 1);
        assert!(number <= due, "event {number} came where {due} was due: one is missing or out of order");
        highest = highest.max(Some(number));
    }
    assert_eq!(highest, Some(next - 1));
    let mut late = Client::connect(mosquitto.port, "late").await;
    late.subscribe(STATE, QoS::AtLeastOnce).await;
    let state = late.next().await;
    assert_eq!((state.retain, state.payload), (true, r#"{"state":"offline"}"#.into()), "retained");
}

/// Killed itself, the program says nothing; its will does.
#[tokio::test]
async fn the_will_of_a_killed_program_says_offline() {
    let Some(mosquitto) = Mosquitto::start("the_will_of_a_killed_program_says_offline").await else { return };
    let mut witness = Client::connect(mosquitto.port, "witness").await;
    witness.subscribe(STATE, QoS::AtLeastOnce).await;
    let dir = Dir::new();
    let app = run(&dir, mosquitto.port).await;
    witness.find(|publish| publish.payload == r#"{"state":"online"}"#.as_bytes()).await;
    app.signal("KILL");
    // `online` may come once more: at QoS 1, and with each connection.
    let mut last = witness.next().await;
    while last.payload == r#"{"state":"online"}"#.as_bytes() {
        last = witness.next().await;
    }
    assert_eq!(last.payload, r#"{"state":"offline"}"#.as_bytes());
    assert_eq!(app.ended().await.status.code(), None);
}

/// It starts before its broker does, and is there when the broker comes.
#[tokio::test]
async fn a_broker_that_comes_later() {
    let Some(mut mosquitto) = Mosquitto::start("a_broker_that_comes_later").await else { return };
    mosquitto.kill();
    let dir = Dir::new();
    let app = run(&dir, mosquitto.port).await;
    assert_eq!(publish(&app).await, 503);
    send_events(&app, 0..10).await;
    mosquitto.start_again().await;
    until_the_broker_is(true, &app).await;
    let mut witness = Client::connect(mosquitto.port, "witness").await;
    witness.subscribe("#", QoS::AtLeastOnce).await;
    assert_eq!(publish(&app).await, 201);
    assert_eq!(witness.find(|publish| publish.topic == "rest").await.payload, "x".as_bytes());
    app.stop().await;
}
