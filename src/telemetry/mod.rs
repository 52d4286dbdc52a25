//! Logging, metrics, the panic hook.
