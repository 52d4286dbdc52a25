//! A liar between the clients and a broker that keeps its word: it breaks one kind of promise now and then. An oracle that does not notice
//! is worth nothing.

use std::{io, net::SocketAddr, sync::Arc};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::Mutex,
    task::JoinHandle,
};

use super::wire::{Publish, V5, ack, frame, packet, parse_publish};

/// Which promise is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    None,
    /// Answers a QoS 1 PUBLISH and drops it.
    SwallowPublish,
    /// The same with every retained one.
    SwallowRetained,
    /// Acknowledges a QoS 1 delivery that the subscriber never sees.
    SwallowDelivery,
    /// The same, with messages for shared groups.
    SwallowShared,
    /// Delivers a QoS 1 message again under another id.
    TwiceQos1,
    /// Delivers a QoS 2 message again under another id.
    TwiceQos2,
    /// Exchanges two deliveries of one topic and QoS.
    Swap,
    /// Delivers at QoS 0 what is due at QoS 1.
    LowerQos,
    /// Delivers what nobody sent.
    Invent,
    /// Says that no session is there.
    DenySession,
    /// Says that a session is there.
    ClaimSession,
    /// Answers a SUBSCRIBE and drops it.
    ForgetSubscription,
    /// Answers an UNSUBSCRIBE and drops it.
    KeepSubscription,
    /// Turns a goodbye into a death.
    PublishWill,
    /// Drops a PUBACK.
    NoAnswer,
    /// Answers CONNECT with "not authorized".
    Refuse,
}

/// Every so many occasions.
const EACH: u32 = 25;
/// Ids of the liar's own.
const FORGED: u16 = 61_000;

pub struct Liar {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Liar {
    pub async fn start(upstream: SocketAddr, lie: Lie) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let occasions = Arc::new(Mutex::new(0));
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                if let Ok(broker) = TcpStream::connect(upstream).await {
                    client.set_nodelay(true).unwrap();
                    broker.set_nodelay(true).unwrap();
                    tokio::spawn(Between::run(client, broker, lie, occasions.clone()));
                }
            }
        });
        Self { address, task }
    }
}

impl Drop for Liar {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection.
struct Between {
    lie: Lie,
    /// How often the lie could have been told, over all connections.
    occasions: Arc<Mutex<u32>>,
    version: u8,
    kept: bool,
    mortal: bool,
    forged: u16,
    held_back: Option<(Publish, Vec<u8>)>,
}

/// What goes on in the same direction, and what goes back.
type Result = io::Result<(Vec<u8>, Vec<u8>)>;

impl Between {
    async fn run(client: TcpStream, broker: TcpStream, lie: Lie, occasions: Arc<Mutex<u32>>) {
        let between = Self { lie, occasions, version: 4, kept: false, mortal: false, forged: FORGED, held_back: None };
        let between = Arc::new(Mutex::new(between));
        let (from_client, to_client) = client.into_split();
        let (from_broker, to_broker) = broker.into_split();
        let (to_client, to_broker) = (Arc::new(Mutex::new(to_client)), Arc::new(Mutex::new(to_broker)));
        // Either end of the connection is the end of both.
        tokio::select! {
            _ = Self::pump(between.clone(), true, from_client, to_broker.clone(), to_client.clone()) => {}
            _ = Self::pump(between, false, from_broker, to_client, to_broker) => {}
        }
    }

