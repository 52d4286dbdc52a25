//! The map of the house.
//!
//! `sense-butler` stands between Qlik Sense and MQTT. Three ways lead through it: an event goes out (datagram, [`sense`], [`bridge`],
//! [`bus`], broker), a message goes out ([`api`], [`bus`]), a task is started (MQTT or REST, [`bridge`] or [`api`], [`sense::tasks`]).
//!
//! | room | what it is for |
//! |---|---|
//! | [`cli`] | one file per verb of the command line |
//! | [`service`] | service managers: what they are told, and how the program is handed to them |
//! | [`setup`] | `init`: questions, answers, and the two configuration files |
//! | [`doctor`] | looks at everything the program depends on and says what is wrong |
//! | [`app`] | assembly: binds every socket, supervises every task, stops in order |
//! | [`api`] | REST |
//! | [`console`] | the web console: its page, log-ins, the live stream |
//! | [`bridge`] | what Butler does: events to topics, topics to actions, active users, status |
//! | [`bus`] | what the rest of the house sees of MQTT; behind it the embedded or an external broker |
//! | [`sense`] | everything that speaks Qlik; knows no MQTT |
//! | [`broker`] | the embedded MQTT broker; knows no Sense |
//! | [`config`] | `butler.yaml` and `broker.toml` to typed settings |
//! | [`keep`] | what the program itself keeps on disk: one file with shelves, and the key-value store |
//! | [`net`] | what every door shares: sockets, PEM files, TLS that follows its files, the rule for web pages |
//! | [`telemetry`] | logging, metrics, the panic hook |
//! | [`names`] | newtypes parsed once at the door |
//!
//! Imports run one way: `main → cli → {setup → doctor, service} → app → {api → console, bridge} → {bus, sense} → config → broker → {net, keep} → telemetry → names` (settings of the broker
//! are the broker's, those of the log the telemetry's; `config` reads them from files). `tests/house.rs` holds everybody to it.

pub mod api;
pub mod app;
pub mod bridge;
pub mod broker;
pub mod bus;
pub mod cli;
pub mod config;
pub mod console;
pub mod doctor;
pub mod keep;
pub mod names;
pub mod net;
pub mod sense;
pub mod service;
pub mod setup;
pub mod telemetry;
