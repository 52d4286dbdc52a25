//! Access rules against topics, filters and names of any kind.
#![no_main]

use libfuzzer_sys::fuzz_target;
use sense_butler::{
    broker::access::{
        pattern::{ClientPattern, TopicPattern},
        rule::{Action, Rule, Ruleset, Subject},
    },
    names::{TopicFilter, matches},
};

mod rules_hold;

fuzz_target!(|input: &[u8]| {
    rules_hold::judge(input);
});
