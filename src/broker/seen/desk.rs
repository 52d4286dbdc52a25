//! The desk: where the rest of the program asks about the broker and steers it. It turns a call into an envelope and the answer into rows.

use std::{sync::Arc, time::Duration};

use tokio::sync::{Semaphore, oneshot};

use super::{
    Ask, Client, Cursor, LARGEST_PAGE, Page, Parting, RetainedMessage, Rows, Stats, Subscription, Tap, Wanted,
};
use crate::{
    broker::{cargo::Cargo, engine::Outgoing, envelope::Draft, hub::Hub},
    names::{ClientId, TopicFilter},
};

/// Questions under way at a time; more wait for their turn.
const TURNS: usize = 4;
/// What a question may take, its turn included.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DeskError {
    /// The broker is stopping.
    #[error("the built-in broker is stopping")]
    Stopping,
    /// No answer in time.
    #[error("the built-in broker did not answer within {PATIENCE:?}; whether it did what was asked is not known")]
    Overdue,
}

/// Which rows.
#[derive(Debug, Clone, Default)]
pub struct PageAsk {
    /// Rows at most; 1 to [`LARGEST_PAGE`], others are brought there.
    pub limit: usize,
    /// Where to begin: [`Page::next`] of the page before.
    pub from: Option<Cursor>,
}

impl PageAsk {
    fn limit(&self) -> usize {
        self.limit.clamp(1, LARGEST_PAGE)
    }
}

/// See the module. Cheap to clone; clones share their turns.
#[derive(Clone)]
pub struct Desk {
    hub: Hub,
    turns: Arc<Semaphore>,
}

impl Desk {
    pub(in crate::broker) fn new(hub: Hub) -> Self {
        Self { hub, turns: Arc::new(Semaphore::new(TURNS)) }
    }

    /// Clients by id: those connected, and those away whose sessions are kept. Parts of this program are not among them.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub async fn clients(&self, page: PageAsk) -> Result<Page<Client>, DeskError> {
        let limit = page.limit();
        self.ask(|reply| Wanted::Clients { from: page.from, limit, reply }).await.map(Page::from)
    }

    /// One client.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub async fn client(&self, id: ClientId) -> Result<Option<Client>, DeskError> {
        let row = self.ask(|reply| Wanted::Client { id, reply }).await?;
        Ok(row.map(Client::from))
    }

    /// Ends a client's connection (DISCONNECT 0x98 for MQTT 5.0; its will is published), and with `end_session` also its session, whether it
    /// is connected or not.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub async fn disconnect(&self, id: ClientId, end_session: bool) -> Result<Parting, DeskError> {
        self.ask(|reply| Wanted::Disconnect { id, end_session, reply }).await
    }

    /// Subscriptions by client and filter; with `of`, those of one client.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub async fn subscriptions(&self, of: Option<ClientId>, page: PageAsk) -> Result<Page<Subscription>, DeskError> {
        let limit = page.limit();
        self.ask(|reply| Wanted::Subscriptions { of, from: page.from, limit, reply }).await.map(Page::from)
    }

    /// Retained messages a filter matches, by the levels of their topics.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub async fn retained(&self, filter: TopicFilter, page: PageAsk) -> Result<Page<RetainedMessage>, DeskError> {
        let limit = page.limit();
        self.ask(|reply| Wanted::Retained { filter, from: page.from, limit, reply }).await.map(Page::from)
    }

    /// Numbers of the whole broker; at most a second old.
    ///
    /// # Errors
    /// If the broker does not answer.
    pub async fn stats(&self) -> Result<Stats, DeskError> {
        self.ask(|reply| Wanted::Stats { reply }).await
    }

    /// Opens a tap on what passes from now on and a filter matches; it shows nothing before it was given room.
    pub fn tap(&self, filter: TopicFilter) -> Tap {
        self.hub.taps.open(filter)
    }

    async fn ask<T>(&self, wanted: impl FnOnce(oneshot::Sender<T>) -> Wanted) -> Result<T, DeskError> {
        tokio::time::timeout(PATIENCE, self.wait(wanted)).await.unwrap_or(Err(DeskError::Overdue))
    }

    async fn wait<T>(&self, wanted: impl FnOnce(oneshot::Sender<T>) -> Wanted) -> Result<T, DeskError> {
        let turn = Arc::clone(&self.turns).acquire_owned().await.map_err(|_| DeskError::Stopping)?;
        let (reply, answer) = oneshot::channel();
        let ask = Ask { wanted: wanted(reply), turn };
        // No cost: a handful of empty envelopes, bounded by the turns.
        let outgoing = Outgoing { draft: Draft::control(), cost: 0, stored: 0, cargo: Cargo::Ask(Box::new(ask)) };
        self.hub.engine.submit(None, [outgoing]).map_err(|_| DeskError::Stopping)?;
        answer.await.map_err(|_| DeskError::Stopping)
    }
}

impl<R, T: From<R>> From<Rows<R>> for Page<T> {
    fn from(rows: Rows<R>) -> Self {
        Self { rows: rows.rows.into_iter().map(T::from).collect(), next: rows.next }
    }
}
