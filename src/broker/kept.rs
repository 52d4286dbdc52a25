//! Kept subscriptions: parts of this program whose messages outlive it until they say that a message is dealt with.
//!
//! Such a subscription is a stored session like a client's: what is acknowledged to a publisher is committed for it, read back after a restart,
//! and leaves the store only when it is settled. What differs: nobody can claim it (its name is in a table of its own, whatever clients call
//! themselves); it shows in no list and no count; its quota turns publishers away and never drops anything; the store keeps who published.
//! Invariants: every message of QoS 1 or 2 is handed over at least once until it is settled; its mark is the same each time and no other
//! message's ever; what may have been handed over before says so. QoS 0 comes from memory only.

use std::{
    future::poll_fn,
    sync::{Arc, Weak},
    task::Poll,
};

use tokio::sync::{mpsc, oneshot};

use super::{
    cargo::{Cargo, CloseCargo, OpenCargo, SubscribeCargo},
    codec::SubscribeOptions,
    hub::Hub,
    internal::{InternalError, PORTION, control, delivery},
    message::{Door, KeptDelivery, Origin},
    metrics::Lost,
    peer::Peer,
    session::{Entry, Parcel, Session, packet_id},
    store::Store,
    stream::Asked,
};
use crate::names::{ClientId, QoS, TopicFilter};

/// Messages of QoS 1 and 2 handed over and not settled.
const WINDOW: u16 = 1_024;
/// Deliveries handed to a subscriber before its outbox fills.
const HANDED: usize = 256;
/// MQTT 5: such a session never ends by itself.
const FOREVER: u32 = u32::MAX;

/// Serves the session of one subscription.
struct Server {
    hub: Hub,
    peer: Arc<Peer>,
    session: Arc<Session>,
    /// Positions up to here were given before this subscription: they may have been handed over by an earlier one.
    old: u64,
}

/// Subscribes a part of this program for good. The session has this name in every life of the program; the filters are all it wants from now
/// on, what is queued for others is still handed over.
pub(super) async fn subscribe(
    hub: &Hub,
    name: &str,
    filters: Vec<TopicFilter>,
) -> Result<mpsc::Receiver<KeptDelivery>, InternalError> {
    let server = open(hub, name).await?;
    let (done, subscribed) = oneshot::channel();
    // What is retained comes with a subscription that is new, not at every start.
    let options =
        SubscribeOptions { qos: QoS::AtLeastOnce, no_local: false, retain_as_published: false, retain_handling: 1 };
    let filters = filters.into_iter().map(|filter| Ok((filter, Asked { options, id: None, internal: true }))).collect();
    let cargo = SubscribeCargo { packet_id: 0, filters, done: Some(done), all: true };
    control(hub, &server.peer, Cargo::Subscribe(Box::new(cargo)))?;
    subscribed.await.map_err(|_| InternalError::Stopping)?;
    let (sender, receiver) = mpsc::channel(HANDED);
    let hub = hub.clone();
    hub.tasks.clone().spawn(async move {
        server.pump(&sender).await;
        // What was not settled is handed over again to who subscribes next. A stopping broker takes nothing more.
        let cargo = CloseCargo { with_will: false, expiry: None, done: None, _departure: None };
        let _ = control(&hub, &server.peer, Cargo::Close(cargo));
    });
    Ok(receiver)
}

async fn open(hub: &Hub, name: &str) -> Result<Server, InternalError> {
    let client = ClientId::new(format!("$internal/{name}")).map_err(|_| InternalError::Stopping)?;
    let origin = Origin { door: Door::Internal, client: Some(client.clone()), user: None, may_start: true };
    let peer = Peer::new(origin, None);
    let (reply, opened) = oneshot::channel();
    let marks = hub.marks();
    let cargo = OpenCargo { client, inside: true, clean_start: false, expiry: FOREVER, will: None, marks, reply };
    control(hub, &peer, Cargo::Open(Box::new(cargo)))?;
    let opened = opened.await.map_err(|_| InternalError::Stopping)?.map_err(|_| InternalError::Stopping)?;
    let session = opened.session;
    let old = session.last_given();
    Ok(Server { hub: hub.clone(), peer, session, old })
}

impl Server {
    /// Moves messages to the subscriber at its pace, until it is gone, another takes its place, or the broker stops.
    async fn pump(&self, sender: &mpsc::Sender<KeptDelivery>) {
        let mut parcels = Vec::new();
        loop {
            let next = poll_fn(|cx| {
                self.peer.register(cx.waker());
                // Who takes its place kicks first and takes the session then: at that wake the session may still be this one's.
                if self.peer.is_kicked() {
                    return Poll::Ready(false);
                }
                match self.take(&mut parcels) {
                    true if parcels.is_empty() => Poll::Pending,
                    served => Poll::Ready(served),
                }
            });
            let served = tokio::select! {
                biased;
                served = next => served,
                () = sender.closed() => return,
                () = self.hub.stop.cancelled() => return,
            };
            if !served {
                return;
            }
            for parcel in parcels.drain(..) {
                // At QoS 1 there is no PUBREL.
                let Parcel::Publish { entry, again } = parcel else { continue };
                if let Some(kept) = self.kept(&entry, again)
                    && sender.send(kept).await.is_err()
                {
                    return;
                }
            }
        }
    }

    /// What may be handed over now; `false`: somebody else serves the session.
    fn take(&self, parcels: &mut Vec<Parcel>) -> bool {
        let Ok(taken) = self.session.take(self.peer.id, PORTION, WINDOW, parcels) else { return false };
        if taken.nudge {
            self.hub.attention.notify_one();
        }
        if taken.page {
            self.hub.store.load(&self.session);
        }
        if taken.settled {
            self.hub.store.touch(&self.session);
        }
        true
    }

    /// `None`: it expired while it waited, and is settled with that.
    fn kept(&self, entry: &Entry, again: bool) -> Option<KeptDelivery> {
        let stored = entry.qos != QoS::AtMostOnce;
        let Some(delivery) = delivery(entry) else {
            self.hub.metrics.dropped(Lost::Expired, 1);
            if stored {
                self.claim(entry.qseq).settle();
            }
            return None;
        };
        if !stored {
            return Some(KeptDelivery::passing(delivery));
        }
        let sid = self.session.sid.map_or(0, |sid| sid.0);
        // The number of the session is never used twice within a store, the position never within a session; of another store, made anew in
        // the place of a lost one, the time tells.
        let mark = format!("{sid}-{}-{}", entry.qseq, entry.message.received());
        let claim = self.claim(entry.qseq);
        Some(KeptDelivery::new(delivery, Some(mark), again || entry.qseq <= self.old, move || claim.settle()))
    }

    fn claim(&self, qseq: u64) -> Claim {
        let (store, session) = (Arc::downgrade(&self.hub.store), Arc::clone(&self.session));
        Claim { store, session, peer: Arc::clone(&self.peer), qseq }
    }
}

/// A message that was handed over and is not settled.
struct Claim {
    /// Whoever forgets to settle does not keep the store open.
    store: Weak<Store>,
    session: Arc<Session>,
    peer: Arc<Peer>,
    qseq: u64,
}

impl Claim {
    fn settle(&self) {
        // Another subscription serves the session: it was handed over to that anew, and is settled there.
        let settled = self.session.handshakes.lock().puback(self.peer.id, packet_id(self.qseq));
        if settled == Ok(true) {
            if let Some(store) = self.store.upgrade() {
                store.touch(&self.session);
            }
            // There is room for the next.
            self.peer.wake();
        }
    }
}
