//! The request that asks for a WebSocket, and the frames behind it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sense_butler::{
    broker::websocket::{Frames, Rules, Verdict, examine},
    net::origin::{Allowed, Here},
};

mod web;

fuzz_target!(|input: &[u8]| {
    web::walk(input);
});
