//! What passes through a connection: bytes, packets by type, payload. Counted at the wire, where both directions meet, so that no writer of a
//! packet has to remember it.
//!
//! Whole packets are walked once more by their frames, which lie in the cache then, and counters are touched once per read and once per
//! write, not once per packet. A packet counts as sent when it was handed to the wire, a byte when the socket took it.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};

use crate::broker::codec::{Framed, Version, frame};

/// Packet types by number (MQTT 5.0 section 2.1.2).
const TYPES: [&str; 16] = [
    "reserved",
    "connect",
    "connack",
    "publish",
    "puback",
    "pubrec",
    "pubrel",
    "pubcomp",
    "subscribe",
    "suback",
    "unsubscribe",
    "unsuback",
    "pingreq",
    "pingresp",
    "disconnect",
    "auth",
];
const CONNECT: usize = 1;
const PUBLISH: usize = 3;
/// What only a server sends, and what only a client sends.
const FROM_SERVER: [usize; 4] = [2, 9, 11, 13];
const FROM_CLIENT: [usize; 4] = [CONNECT, 8, 10, 12];

/// Label of a packet type; `type` is a word of the language.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Packet {
    r#type: &'static str,
}

/// What one connection received and sent.
#[derive(Debug, Default)]
pub(in crate::broker) struct Traffic {
    bytes_in: AtomicU64,
    bytes_out: AtomicU64,
    messages_in: AtomicU64,
    messages_out: AtomicU64,
}

impl Traffic {
    /// Bytes received.
    pub(in crate::broker) fn bytes_in(&self) -> u64 {
        self.bytes_in.load(Ordering::Relaxed)
    }

    /// Bytes sent.
    pub(in crate::broker) fn bytes_out(&self) -> u64 {
        self.bytes_out.load(Ordering::Relaxed)
    }

    /// PUBLISH packets received.
    pub(in crate::broker) fn messages_in(&self) -> u64 {
        self.messages_in.load(Ordering::Relaxed)
    }

    /// PUBLISH packets sent.
    pub(in crate::broker) fn messages_out(&self) -> u64 {
        self.messages_out.load(Ordering::Relaxed)
    }
}

/// One direction of all connections together.
#[derive(Debug, Default)]
struct Direction {
    bytes: Counter,
    payload: Counter,
    packets: [Counter; 16],
}

