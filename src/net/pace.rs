//! The pace of a loop that accepts connections.
//!
//! Accepting is quicker than serving: a loop that takes all there are puts thousands of tasks into the queue in which those that are in stand, too, and each of
//! them waits for all of a storm. Invariant: between so many connections, everybody who can work has had a turn.

/// Connections accepted in one turn.
const AT_ONCE: usize = 8;

/// Counts what a loop has accepted.
#[derive(Debug, Default)]
pub struct Pace(usize);

impl Pace {
    /// After each connection: lets others have their turn when it is time for that.
    pub async fn next(&mut self) {
        self.0 += 1;
        if self.0 == AT_ONCE {
            self.0 = 0;
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    /// On one thread, what is spawned runs when the loop gives way.
    #[tokio::test]
    async fn what_was_accepted_is_served_before_many_more_are() {
        let (served, mut pace) = (Arc::new(AtomicUsize::new(0)), Pace::default());
        for accepted in 0..10 * AT_ONCE {
            let behind = accepted - served.load(Ordering::SeqCst);
            assert!(behind < AT_ONCE, "{behind} of {accepted} wait");
            let served = Arc::clone(&served);
            tokio::spawn(async move { served.fetch_add(1, Ordering::SeqCst) });
            pace.next().await;
        }
        assert_eq!(served.load(Ordering::SeqCst), 10 * AT_ONCE);
    }
}
