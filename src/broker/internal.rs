//! Clients of the broker that are parts of this program: publishers with a lane of their own, and subscribers with an outbox like any
//! session's. Neither passes a socket; both pass the stream, in the same order as everybody. What waits for such a subscriber ends with the
//! program; see [`super::kept`] for what does not.

use std::{future::poll_fn, sync::Arc, task::Poll};

use tokio::sync::{mpsc, oneshot};

use super::{
    access::Outside,
    admission::{LANE, Window, cost},
    cargo::{Ack, Cargo, CloseCargo, OpenCargo, Refusal, SubscribeCargo, Taken, Word},
    codec::{SubscribeOptions, properties},
    engine::Outgoing,
    envelope::{Draft, Message, PublishDraft, now_ms},
    hub::Hub,
    message::{Delivery, Door, Origin, Properties, Publication},
    peer::Peer,
    session::{Entry, Session},
    stream::Asked,
};
use crate::names::{ClientId, QoS, TopicFilter, TopicName};

/// Deliveries handed to a subscriber before its outbox fills.
const HANDED: usize = 256;
/// Bytes taken from the outbox at a time.
pub(super) const PORTION: usize = 64 << 10;

/// Why an internal publication or subscription did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InternalError {
    /// The broker is stopping.
    #[error("the built-in broker is stopping")]
    Stopping,
    /// The store cannot take it.
    #[error(
        "the broker's store on disk is full or cannot be written; nothing was published, see `broker` in the health message"
    )]
    Full,
    /// Larger than `limits.packet_size`.
    #[error("the message needs {size} bytes; limits.packet_size in broker.toml allows {limit}")]
    TooLarge {
        /// Bytes of the packet.
        size: usize,
        /// The limit, bytes.
        limit: usize,
    },
    /// A property cannot be written.
    #[error("{0}")]
    Property(#[from] properties::PropertyError),
}

impl From<Refusal> for InternalError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Stopping => Self::Stopping,
            Refusal::Full => Self::Full,
        }
    }
}

/// The broker's word on a publication.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Word>);

impl Pending {
    /// Waits for it: whether any session matched.
    ///
    /// # Errors
    /// If the broker did not take responsibility.
    pub async fn wait(self) -> Result<bool, InternalError> {
        Ok(self.taken().await?.matched)
    }

    /// Waits for it: whether any session matched, and how many keep the message.
    ///
    /// # Errors
    /// If the broker did not take responsibility.
    pub async fn taken(self) -> Result<Taken, InternalError> {
        self.0.await.unwrap_or(Err(Refusal::Stopping)).map_err(InternalError::from)
    }
}

/// A part of this program that publishes. Cheap to clone; clones share the lane.
#[derive(Clone)]
pub struct Publisher {
    hub: Hub,
    peer: Arc<Peer>,
    lane: Window,
    outside: Outside,
    /// It speaks for one caller, who waits while a session above its high mark holds him. One that speaks for everybody never does.
    patient: bool,
}

/// A publication on its way to an envelope; `wire`: its properties.
fn drafted<'a>(publication: &'a Publication, wire: &'a [u8]) -> PublishDraft<'a> {
    let now = now_ms();
    PublishDraft {
        topic: publication.topic.as_str().as_bytes(),
        properties: wire,
        payload: &publication.payload,
        qos: publication.qos,
        retain: publication.retain,
        dup: false,
        packet_id: 0,
        received: now,
        expires: publication.properties.message_expiry.map_or(0, |seconds| now + u64::from(seconds) * 1000),
    }
}

impl Publisher {
    pub(super) fn new(hub: Hub, door: Door) -> Self {
        let lane = Window::new(LANE);
        let peer = Peer::new(Origin { door, client: None, user: None, may_start: true }, Some(lane.clone()));
        let outside = Outside::new(Arc::clone(&hub.policies));
        Self { hub, peer, lane, outside, patient: false }
    }

    /// The same for one caller alone, who is as patient with slow subscribers as a client: while one holds him, his next publication waits, and
    /// nobody else's.
    pub fn apart(&self) -> Self {
        let peer = Peer::new(Origin::clone(&self.peer.origin), Some(self.lane.clone()));
        Self { peer, patient: true, ..self.clone() }
    }

