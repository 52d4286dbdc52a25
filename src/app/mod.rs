//! Assembly: binds every socket, supervises every task, stops in order.

pub mod holder;
mod signal;
pub mod supervise;

pub use signal::signal;
