//! What the rest of the house sees of MQTT: publish and subscribe, whoever the broker is.
//!
//! Two rooms stand behind it: `embedded` (the built-in broker, in process) and `external` (a broker elsewhere, over rumqttc). Invariants:
//! a publish whose receipt says `Ok` is the broker's responsibility (design: "Promises"); submissions of one caller keep their order;
//! nothing here waits without bound.

pub mod external;
pub mod wire;

pub mod desk;
pub mod embedded;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot, watch};

pub use crate::broker::message::{Delivery, Door, KeptDelivery, Origin, Properties, Publication, Settlement};
use crate::names::{TopicFilter, TopicName};

/// A boxed future, as trait objects need it.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// How long [`Bus::publish`] waits for the broker's word.
pub const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);

/// What became of a publish.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Routed {
    /// Whether any session matched; `None` where the broker does not say (external).
    pub matched: Option<bool>,
    /// Sessions that keep it in the broker's store; `None` where the broker does not say (external).
    pub stored: Option<u32>,
}

impl Routed {
    /// What a broker says that only acknowledges.
    pub const UNTOLD: Self = Self { matched: None, stored: None };

    /// It matched, or not, and nobody keeps it.
    pub const fn passing(matched: bool) -> Self {
        Self { matched: Some(matched), stored: Some(0) }
    }
}

/// Why a publish did not happen (or is not known to have happened).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// No connection to the broker, or the appliance is stopping.
    #[error("the MQTT broker cannot be reached at the moment: {0}")]
    Unavailable(String),
    /// The broker did not answer in time; the message may or may not have been taken.
    #[error("the MQTT broker did not confirm the message within {0:?}")]
    Timeout(Duration),
    /// Larger than the broker's packet limit.
    #[error("the message needs {size} bytes; the broker accepts at most {limit}")]
    TooLarge {
        /// Bytes of the packet.
        size: usize,
        /// The limit, bytes.
        limit: usize,
    },
    /// The broker's store cannot take it: nothing was published.
    #[error("{0}")]
    Full(String),
    /// The broker refused it.
    #[error("the MQTT broker refused the message: {0}")]
    Refused(String),
}

/// The broker's word on one submitted publication; resolves when the broker has taken responsibility or refused.
pub struct Receipt(BoxFuture<'static, Result<Routed, PublishError>>);

impl Receipt {
    /// A receipt that resolves with a future.
    pub fn new(word: impl Future<Output = Result<Routed, PublishError>> + Send + 'static) -> Self {
        Self(Box::pin(word))
    }

    /// A receipt and the sender that fulfils it; a sender that is dropped means the broker went away.
    pub fn channel() -> (oneshot::Sender<Result<Routed, PublishError>>, Self) {
        let (sender, receiver) = oneshot::channel();
        let gone = || PublishError::Unavailable("it stopped before it answered".into());
        (sender, Self::new(async move { receiver.await.unwrap_or_else(|_| Err(gone())) }))
    }

    /// Waits for the broker's word, at most `limit`.
    ///
    /// # Errors
    /// What the broker said, [`PublishError::Timeout`], or [`PublishError::Unavailable`] when the broker went away.
    pub async fn wait(self, limit: Duration) -> Result<Routed, PublishError> {
        tokio::time::timeout(limit, self.0).await.unwrap_or(Err(PublishError::Timeout(limit)))
    }
}

impl std::fmt::Debug for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Receipt")
    }
}

/// A subscription of this program. Messages wait in the broker's outbox when the receiver is slow; dropping it unsubscribes.
pub type Subscription = mpsc::Receiver<Delivery>;

/// A subscription whose messages the broker keeps until they are settled, also while the program is not running. Dropping it ends the
/// reception, not the keeping.
#[derive(Debug)]
pub struct KeptSubscription(Kept);

#[derive(Debug)]
enum Kept {
    Kept(mpsc::Receiver<KeptDelivery>),
    Passing(Subscription),
}

impl KeptSubscription {
    /// From a transport that keeps.
    pub fn new(deliveries: mpsc::Receiver<KeptDelivery>) -> Self {
        Self(Kept::Kept(deliveries))
    }

    /// From one that does not: there is nothing to settle.
    pub fn passing(subscription: Subscription) -> Self {
        Self(Kept::Passing(subscription))
    }

    /// The next message; `None`: there will be no more.
    pub async fn recv(&mut self) -> Option<KeptDelivery> {
        match &mut self.0 {
            Kept::Kept(deliveries) => deliveries.recv().await,
            Kept::Passing(subscription) => subscription.recv().await.map(KeptDelivery::passing),
        }
    }
}

