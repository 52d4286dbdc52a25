//! Frames to bytes, without a socket: payloads of binary messages are unmasked in place and moved together, everything else is taken out.
//!
//! Invariants: never more bytes come out than went in; no memory is taken because of a declared length; what a frame declares is checked
//! before its first byte counts; after the end (a Close frame, a broken rule) nothing comes out any more.

use std::io::{self, Cursor};

use tokio_tungstenite::tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

/// The longest frame header: length of eight bytes, mask of four.
const HEADER: usize = 14;
/// The longest payload of a control frame (RFC 6455 section 5.5).
const CONTROL: usize = 125;

/// A rule of RFC 6455, or of MQTT over it, that the peer broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Violation {
    /// Code of the Close frame (RFC 6455 section 7.4.1).
    pub code: u16,
    /// For the log.
    pub why: &'static str,
}

impl Violation {
    const fn protocol(why: &'static str) -> Self {
        Self { code: 1002, why }
    }

    /// The reason code of a DISCONNECT that says the same.
    pub(in crate::broker) const fn reason_code(self) -> u8 {
        match self.code {
            1009 => 0x95,
            1002 => 0x81,
            _ => 0x82,
        }
    }

    /// The violation an error of the stream carries.
    pub(in crate::broker) fn of(error: &io::Error) -> Option<Self> {
        error.get_ref()?.downcast_ref().copied()
    }
}

const TEXT: Violation = Violation { code: 1003, why: "a WebSocket text frame; MQTT travels in binary frames" };
const TOO_BIG: Violation =
    Violation { code: 1009, why: "a WebSocket message is longer than limits.packet_size in broker.toml allows" };

/// How the frames came to their end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Over {
    /// The peer sent Close, with this code.
    Closed(u16),
    Broken(Violation),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Header,
    Data { left: u64 },
    Control { kind: Control, left: usize },
}

/// The reading side of a WebSocket.
#[derive(Debug)]
pub struct Frames {
    place: Place,
    /// An unfinished header.
    header: [u8; HEADER],
    held: usize,
    mask: [u8; 4],
    masked: usize,
    /// Bytes of the fragmented message so far.
    message: Option<u64>,
    /// Bytes a frame and a message may have.
    limit: u64,
    /// Payload of the control frame that is being read.
    control: Vec<u8>,
    ping: Option<Vec<u8>>,
    over: Option<Over>,
}

impl Frames {
    /// `limit`: bytes a frame and a message may have.
    pub fn new(limit: usize) -> Self {
        Self {
            place: Place::Header,
            header: [0; HEADER],
            held: 0,
            mask: [0; 4],
            masked: 0,
            message: None,
            limit: u64::try_from(limit).unwrap_or(u64::MAX),
            control: Vec::new(),
            ping: None,
            over: None,
        }
    }

