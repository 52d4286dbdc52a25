//! Records: every value in the store, sealed with a format version and a CRC32C.
//!
//! Layout (little endian): `version u8 | crc u32 | body`. The checksum covers the kind of record, its key and its body, so that a value that
//! strays to another key or table is as unreadable as a flipped bit. Invariant: reading any bytes succeeds or says [`Damaged`]; it never
//! panics, and never takes more memory than a small multiple of what it was given.

pub(super) mod batch;
mod fields;
pub(super) mod queue;
pub(super) mod session;
#[cfg(test)]
mod tests;
mod walk;

pub(super) use self::fields::{Fields, put};
pub use self::walk::walk;

/// The format of everything in the store. A store of a later format is refused, not set aside. Format 2 knows sessions of parts of this
/// program, and rows that say who published; it is a superset of format 1, whose records are read as they are.
pub(in crate::broker) const FORMAT: u8 = 2;
/// The first format.
const OLDEST: u8 = 1;
/// Version and checksum.
const SEAL: usize = 5;

/// What a record is about; part of its checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(in crate::broker) enum Kind {
    Format = 1,
    NextSid = 2,
    Session = 3,
    Subscription = 4,
    Batch = 5,
    Queue = 6,
    Progress = 7,
    Incoming = 8,
    Retained = 9,
}

/// A record that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::broker) enum Damaged {
    /// It ends too early, or says what no record says.
    #[error("a record is damaged: {0}")]
    Malformed(&'static str),
    /// Its bytes are not those that were written.
    #[error("the checksum of a {0:?} record is wrong")]
    Checksum(Kind),
    /// A later version of the program wrote it.
    #[error("a {kind:?} record has format {found}; this version reads {FORMAT}")]
    Newer { kind: Kind, found: u8 },
}

fn checksum(kind: Kind, key: &[u8], body: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c_append(crc32c::crc32c(&[kind as u8]), key), body)
}

/// Makes a record of what `write` writes.
pub(super) fn seal(kind: Kind, key: &[u8], write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut record = vec![0; SEAL];
    write(&mut record);
    let crc = checksum(kind, key, record.get(SEAL..).unwrap_or_default());
    if let Some((version, place)) = record.split_first_mut() {
        *version = FORMAT;
        if let Some(place) = place.first_chunk_mut() {
            *place = crc.to_le_bytes();
        }
    }
    record
}

/// Whether an older version of the program wrote a record.
pub(super) fn is_older(record: &[u8]) -> bool {
    record.first().is_some_and(|version| *version < FORMAT)
}

/// The body of a record.
///
/// # Errors
/// [`Damaged`].
pub(super) fn unseal<'a>(kind: Kind, key: &[u8], record: &'a [u8]) -> Result<&'a [u8], Damaged> {
    let (version, rest) = record.split_first().ok_or(Damaged::Malformed("empty"))?;
    if *version > FORMAT {
        return Err(Damaged::Newer { kind, found: *version });
    }
    let (crc, body) = rest.split_first_chunk().ok_or(Damaged::Malformed("shorter than its seal"))?;
    if *version < OLDEST || u32::from_le_bytes(*crc) != checksum(kind, key, body) {
        return Err(Damaged::Checksum(kind));
    }
    Ok(body)
}

/// The key of a session's record, for its checksum.
pub(super) fn sid_key(sid: u64) -> [u8; 8] {
    sid.to_le_bytes()
}

/// The key of something a session has by number.
pub(super) fn pair_key(sid: u64, number: u64) -> [u8; 16] {
    let mut key = [0; 16];
    let (first, second) = key.split_at_mut(8);
    first.copy_from_slice(&sid.to_le_bytes());
    second.copy_from_slice(&number.to_le_bytes());
    key
}

/// The key of something a session has by name.
pub(super) fn named_key(sid: u64, name: &str) -> Vec<u8> {
    let mut key = sid.to_le_bytes().to_vec();
    key.extend_from_slice(name.as_bytes());
    key
}
