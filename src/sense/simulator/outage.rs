//! Restarts of the repository: for a while nobody listens, then every call is answered 503, then all is as before.
//!
//! Handshakes can stall, too. Invariant: whatever is asked for meanwhile, the door opens again; the latest request decides when.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

/// The states of the doors of the repository.
#[derive(Debug)]
pub struct Outage {
    open: watch::Sender<bool>,
    /// Until when nobody listens, and until when 503 is answered.
    until: Mutex<(Instant, Instant)>,
    stalled_until: Mutex<Instant>,
    changed: Notify,
}

impl Default for Outage {
    fn default() -> Self {
        let now = Instant::now();
        Self {
            open: watch::Sender::new(true),
            until: Mutex::new((now, now)),
            stalled_until: Mutex::new(now),
            changed: Notify::new(),
        }
    }
}

impl Outage {
    /// Tells a door whether it is open.
    pub fn watch(&self) -> watch::Receiver<bool> {
        self.open.subscribe()
    }

    /// Shuts the doors for `down`, and has them answer 503 for `initialising` after that.
    pub fn begin(&self, down: Duration, initialising: Duration) {
        let opens = Instant::now() + down;
        *self.until.lock() = (opens, opens + initialising);
        self.open.send_replace(down.is_zero());
        self.changed.notify_one();
    }

    /// Whether the repository still starts.
    pub fn is_initialising(&self) -> bool {
        Instant::now() < self.until.lock().1
    }

    /// Has connections that come from now on wait for so long before anything is said to them.
    pub fn stall(&self, time: Duration) {
        *self.stalled_until.lock() = Instant::now() + time;
    }

    /// Waits as long as handshakes stall.
    pub async fn stalled(&self) {
        let until = *self.stalled_until.lock();
        if Instant::now() < until {
            tokio::time::sleep_until(until).await;
        }
    }

    /// Opens the doors when it is time, for ever.
    pub async fn keep(&self) {
        loop {
            let opens = self.until.lock().0;
            tokio::select! {
                () = tokio::time::sleep_until(opens), if !*self.open.borrow() => {
                    if Instant::now() >= self.until.lock().0 {
                        self.open.send_replace(true);
                    }
                }
                () = self.changed.notified() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_latest_request_decides_when_the_door_opens() {
        let outage = Outage::default();
        let mut door = outage.watch();
        assert!(*door.borrow());
        assert!(!outage.is_initialising());
        let began = Instant::now();
        let opens = async {
            outage.begin(Duration::from_secs(3_600), Duration::from_secs(3_600));
            door.wait_for(|open| !open).await.unwrap();
            outage.begin(Duration::from_millis(30), Duration::from_secs(3_600));
            door.wait_for(|open| *open).await.unwrap();
        };
        tokio::select! {
            () = outage.keep() => {}
            () = opens => {}
        }
        assert!(began.elapsed() >= Duration::from_millis(30));
        assert!(outage.is_initialising());
        outage.begin(Duration::ZERO, Duration::ZERO);
        assert!(!outage.is_initialising());
        assert!(*outage.watch().borrow());
    }
}
