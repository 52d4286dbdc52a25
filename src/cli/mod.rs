//! One file per verb.

pub mod simulate;
