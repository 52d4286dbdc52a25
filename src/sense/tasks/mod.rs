//! Starting tasks: one way in for all doors.

pub mod request;
