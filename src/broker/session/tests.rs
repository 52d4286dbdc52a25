//! Outbox, handshakes, and the two together as a connection sees them.

use std::{sync::Arc, time::Instant};

use super::*;
use crate::{
    broker::{
        envelope::{Draft, Message, PublishDraft},
        message::{Door, Origin},
        peer::{Kick, Peer, Reply},
    },
    names::QoS,
};

const MARKS: Marks = Marks { low: 1_000, high: 2_000, hard: 4_000, count: 50 };

fn peer() -> Arc<Peer> {
    Peer::new(Origin { door: Door::Mqtt, client: None, user: None, may_start: false }, None)
}

/// An entry that counts `size` bytes.
fn entry(qseq: u64, qos: QoS, size: usize) -> Entry {
    let message = |payload: &[u8]| {
        let draft = Draft::publish(&PublishDraft {
            topic: b"t",
            properties: b"",
            payload,
            qos,
            retain: false,
            dup: false,
            packet_id: 0,
            received: 0,
            expires: 0,
        });
        Message::read(draft.stamp(0, 0)).unwrap()
    };
    let bare = message(&[]).size();
    let message = Arc::new(message(&vec![0; size.saturating_sub(bare)]));
    Entry { message, qseq, qos, retain: false, ids: None }
}

fn small(qseq: u64, qos: QoS) -> Entry {
    entry(qseq, qos, 0)
}

fn kick(peer: &Arc<Peer>) -> Option<Kick> {
    peer.take(&mut Vec::<Reply>::new())
}

struct Served {
    outbox: Outbox,
    own: Arc<Peer>,
    now: Instant,
}

impl Served {
    fn new(persistent: bool) -> Self {
        let (mut outbox, own) = (Outbox::new(MARKS), peer());
        assert!(outbox.attach(Arc::clone(&own), persistent).is_empty());
        Self { outbox, own, now: Instant::now() }
    }

    fn deliver(&mut self, mut entries: Vec<Entry>, from: &[&Arc<Peer>]) -> outbox::Delivered {
        self.outbox.deliver(&mut entries, from.iter().copied(), self.now)
    }

    fn take(&mut self, budget: usize) -> Vec<u64> {
        let mut out = Vec::new();
        let taken = self.outbox.take(budget, usize::MAX, u64::MAX, &mut out);
        taken.released.iter().for_each(|peer| peer.release());
        out.iter().map(|entry| entry.qseq).collect()
    }

    fn check_after(&mut self, milliseconds: u64) -> bool {
        let now = self.now + std::time::Duration::from_millis(milliseconds);
        let (holds, released) = self.outbox.check_hold(now);
        released.iter().for_each(|peer| peer.release());
        holds
    }
}

#[test]
fn publishers_are_held_above_high_and_go_on_below_low() {
    let mut served = Served::new(false);
    let (first, second) = (peer(), peer());
    let own = Arc::clone(&served.own);
    assert!(
        !served.deliver((1..=4).map(|n| entry(n, QoS::AtLeastOnce, 500)).collect(), &[&first]).holds,
        "at the mark"
    );
    assert!(served.deliver(vec![entry(5, QoS::AtLeastOnce, 500)], &[&first, &own, &first]).holds);
    assert!(served.deliver(vec![entry(6, QoS::AtLeastOnce, 500)], &[&second]).holds);
    assert_eq!([&first, &second, &own].map(|peer| peer.is_held()), [true, true, false]);
    assert_eq!(served.take(1_900), [1, 2, 3, 4]);
    assert!(first.is_held(), "1,000 bytes are not below low");
    assert_eq!(served.take(1), [5]);
    assert_eq!([&first, &second].map(|peer| peer.is_held()), [false, false]);
}

