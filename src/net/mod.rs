//! What every room that opens a door shares: sockets to listen on, the pace of accepting, PEM files, TLS that follows its files, the rule for web pages.
//!
//! Knows neither HTTP nor MQTT nor Sense; who uses it says in his own words (a key of his file) what to do about an error.

pub mod bind;
pub mod certificates;
pub mod origin;
pub mod pace;
pub mod pem;
pub mod tls;
