//! The stream takes up what an earlier process left: sessions, subscriptions, retained messages, wills that are still to be decided.

use super::{State, seats::Seat};
use crate::broker::{session::Marks, store::Recovered};

impl State {
    /// Takes it up. `now`: milliseconds since 1970.
    pub(in crate::broker) fn recover(&mut self, kept: Recovered, marks: Marks, now: u64) {
        for session in &kept.sessions {
            let seat = Seat::recover(session, marks, now);
            let filters: Vec<_> = seat.filters.iter().map(|(filter, asked)| (filter.clone(), *asked)).collect();
            let key = self.seats.insert(seat);
            for (filter, asked) in filters {
                self.index.subscribe(key, &filter, asked);
            }
        }
        for message in &kept.retained {
            self.retained.set(message);
        }
        self.next_sid = kept.next_sid.max(1);
        self.metrics.sessions(self.seats.len());
        self.metrics.subscriptions(self.index.len());
        self.metrics.retained(self.retained.topics(), self.retained.bytes());
    }
}
