//! A bare MQTT client for tests: every packet is sent and read by hand, so that a test decides what a well-behaved library would not.

use std::{net::SocketAddr, time::Duration};

use sense_butler::broker::codec::{Framed, frame};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};

/// How long a test waits for a packet.
const PATIENCE: Duration = Duration::from_secs(20);

/// What a CONNECT says.
#[derive(Clone)]
pub struct Hello {
    pub version: u8,
    pub id: String,
    pub clean: bool,
    pub keep_alive: u16,
    pub user: Option<(String, String)>,
    pub will: Option<(String, String, u8)>,
    pub will_retain: bool,
    /// Properties of MQTT 5, wire form, without the length.
    pub will_properties: Vec<u8>,
    pub properties: Vec<u8>,
}

impl Hello {
    pub fn new(version: u8, id: &str) -> Self {
        Self { version, ..Self::v3(id) }
    }

    pub fn v3(id: &str) -> Self {
        let id = id.to_owned();
        Self {
            version: 4,
            id,
            clean: true,
            keep_alive: 0,
            user: None,
            will: None,
            will_retain: false,
            will_properties: Vec::new(),
            properties: Vec::new(),
        }
    }

    pub fn v5(id: &str) -> Self {
        Self { version: 5, ..Self::v3(id) }
    }

    pub fn kept(mut self) -> Self {
        self.clean = false;
        if self.version == 5 {
            self.properties.extend([0x11, 0, 0, 0xff, 0xff]);
        }
        self
    }

    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.user = Some((name.into(), password.into()));
        self
    }

    /// What stands in CONNECT behind the fixed header.
    pub fn body(&self) -> Vec<u8> {
        let mut body = Vec::new();
        text(&mut body, b"MQTT");
        let retain = u8::from(self.will_retain) << 5;
        let will = self.will.as_ref().map_or(0, |(_, _, qos)| 4 | (qos << 3) | retain);
        let user = if self.user.is_some() { 0xc0 } else { 0 };
        body.extend([self.version, u8::from(self.clean) << 1 | will | user]);
        body.extend(self.keep_alive.to_be_bytes());
        if self.version == 5 {
            body.push(self.properties.len() as u8);
            body.extend(&self.properties);
        }
        text(&mut body, self.id.as_bytes());
        if let Some((topic, payload, _)) = &self.will {
            if self.version == 5 {
                body.push(self.will_properties.len() as u8);
                body.extend(&self.will_properties);
            }
            text(&mut body, topic.as_bytes());
            text(&mut body, payload.as_bytes());
        }
        if let Some((name, password)) = &self.user {
            text(&mut body, name.as_bytes());
            text(&mut body, password.as_bytes());
        }
        body
    }
}

pub fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text);
}

pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut rest = body.len();
    loop {
        let more = rest >= 128;
        out.push((rest % 128) as u8 | if more { 128 } else { 0 });
        rest /= 128;
        if !more {
            break;
        }
    }
    out.extend(body);
    out
}

/// A received PUBLISH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    pub id: u16,
    /// Properties of MQTT 5, wire form, without the length.
    pub properties: Vec<u8>,
}

pub struct Raw<S = TcpStream> {
    pub stream: S,
    buffer: Vec<u8>,
    pub version: u8,
}

impl Raw<TcpStream> {
    /// Connects the socket and sends CONNECT; the CONNACK's body comes back.
    pub async fn connect(address: SocketAddr, hello: &Hello) -> (Self, Vec<u8>) {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let (raw, connack) = Self::greet(stream, hello).await;
        (raw, connack.expect("a CONNACK"))
    }

    pub async fn open(address: SocketAddr, version: u8) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self::over(stream, version)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Raw<S> {
    /// A client over a stream that is there.
    pub fn over(stream: S, version: u8) -> Self {
        Self { stream, buffer: Vec::new(), version }
    }

    /// Sends CONNECT; the CONNACK's body comes back, or `None` when the broker closed.
    pub async fn greet(stream: S, hello: &Hello) -> (Self, Option<Vec<u8>>) {
        let mut raw = Self::over(stream, hello.version);
        raw.send(0x10, &hello.body()).await;
        let answer = raw.receive().await.map(|(first, body)| {
            assert_eq!(first, 0x20);
            body
        });
        (raw, answer)
    }

    pub async fn send(&mut self, first: u8, body: &[u8]) {
        self.bytes(&packet(first, body)).await;
    }

    /// Sends bytes as they are; a broker that closed is no failure of the test.
    pub async fn bytes(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes).await;
    }

