//! A request that was taken: onto the disk, through the work, and off the disk again.
//!
//! Invariants: its asker gets a ticket when the request is on disk, by itself or with the first of its steps, or when it has ended; what is on disk of it
//! leaves when its answers have.

use std::{pin::pin, sync::Arc, time::Duration};

use tokio::sync::oneshot;

use super::{
    super::{
        journal::Keys,
        quota::Place,
        wall_ms,
        words::not_kept,
        work::{Looked, Order},
    },
    Starter,
};

/// How long a request that its broker keeps may wait for the first of its steps before it is written down by itself.
const SOON: Duration = Duration::from_millis(10);
/// Until it is tried again where the disk did not take it.
const AGAIN: Duration = Duration::from_secs(1);

/// A place among those under way, and what tells that the asker has heard everything.
pub(super) type Admitted = (Place, oneshot::Receiver<()>);

impl Starter {
    pub(super) async fn ask(self, order: Order, keys: Keys, (place, heard): Admitted, asked: oneshot::Sender<()>) {
        // QRS is asked while the disk writes: looking changes nothing.
        let looked = self.0.work.look(&order);
        if order.request.kept.is_some() {
            self.ask_kept(order, keys, looked, heard, asked).await;
        } else {
            let kept = self.0.work.journal.ask(&order.record).await;
            if let Err(error) = &kept {
                self.refuse(order.id, &order.request, keys, &order.teller, &|| not_kept(error));
            }
            // The asker may be gone.
            let _ = asked.send(());
            if kept.is_ok() {
                self.carry_out(order.into(), keys, looked, heard).await;
            }
        }
        drop(place);
    }

    /// What the broker keeps until it is written down here is written with the first step of the work, or after [`SOON`]. Until one of the two is on
    /// disk, or there is nothing left to do, the broker hears nothing.
    async fn ask_kept(
        self,
        order: Order,
        keys: Keys,
        looked: Looked,
        heard: oneshot::Receiver<()>,
        asked: oneshot::Sender<()>,
    ) {
        let (order, journal) = (Arc::new(order), Arc::clone(&self.0.work.journal));
        let work = pin!(self.carry_out(Arc::clone(&order), keys, looked, heard));
        let noted = async {
            let mut pause = SOON;
            while tokio::time::timeout(pause, order.record.decided()).await.is_err()
                && let Err(error) = journal.ask(&order.record).await
            {
                // It lies in the broker. What needs the disk here will say that there is none.
                tracing::debug!(%error, request = order.id.number(), "a start request is not written down yet");
                pause = AGAIN;
            }
            let _ = asked.send(());
        };
        // It is not written down any more when it has ended, which takes what is written away.
        tokio::select! {
            biased;
            () = work => {}
            () = async { noted.await; std::future::pending().await } => {}
        }
    }

    /// Until the last word was heard. A request whose answers go somewhere is kept until they have left: if the program ends before that, they are
    /// given again in its next life.
    pub(super) async fn carry_out(self, order: Arc<Order>, keys: Keys, looked: Looked, heard: oneshot::Receiver<()>) {
        self.0.work.run(Arc::clone(&order), looked).await;
        let words = order.teller.finals();
        // The answers are on disk with it until they have left.
        if self.0.work.journal.ask(&order.record).await.is_err() {
            order.record.give_up();
        }
        let keys = self.settle(keys, &words, order.request.door);
        order.teller.done();
        if order.request.return_address.is_some() && heard.await.is_err() {
            return;
        }
        self.0.work.journal.end(order.id, keys, &words, order.steps.keys().copied(), wall_ms());
        let forgotten = self.known().forgotten();
        self.0.work.journal.forget(forgotten);
    }
}
