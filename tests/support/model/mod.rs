//! What MQTT says, as a small model, and a driver that holds a broker to it over real sockets, one operation at a time.
//!
//! The model ([`spec`]) knows sessions as lists and searches them from end to end; it shares no code with the broker. The driver ([`drive`]) has
//! no clock: after each operation a message on [`FENCE`], which every client listens to, follows it through the same stream, so that whatever
//! the operation brings a client has come when the fence is there.

pub mod drive;
pub mod groups;
pub mod ops;
pub mod spec;

/// Clients of a history.
pub const CLIENTS: usize = 6;
/// Clients from here on may have a Receive Maximum of a few messages; they are in no shared group, so that it is known what waits for them.
pub const NARROW: usize = 4;
/// Where clients publish; under `$` they may not.
pub const TOPICS: [&str; 9] = ["a", "a/1", "a/b/1", "$x", "$x/1", "s/1", "s/1/2", "å/1", "$SYS/x"];
/// What clients subscribe to.
pub const FILTERS: [&str; 11] =
    ["#", "a/#", "+/1", "a/+/1", "$x/#", "+", "å/1", "w/#", "$share/g/s/#", "$share/h/a/+", FENCE];
/// Of these, the last is for fences, and every client has it.
pub const TO_FENCE: usize = FILTERS.len() - 1;
/// The topic of the fences.
pub const FENCE: &str = "fence/of/all";

/// The pattern of a shared subscription.
pub fn shared(filter: usize) -> Option<&'static str> {
    FILTERS[filter].strip_prefix("$share/").map(|rest| rest.split_once('/').unwrap().1)
}

/// The protocol levels a client speaks, from connection to connection.
pub fn versions(client: usize) -> &'static [u8] {
    match client {
        0 => &[4],
        2 | 3 => &[5],
        _ => &[4, 5],
    }
}

/// Whether a client may have a subscription. A message says in MQTT 5.0 alone which subscription it came by; so the client in 3.1.1 that is in a
/// group subscribes to nothing else that the group's messages match.
pub fn may_subscribe(client: usize, filter: usize) -> bool {
    match client {
        0 => !["#", "+/1", "$share/h/a/+"].contains(&FILTERS[filter]),
        2 | 3 => true,
        _ => shared(filter).is_none(),
    }
}

/// Whether a filter without `$share/` matches a topic (MQTT 5.0 sections 4.7.1 and 4.7.2).
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && filter.starts_with(['#', '+']) {
        return false;
    }
    let (mut filter, mut topic) = (filter.split('/'), topic.split('/'));
    loop {
        match (filter.next(), topic.next()) {
            (Some("#"), _) | (None, None) => return true,
            (Some("+"), Some(_)) => {}
            (Some(wanted), Some(found)) if wanted == found => {}
            _ => return false,
        }
    }
}
