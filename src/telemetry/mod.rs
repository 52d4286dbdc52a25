//! Logging, metrics, the panic hook.

pub mod catalogue;
mod fold;
mod line;
pub mod logfile;
pub mod logging;
pub mod metrics;
pub mod panics;
pub mod readiness;
pub mod throttle;
