//! Logging, metrics, the panic hook.

pub mod readiness;
pub mod throttle;