    /// Takes what was read; the payload in it is then at the front of `bytes`, and its length is returned.
    pub fn take(&mut self, bytes: &mut [u8]) -> usize {
        let (mut at, mut kept) = (0, 0);
        while at < bytes.len() && self.over.is_none() {
            at += match self.place {
                Place::Header => self.take_header(bytes.get(at..).unwrap_or_default()),
                Place::Data { left } => {
                    let count = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len() - at);
                    self.unmask(bytes.get_mut(at..at + count).unwrap_or_default());
                    bytes.copy_within(at..at + count, kept);
                    kept += count;
                    self.place = self.after(left - count as u64);
                    count
                }
                Place::Control { kind, left } => {
                    let count = left.min(bytes.len() - at);
                    let payload = bytes.get_mut(at..at + count).unwrap_or_default();
                    self.unmask(payload);
                    self.control.extend_from_slice(payload);
                    self.take_control(kind, left - count);
                    count
                }
            };
        }
        kept
    }

    /// The latest ping that was not answered: its payload.
    pub fn ping(&mut self) -> Option<Vec<u8>> {
        self.ping.take()
    }

    /// The rule the peer broke, if it did.
    pub fn violation(&self) -> Option<Violation> {
        match self.over {
            Some(Over::Broken(violation)) => Some(violation),
            _ => None,
        }
    }

    pub(super) fn over(&self) -> Option<Over> {
        self.over
    }

    fn after(&self, left: u64) -> Place {
        if left == 0 { Place::Header } else { Place::Data { left } }
    }

    fn unmask(&mut self, payload: &mut [u8]) {
        let mut mask = self.mask;
        mask.rotate_left(self.masked);
        let mut words = payload.chunks_exact_mut(4);
        let word_mask = u32::from_ne_bytes(mask);
        for word in words.by_ref() {
            if let Ok(four) = <[u8; 4]>::try_from(&*word) {
                word.copy_from_slice(&(u32::from_ne_bytes(four) ^ word_mask).to_ne_bytes());
            }
        }
        for (byte, mask) in words.into_remainder().iter_mut().zip(mask) {
            *byte ^= mask;
        }
        self.masked = (self.masked + payload.len()) % 4;
    }

    /// Takes what belongs to a header; how many bytes that is.
    fn take_header(&mut self, bytes: &[u8]) -> usize {
        let before = self.held;
        for (to, from) in self.header.iter_mut().skip(before).zip(bytes) {
            *to = *from;
            self.held += 1;
        }
        let mut cursor = Cursor::new(self.header.get(..self.held).unwrap_or_default());
        match FrameHeader::parse(&mut cursor) {
            Ok(None) => self.held - before,
            Ok(Some((header, length))) => {
                let size = usize::try_from(cursor.position()).unwrap_or(HEADER);
                let minimal = size == header.len(length);
                self.held = 0;
                match self.begin(&header, length).and_then(|place| if minimal { Ok(place) } else { Err(LONG_FORM) }) {
                    Ok(place) => self.enter(place),
                    Err(violation) => self.over = Some(Over::Broken(violation)),
                }
                size.saturating_sub(before)
            }
            Err(_) => {
                self.over = Some(Over::Broken(Violation::protocol("a WebSocket frame of an unknown kind")));
                bytes.len()
            }
        }
    }

    fn enter(&mut self, place: Place) {
        self.place = match place {
            Place::Data { left } => self.after(left),
            place => place,
        };
        if let Place::Control { kind, left: 0 } = place {
            self.take_control(kind, 0);
        }
    }

    /// Checks what a header declares.
    fn begin(&mut self, header: &FrameHeader, length: u64) -> Result<Place, Violation> {
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return Err(Violation::protocol("a WebSocket extension that was not agreed on"));
        }
        self.mask = header.mask.ok_or(Violation::protocol("a WebSocket frame without a mask"))?;
        self.masked = 0;
        let message = match header.opcode {
            OpCode::Control(kind) => return control(header, kind, length),
            OpCode::Data(Data::Text) => return Err(TEXT),
            OpCode::Data(Data::Binary) if self.message.is_none() => 0,
            OpCode::Data(Data::Binary) => {
                return Err(Violation::protocol("a WebSocket message inside another"));
            }
            OpCode::Data(_) => self.message.ok_or(Violation::protocol("a continuation of no WebSocket message"))?,
        };
        let message = message.saturating_add(length);
        if message > self.limit {
            return Err(TOO_BIG);
        }
        self.message = (!header.is_final).then_some(message);
        Ok(Place::Data { left: length })
    }

    fn take_control(&mut self, kind: Control, left: usize) {
        if left > 0 {
            self.place = Place::Control { kind, left };
            return;
        }
        self.place = Place::Header;
        let payload = std::mem::take(&mut self.control);
        match kind {
            Control::Ping => self.ping = Some(payload),
            Control::Close => self.over = Some(close(&payload)),
            _ => {}
        }
    }
}

const LONG_FORM: Violation = Violation::protocol("the length of a WebSocket frame is not in its shortest form");

fn control(header: &FrameHeader, kind: Control, length: u64) -> Result<Place, Violation> {
    match usize::try_from(length) {
        Ok(left) if left <= CONTROL && header.is_final => Ok(Place::Control { kind, left }),
        _ => Err(Violation::protocol("a WebSocket control frame that is too long or in fragments")),
    }
}

