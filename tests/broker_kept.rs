//! Kept subscriptions, at the broker itself: settled one by one in any order, handed over again until then, claimed by nobody else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

#[path = "support/mqtt.rs"]
mod mqtt;
#[allow(dead_code)]
#[path = "support/running.rs"]
mod running;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use mqtt::{Client, options};
use rumqttc::QoS;
use running::Running;
use sense_butler::{
    broker::{
        InternalError,
        message::{Door, KeptDelivery, Publication},
        seen::PageAsk,
    },
    names::{ClientId, QoS as Level, TopicFilter, TopicName},
};
use tokio::sync::mpsc;

const START: &str = "q/start";
const PATIENCE: Duration = Duration::from_secs(60);

type Kept = mpsc::Receiver<KeptDelivery>;

/// A directory for a store that outlives brokers.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("sense-butler-kept-{name}-{}", std::process::id())))
    }

    fn start(&self) -> Running {
        Running::start(|settings| settings.storage.directory = Some(self.0.clone()))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

async fn subscribe(broker: &Running, filters: &[&str]) -> Kept {
    let filters = filters.iter().map(|filter| TopicFilter::new(*filter).unwrap()).collect();
    broker.handle.subscribe_kept("test", filters).await.unwrap()
}

async fn next(kept: &mut Kept) -> KeptDelivery {
    tokio::time::timeout(PATIENCE, kept.recv()).await.expect("a message in time").expect("the subscription goes on")
}

fn text(kept: &KeptDelivery) -> String {
    String::from_utf8(kept.delivery.payload.to_vec()).unwrap()
}

async fn several(kept: &mut Kept, count: usize) -> Vec<KeptDelivery> {
    let mut found = Vec::new();
    for _ in 0..count {
        found.push(next(kept).await);
    }
    found
}

async fn publish(broker: &Running, topic: &str, payload: &str) -> Result<bool, InternalError> {
    let publication =
        Publication::new(TopicName::new(topic).unwrap(), payload.as_bytes().to_vec()).qos(Level::AtLeastOnce);
    broker.handle.publisher(Door::Rest).submit(&publication).await.unwrap().wait().await
}

#[tokio::test]
async fn what_is_not_settled_comes_again_with_its_mark_and_its_publisher() {
    let scratch = Scratch::new("again");
    let broker = scratch.start();
    let mut kept = subscribe(&broker, &[START]).await;
    let mut client = Client::connect(broker.address.port(), "plc-7").await;
    for number in 0..10 {
        let qos = if number % 2 == 0 { QoS::AtLeastOnce } else { QoS::ExactlyOnce };
        client.publish(START, qos, false, number.to_string()).await;
    }
    let mut marks = BTreeMap::new();
    for one in several(&mut kept, 10).await.into_iter().rev() {
        assert!(!one.again, "{one:?}");
        marks.insert(text(&one), one.mark.clone().unwrap());
        // Every third is dealt with, the last first.
        if text(&one).parse::<u32>().unwrap().is_multiple_of(3) {
            one.settle();
        }
    }
    drop((kept, client));
    broker.stop().await;

    let broker = scratch.start();
    let mut kept = subscribe(&broker, &[START]).await;
    publish(&broker, START, "new").await.unwrap();
    let rest = several(&mut kept, 7).await;
    let texts: Vec<_> = rest.iter().map(text).collect();
    assert_eq!(texts, ["1", "2", "4", "5", "7", "8", "new"]);
    for one in &rest[..6] {
        let origin = &one.delivery.origin;
        assert_eq!((one.again, one.mark.as_ref()), (true, marks.get(&text(one))), "{one:?}");
        let who = (origin.door, origin.client.as_ref().map(ClientId::as_str), origin.may_start);
        assert_eq!(who, (Door::Mqtt, Some("plc-7"), true));
        assert!(one.delivery.packet_id.is_some() && !one.delivery.dup, "{one:?}");
    }
    assert!(!rest[6].again && !marks.values().any(|mark| Some(mark) == rest[6].mark.as_ref()), "{:?}", rest[6]);
    rest.into_iter().for_each(KeptDelivery::settle);
    drop(kept);
    broker.stop().await;

    let broker = scratch.start();
    let mut kept = subscribe(&broker, &[START]).await;
    publish(&broker, START, "last").await.unwrap();
    let last = next(&mut kept).await;
    assert_eq!(text(&last), "last", "everything before was settled");
    drop((last, kept));
    broker.stop().await;
}

/// Who subscribes anew gets what the one before has not settled; what that one settles late counts for nothing.
#[tokio::test]
async fn who_subscribes_again_takes_the_place() {
    let scratch = Scratch::new("place");
    let broker = scratch.start();
    let mut first = subscribe(&broker, &[START, "q/other"]).await;
    publish(&broker, START, "a").await.unwrap();
    publish(&broker, "q/other", "b").await.unwrap();
    let held = several(&mut first, 2).await;
    // The second wants less; what is queued comes all the same.
    let mut second = subscribe(&broker, &[START]).await;
    let again = several(&mut second, 2).await;
    assert_eq!(again.iter().map(text).collect::<Vec<_>>(), ["a", "b"]);
    assert!(again.iter().all(|one| one.again));
    assert!(tokio::time::timeout(PATIENCE, first.recv()).await.unwrap().is_none(), "the first has ended");
    held.into_iter().for_each(KeptDelivery::settle);
    assert!(!publish(&broker, "q/other", "c").await.unwrap(), "nobody wants it any more");
    let mut third = subscribe(&broker, &[START]).await;
    let unsettled = several(&mut third, 2).await;
    assert_eq!(unsettled.iter().map(text).collect::<Vec<_>>(), ["a", "b"], "settled too late, by the wrong one");
    unsettled.into_iter().for_each(KeptDelivery::settle);
    drop((again, second, third));
    broker.stop().await;
}

/// Whatever a client calls itself, it gets a session of its own, sees nothing and ends nothing.
#[tokio::test]
async fn no_client_claims_or_sees_it() {
    let scratch = Scratch::new("claim");
    let broker = scratch.start();
    let mut kept = subscribe(&broker, &[START]).await;
    publish(&broker, START, "waits").await.unwrap();
    let held = next(&mut kept).await;
    let desk = broker.handle.desk();
    let name = ClientId::new("$internal/test").unwrap();
    assert!(desk.client(name.clone()).await.unwrap().is_none());
    for clean in [false, true, false] {
        let mut asked = options(broker.address.port(), name.as_str());
        asked.set_clean_session(clean);
        let (mut thief, present) = Client::open(asked).await.unwrap();
        assert!(!present, "clean {clean}");
        thief.subscribe("mine", QoS::AtLeastOnce).await;
        thief.publish("mine", QoS::AtLeastOnce, false, "x").await;
        assert_eq!(thief.next().await.topic, "mine");
        let stats = desk.stats().await.unwrap();
        assert!(stats.connected <= 1, "{stats:?}");
        let clients = desk.clients(PageAsk { limit: 100, from: None }).await.unwrap();
        assert_eq!(clients.rows.iter().map(|client| client.subscriptions).collect::<Vec<_>>(), [1]);
        let subscriptions = desk.subscriptions(None, PageAsk { limit: 100, from: None }).await.unwrap();
        assert_eq!(subscriptions.rows.len(), 1);
        thief.leave().await;
        desk.disconnect(name.clone(), true).await.unwrap();
    }
    publish(&broker, START, "goes on").await.unwrap();
    let other = next(&mut kept).await;
    assert_eq!((text(&other).as_str(), other.again), ("goes on", false));
    held.settle();
    other.settle();
    drop(kept);
    broker.stop().await;
}

/// It is none of the sessions `limits.sessions` allows, and none of `limits.subscriptions`.
#[tokio::test]
async fn it_counts_in_no_limit() {
    let broker = Running::start(|settings| (settings.limits.sessions, settings.limits.subscriptions) = (1, 1));
    let mut kept = subscribe(&broker, &[START, "q/a", "q/b"]).await;
    let mut asked = options(broker.address.port(), "one");
    asked.set_clean_session(false);
    let (mut client, _) = Client::open(asked).await.unwrap();
    client.publish("q/b", QoS::AtLeastOnce, false, "x").await;
    next(&mut kept).await.settle();
    drop(client);
    broker.stop().await;
}

/// A full quota turns publishers away; it drops nothing, whatever the policy for clients is.
#[tokio::test]
async fn a_full_quota_turns_away_and_drops_nothing() {
    let scratch = Scratch::new("full");
    let start = || {
        Running::start(|settings| {
            settings.storage.directory = Some(scratch.0.clone());
            settings.storage.session_messages = 20;
        })
    };
    let broker = start();
    let mut kept = subscribe(&broker, &[START]).await;
    let (mut taken, mut turned_away) = (Vec::new(), 0);
    for number in 0..60 {
        match publish(&broker, START, &number.to_string()).await {
            Ok(_) => taken.push(number.to_string()),
            Err(InternalError::Full) => turned_away += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(taken.len() >= 20 && turned_away >= 30, "{} taken, {turned_away} turned away", taken.len());
    let all = several(&mut kept, taken.len()).await;
    assert_eq!(all.iter().map(text).collect::<Vec<_>>(), taken);
    drop((all, kept));
    broker.stop().await;

    let broker = start();
    let mut kept = subscribe(&broker, &[START]).await;
    let all = several(&mut kept, taken.len()).await;
    assert_eq!(all.iter().map(text).collect::<Vec<_>>(), taken);
    all.into_iter().for_each(KeptDelivery::settle);
    // There is room again when that is written.
    let room = async {
        while publish(&broker, START, "more").await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(PATIENCE, room).await.expect("room again");
    assert_eq!(text(&next(&mut kept).await), "more");
    broker.stop().await;
}

/// Far more than memory and the window hold, read back page by page, each once and in order.
#[tokio::test]
async fn a_long_queue_is_read_back() {
    const COUNT: usize = 3_000;
    let scratch = Scratch::new("long");
    let start = || {
        Running::start(|settings| {
            settings.storage.directory = Some(scratch.0.clone());
            (settings.limits.queue_bytes, settings.limits.queue_messages) = (64 << 10, 200);
        })
    };
    let broker = start();
    let kept = subscribe(&broker, &[START]).await;
    let publisher = broker.handle.publisher(Door::Rest);
    let mut words = Vec::new();
    for number in 0..COUNT {
        let payload = format!("{number:0100}");
        let publication = Publication::new(TopicName::new(START).unwrap(), payload).qos(Level::AtLeastOnce);
        words.push(publisher.submit(&publication).await.unwrap());
    }
    for word in words {
        assert!(word.wait().await.unwrap());
    }
    drop(kept);
    broker.stop().await;

    let broker = start();
    let mut kept = subscribe(&broker, &[START]).await;
    for number in 0..COUNT {
        let one = next(&mut kept).await;
        assert_eq!((text(&one), one.again), (format!("{number:0100}"), true));
        one.settle();
    }
    publish(&broker, START, "end").await.unwrap();
    let end = next(&mut kept).await;
    assert_eq!((text(&end).as_str(), end.again), ("end", false));
    broker.stop().await;
}

/// QoS 0 passes through memory: it has no mark, and waits for nothing.
#[tokio::test]
async fn qos_0_has_no_mark() {
    let broker = Running::start(|_| ());
    let mut kept = subscribe(&broker, &[START]).await;
    let mut client = Client::connect(broker.address.port(), "c").await;
    client.publish(START, QoS::AtMostOnce, false, "zero").await;
    let zero = next(&mut kept).await;
    assert_eq!((text(&zero).as_str(), zero.mark.as_deref(), zero.again), ("zero", None, false));
    zero.settle();
    drop(kept);
    client.publish(START, QoS::AtMostOnce, false, "lost").await;
    client.publish(START, QoS::AtLeastOnce, false, "one").await;
    let mut kept = subscribe(&broker, &[START]).await;
    assert_eq!(text(&next(&mut kept).await), "one");
    broker.stop().await;
}
