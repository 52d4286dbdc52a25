//! Everything that speaks Qlik: datagrams, the event model, the QRS client, starting of tasks, the simulator. Knows no MQTT.

pub mod event;
pub mod simulator;
pub mod tasks;
