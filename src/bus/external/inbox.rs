//! Subscriptions of this program at a broker elsewhere: what is asked of the broker, and who gets what comes.
//!
//! Invariants: the broker is asked for as few filters as cover all (overlapping ones make some brokers deliver a message once per filter,
//! and a start request must not come twice); the connection never waits for a slow subscriber: what it cannot take waits in a queue bounded
//! in bytes, and what that cannot take is counted.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Notify, mpsc};

use super::claims::Claim;
use crate::{
    bus::{Delivery, KeptDelivery, Subscription},
    names::TopicFilter,
};

/// Deliveries a subscriber can take at once; the queue behind it is bounded in bytes.
const CHANNEL: usize = 64;
/// Bytes that wait for one subscriber.
const QUEUE_BYTES: usize = 16 << 20;
/// What a waiting delivery costs beside topic and payload.
const OVERHEAD: usize = 256;

/// All subscriptions.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    subscribers: Mutex<Vec<Arc<Subscriber>>>,
    /// What the broker kept for us and sent before anybody had subscribed.
    early: Mutex<Queue>,
}

#[derive(Debug)]
struct Subscriber {
    name: String,
    filters: Vec<TopicFilter>,
    /// The broker is told when it has settled a message.
    kept: bool,
    queue: Mutex<Queue>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<KeptDelivery>,
    bytes: usize,
    /// The receiver was dropped.
    gone: bool,
}

impl Queue {
    /// False if there is no room.
    fn push(&mut self, kept: KeptDelivery) -> bool {
        let size = cost(&kept.delivery);
        if self.bytes + size > QUEUE_BYTES {
            return false;
        }
        self.bytes += size;
        self.waiting.push_back(kept);
        true
    }
}

impl Inbox {
    /// Adds a subscriber. The future moves its messages; it ends when the receiver is dropped and must be run by the caller.
    pub(super) fn add(
        &self,
        name: &str,
        filters: Vec<TopicFilter>,
    ) -> (Subscription, impl Future<Output = ()> + Send + use<>) {
        let subscriber = self.subscriber(name, filters, false);
        let (sender, receiver) = mpsc::channel(CHANNEL);
        // Nobody keeps it for this one: there is nothing to settle.
        (receiver, subscriber.forward(sender, |kept| kept.delivery))
    }

    /// The same for one that settles what it gets.
    pub(super) fn add_kept(
        &self,
        name: &str,
        filters: Vec<TopicFilter>,
    ) -> (mpsc::Receiver<KeptDelivery>, impl Future<Output = ()> + Send + use<>) {
        let subscriber = self.subscriber(name, filters, true);
        let early = std::mem::take(&mut *self.early.lock());
        for kept in early.waiting {
            // There is as much room as there was before.
            subscriber.take(kept);
        }
        let (sender, receiver) = mpsc::channel(CHANNEL);
        (receiver, subscriber.forward(sender, |kept| kept))
    }

    fn subscriber(&self, name: &str, filters: Vec<TopicFilter>, kept: bool) -> Arc<Subscriber> {
        let (name, queue, arrived) = (name.to_owned(), Mutex::default(), Notify::new());
        let subscriber = Arc::new(Subscriber { name, filters, kept, queue, arrived });
        self.all().push(Arc::clone(&subscriber));
        subscriber
    }

    /// The filters to ask the broker for: none that another one covers.
    pub(super) fn wanted(&self) -> Vec<TopicFilter> {
        let mut subscribers = self.all();
        subscribers.retain(|subscriber| !subscriber.queue().gone);
        let mut wanted: Vec<TopicFilter> = Vec::new();
        for filter in subscribers.iter().flat_map(|subscriber| &subscriber.filters) {
            if !wanted.iter().any(|other| covers(other, filter)) {
                wanted.retain(|other| !covers(filter, other));
                wanted.push(filter.clone());
            }
        }
        wanted
    }

