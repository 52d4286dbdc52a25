//! A stream of packets on a connection that speaks MQTT 3.1.1.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use sense_butler::broker::codec::{Connect, DecodeError, Framed, Packet, Publish, Version, decode, frame, write};

mod walk;

fuzz_target!(|input: &[u8]| {
    walk::walk(input, Version::V3);
});
