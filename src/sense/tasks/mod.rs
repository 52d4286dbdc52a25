//! Starting tasks: one way in for all doors.
//!
//! A [`request::StartRequest`] comes from MQTT or REST; [`Starter`] checks the filter, asks QRS whether the tasks exist, starts them and
//! answers with one [`request::StartOutcome`] per task.

pub mod metrics;
pub mod request;

mod allow;
mod memory;
mod starter;
mod work;

pub use starter::{StartReport, Starter};