    /// Gives a message to everybody who wants it. Returns the names of those who had no room. `claim`: of one the broker keeps until it is
    /// settled: by the subscriber that keeps, also if it has no filter for it any more; at once if there is none that ever wanted it kept.
    pub(super) fn deliver(&self, delivery: &Delivery, claim: Option<Claim>) -> Vec<String> {
        let topic = delivery.topic.as_str();
        let wants = |subscriber: &Subscriber| subscriber.filters.iter().any(|filter| filter.matches(topic));
        let subscribers = self.all();
        let keepers: Vec<_> = subscribers.iter().filter(|one| one.kept && !one.queue().gone).cloned().collect();
        let mut wanting: Vec<_> = subscribers.iter().filter(|one| wants(one)).cloned().collect();
        drop(subscribers);
        let keeper = keepers.iter().find(|one| wants(one));
        // What is wanted no more and was kept is for who keeps.
        let keeper = keeper.or_else(|| keepers.first().filter(|_| claim.is_some() && wanting.is_empty()));
        wanting.retain(|one| keeper.is_none_or(|keeper| !Arc::ptr_eq(keeper, one)));
        let nobody = keeper.is_none() && wanting.is_empty();
        let passing = || KeptDelivery::passing(delivery.clone());
        let mut full: Vec<_> = wanting.iter().filter(|one| !one.take(passing())).map(|one| one.name.clone()).collect();
        let again = delivery.dup;
        let settled_by = |claim: Claim| KeptDelivery::new(delivery.clone(), None, again, move || claim.settle());
        match (keeper, claim) {
            (Some(keeper), claim) => {
                if !keeper.take(claim.map_or_else(passing, settled_by)) {
                    full.push(keeper.name.clone());
                }
            }
            // Whoever keeps it has not subscribed yet. What finds no room stays with the broker until the next connection.
            (None, Some(claim)) if nobody => drop(self.early.lock().push(settled_by(claim))),
            (None, Some(claim)) => claim.settle(),
            (None, None) => {}
        }
        full
    }

    fn all(&self) -> MutexGuard<'_, Vec<Arc<Subscriber>>> {
        self.subscribers.lock()
    }
}

impl Subscriber {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock()
    }

    /// False if there was no room.
    fn take(&self, kept: KeptDelivery) -> bool {
        let mut queue = self.queue();
        let taken = queue.gone || queue.push(kept);
        self.arrived.notify_one();
        taken
    }

    fn pop(&self) -> Option<KeptDelivery> {
        let mut queue = self.queue();
        let kept = queue.waiting.pop_front()?;
        queue.bytes -= cost(&kept.delivery);
        Some(kept)
    }

    async fn forward<T: Send>(self: Arc<Self>, sender: mpsc::Sender<T>, made: impl Fn(KeptDelivery) -> T + Send) {
        // Room is taken first, so that a message waits here, counted in bytes, and not in between.
        while let Ok(room) = sender.reserve().await {
            match self.next(&sender).await {
                Some(kept) => room.send(made(kept)),
                None => break,
            }
        }
        // Dropped outside the lock: what is not settled says so elsewhere.
        let left = std::mem::replace(&mut *self.queue(), Queue { gone: true, ..Queue::default() });
        drop(left);
    }

    async fn next<T>(&self, sender: &mpsc::Sender<T>) -> Option<KeptDelivery> {
        loop {
            if let Some(kept) = self.pop() {
                return Some(kept);
            }
            tokio::select! {
                () = self.arrived.notified() => {}
                () = sender.closed() => return None,
            }
        }
    }
}

fn cost(delivery: &Delivery) -> usize {
    OVERHEAD + delivery.topic.as_str().len() + delivery.payload.len()
}