#[test]
fn a_held_session_holds_nobody() {
    let mut served = Served::new(false);
    let (publisher, other) = (peer(), peer());
    served.own.hold();
    let large = || (1..=5).map(|n| entry(n, QoS::AtMostOnce, 500)).collect::<Vec<_>>();
    assert!(!served.deliver(large(), &[&publisher]).holds && !publisher.is_held());
    served.own.release();
    assert!(served.deliver(vec![small(6, QoS::AtMostOnce)], &[&publisher, &other]).holds && publisher.is_held());
    // Held itself while it holds: the circle is opened at the next tick, and it is not called lagging for that.
    served.own.hold();
    assert!(!served.check_after(10) && !publisher.is_held() && !other.is_held());
    assert!(!served.outbox.is_lagging());
    assert_eq!(served.deliver(vec![small(7, QoS::AtMostOnce)], &[]).dropped_lagging, 0);
}

#[test]
fn a_hold_that_lasts_makes_the_session_lag_until_it_drained() {
    let mut served = Served::new(false);
    let publisher = peer();
    let large = (1..=5).map(|n| entry(n, QoS::AtMostOnce, 500)).collect();
    assert!(served.deliver(large, &[&publisher]).holds);
    assert!(served.check_after(900) && publisher.is_held());
    assert!(!served.check_after(1_100) && !publisher.is_held());
    assert!(served.outbox.is_lagging());
    assert_eq!(kick(&served.own), None, "QoS 0 alone is dropped, not reported");
    let delivered = served.deliver(vec![small(0, QoS::AtMostOnce), small(6, QoS::AtLeastOnce)], &[&publisher]);
    assert_eq!((delivered.dropped_lagging, delivered.holds, publisher.is_held()), (1, false, false));
    assert_eq!(served.take(usize::MAX).len(), 6);
    assert_eq!(served.deliver(vec![small(0, QoS::AtMostOnce)], &[&publisher]).dropped_lagging, 0);
}

#[test]
fn a_clean_session_that_lags_with_promised_messages_is_closed_a_persistent_one_is_not() {
    for (persistent, expected) in [(false, Some(Kick::QuotaExceeded)), (true, None)] {
        let mut served = Served::new(persistent);
        let publisher = peer();
        served.deliver((1..=5).map(|n| entry(n, QoS::AtLeastOnce, 500)).collect(), &[&publisher]);
        assert!(!served.check_after(1_100));
        assert_eq!(kick(&served.own), expected, "persistent: {persistent}");
    }
}

#[test]
fn a_full_queue_drops_and_counts() {
    for (persistent, expected) in [(false, Some(Kick::QuotaExceeded)), (true, None)] {
        let mut served = Served::new(persistent);
        let delivered = served.deliver((1..=9).map(|n| entry(n, QoS::AtLeastOnce, 500)).collect(), &[]);
        assert_eq!(delivered.dropped_full, 1);
        assert_eq!(kick(&served.own), expected);
        assert_eq!(served.take(usize::MAX), (1..=8).collect::<Vec<_>>());
        // Into an empty outbox a message of any size goes; behind it, none.
        let delivered = served.deliver(vec![entry(10, QoS::AtLeastOnce, 9_000), small(11, QoS::AtMostOnce)], &[]);
        assert_eq!(delivered.dropped_full, 1);
        assert_eq!(served.take(1), [10]);
    }
}

#[test]
fn the_count_is_a_limit_also_for_small_messages() {
    let mut served = Served::new(true);
    served.outbox = Outbox::new(Marks::of(4 << 20, 10));
    served.outbox.attach(Arc::clone(&served.own), true);
    let delivered = served.deliver((1..=15).map(|n| small(n, QoS::AtLeastOnce)).collect(), &[]);
    assert_eq!((delivered.dropped_full, served.take(usize::MAX).len()), (5, 10));
}

