//! Logging, metrics, the panic hook.

pub mod throttle;
