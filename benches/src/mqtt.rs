//! As much of MQTT 3.1.1 as a load needs.

use std::time::Instant;

use tokio::io::AsyncReadExt;

use crate::{Fallible, stream::Stream};

/// Publications a publisher of QoS 1 has unacknowledged at most. Both brokers take so many from one client by default (mosquitto: its limit of
/// 20 holds for what it sends, not for what it receives).
pub const WINDOW: u64 = 500;

/// A packet: first byte, remaining length, body.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut rest = body.len();
    loop {
        let byte = (rest % 128) as u8;
        rest /= 128;
        out.push(if rest > 0 { byte | 128 } else { byte });
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// Connects with a clean session and no keep-alive; for the address see [`Stream::open`].
pub async fn connect(address: &str, id: &str) -> Fallible<Stream> {
    introduce(address, id, true).await
}

/// Connects to a session that outlives the connection.
pub async fn connect_kept(address: &str, id: &str) -> Fallible<Stream> {
    introduce(address, id, false).await
}

/// Ends the session of an id, if there is one.
pub async fn end_session(address: &str, id: &str) -> Fallible<()> {
    disconnect(connect(address, id).await?).await
}

/// Says goodbye, and waits until the broker has closed the connection.
pub async fn disconnect(mut stream: Stream) -> Fallible<()> {
    stream.send(&[0xe0, 0]).await?;
    let mut rest = [0; 4096];
    // A broker may close TLS without its own goodbye: that is the end, too.
    while stream.read(&mut rest).await.is_ok_and(|count| count > 0) {}
    Ok(())
}

async fn introduce(address: &str, id: &str, clean: bool) -> Fallible<Stream> {
    let mut stream = Stream::open(address).await?;
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.extend_from_slice(&[4, u8::from(clean) << 1, 0, 0]);
    text(&mut body, id);
    stream.send(&packet(0x10, &body)).await?;
    let mut ack = [0; 4];
    stream.read_exact(&mut ack).await?;
    // A kept session may have been there.
    ack[2] &= u8::from(clean);
    if ack != [0x20, 2, 0, 0] {
        return Err(format!("{address} refuses {id}: CONNACK {ack:?}").into());
    }
    Ok(stream)
}

/// A SUBSCRIBE to one filter, with packet id 1.
pub fn subscription(filter: &str, qos: u8) -> Vec<u8> {
    let mut body = vec![0, 1];
    text(&mut body, filter);
    body.push(qos);
    packet(0x82, &body)
}

/// Subscribes to one filter and waits until that is acknowledged.
pub async fn subscribe(stream: &mut Stream, filter: &str, qos: u8) -> Fallible<()> {
    stream.send(&subscription(filter, qos)).await?;
    let mut ack = [0; 5];
    stream.read_exact(&mut ack).await?;
    if ack != [0x90, 3, 0, 1, qos] {
        return Err(format!("subscription to {filter} refused: {ack:?}").into());
    }
    Ok(())
}

/// A PUBLISH of QoS 0 or 1; `id` is written at QoS 1 only.
pub fn publish(topic: &str, qos: u8, id: u16, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(topic.len() + payload.len() + 4);
    text(&mut body, topic);
    if qos > 0 {
        body.extend_from_slice(&id.to_be_bytes());
    }
    body.extend_from_slice(payload);
    packet(0x30 | (qos << 1), &body)
}

/// A publication that came in.
pub struct Incoming<'a> {
    /// Of the past: sent because of a subscription.
    pub retained: bool,
    /// Topic, as it came.
    pub topic: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
}

/// Takes complete packets off the front of `buffer`, shows each, answers how many bytes they were.
pub fn frames(buffer: &[u8], mut each: impl FnMut(u8, &[u8])) -> usize {
    let mut at = 0;
    while let Some((first, body, used)) = frame(&buffer[at..]) {
        each(first, body);
        at += used;
    }
    at
}

fn frame(buffer: &[u8]) -> Option<(u8, &[u8], usize)> {
    let first = *buffer.first()?;
    let (mut length, mut used) = (0usize, 1);
    loop {
        let byte = *buffer.get(used)?;
        length |= usize::from(byte & 127) << (7 * (used - 1));
        used += 1;
        if byte & 128 == 0 {
            break;
        }
    }
    Some((first, buffer.get(used..used + length)?, used + length))
}

