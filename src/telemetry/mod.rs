//! Logging, metrics, the panic hook.

pub mod metrics;
pub mod panics;
pub mod readiness;
pub mod throttle;