#[test]
fn while_away_only_what_is_promised_is_kept_and_whom_it_held_goes_on() {
    let mut served = Served::new(true);
    let publisher = peer();
    let qos = |n: u64| if n.is_multiple_of(2) { QoS::AtMostOnce } else { QoS::AtLeastOnce };
    served.deliver((1..=5).map(|n| entry(n, qos(n), 500)).collect(), &[&publisher]);
    for released in served.outbox.detach() {
        released.release();
    }
    assert!(!publisher.is_held());
    assert!(!served.deliver(vec![small(0, QoS::AtMostOnce), entry(7, QoS::ExactlyOnce, 1_000)], &[&publisher]).holds);
    assert_eq!(served.take(usize::MAX), [1, 3, 5, 7]);
    let mut clean = Served::new(false);
    clean.outbox.detach();
    clean.deliver(vec![small(1, QoS::AtLeastOnce)], &[]);
    assert!(clean.take(usize::MAX).is_empty());
}

#[test]
fn what_is_not_committed_waits_and_everything_behind_it() {
    let mut served = Served::new(true);
    served.deliver(vec![small(1, QoS::AtLeastOnce), small(0, QoS::AtMostOnce), small(2, QoS::AtLeastOnce)], &[]);
    let mut out = Vec::new();
    served.outbox.take(usize::MAX, usize::MAX, 1, &mut out);
    assert_eq!(out.len(), 2);
    served.outbox.take(usize::MAX, 0, 9, &mut out);
    assert_eq!(out.len(), 2, "no window");
    served.outbox.take(usize::MAX, 1, 9, &mut out);
    assert_eq!(out.len(), 3);
}

#[test]
fn no_two_ids_meet_in_one_portion_even_where_positions_have_gaps() {
    let mut served = Served::new(true);
    served.deliver([1, 2, 65_536, 65_537].map(|n| small(n, QoS::AtLeastOnce)).into(), &[]);
    assert_eq!(served.take(usize::MAX), [1, 2]);
    assert_eq!(served.take(usize::MAX), [65_536, 65_537]);
}

struct Serving {
    session: Session,
    own: Arc<Peer>,
}

impl Serving {
    fn new() -> Self {
        let session = Session::new(ClientId::new("c").unwrap(), Marks::of(64 << 20, 200_000));
        session.commit(u64::MAX);
        let mut serving = Self { session, own: peer() };
        serving.attach();
        serving
    }

    /// Another connection takes over.
    fn attach(&mut self) -> u64 {
        self.own = peer();
        self.session.handshakes.lock().attach(&self.own);
        self.session.outbox.lock().attach(Arc::clone(&self.own), true);
        self.own.id
    }

    fn deliver(&self, positions: impl IntoIterator<Item = u64>, qos: QoS) {
        let mut entries = positions.into_iter().map(|n| small(n, qos)).collect();
        self.session.outbox.lock().deliver(&mut entries, [].iter(), Instant::now());
    }

    fn take(&self, receive_maximum: u16) -> Vec<u64> {
        let mut out = Vec::new();
        self.session.take(self.own.id, usize::MAX, receive_maximum, &mut out).unwrap();
        out.iter().map(|entry| entry.qseq).collect()
    }

    fn shakes(&self) -> parking_lot::MutexGuard<'_, Handshakes> {
        self.session.handshakes.lock()
    }

    fn left(&self) -> Vec<(u16, bool)> {
        let resend = self.shakes().resend();
        resend
            .iter()
            .map(|one| match one {
                Resend::Publish(id, _) => (*id, true),
                Resend::PubRel(id) => (*id, false),
            })
            .collect()
    }
}

#[test]
fn a_connection_that_was_taken_over_gets_nothing_and_loses_nothing() {
    let mut serving = Serving::new();
    let old = serving.own.id;
    serving.deliver(1..=3, QoS::AtLeastOnce);
    serving.attach();
    let mut out = Vec::new();
    assert_eq!(serving.session.take(old, usize::MAX, 10, &mut out).err(), Some(Stale));
    assert!(out.is_empty());
    assert_eq!(serving.take(10), [1, 2, 3]);
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
    assert_eq!(serving.left(), [(packet_id(1), true)]);
    assert_eq!(serving.shakes().puback(own, packet_id(1)), Ok(true));
    assert_eq!(serving.take(1), [65_536]);
    assert_eq!(packet_id(65_536), packet_id(1));
}

