//! What must hold for any text of `broker.toml`. Shared by the fuzz target and by the unit test that replays its corpus; the parent module
//! brings the names into scope.

use std::sync::OnceLock;

use super::{LoadOptions, Loaded, built_in};

/// Reads a text; whether it is accepted.
pub fn read(input: &[u8]) -> bool {
    static BUILT_IN: OnceLock<Loaded> = OnceLock::new();
    let Ok(text) = std::str::from_utf8(input) else { return false };
    let loaded = BUILT_IN.get_or_init(|| built_in(&LoadOptions::default()).unwrap());
    match loaded.broker_from(text) {
        Ok(settings) => {
            // Nobody on another machine comes in without somebody having decided so; every rule names somewhere.
            for listener in &settings.listeners {
                let loopback = listener.addresses.iter().all(|address| address.ip().to_canonical().is_loopback());
                let clients = listener.tls.as_ref().and_then(|tls| tls.clients.as_ref());
                let certificates = clients.is_some_and(|clients| clients.required);
                let decided = !settings.users.is_empty() || listener.allow_anonymous || certificates;
                assert!(loopback || decided, "{}", listener.written);
            }
            assert!(settings.access.iter().all(|rule| !rule.topics.is_empty()));
            let hashes = settings.users.iter().flat_map(|user| &user.password_hash);
            assert!(hashes.into_iter().all(|hash| hash.expose().starts_with("$argon2id$")));
            assert_eq!(settings.needs_restart(&settings), [""; 0]);
            true
        }
        Err(errors) => {
            assert!(!errors.errors.is_empty() && !errors.to_string().is_empty());
            for place in errors.errors.iter().filter_map(|error| error.place) {
                let line = text.split('\n').nth(place.line - 1).expect("the line is there");
                assert!(place.column <= line.chars().count() + 1, "{place:?}");
            }
            false
        }
    }
}
