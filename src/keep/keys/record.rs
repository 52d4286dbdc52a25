//! How a key lies in the file. The key is its SHA-256; numbers are big endian.
//!
//! ```text
//! SHA-256 of the key        version u8 (1), milliseconds since 1970 u64, SHA-256 of the request, 0 (under way) or 1 and the answer
//! ```

use bytes::Bytes;

use super::Digest;

const VERSION: u8 = 1;

/// A record that was read.
#[derive(Debug, PartialEq)]
pub(super) struct Record {
    pub key: Digest,
    pub print: Digest,
    pub at: u64,
    /// `None`: it was under way.
    pub answer: Option<Bytes>,
}

pub(super) fn key(key: Digest) -> Vec<u8> {
    key.0.to_vec()
}

pub(super) fn body(print: Digest, at: u64, answer: Option<&[u8]>) -> Vec<u8> {
    let mut body = Vec::with_capacity(42 + answer.map_or(0, <[u8]>::len));
    body.push(VERSION);
    body.extend_from_slice(&at.to_be_bytes());
    body.extend_from_slice(&print.0);
    body.push(u8::from(answer.is_some()));
    body.extend_from_slice(answer.unwrap_or_default());
    body
}

/// What a pair of the file says; `None`: nothing this version knows.
pub(super) fn read(key: &[u8], body: &[u8]) -> Option<Record> {
    let (&VERSION, rest) = body.split_first()? else { return None };
    let (at, rest) = rest.split_first_chunk()?;
    let (print, rest) = rest.split_first_chunk()?;
    let answer = match rest.split_first()? {
        (0, []) => None,
        (1, answer) => Some(Bytes::copy_from_slice(answer)),
        _ => return None,
    };
    Some(Record { key: Digest(key.try_into().ok()?), print: Digest(*print), at: u64::from_be_bytes(*at), answer })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let (name, print) = (Digest::of([b"k".as_slice()]), Digest::of([b"p".as_slice()]));
        for answer in [None, Some(Bytes::new()), Some(Bytes::from_static(b"answer"))] {
            let written = body(print, 7, answer.as_deref());
            assert_eq!(read(&key(name), &written), Some(Record { key: name, print, at: 7, answer }));
            assert_eq!(read(b"short", &written), None);
            assert_eq!(read(&key(name), &written[..41]), None);
        }
        assert_eq!(read(&key(name), &[2; 60]), None, "a later version");
        let mut strange = body(print, 7, None);
        strange.push(0);
        assert_eq!(read(&key(name), &strange), None);
    }
}
