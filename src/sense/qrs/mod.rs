//! The client of the Qlik Sense Repository Service (QRS): finding tasks, starting them, reading what events are enriched with.
//!
//! Invariants: building it touches neither disk nor network; a start is sent at most once; no text of a caller gets into a URL but
//! through [`filter::Filter`]; the number of calls under way is bounded, with a share of its own for starting tasks; how the connection
//! does can be read at any time ([`Qrs::health`]).

pub mod error;
pub mod filter;
pub mod health;
pub mod metrics;
pub mod model;

mod calls;
mod client;
mod http;
mod tls;
mod verify;

pub use calls::StartReply;
pub use client::Qrs;
pub use error::QrsError;
pub use health::QrsHealth;
pub use metrics::QrsMetrics;
