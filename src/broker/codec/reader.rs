//! MQTT's data types (section 1.5 of both versions), read from the front of a slice.
//!
//! Invariant: a reader only shrinks; what it gives borrows the packet.

use super::DecodeError;

/// The unread rest of a packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a>(&'a [u8]);

const CUT: DecodeError = DecodeError::Malformed("it ends in the middle of a field");

impl<'a> Reader<'a> {
    #[inline]
    pub(super) const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Bytes not read yet.
    #[inline]
    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }

    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Everything not read yet.
    #[inline]
    pub(super) const fn rest(self) -> &'a [u8] {
        self.0
    }

    /// The packet must end here.
    #[inline]
    pub(super) fn finish(self) -> Result<(), DecodeError> {
        if self.0.is_empty() { Ok(()) } else { Err(DecodeError::Malformed("bytes after its last field")) }
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let (head, tail) = self.0.split_first_chunk::<N>().ok_or(CUT)?;
        self.0 = tail;
        Ok(*head)
    }

    #[inline]
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], DecodeError> {
        let (head, tail) = self.0.split_at_checked(length).ok_or(CUT)?;
        self.0 = tail;
        Ok(head)
    }

    #[inline]
    pub(super) fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array::<1>().map(|[byte]| byte)
    }

    #[inline]
    pub(super) fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    #[inline]
    pub(super) fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Variable Byte Integer, in the shortest form (`[MQTT-1.5.5-1]`).
    #[inline]
    pub(super) fn varint(&mut self) -> Result<u32, DecodeError> {
        let mut value = 0;
        for shift in [0, 7, 14, 21] {
            let byte = self.u8()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return if byte == 0 && shift > 0 {
                    Err(DecodeError::Malformed("a Variable Byte Integer that is longer than needed"))
                } else {
                    Ok(value)
                };
            }
        }
        Err(DecodeError::Malformed("a Variable Byte Integer of more than four bytes"))
    }

    /// Two bytes of length and as many bytes (Binary Data).
    #[inline]
    pub(super) fn binary(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }

    /// UTF-8 Encoded String: well-formed, no surrogates (`[MQTT-1.5.4-1]`), no U+0000 (`[MQTT-1.5.4-2]`).
    #[inline]
    pub(super) fn text(&mut self) -> Result<&'a str, DecodeError> {
        let text = utf8(self.binary()?)?;
        if text.as_bytes().contains(&0) { Err(NUL) } else { Ok(text) }
    }

    /// A topic without wildcards; it may be empty.
    #[inline]
    pub(super) fn topic(&mut self) -> Result<&'a str, DecodeError> {
        let text = utf8(self.binary()?)?;
        if has_odd_byte(text.as_bytes()) { Err(odd_topic(text)) } else { Ok(text) }
    }

    /// A packet identifier, which is never 0 (`[MQTT-2.2.1-3]`, `[MQTT-2.3.1-1]` of 3.1.1).
    #[inline]
    pub(super) fn packet_id(&mut self) -> Result<u16, DecodeError> {
        match self.u16()? {
            0 => Err(DecodeError::Protocol("packet identifier 0")),
            id => Ok(id),
        }
    }

    /// The bytes of a property block: its length, then as much.
    #[inline]
    pub(super) fn property_block(&mut self) -> Result<&'a [u8], DecodeError> {
        let length = self.varint()?;
        self.take(usize::try_from(length).map_err(|_| CUT)?)
    }
}

const NUL: DecodeError = DecodeError::Malformed("a text contains the character U+0000");

#[inline]
fn utf8(bytes: &[u8]) -> Result<&str, DecodeError> {
    std::str::from_utf8(bytes).map_err(|_| DecodeError::Malformed("a text is not UTF-8"))
}

/// Whether there is a `+`, a `#` or a U+0000: eight bytes at a time, since it is asked for every message.
#[inline]
fn has_odd_byte(bytes: &[u8]) -> bool {
    let Some(last) = bytes.last_chunk::<8>() else {
        return bytes.iter().any(|byte| matches!(byte, b'+' | b'#' | 0));
    };
    let (words, _) = bytes.as_chunks::<8>();
    // The last eight bytes overlap the words before; that is cheaper than a rest of single bytes.
    words.iter().fold(odd_in_word(*last), |odd, word| odd | odd_in_word(*word)) != 0
}

/// Not 0 if one of the bytes is odd. `+` and `#` only differ in bit 3; `(x - 1) & !x` has the top bit of the lowest byte that is 0.
#[inline]
const fn odd_in_word(word: [u8; 8]) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    let nul = u64::from_ne_bytes(word);
    let wildcard = (nul & !(ONES * 0x08)) ^ (ONES * 0x23);
    (nul.wrapping_sub(ONES) & !nul | wildcard.wrapping_sub(ONES) & !wildcard) & (ONES * 0x80)
}

#[cold]
fn odd_topic(text: &str) -> DecodeError {
    if text.contains('\0') {
        NUL
    } else {
        DecodeError::TopicName("it contains `+` or `#`, which belong into subscriptions")
    }
}
