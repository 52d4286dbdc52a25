//! Random operations of a few clients, valid and not.

use super::{CLIENTS, NARROW, TO_FENCE, TOPICS, may_subscribe, versions};
use crate::chance::Chance;

#[derive(Debug, Clone, Copy)]
pub struct WillOf {
    pub qos: u8,
    pub retain: bool,
    /// It waits for as long as the session lasts (MQTT 5.0); it is published when that ends.
    pub delayed: bool,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// Without a word.
    Lost,
    /// DISCONNECT.
    Goodbye,
    /// DISCONNECT 0x04 (MQTT 5.0).
    WithWill,
    /// DISCONNECT with session expiry 0 (MQTT 5.0).
    Ending,
}

/// What no client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrong {
    /// PUBLISH to a topic with a wildcard.
    Wildcard,
    /// A second CONNECT.
    Connect,
    /// Packet type 0.
    Reserved,
    /// PUBLISH with QoS 3.
    Qos,
    /// SUBSCRIBE without a filter.
    NoFilter,
}

/// What changes nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stray {
    PubAck,
    PubRec,
    PubRel,
    PubComp,
    Ping,
    /// SUBSCRIBE to what is no filter.
    Filter,
}

#[derive(Debug, Clone)]
pub enum Op {
    Connect {
        client: usize,
        version: u8,
        clean: bool,
        kept: bool,
        window: Option<u16>,
        will: Option<WillOf>,
    },
    Subscribe {
        client: usize,
        filter: usize,
        qos: u8,
        published: bool,
        no_local: bool,
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
    /// PUBREL for one of the client's open ids.
    Release {
        client: usize,
        which: usize,
    },
    /// An open QoS 2 message again, with DUP.
    Repeat {
        client: usize,
        which: usize,
    },
    /// The next step for one of the messages the client has; `refuse`: a PUBREC that refuses (MQTT 5.0).
    Acknowledge {
        client: usize,
        which: usize,
        refuse: bool,
    },
    /// That for all of them, until nothing is left.
    AcknowledgeAll {
        client: usize,
    },
    Stray {
        client: usize,
        what: Stray,
    },
    Close {
        client: usize,
        parting: Parting,
    },
    Misbehave {
        client: usize,
        how: Wrong,
    },
}

impl Op {
    pub fn random(chance: &mut Chance) -> Self {
        let client = chance.below(CLIENTS as u64) as usize;
        let number = |chance: &mut Chance, bound: usize| chance.below(bound as u64) as usize;
        match chance.below(100) {
            0..12 => Self::connect(client, chance),
            12..30 => Self::Subscribe {
                client,
                filter: loop {
                    let filter = number(chance, TO_FENCE);
                    if may_subscribe(client, filter) {
                        break filter;
                    }
                },
                qos: chance.below(3) as u8,
                published: chance.once_in(2),
                no_local: chance.once_in(3),
                handling: chance.below(3) as u8,
            },
            30..35 => Self::Unsubscribe { client, filter: number(chance, TO_FENCE) },
            35..66 => Self::Publish {
                client,
                topic: number(chance, TOPICS.len()),
                qos: chance.below(3) as u8,
                retain: chance.once_in(4),
                empty: chance.once_in(6),
            },
            66..70 => Self::Release { client, which: number(chance, 4) },
            70..73 => Self::Repeat { client, which: number(chance, 4) },
            73..85 => Self::Acknowledge { client, which: number(chance, 6), refuse: chance.once_in(10) },
            85..89 => Self::AcknowledgeAll { client },
            89..92 => Self::Stray {
                client,
                what: *chance.pick(&[
                    Stray::PubAck,
                    Stray::PubRec,
                    Stray::PubRel,
                    Stray::PubComp,
                    Stray::Ping,
                    Stray::Filter,
                ]),
            },
            92..99 => Self::Close {
                client,
                parting: *chance.pick(&[
                    Parting::Lost,
                    Parting::Lost,
                    Parting::Goodbye,
                    Parting::Goodbye,
                    Parting::WithWill,
                    Parting::Ending,
                ]),
            },
            _ => Self::Misbehave {
                client,
                how: *chance.pick(&[Wrong::Wildcard, Wrong::Connect, Wrong::Reserved, Wrong::Qos, Wrong::NoFilter]),
            },
        }
    }

    fn connect(client: usize, chance: &mut Chance) -> Self {
        let version = *chance.pick(versions(client));
        let clean = chance.once_in(3);
        // 3.1.1 has one flag for both.
        let kept = if version == 4 { !clean } else { !chance.once_in(3) };
        let window = (version == 5 && client >= NARROW && !chance.once_in(3)).then(|| 1 + chance.below(4) as u16);
        let will = chance.once_in(2).then(|| WillOf {
            qos: chance.below(3) as u8,
            retain: chance.once_in(3),
            delayed: version == 5 && chance.once_in(2),
        });
        Self::Connect { client, version, clean, kept, window, will }
    }

    pub fn client(&self) -> usize {
        match *self {
            Self::Connect { client, .. }
            | Self::Subscribe { client, .. }
            | Self::Unsubscribe { client, .. }
            | Self::Publish { client, .. }
            | Self::Release { client, .. }
            | Self::Repeat { client, .. }
            | Self::Acknowledge { client, .. }
            | Self::AcknowledgeAll { client }
            | Self::Stray { client, .. }
            | Self::Close { client, .. }
            | Self::Misbehave { client, .. } => client,
        }
    }
}
