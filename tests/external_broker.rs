//! Against a real broker elsewhere: mosquitto, killed and started under load, and the verbs `pub` and `sub`.
//!
//! Needs `mosquitto` in the path; where it is absent each test says so on standard error and counts as passed (`.ci/run` installs it and
//! sets `REQUIRE_MOSQUITTO=1`, which turns the absence into a failure).
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

use std::{
    io::Write as _,
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

use sense_butler::{
    bus::{
        Bus, Publication, PublishError, Receipt,
        external::{Config, External},
    },
    config::settings::{BrokerTls, ExternalBroker, MqttProtocol},
    names::{Secret, TopicFilter, TopicName},
};
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// Name and password of the one user.
const USER: [&str; 2] = ["plc", "right"];
const WAIT: Duration = Duration::from_secs(20);

/// A mosquitto of our own, killed when dropped.
struct Mosquitto {
    port: u16,
    directory: PathBuf,
    process: Child,
}

impl Mosquitto {
    /// `None`, said aloud, where there is no mosquitto.
    fn start(name: &str, extra: &str) -> Option<Self> {
        let Some(program) = Self::program() else {
            assert!(std::env::var_os("REQUIRE_MOSQUITTO").is_none(), "mosquitto is required here and absent");
            eprintln!("SKIPPED 1 test ({name}): mosquitto is not installed");
            return None;
        };
        let directory = std::env::temp_dir().join(format!("sense-butler-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&directory).unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let text = format!("listener {port} 127.0.0.1\npersistence false\nmax_queued_messages 0\n{extra}\n");
        std::fs::write(directory.join("mosquitto.conf"), text.replace("{dir}", directory.to_str().unwrap())).unwrap();
        if extra.contains("password_file") {
            let made =
                Command::new("mosquitto_passwd").args(["-b", "-c"]).arg(directory.join("users")).args(USER).output();
            assert!(made.unwrap().status.success());
            readable_by_all(&directory.join("users"));
        }
        if extra.contains("cafile") {
            write_certificates(&directory);
        }
        let process = Self::spawn(program, &directory);
        let broker = Self { port, directory, process };
        broker.wait_until_up();
        Some(broker)
    }

    fn program() -> Option<&'static str> {
        let places = ["/usr/sbin/mosquitto", "/usr/local/sbin/mosquitto", "/usr/bin/mosquitto", "mosquitto"];
        places.into_iter().find(|path| Command::new(path).arg("-h").output().is_ok())
    }

    fn spawn(program: &str, directory: &std::path::Path) -> Child {
        let mut command = Command::new(program);
        command.arg("-c").arg(directory.join("mosquitto.conf")).stdout(Stdio::null()).stderr(Stdio::null());
        command.spawn().unwrap()
    }

    fn wait_until_up(&self) {
        let begun = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(begun.elapsed() < WAIT, "mosquitto does not listen");
            std::thread::yield_now();
        }
    }

    /// As `kill -9`: nothing is saved, nothing is said.
    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn start_again(&mut self) {
        self.process = Self::spawn(Self::program().unwrap(), &self.directory);
        self.wait_until_up();
    }
}

/// Started as root, mosquitto gives its rights up before it reads the file.
#[cfg(unix)]
fn readable_by_all(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o644)).unwrap();
}

#[cfg(not(unix))]
fn readable_by_all(_path: &std::path::Path) {}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        // Already dead in some tests; the directory may go with the machine.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

struct Client {
    external: External,
    bus: Bus,
    stop: CancellationToken,
    running: JoinHandle<()>,
}

