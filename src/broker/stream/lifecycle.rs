//! Sessions come, are taken over, go, and expire; wills are published when they are due.

use std::sync::Arc;

use super::{
    Effects, Now, SessionKey, State,
    seats::{FOREVER, Seat},
};
use crate::broker::{
    cargo::{CloseCargo, OpenCargo, OpenRefused, Opened},
    peer::{Kick, Peer},
    promise::Step,
    session::Session,
    store::{Change, Owner, Sid},
};

/// Ticks from one search for expired retained messages to the next: a minute.
const PURGE_TICKS: u32 = 120;

impl State {
    pub(super) fn open(&mut self, cargo: OpenCargo, peer: Option<Arc<Peer>>, now: Now, effects: &mut Effects) {
        let Some(peer) = peer else { return };
        let before = effects.stored;
        let found = if cargo.inside { self.seats.part(&cargo.client) } else { self.seats.find(&cargo.client) };
        if let Some(key) = found {
            self.take_over(key, Some(&peer), now, effects);
        }
        let key = found.filter(|key| self.resumable(*key, &cargo) && self.is_owner(*key, &peer));
        let present = key.is_some();
        if let Some(ended) = found.filter(|_| !present) {
            self.end(ended, now, effects);
        }
        if !present && !cargo.inside && cargo.expiry > 0 && self.seats.persistent() >= self.limits.sessions {
            self.metrics.refused("too_many_sessions");
            effects.say(Step::Opened(cargo.reply, Err(OpenRefused)), effects.stored != before);
            return;
        }
        let key = key.unwrap_or_else(|| {
            let sid = (cargo.expiry > 0).then(|| self.new_sid());
            let session = Session::new(cargo.client.clone(), cargo.marks, sid);
            let owner = if cargo.inside { Owner::Part } else { Owner::Client };
            let mut seat = Seat::new(Arc::new(session));
            seat.owner = owner;
            self.seats.insert(seat)
        });
        if let Some(session) = self.seat_peer(key, &peer, &cargo, effects) {
            self.seated(key, &peer, effects);
            // A part of this program works on also while the store does not: the store is told later.
            let promised = effects.stored != before && !cargo.inside;
            effects.say(Step::Opened(cargo.reply, Ok(Opened { session, present })), promised);
        }
        self.metrics.sessions(self.seats.len());
    }

    pub(super) fn new_sid(&mut self) -> Sid {
        self.next_sid += 1;
        Sid(self.next_sid - 1)
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
        // A will survives this process, whatever becomes of the session.
        let for_will = cargo.will.as_ref().map(|_| self.new_sid());
        let seat = self.seats.get_mut(key)?;
        seat.sid = seat.sid.or(for_will);
        seat.recovered = false;
        seat.peer = Some(Arc::clone(peer));
        seat.ends_at = None;
        seat.will.clone_from(&cargo.will);
        seat.will_due = None;
        seat.origin = Some(Arc::clone(&peer.origin));
        let session = Arc::clone(&seat.session);
        effects.keep(seat);
        effects.released.extend(session.attach(peer));
        peer.set_session(Arc::clone(&session));
        Some(session)
    }

    /// The present connection of a session gives way to a new one (`[MQTT-3.1.4-3]`); its will is published unless it is delayed and the
    /// session goes on (`[MQTT-3.1.3-9]`). The new one is held until the stream has heard the last of the old.
    pub(super) fn take_over(&mut self, key: SessionKey, heir: Option<&Arc<Peer>>, now: Now, effects: &mut Effects) {
        let Some(seat) = self.seats.get_mut(key) else { return };
        let Some(old) = seat.peer.take() else {
            // It left its will to a process that is gone, and came back in time.
            seat.will = seat.will.take().filter(|_| !seat.recovered);
            return;
        };
        old.kick(Kick::SessionTakenOver);
        if let Some(heir) = heir {
            old.succeeded_by(heir);
        }
        if old.said_goodbye() {
            seat.will = None;
        }
        effects.part(seat);
        if let Some(will) = seat.will.take_if(|will| will.delay == 0) {
            self.publish_will(&will, (Some(Arc::clone(&old.origin)), old.access()), now, effects);
        }
    }

    /// A session ends: its subscriptions go, its delayed will goes out now (`[MQTT-3.1.2-8]`).
    pub(super) fn end(&mut self, key: SessionKey, now: Now, effects: &mut Effects) {
        let Some(mut seat) = self.seats.remove(key) else { return };
        for filter in seat.filters.keys() {
            self.index.unsubscribe(key, filter);
            self.leave_group(filter, effects);
        }
        // Its place may be given to the next session: nothing staged for the old one may reach it.
        effects.touched.retain(|touched| *touched != key);
        self.holders.retain(|holder| *holder != key);
        self.bulk.retain(|bulk| bulk.session() != key);
        let (will, origin, access) = (seat.will.take(), seat.origin.take(), seat.access.take());
        self.bequeath(seat, effects);
        if let Some(will) = &will {
            self.publish_will(will, (origin, access.as_ref()), now, effects);
        }
        self.metrics.sessions(self.seats.len());
        self.metrics.subscriptions(self.index.len());
    }

    pub(super) fn close(&mut self, cargo: &CloseCargo, peer: Option<Arc<Peer>>, now: Now, effects: &mut Effects) {
        let Some(peer) = peer else { return };
        peer.concluded();
        let Some(key) = self.seats.of_peer(&peer) else { return };
        if let Some(expiry) = cargo.expiry {
            self.seats.set_expiry(key, expiry);
        }
        let Some(seat) = self.seats.get_mut(key) else { return };
        seat.peer = None;
        let expiry = seat.expiry();
        seat.ends_at = (expiry != FOREVER).then(|| now.ms + u64::from(expiry) * 1000);
        let will = if cargo.with_will { seat.will.take() } else { None };
        seat.will = None;
        effects.part(seat);
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
        } else if let Some(seat) = self.seats.get(key) {
            effects.keep(seat);
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
            if let Some(seat) = self.seats.get(key) {
                effects.keep(seat);
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
            for expired in self.retained.purge(now.ms) {
                effects.change(Change::Retain(Arc::new(expired.emptied())));
            }
        }
        self.revisit_pools();
        self.check_holds(now, effects);
        self.tick_sys(now, effects);
    }

    fn check_holds(&mut self, now: Now, effects: &mut Effects) {
        let seats = &self.seats;
        let metrics = &self.metrics;
        self.holders.retain(|key| {
            let Some(seat) = seats.get(*key) else { return false };
            let mut outbox = seat.session.outbox.lock();
            let (holds, released) = outbox.check_hold(now.instant);
            // Who is let go so that no circle closes was not kept waiting by a slow reader.
            let lags = outbox.is_lagging() && !released.is_empty();
            drop(outbox);
            if lags {
                metrics.lagging(&seat.session.client);
            }
            effects.released.extend(released);
            holds
        });
    }
}
