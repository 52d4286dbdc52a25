//! Peers that do not behave, all at once, against the real program: meanwhile an honest client publishes and receives at QoS 1 without loss,
//! each round trip within a few seconds, and the badly behaved are shown out.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "support/app.rs"]
mod app;
#[path = "support/mqtt.rs"]
mod mqtt;
#[path = "support/raw.rs"]
#[allow(dead_code)]
mod raw;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use app::{App, Dir, PATIENCE};
use mqtt::Client;
use raw::{Hello, Raw, packet, text};
use rumqttc::QoS;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};

/// What `broker.toml` gives a new connection, seconds.
const CONNECT_TIMEOUT: u64 = 3;
const LONGEST_ROUND_TRIP: Duration = Duration::from_secs(5);

/// Reads until the program closes; answers what came before.
async fn until_closed(mut stream: TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    let read = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut all)).await;
    // A reset is an end, too.
    drop(read.expect("the program closes the connection"));
    all
}

async fn silent(address: SocketAddr) {
    let stream = TcpStream::connect(address).await.unwrap();
    assert!(until_closed(stream).await.is_empty(), "nothing is said to who says nothing");
}

/// Bytes of a generator of its own (xorshift), so that a failure comes again.
async fn garbage(address: SocketAddr, seed: u64) {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    })
    .take(500)
    .flatten()
    .collect();
    let mut stream = TcpStream::connect(address).await.unwrap();
    // Closed while we write, as it should be.
    let _ = stream.write_all(&bytes).await;
    until_closed(stream).await;
}

async fn half_a_connect(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"\x10\x20\x00\x04MQTT\x04\x02").await.unwrap();
    assert!(until_closed(stream).await.is_empty());
}

async fn huge_declared_connect(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"\x10\xff\xff\xff\x7f\x00\x04MQTT\x05").await.unwrap();
    until_closed(stream).await;
}

/// Never fast enough to be through in time: one byte a second.
async fn connect_byte_by_byte(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let begun = Instant::now();
    for byte in b"\x10\x0d\x00\x04MQTT\x04\x02\x00\x3c\x00\x01s" {
        if stream.write_all(&[*byte]).await.is_err() {
            break;
        }
        // This is the misbehaviour itself.
        tokio::time::sleep(Duration::from_secs(1)).await;
        if begun.elapsed() > Duration::from_secs(3 * CONNECT_TIMEOUT) {
            break;
        }
    }
    until_closed(stream).await;
}