/// The code of a Close frame, to be sent back; 1000 where there is none.
fn close(payload: &[u8]) -> Over {
    match payload.first_chunk::<2>().map(|code| u16::from_be_bytes(*code)) {
        None if payload.is_empty() => Over::Closed(1000),
        Some(code @ (1000..=1003 | 1007..=1014 | 3000..=4999)) => Over::Closed(code),
        _ => Over::Broken(Violation::protocol("a WebSocket Close frame with an impossible code")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A frame of a client.
    fn frame(first: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
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

    const MASK: [u8; 4] = [0x12, 0x34, 0xab, 0xcd];

    /// Feeds bytes in pieces of a size.
    fn feed(frames: &mut Frames, bytes: &[u8], size: usize) -> Vec<u8> {
        let mut out = Vec::new();
        for piece in bytes.chunks(size) {
            let mut piece = piece.to_vec();
            let kept = frames.take(&mut piece);
            out.extend(&piece[..kept]);
        }
        out
    }

    #[test]
    fn broken_rules() {
        let unmasked = vec![0x82, 1, 0];
        let mut endless = frame(0x82, &[], MASK);
        endless.splice(1..2, [0x80 | 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]);
        let mut long_form = frame(0x82, b"x", MASK);
        long_form.splice(1..2, [0x80 | 126, 0, 1]);
        let cases = [
            (frame(0x81, b"text", MASK), 1003),
            (unmasked, 1002),
            (endless, 1009),
            (long_form, 1002),
            (frame(0x82, &[0; 1001], MASK), 1009),
            ([frame(0x02, &[0; 600], MASK), frame(0x80, &[0; 401], MASK)].concat(), 1009),
            (frame(0xc2, b"", MASK), 1002),
            (frame(0x83, b"", MASK), 1002),
            (frame(0x8b, b"", MASK), 1002),
            (frame(0x80, b"", MASK), 1002),
            ([frame(0x02, b"a", MASK), frame(0x82, b"b", MASK)].concat(), 1002),
            (frame(0x09, b"", MASK), 1002),
            (frame(0x89, &[0; 126], MASK), 1002),
            (frame(0x88, &[3], MASK), 1002),
            (frame(0x88, &[0, 7], MASK), 1002),
        ];
        for (at, (bytes, code)) in cases.iter().enumerate() {
            for size in [1, bytes.len()] {
                let mut frames = Frames::new(1_000);
                feed(&mut frames, bytes, size);
                assert_eq!(frames.violation().map(|violation| violation.code), Some(*code), "case {at}");
                assert_eq!(feed(&mut frames, &frame(0x82, b"after", MASK), 3), b"", "case {at}");
            }
        }
    }

    #[test]
    fn what_comes_before_the_end_still_counts() {
        let bytes = [frame(0x82, b"first", MASK), frame(0x81, b"text", MASK), frame(0x82, b"last", MASK)].concat();
        let mut frames = Frames::new(1_000);
        assert_eq!(feed(&mut frames, &bytes, bytes.len()), b"first");
        assert_eq!(frames.violation(), Some(TEXT));
        let bytes = [frame(0x82, b"first", MASK), frame(0x88, &[0x0f, 0xa0], MASK), frame(0x82, b"no", MASK)].concat();
        let mut frames = Frames::new(1_000);
        assert_eq!((feed(&mut frames, &bytes, 2), frames.over()), (b"first".to_vec(), Some(Over::Closed(4000))));
    }

    #[derive(Debug, Clone)]
    enum Sent {
        /// A message in fragments.
        Message(Vec<Vec<u8>>),
        Ping(Vec<u8>),
        Pong(Vec<u8>),
    }

    fn sent() -> impl Strategy<Value = Sent> {
        let bytes = |most: usize| prop::collection::vec(any::<u8>(), 0..most);
        prop_oneof![
            3 => prop::collection::vec(bytes(300), 1..4).prop_map(Sent::Message),
            1 => bytes(126).prop_map(Sent::Ping),
            1 => bytes(126).prop_map(Sent::Pong),
        ]
    }

    proptest! {
        #[test]
        fn bytes_come_out_as_they_went_in(
            all in prop::collection::vec(sent(), 0..8), mask: [u8; 4], size in 1_usize..400, within in prop::option::of(0_usize..3),
        ) {
            let (mut wire, mut expected, mut ping) = (Vec::new(), Vec::<u8>::new(), None);
            for one in all {
                match one {
                    Sent::Ping(payload) => {
                        wire.extend(frame(0x89, &payload, mask));
                        ping = Some(payload);
                    }
                    Sent::Pong(payload) => wire.extend(frame(0x8a, &payload, mask)),
                    Sent::Message(parts) => for (at, part) in parts.iter().enumerate() {
                        let last = if at + 1 == parts.len() { 0x80 } else { 0 };
                        wire.extend(frame(last | if at == 0 { 2 } else { 0 }, part, mask));
                        expected.extend(part);
                        // Control frames may stand between fragments.
                        if within == Some(at) {
                            wire.extend(frame(0x8a, b"!", mask));
                        }
                    },
                }
            }
            let mut frames = Frames::new(2_000);
            prop_assert_eq!(feed(&mut frames, &wire, size), expected);
            prop_assert_eq!((frames.over(), frames.ping()), (None, ping));
        }

        #[test]
        fn any_bytes_are_taken_alike_however_they_come(
            bytes in prop::collection::vec(prop_oneof![Just(0x82_u8), Just(0x80), Just(0x81), any::<u8>()], 0..200), size in 1_usize..40,
        ) {
            let (mut whole, mut pieces) = (Frames::new(100), Frames::new(100));
            let out = feed(&mut whole, &bytes, bytes.len().max(1));
            prop_assert!(out.len() <= bytes.len());
            prop_assert_eq!(feed(&mut pieces, &bytes, size), out);
            prop_assert_eq!(whole.over(), pieces.over());
        }
    }
}
