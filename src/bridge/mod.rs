//! What Butler does: events to topics, topics to actions, active users, status. The only room that knows both MQTT and Sense.

pub mod actions;
pub mod active_users;
pub mod cloud_event;
pub mod executions;
pub mod forward;
pub mod status;