    /// The next packet: first byte and body; `None` when the broker closed.
    pub async fn receive(&mut self) -> Option<(u8, Vec<u8>)> {
        tokio::time::timeout(PATIENCE, self.next()).await.expect("a packet in time")
    }

    async fn next(&mut self) -> Option<(u8, Vec<u8>)> {
        loop {
            if let Framed::Complete { first, body, length } = frame(&self.buffer, 1 << 28).unwrap() {
                let found = (first, body.to_vec());
                self.buffer.drain(..length);
                return Some(found);
            }
            if self.stream.read_buf(&mut self.buffer).await.unwrap_or(0) == 0 {
                return None;
            }
        }
    }

    pub async fn publish(&mut self, topic: &str, payload: &[u8], qos: u8, id: u16, dup: bool) {
        self.publish_with(0x30 | qos << 1 | u8::from(dup) << 3, topic, id, &[], payload).await;
    }

    /// A PUBLISH with flags and, in MQTT 5, properties as they are given.
    pub async fn publish_with(&mut self, first: u8, topic: &str, id: u16, properties: &[u8], payload: &[u8]) {
        let mut body = Vec::new();
        text(&mut body, topic.as_bytes());
        if first & 6 != 0 {
            body.extend(id.to_be_bytes());
        }
        if self.version == 5 {
            body.push(properties.len() as u8);
            body.extend(properties);
        }
        body.extend(payload);
        self.send(first, &body).await;
    }

    /// PUBACK 0x40, PUBREC 0x50, PUBREL 0x62, PUBCOMP 0x70.
    pub async fn ack(&mut self, first: u8, id: u16) {
        self.send(first, &id.to_be_bytes()).await;
    }

    /// Subscribes and returns the code of the SUBACK.
    pub async fn subscribe(&mut self, filter: &str, options: u8) -> u8 {
        self.subscribe_with(filter, options, &[]).await
    }

    /// Subscribes with properties of MQTT 5.
    pub async fn subscribe_with(&mut self, filter: &str, options: u8, properties: &[u8]) -> u8 {
        let mut body = vec![0, 1];
        if self.version == 5 {
            body.push(properties.len() as u8);
            body.extend(properties);
        }
        text(&mut body, filter.as_bytes());
        body.push(options);
        self.send(0x82, &body).await;
        let (first, body) = self.receive().await.expect("a SUBACK");
        assert_eq!(first, 0x90);
        *body.last().unwrap()
    }

    pub fn read_publish(&self, first: u8, body: &[u8]) -> Got {
        assert_eq!(first >> 4, 3, "a PUBLISH, not {first:02x}");
        let topic_end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
        let qos = (first >> 1) & 3;
        let (id, mut at) = if qos > 0 {
            (u16::from_be_bytes([body[topic_end], body[topic_end + 1]]), topic_end + 2)
        } else {
            (0, topic_end)
        };
        let mut properties = Vec::new();
        if self.version == 5 {
            let end = at + 1 + usize::from(body[at]);
            properties = body[at + 1..end].to_vec();
            at = end;
        }
        Got {
            topic: String::from_utf8(body[2..topic_end].to_vec()).unwrap(),
            payload: body[at..].to_vec(),
            qos,
            retain: first & 1 == 1,
            dup: first & 8 == 8,
            id,
            properties,
        }
    }

    pub async fn receive_publish(&mut self) -> Got {
        let (first, body) = self.receive().await.expect("a PUBLISH");
        self.read_publish(first, &body)
    }

    /// Whether the broker closes the connection without another packet.
    pub async fn is_closed(&mut self) -> bool {
        self.receive().await.is_none()
    }
}