impl Direction {
    fn new(registry: &mut Registry, names: [(&str, &str); 3], never: &[usize]) -> Self {
        let family = Family::<Packet, Counter>::default();
        let packets = std::array::from_fn(|at| match TYPES.get(at).filter(|_| at > 0 && !never.contains(&at)) {
            Some(name) => family.get_or_create(&Packet { r#type: name }).clone(),
            None => Counter::default(),
        });
        let direction = Self { packets, ..Self::default() };
        let [packets, bytes, payload] = names;
        registry.register(packets.0, packets.1, family);
        registry.register(bytes.0, bytes.1, direction.bytes.clone());
        registry.register(payload.0, payload.1, direction.payload.clone());
        direction
    }

    fn add(&self, tally: &Tally) {
        for (counter, count) in self.packets.iter().zip(tally.packets).filter(|(_, count)| *count > 0) {
            counter.inc_by(count);
        }
        if tally.payload > 0 {
            self.payload.inc_by(tally.payload);
        }
    }

    fn packets(&self) -> u64 {
        self.packets.iter().map(Counter::get).sum()
    }

    fn of_type(&self, at: usize) -> u64 {
        self.packets.get(at).map_or(0, Counter::get)
    }
}

/// All connections together, since the start.
#[derive(Debug, Default)]
pub(in crate::broker) struct Totals {
    heard: Direction,
    said: Direction,
    /// Connections whose transport was accepted.
    pub sockets: Counter,
}

/// [`Totals`] as numbers.
#[derive(Debug, Clone, Copy, Default)]
pub(in crate::broker) struct Sums {
    pub packets_in: u64,
    pub packets_out: u64,
    pub messages_in: u64,
    pub messages_out: u64,
    pub payload_in: u64,
    pub payload_out: u64,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub connects: u64,
    pub sockets: u64,
}

impl Totals {
    pub(in crate::broker) fn new(registry: &mut Registry) -> Arc<Self> {
        let heard = Direction::new(
            registry,
            [
                ("sense_butler_mqtt_packets_received", "MQTT packets received, by type"),
                ("sense_butler_mqtt_received_bytes", "Bytes received from MQTT clients"),
                ("sense_butler_mqtt_payload_received_bytes", "Bytes of the payloads of received PUBLISH packets"),
            ],
            &FROM_SERVER,
        );
        let said = Direction::new(
            registry,
            [
                ("sense_butler_mqtt_packets_sent", "MQTT packets sent, by type"),
                ("sense_butler_mqtt_sent_bytes", "Bytes sent to MQTT clients"),
                ("sense_butler_mqtt_payload_sent_bytes", "Bytes of the payloads of sent PUBLISH packets"),
            ],
            &FROM_CLIENT,
        );
        let sockets = Counter::default();
        registry.register(
            "sense_butler_mqtt_connections_opened",
            "Connections of MQTT clients whose transport was accepted",
            sockets.clone(),
        );
        Arc::new(Self { heard, said, sockets })
    }

    pub(in crate::broker) fn sums(&self) -> Sums {
        Sums {
            packets_in: self.heard.packets(),
            packets_out: self.said.packets(),
            messages_in: self.heard.of_type(PUBLISH),
            messages_out: self.said.of_type(PUBLISH),
            payload_in: self.heard.payload.get(),
            payload_out: self.said.payload.get(),
            bytes_in: self.heard.bytes.get(),
            bytes_out: self.said.bytes.get(),
            connects: self.heard.of_type(CONNECT),
            sockets: self.sockets.get(),
        }
    }
}

/// What a run of packets holds.
#[derive(Debug, Default, PartialEq, Eq)]
struct Tally {
    packets: [u64; 16],
    payload: u64,
}

impl Tally {
    /// Of whole packets; what is none ends the count.
    fn of(mut packets: &[u8], version: Version) -> Self {
        let mut tally = Self::default();
        while let Ok(Framed::Complete { first, body, length }) = frame(packets, usize::MAX) {
            let kind = usize::from(first >> 4);
            if let Some(count) = tally.packets.get_mut(kind) {
                *count += 1;
            }
            if kind == PUBLISH {
                tally.payload += u64::try_from(payload(first, body, version)).unwrap_or(0);
            }
            packets = packets.get(length..).unwrap_or_default();
        }
        tally
    }

    fn messages(&self) -> u64 {
        self.packets.get(PUBLISH).copied().unwrap_or(0)
    }
}

/// Bytes of a PUBLISH's payload (MQTT 5.0 section 3.3): what lies behind topic, packet id (QoS above 0) and properties (5.0).
fn payload(first: u8, body: &[u8], version: Version) -> usize {
    let Some((topic, rest)) = body.split_first_chunk::<2>() else { return 0 };
    let before = usize::from(u16::from_be_bytes(*topic)) + if first & 0b0110 == 0 { 0 } else { 2 };
    let rest = rest.get(before..).unwrap_or_default();
    match version {
        Version::V3 => rest.len(),
        Version::V5 => rest.len().saturating_sub(properties(rest)),
    }
}

/// Bytes of the properties with their length, a variable byte integer.
fn properties(rest: &[u8]) -> usize {
    let mut length = 0;
    for (at, byte) in rest.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return length + at + 1;
        }
    }
    rest.len()
}

/// Counts one connection, at its wire.
#[derive(Debug)]
pub(in crate::broker) struct Meter {
    totals: Arc<Totals>,
    traffic: Arc<Traffic>,
    version: Version,
    /// Bytes of the write buffer whose packets were counted.
    counted: usize,
}

impl Meter {
    pub(in crate::broker) fn new(totals: &Arc<Totals>) -> Self {
        Self { totals: Arc::clone(totals), traffic: Arc::default(), version: Version::V3, counted: 0 }
    }

