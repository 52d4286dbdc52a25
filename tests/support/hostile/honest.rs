//! An honest publisher and an honest subscriber at QoS 1: a message every few milliseconds, each of which must arrive once, in order.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
    time::timeout,
};

use crate::oracle::wire::{Hello, Packet, Publish, V3, V5, ack, frame, parse, subscribe};

/// Between two messages.
const PACE: Duration = Duration::from_millis(4);
/// Messages at least, however short the attack.
const LEAST: u64 = 50;
/// Longest time for anything that must come.
const PATIENCE: Duration = Duration::from_secs(60);

/// What the honest ones lived through.
#[derive(Debug, Clone, Copy)]
pub struct Times {
    pub messages: usize,
    pub p50: Duration,
    pub p99: Duration,
    pub longest: Duration,
}

pub struct Honest {
    stream: TcpStream,
    buffer: Vec<u8>,
    version: u8,
}

impl Honest {
    pub async fn connect(address: SocketAddr, id: &str, version: u8) -> Self {
        let stream = TcpStream::connect(address).await.unwrap();
        stream.set_nodelay(true).unwrap();
        let mut honest = Self { stream, buffer: Vec::new(), version };
        honest.send(&Hello::new(version, id, true).bytes()).await;
        assert_eq!(honest.next().await, Packet::ConnAck { present: false, code: 0 }, "{id}");
        honest
    }

    async fn send(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.stream.write_all(bytes)).await.expect("room in time").expect("an honest client stays");
    }

    async fn next(&mut self) -> Packet {
        timeout(PATIENCE, self.read()).await.expect("a packet for an honest client in time")
    }

    async fn read(&mut self) -> Packet {
        loop {
            if let Some((first, begin, end)) = frame(&self.buffer) {
                let packet = parse(self.version, first, &self.buffer[begin..end]).expect("what a broker may send");
                self.buffer.drain(..end);
                return packet;
            }
            let count = self.stream.read_buf(&mut self.buffer).await.expect("an honest client is not thrown out");
            assert_ne!(count, 0, "an honest client is not thrown out");
        }
    }
}

/// Talks until `stop`; panics where a message is lost, doubled or out of order.
pub async fn talk(address: SocketAddr, name: String, mut stop: watch::Receiver<bool>) -> Times {
    // Of this pair alone: what another one still says is none of its messages.
    let topic = format!("honest/{name}/å");
    let mut subscriber = Honest::connect(address, &format!("{name}-hears"), V5).await;
    subscriber.send(&subscribe(V5, 1, &topic, 1)).await;
    assert_eq!(subscriber.next().await, Packet::SubAck { id: 1, code: 1 });
    let publisher = Honest::connect(address, &format!("{name}-speaks"), V3).await;
    let (sent, mut known) = watch::channel(None);
    let begun = Instant::now();
    let speaking = tokio::spawn(async move {
        let number = speak(publisher, topic, begun, &mut stop).await;
        sent.send_replace(Some(number));
    });
    let (mut times, mut expected) = (Vec::new(), 0_u64);
    loop {
        let all = *known.borrow_and_update();
        if all == Some(expected) {
            break;
        }
        tokio::select! {
            packet = subscriber.next() => {
                let Packet::Publish(publish) = packet else { panic!("{packet:?}") };
                subscriber.send(&ack(0x40, publish.id)).await;
                let text = String::from_utf8(publish.payload).unwrap();
                let (number, at) = text.split_once(' ').unwrap();
                assert_eq!(number.parse(), Ok(expected), "the next one: nothing lost, doubled or out of order");
                times.push(begun.elapsed() - Duration::from_micros(at.parse().unwrap()));
                expected += 1;
            }
            // How many there are is known at the publisher's end; where it failed, that is told here.
            ended = known.changed(), if all.is_none() => ended.expect("an honest publisher is served to its end"),
        }
    }
    speaking.await.expect("an honest publisher");
    times.sort_unstable();
    let part = |of: f64| times[((times.len() - 1) as f64 * of) as usize];
    Times { messages: times.len(), p50: part(0.5), p99: part(0.99), longest: part(1.0) }
}

/// Publishes at its pace until `stop`, and at least [`LEAST`]; answers how many, all of them acknowledged.
async fn speak(mut publisher: Honest, topic: String, begun: Instant, stop: &mut watch::Receiver<bool>) -> u64 {
    let (mut number, mut acknowledged) = (0_u64, 0_u64);
    let mut pace = tokio::time::interval(PACE);
    pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    while number < LEAST || !*stop.borrow() {
        tokio::select! {
            _ = pace.tick() => {
                let payload = format!("{number} {}", begun.elapsed().as_micros()).into_bytes();
                let id = (number % 60_000 + 1) as u16;
                let publish = Publish { topic: topic.clone(), payload, qos: 1, retain: false, dup: false, id };
                publisher.send(&publish.bytes(V3)).await;
                number += 1;
            }
            packet = publisher.read() => {
                acknowledged += u64::from(matches!(packet, Packet::PubAck { .. }));
            }
        }
    }
    while acknowledged < number {
        acknowledged += u64::from(matches!(publisher.next().await, Packet::PubAck { .. }));
    }
    number
}
