//! The session table: one seat per session, known to the dispatcher alone.

use std::{collections::BTreeMap, ops::Bound, sync::Arc};

use slab::Slab;

use super::index::{Asked, SessionKey};
use crate::{
    broker::{
        access::Access,
        codec::Will,
        message::Origin,
        peer::Peer,
        session::{Entry, Marks, Session},
        store::{Owner, RecoveredSession, SessionRecord, Sid, WillRecord},
    },
    names::{ClientId, QoS, TopicFilter},
};

/// MQTT 5: a session that never ends by itself.
pub(super) const FOREVER: u32 = u32::MAX;
/// What a client has to come back after a restart before its will is published, milliseconds.
const RETURN: u64 = 5_000;

/// A session as the stream sees it.
#[derive(Debug)]
pub(super) struct Seat {
    pub owner: Owner,
    pub session: Arc<Session>,
    /// Its number in the store; also of a session of which only a will is kept, or what groups trusted it with.
    pub sid: Option<Sid>,
    /// It was a member of a shared group once, or may have been in an earlier process: messages for groups may wait in it.
    pub shared: bool,
    /// Its client was connected when the process before ended, and has not come back.
    pub recovered: bool,
    /// The connection that serves it now.
    pub peer: Option<Arc<Peer>>,
    pub filters: BTreeMap<TopicFilter, Asked>,
    /// Seconds it outlives its connection; set by [`Seats::set_expiry`].
    expiry: u32,
    /// While away: milliseconds since 1970 when it ends.
    pub ends_at: Option<u64>,
    pub will: Option<Will>,
    /// Who left the will: a start by will is judged by it, however late.
    pub origin: Option<Arc<Origin>>,
    /// What its client may do, as far as is known.
    pub access: Option<Arc<Access>>,
    /// Milliseconds since 1970 when a delayed will is published.
    pub will_due: Option<u64>,
    next_qseq: u64,
    /// A queue without a client that is among those that may have something to hand over.
    pub draining: bool,
    /// What this round brought.
    pub stage: Vec<Entry>,
    /// Publishers of the round it came from, as places in the round's list.
    pub origins: Vec<u16>,
}

impl Seat {
    pub(super) fn new(session: Arc<Session>) -> Self {
        Self {
            owner: Owner::Client,
            sid: session.sid,
            session,
            shared: false,
            recovered: false,
            peer: None,
            filters: BTreeMap::new(),
            expiry: 0,
            ends_at: None,
            will: None,
            origin: None,
            access: None,
            will_due: None,
            next_qseq: 1,
            draining: false,
            stage: Vec::new(),
            origins: Vec::new(),
        }
    }

    /// The queue of a shared group.
    pub(super) fn of_group(session: Session, filter: &TopicFilter) -> Self {
        Self { owner: Owner::Group(filter.clone()), ..Self::new(Arc::new(session)) }
    }

    /// A session that outlived the process. Its client counts as gone since `now` (milliseconds since 1970) if it was connected.
    pub(super) fn recover(kept: &RecoveredSession, marks: Marks, now: u64) -> Self {
        let record = &kept.record;
        // One that ends with its connection ended with the process; until the stream ends it, it has its will, and what it owes groups.
        let session = Session::recovered(kept, marks);
        let left_at = record.left_at.unwrap_or(now);
        let (will, due) = match &record.will {
            Some(left) => (Some(left.will.clone()), left.due),
            None => (None, None),
        };
        // The will of a session that ends with its connection is not delayed.
        let delay = |will: &Will| if record.expiry > 0 { u64::from(will.delay) * 1000 } else { 0 };
        let will_due = will.as_ref().map(|will| due.unwrap_or(now + RETURN.max(delay(will))));
        let ends_at = match record.expiry {
            _ if record.owner != Owner::Client => None,
            // Its will is kept, or what it owes groups.
            0 => will_due.or(Some(now)),
            FOREVER => None,
            expiry => Some(left_at + u64::from(expiry) * 1000),
        };
        Self {
            owner: record.owner.clone(),
            sid: Some(kept.sid),
            shared: true,
            recovered: record.left_at.is_none(),
            filters: kept.filters.iter().cloned().collect(),
            expiry: record.expiry,
            ends_at,
            will,
            origin: record.origin.clone().map(Arc::new),
            will_due,
            next_qseq: kept.next_qseq.max(1),
            ..Self::new(Arc::new(session))
        }
    }

    /// What is to be kept of it.
    pub(super) fn record(&self) -> SessionRecord {
        let left_at = self.ends_at.map(|end| end.saturating_sub(u64::from(self.expiry) * 1000));
        let will = self.will.as_ref().map(|will| WillRecord { will: will.clone(), due: self.will_due });
        let left_at = if self.peer.is_some() { None } else { left_at.or(Some(0)) };
        SessionRecord {
            owner: self.owner.clone(),
            client: self.session.client.clone(),
            origin: self.origin.as_deref().cloned(),
            expiry: self.expiry,
            left_at,
            will,
        }
    }

