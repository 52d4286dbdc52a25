//! The fixed header: where a packet begins and ends in a stream of bytes (section 2.1 of 5.0, 2.2 of 3.1.1).
//!
//! Invariant: a frame is only handed out when all of it is there, and never one larger than the limit.

use super::DecodeError;

/// The largest number a Remaining Length can say (`[MQTT-1.5.5-1]`).
pub(super) const MAX_REMAINING: usize = 268_435_455;

/// What stands at the start of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framed<'a> {
    /// A whole packet.
    Complete {
        /// First byte: type and flags.
        first: u8,
        /// What follows the fixed header.
        body: &'a [u8],
        /// Bytes of the whole packet, fixed header included.
        length: usize,
    },
    /// Not a whole packet yet.
    Incomplete {
        /// How many bytes, counted from the start of the input, are needed at the least to know more. Always more than there are.
        needed: usize,
    },
}

/// Finds one packet at the start of `input`. `max_packet` counts the whole packet in bytes, as MQTT 5.0's Maximum Packet Size does.
///
/// An over-long Remaining Length (`0x80 0x00` for 0) is let through: 3.1.1 does not forbid it, and here the version is not known; see
/// [`is_shortest`].
///
/// # Errors
/// Packet type 0, reserved flags (`[MQTT-2.1.3-1]`), QoS 3 (`[MQTT-3.3.1-4]`), DUP at QoS 0 (`[MQTT-3.3.1-2]`) and a Remaining Length of five bytes
/// are malformed; [`DecodeError::TooLarge`] as soon as the length is known.
#[inline]
pub fn frame(input: &[u8], max_packet: usize) -> Result<Framed<'_>, DecodeError> {
    let Some((&first, rest)) = input.split_first() else {
        return Ok(Framed::Incomplete { needed: 2 });
    };
    check_first(first)?;
    let Some((remaining, width)) = remaining_length(rest)? else {
        return Ok(Framed::Incomplete { needed: input.len() + 1 });
    };
    let header = 1 + width;
    let length = header + remaining;
    if length > max_packet {
        return Err(DecodeError::TooLarge { size: length, limit: max_packet });
    }
    Ok(match input.get(header..length) {
        Some(body) => Framed::Complete { first, body, length },
        None => Framed::Incomplete { needed: length },
    })
}

/// Whether a packet of `length` bytes with a body of `body` bytes says its Remaining Length as shortly as it can, as 5.0 demands
/// (`[MQTT-1.5.5-1]`).
#[inline]
pub const fn is_shortest(length: usize, body: usize) -> bool {
    let width = match body {
        0..=0x7f => 1,
        0x80..=0x3fff => 2,
        0x4000..=0x1f_ffff => 3,
        _ => 4,
    };
    length == 1 + width + body
}

/// Type and flags (table 2-2 of 5.0).
#[inline]
fn check_first(first: u8) -> Result<(), DecodeError> {
    match first {
        0x30..=0x3f if first & 0x06 == 0x06 => Err(DecodeError::Malformed("PUBLISH with QoS 3")),
        0x30..=0x3f if first & 0x0e == 0x08 => Err(DecodeError::Malformed("PUBLISH with DUP at QoS 0")),
        0x30..=0x3f | 0x62 | 0x82 | 0xa2 => Ok(()),
        0x00..=0x0f => Err(DecodeError::Malformed("packet type 0")),
        0x60..=0x6f | 0x80..=0x8f | 0xa0..=0xaf => Err(DecodeError::Malformed("reserved flags in the fixed header")),
        _ if first & 0x0f == 0 => Ok(()),
        _ => Err(DecodeError::Malformed("reserved flags in the fixed header")),
    }
}

/// Value and width in bytes; `None` while its last byte is missing.
#[inline]
fn remaining_length(bytes: &[u8]) -> Result<Option<(usize, usize)>, DecodeError> {
    match *bytes {
        [a, ..] if a < 0x80 => Ok(Some((usize::from(a), 1))),
        [a, b, ..] if b < 0x80 => Ok(Some((usize::from(a & 0x7f) | usize::from(b) << 7, 2))),
        [a, b, c, ..] if c < 0x80 => {
            Ok(Some((usize::from(a & 0x7f) | usize::from(b & 0x7f) << 7 | usize::from(c) << 14, 3)))
        }
        [a, b, c, d, ..] if d < 0x80 => {
            let low = usize::from(a & 0x7f) | usize::from(b & 0x7f) << 7 | usize::from(c & 0x7f) << 14;
            Ok(Some((low | usize::from(d) << 21, 4)))
        }
        [_, _, _, _, ..] => Err(DecodeError::Malformed("Remaining Length of more than four bytes")),
        _ => Ok(None),
    }
}
