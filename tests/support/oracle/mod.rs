//! An oracle for brokers: clients of our own that know what they were promised, and judge what they get.
//!
//! [`ledger`] judges and knows no sockets; [`publisher`], [`rest`], [`subscriber`], [`mortal`] and [`fresh`] are the clients; [`site`] is the program under
//! test; [`rounds`] lets it die and come back; [`liar`] stands between and lies, to show that every kind of broken promise is found.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

pub mod chance;
pub mod fresh;
pub mod ledger;
pub mod liar;
pub mod link;
pub mod mortal;
pub mod publisher;
pub mod rest;
pub mod rounds;
pub mod site;
pub mod subscriber;
pub mod violation;
pub mod wire;
