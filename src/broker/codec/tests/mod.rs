//! What the codec promises, rule by rule.

use bytes::BytesMut;

use super::*;
use crate::names::QoS;

mod accepted;
mod corpus;
mod encoder;
mod framing;
mod internal;
mod random;
mod refused;
mod refused_v5;
mod written;

// The fuzz targets and these tests ask for the same.
#[path = "../../../../fuzz/fuzz_targets/walk.rs"]
mod walk;

/// Frames and decodes one packet that must be there whole.
fn read(bytes: &[u8], version: Version) -> Result<Packet<'_>, DecodeError> {
    match frame(bytes, usize::MAX)? {
        Framed::Complete { first, body, length } => {
            assert_eq!(length, bytes.len(), "the frame is the whole input: {bytes:02x?}");
            decode(first, body, version)
        }
        Framed::Incomplete { needed } => panic!("{needed} bytes needed: {bytes:02x?}"),
    }
}

/// One packet that has to be refused.
struct Refusal {
    /// The statement broken, or what is wrong.
    rule: &'static str,
    version: Version,
    bytes: Vec<u8>,
    /// Reason code and a piece of the text: refused, and for this reason.
    code: u8,
    text: &'static str,
}

fn v3(rule: &'static str, bytes: Vec<u8>, code: u8, text: &'static str) -> Refusal {
    Refusal { rule, version: Version::V3, bytes, code, text }
}

fn v5(rule: &'static str, bytes: Vec<u8>, code: u8, text: &'static str) -> Refusal {
    Refusal { rule, version: Version::V5, bytes, code, text }
}

/// Both versions, for rules and packets that are the same in them.
fn both(rule: &'static str, bytes: Vec<u8>, code: u8, text: &'static str) -> [Refusal; 2] {
    [v3(rule, bytes.clone(), code, text), v5(rule, bytes, code, text)]
}

/// Runs the table; gives how many rows there were.
fn refuse(table: &[Refusal]) -> usize {
    for Refusal { rule, version, bytes, code, text } in table {
        match read(bytes, *version) {
            Ok(packet) => panic!("{rule} ({version:?}): let through as {packet:?}"),
            Err(error) => {
                assert_eq!(error.reason_code(), *code, "{rule} ({version:?}): {error}");
                assert!(error.to_string().contains(text), "{rule} ({version:?}): {error}, but not {text:?}");
            }
        }
    }
    table.len()
}
