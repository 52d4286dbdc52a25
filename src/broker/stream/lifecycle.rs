//! Sessions come, are taken over, go, and expire; wills are published when they are due.

use std::sync::Arc;

use super::{Effects, Now, SessionKey, State, seats::Seat};
use crate::broker::{
    cargo::{CloseCargo, OpenCargo, OpenRefused, Opened},
    peer::{Kick, Peer},
    session::Session,
};

/// Ticks from one search for expired retained messages to the next: a minute.
const PURGE_TICKS: u32 = 120;
/// MQTT 5: a session that never ends by itself.
const FOREVER: u32 = u32::MAX;

impl State {
    pub(super) fn open(&mut self, cargo: OpenCargo, peer: Option<Arc<Peer>>, now: Now, effects: &mut Effects) {
        let Some(peer) = peer else { return };
        let found = self.seats.find(&cargo.client);
        if let Some(key) = found {
            self.take_over(key, now, effects);
        }
        let key = found.filter(|key| self.resumable(*key, &cargo) && self.is_owner(*key, &peer));
        let present = key.is_some();
        if let Some(ended) = found.filter(|_| !present) {
            self.end(ended, now, effects);
        }
        if !present && cargo.expiry > 0 && self.seats.persistent() >= self.limits.sessions {
            self.metrics.refused("too_many_sessions");
            effects.opened.push((cargo.reply, Err(OpenRefused)));
            return;
        }
        let key = key.unwrap_or_else(|| {
            let session = Session::new(cargo.client.clone(), cargo.marks);
            self.seats.insert(Seat::new(Arc::new(session)))
        });
        if let Some(session) = self.seat_peer(key, &peer, &cargo, effects) {
            self.seated(key, &peer);
            effects.opened.push((cargo.reply, Ok(Opened { session, present })));
        }
        self.metrics.sessions(self.seats.len());
    }

    fn resumable(&self, key: SessionKey, cargo: &OpenCargo) -> bool {
        !cargo.clean_start && self.seats.get(key).is_some_and(Seat::is_persistent)
    }

    fn seat_peer(
        &mut self,
        key: SessionKey,
        peer: &Arc<Peer>,
        cargo: &OpenCargo,
        effects: &mut Effects,
    ) -> Option<Arc<Session>> {
        self.seats.set_expiry(key, cargo.expiry);
        let seat = self.seats.get_mut(key)?;
        seat.peer = Some(Arc::clone(peer));
        seat.ends_at = None;
        seat.will.clone_from(&cargo.will);
        seat.will_due = None;
        seat.origin = Some(Arc::clone(&peer.origin));
        let session = Arc::clone(&seat.session);
        if !seat.is_persistent() {
            // Nothing of it is stored, so nothing waits for a commit.
            session.commit(u64::MAX);
        }
        session.handshakes.lock().attach(peer);
        effects.released.extend(session.outbox.lock().attach(Arc::clone(peer), cargo.expiry > 0));
        peer.set_session(Arc::clone(&session));
        Some(session)
    }

    /// The present connection of a session gives way to a new one (`[MQTT-3.1.4-3]`); its will is published unless it is delayed and the
    /// session goes on (`[MQTT-3.1.3-9]`).
    fn take_over(&mut self, key: SessionKey, now: Now, effects: &mut Effects) {
        let Some(seat) = self.seats.get_mut(key) else { return };
        let Some(old) = seat.peer.take() else { return };
        old.kick(Kick::SessionTakenOver);
        if old.said_goodbye() {
            seat.will = None;
        }
        effects.released.extend(seat.session.outbox.lock().detach());
        if let Some(will) = seat.will.take_if(|will| will.delay == 0) {
            self.publish_will(&will, (Some(Arc::clone(&old.origin)), old.access()), now, effects);
        }
    }

    /// A session ends: its subscriptions go, its delayed will goes out now (`[MQTT-3.1.2-8]`).
    pub(super) fn end(&mut self, key: SessionKey, now: Now, effects: &mut Effects) {
        let Some(seat) = self.seats.remove(key) else { return };
        for filter in seat.filters.keys() {
            self.index.unsubscribe(key, filter);
        }
        // Its place may be given to the next session: nothing staged for the old one may reach it.
        effects.touched.retain(|touched| *touched != key);
        seat.session.handshakes.lock().detach();
        effects.released.extend(seat.session.outbox.lock().detach());
        self.holders.retain(|holder| *holder != key);
        self.bulk.retain(|bulk| bulk.session() != key);
        if let Some(will) = &seat.will {
            self.publish_will(will, (seat.origin.clone(), seat.access.as_ref()), now, effects);
        }
        self.metrics.sessions(self.seats.len());
        self.metrics.subscriptions(self.index.len());
    }

    pub(super) fn close(&mut self, cargo: &CloseCargo, peer: Option<Arc<Peer>>, now: Now, effects: &mut Effects) {
        let Some((peer, key)) = peer.and_then(|peer| self.seats.of_peer(&peer).map(|key| (peer, key))) else { return };
        if let Some(expiry) = cargo.expiry {
            self.seats.set_expiry(key, expiry);
        }
        let Some(seat) = self.seats.get_mut(key) else { return };
        seat.peer = None;
        let expiry = seat.expiry();
        seat.ends_at = (expiry != FOREVER).then(|| now.ms + u64::from(expiry) * 1000);
        let will = if cargo.with_will { seat.will.take() } else { None };
        seat.will = None;
        seat.session.handshakes.lock().detach();
        effects.released.extend(seat.session.outbox.lock().detach());
        match will {
            Some(will) if will.delay > 0 && expiry > 0 => {
                seat.will_due = Some(now.ms + u64::from(will.delay) * 1000);
                seat.will = Some(will);
            }
            Some(will) => self.publish_will(&will, (Some(Arc::clone(&peer.origin)), peer.access()), now, effects),
            None => {}
        }
        if expiry == 0 {
            self.end(key, now, effects);
        }
    }

    /// Time passed: wills that are due, sessions that expired, holds that last too long.
    pub(super) fn tick(&mut self, now: Now, effects: &mut Effects) {
        let due: Vec<_> = self
            .seats
            .iter()
            .filter(|(_, seat)| seat.will_due.is_some_and(|due| due <= now.ms))
            .map(|(key, _)| key)
            .collect();
        for key in due {
            let left = self.seats.get_mut(key).and_then(|seat| {
                seat.will_due = None;
                Some((seat.will.take()?, seat.origin.clone(), seat.access.clone()))
            });
            if let Some((will, origin, access)) = left {
                self.publish_will(&will, (origin, access.as_ref()), now, effects);
            }
        }
        let over: Vec<_> = self
            .seats
            .iter()
            .filter(|(_, seat)| seat.ends_at.is_some_and(|end| end <= now.ms))
            .map(|(key, _)| key)
            .collect();
        for key in over {
            self.metrics.session_expired();
            self.end(key, now, effects);
        }
        self.ticks = self.ticks.wrapping_add(1);
        if self.ticks.is_multiple_of(PURGE_TICKS) {
            self.retained.purge(now.ms);
        }
        self.check_holds(now, effects);
    }

    fn check_holds(&mut self, now: Now, effects: &mut Effects) {
        let seats = &self.seats;
        let metrics = &self.metrics;
        self.holders.retain(|key| {
            let Some(seat) = seats.get(*key) else { return false };
            let (holds, released) = seat.session.outbox.lock().check_hold(now.instant);
            if !released.is_empty() {
                metrics.lagging(&seat.session.client);
            }
            effects.released.extend(released);
            holds
        });
    }
}
