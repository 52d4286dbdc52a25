//! Everything that speaks Qlik: datagrams, the event model, the QRS client, starting of tasks, the simulator. Knows no MQTT.

pub mod chronicle;
pub mod datagram;
pub mod dedup;
pub mod directory;
pub mod event;
pub mod qrs;
pub mod receiver;
pub mod simulator;
pub mod sources;
pub mod tasks;
