//! The REST API: one file per resource, served by warp.

pub mod answer;
pub mod start_task;
