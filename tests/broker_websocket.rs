//! MQTT over WebSocket, with tungstenite's client and with frames made by hand.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::{
    io::{Read, Write},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use sense_butler::broker::settings::WebSocket;
use support::{
    raw::{Hello, packet},
    running::Running,
    tls::{Authority, Files, connector, listener_tls},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _, http::HeaderValue};

const REQUEST: &str = "GET /mqtt HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
    Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: mqtt\r\n\r\n";

fn start() -> Running {
    start_with(|_| {})
}

fn start_with(change: impl FnOnce(&mut sense_butler::broker::settings::Settings)) -> Running {
    Running::start(|settings| {
        let allowed_origins = vec!["https://panel.example".to_owned()];
        settings.listeners[0].websocket =
            Some(WebSocket { path: "/mqtt".into(), allowed_origins, allowed_hosts: vec![] });
        change(settings);
    })
}

/// A frame of a client.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0xa5, 0x5a, 0x3c, 0xc3];
    let mut frame = vec![first];
    match payload.len() {
        short @ 0..=125 => frame.push(0x80 | short as u8),
        middle @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((middle as u16).to_be_bytes());
        }
        long => {
            frame.push(0x80 | 127);
            frame.extend((long as u64).to_be_bytes());
        }
    }
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// A client whose frames are made by hand.
struct Web(TcpStream);

impl Web {
    async fn open(address: SocketAddr) -> Self {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(REQUEST.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "));
        Self(stream)
    }

    /// Sends bytes; a broker that closed is no failure of the test.
    async fn send(&mut self, bytes: &[u8]) {
        let _ = self.0.write_all(bytes).await;
    }

    /// The next frame: first byte and payload; `None` at the end.
    async fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        let reading = async {
            let first = self.0.read_u8().await.ok()?;
            let length = match self.0.read_u8().await.ok()? {
                127 => self.0.read_u64().await.ok()? as usize,
                126 => usize::from(self.0.read_u16().await.ok()?),
                short => usize::from(short),
            };
            let mut payload = vec![0; length];
            self.0.read_exact(&mut payload).await.ok()?;
            Some((first, payload))
        };
        tokio::time::timeout(Duration::from_secs(20), reading).await.expect("a frame in time")
    }

    async fn connack(&mut self) {
        let (first, payload) = self.receive().await.expect("a CONNACK");
        assert_eq!((first, payload[0]), (0x82, 0x20));
    }
}

fn hello(version: u8) -> Vec<u8> {
    let hello = if version == 5 { Hello::v5("web") } else { Hello::v3("web") };
    packet(0x10, &hello.body())
}

const PING: [u8; 2] = [0xc0, 0];
const PONG: &[u8] = &[0xd0, 0];

/// Bytes per frame, packets per frame, fragments: all the same.
///
/// Shows 3.1.1: [MQTT-6.0.0-2]
/// Shows 5.0: [MQTT-6.0.0-2]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_and_packets_need_not_align() {
    let broker = start();
    for version in [4, 5] {
        // A byte per frame, and empty frames in between.
        let mut web = Web::open(broker.address).await;
        for byte in hello(version) {
            web.send(&frame(0x82, &[byte])).await;
            web.send(&frame(0x82, &[])).await;
        }
        web.connack().await;
        // Several packets in one frame.
        web.send(&frame(0x82, &[PING, PING, PING].concat())).await;
        let mut pongs = Vec::new();
        while pongs.len() < 6 {
            let (first, payload) = web.receive().await.unwrap();
            assert_eq!(first, 0x82);
            pongs.extend(payload);
        }
        assert_eq!(pongs, PONG.repeat(3));
        // A packet in fragments, with a ping between them, a byte at a time on the wire.
        let fragments = [frame(0x02, &PING[..1]), frame(0x89, b"are you there"), frame(0x80, &PING[1..])].concat();
        for byte in fragments {
            web.send(&[byte]).await;
        }
        assert_eq!(web.receive().await.unwrap(), (0x8a, b"are you there".to_vec()));
        assert_eq!(web.receive().await.unwrap(), (0x82, PONG.to_vec()));
        // The end is said by both.
        web.send(&frame(0x88, &1000_u16.to_be_bytes())).await;
        assert_eq!(web.receive().await.unwrap(), (0x88, 1000_u16.to_be_bytes().to_vec()));
        assert_eq!(web.receive().await, None);
    }
    // CONNECT may come together with the request.
    let mut stream = TcpStream::connect(broker.address).await.unwrap();
    stream.write_all(&[REQUEST.as_bytes(), &frame(0x82, &hello(4))].concat()).await.unwrap();
    let mut answer = vec![0; 512];
    let mut got = 0;
    while !answer[..got].ends_with(&[0x82, 4, 0x20, 2, 0, 0]) {
        got += stream.read(&mut answer[got..]).await.unwrap();
        assert!(got < answer.len());
    }
    broker.stop().await;
}