    async fn pump(
        this: Arc<Mutex<Self>>,
        up: bool,
        mut from: OwnedReadHalf,
        onward: Arc<Mutex<OwnedWriteHalf>>,
        back: Arc<Mutex<OwnedWriteHalf>>,
    ) -> io::Result<()> {
        let mut buffer = Vec::new();
        loop {
            while let Some((first, begin, end)) = frame(&buffer) {
                let whole: Vec<u8> = buffer.drain(..end).collect();
                let (forth, answer) = {
                    let mut this = this.lock().await;
                    if up { this.up(first, &whole, begin).await? } else { this.down(first, &whole, begin).await? }
                };
                onward.lock().await.write_all(&forth).await?;
                back.lock().await.write_all(&answer).await?;
            }
            if from.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
    }

    /// Whether this occasion is one.
    async fn now(&self) -> bool {
        let mut occasions = self.occasions.lock().await;
        *occasions += 1;
        *occasions % EACH == 0
    }

    async fn up(&mut self, first: u8, whole: &[u8], begin: usize) -> Result {
        let body = &whole[begin..];
        let honest = Ok((whole.to_vec(), Vec::new()));
        match (first >> 4, self.lie) {
            (1, _) => {
                (self.version, self.kept) = (body[6], body[7] & 2 == 0);
                self.mortal = String::from_utf8_lossy(body).contains("mortal");
            }
            (3, Lie::SwallowPublish | Lie::SwallowRetained) => {
                let publish = parse_publish(self.version, first, body).ok_or(io::ErrorKind::InvalidData)?;
                let meant = publish.retain == (self.lie == Lie::SwallowRetained) && publish.qos == 1;
                if meant && (publish.retain || self.now().await) {
                    return Ok((Vec::new(), ack(0x40, publish.id)));
                }
            }
            (8, Lie::ForgetSubscription) if String::from_utf8_lossy(body).contains("load/2/1") => {
                return Ok((Vec::new(), self.suback(0x90, body, body.last().copied())));
            }
            (10, Lie::KeepSubscription) => {
                let code = (self.version == V5).then_some(0);
                return Ok((Vec::new(), self.suback(0xb0, body, code)));
            }
            // The answers to what was forged concern nobody.
            (4 | 5 | 7, _) if u16::from_be_bytes([body[0], body[1]]) >= FORGED => return Ok((Vec::new(), Vec::new())),
            (14, Lie::PublishWill) if self.mortal => return Err(io::ErrorKind::ConnectionAborted.into()),
            _ => {}
        }
        honest
    }

    fn suback(&self, first: u8, body: &[u8], code: Option<u8>) -> Vec<u8> {
        let mut answer = body[..2].to_vec();
        if self.version == V5 {
            answer.push(0);
        }
        answer.extend(code);
        packet(first, &answer)
    }

    async fn down(&mut self, first: u8, whole: &[u8], begin: usize) -> Result {
        let body = &whole[begin..];
        match (first >> 4, self.lie) {
            (2, Lie::DenySession) if self.kept && body[0] == 1 && self.now().await => {
                return self.altered(whole, begin, 0, 0);
            }
            (2, Lie::ClaimSession) if !self.kept => return self.altered(whole, begin, 0, 1),
            (2, Lie::Refuse) if self.now().await => {
                let code = if self.version == V5 { 0x87 } else { 5 };
                return self.altered(whole, begin, 1, code);
            }
            (4, Lie::NoAnswer) if self.now().await => return Ok((Vec::new(), Vec::new())),
            (3, _) => {
                let publish = parse_publish(self.version, first, body).ok_or(io::ErrorKind::InvalidData)?;
                return Ok(self.delivery(publish, whole).await);
            }
            _ => {}
        }
        Ok((whole.to_vec(), Vec::new()))
    }

    fn altered(&self, whole: &[u8], begin: usize, at: usize, byte: u8) -> Result {
        let mut whole = whole.to_vec();
        whole[begin + at] = byte;
        Ok((whole, Vec::new()))
    }

    async fn delivery(&mut self, publish: Publish, whole: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let due = match self.lie {
            Lie::SwallowDelivery | Lie::TwiceQos1 => publish.qos == 1 && !publish.topic.starts_with("shared/"),
            Lie::SwallowShared => publish.qos == 1 && publish.topic.starts_with("shared/"),
            Lie::LowerQos | Lie::Invent => publish.qos == 1,
            Lie::TwiceQos2 => publish.qos == 2,
            Lie::Swap => publish.qos == 1 && publish.topic.starts_with("load/"),
            _ => false,
        };
        let whole = whole.to_vec();
        if let Some((earlier, bytes)) = self.held_back.take_if(|(held, _)| held.topic == publish.topic && due) {
            return if earlier.id == publish.id { (whole, Vec::new()) } else { ([whole, bytes].concat(), Vec::new()) };
        }
        if publish.retain || publish.dup || !due || !self.now().await {
            return (whole, Vec::new());
        }
        let received = ack(0x40, publish.id);
        let mut forged = publish.clone();
        self.forged += 1;
        forged.id = self.forged;
        match self.lie {
            Lie::SwallowDelivery | Lie::SwallowShared => (Vec::new(), received),
            Lie::TwiceQos1 | Lie::TwiceQos2 => ([whole, forged.bytes(self.version)].concat(), Vec::new()),
            Lie::Invent => {
                forged.payload.splice(0..0, *b"777777");
                ([whole, forged.bytes(self.version)].concat(), Vec::new())
            }
            Lie::LowerQos => {
                forged.qos = 0;
                (forged.bytes(self.version), received)
            }
            _ => {
                self.held_back = Some((publish, whole));
                (Vec::new(), Vec::new())
            }
        }
    }
}