    /// A hold lasts a second at most.
    async fn patience(&self) {
        poll_fn(|cx| {
            self.peer.register(cx.waker());
            if self.peer.is_held() { Poll::Pending } else { Poll::Ready(()) }
        })
        .await;
    }

    /// Whether no access rule for everybody keeps a caller who is no client from publishing on a topic.
    pub fn may_publish(&self, topic: &TopicName) -> bool {
        self.outside.may_publish(topic.as_str())
    }

    /// Whether a publication would be refused for what it is, whatever the broker's state.
    ///
    /// # Errors
    /// If it is too large or a property cannot be written.
    pub fn check(&self, publication: &Publication) -> Result<(), InternalError> {
        let wire = properties::to_wire(&publication.properties)?;
        self.fits(drafted(publication, &wire).size())
    }

    fn fits(&self, size: usize) -> Result<(), InternalError> {
        let limit = self.hub.limits.packet_size;
        if size > limit { Err(InternalError::TooLarge { size, limit }) } else { Ok(()) }
    }

    /// Hands a publication over, in order; waits for room in the lane, and as [`Publisher::apart`] says. One caller at a time, then.
    ///
    /// # Errors
    /// If it is too large or the broker is stopping.
    pub async fn submit(&self, publication: &Publication) -> Result<Pending, InternalError> {
        let wire = properties::to_wire(&publication.properties)?;
        let draft = drafted(publication, &wire);
        self.fits(draft.size())?;
        let draft = Draft::publish(&draft);
        let cost = cost(draft.len(), LANE);
        if self.patient && self.peer.is_held() {
            self.patience().await;
        }
        self.lane.take(cost).await;
        let (sender, receiver) = oneshot::channel();
        // QoS 2 from inside needs no handshake: the submission is the handshake.
        let origin = publication.origin.clone().map(Box::new);
        let cargo = Cargo::Publish(Ack::Internal { word: sender, origin });
        self.hub
            .engine
            .submit(Some(&self.peer), [Outgoing { draft, cost, stored: 0, cargo }])
            .map_err(|_| InternalError::Stopping)?;
        Ok(Pending(receiver))
    }
}

/// Subscribes a part of this program; messages arrive on the channel until it is dropped.
pub(super) async fn subscribe(
    hub: &Hub,
    name: &str,
    filters: Vec<TopicFilter>,
) -> Result<mpsc::Receiver<Delivery>, InternalError> {
    let (peer, session) = open(hub, name).await?;
    let (done, subscribed) = oneshot::channel();
    let options =
        SubscribeOptions { qos: QoS::ExactlyOnce, no_local: false, retain_as_published: false, retain_handling: 0 };
    let filters = filters.into_iter().map(|filter| Ok((filter, Asked { options, id: None, internal: true }))).collect();
    control(
        hub,
        &peer,
        Cargo::Subscribe(Box::new(SubscribeCargo { packet_id: 0, filters, done: Some(done), all: false })),
    )?;
    subscribed.await.map_err(|_| InternalError::Stopping)?;
    let (sender, receiver) = mpsc::channel(HANDED);
    let hub = hub.clone();
    hub.tasks.clone().spawn(async move {
        pump(&hub, &peer, &session, sender).await;
        // A stopping broker takes nothing more.
        let _ = control(
            &hub,
            &peer,
            Cargo::Close(CloseCargo { with_will: false, expiry: None, done: None, _departure: None }),
        );
    });
    Ok(receiver)
}

async fn open(hub: &Hub, name: &str) -> Result<(Arc<Peer>, Arc<Session>), InternalError> {
    // `$` keeps these apart from whatever clients call themselves: a client id is never compared with a prefix.
    let client = ClientId::new(format!("$internal/{name}/{}", uuid::Uuid::new_v4().simple()))
        .map_err(|_| InternalError::Stopping)?;
    let origin = Origin { door: Door::Internal, client: Some(client.clone()), user: None, may_start: true };
    let peer = Peer::new(origin, None);
    let (reply, opened) = oneshot::channel();
    let cargo =
        OpenCargo { client, inside: false, clean_start: true, expiry: 0, will: None, marks: hub.marks(), reply };
    control(hub, &peer, Cargo::Open(Box::new(cargo)))?;
    let opened = opened.await.map_err(|_| InternalError::Stopping)?.map_err(|_| InternalError::Stopping)?;
    Ok((peer, opened.session))
}

