//! Hostile peers, the honest clients beside them, and the small program that only accepts and reads.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

pub mod attacks;
pub mod honest;
pub mod sink;
