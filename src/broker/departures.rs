//! Connections that are over and of whose end the stream has not heard yet: it comes after their last messages.
//!
//! What was read before the end is still submitted, in its turn. Peers that come, send much and go could so put a queue of any length before
//! everybody; therefore nobody new comes in while many are leaving. Invariant: whoever waits to come in is woken when there is room.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use tokio::sync::Notify;

/// Connections that may be leaving before newcomers have to wait.
const MOST: usize = 32;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Departures {
    leaving: AtomicUsize,
    fewer: Notify,
}

/// One that is leaving, until this is dropped.
#[derive(Debug)]
pub(super) struct Departure(Arc<Departures>);

impl Departures {
    pub(super) fn leave(self: &Arc<Self>) -> Departure {
        self.leaving.fetch_add(1, Ordering::SeqCst);
        Departure(Arc::clone(self))
    }

    /// Waits until few enough are leaving.
    pub(super) async fn few(&self) {
        loop {
            let fewer = self.fewer.notified();
            tokio::pin!(fewer);
            // From here on no notice is missed.
            fewer.as_mut().enable();
            if self.leaving.load(Ordering::SeqCst) < MOST {
                return;
            }
            fewer.await;
        }
    }
}

impl Drop for Departure {
    fn drop(&mut self) {
        if self.0.leaving.fetch_sub(1, Ordering::SeqCst) <= MOST {
            self.0.fewer.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn newcomers_wait_while_many_are_leaving() {
        let departures = Arc::new(Departures::default());
        departures.few().await;
        let mut leaving: Vec<_> = (0..=MOST).map(|_| departures.leave()).collect();
        let newcomer = tokio::spawn({
            let departures = Arc::clone(&departures);
            async move { departures.few().await }
        });
        // One thread: it runs until it waits.
        tokio::task::yield_now().await;
        leaving.pop();
        tokio::task::yield_now().await;
        assert!(!newcomer.is_finished(), "as many as may be leaving are leaving");
        leaving.pop();
        newcomer.await.unwrap();
        drop(leaving);
        departures.few().await;
    }
}
