//! Messages from the broker that it is to keep until they are dealt with: their PUBACK leaves when they are settled, not when they arrive.
//!
//! The broker sends again, on the next connection of our session, what it has no PUBACK for. What this program still works on is known again by
//! its packet id, its DUP flag and its content, and not handed over twice; its PUBACK then goes to the new connection. Invariants: no PUBACK
//! for a message that is neither settled nor nobody's; a message whose PUBACK was never written stays known, because the broker cannot use its
//! packet id for another. What cannot be told: whether a PUBACK written just before a connection broke has arrived.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::Notify;

use crate::bus::Delivery;

/// See the module. Bounded by the packet ids there are.
#[derive(Debug, Default)]
pub(super) struct Claims {
    state: Mutex<State>,
    /// A PUBACK is to be written.
    pub ready: Notify,
    hasher: RandomState,
}

#[derive(Debug, Default)]
struct State {
    /// Counts connections.
    connection: u64,
    serial: u64,
    open: HashMap<u16, Open>,
    /// Packet ids whose PUBACK is to be written on the present connection.
    ready: VecDeque<u16>,
}

#[derive(Debug)]
struct Open {
    serial: u64,
    /// The connection it came by last.
    connection: u64,
    content: u64,
    /// Settled after that connection had ended: the next is told.
    settled: bool,
}

/// What an arriving message is.
pub(super) enum Arrival {
    /// Not known, or not for sure: to be handed over.
    New(Claim),
    /// It is being dealt with, or was.
    Known,
}

/// A message that was handed over. Dropped unsettled, it is handed over again when the broker sends it again.
#[derive(Debug)]
pub(super) struct Claim {
    claims: Arc<Claims>,
    packet_id: u16,
    serial: u64,
    settled: bool,
}

impl Claims {
    /// A connection stands. `present`: the broker had our session; else it knows nothing of what came before.
    pub(super) fn connected(&self, present: bool) {
        let mut state = self.state();
        state.connection += 1;
        state.ready.clear();
        if !present {
            state.open.clear();
        }
    }

    /// A message of QoS 1 or 2 came.
    pub(super) fn arrived(self: &Arc<Self>, packet_id: u16, delivery: &Delivery) -> Arrival {
        let content = self.hasher.hash_one((delivery.topic.as_str(), &delivery.payload));
        let mut state = self.state();
        let connection = state.connection;
        if let Some(open) = state.open.get_mut(&packet_id).filter(|open| delivery.dup && open.content == content) {
            open.connection = connection;
            if open.settled {
                state.open.remove(&packet_id);
                self.acknowledge(state, packet_id);
            }
            return Arrival::Known;
        }
        state.serial += 1;
        let serial = state.serial;
        state.open.insert(packet_id, Open { serial, connection, content, settled: false });
        Arrival::New(Claim { claims: Arc::clone(self), packet_id, serial, settled: false })
    }

    /// What is to be acknowledged now.
    pub(super) fn take_ready(&self) -> VecDeque<u16> {
        std::mem::take(&mut self.state().ready)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }

    fn acknowledge(&self, mut state: MutexGuard<'_, State>, packet_id: u16) {
        state.ready.push_back(packet_id);
        drop(state);
        self.ready.notify_one();
    }
}

impl Claim {
    /// The message is dealt with: the broker may forget it.
    pub(super) fn settle(mut self) {
        self.settled = true;
        let (claims, packet_id) = (Arc::clone(&self.claims), self.packet_id);
        let mut state = claims.state();
        let connection = state.connection;
        let Some(open) = state.open.get_mut(&packet_id).filter(|open| open.serial == self.serial) else { return };
        if open.connection == connection {
            state.open.remove(&packet_id);
            claims.acknowledge(state, packet_id);
        } else {
            open.settled = true;
        }
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        if !self.settled {
            let mut state = self.claims.state();
            if state.open.get(&self.packet_id).is_some_and(|open| open.serial == self.serial) {
                state.open.remove(&self.packet_id);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bus::{Door, Origin, Properties},
        names::{QoS, TopicName},
    };

    fn delivery(payload: &'static str, dup: bool) -> Delivery {
        Delivery {
            topic: TopicName::new("q/start").unwrap(),
            payload: payload.into(),
            qos: QoS::AtLeastOnce,
            retained: false,
            properties: Properties::default(),
            origin: Origin { door: Door::External, client: None, user: None, may_start: true },
            packet_id: Some(1),
            dup,
        }
    }

    fn new(claims: &Arc<Claims>, id: u16, payload: &'static str, dup: bool) -> Option<Claim> {
        match claims.arrived(id, &delivery(payload, dup)) {
            Arrival::New(claim) => Some(claim),
            Arrival::Known => None,
        }
    }

    #[test]
    fn what_is_settled_is_acknowledged_in_any_order() {
        let claims = Arc::new(Claims::default());
        claims.connected(false);
        let (first, second) = (new(&claims, 1, "a", false).unwrap(), new(&claims, 2, "a", false).unwrap());
        assert!(claims.take_ready().is_empty());
        second.settle();
        first.settle();
        assert_eq!(claims.take_ready(), [2, 1]);
        assert!(new(&claims, 1, "a", true).is_some(), "whether that arrived is not known: handed over again");
    }

    #[test]
    fn what_is_being_dealt_with_is_not_handed_over_again() {
        let claims = Arc::new(Claims::default());
        claims.connected(false);
        let (works, late) = (new(&claims, 1, "a", false).unwrap(), new(&claims, 2, "b", false).unwrap());
        claims.connected(true);
        late.settle();
        assert!(claims.take_ready().is_empty(), "the broker has not sent it on this connection yet");
        assert!(new(&claims, 1, "a", true).is_none() && new(&claims, 2, "b", true).is_none());
        assert_eq!(claims.take_ready(), [2]);
        works.settle();
        assert_eq!(claims.take_ready(), [1]);
    }

    #[test]
    fn another_message_is_none_that_is_known() {
        let claims = Arc::new(Claims::default());
        claims.connected(false);
        let old = new(&claims, 1, "a", false).unwrap();
        claims.connected(true);
        let other = new(&claims, 1, "b", true).unwrap();
        let fresh = new(&claims, 1, "b", false).unwrap();
        old.settle();
        other.settle();
        assert!(claims.take_ready().is_empty());
        claims.connected(false);
        assert!(new(&claims, 1, "b", true).is_some(), "another session");
        fresh.settle();
        assert!(claims.take_ready().is_empty());
    }

    #[test]
    fn what_was_dropped_is_handed_over_again() {
        let claims = Arc::new(Claims::default());
        claims.connected(false);
        drop(new(&claims, 1, "a", false).unwrap());
        assert!(claims.take_ready().is_empty());
        claims.connected(true);
        assert!(new(&claims, 1, "a", true).is_some());
    }
}
