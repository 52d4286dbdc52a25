//! The client of the Qlik Sense Repository Service (QRS): finding tasks, starting and stopping them, following executions, reading what events
//! are enriched with.
//!
//! Invariants: building it touches neither disk nor network; a start is sent at most once; no text of a caller gets into a URL but
//! through [`filter::Filter`]; the number of calls under way is bounded, with a share of its own for starting tasks, for following them and
//! for script logs; how the connection does can be read at any time ([`Qrs::health`]).

pub mod chain;
pub mod error;
pub mod executions;
pub mod filter;
pub mod health;
pub mod metrics;
pub mod model;
pub mod notification;
pub mod probe;
pub mod search;
pub mod steps;

mod calls;
mod certificate;
mod client;
mod fields;
mod gate;
mod hosts;
mod http;
mod kinds;
mod page;
mod raw;
mod script_log;
mod status;
mod tls;
mod trust;
mod verify;
mod watch;

pub use calls::{LastAttempt, StartReply};
pub use chain::{ChainLink, ChainOn, ChainRule};
pub use client::{Qrs, StartTurn};
pub use error::{ConnectProblem, QrsError};
pub use executions::{Attempt, ExecutionStatus, Session};
pub use health::QrsHealth;
pub use hosts::HostState;
pub use metrics::QrsMetrics;
pub use notification::{ChangeType, Handle};
pub use search::{AppRef, LastRun, TaskInfo, TaskSearch, TaskType};
pub use trust::TrustProblem;
