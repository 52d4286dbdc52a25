//! Admission: how many bytes may be on the bus, so that the engine's log cannot wrap and a fast publisher is slowed by its own socket.
//!
//! Clients share one window, fairly (first come, first served), and no connection may use more than a quarter of it; each internal publisher
//! has a lane of its own, so that a flood of clients cannot keep the bridge from speaking. Permits are owned by the flight and end with its
//! dispatch. Invariant: window plus lanes stay below what the engine's log is sure to keep.

use std::sync::Arc;

use tokio::sync::Semaphore;

use super::engine::IN_FLIGHT;

/// The clients' window, bytes.
pub(super) const WINDOW: u32 = 1 << 20;
/// What one connection may use of it.
pub(super) const SHARE: u32 = WINDOW / 4;
/// An internal publisher's lane, bytes.
pub(super) const LANE: u32 = 256 << 10;
/// What the engine's log charges beyond the bytes of an envelope.
const OVERHEAD: usize = 320;
/// Internal publishers there can be: bridge, REST, self-probe.
pub(super) const LANES: usize = 3;

const _: () = assert!(WINDOW as usize + LANES * LANE as usize <= IN_FLIGHT);

/// Bytes an envelope occupies of a window: one of any size always fits into an empty one.
pub(super) fn cost(envelope: usize, window: u32) -> u32 {
    u32::try_from(envelope + OVERHEAD).unwrap_or(u32::MAX).min(window)
}

/// The clients' window.
#[derive(Debug, Clone)]
pub(super) struct Window(Arc<Semaphore>);

impl Window {
    pub(super) fn new(bytes: u32) -> Self {
        Self(Arc::new(Semaphore::new(usize::try_from(bytes).unwrap_or(usize::MAX))))
    }

    pub(super) fn semaphore(&self) -> Arc<Semaphore> {
        Arc::clone(&self.0)
    }

    /// Takes permits if they are there; they are given back by [`Window::give_back`].
    pub(super) fn try_take(&self, cost: u32) -> bool {
        self.0.try_acquire_many(cost).map(tokio::sync::SemaphorePermit::forget).is_ok()
    }

    /// Waits for permits.
    pub(super) async fn take(&self, cost: u32) {
        if let Ok(permit) = self.0.acquire_many(cost).await {
            permit.forget();
        }
    }

    /// What was dispatched makes room.
    pub(super) fn give_back(&self, cost: u32) {
        if cost > 0 {
            self.0.add_permits(usize::try_from(cost).unwrap_or(0));
        }
    }
}