/// Slow and honest: every byte on its own, and the message arrives all the same.
async fn publish_byte_by_byte(address: SocketAddr, number: u16) {
    let (mut raw, connack) = Raw::connect(address, &Hello::v5(&format!("slow-{number}"))).await;
    assert_eq!(connack[1], 0);
    let mut body = Vec::new();
    text(&mut body, b"slow/topic");
    body.extend(number.to_be_bytes());
    body.push(0);
    body.extend([b'x'; 100]);
    for byte in packet(0x32, &body) {
        raw.bytes(&[byte]).await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let (first, ack) = raw.receive().await.expect("a PUBACK");
    assert_eq!((first, &ack[..2]), (0x40, &number.to_be_bytes()[..]));
}

/// After a proper CONNECT in MQTT 5, one packet that must end the connection with this reason.
async fn refused_with(address: SocketAddr, id: &str, bytes: &[u8], reasons: &[u8]) {
    let (mut raw, _) = Raw::connect(address, &Hello::v5(id)).await;
    raw.bytes(bytes).await;
    let (first, body) = raw.receive().await.unwrap_or_else(|| panic!("{id}: no word"));
    assert_eq!(first, 0xe0, "{id}: a DISCONNECT");
    assert!(reasons.contains(&body[0]), "{id}: reason {:02x}", body[0]);
    assert!(raw.is_closed().await, "{id}");
}

async fn too_many_levels(address: SocketAddr) {
    let (mut raw, _) = Raw::connect(address, &Hello::v5("levels")).await;
    let deep = vec!["a"; 200].join("/");
    raw.publish(&deep, b"x", 1, 9, false).await;
    let (first, body) = raw.receive().await.expect("a PUBACK");
    assert!(first == 0x40 && body[2] >= 0x80, "{first:02x} {body:?}");
    assert!(raw.subscribe(&deep, 1).await >= 0x80);
    let (mut again, _) = Raw::connect(address, &Hello::v5("levels-2")).await;
    again.publish(&"x/".repeat(32_000), b"x", 1, 9, false).await;
    let (first, body) = again.receive().await.expect("an answer");
    assert!(first == 0xe0 || body[2] >= 0x80, "{first:02x} {body:?}");
}

fn published(topic: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    body.extend([0, 1, 0]);
    packet(0x32, &body)
}

/// Subscribes to what the honest client says, and reads none of it.
async fn deaf(address: SocketAddr, number: u16) -> Raw {
    let (mut raw, _) = Raw::connect(address, &Hello::v3(&format!("deaf-{number}"))).await;
    assert!(raw.subscribe("honest/#", 1).await <= 2);
    raw
}

fn misbehave(address: SocketAddr) -> JoinSet<()> {
    let mut peers = JoinSet::new();
    for number in 0..30 {
        peers.spawn(silent(address));
        peers.spawn(garbage(address, number + 1));
        peers.spawn(half_a_connect(address));
        peers.spawn(huge_declared_connect(address));
    }
    for number in 1..=5 {
        peers.spawn(connect_byte_by_byte(address));
        peers.spawn(publish_byte_by_byte(address, number));
    }
    peers.spawn(too_many_levels(address));
    let wrong: [(&str, Vec<u8>, &[u8]); 6] = [
        ("huge-publish", b"\x32\xff\xff\xff\x7f\x00\x01t".to_vec(), &[0x95]),
        ("not-utf-8", published(b"a\xff\xfe"), &[0x81, 0x82, 0x90]),
        ("wildcard", published(b"a/#"), &[0x81, 0x82, 0x90]),
        ("second-connect", packet(0x10, b"\0\x04MQTT\x05\x02\0\0\0\0\x01b"), &[0x82]),
        ("fifteenth-type", packet(0xf0, b""), &[0x81, 0x82]),
        ("five-byte-length", b"\x32\xff\xff\xff\xff\x7f".to_vec(), &[0x81, 0x82]),
    ];
    for (id, bytes, reasons) in wrong {
        peers.spawn(async move { refused_with(address, id, &bytes, reasons).await });
    }
    peers
}

/// An honest client beside them, until all of them are gone; then a few hundred messages more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_honest_client_among_hostile_ones() {
    let dir = Dir::new();
    let limits = format!("[limits]\nconnect_timeout = {CONNECT_TIMEOUT}\n");
    dir.write("broker.toml", &format!("[[listeners]]\naddress = \"127.0.0.1:0\"\n{limits}"));
    let mut app = App::start(&dir, &[&["run"], &app::FREE_PORTS[2..]].concat());
    app.wait_until_ready().await;
    let port = app.mqtt().await;
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut honest = Client::connect(port, "honest").await;
    honest.subscribe("honest/#", QoS::AtLeastOnce).await;
    let mut deaf_ones = Vec::new();
    for number in 0..5 {
        deaf_ones.push(deaf(address, number).await);
    }

    let mut peers = misbehave(address);
    let number_of_peers = peers.len();
    let (mut sent, mut longest, mut rest) = (0_u32, Duration::ZERO, 300);
    while rest > 0 {
        let begun = Instant::now();
        honest.publish("honest/å", QoS::AtLeastOnce, false, sent.to_string()).await;
        assert_eq!(honest.next().await.payload, sent.to_string(), "the next one, nothing lost, nothing twice");
        longest = longest.max(begun.elapsed());
        sent += 1;
        while let Some(ended) = peers.try_join_next() {
            ended.unwrap();
        }
        rest -= u32::from(peers.is_empty());
    }
    assert_eq!(number_of_peers, 30 * 4 + 10 + 1 + 6);
    assert!(longest < LONGEST_ROUND_TRIP, "a round trip took {longest:?}");
    assert!(honest.is_connected());
    assert_eq!(app.get("/readyz").await.0, 200);
    println!("{sent} round trips beside {number_of_peers} hostile peers, the longest {longest:?}");
    app.stop().await;
}

/// The same at the other door.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_peers_of_rest_hurt_nobody() {
    let dir = Dir::new();
    let app = App::run(&dir, &[]).await;
    let address = SocketAddr::from(([127, 0, 0, 1], app.rest().await));
    let mut held = Vec::new();
    let openings: [&[u8]; 5] = [
        b"",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"PUT /v4/mqttpublishmessage HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-le",
        b"PUT /v4/mqttpublishmessage HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 99999999999999\r\n\r\n{",
        b"PUT /v4/mqttpublishmessage HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100\r\n\r\n{\"topic\":",
    ];
    for opening in openings.iter().cycle().take(100) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(opening).await.unwrap();
        held.push(stream);
    }
    let mut client = Client::connect(app.mqtt().await, "watcher").await;
    client.subscribe("honest", QoS::AtLeastOnce).await;
    for number in 0..100 {
        let begun = Instant::now();
        let body = format!("{{\"topic\":\"honest\",\"message\":\"{number}\"}}");
        assert_eq!(app.put("/v4/mqttpublishmessage", &body).await.0, 201);
        assert_eq!(client.next().await.payload, number.to_string());
        assert!(begun.elapsed() < LONGEST_ROUND_TRIP, "{:?}", begun.elapsed());
    }
    assert_eq!(held.len(), 100);
    app.stop().await;
}
