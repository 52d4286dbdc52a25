//! Random operations of a few clients on the stream.

use super::*;

#[derive(Debug, Clone)]
pub(super) enum Op {
    Connect {
        client: usize,
        clean: bool,
        kept: bool,
        will: Option<WillOf>,
    },
    Subscribe {
        client: usize,
        filter: usize,
        qos: u8,
        published: bool,
        handling: u8,
    },
    Unsubscribe {
        client: usize,
        filter: usize,
    },
    Publish {
        client: usize,
        topic: usize,
        qos: u8,
        retain: bool,
        empty: bool,
    },
    Read {
        client: usize,
        window: u16,
    },
    Acknowledge {
        client: usize,
        which: usize,
    },
    Close {
        client: usize,
        with_will: bool,
        end: bool,
    },
    Tick {
        seconds: u64,
    },
    /// The program ends, in order or not, and begins anew with what the store has.
    Restart {
        in_order: bool,
    },
}

#[derive(Debug, Clone)]
pub(super) struct WillOf {
    pub qos: u8,
    pub retain: bool,
    pub delayed: bool,
}

pub(super) fn op() -> impl Strategy<Value = Op> {
    let client = || 0..CLIENTS;
    let will = prop::option::of((0..3u8, any::<bool>(), any::<bool>()))
        .prop_map(|will| will.map(|(qos, retain, delayed)| WillOf { qos, retain, delayed }));
    prop_oneof![
        3 => (client(), prop::bool::weighted(0.3), prop::bool::weighted(0.7), will)
            .prop_map(|(client, clean, kept, will)| Op::Connect { client, clean, kept, will }),
        4 => (client(), 0..FILTERS.len(), 0..3u8, any::<bool>(), 0..3u8).prop_map(
            |(client, filter, qos, published, handling)| Op::Subscribe { client, filter, qos, published, handling }
        ),
        1 => (client(), 0..FILTERS.len()).prop_map(|(client, filter)| Op::Unsubscribe { client, filter }),
        8 => (client(), 0..TOPICS.len(), 0..3u8, prop::bool::weighted(0.3), prop::bool::weighted(0.2)).prop_map(
            |(client, topic, qos, retain, empty)| Op::Publish { client, topic, qos, retain, empty }
        ),
        3 => (client(), 0..6u16).prop_map(|(client, window)| Op::Read { client, window }),
        3 => (client(), 0..4usize).prop_map(|(client, which)| Op::Acknowledge { client, which }),
        2 => (client(), any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(client, with_will, end)| Op::Close { client, with_will, end }),
        1 => (1..70u64).prop_map(|seconds| Op::Tick { seconds }),
    ]
}
