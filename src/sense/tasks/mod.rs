//! Starting tasks: one way in for all doors.
//!
//! A [`request::StartRequest`] comes from MQTT or REST; [`Starter`] writes it down, checks the filter, asks QRS whether the tasks exist and
//! run, starts them, has them followed and tells every step to the holder of the [`Ticket`]. What must survive the program is in the
//! `journal`; what became of a call nobody answered is found out in `settle`; [`Follower`] follows executions to their end.

pub mod answer;
pub mod audit;
pub mod end;
pub mod follow;
pub mod halt;
pub mod metrics;
pub mod parameters;
pub mod report;
pub mod request;
pub mod rules;
pub mod wish;

mod allow;
mod found;
mod journal;
mod lines;
mod lookup;
mod memory;
mod quota;
mod settle;
mod start;
mod starter;
mod story;
mod words;
mod work;

pub use allow::refusal;
pub use follow::{Execution, Follower};
pub use settle::Patience;
pub use starter::{Resumed, StartReport, Starter};
pub use story::{Ticket, Word};

/// Milliseconds since 1970.
fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