/// A broker, wherever it is.
pub trait Transport: Send + Sync + 'static {
    /// Hands a publication over, in order; waits only for room (bounded), not for the broker's word.
    fn submit(&self, publication: Publication) -> BoxFuture<'_, Result<Receipt, PublishError>>;

    /// Like [`Transport::submit`], but for a caller that waits for the broker's word: refuses with [`PublishError::Unavailable`] where
    /// `submit` would let the message wait for a connection. A broker in process has no such state.
    fn submit_now(&self, publication: Publication) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        self.submit(publication)
    }

    /// How often a connection to the broker was made; changes when one is made again, and what is to be renewed then (status, `state`) is
    /// renewed by whoever watches. A broker in process stays at 1, and its watch ends at once (`changed` fails).
    fn connections(&self) -> watch::Receiver<u64> {
        watch::channel(1).1
    }

    /// Subscribes. `name` appears in logs and as the client of the subscription.
    fn subscribe(&self, name: &str, filters: Vec<TopicFilter>) -> BoxFuture<'_, Result<Subscription, PublishError>>;

    /// Subscribes for good: what the broker acknowledges to publishers it keeps for this `name` until it is settled, over restarts of both. The
    /// filters are all that is wanted from now on; what is queued for others is still delivered. A transport that keeps nothing delivers what
    /// it has.
    fn subscribe_kept(
        &self,
        name: &str,
        filters: Vec<TopicFilter>,
    ) -> BoxFuture<'_, Result<KeptSubscription, PublishError>> {
        let subscribed = self.subscribe(name, filters);
        Box::pin(async move { subscribed.await.map(KeptSubscription::passing) })
    }

    /// The way of one caller who is to wait for slow subscribers alone; `None`: there is no such thing.
    fn apart(&self) -> Option<Bus> {
        None
    }

    /// Whether a publication would be refused for what it is, as far as that is known before it is handed over.
    ///
    /// # Errors
    /// [`PublishError::TooLarge`], [`PublishError::Refused`].
    fn check(&self, _: &Publication) -> Result<(), PublishError> {
        Ok(())
    }

    /// Whether the broker's access rules let somebody from outside publish on a topic. A broker elsewhere has its own rules for this program.
    fn may_publish(&self, _: &TopicName) -> bool {
        true
    }

    /// Whether a publish would be taken right now.
    fn is_up(&self) -> bool;
}

/// The handle every room holds. Cheap to clone.
#[derive(Clone)]
pub struct Bus(Arc<dyn Transport>);

impl std::fmt::Debug for Bus {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Bus")
    }
}

impl Bus {
    /// Wraps a transport.
    pub fn new(transport: impl Transport) -> Self {
        Self(Arc::new(transport))
    }

    /// The same for one caller alone: a slow subscriber that would lose what he sends makes him wait, at most a second at a stretch, and
    /// nobody else.
    #[must_use]
    pub fn apart(&self) -> Self {
        self.0.apart().unwrap_or_else(|| self.clone())
    }

    /// Hands a publication over; see [`Transport::submit`].
    ///
    /// # Errors
    /// If it is not taken.
    pub async fn submit(&self, publication: Publication) -> Result<Receipt, PublishError> {
        self.0.submit(publication).await
    }

    /// Publishes and waits for the broker's word, at most [`PUBLISH_TIMEOUT`] for each step. Never waits for a connection: while there is
    /// none, it fails at once (see [`Transport::submit_now`]).
    ///
    /// # Errors
    /// If the broker did not take responsibility.
    pub async fn publish(&self, publication: Publication) -> Result<Routed, PublishError> {
        match tokio::time::timeout(PUBLISH_TIMEOUT, self.0.submit_now(publication)).await {
            Ok(receipt) => receipt?.wait(PUBLISH_TIMEOUT).await,
            Err(_) => Err(PublishError::Timeout(PUBLISH_TIMEOUT)),
        }
    }

    /// Hands over several publications, in order, and waits for the broker's word on each, as [`Bus::publish`] does for one. A word for each
    /// that was handed over; the first that is not taken ends the row, and those behind it are not handed over.
    pub async fn publish_row(&self, row: Vec<Publication>) -> Vec<Result<Routed, PublishError>> {
        let mut receipts = Vec::with_capacity(row.len());
        let mut refused = None;
        for publication in row {
            match tokio::time::timeout(PUBLISH_TIMEOUT, self.0.submit_now(publication)).await {
                Ok(Ok(receipt)) => receipts.push(receipt),
                Ok(Err(error)) => refused = Some(error),
                Err(_) => refused = Some(PublishError::Timeout(PUBLISH_TIMEOUT)),
            }
            if refused.is_some() {
                break;
            }
        }
        let mut words = Vec::with_capacity(receipts.len() + 1);
        let until = tokio::time::Instant::now() + PUBLISH_TIMEOUT;
        for receipt in receipts {
            words.push(receipt.wait(until.saturating_duration_since(tokio::time::Instant::now())).await);
        }
        words.extend(refused.map(Err));
        words
    }

    /// Whether a publication would be refused for what it is; see [`Transport::check`].
    ///
    /// # Errors
    /// As there.
    pub fn check(&self, publication: &Publication) -> Result<(), PublishError> {
        self.0.check(publication)
    }

    /// Whether somebody from outside may publish on a topic; see [`Transport::may_publish`].
    pub fn may_publish(&self, topic: &TopicName) -> bool {
        self.0.may_publish(topic)
    }

    /// Subscribes; see [`Transport::subscribe`].
    ///
    /// # Errors
    /// If the broker refuses.
    pub async fn subscribe(&self, name: &str, filters: Vec<TopicFilter>) -> Result<Subscription, PublishError> {
        self.0.subscribe(name, filters).await
    }

    /// Subscribes for good; see [`Transport::subscribe_kept`].
    ///
    /// # Errors
    /// If the broker refuses.
    pub async fn subscribe_kept(
        &self,
        name: &str,
        filters: Vec<TopicFilter>,
    ) -> Result<KeptSubscription, PublishError> {
        self.0.subscribe_kept(name, filters).await
    }

    /// How often a connection was made; see [`Transport::connections`].
    pub fn connections(&self) -> watch::Receiver<u64> {
        self.0.connections()
    }

    /// Whether a publish would be taken right now.
    pub fn is_up(&self) -> bool {
        self.0.is_up()
    }
}
