//! Attacks. None waits for an answer, so that each can be aimed at a program that gives none; whatever comes back is read and forgotten.
//!
//! The kinds are the bug classes seen in brokers, and floods. An attacker that is thrown out comes again until its time is over.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, tcp::OwnedWriteHalf},
    task::{JoinHandle, JoinSet},
    time::{Instant, sleep, sleep_until},
};

use crate::oracle::wire::{Hello, Publish, V3, V5, packet, subscribe, unsubscribe};

/// Where to aim.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    pub plain: SocketAddr,
    pub tls: SocketAddr,
    /// A door that asks for a password.
    pub users: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    SilentTls,
    BytePerSecond,
    DeclaredLength,
    SubscribeStorm,
    DistinctTopics,
    ConnectStorm,
    ShareChurn,
    MalformedConnects,
    BadPackets,
    Qos2NeverCompleted,
    ReceiveMaximum,
    DeafSubscribers,
    HalfOpen,
    WrongPasswords,
}

pub const ALL: [Kind; 14] = [
    Kind::SilentTls,
    Kind::BytePerSecond,
    Kind::DeclaredLength,
    Kind::SubscribeStorm,
    Kind::DistinctTopics,
    Kind::ConnectStorm,
    Kind::ShareChurn,
    Kind::MalformedConnects,
    Kind::BadPackets,
    Kind::Qos2NeverCompleted,
    Kind::ReceiveMaximum,
    Kind::DeafSubscribers,
    Kind::HalfOpen,
    Kind::WrongPasswords,
];

/// How large an attack is: the size of the issue, or a hundredth.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    pub full: bool,
    pub length: Duration,
}

impl Size {
    fn of(self, full: u64, small: u64) -> u64 {
        if self.full { full } else { small }
    }
}

/// One attack under way.
#[derive(Clone)]
struct Front {
    target: Target,
    end: Instant,
    connections: Arc<AtomicU64>,
    names: Arc<AtomicU64>,
}

/// Attacks until the length is over; answers how many connections were opened for it.
pub async fn attack(kind: Kind, target: Target, size: Size) -> u64 {
    let end = Instant::now() + size.length;
    let front = Front { target, end, connections: Arc::default(), names: Arc::default() };
    let mut peers = JoinSet::new();
    let many = match kind {
        Kind::SilentTls => size.of(2_000, 100),
        Kind::BytePerSecond | Kind::DeclaredLength | Kind::HalfOpen => size.of(500, 40),
        Kind::SubscribeStorm => size.of(11, 3),
        Kind::DistinctTopics => 4,
        Kind::ConnectStorm | Kind::MalformedConnects | Kind::BadPackets => size.of(16, 4),
        Kind::ShareChurn => size.of(50, 8),
        Kind::Qos2NeverCompleted | Kind::WrongPasswords => size.of(10, 3),
        Kind::ReceiveMaximum | Kind::DeafSubscribers => size.of(20, 5),
    };
    for number in 0..many {
        let front = front.clone();
        peers.spawn(async move { front.peer(kind, number, size).await });
    }
    while let Some(ended) = peers.join_next().await {
        ended.expect("an attacker does not fail by itself");
    }
    front.connections.load(Ordering::Relaxed)
}

/// An attacker's connection: what comes is read and forgotten.
struct Peer {
    write: OwnedWriteHalf,
    reader: JoinHandle<()>,
}

