//! One sleeper, many who may wake it: the waker of a connection task.
//!
//! Invariant: a wake after the last [`WakeCell::register`] is never lost.

use std::task::Waker;

use parking_lot::Mutex;

/// Holds the waker of the one task that sleeps here.
#[derive(Debug, Default)]
pub(super) struct WakeCell(Mutex<Option<Waker>>);

impl WakeCell {
    /// Before going to sleep: whom to wake. Check for work after this, not before.
    pub(super) fn register(&self, waker: &Waker) {
        let mut place = self.0.lock();
        match place.as_ref() {
            Some(present) if present.will_wake(waker) => {}
            _ => *place = Some(waker.clone()),
        }
    }

    /// Wakes the sleeper, if any.
    pub(super) fn wake(&self) {
        let waker = self.0.lock().take();
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}
