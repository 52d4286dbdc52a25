//! Admission: how many bytes may be on the bus, so that the engine's log cannot wrap and a fast publisher is slowed by its own socket, and how
//! many may wait for the disk.
//!
//! Clients share one window of each kind, fairly (first come, first served), and no connection may use more than a quarter of it; each
//! internal publisher has a lane of its own, so that a flood of clients cannot keep the bridge from speaking. Permits of the bus are owned by
//! the flight and end with its dispatch; those of the store, which only messages of QoS >= 1 and retained ones need, end with the commit (with
//! the dispatch if nothing was stored). A lane serves for both. Invariant: window plus lanes stay below what the engine's log is sure to keep.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    task::{Context, Poll},
};

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::PollSemaphore;

use super::{engine::IN_FLIGHT, peer::Peer};

/// The clients' window, bytes.
pub(super) const WINDOW: u32 = 1 << 20;
/// What one connection may use of it.
pub(super) const SHARE: u32 = WINDOW / 4;
/// The clients' window before the store, bytes.
pub(super) const STORE_WINDOW: u32 = 16 << 20;
/// What one connection may use of it.
pub(super) const STORE_SHARE: u32 = STORE_WINDOW / 4;
/// An internal publisher's lane, bytes.
pub(super) const LANE: u32 = 256 << 10;
/// What the engine's log charges beyond the bytes of an envelope.
const OVERHEAD: usize = 320;
/// There is a lull while less than one part of so many is under way.
const LULL: usize = 8;
/// Internal publishers there can be: bridge, REST, self-probe.
pub(super) const LANES: usize = 3;

const _: () = assert!(WINDOW as usize + LANES * LANE as usize <= IN_FLIGHT);

/// Bytes an envelope occupies of a window: one of any size always fits into an empty one.
pub(super) fn cost(envelope: usize, window: u32) -> u32 {
    u32::try_from(envelope + OVERHEAD).unwrap_or(u32::MAX).min(window)
}

/// Bytes an envelope counts while it is parked: its own, and those of its cargo, which only its cost tells.
pub(super) fn weight(envelope: usize, cost: u32) -> usize {
    envelope.max(usize::try_from(cost).unwrap_or(0).saturating_sub(OVERHEAD))
}

/// The clients' window.
#[derive(Debug, Clone)]
pub(super) struct Window {
    room: Arc<Semaphore>,
    /// So much of it is free in a lull, bytes.
    lull: usize,
    lulls: Arc<Notify>,
}

impl Window {
    pub(super) fn new(bytes: u32) -> Self {
        let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
        Self { room: Arc::new(Semaphore::new(bytes)), lull: bytes / LULL * (LULL - 1), lulls: Arc::default() }
    }

    /// Waits until little is under way.
    pub(super) async fn lull(&self) {
        loop {
            let lull = self.lulls.notified();
            tokio::pin!(lull);
            // From here on no notice is missed.
            lull.as_mut().enable();
            if self.room.available_permits() >= self.lull {
                return;
            }
            lull.await;
        }
    }

    /// Takes permits if they are there; they are given back by [`Window::give_back`].
    fn try_take(&self, cost: u32) -> bool {
        self.room.try_acquire_many(cost).map(tokio::sync::SemaphorePermit::forget).is_ok()
    }

    /// Waits for permits.
    pub(super) async fn take(&self, cost: u32) {
        if let Ok(permit) = self.room.acquire_many(cost).await {
            permit.forget();
        }
    }

    /// What was dispatched makes room.
    pub(super) fn give_back(&self, cost: u32) {
        if cost > 0 {
            self.room.add_permits(usize::try_from(cost).unwrap_or(0));
            if self.room.available_permits() >= self.lull {
                self.lulls.notify_waiters();
            }
        }
    }
}

/// A connection's place before the window.
///
/// A place in the semaphore's queue may be given permits at any time, also while its owner looks elsewhere. Invariant: who waits takes what
/// it waited for and nothing else, and who stops waiting gives it back, so that no permit is kept by a connection that has nothing to send.
#[derive(Debug)]
pub(super) struct Turnstile {
    window: Window,
    queue: PollSemaphore,
    waits: bool,
}

impl Turnstile {
    pub(super) fn new(window: Window) -> Self {
        let queue = PollSemaphore::new(Arc::clone(&window.room));
        Self { window, queue, waits: false }
    }

    /// Takes permits, or waits for them. Who asks for another number than before goes to the end of the queue.
    pub(super) fn poll_take(&mut self, cost: u32, cx: &mut Context<'_>) -> bool {
        if !self.waits && self.window.try_take(cost) {
            return true;
        }
        let permit = match self.queue.poll_acquire_many(cx, cost) {
            Poll::Ready(permit) => permit,
            Poll::Pending => {
                self.waits = true;
                return false;
            }
        };
        self.waits = false;
        permit.map(tokio::sync::OwnedSemaphorePermit::forget).is_some()
    }