    pub(super) fn expiry(&self) -> u32 {
        self.expiry
    }

    pub(super) fn is_persistent(&self) -> bool {
        self.expiry > 0
    }

    /// Whether it counts among the persistent sessions there may be.
    fn is_counted(&self) -> bool {
        self.is_persistent() && self.owner == Owner::Client
    }

    /// Bytes this round brought so far.
    pub(super) fn staged_bytes(&self) -> usize {
        self.stage.iter().map(|entry| entry.message.size()).sum()
    }

    /// The next queue position; QoS 0 has none.
    pub(super) fn position(&mut self, qos: QoS) -> u64 {
        if qos == QoS::AtMostOnce {
            return 0;
        }
        self.next_qseq += 1;
        self.next_qseq - 1
    }
}

/// All sessions.
#[derive(Debug, Default)]
pub(super) struct Seats {
    seats: Slab<Seat>,
    /// In order, so that they can be shown page by page.
    by_client: BTreeMap<ClientId, SessionKey>,
    /// Kept sessions of parts of this program: names of their own, which no client can say.
    parts: BTreeMap<ClientId, SessionKey>,
    persistent: usize,
}

impl Seats {
    pub(super) fn find(&self, client: &ClientId) -> Option<SessionKey> {
        self.by_client.get(client).copied()
    }

    pub(super) fn get(&self, key: SessionKey) -> Option<&Seat> {
        self.seats.get(key)
    }

    pub(super) fn get_mut(&mut self, key: SessionKey) -> Option<&mut Seat> {
        self.seats.get_mut(key)
    }

    pub(super) fn insert(&mut self, seat: Seat) -> SessionKey {
        let client = seat.session.client.clone();
        let inside = seat.owner == Owner::Part;
        self.persistent += usize::from(seat.is_counted());
        let key = self.seats.insert(seat);
        let names = if inside { &mut self.parts } else { &mut self.by_client };
        names.insert(client, key);
        key
    }

    /// The kept session of a part of this program.
    pub(super) fn part(&self, name: &ClientId) -> Option<SessionKey> {
        self.parts.get(name).copied()
    }

    /// Whether a kept session of a part of this program has all it may have: publishers are to be told.
    pub(super) fn is_a_part_full(&self) -> bool {
        self.parts.values().any(|key| self.get(*key).is_some_and(|seat| seat.session.is_over_quota()))
    }

    /// One that no client can claim.
    pub(super) fn insert_alone(&mut self, seat: Seat) -> SessionKey {
        self.seats.insert(seat)
    }

    pub(super) fn remove(&mut self, key: SessionKey) -> Option<Seat> {
        let seat = self.seats.try_remove(key)?;
        match seat.owner {
            Owner::Client => drop(self.by_client.remove(&seat.session.client)),
            Owner::Part => drop(self.parts.remove(&seat.session.client)),
            Owner::Group(_) | Owner::Estate => {}
        }
        self.persistent -= usize::from(seat.is_counted());
        Some(seat)
    }

    /// Seconds a session outlives its connection.
    pub(super) fn set_expiry(&mut self, key: SessionKey, expiry: u32) {
        if let Some(seat) = self.seats.get_mut(key) {
            let before = seat.is_counted();
            seat.expiry = expiry;
            self.persistent = self.persistent + usize::from(seat.is_counted()) - usize::from(before);
        }
    }

    /// Persistent sessions of clients, connected or not.
    pub(super) fn persistent(&self) -> usize {
        self.persistent
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SessionKey, &Seat)> {
        self.seats.iter()
    }

    /// Clients in order, from one on.
    pub(super) fn by_client(&self, from: Option<ClientId>) -> impl Iterator<Item = (&ClientId, &Seat)> {
        let begin = from.map_or(Bound::Unbounded, Bound::Included);
        let found = self.by_client.range((begin, Bound::Unbounded));
        found.filter_map(|(client, key)| Some((client, self.seats.get(*key)?)))
    }

    /// The keys from one on, in order.
    pub(super) fn keys_from(&self, from: SessionKey) -> impl Iterator<Item = SessionKey> {
        self.seats.iter().map(|(key, _)| key).skip_while(move |key| *key < from)
    }

    pub(super) fn len(&self) -> usize {
        self.by_client.len()
    }

    /// The seat a connection serves now; `None` once it was taken over.
    pub(super) fn of_peer(&self, peer: &Peer) -> Option<SessionKey> {
        let name = &peer.session()?.client;
        let serves =
            |key: &SessionKey| self.get(*key).and_then(|seat| seat.peer.as_ref()).is_some_and(|p| p.id == peer.id);
        [self.find(name), self.part(name)].into_iter().flatten().find(serves)
    }
}
