//! Envelopes: what travels through the engine, one per thing that happens in the broker.
//!
//! Layout (little endian), made once with its exact size so that no read buffer stays pinned:
//!
//! ```text
//! 0  generation u32   12 kind u8      16 received  u64 (ms since 1970)    32 topic length u16
//! 4  sequence   u64   13 flags u8     24 expires   u64 (ms since 1970,    34 properties length u32
//!                     14 packet id u16                 0: never)          38 properties | topic length u16 (big endian) | topic | payload
//! ```
//!
//! Flags: bits 0-1 QoS, 2 retain, 3 dup. Topic and payload lie together as MQTT 3.1.1 wants them at QoS 0. Generation and sequence are
//! stamped under the submit lock. Invariant: whoever made a [`Draft`] has validated topic, properties and rights.

use bytes::{BufMut, Bytes, BytesMut};

use crate::names::QoS;

const HEADER: usize = 38;

/// What an envelope is about. The typed particulars of everything but a publish wait in the flight ring, beside the envelope.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Publish = 0,
    Control = 1,
}

/// What a publisher has checked and wants routed.
pub(super) struct PublishDraft<'a> {
    pub topic: &'a [u8],
    pub properties: &'a [u8],
    pub payload: &'a [u8],
    pub qos: QoS,
    pub retain: bool,
    pub dup: bool,
    pub packet_id: u16,
    /// Milliseconds since 1970.
    pub received: u64,
    /// Milliseconds since 1970; 0: never.
    pub expires: u64,
}

/// An envelope without generation and sequence.
pub(super) struct Draft(BytesMut);

impl PublishDraft<'_> {
    /// Bytes of its envelope.
    pub(super) const fn size(&self) -> usize {
        HEADER + self.properties.len() + 2 + self.topic.len() + self.payload.len()
    }
}

impl Draft {
    pub(super) fn publish(draft: &PublishDraft<'_>) -> Self {
        let size = draft.size();
        let mut buf = BytesMut::with_capacity(size);
        buf.put_bytes(0, 12);
        buf.put_u8(Kind::Publish as u8);
        buf.put_u8(draft.qos as u8 | (u8::from(draft.retain) << 2) | (u8::from(draft.dup) << 3));
        buf.put_u16_le(draft.packet_id);
        buf.put_u64_le(draft.received);
        buf.put_u64_le(draft.expires);
        // Topics are validated to be at most 65,535 bytes.
        let topic_len = u16::try_from(draft.topic.len()).unwrap_or(u16::MAX);
        buf.put_u16_le(topic_len);
        buf.put_u32_le(u32::try_from(draft.properties.len()).unwrap_or(u32::MAX));
        buf.put_slice(draft.properties);
        buf.put_u16(topic_len);
        buf.put_slice(draft.topic);
        buf.put_slice(draft.payload);
        Self(buf)
    }