/// Any other data frame than a binary one closes the connection.
///
/// Shows 3.1.1: [MQTT-6.0.0-1]
/// Shows 5.0: [MQTT-6.0.0-1]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_rules_close_the_connection_and_nothing_else() {
    let broker = start_with(|settings| settings.limits.packet_size = 64 << 10);
    let mut witness = Web::open(broker.address).await;
    witness.send(&frame(0x82, &packet(0x10, &Hello::v5("witness").body()))).await;
    witness.connack().await;
    let declared = |length: u64| [&[0x82, 0xff][..], &length.to_be_bytes(), &[0; 4], &[0; 100]].concat();
    let cases: [(Vec<u8>, u16); 6] = [
        (frame(0x81, b"text"), 1003),
        (declared(256 << 20), 1009),
        (declared(u64::MAX), 1009),
        (vec![0x82, 2, 0xc0, 0], 1002),
        (frame(0xc2, &PING), 1002),
        (frame(0x87, b""), 1002),
    ];
    for (bytes, code) in &cases {
        for version in [4, 5] {
            let mut web = Web::open(broker.address).await;
            web.send(&frame(0x82, &hello(version))).await;
            web.connack().await;
            web.send(bytes).await;
            let mut last = web.receive().await.unwrap();
            if version == 5 {
                assert_eq!((last.0, last.1[0]), (0x82, 0xe0), "DISCONNECT");
                last = web.receive().await.unwrap();
            }
            assert_eq!(last, (0x88, code.to_be_bytes().to_vec()), "{bytes:x?}");
        }
        // The same before CONNECT.
        let mut web = Web::open(broker.address).await;
        web.send(bytes).await;
        assert_eq!(web.receive().await, Some((0x88, code.to_be_bytes().to_vec())), "{bytes:x?}");
    }
    witness.send(&frame(0x82, &PING)).await;
    assert_eq!(witness.receive().await.unwrap(), (0x82, PONG.to_vec()));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_wrongly_gets_an_answer() {
    let broker = start();
    let cases = [
        ("GET /mqtt ", "GET /other ", 404),
        ("GET /mqtt ", "POST /mqtt ", 405),
        ("Upgrade: websocket\r\n", "", 426),
        ("Version: 13", "Version: 12", 426),
        ("Protocol: mqtt", "Protocol: mqttv3.1", 400),
        ("Host: localhost", "Host: evil.example", 403),
        ("Connection", "Origin: https://evil.example\r\nConnection", 403),
        ("Connection", "Origin: https://panel.example\r\nConnection", 101),
        ("GET /mqtt HTTP/1.1", "\u{16}\u{3}\u{1}", 400),
    ];
    for (old, new, status) in cases {
        assert!(REQUEST.contains(old), "{old}");
        let mut stream = TcpStream::connect(broker.address).await.unwrap();
        stream.write_all(REQUEST.replacen(old, new, 1).as_bytes()).await.unwrap();
        let mut answer = vec![0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(String::from_utf8(answer).unwrap(), format!("HTTP/1.1 {status}"), "{new}");
        if status != 101 {
            let mut rest = String::new();
            stream.read_to_string(&mut rest).await.unwrap();
            assert!(rest.contains("connection: close"), "{rest}");
        }
    }
    let mut stream = TcpStream::connect(broker.address).await.unwrap();
    let long = format!("GET /mqtt HTTP/1.1\r\nx: {}", "y".repeat(20_000));
    stream.write_all(long.as_bytes()).await.unwrap();
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, b"HTTP/1.1 431");
    broker.stop().await;
}