impl Peer {
    /// Writes; false when the other end has closed.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        !self.reader.is_finished() && self.write.write_all(bytes).await.is_ok()
    }

    /// Until the other end closes or the time is over.
    async fn hold(&mut self, end: Instant) {
        tokio::select! {
            _ = &mut self.reader => {}
            () = sleep_until(end) => {}
        }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Front {
    fn over(&self) -> bool {
        Instant::now() >= self.end
    }

    /// A new connection; whoever is not let in tries again a little later.
    async fn open(&self, address: SocketAddr) -> Option<Peer> {
        let mut pause = Duration::from_millis(1);
        while !self.over() {
            if let Ok(stream) = TcpStream::connect(address).await {
                self.connections.fetch_add(1, Ordering::Relaxed);
                let (mut read, write) = stream.into_split();
                let reader = tokio::spawn(async move {
                    let mut buffer = vec![0; 4 << 10];
                    while read.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
                });
                return Some(Peer { write, reader });
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(100));
        }
        None
    }

    fn name(&self) -> String {
        format!("hostile-{}", self.names.fetch_add(1, Ordering::Relaxed))
    }

    /// A connection that has introduced itself.
    async fn introduced(&self, version: u8) -> Option<Peer> {
        let mut peer = self.open(self.target.plain).await?;
        peer.send(&Hello::new(version, &self.name(), true).bytes()).await;
        Some(peer)
    }

    async fn peer(&self, kind: Kind, number: u64, size: Size) {
        while !self.over() {
            let done = match kind {
                Kind::SilentTls => self.silent_tls().await,
                Kind::BytePerSecond => self.byte_per_second().await,
                Kind::DeclaredLength => self.declared_length(number).await,
                Kind::SubscribeStorm => self.subscribe_storm(number, size.of(1_000, 200)).await,
                Kind::DistinctTopics => self.distinct_topics(number, size.of(25_000, 500)).await,
                Kind::ConnectStorm => self.connect_storm().await,
                Kind::ShareChurn => self.share_churn(number).await,
                Kind::MalformedConnects => self.malformed_connects().await,
                Kind::BadPackets => self.bad_packets().await,
                Kind::Qos2NeverCompleted => self.qos2_never_completed(size.of(65_535, 3_000)).await,
                Kind::ReceiveMaximum => self.receive_maximum(number, size.of(20_000, 500)).await,
                Kind::DeafSubscribers => self.deaf().await,
                Kind::HalfOpen => self.half_open().await,
                Kind::WrongPasswords => self.wrong_passwords().await,
            };
            if done.is_none() {
                return;
            }
        }
    }

    async fn silent_tls(&self) -> Option<()> {
        self.open(self.target.tls).await?.hold(self.end).await;
        // Whoever is shown out comes again, but not as a storm: that is another attack.
        sleep(Duration::from_millis(100)).await;
        Some(())
    }

    async fn byte_per_second(&self) -> Option<()> {
        let mut peer = self.open(self.target.plain).await?;
        for byte in Hello::new(V3, &"s".repeat(200), true).bytes() {
            if self.over() || !peer.send(&[byte]).await {
                break;
            }
            sleep(Duration::from_secs(1)).await;
        }
        Some(())
    }

    /// 256 MB announced: in the first packet, or behind a proper CONNECT.
    async fn declared_length(&self, number: u64) -> Option<()> {
        let (mut peer, first) = match number % 2 {
            0 => (self.open(self.target.plain).await?, 0x10),
            _ => (self.introduced(V5).await?, 0x30),
        };
        peer.send(&[first, 0xff, 0xff, 0xff, 0x7f, 0, 4]).await;
        while !self.over() && peer.send(&[b'M'; 1024]).await {
            sleep(Duration::from_millis(20)).await;
        }
        Some(())
    }

    /// 1,000 filters each; the last one asks for 10,000.
    async fn subscribe_storm(&self, number: u64, filters: u64) -> Option<()> {
        let mut peer = self.introduced(V5).await?;
        let filters = if number == 0 { 10 * filters } else { filters };
        for filter in 0..filters {
            let filter = format!("storm/{number}/+/{filter}/#");
            if self.over() || !peer.send(&subscribe(V5, (1 + number) as u16, &filter, 1)).await {
                return Some(());
            }
        }
        peer.hold(self.end).await;
        Some(())
    }

    async fn distinct_topics(&self, number: u64, topics: u64) -> Option<()> {
        let mut peer = self.introduced(V3).await?;
        for topic in 0..topics {
            let topic = format!("distinct/{number}/{}/{topic}", topic % 97);
            let id = (topic.len() % 60_000 + 1) as u16;
            let publish = Publish { topic, payload: vec![b'x'; 20], qos: 1, retain: false, dup: false, id };
            if self.over() || !peer.send(&publish.bytes(V3)).await {
                return Some(());
            }
        }
        peer.hold(self.end).await;
        Some(())
    }

    async fn connect_storm(&self) -> Option<()> {
        self.introduced(V5).await.map(drop)
    }

    /// Joins one of a few groups, leaves it, joins it; somebody publishes to them.
    async fn share_churn(&self, number: u64) -> Option<()> {
        let mut peer = self.introduced([V3, V5][number as usize % 2]).await?;
        let version = [V3, V5][number as usize % 2];
        for round in 0..20_u16 {
            let filter = format!("$share/group-{}/churn/#", (number + u64::from(round)) % 7);
            let publish = Publish {
                topic: format!("churn/{round}"),
                payload: vec![b'x'; 50],
                qos: 1,
                retain: false,
                dup: false,
                id: 99,
            };
            let bytes = [
                subscribe(version, round + 1, &filter, 1),
                publish.bytes(version),
                unsubscribe(version, round + 1, &filter),
            ];
            if self.over() || !peer.send(&bytes[..2 + usize::from(round % 2)].concat()).await {
                break;
            }
        }
        Some(())
    }

    async fn malformed_connects(&self) -> Option<()> {
        let head = |flags: u8| [b"\0\x04MQTT\x05".as_slice(), &[flags, 0, 60]].concat();
        let bodies: [Vec<u8>; 9] = [
            // Will properties that are longer than the packet, of another packet, twice the same, and a will without a topic.
            [head(0x06), b"\0\0\x01a\xff\xff\x7f".to_vec()].concat(),
            [head(0x06), b"\0\0\x01a\x05\x21\0\x0a\0\0\0\x01t\0\x01p".to_vec()].concat(),
            [head(0x06), b"\0\0\x01a\x0a\x18\0\0\0\x01\x18\0\0\0\x01\0\x01t\0\x01p".to_vec()].concat(),
            [head(0x06), b"\0\0\x01a\0\0\0".to_vec()].concat(),
            // QoS 3, a reserved flag, a wildcard in the will, another protocol, a client id that is no UTF-8.
            [head(0x1e), b"\0\0\x01a\0\0\x01t\0\x01p".to_vec()].concat(),
            [head(0x03), b"\0\0\x01a".to_vec()].concat(),
            [head(0x06), b"\0\0\x01a\0\0\x01#\0\x01p".to_vec()].concat(),
            b"\0\x04MQTX\x09\x02\0\x3c\0\x01a".to_vec(),
            [head(0x02), b"\0\0\x02\xff\xfe".to_vec()].concat(),
        ];
        for body in bodies {
            let mut peer = self.open(self.target.plain).await?;
            peer.send(&packet(0x10, &body)).await;
            peer.hold(self.end.min(Instant::now() + Duration::from_millis(50))).await;
        }
        Some(())
    }

    async fn bad_packets(&self) -> Option<()> {
        let publish = |topic: &str| {
            Publish { topic: topic.to_owned(), payload: vec![b'x'], qos: 1, retain: true, dup: false, id: 7 }.bytes(V5)
        };
        let packets = [
            publish(""),
            publish("a/#"),
            publish("$SYS/broker/uptime"),
            publish(&"x/".repeat(400)),
            publish(&"/".repeat(65_000)),
            subscribe(V5, 1, "", 1),
            subscribe(V5, 1, "a/#/b", 1),
            subscribe(V5, 1, &"+/".repeat(400), 1),
            subscribe(V5, 1, "$share/+/a", 1),
            subscribe(V5, 1, "$share/g/", 1),
            // Only a server may say so.
            packet(0x20, &[0, 0, 0]),
            packet(0x90, &[0, 1, 0, 1]),
            packet(0xb0, &[0, 1, 0, 0]),
            packet(0xd0, &[]),
            packet(0x00, &[]),
            // Five bytes of length, flags that cannot be, packet id 0, an alias of 0.
            b"\x32\xff\xff\xff\xff\x7f".to_vec(),
            b"\x36\x05\0\x01a\0\x01".to_vec(),
            b"\x32\x06\0\x01a\0\0\0".to_vec(),
            b"\x30\x07\0\x01a\x03\x23\0\0".to_vec(),
            packet(0x10, &Hello::new(V5, "again", true).bytes()[2..]),
        ];
        for bytes in packets {
            let mut peer = self.introduced(V5).await?;
            peer.send(&bytes).await;
            peer.hold(self.end.min(Instant::now() + Duration::from_millis(50))).await;
        }
        // Names that mean something in patterns.
        for name in ["#", "+", "a/+/b", "%u", "%c", "$SYS"] {
            let mut peer = self.open(self.target.plain).await?;
            let mut hello = Hello::new(V5, name, true);
            hello.will = Some(("honest/forged/#".into(), b"x".to_vec(), 1));
            peer.send(&hello.bytes()).await;
        }
        Some(())
    }

    /// Every packet id begun and none completed; then the same ids again.
    async fn qos2_never_completed(&self, ids: u64) -> Option<()> {
        let mut peer = self.introduced(V3).await?;
        for id in (1..=ids).chain(1..=ids) {
            let topic = "never/completed".to_owned();
            let publish = Publish { topic, payload: vec![b'x'; 30], qos: 2, retain: false, dup: false, id: id as u16 };
            if self.over() || !peer.send(&publish.bytes(V3)).await {
                return Some(());
            }
        }
        peer.hold(self.end).await;
        Some(())
    }

    /// Takes one message at a time and acknowledges none; an accomplice fills its queue.
    async fn receive_maximum(&self, number: u64, messages: u64) -> Option<()> {
        let mut peer = self.open(self.target.plain).await?;
        let mut hello = Hello::new(V5, &self.name(), true);
        hello.receive_maximum = Some(1);
        peer.send(&hello.bytes()).await;
        peer.send(&subscribe(V5, 1, &format!("full/{number}"), 2)).await;
        let mut accomplice = self.introduced(V3).await?;
        for id in 0..messages {
            let (topic, id) = (format!("full/{number}"), (id % 60_000 + 1) as u16);
            let publish = Publish { topic, payload: vec![b'x'; 500], qos: 1, retain: false, dup: false, id };
            if self.over() || !accomplice.send(&publish.bytes(V3)).await {
                break;
            }
        }
        peer.hold(self.end).await;
        Some(())
    }

    /// Subscribes to what the honest say, and reads none of it.
    async fn deaf(&self) -> Option<()> {
        let mut peer = self.introduced(V3).await?;
        peer.reader.abort();
        // Aborted, it reads no more; the connection stays open at both ends.
        let _ = peer.write.write_all(&subscribe(V3, 1, "honest/#", 1)).await;
        sleep_until(self.end).await;
        Some(())
    }

    /// A keep-alive of one second, and silence.
    async fn half_open(&self) -> Option<()> {
        let mut peer = self.open(self.target.plain).await?;
        let mut bytes = Hello::new(V3, &self.name(), true).bytes();
        // Keep-alive is the two bytes before the client id.
        bytes[11] = 1;
        peer.send(&bytes).await;
        peer.hold(self.end).await;
        Some(())
    }

    async fn wrong_passwords(&self) -> Option<()> {
        for name in ["plc", "", "#", "+", "nobody", "root"] {
            let mut peer = self.open(self.target.users).await?;
            let mut body = b"\0\x04MQTT\x04\xc2\0\x3c".to_vec();
            for text in [self.name().as_str(), name, "guess"] {
                body.extend((text.len() as u16).to_be_bytes());
                body.extend(text.as_bytes());
            }
            peer.send(&packet(0x10, &body)).await;
            peer.hold(self.end.min(Instant::now() + Duration::from_millis(200))).await;
        }
        Some(())
    }
}
