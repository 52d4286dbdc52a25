//! Any bytes as any record of the store.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sense_butler::broker::walk_store_record;

fuzz_target!(|input: &[u8]| {
    walk_store_record(input);
});
