//! A broker elsewhere, behind the same seam as the built-in one.
//!
//! Everything goes out at QoS 1 and stays in our outbox until its PUBACK: a broker that is killed under load costs a pause, not a message
//! (at least once, in order). Events wait for a connection; who wants an answer at once ([`Transport::submit_now`]) is refused while there
//! is none. The connection is tried for ever, 1 to 30 s apart. The broker keeps our session while we are away, and each message of a kept
//! subscription until it is settled (`claims`). Invariants: nothing is unbounded; every drop is counted with a reason.

mod claims;
mod driver;
mod events;
mod inbox;
mod metrics;
mod outbox;
#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use parking_lot::{Mutex, MutexGuard};
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, watch};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use driver::Driver;
pub use outbox::Fill;

use super::{BoxFuture, KeptSubscription, Publication, PublishError, Receipt, Subscription, Transport};
use crate::{config::settings::ExternalBroker, names::TopicFilter, telemetry::throttle::Throttle};
use claims::Claims;
use inbox::Inbox;
use metrics::Metrics;
use outbox::Outbox;

/// Bytes that wait for the broker's acknowledgement, 64 MiB (butler-compatible events: about 100,000).
pub const OUTBOX_BYTES: usize = 64 << 20;

/// What an external broker needs.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it is and how to get in.
    pub broker: ExternalBroker,
    /// Published by the broker when our connection is lost (`state` offline, retained).
    pub will: Option<Publication>,
    /// Limit of the outbox, bytes.
    pub outbox_bytes: usize,
}

impl Config {
    /// With the usual outbox.
    pub fn new(broker: ExternalBroker, will: Option<Publication>) -> Self {
        Self { broker, will, outbox_bytes: OUTBOX_BYTES }
    }
}

/// The state of the connection, for health.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Health {
    /// `host:port`
    pub broker: String,
    /// Whether it is connected.
    pub connected: bool,
    /// Why it is not, or what the broker refused, in a sentence.
    pub error: Option<String>,
    /// What waits.
    pub outbox: Fill,
}

/// The handle to an external broker. Cheap to clone; does nothing unless its [`Driver`] runs.
#[derive(Debug, Clone)]
pub struct External(Arc<Shared>);

/// What handle and driver share.
#[derive(Debug)]
struct Shared {
    /// `host:port`, for people.
    broker: String,
    outbox: Mutex<Outbox>,
    /// Something changed that may let a message go out.
    work: Notify,
    /// The outbox became empty.
    emptied: Notify,
    inbox: Inbox,
    claims: Arc<Claims>,
    /// The filters wanted changed.
    resubscribe: Notify,
    connections: watch::Sender<u64>,
    error: Mutex<Option<String>>,
    metrics: Metrics,
    /// Tasks that move deliveries to subscribers.
    forwarders: TaskTracker,
    stop: CancellationToken,
}

impl Shared {
    fn outbox(&self) -> MutexGuard<'_, Outbox> {
        self.outbox.lock()
    }

    fn push(&self, publication: Publication, urgent: bool) -> Result<Receipt, PublishError> {
        static FULL: Throttle = Throttle::every(Duration::from_secs(10));
        let topic = publication.topic.clone();
        match self.outbox().push(publication, urgent) {
            Ok(receipt) => {
                self.work.notify_one();
                Ok(receipt)
            }
            Err((error, dropped)) => {
                if let Some(dropped) = dropped {
                    self.metrics.dropped(dropped.as_str(), 1);
                    if let Some(suppressed) = FULL.pass() {
                        tracing::error!(
                            code = "external_outbox_full",
                            %topic,
                            suppressed,
                            "message for the broker at {} dropped: {error}; look whether that broker runs and takes messages",
                            self.broker
                        );
                    }
                }
                Err(error)
            }
        }
    }
}

impl Shared {
    /// Adds a subscriber and runs what moves its messages.
    fn forward<S, F: Future<Output = ()> + Send + 'static>(
        &self,
        add: impl FnOnce() -> (S, F),
    ) -> Result<S, PublishError> {
        if self.stop.is_cancelled() {
            return Err(PublishError::Unavailable("the program is stopping".into()));
        }
        let (subscription, forward) = add();
        let stop = self.stop.clone();
        self.forwarders.spawn(async move { stop.run_until_cancelled(forward).await });
        self.resubscribe.notify_one();
        Ok(subscription)
    }
}

impl External {
    /// The handle, and the driver that must run for anything to happen. Touches neither network nor files.
    pub fn build(config: Config) -> (Self, Driver) {
        let shared = Arc::new(Shared {
            broker: format!("{}:{}", config.broker.host, config.broker.port),
            outbox: Mutex::new(Outbox::new(config.outbox_bytes)),
            work: Notify::new(),
            emptied: Notify::new(),
            inbox: Inbox::default(),
            claims: Arc::default(),
            resubscribe: Notify::new(),
            connections: watch::Sender::new(0),
            error: Mutex::new(None),
            metrics: Metrics::default(),
            forwarders: TaskTracker::new(),
            stop: CancellationToken::new(),
        });
        (Self(Arc::clone(&shared)), Driver::new(config, shared))
    }

    /// Makes depth, bytes and age of the outbox, connects and drops visible.
    pub fn register(&self, registry: &mut Registry) {
        metrics::register(&self.0, registry);
    }

    /// How it stands.
    pub fn health(&self) -> Health {
        let (connected, outbox) = {
            let outbox = self.0.outbox();
            (outbox.is_connected(), outbox.fill())
        };
        let error = self.0.error.lock().clone();
        Health { broker: self.0.broker.clone(), connected, error, outbox }
    }

    /// Messages given up for one reason since the start: `overflow`, `too_large`, `refused`, `poison`, `abandoned`, `stopped`, `subscriber_slow`.
    pub fn dropped(&self, reason: &'static str) -> u64 {
        self.0.metrics.dropped_by(reason)
    }
}

impl Transport for External {
    fn submit(&self, publication: Publication) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        let taken = self.0.push(publication, false);
        Box::pin(std::future::ready(taken))
    }

    fn submit_now(&self, publication: Publication) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        let taken = self.0.push(publication, true);
        Box::pin(std::future::ready(taken))
    }

    fn connections(&self) -> watch::Receiver<u64> {
        self.0.connections.subscribe()
    }

    /// The filters are asked for now or as soon as there is a connection, and again at every one; that the broker refuses one is logged and
    /// seen in [`External::health`], not an error here: start-up needs no peer. After the receiver is dropped the broker goes on sending
    /// until the next connection, into nothing.
    fn subscribe(&self, name: &str, filters: Vec<TopicFilter>) -> BoxFuture<'_, Result<Subscription, PublishError>> {
        let subscribed = self.0.forward(|| self.0.inbox.add(name, filters));
        Box::pin(std::future::ready(subscribed))
    }

    /// As [`Transport::subscribe`]. The broker keeps what it has for our session; what was not settled comes again at the next connection.
    /// Filters of an earlier life of the program it still has: what they bring is handed over, too.
    fn subscribe_kept(
        &self,
        name: &str,
        filters: Vec<TopicFilter>,
    ) -> BoxFuture<'_, Result<KeptSubscription, PublishError>> {
        let subscribed = self.0.forward(|| self.0.inbox.add_kept(name, filters));
        Box::pin(std::future::ready(subscribed.map(KeptSubscription::new)))
    }

    fn is_up(&self) -> bool {
        self.0.outbox().is_connected()
    }
}
