//! Answers to those who look at the broker from outside or steer it; see [`crate::broker::seen`].
//!
//! Invariants: an answer hands out at most as many rows as were asked for and looks at no more than [`SCAN`] places, whatever there is; rows
//! are handles, so that the work of writing them out is the asker's.

use std::sync::Arc;

use tokio::sync::oneshot;

use super::{Effects, Now, State, seats::Seat};
use crate::{
    broker::{
        peer::Kick,
        promise::Step,
        seen::{Ask, ClientRow, Cursor, Parting, Rows, SCAN, SubscriptionRow, Wanted},
        store::Owner,
    },
    names::{ClientId, TopicFilter},
};

impl Seat {
    /// Whether it is a client's that is there or may come back: not a group's queue, not what is kept for a will only; and parts of this
    /// program have connections without a face.
    pub(super) fn is_client(&self) -> bool {
        let is_there = self.peer.as_ref().map_or(self.is_persistent(), |peer| peer.face().is_some());
        self.owner == Owner::Client && is_there
    }

    fn row(&self) -> ClientRow {
        ClientRow {
            session: Arc::clone(&self.session),
            peer: self.peer.clone(),
            origin: self.origin.clone(),
            expiry: self.expiry(),
            ends_at: self.ends_at,
            subscriptions: self.filters.len(),
        }
    }
}

impl State {
    /// Answers a question, which frees its turn.
    pub(super) fn answer(&mut self, ask: Ask, now: Now, effects: &mut Effects) {
        let Ask { wanted, turn } = ask;
        match wanted {
            Wanted::Clients { from, limit, reply } => tell(reply, self.clients(from.as_ref(), limit)),
            Wanted::Client { id, reply } => tell(reply, self.client(&id).map(Seat::row)),
            Wanted::Disconnect { id, end_session, reply } => {
                let before = effects.stored;
                let parting = self.part(&id, end_session, now, effects);
                effects.say(Step::Parted(reply, parting), effects.stored != before);
            }
            Wanted::Subscriptions { of: Some(client), from, limit, reply } => {
                tell(reply, self.subscriptions_of(&client, from.as_ref(), limit));
            }
            Wanted::Subscriptions { of: None, from, limit, reply } => {
                tell(reply, self.subscriptions(from.as_ref(), limit));
            }
            Wanted::Retained { filter, from, limit, reply } => {
                let from = from.as_ref().map(Cursor::as_str);
                tell(reply, self.retained.page(filter.pattern(), from, limit, now.ms));
            }
            Wanted::Stats { reply } => tell(reply, self.stats(now)),
        }
        drop(turn);
    }

    fn client(&self, id: &ClientId) -> Option<&Seat> {
        self.seats.get(self.seats.find(id)?).filter(|seat| seat.is_client())
    }

    fn clients(&self, from: Option<&Cursor>, limit: usize) -> Rows<ClientRow> {
        let from = from.and_then(|from| ClientId::new(from.as_str()).ok());
        let mut rows = Rows::default();
        for (client, seat) in self.seats.by_client(from) {
            if rows.rows.len() == limit {
                rows.next = Some(Cursor::new(client.as_str()));
                break;
            }
            rows.rows.extend(seat.is_client().then(|| seat.row()));
        }
        rows
    }

    fn subscriptions(&self, from: Option<&Cursor>, limit: usize) -> Rows<SubscriptionRow> {
        let (first, mut filter) = from.map_or(("", ""), Cursor::subscription);
        let mut rows = Rows::default();
        for (seen, (client, seat)) in self.seats.by_client(ClientId::new(first).ok()).enumerate() {
            if seen == SCAN {
                rows.next = Some(Cursor::of_subscription(client, ""));
                break;
            }
            // The filter counts for the client it was said with.
            let begin = if client.as_str() == first { std::mem::take(&mut filter) } else { "" };
            if seat.is_client() && !add(&mut rows, client, seat, begin, limit) {
                break;
            }
        }
        rows
    }

    fn subscriptions_of(&self, client: &ClientId, from: Option<&Cursor>, limit: usize) -> Rows<SubscriptionRow> {
        let begin = from.map_or("", |from| from.subscription().1);
        let mut rows = Rows::default();
        if let Some(seat) = self.client(client) {
            add(&mut rows, client, seat, begin, limit);
        }
        rows
    }

    /// Ends a connection, and the session with it where that is asked for: from this place in the stream on there is none.
    fn part(&mut self, id: &ClientId, end_session: bool, now: Now, effects: &mut Effects) -> Parting {
        let Some(key) = self.client(id).and(self.seats.find(id)) else { return Parting::Unknown };
        let connected = self.seats.get(key).and_then(|seat| seat.peer.as_ref());
        let was_connected = connected.is_some();
        if let Some(peer) = connected {
            // The first reason stands: what follows for the session is as after a take-over.
            peer.kick(Kick::AdministrativeAction);
        }
        if end_session {
            if was_connected {
                self.take_over(key, None, now, effects);
            }
            self.end(key, now, effects);
        }
        if was_connected || end_session { Parting::Done } else { Parting::NotConnected }
    }
}

/// Who asked may have stopped waiting.
fn tell<T>(reply: oneshot::Sender<T>, value: T) {
    let _ = reply.send(value);
}

/// Adds a client's subscriptions from a filter on; whether there was room for all.
fn add(rows: &mut Rows<SubscriptionRow>, client: &ClientId, seat: &Seat, begin: &str, limit: usize) -> bool {
    let begin = TopicFilter::new(begin).ok();
    let found = seat.filters.iter().skip_while(|(filter, _)| begin.as_ref().is_some_and(|begin| *filter < begin));
    for (filter, asked) in found {
        if rows.rows.len() == limit {
            rows.next = Some(Cursor::of_subscription(client, filter.as_str()));
            return false;
        }
        rows.rows.push(SubscriptionRow { client: client.clone(), filter: filter.clone(), asked: *asked });
    }
    true
}
