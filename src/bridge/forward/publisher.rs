//! Publications out, receipts in: submissions are pipelined in order, what became of them is told event by event.
//!
//! Invariants: the number of receipts outstanding is bounded (when it is reached, submitting waits, the datagram queue fills, and what does
//! not fit there is counted there); an event is counted `accepted` when the broker has taken responsibility for all its publications, and
//! `failed` when it has not for one of them; never both.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use prometheus_client::{metrics::counter::Counter, registry::Registry};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;
use tracing::warn;

use crate::{
    bus::{Bus, Publication, PublishError, Receipt},
    telemetry::throttle::Throttle,
};

/// Receipts outstanding at most. An external broker's outbox holds messages while the broker is away; their receipts wait that long.
const MAX_OUTSTANDING: usize = 100_000;
/// Longer than any transport holds a message: a receipt ends when the transport answers or goes away.
const FOR_EVER: Duration = Duration::from_secs(30 * 24 * 3600);

/// Counters of the way out.
#[derive(Debug, Clone, Default)]
pub(super) struct Metrics {
    accepted: Counter,
    failed: Counter,
    publications: Counter,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "sense_butler_events_accepted",
            "Sense events for all of whose publications the broker has taken responsibility",
            metrics.accepted.clone(),
        );
        registry.register(
            "sense_butler_events_failed",
            "Sense events one of whose publications the broker did not take",
            metrics.failed.clone(),
        );
        registry.register(
            "sense_butler_event_publications",
            "MQTT messages made of Sense events",
            metrics.publications.clone(),
        );
        metrics
    }
}

/// What became of one event so far. Its publications share it.
#[derive(Debug, Clone, Default)]
pub(super) struct Tally(Arc<AtomicBool>);

impl Tally {
    fn fail(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    fn failed(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }
}

/// What is outstanding, in order of submission.
enum Outstanding {
    Receipt(Receipt, Tally),
    /// All publications of an event are before this.
    End(Tally),
}

/// The way out to the bus.
pub(super) struct Publisher {
    bus: Bus,
    outstanding: mpsc::Sender<Outstanding>,
    keeper: AbortOnDropHandle<()>,
    metrics: Metrics,
}

impl Publisher {
    /// Starts the task that keeps the receipts; [`Publisher::close`] ends it.
    pub(super) fn start(bus: Bus, metrics: Metrics) -> Self {
        let (outstanding, receipts) = mpsc::channel(MAX_OUTSTANDING);
        let keeper = AbortOnDropHandle::new(tokio::spawn(keep(receipts, metrics.clone())));
        Self { bus, outstanding, keeper, metrics }
    }

    /// Submits one publication of an event.
    pub(super) async fn send(&mut self, publication: Publication, tally: &Tally) {
        self.metrics.publications.inc();
        match self.bus.submit(publication).await {
            // The keeper outlives this: it ends when the channel does.
            Ok(receipt) => {
                let _ = self.outstanding.send(Outstanding::Receipt(receipt, tally.clone())).await;
            }
            Err(error) => {
                tally.fail();
                complain(&error);
            }
        }
    }

    /// Says that an event has no more publications.
    pub(super) async fn end(&mut self, tally: Tally) {
        let _ = self.outstanding.send(Outstanding::End(tally)).await;
    }

    /// Waits for what is outstanding, but not beyond `until`; what is not answered by then counts as neither accepted nor failed.
    pub(super) async fn close(self, until: Instant) {
        drop(self.outstanding);
        if timeout_at(until, self.keeper).await.is_err() {
            warn!(
                code = "events_unconfirmed_at_stop",
                "stopped before the broker confirmed every event; the last ones may or may not have been delivered; look in the QMC what ended"
            );
        }
    }
}

async fn keep(mut receipts: mpsc::Receiver<Outstanding>, metrics: Metrics) {
    while let Some(outstanding) = receipts.recv().await {
        match outstanding {
            Outstanding::Receipt(receipt, tally) => {
                if let Err(error) = receipt.wait(FOR_EVER).await {
                    tally.fail();
                    complain(&error);
                }
            }
            Outstanding::End(tally) => {
                let counter = if tally.failed() { &metrics.failed } else { &metrics.accepted };
                counter.inc();
            }
        }
    }
}

fn complain(error: &PublishError) {
    static LINE: Throttle = Throttle::every(Duration::from_secs(10));
    if let Some(suppressed) = LINE.pass() {
        warn!(
            code = "event_not_published",
            suppressed,
            %error,
            "a Sense event could not be published; the error says why, and `sense-butler doctor` looks at the broker"
        );
    }
}
