//! As much of MQTT 3.1.1 over TCP as a load needs.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::Fallible;

/// Publications a publisher of QoS 1 has unacknowledged at most. Both brokers take so many from one client by default (mosquitto: its limit of
/// 20 holds for what it sends, not for what it receives).
pub const WINDOW: usize = 500;

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

/// Connects with a clean session and no keep-alive.
pub async fn connect(address: &str, id: &str) -> Fallible<TcpStream> {
    introduce(address, id, true).await
}

/// Connects to a session that outlives the connection.
pub async fn connect_kept(address: &str, id: &str) -> Fallible<TcpStream> {
    introduce(address, id, false).await
}

async fn introduce(address: &str, id: &str, clean: bool) -> Fallible<TcpStream> {
    let mut stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
    stream.set_nodelay(true)?;
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.extend_from_slice(&[4, u8::from(clean) << 1, 0, 0]);
    text(&mut body, id);
    stream.write_all(&packet(0x10, &body)).await?;
    let mut ack = [0; 4];
    stream.read_exact(&mut ack).await?;
    // A kept session may have been there.
    ack[2] &= u8::from(clean);
    if ack != [0x20, 2, 0, 0] {
        return Err(format!("{address} refuses {id}: CONNACK {ack:?}").into());
    }
    Ok(stream)
}

/// Subscribes to one filter and waits until that is acknowledged.
pub async fn subscribe(stream: &mut TcpStream, filter: &str, qos: u8) -> Fallible<()> {
    let mut body = vec![0, 1];
    text(&mut body, filter);
    body.push(qos);
    stream.write_all(&packet(0x82, &body)).await?;
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
pub async fn receive(stream: &mut TcpStream, mut each: impl FnMut(Incoming<'_>) -> bool) -> Fallible<()> {
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
            go_on &= each(Incoming { topic, payload: rest });
        });
        buffer.copy_within(used..filled, 0);
        filled -= used;
        if !acks.is_empty() {
            stream.write_all(&acks).await?;
            acks.clear();
        }
    }
    Ok(())
}

/// Publishes the same frame `count` times as fast as the broker takes it; at QoS 1 with [`WINDOW`] unacknowledged, and all acknowledged
/// before it ends.
pub async fn pour(stream: TcpStream, topic: &str, qos: u8, count: u64, payload: usize) -> Fallible<()> {
    let (mut read, mut write) = stream.into_split();
    let mut frame = publish(topic, qos, 0, &vec![b'x'; payload]);
    let id_at = frame.len() - payload - 2;
    let (mut sent, mut acknowledged) = (0u64, 0u64);
    let (mut out, mut buffer, mut filled) = (Vec::with_capacity(64 << 10), vec![0u8; 64 << 10], 0);
    while sent < count || (qos > 0 && acknowledged < count) {
        while sent < count && out.len() < 32 << 10 && (qos == 0 || sent - acknowledged < WINDOW as u64) {
            if qos > 0 {
                frame[id_at..id_at + 2].copy_from_slice(&((sent % 65_535 + 1) as u16).to_be_bytes());
            }
            out.extend_from_slice(&frame);
            sent += 1;
        }
        write.write_all(&out).await?;
        out.clear();
        if qos == 0 || (sent < count && sent - acknowledged < WINDOW as u64) {
            continue;
        }
        let read_bytes = read.read(&mut buffer[filled..]).await?;
        if read_bytes == 0 {
            return Err(format!("the broker closed the connection of a publisher after {sent} messages").into());
        }
        filled += read_bytes;
        let used = frames(&buffer[..filled], |first, _| acknowledged += u64::from(first >> 4 == 4));
        buffer.copy_within(used..filled, 0);
        filled -= used;
    }
    // What follows may still be on its way; the process ends soon enough.
    std::mem::forget((read, write));
    Ok(())
}
