//! Packets that are no larger than the client takes (MQTT 5.0 section 3.1.2.11.4).
//!
//! CONNACK is measured before the session is opened. It is larger than PUBACK, PUBREC, PUBREL, PUBCOMP and PINGRESP can be, so these always
//! fit; PUBLISH is measured where it is written; the rest is here.

use bytes::BytesMut;

use super::{End, link::Link};
use crate::broker::codec::{Version, write};

/// MQTT 5: "Packet too large".
const TOO_LARGE: u8 = 0x95;

/// Bytes of the largest packet the client takes, from its Maximum Packet Size.
pub(super) fn largest(maximum_packet_size: Option<u32>) -> usize {
    maximum_packet_size.and_then(|size| usize::try_from(size).ok()).unwrap_or(usize::MAX)
}

/// Appends a packet, unless it is larger than `most` bytes. Whether it was not.
pub(super) fn fitting(out: &mut BytesMut, most: usize, write: impl FnOnce(&mut BytesMut)) -> bool {
    let before = out.len();
    write(out);
    let fits = out.len() - before <= most;
    if !fits {
        out.truncate(before);
    }
    fits
}

impl Link {
    /// An answer was written behind `before`: one that is too large is taken back, and the client, who waits for it, is told why it does
    /// not come (`[MQTT-3.1.2-24]`).
    pub(super) fn check_size(&self, before: usize, out: &mut BytesMut) -> Result<(), End> {
        if out.len().saturating_sub(before) <= self.terms.largest_packet {
            return Ok(());
        }
        out.truncate(before);
        Err(End::Broken { code: TOO_LARGE, why: "the answer is larger than the client takes" })
    }

    /// The DISCONNECT of 5.0, with its reason string where the client wants one and it fits (`[MQTT-3.14.2-3]`).
    pub(super) fn say_why(&self, out: &mut BytesMut, code: u8, why: Option<&str>) {
        let most = self.terms.largest_packet;
        let told = why.filter(|_| self.terms.reasons);
        let _ = fitting(out, most, |out| write::disconnect(out, Version::V5, code, told))
            || fitting(out, most, |out| write::disconnect(out, Version::V5, code, None));
    }
}
