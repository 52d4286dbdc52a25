//! The embedded MQTT broker. Knows nothing of Qlik Sense.

pub mod codec;
pub mod message;
pub mod settings;