fn client(port: u16, protocol: MqttProtocol, change: impl FnOnce(&mut ExternalBroker)) -> Client {
    let mut broker = ExternalBroker {
        host: "127.0.0.1".into(),
        port,
        user: None,
        password: None,
        client_id: Some("appliance".into()),
        protocol,
        tls: None,
    };
    change(&mut broker);
    let will = Publication::new(topic("qliksense/butler/state"), r#"{"state":"offline"}"#).retained();
    let (external, driver) = External::build(Config::new(broker, Some(will)));
    let stop = CancellationToken::new();
    let running = tokio::spawn(driver.run(stop.clone()));
    Client { bus: Bus::new(external.clone()), external, stop, running }
}

fn topic(text: &str) -> TopicName {
    TopicName::new(text).unwrap()
}

fn event(number: usize) -> Publication {
    Publication::new(topic("qliksense/task_failure"), number.to_string())
}

/// A listener that is connected before the appliance is: the appliance comes through a gate that opens later.
struct Gate {
    port: u16,
    open: tokio::sync::watch::Sender<bool>,
    running: JoinHandle<()>,
}

impl Gate {
    async fn before(port: u16) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        let (open, opened) = tokio::sync::watch::channel(true);
        let running = tokio::spawn(async move {
            loop {
                let (mut inside, _) = listener.accept().await.unwrap();
                if *opened.borrow()
                    && let Ok(mut outside) = tokio::net::TcpStream::connect(("127.0.0.1", port)).await
                {
                    tokio::spawn(async move { tokio::io::copy_bidirectional(&mut inside, &mut outside).await });
                }
            }
        });
        Self { port: own, open, running }
    }
}

/// Subscribes with a client of another kind than the one under test: the plain rumqttc client, in MQTT 3.1.1.
async fn listen(port: u16, id: &str) -> (mpsc::UnboundedReceiver<usize>, JoinHandle<()>) {
    let mut options = rumqttc::MqttOptions::new(id, "127.0.0.1", port);
    options.set_inflight(1_000);
    let (client, mut events) = rumqttc::AsyncClient::new(options, 10);
    client.subscribe("qliksense/task_failure", rumqttc::QoS::AtLeastOnce).await.unwrap();
    let (sender, receiver) = mpsc::unbounded_channel();
    let (ready, subscribed) = tokio::sync::oneshot::channel();
    let mut ready = Some(ready);
    let running = tokio::spawn(async move {
        while let Ok(event) = events.poll().await {
            match event {
                rumqttc::Event::Incoming(rumqttc::Packet::SubAck(_)) => ready.take().unwrap().send(()).unwrap(),
                rumqttc::Event::Incoming(rumqttc::Packet::Publish(publish)) => {
                    let number = std::str::from_utf8(&publish.payload).unwrap().parse().unwrap();
                    // The test has seen enough.
                    let _ = sender.send(number);
                }
                _ => {}
            }
        }
        drop(client);
    });
    subscribed.await.unwrap();
    (receiver, running)
}

