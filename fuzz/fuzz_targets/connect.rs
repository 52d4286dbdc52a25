//! The body of a CONNECT, which decides on everything that follows.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use sense_butler::broker::codec::{
    Connect, DecodeError, Framed, Packet, Publish, Version, connect_version, decode, frame, write,
};

mod walk;

fuzz_target!(|body: &[u8]| {
    // A CONNECT that can be read names a version that can be seen without reading all of it.
    if walk::one(0x10, body, Version::V3) {
        assert!(connect_version(body).is_some());
    }
    walk::walk(body, Version::V5);
});
