//! How namespaces and values lie in the file. Numbers are big endian, so that the order of bytes is theirs.
//!
//! ```text
//! 0 namespace                        born u64
//! 1 length u16, namespace, key       order u64, expires u64 (milliseconds since 1970; 0: never), time to live i64, JSON text
//! ```

use super::state::Entry;

const NAMESPACE: u8 = 0;
const VALUE: u8 = 1;

/// A record that was read.
#[derive(Debug, PartialEq)]
pub(super) enum Record {
    Namespace { name: String, born: u64 },
    Value { namespace: String, key: String, entry: Entry },
}

/// The key of a namespace.
pub(super) fn namespace_key(name: &str) -> Vec<u8> {
    let mut key = vec![NAMESPACE];
    key.extend_from_slice(name.as_bytes());
    key
}

/// The key of a value. Names are at most [`super::MAX_NAME`] bytes long.
pub(super) fn value_key(namespace: &str, key: &str) -> Vec<u8> {
    let length = u16::try_from(namespace.len()).unwrap_or(u16::MAX);
    let mut bytes = vec![VALUE];
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(namespace.as_bytes());
    bytes.extend_from_slice(key.as_bytes());
    bytes
}

pub(super) fn namespace_body(born: u64) -> Vec<u8> {
    born.to_be_bytes().to_vec()
}

pub(super) fn value_body(entry: &Entry) -> Vec<u8> {
    let mut body = Vec::with_capacity(24 + entry.value.len());
    body.extend_from_slice(&entry.order.to_be_bytes());
    body.extend_from_slice(&entry.expires.to_be_bytes());
    body.extend_from_slice(&entry.ttl.to_be_bytes());
    body.extend_from_slice(entry.value.as_bytes());
    body
}

/// What a pair of the file says; `None`: nothing this version knows.
pub(super) fn read(key: &[u8], body: &[u8]) -> Option<Record> {
    let text = |bytes: &[u8]| str::from_utf8(bytes).ok().map(str::to_owned);
    match key.split_first()? {
        (&NAMESPACE, name) => {
            Some(Record::Namespace { name: text(name)?, born: u64::from_be_bytes(body.try_into().ok()?) })
        }
        (&VALUE, rest) => {
            let (length, rest) = rest.split_first_chunk()?;
            let (namespace, key) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
            let (order, body) = body.split_first_chunk()?;
            let (expires, body) = body.split_first_chunk()?;
            let (ttl, body) = body.split_first_chunk()?;
            let entry = Entry {
                order: u64::from_be_bytes(*order),
                expires: u64::from_be_bytes(*expires),
                ttl: i64::from_be_bytes(*ttl),
                value: str::from_utf8(body).ok()?.into(),
            };
            Some(Record::Value { namespace: text(namespace)?, key: text(key)?, entry })
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let entry = Entry { order: 7, expires: u64::MAX, ttl: -5, value: r#""ö""#.into() };
        let read_value = read(&value_key("n s", "k"), &value_body(&entry));
        assert_eq!(read_value, Some(Record::Value { namespace: "n s".into(), key: "k".into(), entry }));
        let read_namespace = read(&namespace_key("ä"), &namespace_body(3));
        assert_eq!(read_namespace, Some(Record::Namespace { name: "ä".into(), born: 3 }));
        assert_ne!(value_key("ab", "c"), value_key("a", "bc"));
        for (key, body) in [
            (&b""[..], &b""[..]),
            (b"\x02x", b""),
            (b"\x01\x00\x05ab", b""),
            (b"\x00a", b"short"),
            (b"\x01\x00\x01ab", b"x"),
        ] {
            assert_eq!(read(key, body), None, "{key:?}");
        }
    }
}