/// Subscribes, publishes to itself and ends, with tungstenite's client over a blocking stream.
fn converse<S: Read + Write>(address: SocketAddr, scheme: &str, stream: S, version: u8) {
    let mut request = format!("{scheme}://localhost:{}/mqtt", address.port()).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("mqtt"));
    let (mut socket, response) =
        tokio_tungstenite::tungstenite::client(request, stream).map_err(|error| error.to_string()).unwrap();
    assert_eq!(response.headers()["sec-websocket-protocol"], "mqtt");
    let mut next = {
        let mut buffer = Vec::new();
        move |socket: &mut tokio_tungstenite::tungstenite::WebSocket<S>| loop {
            use sense_butler::broker::codec::{Framed, frame};
            if let Framed::Complete { first, body, length } = frame(&buffer, 1 << 28).unwrap() {
                let found = (first, body.to_vec());
                buffer.drain(..length);
                return found;
            }
            match socket.read().unwrap() {
                Message::Binary(bytes) => buffer.extend_from_slice(&bytes),
                other => panic!("{other:?}"),
            }
        }
    };
    socket.send(Message::binary(hello(version))).unwrap();
    assert_eq!(next(&mut socket).0, 0x20);
    let properties: &[u8] = if version == 5 { &[0] } else { &[] };
    let subscribe = [&[0, 1], properties, &[0, 3], b"web", &[1]].concat();
    socket.send(Message::binary(packet(0x82, &subscribe))).unwrap();
    assert_eq!(next(&mut socket).0, 0x90);
    // Larger than a frame of the broker, which is 64 KiB.
    let payload = vec![7; 300_000];
    let publish = [&[0, 3], &b"web"[..], &[0, 9], properties, &payload].concat();
    socket.send(Message::binary(packet(0x32, &publish))).unwrap();
    let (mut got, mut acknowledged) = (false, false);
    while !(got && acknowledged) {
        let (first, body) = next(&mut socket);
        match first >> 4 {
            3 => {
                assert!(body.ends_with(&payload));
                got = true;
            }
            4 => acknowledged = true,
            other => panic!("{other}"),
        }
    }
    socket.send(Message::binary(packet(0xe0, &[]))).unwrap();
    assert!(matches!(socket.read().unwrap(), Message::Close(_)));
}

/// The subprotocol selected is `mqtt`; both versions, with and without TLS.
///
/// Shows 3.1.1: [MQTT-6.0.0-4]
/// Shows 5.0: [MQTT-6.0.0-4]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_not_ours_with_and_without_tls() {
    let broker = start();
    let address = broker.address;
    for version in [4, 5] {
        let blocking = move || converse(address, "ws", std::net::TcpStream::connect(address).unwrap(), version);
        tokio::task::spawn_blocking(blocking).await.unwrap();
    }
    broker.stop().await;

    let (files, authority) = (Files::new("websocket-tls"), Authority::new("plant"));
    files.pair(&authority.server());
    let broker = start_with(|settings| settings.listeners[0].tls = Some(listener_tls(&files.0, None)));
    let (address, config) = (broker.address, Arc::clone(connector(&[&authority], None).config()));
    for version in [4, 5] {
        let config = Arc::clone(&config);
        let blocking = move || {
            let tls = rustls::ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
            let stream = rustls::StreamOwned::new(tls, std::net::TcpStream::connect(address).unwrap());
            converse(address, "wss", stream, version);
        };
        tokio::task::spawn_blocking(blocking).await.unwrap();
    }
    broker.stop().await;
}