pub(super) fn control(hub: &Hub, peer: &Arc<Peer>, cargo: Cargo) -> Result<(), InternalError> {
    hub.engine
        .submit(Some(peer), [Outgoing { draft: Draft::control(), cost: 0, stored: 0, cargo }])
        .map_err(|_| InternalError::Stopping)
}

/// Moves messages from the outbox to the subscriber, at the subscriber's pace.
async fn pump(hub: &Hub, peer: &Arc<Peer>, session: &Arc<Session>, sender: mpsc::Sender<Delivery>) {
    let mut entries = Vec::new();
    loop {
        let next = poll_fn(|cx| {
            peer.register(cx.waker());
            let taken = session.take_inside(PORTION, &mut entries);
            if taken.nudge {
                hub.attention.notify_one();
            }
            if entries.is_empty() { Poll::Pending } else { Poll::Ready(()) }
        });
        tokio::select! {
            // What is there when the broker stops is still heard.
            biased;
            () = next => {}
            () = sender.closed() => return,
            () = hub.stop.cancelled() => return,
        }
        for entry in entries.drain(..) {
            if let Some(delivery) = delivery(&entry)
                && sender.send(delivery).await.is_err()
            {
                return;
            }
        }
    }
}

/// `None`: it has expired.
pub(super) fn delivery(entry: &Entry) -> Option<Delivery> {
    let message: &Message = &entry.message;
    let expiry = message.remaining(now_ms()).ok()?;
    let nobody = || Origin { door: Door::Internal, client: None, user: None, may_start: false };
    Some(Delivery {
        topic: TopicName::new(message.topic_str()).ok()?,
        payload: message.payload_bytes(),
        qos: message.qos,
        retained: entry.retain,
        properties: read_properties(message, expiry),
        origin: message.origin.as_ref().map_or_else(nobody, |origin| Origin::clone(origin)),
        packet_id: (message.packet_id > 0).then_some(message.packet_id),
        dup: message.dup,
    })
}

fn read_properties(message: &Message, expiry: Option<u32>) -> Properties {
    // They were validated when the message came in.
    properties::from_wire(message.properties(), expiry).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::broker::{Broker, access::tests::settings};

    #[tokio::test]
    async fn one_caller_waits_while_he_is_held_and_the_others_go_on() {
        let broker = Broker::bind(&settings(vec![], vec![], true), &mut Registry::default()).unwrap();
        let (handle, stop) = (broker.handle(), CancellationToken::new());
        let running = tokio::spawn(broker.run(stop.clone()));
        let all = handle.publisher(Door::Rest);
        let (one, other) = (all.apart(), all.apart());
        let message = Publication::new(TopicName::new("t").unwrap(), "x");
        one.peer.hold();
        // The common one does not obey: it speaks for too many.
        all.peer.hold();
        {
            let mut held = std::pin::pin!(one.submit(&message));
            assert!(once(held.as_mut()).await.is_none());
            assert!(!other.submit(&message).await.unwrap().wait().await.unwrap());
            assert!(!all.submit(&message).await.unwrap().wait().await.unwrap());
            assert!(once(held.as_mut()).await.is_none());
            one.peer.release();
            assert!(!held.await.unwrap().wait().await.unwrap());
        }
        assert!(!one.submit(&message).await.unwrap().wait().await.unwrap());
        stop.cancel();
        running.await.unwrap().unwrap();
    }

    /// Polls once.
    async fn once<F: Future>(mut future: std::pin::Pin<&mut F>) -> Option<F::Output> {
        poll_fn(|cx| match future.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending => Poll::Ready(None),
        })
        .await
    }
}
