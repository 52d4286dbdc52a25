//! `broker.toml`, as the start and a reload read it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sense_butler::config::{LoadOptions, Loaded, built_in};

mod toml_holds;

fuzz_target!(|input: &[u8]| {
    toml_holds::read(input);
});
