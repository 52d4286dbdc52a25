//! Packet ids, and the session as a connection sees it: what is sent, acknowledged, sent again, taken up after a restart.

use super::*;

/// What a connection writes: (packet id, DUP), or the id of a PUBREL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sent {
    Publish(u16, bool),
    PubRel(u16),
}

struct Serving {
    session: Arc<Session>,
    store: MemoryStore,
    own: Arc<Peer>,
}

impl Serving {
    fn new() -> Self {
        let session = Session::new(ClientId::new("c").unwrap(), Marks::of(64 << 20, 200_000), Some(Sid(1)));
        let mut serving = Self { session: Arc::new(session), store: MemoryStore::default(), own: peer() };
        serving.attach();
        serving
    }

    /// Another connection takes over.
    fn attach(&mut self) -> u64 {
        self.own = peer();
        self.session.attach(&self.own);
        self.own.id
    }

    /// Gives the session messages, each its own group, and commits them.
    fn deliver(&self, positions: impl IntoIterator<Item = u64>, qos: QoS) {
        for entry in positions.into_iter().map(|n| stored(small(n, qos))) {
            let mut group = Group::new(entry.qseq);
            let place = group.place(&entry.message);
            group.queues = vec![(
                Sid(1),
                vec![Row { qseq: entry.qseq, place, qos, retain: false, ids: None, pool: None, origin: None }],
            )];
            group.promise.mark(&self.session, entry.qseq);
            self.session.outbox.lock().deliver(&mut vec![entry], [].iter(), Instant::now());
            self.store.submit(group);
        }
    }

    /// What goes out now; pages are read back as they are asked for.
    fn send(&self, receive_maximum: u16) -> Vec<Sent> {
        let mut out = Vec::new();
        loop {
            let before = out.len();
            let taken = self.session.take(self.own.id, usize::MAX, receive_maximum, &mut out).unwrap();
            if taken.page {
                self.store.load(&self.session);
            }
            if !taken.page && out.len() == before {
                break;
            }
        }
        let sent = out.iter().map(|parcel| match parcel {
            Parcel::Publish { entry, again } => Sent::Publish(packet_id(entry.qseq), *again),
            Parcel::PubRel(id) => Sent::PubRel(*id),
        });
        sent.collect()
    }

    fn take(&self, receive_maximum: u16) -> Vec<u64> {
        let mut out = Vec::new();
        self.session.take(self.own.id, usize::MAX, receive_maximum, &mut out).unwrap();
        out.iter().map(position).collect()
    }

    fn shakes(&self) -> parking_lot::MutexGuard<'_, Handshakes> {
        self.session.handshakes.lock()
    }

    /// Progress is written; the answers that waited for it come back.
    fn write(&self) -> Vec<Reply> {
        self.store.touch(&self.session);
        let mut replies = Vec::new();
        self.own.take(&mut replies);
        replies
    }
}

fn reply(kind: AckKind, packet_id: u16) -> Reply {
    Reply::Ack { kind, packet_id, reason: 0 }
}

#[test]
fn a_connection_that_was_taken_over_gets_nothing_and_loses_nothing() {
    let mut serving = Serving::new();
    let old = serving.own.id;
    serving.deliver(1..=3, QoS::AtLeastOnce);
    serving.attach();
    let mut out: Vec<Parcel> = Vec::new();
    assert_eq!(serving.session.take(old, usize::MAX, 10, &mut out).err(), Some(Stale));
    assert!(out.is_empty());
    assert_eq!(serving.send(10), [1, 2, 3].map(|n| Sent::Publish(packet_id(n), false)));
    let mut shakes = serving.shakes();
    assert_eq!(shakes.puback(old, 2), Err(Stale));
    assert_eq!(shakes.pubrec(old, 2, 0), Err(Stale));
    assert_eq!(
        (shakes.pubcomp(old, 2), shakes.pubrel(old, 2), shakes.forget(old, 2)),
        (Err(Stale), Err(Stale), Err(Stale))
    );
    assert_eq!(shakes.receive(old, 2), Err(Stale));
}

#[test]
fn ids_go_round_and_the_oldest_stops_them() {
    let serving = Serving::new();
    let own = serving.own.id;
    serving.deliver(1..=131_100, QoS::AtLeastOnce);
    let (mut next, mut ids) = (1u64, std::collections::BTreeSet::new());
    // Everything but the very first is acknowledged as it comes.
    while let Some(last) = serving.take(100).last().copied() {
        for position in next..=last {
            ids.insert(packet_id(position));
            if position > 1 {
                assert_eq!(serving.shakes().puback(own, packet_id(position)), Ok(true), "{position}");
            }
        }
        next = last + 1;
    }
    assert_eq!((next, ids.len()), (65_536, 65_535), "the id of the first is not given twice");
    assert_eq!((ids.first(), ids.last()), (Some(&1), Some(&65_535)));
    assert_eq!(serving.shakes().puback(own, packet_id(1)), Ok(true));
    assert_eq!(serving.take(1), [65_536]);
    assert_eq!(packet_id(65_536), packet_id(1));
}

