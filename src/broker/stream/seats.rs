//! The session table: one seat per session, known to the dispatcher alone.

use std::{collections::HashMap, sync::Arc};

use slab::Slab;

use super::index::{Asked, SessionKey};
use crate::{
    broker::{
        access::Access,
        codec::Will,
        message::Origin,
        peer::Peer,
        session::{Entry, Session},
    },
    names::{ClientId, QoS, TopicFilter},
};

/// A session as the stream sees it.
#[derive(Debug)]
pub(super) struct Seat {
    pub session: Arc<Session>,
    /// The connection that serves it now.
    pub peer: Option<Arc<Peer>>,
    pub filters: HashMap<TopicFilter, Asked>,
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
    /// What this round brought.
    pub stage: Vec<Entry>,
    /// Publishers of the round it came from, as places in the round's list.
    pub origins: Vec<u16>,
}

impl Seat {
    pub(super) fn new(session: Arc<Session>) -> Self {
        Self {
            session,
            peer: None,
            filters: HashMap::new(),
            expiry: 0,
            ends_at: None,
            will: None,
            origin: None,
            access: None,
            will_due: None,
            next_qseq: 1,
            stage: Vec::new(),
            origins: Vec::new(),
        }
    }

    pub(super) fn expiry(&self) -> u32 {
        self.expiry
    }

    pub(super) fn is_persistent(&self) -> bool {
        self.expiry > 0
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
    by_client: HashMap<ClientId, SessionKey>,
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
        let key = self.seats.insert(seat);
        self.by_client.insert(client, key);
        key
    }

    pub(super) fn remove(&mut self, key: SessionKey) -> Option<Seat> {
        let seat = self.seats.try_remove(key)?;
        self.by_client.remove(&seat.session.client);
        self.persistent -= usize::from(seat.is_persistent());
        Some(seat)
    }

    /// Seconds a session outlives its connection.
    pub(super) fn set_expiry(&mut self, key: SessionKey, expiry: u32) {
        if let Some(seat) = self.seats.get_mut(key) {
            let before = seat.is_persistent();
            seat.expiry = expiry;
            self.persistent = self.persistent + usize::from(seat.is_persistent()) - usize::from(before);
        }
    }

    /// Persistent sessions, connected or not.
    pub(super) fn persistent(&self) -> usize {
        self.persistent
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SessionKey, &Seat)> {
        self.seats.iter()
    }

    /// The keys from one on, in order.
    pub(super) fn keys_from(&self, from: SessionKey) -> impl Iterator<Item = SessionKey> {
        self.seats.iter().map(|(key, _)| key).skip_while(move |key| *key < from)
    }

    pub(super) fn len(&self) -> usize {
        self.seats.len()
    }

    /// The seat a connection serves now; `None` once it was taken over.
    pub(super) fn of_peer(&self, peer: &Peer) -> Option<SessionKey> {
        let key = self.find(&peer.session()?.client)?;
        let served = self.get(key)?.peer.as_ref()?.id;
        (served == peer.id).then_some(key)
    }
}