#[test]
fn acknowledgements_in_any_order_and_what_is_left_in_order() {
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
    assert_eq!(serving.shakes().pubrec(own, id(2), 0), Ok(false), "PUBREC of a QoS 1 message");
    assert_eq!(serving.shakes().pubcomp(own, id(5)), Ok(false), "PUBCOMP before PUBREC");
    assert_eq!(serving.shakes().pubrec(own, id(5), 0), Ok(true));
    assert_eq!(serving.shakes().pubrec(own, id(5), 0), Ok(true), "twice: PUBREL again");
    assert_eq!(serving.shakes().pubrec(own, id(6), 0x97), Ok(true), "refused: done");
    assert_eq!(serving.left(), [(id(1), true), (id(2), true), (id(4), true), (id(5), false)]);
    assert_eq!(serving.take(6), [7, 8]);
    let own = serving.attach();
    assert_eq!(
        serving.left(),
        [(id(1), true), (id(2), true), (id(4), true), (id(5), false), (id(7), true), (id(8), true)]
    );
    assert_eq!(serving.shakes().pubcomp(own, id(5)), Ok(true));
    assert_eq!(serving.shakes().forget(own, id(7)), Ok(()));
    assert_eq!(serving.left(), [(id(1), true), (id(2), true), (id(4), true), (id(8), true)]);
}

#[test]
fn resending_keeps_to_the_new_receive_maximum_and_skips_what_was_settled() {
    let mut serving = Serving::new();
    serving.deliver(1..=3, QoS::ExactlyOnce);
    assert_eq!(serving.take(3), [1, 2, 3]);
    let own = serving.attach();
    let resend = serving.shakes().resend();
    let mut shakes = serving.shakes();
    assert_eq!(shakes.may_resend(own, &resend[0], 3, 1), Ok(Some(true)));
    assert_eq!(shakes.may_resend(own, &resend[1], 2, 1), Ok(None));
    assert_eq!(shakes.pubrec(own, packet_id(2), 0), Ok(true));
    assert_eq!(shakes.may_resend(own, &resend[1], 2, 5), Ok(Some(false)), "its PUBREL is out already");
    assert_eq!(shakes.pubcomp(own, packet_id(2)), Ok(true));
    assert_eq!(shakes.may_resend(own + 1, &resend[2], 1, 5), Err(Stale));
}

#[test]
fn an_incoming_id_is_routed_once_until_it_is_released() {
    let mut serving = Serving::new();
    let own = serving.own.id;
    assert_eq!(serving.shakes().receive(own, 7), Ok(Incoming::New));
    assert_eq!(serving.shakes().receive(own, 7), Ok(Incoming::Routing));
    let own = serving.attach();
    assert_eq!(serving.shakes().receive(own, 7), Ok(Incoming::Routing), "known to the session, not to the connection");
    assert_eq!(serving.shakes().routed(7, true).map(|peer| peer.id), Some(own));
    assert_eq!(serving.shakes().receive(own, 7), Ok(Incoming::Received));
    assert_eq!(serving.shakes().pubrel(own, 7), Ok(true));
    assert_eq!(serving.shakes().pubrel(own, 7), Ok(false));
    assert_eq!(serving.shakes().receive(own, 7), Ok(Incoming::New));
    serving.shakes().detach();
    assert!(serving.shakes().routed(7, false).is_none());
    assert_eq!(serving.shakes().receive(own, 7), Ok(Incoming::New), "what was not taken is forgotten");
}

#[test]
fn session_and_connection_let_go_of_each_other() {
    let serving = Serving::new();
    let (own, weak) = (Arc::clone(&serving.own), Arc::downgrade(&serving.own));
    serving.shakes().detach();
    drop(serving.session.outbox.lock().detach());
    drop((serving.own, own));
    assert!(weak.upgrade().is_none());
}