    /// Leaves the queue with what was given meanwhile.
    pub(super) fn leave(&mut self) {
        if std::mem::take(&mut self.waits) {
            self.queue = PollSemaphore::new(Arc::clone(&self.window.room));
        }
    }
}

/// What one connection uses of a window.
#[derive(Debug, Default)]
pub(super) struct Account {
    under_way: AtomicU32,
    waits: AtomicBool,
}

impl Account {
    /// Takes `cost` bytes of the connection's share, if it fits (one message always does). After a `false` the connection is to be woken when
    /// something of its own was let go, see [`Account::leave`].
    pub(super) fn enter(&self, cost: u32, share: u32) -> bool {
        if self.try_enter(cost, share) {
            return true;
        }
        self.waits.store(true, Ordering::SeqCst);
        // What was let go between the first look and the flag woke nobody: look again.
        self.try_enter(cost, share)
    }

    fn try_enter(&self, cost: u32, share: u32) -> bool {
        let now = self.under_way.load(Ordering::SeqCst);
        if now > 0 && now.saturating_add(cost) > share {
            return false;
        }
        self.under_way.fetch_add(cost, Ordering::SeqCst);
        true
    }

    /// Gives back what was let go; whether the connection waits for that.
    pub(super) fn leave(&self, cost: u32) -> bool {
        self.under_way.fetch_sub(cost, Ordering::SeqCst);
        self.waits.swap(false, Ordering::SeqCst)
    }
}

/// Room on the bus or before the store that is to be given back; runs of one publisher as one sum.
#[derive(Debug, Default)]
pub(super) struct Room(Vec<(Arc<Peer>, u32)>);

impl Room {
    pub(super) fn add(&mut self, peer: &Arc<Peer>, cost: u32) {
        match self.0.last_mut() {
            Some((last, sum)) if last.id == peer.id => *sum += cost,
            _ => self.0.push((Arc::clone(peer), cost)),
        }
    }

    /// Room on the bus.
    pub(super) fn give_back(self, window: &Window) {
        self.settle(window, Peer::leave_bus);
    }

    /// Room before the store.
    pub(super) fn give_back_stored(self, window: &Window) {
        self.settle(window, Peer::leave_store);
    }

    fn settle(self, window: &Window, leave: impl Fn(&Peer, u32)) {
        let mut common = 0;
        for (peer, cost) in self.0 {
            match &peer.lane {
                Some(lane) => lane.give_back(cost),
                None => {
                    common += cost;
                    leave(&peer, cost);
                }
            }
        }
        window.give_back(common);
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    fn left(window: &Window) -> usize {
        window.room.available_permits()
    }

    #[test]
    fn who_waited_is_given_its_permits_once() {
        let window = Window::new(100);
        let mut cx = Context::from_waker(Waker::noop());
        let mut gate = Turnstile::new(window.clone());
        assert!(gate.poll_take(100, &mut cx) && !gate.poll_take(30, &mut cx));
        // More comes back than was waited for: the rest is free for all.
        window.give_back(100);
        assert!(gate.poll_take(30, &mut cx));
        assert_eq!(left(&window), 70, "taken once, not once from the queue and once beside it");
        window.give_back(30);
        assert_eq!(left(&window), 100);
    }

    #[tokio::test]
    async fn a_lull_is_when_little_is_under_way() {
        let window = Window::new(80);
        window.lull().await;
        window.take(11).await;
        let waiting = tokio::spawn({
            let window = window.clone();
            async move { window.lull().await }
        });
        // One thread: it runs until it waits.
        tokio::task::yield_now().await;
        window.take(20).await;
        window.give_back(20);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "as much is under way as before");
        window.give_back(1);
        waiting.await.unwrap();
    }

    #[test]
    fn a_place_in_the_queue_is_one_for_what_was_asked_for() {
        let window = Window::new(100);
        let mut cx = Context::from_waker(Waker::noop());
        let mut gates = [(); 3].map(|()| Turnstile::new(window.clone()));
        let [holder, steady, growing] = &mut gates;
        assert!(holder.poll_take(100, &mut cx) && !growing.poll_take(30, &mut cx) && !steady.poll_take(30, &mut cx));
        assert!(!growing.poll_take(40, &mut cx));
        window.give_back(30);
        assert!(!growing.poll_take(40, &mut cx) && steady.poll_take(30, &mut cx), "it has lost its turn");
        window.give_back(40);
        assert!(growing.poll_take(40, &mut cx));
    }

    #[test]
    fn who_stops_waiting_keeps_nothing() {
        let window = Window::new(100);
        let mut cx = Context::from_waker(Waker::noop());
        let (mut first, mut second) = (Turnstile::new(window.clone()), Turnstile::new(window.clone()));
        assert!(first.poll_take(100, &mut cx) && !second.poll_take(100, &mut cx));
        window.give_back(100);
        assert!(!first.poll_take(100, &mut cx), "it is the second's turn");
        second.leave();
        assert!(first.poll_take(100, &mut cx));
        first.leave();
        assert_eq!(left(&window), 0);
    }
}
