//! Conformance with MQTT 3.1.1 and MQTT 5.0, statement by statement, over real sockets and with packets made by hand.
//!
//! `tests/conformance/statements.toml` lists the normative statements; a test says which it shows in lines of its doc comment,
//! `/// Shows 3.1.1: [MQTT-3.1.4-2] [MQTT-3.1.4-3]` and `/// Shows 5.0: [MQTT-3.1.4-3]`. [`check`] holds the two against each other and writes
//! `docs/mqtt-conformance.md`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

mod support;

#[path = "conformance/check.rs"]
mod check;
#[path = "conformance/connack.rs"]
mod connack;
#[path = "conformance/connect.rs"]
mod connect;
#[path = "conformance/flow.rs"]
mod flow;
#[path = "conformance/kit.rs"]
mod kit;
#[path = "conformance/publish.rs"]
mod publish;
#[path = "conformance/qos.rs"]
mod qos;
#[path = "conformance/retained.rs"]
mod retained;
#[path = "conformance/session.rs"]
mod session;
#[path = "conformance/shared.rs"]
mod shared;
#[path = "conformance/subscribe.rs"]
mod subscribe;
#[path = "conformance/text.rs"]
mod text;
#[path = "conformance/transport.rs"]
mod transport;
#[path = "conformance/wills.rs"]
mod wills;