    pub(super) fn control() -> Self {
        let mut buf = BytesMut::with_capacity(HEADER);
        buf.put_bytes(0, 12);
        buf.put_u8(Kind::Control as u8);
        buf.put_bytes(0, HEADER - 13);
        Self(buf)
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn stamp(mut self, generation: u32, seq: u64) -> Bytes {
        stamp(&mut self.0, generation, seq);
        self.0.freeze()
    }
}

fn stamp(buf: &mut BytesMut, generation: u32, seq: u64) {
    if let Some(place) = buf.first_chunk_mut::<12>() {
        let (first, second) = place.split_at_mut(4);
        first.copy_from_slice(&generation.to_le_bytes());
        second.copy_from_slice(&seq.to_le_bytes());
    }
}

/// The same envelope for a new generation of the engine (a copy: rare, after an engine death).
pub(super) fn restamp(envelope: &Bytes, generation: u32, seq: u64) -> Bytes {
    let mut buf = BytesMut::from(envelope.as_ref());
    stamp(&mut buf, generation, seq);
    buf.freeze()
}

/// Generation and sequence of an envelope; `None` for bytes that are none (the engine's test hook sends such).
pub(super) fn address(envelope: &[u8]) -> Option<(u32, u64)> {
    let (generation, rest) = envelope.split_first_chunk::<4>()?;
    let seq = rest.first_chunk::<8>()?;
    (envelope.len() >= HEADER).then(|| (u32::from_le_bytes(*generation), u64::from_le_bytes(*seq)))
}

/// A routed message, shared by all sessions that get it.
#[derive(Debug, Clone)]
pub(super) struct Message {
    envelope: Bytes,
    topic_start: usize,
    payload_start: usize,
    pub qos: QoS,
    pub retain: bool,
    pub dup: bool,
    pub packet_id: u16,
    /// Milliseconds since 1970; 0: never.
    pub expires: u64,
    /// Who published it; kept only where an internal subscriber needs to know.
    pub origin: Option<std::sync::Arc<super::message::Origin>>,
}

impl Message {
    /// Reads an envelope of kind publish; `None` if it is another kind or was damaged on its way.
    pub(super) fn read(envelope: Bytes) -> Option<Self> {
        let header: [u8; HEADER] = *envelope.first_chunk::<HEADER>()?;
        let field = |at: usize| header.get(at).copied().unwrap_or(0);
        if field(12) != Kind::Publish as u8 {
            return None;
        }
        let flags = field(13);
        let properties = usize::try_from(u32::from_le_bytes([field(34), field(35), field(36), field(37)])).ok()?;
        let topic_start = HEADER + properties + 2;
        let payload_start = topic_start + usize::from(u16::from_le_bytes([field(32), field(33)]));
        if payload_start > envelope.len() {
            return None;
        }
        let long = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| field(at + i)));
        Some(Self {
            topic_start,
            payload_start,
            qos: QoS::from_u8(flags & 3)?,
            retain: flags & 4 != 0,
            dup: flags & 8 != 0,
            packet_id: u16::from_le_bytes([field(14), field(15)]),
            expires: long(24),
            origin: None,
            envelope,
        })
    }

    pub(super) fn topic(&self) -> &[u8] {
        self.envelope.get(self.topic_start..self.payload_start).unwrap_or_default()
    }

    pub(super) fn topic_str(&self) -> &str {
        // Topics were validated as UTF-8 when the draft was made.
        std::str::from_utf8(self.topic()).unwrap_or_default()
    }

    pub(super) fn properties(&self) -> &[u8] {
        self.envelope.get(HEADER..self.topic_start.saturating_sub(2)).unwrap_or_default()
    }

    /// When it came in, milliseconds since 1970.
    pub(super) fn received(&self) -> u64 {
        let place = self.envelope.get(16..24).and_then(|place| place.first_chunk());
        place.map_or(0, |place| u64::from_le_bytes(*place))
    }

    /// The same without its payload: what clears a retained topic.
    pub(super) fn emptied(&self) -> Self {
        Self { envelope: self.envelope.slice(..self.payload_start.min(self.envelope.len())), ..self.clone() }
    }

    /// All of it, for the store; [`Message::read`] reads it back.
    pub(super) fn bytes(&self) -> &Bytes {
        &self.envelope
    }

    pub(super) fn payload(&self) -> &[u8] {
        self.envelope.get(self.payload_start..).unwrap_or_default()
    }

    /// The payload, sharing the envelope's memory.
    pub(super) fn payload_bytes(&self) -> Bytes {
        self.envelope.slice(self.payload_start.min(self.envelope.len())..)
    }

    /// Bytes this message counts in queues: all it occupies.
    pub(super) fn size(&self) -> usize {
        self.envelope.len() + 128
    }

    /// Seconds left until it expires (`None`: never), or `Err` when it has expired.
    pub(super) fn remaining(&self, now: u64) -> Result<Option<u32>, Expired> {
        match self.expires {
            0 => Ok(None),
            expires if expires <= now => Err(Expired),
            expires => Ok(Some(u32::try_from((expires - now).div_ceil(1000)).unwrap_or(u32::MAX))),
        }
    }
}

/// The message's expiry interval has passed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Expired;

/// Milliseconds since 1970, the clock of expiry.
pub(super) fn now_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draft() -> Draft {
        Draft::publish(&PublishDraft {
            topic: "å/ö".as_bytes(),
            properties: b"pp",
            payload: b"hello",
            qos: QoS::AtLeastOnce,
            retain: true,
            dup: false,
            packet_id: 7,
            received: 1,
            expires: 5_500,
        })
    }

    #[test]
    fn what_is_written_is_read() {
        let envelope = draft().stamp(3, 99);
        assert_eq!(address(&envelope), Some((3, 99)));
        let message = Message::read(envelope).unwrap();
        assert_eq!(
            (message.topic(), message.properties(), message.payload()),
            ("å/ö".as_bytes(), b"pp".as_slice(), b"hello".as_slice())
        );
        assert_eq!((message.qos, message.retain, message.dup, message.packet_id), (QoS::AtLeastOnce, true, false, 7));
        assert_eq!((message.remaining(1_000), message.remaining(5_500)), (Ok(Some(5)), Err(Expired)));
        assert_eq!(message.received(), 1);
    }

    #[test]
    fn a_new_stamp_changes_nothing_else() {
        let first = draft().stamp(1, 1);
        let second = restamp(&first, 2, 1);
        assert_eq!(address(&second), Some((2, 1)));
        assert_eq!(Message::read(first).unwrap().payload(), Message::read(second).unwrap().payload());
    }

    #[test]
    fn foreign_bytes_are_no_envelope() {
        assert_eq!(address(b"short"), None);
        assert!(Message::read(Bytes::from_static(&[0xff; 60])).is_none());
        assert!(Message::read(Draft::control().stamp(1, 1)).is_none());
    }
}
