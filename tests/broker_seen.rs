//! What is seen of the broker and how it is steered, over real sockets: clients, sessions, subscriptions, retained messages, `$SYS`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use sense_butler::{
    broker::seen::{Client, Connection, Desk, Page, PageAsk, Parting},
    names::{ClientId, TopicFilter},
};
use support::{
    raw::{Got, Hello, Raw, packet, text},
    running::Running,
};

fn id(text: &str) -> ClientId {
    ClientId::new(text).unwrap()
}

/// The client, once it is as it should be.
async fn shown(desk: &Desk, name: &str, fits: impl Fn(&Client) -> bool) -> Client {
    let mut last = None;
    for _ in 0..2_000 {
        last = desk.client(id(name)).await.unwrap();
        if let Some(client) = last.as_ref().filter(|client| fits(client)) {
            return client.clone();
        }
        // The pause between two looks.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("it stays {last:?}");
}

async fn gone(desk: &Desk, name: &str) {
    let begun = Instant::now();
    while desk.client(id(name)).await.unwrap().is_some() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{name} stays");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn connection(client: &Client) -> &Connection {
    client.connection.as_ref().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_both_versions_are_shown_with_their_connections() {
    let broker = Running::start(|_| {});
    let desk = broker.handle.desk();
    let mut ran = 0;
    for (hello, protocol) in [(Hello::v3("old/å"), "3.1.1"), (Hello::v5("new+#"), "5.0")] {
        let name = hello.id.clone();
        let is_new = hello.version == 5;
        let (mut raw, connack) = Raw::connect(broker.address, &Hello { keep_alive: 77, ..hello }).await;
        let connect = shown(&desk, &name, |client| connection(client).bytes_out > 0).await;
        assert_eq!(connect.id.as_str(), name);
        assert_eq!(connection(&connect).address, raw.stream.local_addr().unwrap());
        assert_eq!((&*connection(&connect).listener, connection(&connect).protocol), ("test", protocol));
        assert_eq!(connection(&connect).keep_alive, 77);
        assert_eq!(connection(&connect).bytes_out as usize, connack.len() + 2);
        let age = connection(&connect).since.abs_diff(now_ms());
        assert!(age < 20_000, "{age} ms");
        assert_eq!((connect.session_expiry, connect.session_ends, connect.user.as_deref()), (0, None, None));

        assert_eq!(raw.subscribe("t/#", 1).await, 1);
        assert_eq!(raw.subscribe("$share/g/x", 0).await, 0);
        let mut body = Vec::new();
        text(&mut body, b"t/1");
        if is_new {
            body.push(0);
        }
        body.extend([9; 200]);
        let before = desk.client(id(&name)).await.unwrap().unwrap();
        raw.send(0x30, &body).await;
        raw.receive_publish().await;
        let after = shown(&desk, &name, |client| connection(client).messages_out == 1).await;
        let sent = packet(0x30, &body).len() as u64;
        assert_eq!(connection(&after).messages_in, 1);
        assert_eq!(connection(&after).bytes_in - connection(&before).bytes_in, sent);
        let after =
            shown(&desk, &name, |client| connection(client).bytes_out >= connection(&before).bytes_out + sent).await;
        assert_eq!(connection(&after).bytes_out - connection(&before).bytes_out, sent);
        assert_eq!(after.subscriptions, 2);

        // A message of QoS 1 is in flight until it is acknowledged.
        raw.publish("t/2", b"x", 1, 5, false).await;
        let got = loop {
            let (first, body) = raw.receive().await.unwrap();
            if first >> 4 == 3 {
                break raw.read_publish(first, &body);
            }
        };
        shown(&desk, &name, |client| client.in_flight == 1).await;
        raw.ack(0x40, got.id).await;
        shown(&desk, &name, |client| client.in_flight == 0).await;
        drop(raw);
        gone(&desk, &name).await;
        ran += 1;
    }
    assert_eq!(ran, 2);
    broker.stop().await;
}

fn now_ms() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as u64
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_of_the_program_are_no_clients() {
    let broker = Running::start(|_| {});
    let desk = broker.handle.desk();
    let inside = broker.handle.subscribe("inside", vec![TopicFilter::new("t/#").unwrap()]).await.unwrap();
    let mut probe = broker.handle.connect_in_memory();
    tokio::io::AsyncWriteExt::write_all(&mut probe, b"\x10\x0c\0\x04MQTT\x04\x02\0\0\0\0").await.unwrap();
    let mut connack = [0; 4];
    tokio::io::AsyncReadExt::read_exact(&mut probe, &mut connack).await.unwrap();
    let (_raw, _) = Raw::connect(broker.address, &Hello::v3("only")).await;
    let page = desk.clients(PageAsk { limit: 10, from: None }).await.unwrap();
    assert_eq!(page.rows.iter().map(|client| client.id.as_str()).collect::<Vec<_>>(), ["only"]);
    assert_eq!(page.next, None);
    let page = desk.subscriptions(None, PageAsk { limit: 10, from: None }).await.unwrap();
    assert_eq!(page, Page { rows: Vec::new(), next: None });
    let stats = desk.stats().await.unwrap();
    assert_eq!((stats.connected, stats.disconnected, stats.maximum, stats.subscriptions), (1, 0, 1, 1));
    assert_eq!((stats.packets_in, stats.messages_in, broker.handle.is_up()), (1, 0, true));
    drop(inside);
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disconnected_client_is_told_and_its_will_is_published() {
    let broker = Running::start(|_| {});
    let desk = broker.handle.desk();
    let (mut watcher, _) = Raw::connect(broker.address, &Hello::v3("watcher")).await;
    assert_eq!(watcher.subscribe("will/#", 0).await, 0);
    let mut ran = 0;
    for (hello, told) in [(Hello::v3("old"), None), (Hello::v5("new"), Some((0xe0, vec![0x98])))] {
        let will = Some((format!("will/{}", hello.id), "gone".to_owned(), 0));
        let name = hello.id.clone();
        let (mut raw, _) = Raw::connect(broker.address, &Hello { will, ..hello }).await;
        assert_eq!(desk.disconnect(id(&name), false).await, Ok(Parting::Done));
        match told {
            Some((first, code)) => {
                let (got, body) = raw.receive().await.unwrap();
                assert_eq!((got, body[..1].to_vec()), (first, code));
                assert!(raw.is_closed().await);
            }
            None => assert!(raw.is_closed().await),
        }
        let will = watcher.receive_publish().await;
        assert_eq!((will.topic, will.payload), (format!("will/{name}"), b"gone".to_vec()));
        gone(&desk, &name).await;
        ran += 1;
    }
    assert_eq!(ran, 2);
    assert_eq!(desk.disconnect(id("nobody"), true).await, Ok(Parting::Unknown));
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_that_is_kept_is_shown_and_can_be_ended() {
    let broker = Running::start(|_| {});
    let desk = broker.handle.desk();
    let mut ran = 0;
    for hello in [Hello::v3("old").kept(), Hello::v5("new").kept()] {
        let name = hello.id.clone();
        let (mut raw, _) = Raw::connect(broker.address, &hello).await;
        assert_eq!(raw.subscribe("q/#", 1).await, 1);
        drop(raw);
        let away = shown(&desk, &name, |client| client.connection.is_none()).await;
        assert!(away.session_expiry > 60_000 && away.session_ends.unwrap() > now_ms(), "{away:?}");
        assert_eq!((away.subscriptions, away.queued_messages), (1, 0));
        let (mut publisher, _) = Raw::connect(broker.address, &Hello::v3("publisher")).await;
        for number in 1..=3 {
            publisher.publish("q/1", &[7; 100], 1, number, false).await;
            assert_eq!(publisher.receive().await.unwrap().0, 0x40);
        }
        let away = desk.client(id(&name)).await.unwrap().unwrap();
        assert_eq!(away.queued_messages, 3);
        assert_eq!(desk.disconnect(id(&name), false).await, Ok(Parting::NotConnected));
        assert_eq!(desk.disconnect(id(&name), true).await, Ok(Parting::Done));
        assert_eq!(desk.client(id(&name)).await, Ok(None));
        let (mut raw, connack) = Raw::connect(broker.address, &hello).await;
        assert_eq!(connack[0], 0, "no session is left");
        // Connected: the session ends with the connection, at once.
        assert_eq!(raw.subscribe("q/#", 1).await, 1);
        assert_eq!(desk.disconnect(id(&name), true).await, Ok(Parting::Done));
        assert_eq!(desk.client(id(&name)).await, Ok(None));
        while raw.receive().await.is_some() {}
        let (_raw, connack) = Raw::connect(broker.address, &hello).await;
        assert_eq!(connack[0], 0, "no session is left");
        ran += 1;
    }
    assert_eq!(ran, 2);
    broker.stop().await;
}

/// Every row of every page.
macro_rules! all {
    ($limit:expr, $page:expr) => {{
        let (mut rows, mut from, mut pages) = (Vec::new(), None, 0);
        loop {
            let page = $page(PageAsk { limit: $limit, from }).await.unwrap();
            assert!(page.rows.len() <= $limit);
            rows.extend(page.rows);
            pages += 1;
            from = page.next;
            if from.is_none() {
                break (rows, pages);
            }
        }
    }};
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_bounded_and_leave_nobody_out() {
    const SESSIONS: usize = 1_200;
    let broker = Running::start(|_| {});
    let desk = broker.handle.desk();
    let mut expected = BTreeSet::new();
    for number in 0..SESSIONS {
        let name = format!("c/{}", number * 7_919 % 10_007);
        let (mut raw, _) = Raw::connect(broker.address, &Hello::v5(&name).kept()).await;
        for filter in ["a/#", "b"] {
            assert_eq!(raw.subscribe(filter, 0).await, 0);
        }
        expected.insert(name);
    }
    let expected: Vec<_> = expected.into_iter().collect();
    assert_eq!(expected.len(), SESSIONS);
    let names = |rows: &[Client]| rows.iter().map(|client| client.id.as_str().to_owned()).collect::<Vec<_>>();

    let (rows, pages) = all!(100, |page| desk.clients(page));
    assert_eq!((names(&rows), pages), (expected.clone(), 12));
    let unbounded = desk.clients(PageAsk { limit: usize::MAX, from: None }).await.unwrap();
    assert_eq!((unbounded.rows.len(), unbounded.next.is_some()), (1_000, true));
    let none = desk.clients(PageAsk { limit: 0, from: None }).await.unwrap();
    assert_eq!(none.rows.len(), 1);

    let (rows, pages) = all!(333, |page| desk.subscriptions(None, page));
    let found: Vec<_> = rows.iter().map(|row| (row.client.as_str(), row.filter.as_str())).collect();
    let pairs: Vec<_> = expected.iter().flat_map(|name| [(name.as_str(), "a/#"), (name.as_str(), "b")]).collect();
    assert_eq!((found, pages), (pairs, 8));
    let (rows, pages) = all!(1, |page| desk.subscriptions(Some(id(&expected[5])), page));
    assert_eq!((rows.len(), pages, rows[1].filter.as_str()), (2, 2, "b"));

    // Who goes between two pages is no reason to leave out others.
    let first = desk.clients(PageAsk { limit: 10, from: None }).await.unwrap();
    assert_eq!(desk.disconnect(id(&expected[10]), true).await, Ok(Parting::Done));
    let second = desk.clients(PageAsk { limit: 10, from: first.next }).await.unwrap();
    assert_eq!(names(&second.rows), expected[11..21]);
    let stats = desk.stats().await.unwrap();
    assert!((SESSIONS - 1..=SESSIONS).contains(&(stats.connected + stats.disconnected)), "{stats:?}");
    broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn questions_without_end_hold_nobody() {
    let broker = Running::start(|_| {});
    let desk = broker.handle.desk();
    let asking: Vec<_> = (0..50)
        .map(|_| {
            let desk = desk.clone();
            tokio::spawn(async move {
                for _ in 0..100 {
                    desk.clients(PageAsk { limit: 1_000, from: None }).await.unwrap();
                }
            })
        })
        .collect();
    let (mut raw, _) = Raw::connect(broker.address, &Hello::v3("honest")).await;
    for number in 1..=200 {
        raw.publish("t", b"x", 1, number, false).await;
        assert_eq!(raw.receive().await.unwrap().0, 0x40);
    }
    for asking in asking {
        asking.await.unwrap();
    }
    broker.stop().await;
}

/// Publications until one fits.
async fn until(raw: &mut Raw, fits: impl Fn(&Got) -> bool) -> Vec<Got> {
    let mut all = Vec::new();
    loop {
        let (first, body) = raw.receive().await.expect("a packet");
        if first >> 4 == 3 {
            let got = raw.read_publish(first, &body);
            let found = fits(&got);
            all.push(got);
            if found {
                return all;
            }
        }
    }
}

fn values(got: &[Got]) -> BTreeMap<&str, &str> {
    let value = |got: &Got| std::str::from_utf8(&got.payload).unwrap().to_owned();
    got.iter().map(|got| (got.topic.strip_prefix("$SYS/broker/").unwrap(), &*value(got).leak())).collect()
}

async fn ask_for(raw: &mut Raw, filter: &str) {
    let mut body = vec![0, 9];
    if raw.version == 5 {
        body.push(0);
    }
    text(&mut body, filter.as_bytes());
    body.push(2);
    raw.send(0x82, &body).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_broker_tells_of_itself_who_asks_for_it_and_nobody_else() {
    let broker = Running::start(|_| {});
    let (mut everything, _) = Raw::connect(broker.address, &Hello::v3("everything")).await;
    assert_eq!(everything.subscribe("#", 0).await, 0);
    assert_eq!(everything.subscribe("+/broker/uptime", 0).await, 0);
    let (mut publisher, _) = Raw::connect(broker.address, &Hello::v5("publisher")).await;
    // Nobody may, also not with the retain flag.
    publisher.publish_with(0x33, "$SYS/broker/uptime", 3, &[], b"forged").await;
    let (first, body) = publisher.receive().await.unwrap();
    assert_eq!((first, &body[..]), (0x40, &[0, 3, 0x87][..]));
    for number in 1..=5 {
        publisher.publish("a/b", &[1; 10], 1, number, false).await;
        assert_eq!(publisher.receive().await.unwrap().0, 0x40);
    }
    publisher.publish_with(0x33, "kept", 6, &[], b"four").await;
    assert_eq!(publisher.receive().await.unwrap().0, 0x40);
    let (kept, _) = Raw::connect(broker.address, &Hello::v3("kept").kept()).await;
    drop(kept);
    shown(&broker.handle.desk(), "kept", |client| client.connection.is_none()).await;
    // The numbers may be a second old.
    let begun = Instant::now();
    while broker.handle.desk().stats().await.unwrap().disconnected == 0 {
        assert!(begun.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    let (mut listener, _) = Raw::connect(broker.address, &Hello::v5("listener")).await;
    ask_for(&mut listener, "$SYS/#").await;
    let now = until(&mut listener, |got| got.topic == "$SYS/broker/load/connections/15min").await;
    assert!(
        now.iter().all(|got| got.retain && got.qos == 0 && got.payload != b"forged"),
        "present values, as retained"
    );
    let present = values(&now);
    assert_eq!((now.len(), present.len()), (53, 53));
    let number = |name: &str| present[name].parse::<u64>().unwrap();
    assert!(present["version"].starts_with("sense-butler version "));
    assert!(present["uptime"].ends_with(" seconds"));
    assert_eq!((number("clients/disconnected"), number("clients/maximum")), (1, 3));
    assert!((2..=3).contains(&number("clients/connected")), "the listener may be too new");
    assert_eq!(number("clients/total"), number("clients/connected") + 1);
    assert_eq!((number("retained messages/count"), number("clients/expired")), (1, 0));
    assert_eq!((number("publish/messages/received"), number("publish/messages/dropped")), (7, 1));
    assert_eq!((number("publish/messages/sent"), number("publish/bytes/sent")), (6, 54));
    assert_eq!(number("publish/bytes/received"), 60);
    assert_eq!(number("subscriptions/count"), 2);
    // 7 PUBLISH, 3 CONNECT or 4, 2 SUBSCRIBE.
    assert!((12..=13).contains(&number("messages/received")), "{present:?}");

    // Live: ten seconds later, without the retain flag.
    let live = until(&mut listener, |got| got.topic == "$SYS/broker/load/connections/15min").await;
    assert!(live.iter().all(|got| !got.retain));
    let live = values(&live);
    assert_eq!((live.len(), live["clients/connected"], live["clients/total"]), (53, "3", "4"));
    assert_ne!(live["load/messages/received/1min"], "0.00");

    // A filter that names one value gets that one; `#` got nothing of all this.
    let (mut one, _) = Raw::connect(broker.address, &Hello::v3("one")).await;
    ask_for(&mut one, "$SYS/+/clients/connected").await;
    let got = until(&mut one, |_| true).await;
    assert_eq!((got[0].topic.as_str(), got[0].retain), ("$SYS/broker/clients/connected", true));
    publisher.publish("end", b"", 0, 0, false).await;
    let seen = until(&mut everything, |got| got.topic == "end").await;
    assert!(seen.iter().all(|got| !got.topic.starts_with('$')), "{seen:?}");
    assert_eq!(seen.len(), 7);
    let kept =
        broker.handle.desk().retained(TopicFilter::new("$SYS/#").unwrap(), PageAsk { limit: 9, from: None }).await;
    assert_eq!(kept.unwrap().rows, []);
    broker.stop().await;
}