/// Whether every topic that `narrow` matches is matched by `wide` too. Shared subscriptions cover only themselves.
fn covers(wide: &TopicFilter, narrow: &TopicFilter) -> bool {
    if wide == narrow {
        return true;
    }
    if wide.shared().is_some() || narrow.shared().is_some() {
        return false;
    }
    // Section 4.7.2: wildcards at the first level do not match topics that begin with `$`.
    if narrow.as_str().starts_with('$') && wide.as_str().starts_with(['#', '+']) {
        return false;
    }
    let mut narrow = narrow.as_str().split('/');
    for wide in wide.as_str().split('/') {
        match (wide, narrow.next()) {
            ("#", _) => return true,
            (_, None) | (_, Some("#")) => return false,
            ("+", Some(_)) => {}
            (wide, Some(narrow)) if wide == narrow => {}
            _ => return false,
        }
    }
    narrow.next().is_none()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bus::{Door, Origin, Properties},
        names::{QoS, TopicName},
    };

    fn filter(text: &str) -> TopicFilter {
        TopicFilter::new(text).unwrap()
    }

    fn delivery(topic: &str, size: usize) -> Delivery {
        Delivery {
            topic: TopicName::new(topic).unwrap(),
            payload: vec![0; size].into(),
            qos: QoS::AtLeastOnce,
            retained: false,
            properties: Properties::default(),
            origin: Origin { door: Door::External, client: None, user: None, may_start: true },
            packet_id: None,
            dup: false,
        }
    }

    #[test]
    fn covering_follows_the_rules_of_matching() {
        let cases = [
            ("qliksense/#", "qliksense/start_task", true),
            ("qliksense/#", "qliksense", true),
            ("qliksense/start_task", "qliksense/#", false),
            ("#", "$SYS/#", false),
            ("+/x", "$SYS/x", false),
            ("$SYS/#", "$SYS/broker/+", true),
            ("a/+", "a/b", true),
            ("a/+", "a/#", false),
            ("a/+/c", "a/b/+", false),
            ("+/+", "+/b", true),
            ("a/b", "a/b/c", false),
            ("#", "a/+/#", true),
            ("$share/g/a/#", "a/b", false),
            ("$share/g/a", "$share/g/a", true),
        ];
        for (wide, narrow, expected) in cases {
            assert_eq!(covers(&filter(wide), &filter(narrow)), expected, "{wide} {narrow}");
        }
    }

    #[tokio::test]
    async fn the_broker_is_asked_once_and_everybody_gets_his_own() {
        let inbox = Inbox::default();
        let (mut start, forward) = inbox.add("start", vec![filter("q/start"), filter("q/start/x")]);
        let first = tokio::spawn(forward);
        let (mut all, forward) = inbox.add("all", vec![filter("q/#")]);
        tokio::spawn(forward);
        assert_eq!(inbox.wanted(), [filter("q/#")]);
        assert!(inbox.deliver(&delivery("q/start", 1), None).is_empty());
        assert!(inbox.deliver(&delivery("q/other", 2), None).is_empty());
        assert_eq!(start.recv().await.unwrap().topic.as_str(), "q/start");
        assert_eq!(all.recv().await.unwrap().topic.as_str(), "q/start");
        assert_eq!(all.recv().await.unwrap().topic.as_str(), "q/other");
        assert!(start.try_recv().is_err());
        drop(all);
        drop(start);
        first.await.unwrap();
        assert!(!inbox.wanted().contains(&filter("q/start")), "who dropped the receiver unsubscribed");
    }

    #[tokio::test]
    async fn a_slow_subscriber_costs_a_bounded_queue_and_keeps_the_order() {
        let inbox = Inbox::default();
        let (mut slow, forward) = inbox.add("slow", vec![filter("#")]);
        let running = tokio::spawn(forward);
        let mut accepted = 0;
        while inbox.deliver(&delivery(&accepted.to_string(), 1 << 20), None).is_empty() {
            accepted += 1;
            tokio::task::yield_now().await;
        }
        assert!((16..=16 + CHANNEL).contains(&accepted), "{accepted}");
        for expected in 0..accepted {
            assert_eq!(slow.recv().await.unwrap().topic.as_str(), expected.to_string());
        }
        drop(slow);
        running.await.unwrap();
    }
}
