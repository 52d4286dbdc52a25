//! `[storage]`

use super::Context;
use crate::{
    broker::settings::{QueuePolicy, Storage},
    config::walk::Section,
};

const MIB: u64 = 1 << 20;

/// Below the data directory, unless a path is written.
const DIRECTORY: &str = "broker";

pub(super) fn decode(section: Section<'_>, cx: &Context<'_>) -> Storage {
    let default = Storage::default();
    let path = section.path("path", &cx.base).unwrap_or_else(|| cx.data.join(DIRECTORY));
    let in_memory = section.flag("in_memory", false);
    let policies = [QueuePolicy::DropOldest, QueuePolicy::DropNew, QueuePolicy::Reject];
    let policy = section.choice("queue_policy", &["drop_oldest", "drop_new", "reject"]);
    let storage = Storage {
        directory: (!in_memory).then_some(path),
        max_bytes: section.number("max_store_bytes", 16 * MIB..=1 << 40, default.max_bytes),
        session_bytes: section.number("max_queue_bytes", MIB..=1 << 40, default.session_bytes),
        session_messages: section.number("max_queue_messages", 1..=1_000_000_000, default.session_messages),
        policy: policy.and_then(|at| policies.get(at).copied()).unwrap_or(default.policy),
    };
    section.finish();
    storage
}