#[test]
fn acknowledgements_in_any_order_and_what_is_left_again_in_order() {
    let mut serving = Serving::new();
    let own = serving.own.id;
    serving.deliver(1..=3, QoS::AtLeastOnce);
    serving.deliver(4..=8, QoS::ExactlyOnce);
    assert_eq!(serving.take(6), [1, 2, 3, 4, 5, 6]);
    assert_eq!(serving.take(6), [] as [u64; 0]);
    let id = packet_id;
    assert_eq!(serving.shakes().puback(own, id(3)), Ok(true));
    assert_eq!(serving.shakes().puback(own, id(3)), Ok(false), "twice");
    assert_eq!(serving.shakes().puback(own, id(4)), Ok(false), "PUBACK of a QoS 2 message");
    assert_eq!(serving.shakes().pubrec(own, id(2), 0), Ok(Released::Unknown), "PUBREC of a QoS 1 message");
    assert_eq!(serving.shakes().pubcomp(own, id(5)), Ok(false), "PUBCOMP before PUBREC");
    assert_eq!(serving.shakes().pubrec(own, id(5), 0), Ok(Released::Later));
    assert_eq!(serving.shakes().pubrec(own, id(5), 0), Ok(Released::Later), "twice: once is enough");
    assert_eq!(serving.shakes().pubrec(own, id(6), 0x97), Ok(Released::Ended), "refused: done");
    assert_eq!(serving.write(), [reply(AckKind::PubRel, id(5))]);
    assert_eq!(serving.shakes().pubrec(own, id(5), 0), Ok(Released::Now), "again: PUBREL again");
    assert_eq!(serving.take(6), [7, 8]);
    let own = serving.attach();
    let again = |n| Sent::Publish(id(n), true);
    let expected = [again(1), again(2), again(4), Sent::PubRel(id(5)), again(7), again(8)];
    assert_eq!(serving.send(10), expected);
    assert_eq!(serving.shakes().pubcomp(own, id(5)), Ok(true));
    assert_eq!(serving.shakes().forget(own, id(7)), Ok(()));
    serving.attach();
    assert_eq!(serving.send(10), [again(1), again(2), again(4), again(8)]);
}

#[test]
fn sending_again_keeps_to_the_new_receive_maximum_and_skips_what_was_settled() {
    let mut serving = Serving::new();
    serving.deliver(1..=4, QoS::ExactlyOnce);
    assert_eq!(serving.take(3), [1, 2, 3]);
    let own = serving.attach();
    let again = |n| Sent::Publish(packet_id(n), true);
    assert_eq!(serving.send(1), [again(1)]);
    assert_eq!(serving.shakes().pubrec(own, packet_id(2), 0), Ok(Released::Later), "it got it the first time");
    assert_eq!(serving.write(), [reply(AckKind::PubRel, packet_id(2))]);
    assert_eq!(serving.shakes().pubcomp(own, packet_id(2)), Ok(true));
    assert_eq!(serving.send(2), [again(3)]);
    assert_eq!(serving.send(9), [Sent::Publish(packet_id(4), false)]);
}

#[test]
fn what_an_earlier_process_knew_is_taken_up() {
    let serving = Serving::new();
    serving.deliver(1..=6, QoS::ExactlyOnce);
    let progress = Progress { floor: 2, sent: 4, above: vec![4], released: vec![3], completed: Vec::new() };
    let record = SessionRecord {
        owner: Owner::Client,
        origin: None,
        client: ClientId::new("c").unwrap(),
        expiry: 9,
        left_at: None,
        will: None,
    };
    let kept = RecoveredSession { sid: Sid(1), record, filters: Vec::new(), progress, incoming: vec![7], next_qseq: 7 };
    let mut later = Serving { session: Arc::new(Session::recovered(&kept, MARKS)), ..serving };
    let own = later.attach();
    let expected = [
        Sent::Publish(packet_id(2), true),
        Sent::PubRel(packet_id(3)),
        Sent::Publish(packet_id(5), false),
        Sent::Publish(packet_id(6), false),
    ];
    assert_eq!(later.send(10), expected);
    assert_eq!(later.shakes().receive(own, 7), Ok(Incoming::Received));
    let again = later.shakes().progress();
    assert_eq!((again.floor, again.sent, again.above, again.released), (2, 6, vec![4], vec![3]));
}

#[test]
fn an_incoming_id_is_routed_once_until_it_is_released() {
    let mut serving = Serving::new();
    let own = serving.own.id;
    assert_eq!(serving.shakes().receive(own, 7), Ok(Incoming::New));
    assert_eq!(serving.shakes().receive(own, 7), Ok(Incoming::Routing));
    assert_eq!(serving.shakes().pubrel(own, 7), Ok(Released::Unknown), "it has had no PUBREC");
    let own = serving.attach();
    assert_eq!(serving.shakes().receive(own, 7), Ok(Incoming::Routing), "known to the session, not to the connection");
    assert_eq!(serving.shakes().routed(7, true).map(|peer| peer.id), Some(own));
    assert_eq!(serving.shakes().receive(own, 7), Ok(Incoming::Received));
    assert_eq!(serving.shakes().pubrel(own, 7), Ok(Released::Later));
    assert_eq!(serving.shakes().receive(own, 7), Ok(Incoming::Routing), "its end is being written");
    assert_eq!(serving.write(), [reply(AckKind::PubComp, 7)]);
    assert_eq!(serving.shakes().pubrel(own, 7), Ok(Released::Unknown));
    assert_eq!(serving.shakes().receive(own, 7), Ok(Incoming::New));
    serving.shakes().detach();
    assert!(serving.shakes().routed(7, false).is_none());
    assert_eq!(serving.shakes().receive(own, 7), Ok(Incoming::New), "what was not taken is forgotten");
}

#[test]
fn session_and_connection_let_go_of_each_other() {
    let serving = Serving::new();
    let (own, weak) = (Arc::clone(&serving.own), Arc::downgrade(&serving.own));
    drop(serving.session.detach());
    drop((serving.own, own));
    assert!(weak.upgrade().is_none());
}