    /// The connection was let in: its traffic is its own from here on, what came before included.
    pub(in crate::broker) fn introduce(&mut self, traffic: &Arc<Traffic>, version: Version) {
        let before = std::mem::replace(&mut self.traffic, Arc::clone(traffic));
        traffic.bytes_in.fetch_add(before.bytes_in(), Ordering::Relaxed);
        traffic.bytes_out.fetch_add(before.bytes_out(), Ordering::Relaxed);
        self.version = version;
    }

    /// Bytes came from the socket.
    pub(in crate::broker) fn read(&self, bytes: usize) {
        let bytes = u64::try_from(bytes).unwrap_or(0);
        self.totals.heard.bytes.inc_by(bytes);
        self.traffic.bytes_in.fetch_add(bytes, Ordering::Relaxed);
    }

    /// These packets were handled.
    pub(in crate::broker) fn heard(&self, packets: &[u8]) {
        let tally = Tally::of(packets, self.version);
        self.totals.heard.add(&tally);
        self.traffic.messages_in.fetch_add(tally.messages(), Ordering::Relaxed);
    }

    /// This is the write buffer now: what was appended since the last look is counted.
    pub(in crate::broker) fn said(&mut self, out: &[u8]) {
        let Some(fresh) = out.get(self.counted..).filter(|fresh| !fresh.is_empty()) else { return };
        let tally = Tally::of(fresh, self.version);
        self.totals.said.add(&tally);
        self.traffic.messages_out.fetch_add(tally.messages(), Ordering::Relaxed);
        self.counted = out.len();
    }

    /// The socket took so many bytes from the front of the write buffer.
    pub(in crate::broker) fn written(&mut self, bytes: usize) {
        self.counted = self.counted.saturating_sub(bytes);
        let bytes = u64::try_from(bytes).unwrap_or(0);
        self.totals.said.bytes.inc_by(bytes);
        self.traffic.bytes_out.fetch_add(bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use bytes::{Buf, BytesMut};

    use super::*;
    use crate::{
        broker::codec::write::{self, AckKind, PublishOut},
        names::QoS,
    };

    fn publish(out: &mut BytesMut, version: Version, qos: QoS, payload: &[u8], ids: &[u32]) {
        let packet = PublishOut {
            dup: false,
            qos,
            retain: false,
            packet_id: 7,
            topic: b"a/b",
            topic_alias: None,
            expiry: None,
            subscription_ids: ids,
            properties: &[],
            payload,
        };
        write::publish(out, version, &packet);
    }

    #[test]
    fn packets_and_payloads_are_counted() {
        let ids: Vec<u32> = (1..100).collect();
        let mut ran = 0;
        for (version, ids) in [(Version::V3, &[][..]), (Version::V5, &[]), (Version::V5, &ids)] {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                let mut out = BytesMut::new();
                publish(&mut out, version, qos, &[9; 300], ids);
                write::ack(&mut out, version, AckKind::PubAck, 3, 0);
                publish(&mut out, version, qos, b"", ids);
                write::pingresp(&mut out);
                let tally = Tally::of(&out, version);
                assert_eq!((tally.packets[3], tally.packets[4], tally.packets[13]), (2, 1, 1), "{version:?} {qos:?}");
                assert_eq!((tally.packets.iter().sum::<u64>(), tally.payload), (4, 300), "{version:?} {qos:?}");
                ran += 1;
            }
        }
        assert_eq!(ran, 9);
        assert_eq!(Tally::of(b"\x30\xff\xff\xff\xff\xff", Version::V5), Tally::default());
    }

    #[test]
    fn what_stays_in_the_buffer_is_counted_once() {
        let totals = Arc::new(Totals::default());
        let mut meter = Meter::new(&totals);
        meter.read(20);
        let traffic = Arc::default();
        meter.introduce(&traffic, Version::V3);
        let mut out = BytesMut::new();
        for round in 1..=5 {
            publish(&mut out, Version::V3, QoS::AtMostOnce, b"0123456789", &[]);
            meter.said(&out);
            meter.said(&out);
            // The socket takes less than was written.
            out.advance(8);
            meter.written(8);
            assert_eq!((traffic.messages_out(), traffic.bytes_out()), (round, 8 * round));
        }
        assert_eq!((traffic.bytes_in(), totals.sums().payload_out, totals.sums().bytes_in), (20, 50, 20));
    }
}
