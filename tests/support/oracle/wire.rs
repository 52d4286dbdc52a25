//! MQTT 3.1.1 and 5.0 from the client's side, in plain bytes: the oracle shares no code with the broker it judges.
//!
//! Sources: OASIS MQTT 3.1.1 and 5.0, chapters 2 and 3. Only what the oracle needs; what it does not know ends the connection.

/// Protocol level of MQTT 3.1.1.
pub const V3: u8 = 4;
/// Protocol level of MQTT 5.0.
pub const V5: u8 = 5;
/// Session expiry of whoever keeps a session, seconds.
const EXPIRY: u32 = 86_400;

/// What a CONNECT says.
#[derive(Debug, Clone)]
pub struct Hello {
    pub version: u8,
    pub id: String,
    /// Clean session (3.1.1), or clean start with expiry 0 (5.0).
    pub clean: bool,
    pub receive_maximum: Option<u16>,
    /// Topic, payload, QoS.
    pub will: Option<(String, Vec<u8>, u8)>,
}

impl Hello {
    pub fn new(version: u8, id: &str, clean: bool) -> Self {
        Self { version, id: id.to_owned(), clean, receive_maximum: None, will: None }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        text(&mut body, b"MQTT");
        let will = self.will.as_ref().map_or(0, |(_, _, qos)| 4 | qos << 3);
        body.extend([self.version, u8::from(self.clean) << 1 | will, 0, 0]);
        if self.version == V5 {
            let mut properties = Vec::new();
            if !self.clean {
                properties.push(0x11);
                properties.extend(EXPIRY.to_be_bytes());
            }
            if let Some(most) = self.receive_maximum {
                properties.push(0x21);
                properties.extend(most.to_be_bytes());
            }
            body.push(properties.len() as u8);
            body.extend(properties);
        }
        text(&mut body, self.id.as_bytes());
        if let Some((topic, payload, _)) = &self.will {
            if self.version == V5 {
                body.push(0);
            }
            text(&mut body, topic.as_bytes());
            text(&mut body, payload);
        }
        packet(0x10, &body)
    }
}

fn text(out: &mut Vec<u8>, text: &[u8]) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text);
}

/// Fixed header, remaining length, body.
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

/// A message, either way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Publish {
    pub topic: String,
    pub payload: Vec<u8>,
    pub qos: u8,
    pub retain: bool,
    pub dup: bool,
    /// 0 at QoS 0.
    pub id: u16,
}

impl Publish {
    pub fn bytes(&self, version: u8) -> Vec<u8> {
        let mut body = Vec::new();
        text(&mut body, self.topic.as_bytes());
        if self.qos > 0 {
            body.extend(self.id.to_be_bytes());
        }
        if version == V5 {
            body.push(0);
        }
        body.extend(&self.payload);
        packet(0x30 | u8::from(self.dup) << 3 | self.qos << 1 | u8::from(self.retain), &body)
    }
}

/// PUBACK 0x40, PUBREC 0x50, PUBREL 0x62, PUBCOMP 0x70.
pub fn ack(first: u8, id: u16) -> Vec<u8> {
    packet(first, &id.to_be_bytes())
}

pub fn subscribe(version: u8, id: u16, filter: &str, qos: u8) -> Vec<u8> {
    subscription(0x82, version, id, filter, Some(qos))
}

pub fn unsubscribe(version: u8, id: u16, filter: &str) -> Vec<u8> {
    subscription(0xa2, version, id, filter, None)
}

fn subscription(first: u8, version: u8, id: u16, filter: &str, qos: Option<u8>) -> Vec<u8> {
    let mut body = id.to_be_bytes().to_vec();
    if version == V5 {
        body.push(0);
    }
    text(&mut body, filter.as_bytes());
    body.extend(qos);
    packet(first, &body)
}

/// Leaves without a will; the session is kept where it is a kept one.
pub fn disconnect() -> Vec<u8> {
    packet(0xe0, &[])
}

/// What a broker may send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Packet {
    ConnAck { present: bool, code: u8 },
    Publish(Publish),
    PubAck { id: u16, code: u8 },
    PubRec { id: u16, code: u8 },
    PubRel { id: u16 },
    PubComp { id: u16 },
    SubAck { id: u16, code: u8 },
    UnsubAck { id: u16, code: u8 },
    Disconnect { code: u8 },
}

/// The first whole packet of a buffer: first byte, where its body begins, where it ends.
pub fn frame(buffer: &[u8]) -> Option<(u8, usize, usize)> {
    let first = *buffer.first()?;
    let mut length = 0;
    for at in 1..=4 {
        let byte = *buffer.get(at)?;
        length |= usize::from(byte & 127) << (7 * (at - 1));
        if byte & 128 == 0 {
            let (begin, end) = (at + 1, at + 1 + length);
            return (buffer.len() >= end).then_some((first, begin, end));
        }
    }
    None
}

/// Reads a body; `None` for what no broker may send.
pub fn parse(version: u8, first: u8, body: &[u8]) -> Option<Packet> {
    let id = || Some(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
    let code = || body.get(2).copied().unwrap_or(0);
    Some(match first >> 4 {
        2 => Packet::ConnAck { present: *body.first()? == 1, code: *body.get(1)? },
        3 => Packet::Publish(parse_publish(version, first, body)?),
        4 => Packet::PubAck { id: id()?, code: code() },
        5 => Packet::PubRec { id: id()?, code: code() },
        6 => Packet::PubRel { id: id()? },
        7 => Packet::PubComp { id: id()? },
        9 => Packet::SubAck { id: id()?, code: *body.last()? },
        11 => Packet::UnsubAck { id: id()?, code: if version == V5 { *body.last()? } else { 0 } },
        14 => Packet::Disconnect { code: body.first().copied().unwrap_or(0) },
        _ => return None,
    })
}

/// A PUBLISH, also a client's.
pub fn parse_publish(version: u8, first: u8, body: &[u8]) -> Option<Publish> {
    let topic_end = 2 + usize::from(u16::from_be_bytes([*body.first()?, *body.get(1)?]));
    let topic = String::from_utf8(body.get(2..topic_end)?.to_vec()).ok()?;
    let qos = (first >> 1) & 3;
    let mut at = topic_end;
    let mut id = 0;
    if qos > 0 {
        id = u16::from_be_bytes([*body.get(at)?, *body.get(at + 1)?]);
        at += 2;
    }
    if version == V5 {
        // The oracle sends no properties of its own; what a broker adds is short.
        let length = *body.get(at)?;
        if length > 127 {
            return None;
        }
        at += 1 + usize::from(length);
    }
    Some(Publish { topic, payload: body.get(at..)?.to_vec(), qos, retain: first & 1 == 1, dup: first & 8 == 8, id })
}

/// Whether a filter without `$share/` matches a topic.
pub fn matches(filter: &str, topic: &str) -> bool {
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(found)) if wanted == found => {}
            _ => return false,
        }
    }
}
