//! Filters of the simulated repository, and names in the filters this program writes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode_str;
use sense_butler::sense::{
    qrs::filter::{self as written, Filter as Written},
    simulator::filter::{Filter, LONGEST, Schema, schema},
};

mod filter_holds;

fuzz_target!(|input: &[u8]| {
    filter_holds::judge(input);
});