/// Reads publications, acknowledging those of QoS 1, until `each` answers false.
pub async fn receive(stream: &mut Stream, mut each: impl FnMut(Incoming<'_>) -> bool) -> Fallible<()> {
    let mut buffer = vec![0u8; 256 << 10];
    let (mut filled, mut acks, mut go_on) = (0, Vec::new(), true);
    while go_on {
        let count = stream.read(&mut buffer[filled..]).await?;
        if count == 0 {
            return Err("the broker closed the connection of a subscriber".into());
        }
        filled += count;
        let used = frames(&buffer[..filled], |first, body| {
            if first >> 4 != 3 || body.len() < 2 {
                return;
            }
            let (topic, mut rest) = body[2..].split_at(usize::from(u16::from_be_bytes([body[0], body[1]])));
            if (first >> 1) & 3 == 1 {
                acks.extend_from_slice(&[0x40, 2, rest[0], rest[1]]);
                rest = &rest[2..];
            }
            go_on &= each(Incoming { retained: first & 1 == 1, topic, payload: rest });
        });
        buffer.copy_within(used..filled, 0);
        filled -= used;
        if !acks.is_empty() {
            stream.send(&acks).await?;
            acks.clear();
        }
    }
    Ok(())
}

/// What one publisher does: the same frame again and again, but for its packet id and the first eight bytes of its payload, which are the
/// message's number from 0 (little-endian; in a payload of eight bytes or more).
pub struct Pour<'a> {
    /// Where to.
    pub topic: &'a str,
    /// 0 or 1.
    pub qos: u8,
    /// How many messages.
    pub count: u64,
    /// Bytes of each.
    pub payload: usize,
    /// How many of QoS 1 may be unacknowledged.
    pub window: u64,
}

impl Pour<'_> {
    /// As fast as the broker takes it; at QoS 1 all are acknowledged before it ends.
    pub async fn run(&self, stream: Stream) -> Fallible<()> {
        self.play(stream, None).await
    }

    /// The same, of QoS 1; answers how long each acknowledgement took, in microseconds.
    pub async fn timed(&self, stream: Stream) -> Fallible<Vec<u64>> {
        let mut clock = Clock { sent: vec![Instant::now(); IDS as usize], micros: Vec::new() };
        self.play(stream, Some(&mut clock)).await?;
        Ok(clock.micros)
    }

    async fn play(&self, mut stream: Stream, mut clock: Option<&mut Clock>) -> Fallible<()> {
        let mut frame = publish(self.topic, self.qos, 0, &vec![b'x'; self.payload]);
        let (mut sent, mut acknowledged) = (0u64, 0u64);
        let (mut out, mut buffer, mut filled) = (Vec::with_capacity(64 << 10), vec![0u8; 64 << 10], 0);
        let room = |sent: u64, acknowledged: u64| sent < self.count && sent - acknowledged < self.window;
        while sent < self.count || (self.qos > 0 && acknowledged < self.count) {
            let now = clock.is_some().then(Instant::now);
            while out.len() < 32 << 10 && (if self.qos == 0 { sent < self.count } else { room(sent, acknowledged) }) {
                self.number(&mut frame, sent);
                out.extend_from_slice(&frame);
                if let (Some(clock), Some(now)) = (&mut clock, now) {
                    clock.sent[(sent % IDS) as usize] = now;
                }
                sent += 1;
            }
            stream.send(&out).await?;
            out.clear();
            if self.qos == 0 || room(sent, acknowledged) {
                continue;
            }
            let count = stream.read(&mut buffer[filled..]).await?;
            if count == 0 {
                return Err(format!("the broker closed the connection of a publisher after {sent} messages").into());
            }
            filled += count;
            let used = frames(&buffer[..filled], |first, body| {
                acknowledged += u64::from(first >> 4 == 4);
                if let (Some(clock), 4, [high, low, ..]) = (&mut clock, first >> 4, body) {
                    clock.acknowledged(u16::from_be_bytes([*high, *low]));
                }
            });
            buffer.copy_within(used..filled, 0);
            filled -= used;
        }
        // What follows may still be on its way; the process ends soon enough.
        std::mem::forget(stream);
        Ok(())
    }

    /// Writes packet id and number into the frame.
    fn number(&self, frame: &mut [u8], number: u64) {
        let payload = frame.len() - self.payload;
        if self.qos > 0 {
            frame[payload - 2..payload].copy_from_slice(&((number % IDS + 1) as u16).to_be_bytes());
        }
        if let Some(bytes) = frame[payload..].first_chunk_mut() {
            *bytes = number.to_le_bytes();
        }
    }
}

/// Packet ids there are.
const IDS: u64 = 65_535;

/// How long acknowledgements take.
struct Clock {
    sent: Vec<Instant>,
    micros: Vec<u64>,
}

impl Clock {
    fn acknowledged(&mut self, id: u16) {
        if let Some(sent) = usize::from(id).checked_sub(1).and_then(|at| self.sent.get(at)) {
            self.micros.push(sent.elapsed().as_micros() as u64);
        }
    }
}
