//! The panic hook: every panic is counted and named in the log; whoever owns the task decides what follows.
//!
//! Invariants: the hook itself never panics and never blocks; a place that panics a thousand times a second costs one line per interval.

use std::{
    collections::HashMap,
    io::Write as _,
    panic::{self, PanicHookInfo},
    sync::LazyLock,
    time::Duration,
};

use parking_lot::Mutex;
use prometheus_client::{metrics::counter::Counter, registry::Registry};

use super::throttle::Throttle;

const INTERVAL: Duration = Duration::from_secs(10);

static PANICS: LazyLock<Counter> = LazyLock::new(Counter::default);
/// One throttle per place in the code; as many as there are places, so bounded.
static PLACES: LazyLock<Mutex<HashMap<String, Throttle>>> = LazyLock::new(Mutex::default);

/// Installs the hook in place of Rust's own. To be called once, first thing in `main`.
pub fn install() {
    panic::set_hook(Box::new(note));
}

/// Panics since the start of the process.
pub fn count() -> u64 {
    PANICS.get()
}

/// Makes the count visible as `sense_butler_panics_total`.
pub fn register(registry: &mut Registry) {
    registry.register("sense_butler_panics", "Panics caught; each is a defect worth a report", PANICS.clone());
}

fn note(info: &PanicHookInfo<'_>) {
    PANICS.inc();
    let place = info.location().map_or_else(|| "an unknown place".to_owned(), ToString::to_string);
    let Some(suppressed) = pass(&place) else { return };
    let message = info.payload_as_str().unwrap_or("(no message)");
    let thread = std::thread::current();
    let thread = thread.name().unwrap_or("unnamed");
    if tracing::dispatcher::has_been_set() {
        tracing::error!(code = "defect", %place, thread, suppressed, "defect: a part of the program panicked: {message}; please report it with the lines before it");
    } else {
        // Before logging is set up, and for verbs without it; a closed standard error leaves nobody to tell.
        drop(writeln!(std::io::stderr(), "defect: a part of the program panicked at {place}: {message}"));
    }
}

/// Whether a line may be written for a place. If another thread is in here too, it passes: one line too many is better than waiting.
fn pass(place: &str) -> Option<u64> {
    let Some(mut places) = PLACES.try_lock() else { return Some(0) };
    places.entry(place.to_owned()).or_insert_with(|| Throttle::every(INTERVAL)).pass()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panics_are_counted() {
        let before = count();
        // Put back at once: the other tests of this process report through the hook they found.
        let usual = panic::take_hook();
        install();
        let caught = panic::catch_unwind(|| panic!("on purpose"));
        panic::set_hook(usual);
        assert!(caught.is_err());
        assert!(count() > before);
        let mut registry = Registry::default();
        register(&mut registry);
        assert!(super::super::metrics::encode(&registry).contains("sense_butler_panics_total"));
    }

    #[test]
    fn a_place_is_named_once_per_interval() {
        assert_eq!(pass("src/x.rs:1:1"), Some(0));
        assert_eq!(pass("src/x.rs:1:1"), None);
        assert_eq!(pass("src/x.rs:2:1"), Some(0));
    }
}