/// Messages are accepted all the time; the broker is killed three times. Every message that was not acknowledged when it died arrives at a
/// listener of the next life, in order; REST is refused in between. (What a broker without a store acknowledged and forgot is its own.)
async fn killed_and_started(protocol: MqttProtocol, name: &str) {
    let Some(mut mosquitto) = Mosquitto::start(name, "allow_anonymous true") else { return };
    let gate = Gate::before(mosquitto.port).await;
    let client = client(gate.port, protocol, |_| {});
    let mut connections = client.bus.connections();
    connections.wait_for(|count| *count == 1).await.unwrap();
    let mut next = 0;
    for life in 0..3 {
        let (mut heard, listener) = listen(mosquitto.port, "listener").await;
        let mut receipts: Vec<(usize, Receipt)> = Vec::new();
        for number in 0..4_000 {
            receipts.push((next, client.bus.submit(event(next)).await.unwrap()));
            next += 1;
            if number == 2_000 {
                heard.recv().await.unwrap();
            }
        }
        // In the middle of it: some have arrived, others are still on their way.
        gate.open.send_replace(false);
        mosquitto.kill();
        let bus = client.bus.clone();
        tokio::time::timeout(WAIT, async {
            while bus.is_up() {
                tokio::task::yield_now().await
            }
        })
        .await
        .unwrap();
        let refused = client.bus.publish(event(usize::MAX)).await;
        assert!(matches!(refused, Err(PublishError::Unavailable(_))), "{refused:?}");
        listener.await.unwrap();
        for _ in 0..1_000 {
            receipts.push((next, client.bus.submit(event(next)).await.unwrap()));
            next += 1;
        }
        let waiting = client.external.health().outbox.messages;
        assert!(waiting >= 1_000, "the outbox keeps what was not acknowledged: {waiting}");
        let first_waiting = next - waiting;

        mosquitto.start_again();
        let (mut heard, listener) = listen(mosquitto.port, "listener").await;
        gate.open.send_replace(true);
        let mut arrived = Vec::new();
        while arrived.last() != Some(&(next - 1)) {
            arrived.push(tokio::time::timeout(WAIT, heard.recv()).await.unwrap().unwrap());
        }
        assert_eq!(arrived, (first_waiting..next).collect::<Vec<_>>(), "life {life}");
        for (number, receipt) in receipts {
            receipt.wait(WAIT).await.unwrap_or_else(|error| panic!("{number}: {error}"));
        }
        listener.abort();
    }
    assert_eq!(*client.bus.connections().borrow(), 4);
    gate.running.abort();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_started_under_load_in_mqtt_3() {
    killed_and_started(MqttProtocol::V3, "killed-3").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_and_started_under_load_in_mqtt_5() {
    killed_and_started(MqttProtocol::V5, "killed-5").await;
}

#[tokio::test]
async fn messages_come_back_with_their_properties_and_the_will_is_published() {
    let Some(mosquitto) = Mosquitto::start("round", "allow_anonymous true") else { return };
    let client = client(mosquitto.port, MqttProtocol::V5, |_| {});
    let filter = TopicFilter::new("qliksense/#").unwrap();
    let mut subscription = client.bus.subscribe("test", vec![filter.clone()]).await.unwrap();
    let mut message = Publication::new(topic("qliksense/å/ö/日本"), "grüße");
    message.properties.response_topic = Some(topic("answers/here"));
    message.properties.correlation_data = Some(b"\x00\xff".as_slice().into());
    message.properties.user = vec![("k".into(), "v".into())];
    let mut connections = client.bus.connections();
    connections.wait_for(|count| *count == 1).await.unwrap();
    // The subscription goes out before anything that is submitted after it.
    client.bus.publish(message.clone()).await.unwrap();
    let delivery = tokio::time::timeout(WAIT, subscription.recv()).await.unwrap().unwrap();
    assert_eq!((&delivery.topic, &delivery.payload), (&message.topic, &message.payload));
    assert_eq!(delivery.properties, message.properties);
    assert!(!delivery.retained && !delivery.dup && delivery.origin.may_start);

    // Taken over by another client of the same id, the connection is lost and the will goes out.
    let witness = self::client(mosquitto.port, MqttProtocol::V3, |broker| broker.client_id = Some("witness".into()));
    let mut seen = witness.bus.subscribe("witness", vec![filter]).await.unwrap();
    let mut witness_connections = witness.bus.connections();
    witness_connections.wait_for(|count| *count == 1).await.unwrap();
    witness.bus.publish(Publication::new(topic("qliksense/mark"), "")).await.unwrap();
    client.running.abort();
    let state = async {
        loop {
            let delivery = seen.recv().await.unwrap();
            if delivery.topic.as_str() == "qliksense/butler/state" {
                return delivery;
            }
        }
    };
    let state = tokio::time::timeout(WAIT, state).await.unwrap();
    assert_eq!(&*state.payload, br#"{"state":"offline"}"#);
    witness.stop.cancel();
    witness.running.await.unwrap();
}

#[tokio::test]
async fn a_wrong_password_is_said_and_the_right_one_taken() {
    let Some(mosquitto) = Mosquitto::start("password", "allow_anonymous false\npassword_file {dir}/users") else {
        return;
    };
    for protocol in [MqttProtocol::V3, MqttProtocol::V5] {
        let wrong = client(mosquitto.port, protocol, |broker| {
            broker.user = Some("plc".into());
            broker.password = Some(Secret::new("wrong"));
        });
        let text = error_of(&wrong.external).await;
        assert_eq!(text, "the broker refused the connection: not allowed; are user name and password right?");
        wrong.stop.cancel();
        wrong.running.await.unwrap();
        let right = client(mosquitto.port, protocol, |broker| {
            broker.user = Some("plc".into());
            broker.password = Some(Secret::new(USER[1]));
        });
        connected(&right).await;
        right.bus.publish(event(1)).await.unwrap();
        right.stop.cancel();
        right.running.await.unwrap();
    }
}

/// A site's own authority, a server certificate for another name than the one we connect to, and a client certificate.
fn write_certificates(directory: &std::path::Path) {
    use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
    // Subject and issuer must differ, or OpenSSL takes a certificate for its own issuer.
    let named = |name: &str| {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.distinguished_name.push(DnType::CommonName, name);
        params
    };
    let mut authority = named("plant-CA");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(directory.join("ca.pem"), authority.pem()).unwrap();
    for (file, name) in [("server", "broker.plant"), ("client", "appliance")] {
        let key = KeyPair::generate().unwrap();
        let certificate = named(name).signed_by(&key, &authority).unwrap();
        std::fs::write(directory.join(format!("{file}.pem")), certificate.pem()).unwrap();
        std::fs::write(directory.join(format!("{file}_key.pem")), key.serialize_pem()).unwrap();
        readable_by_all(&directory.join(format!("{file}_key.pem")));
    }
}

const TLS: &str = "allow_anonymous true\nrequire_certificate true\ncafile {dir}/ca.pem\ncertfile {dir}/server.pem\nkeyfile {dir}/server_key.pem";

#[tokio::test]
async fn tls_with_both_certificates_and_another_name() {
    let Some(mosquitto) = Mosquitto::start("tls", TLS) else { return };
    let file = |name: &str| Some(mosquitto.directory.join(name));
    let tls = |name: Option<&str>| BrokerTls {
        ca: file("ca.pem"),
        cert: file("client.pem"),
        key: file("client_key.pem"),
        verify_name: name.map(str::to_owned),
    };
    for protocol in [MqttProtocol::V3, MqttProtocol::V5] {
        let right = client(mosquitto.port, protocol, |broker| broker.tls = Some(tls(Some("broker.plant"))));
        connected(&right).await;
        right.bus.publish(event(1)).await.unwrap();
        right.stop.cancel();
        right.running.await.unwrap();
    }
    let wrong = client(mosquitto.port, MqttProtocol::V5, |broker| broker.tls = Some(tls(None)));
    let text = error_of(&wrong.external).await;
    assert!(text.starts_with("the TLS handshake failed:"), "{text}");

    let port = mosquitto.port.to_string();
    let certificates = ["ca.pem", "client.pem", "client_key.pem"].map(|name| file(name).unwrap().display().to_string());
    let [ca, cert, key] = &certificates;
    let at = ["--host", "127.0.0.1", "--port", &port, "--ca", ca, "--cert", cert, "--key", key];
    let published = butler(&[&["pub", "-t", "a", "-m", "b", "--verify-name", "broker.plant"], &at[..]].concat(), "");
    assert!(published.status.success(), "{published:?}");
    let refused = butler(&[&["pub", "-t", "a", "-m", "b"], &at[..]].concat(), "");
    assert_eq!(refused.status.code(), Some(1), "the certificate is for another name");
}

async fn connected(client: &Client) {
    let mut connections = client.bus.connections();
    let connected = tokio::time::timeout(WAIT, connections.wait_for(|count| *count > 0)).await;
    assert!(connected.is_ok(), "{:?}", client.external.health());
}

/// Waits until health says what is wrong.
async fn error_of(external: &External) -> String {
    let begun = Instant::now();
    loop {
        if let Some(text) = external.health().error {
            return text;
        }
        assert!(begun.elapsed() < WAIT);
        tokio::task::yield_now().await;
    }
}

fn butler(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sense-butler"));
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn pub_and_sub_talk_through_a_broker() {
    let Some(mosquitto) = Mosquitto::start("verbs", "allow_anonymous true") else { return };
    let port = mosquitto.port.to_string();
    let mut cases = 0;
    for protocol in ["3", "5"] {
        for qos in ["0", "1", "2"] {
            let at = ["--host", "127.0.0.1", "--port", &port, "--protocol", protocol, "-q", qos];
            let topic = format!("å/{protocol}/{qos}");
            let published = butler(&[&["pub", "-t", &topic, "--file", "-", "--retain"], &at[..]].concat(), "line one");
            assert!(published.status.success() && published.stdout.is_empty(), "{published:?}");
            let filter = format!("å/{protocol}/{qos}/#");
            let heard = butler(&[&["sub", "-v", "-t", &filter, "--count", "1"], &at[..]].concat(), "");
            assert!(heard.status.success(), "{heard:?}");
            assert_eq!(String::from_utf8(heard.stdout).unwrap(), format!("{topic} line one\n"));
            cases += 1;
        }
    }
    assert_eq!(cases, 6);
    let json = butler(&["sub", "-t", "å/5/1", "--count", "1", "--json", "--host", "127.0.0.1", "--port", &port], "");
    let json = String::from_utf8(json.stdout).unwrap();
    assert_eq!(json, "{\"topic\":\"å/5/1\",\"qos\":1,\"retain\":true,\"payload\":\"line one\"}\n");
}

#[test]
fn when_nobody_answers_pub_and_sub_say_so() {
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port().to_string();
    for verb in [&["pub", "-t", "a", "-m", "b"][..], &["sub", "-t", "a"]] {
        let failed = butler(&[verb, &["--host", "127.0.0.1", "--port", &port]].concat(), "");
        assert_eq!(failed.status.code(), Some(1));
        let text = String::from_utf8(failed.stderr).unwrap();
        assert_eq!(text, format!("sense-butler: nobody answers at 127.0.0.1:{port}: is sense-butler running?\n"));
    }
    let wrong = butler(&["pub", "-t", "a/#", "-m", "b"], "");
    assert_eq!(wrong.status.code(), Some(64));
}

/// A reader that goes away (`sub | head -1`) ends `sub` without a fuss.
#[cfg(unix)]
#[test]
fn a_closed_output_is_the_end_and_no_panic() {
    use std::io::Read as _;

    let Some(mosquitto) = Mosquitto::start("closed", "allow_anonymous true") else { return };
    let port = mosquitto.port.to_string();
    let at = ["--host", "127.0.0.1", "--port", &port];
    let mut command = Command::new(env!("CARGO_BIN_EXE_sense-butler"));
    command.args(["sub", "-t", "a"]).args(at).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut sub = command.spawn().unwrap();
    let mut out = sub.stdout.take().unwrap();
    let publish =
        |text: &str| assert!(butler(&[&["pub", "-t", "a", "-m", text], &at[..]].concat(), "").status.success());
    publish("kept by nobody");
    assert!(butler(&[&["pub", "-t", "a", "-m", "first", "--retain"], &at[..]].concat(), "").status.success());
    let mut first = [0; 1];
    out.read_exact(&mut first).unwrap();
    drop(out);
    let begun = Instant::now();
    let status = loop {
        publish("more");
        if let Some(status) = sub.try_wait().unwrap() {
            break status;
        }
        assert!(begun.elapsed() < WAIT, "sub goes on talking to nobody");
    };
    let mut said = String::new();
    sub.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(status.success() && said.is_empty(), "{status} {said}");
}
