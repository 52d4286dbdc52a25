//! `[limits]`

use std::ops::RangeInclusive;

use crate::{
    broker::settings::{Limits, Rate},
    config::walk::Section,
};

const MIB: u64 = 1 << 20;

/// MQTT's largest packet: 5 bytes of fixed header and a remaining length of 268,435,455 (MQTT 5.0 section 1.5.5).
const LARGEST_PACKET: u64 = 268_435_460;

/// A rate, per second; 0: any.
pub(super) const PER_SECOND: RangeInclusive<u64> = 0..=u32::MAX as u64;

pub(super) fn decode(section: Section<'_>) -> Limits {
    let default = Limits::default();
    let limits = Limits {
        clients: section.number("clients", 1..=1_000_000, default.clients),
        packet_size: section.number("packet_size", 1_024..=LARGEST_PACKET, default.packet_size),
        topic_levels: section.number("topic_levels", 1..=1_024, default.topic_levels),
        subscriptions: section.number("subscriptions", 1..=1_000_000, default.subscriptions),
        inflight: section.number("inflight", 1..=65_535, default.inflight),
        queue_bytes: section.number("queue_bytes", 64 << 10..=4_096 * MIB, default.queue_bytes),
        queue_messages: section.number("queue_messages", 1..=100_000_000, default.queue_messages),
        retained_bytes: section.number("retained_bytes", 0..=65_536 * MIB, default.retained_bytes),
        retained_topics: section.number("retained_topics", 0..=100_000_000, default.retained_topics),
        sessions: section.number("sessions", 0..=10_000_000, default.sessions),
        session_expiry: section.number("session_expiry", 0..=u64::from(u32::MAX), default.session_expiry),
        connect_timeout: section.number("connect_timeout", 1..=3_600, default.connect_timeout),
        keep_alive: section.number("keep_alive", 1..=65_535, default.keep_alive),
        topic_aliases: section.number("topic_aliases", 0..=65_535, default.topic_aliases),
        handshakes: section.number("handshakes", 1..=1_000_000, default.handshakes),
        handshakes_per_address: section.number("handshakes_per_address", 1..=1_000_000, default.handshakes_per_address),
        connects: section.number("connects", 0..=u64::from(u32::MAX), default.connects),
        failed_logins: section.number("failed_logins", 0..=1_000_000, default.failed_logins),
        waiting_logins: section.number("waiting_logins", 1..=1_000_000, default.waiting_logins),
        rate: Rate {
            messages: section.number("messages_per_second", PER_SECOND, default.rate.messages),
            bytes: section.number("bytes_per_second", PER_SECOND, default.rate.bytes),
        },
    };
    section.finish();
    limits
}
