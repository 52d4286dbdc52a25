//! A broker for tests: messages are put in by hand, publications are kept.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::{Arc, Mutex};

use sense_butler::{
    bus::{
        BoxFuture, Delivery, Door, Origin, Properties, Publication, PublishError, Receipt, Routed, Subscription,
        Transport,
    },
    names::{ClientId, QoS, TopicFilter, TopicName},
};
use tokio::sync::{Notify, mpsc};

#[derive(Default)]
struct State {
    subscribers: Mutex<Vec<(Vec<TopicFilter>, mpsc::Sender<Delivery>)>>,
    published: Mutex<Vec<Publication>>,
    /// Publishes to refuse as unavailable before the next is taken.
    refuse: Mutex<usize>,
    changed: Notify,
}

/// The broker. Cheap to clone.
#[derive(Clone, Default)]
pub struct FakeBus(Arc<State>);

impl Transport for FakeBus {
    fn submit(&self, publication: Publication) -> BoxFuture<'_, Result<Receipt, PublishError>> {
        Box::pin(async move {
            let mut refuse = self.0.refuse.lock().unwrap();
            if *refuse > 0 {
                *refuse -= 1;
                return Err(PublishError::Unavailable("told to".into()));
            }
            self.0.published.lock().unwrap().push(publication);
            self.0.changed.notify_waiters();
            let (word, receipt) = Receipt::channel();
            word.send(Ok(Routed::passing(true))).unwrap();
            Ok(receipt)
        })
    }

    fn subscribe(&self, _: &str, filters: Vec<TopicFilter>) -> BoxFuture<'_, Result<Subscription, PublishError>> {
        Box::pin(async move {
            let (sender, receiver) = mpsc::channel(64);
            self.0.subscribers.lock().unwrap().push((filters, sender));
            self.0.changed.notify_waiters();
            Ok(receiver)
        })
    }

    fn is_up(&self) -> bool {
        true
    }
}

impl FakeBus {
    /// Waits until something has subscribed.
    pub async fn subscribed(&self) {
        self.until(|state| !state.subscribers.lock().unwrap().is_empty()).await;
    }

    /// Delivers to every subscription that matches; returns how many did.
    pub async fn deliver(&self, delivery: Delivery) -> usize {
        let matching: Vec<_> = {
            let subscribers = self.0.subscribers.lock().unwrap();
            let of = |filters: &Vec<TopicFilter>| filters.iter().any(|filter| filter.matches(delivery.topic.as_str()));
            subscribers.iter().filter(|(filters, _)| of(filters)).map(|(_, sender)| sender.clone()).collect()
        };
        for sender in &matching {
            sender.send(delivery.clone()).await.unwrap();
        }
        matching.len()
    }

    /// Waits for `count` publications in all and returns them.
    pub async fn published(&self, count: usize) -> Vec<Publication> {
        self.until(|state| state.published.lock().unwrap().len() >= count).await;
        self.0.published.lock().unwrap().clone()
    }

    pub fn forget(&self) {
        self.0.published.lock().unwrap().clear();
    }

    /// Refuses the next publishes as unavailable.
    pub fn refuse(&self, count: usize) {
        *self.0.refuse.lock().unwrap() = count;
    }

    async fn until(&self, done: impl Fn(&State) -> bool) {
        let waiting = async {
            loop {
                let changed = self.0.changed.notified();
                tokio::pin!(changed);
                changed.as_mut().enable();
                if done(&self.0) {
                    return;
                }
                changed.await;
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), waiting).await.expect("it never happened");
    }
}

/// A message of the client `plc-7`.
pub fn message(topic: &str, payload: impl AsRef<[u8]>) -> Delivery {
    Delivery {
        topic: TopicName::new(topic).unwrap(),
        payload: payload.as_ref().to_vec().into(),
        qos: QoS::AtLeastOnce,
        retained: false,
        properties: Properties::default(),
        origin: Origin { door: Door::Mqtt, client: Some(ClientId::new("plc-7").unwrap()), user: None, may_start: true },
        packet_id: None,
        dup: false,
    }
}
