//! Connections without a request in hand: those between two requests, and those that have not said what they want yet.
//!
//! When every place is taken, whoever has been so for longest makes room for who comes: silent connections, however many, keep nobody out.
//! Invariant: a connection that is sent away finishes the request it may have in hand by then.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
};

use parking_lot::Mutex;
use tokio::sync::Notify;
use warp::Stream;

/// All of a server's.
#[derive(Debug, Default)]
pub(super) struct Idle(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Those without a request, by when they came to be so.
    waiting: BTreeMap<u64, Arc<Notify>>,
    next: u64,
}

/// A connection's place among them. Clones are the same place.
#[derive(Debug, Clone)]
pub(super) struct Seat(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    idle: Arc<Idle>,
    /// Its key while it waits; 0: it has a request in hand.
    key: AtomicU64,
    /// Requests it had.
    requests: AtomicU64,
    leave: Arc<Notify>,
}

impl Idle {
    /// A place for a new connection, which has no request yet.
    pub(super) fn seat(self: &Arc<Self>) -> Seat {
        let seat = Seat(Arc::new(Inner {
            idle: Arc::clone(self),
            key: AtomicU64::new(0),
            requests: AtomicU64::new(0),
            leave: Arc::default(),
        }));
        seat.rest();
        seat
    }

    /// Sends away whoever has waited longest, if anybody waits.
    pub(super) fn send_away(&self) -> bool {
        let longest = self.0.lock().waiting.pop_first();
        longest.map(|(_, leave)| leave.notify_one()).is_some()
    }
}

impl Seat {
    /// Resolves when the connection has to make room.
    pub(super) async fn told_to_leave(&self) {
        self.0.leave.notified().await;
    }

    /// The connection has a request in hand until what is returned is dropped.
    pub(super) fn work(&self) -> Work {
        self.0.requests.fetch_add(1, Ordering::Relaxed);
        let key = self.0.key.swap(0, Ordering::Relaxed);
        self.0.idle.0.lock().waiting.remove(&key);
        Work(self.clone())
    }

    /// Whether there was no request yet: then there is nothing to be sent, either.
    pub(super) fn is_new(&self) -> bool {
        self.0.requests.load(Ordering::Relaxed) == 0
    }

    /// Whether there is a request in hand.
    pub(super) fn is_at_work(&self) -> bool {
        self.0.key.load(Ordering::Relaxed) == 0
    }

    fn rest(&self) {
        let mut state = self.0.idle.0.lock();
        state.next += 1;
        let key = state.next;
        state.waiting.insert(key, Arc::clone(&self.0.leave));
        self.0.key.store(key, Ordering::Relaxed);
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        let key = *self.key.get_mut();
        self.idle.0.lock().waiting.remove(&key);
    }
}

/// A request in hand.
#[derive(Debug)]
pub(super) struct Work(Seat);

impl Drop for Work {
    fn drop(&mut self) {
        self.0.rest();
    }
}

/// A body without an end: while it flows, there is a request in hand.
pub(super) struct Flowing<S> {
    body: S,
    _work: Work,
}

impl<S> Flowing<S> {
    pub(super) fn new(body: S, work: Work) -> Self {
        Self { body, _work: work }
    }
}

impl<S: Stream + Unpin> Stream for Flowing<S> {
    type Item = S::Item;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn is_told(seat: &Seat) -> bool {
        tokio::time::timeout(Duration::ZERO, seat.told_to_leave()).await.is_ok()
    }

    #[tokio::test]
    async fn the_longest_goes_first_and_never_one_at_work() {
        let idle = Arc::new(Idle::default());
        let (a, b, c) = (idle.seat(), idle.seat(), idle.seat());
        let work = a.work();
        assert!(a.is_at_work() && !b.is_at_work());
        assert!(idle.send_away());
        assert_eq!((is_told(&a).await, is_told(&b).await, is_told(&c).await), (false, true, false));
        drop(work);
        assert!(idle.send_away());
        assert!(is_told(&c).await, "the other has just come back from work");
        assert!(idle.send_away() && is_told(&a).await);
        assert!(!idle.send_away(), "nobody is left");
    }

    #[tokio::test]
    async fn a_body_that_flows_is_work() {
        let idle = Arc::new(Idle::default());
        let seat = idle.seat();
        let body = Flowing::new((), seat.work());
        assert!(seat.is_at_work() && !idle.send_away());
        drop(body);
        assert!(!seat.is_at_work() && idle.send_away());
    }

    #[tokio::test]
    async fn who_has_gone_takes_no_turn() {
        let idle = Arc::new(Idle::default());
        let (gone, here) = (idle.seat(), idle.seat());
        drop(gone.clone());
        drop(gone);
        assert!(idle.send_away() && is_told(&here).await);
        let work = here.work();
        assert!(!idle.send_away());
        drop((work, here));
        assert!(!idle.send_away() && idle.0.lock().waiting.is_empty());
    }
}
