//! `butler.yaml` and `broker.toml` to typed settings; diagnostics with file, line, key and hint.

pub mod settings;
