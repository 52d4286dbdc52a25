//! What Butler does: events to topics, topics to actions, active users, status. The only room that knows both MQTT and Sense.

pub mod actions;
