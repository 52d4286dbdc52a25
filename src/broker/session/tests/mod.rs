//! The outbox by itself; what follows from packet ids is in [`serving`].

use std::{sync::Arc, time::Instant};

use super::*;
use crate::{
    broker::{
        codec::write::AckKind,
        envelope::{Draft, Message, PublishDraft},
        message::{Door, Origin},
        peer::{Kick, Peer, Reply},
        store::{Group, MemoryStore, Owner, Page, Place, Progress, RecoveredSession, Row, SessionRecord},
    },
    names::QoS,
};

mod serving;

const MARKS: Marks = Marks { low: 1_000, high: 2_000, hard: 4_000, count: 50 };

fn peer() -> Arc<Peer> {
    Peer::new(Origin { door: Door::Mqtt, client: None, user: None, may_start: false }, None)
}

/// The same, with a place in the store.
fn stored(entry: Entry) -> Entry {
    let place = Place { batch: entry.qseq, index: 0 };
    Entry { gated: true, place: Some(place), ..entry }
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
    Entry { message, qseq, qos, retain: false, ids: None, gated: false, place: None, pool: None }
}

fn small(qseq: u64, qos: QoS) -> Entry {
    entry(qseq, qos, 0)
}

fn kick(peer: &Arc<Peer>) -> Option<Kick> {
    peer.take(&mut Vec::<Reply>::new())
}

fn position(parcel: &Parcel) -> u64 {
    match parcel {
        Parcel::Publish { entry, .. } => entry.qseq,
        Parcel::PubRel(id) => panic!("PUBREL {id}"),
    }
}

struct Served {
    outbox: Outbox,
    own: Arc<Peer>,
    now: Instant,
}

impl Served {
    fn new(stored: bool) -> Self {
        Self::with(MARKS, stored)
    }

    fn with(marks: Marks, stored: bool) -> Self {
        let (mut outbox, own) = (Outbox::new(marks, stored), peer());
        assert!(outbox.attach(Arc::clone(&own), 1).is_empty());
        Self { outbox, own, now: Instant::now() }
    }

    fn deliver(&mut self, mut entries: Vec<Entry>, from: &[&Arc<Peer>]) -> outbox::Delivered {
        self.outbox.deliver(&mut entries, from.iter().copied(), self.now)
    }

    fn take(&mut self, budget: usize) -> Vec<u64> {
        let mut out = Vec::new();
        let mut handshakes = Handshakes::new(false);
        let taken = self.outbox.take(budget, &mut handshakes, u16::MAX, u64::MAX, &mut out);
        taken.released.iter().for_each(|peer| peer.release());
        out.iter().map(position).collect()
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
fn a_full_queue_drops_and_counts_and_closes() {
    let mut served = Served::new(false);
    let delivered = served.deliver((1..=9).map(|n| entry(n, QoS::AtLeastOnce, 500)).collect(), &[]);
    assert_eq!(delivered.dropped_full, 1);
    assert_eq!(kick(&served.own), Some(Kick::QuotaExceeded));
    assert_eq!(served.take(usize::MAX), (1..=8).collect::<Vec<_>>());
    // Into an empty outbox a message of any size goes; behind it, none.
    let delivered = served.deliver(vec![entry(10, QoS::AtLeastOnce, 9_000), small(11, QoS::AtMostOnce)], &[]);
    assert_eq!(delivered.dropped_full, 1);
    assert_eq!(served.take(1), [10]);
}

#[test]
fn the_count_is_a_limit_also_for_small_messages() {
    let mut served = Served::with(Marks::of(4 << 20, 10), false);
    let delivered = served.deliver((1..=15).map(|n| small(n, QoS::AtLeastOnce)).collect(), &[]);
    assert_eq!((delivered.dropped_full, served.take(usize::MAX).len()), (5, 10));
}

#[test]
fn a_stored_queue_that_overflows_leaves_memory_and_is_read_back() {
    let mut served = Served::new(true);
    let mixed = |n: u64| {
        if n == 3 { small(0, QoS::AtMostOnce) } else { stored(entry(n, QoS::AtLeastOnce, 500)) }
    };
    let delivered = served.deliver((1..=12).map(mixed).collect(), &[]);
    assert_eq!((delivered.dropped_full, delivered.dropped_lagging), (0, 1), "QoS 0 has no other place");
    assert_eq!(kick(&served.own), None);
    // What came after the overflow is in memory again, and waits behind what is read back.
    assert!(served.take(usize::MAX).is_empty());
    let wanted = served.outbox.wanted(u64::MAX).unwrap();
    assert_eq!((wanted.from, wanted.to), (1, 9));
    assert_eq!(served.outbox.wanted(4).unwrap().to, 4, "no further than the commits");
    let stale = Wanted { turn: wanted.turn + 1, ..wanted };
    served.outbox.page(stale, Some(page(1..=9)));
    assert!(served.take(usize::MAX).is_empty(), "a page for another connection");
    served.outbox.page(wanted, Some(page(1..=4)));
    assert_eq!(served.take(usize::MAX), [1, 2, 3, 4]);
    assert_eq!(served.outbox.wanted(u64::MAX).unwrap().from, 5);
    served.outbox.page(wanted, Some(page(5..=9)));
    assert_eq!(served.take(usize::MAX), [5, 6, 7, 8, 9, 10, 11, 12]);
    assert_eq!(served.outbox.wanted(u64::MAX), None);
}

fn page(positions: std::ops::RangeInclusive<u64>) -> Page {
    let next = positions.end() + 1;
    let rows = positions.map(|n| {
        let Entry { message, qseq, qos, retain, ids, place, .. } = stored(small(n, QoS::AtLeastOnce));
        (Row { qseq, place: place.unwrap(), qos, retain, ids, pool: None, origin: None }, message)
    });
    Page { rows: rows.collect(), next }
}

#[test]
fn who_leaves_holds_nobody_and_nothing_in_memory() {
    let mut served = Served::new(true);
    let publisher = peer();
    let qos = |n: u64| if n.is_multiple_of(2) { QoS::AtMostOnce } else { QoS::AtLeastOnce };
    served.deliver((1..=5).map(|n| entry(n, qos(n), 500)).collect(), &[&publisher]);
    for released in served.outbox.detach() {
        released.release();
    }
    assert!(!publisher.is_held());
    assert!(!served.deliver(vec![small(0, QoS::AtMostOnce), entry(7, QoS::ExactlyOnce, 1_000)], &[&publisher]).holds);
    assert!(served.take(usize::MAX).is_empty());
    served.outbox.attach(Arc::clone(&served.own), 3);
    let wanted = served.outbox.wanted(u64::MAX).unwrap();
    assert_eq!((wanted.from, wanted.to), (3, 7));
}

#[test]
fn what_is_not_decided_waits_and_everything_behind_it_and_what_is_refused_is_gone() {
    let mut served = Served::new(true);
    let four = [1, 2, 3, 4].map(|n| stored(small(n, QoS::AtLeastOnce)));
    let [first, second, third, fourth] = four;
    served.deliver(vec![first, small(0, QoS::AtMostOnce), second, third, fourth], &[]);
    let mut handshakes = Handshakes::new(true);
    let mut take = |outbox: &mut Outbox, window, decided| {
        let mut out = Vec::new();
        outbox.take(usize::MAX, &mut handshakes, window, decided, &mut out);
        out.iter().map(position).collect::<Vec<_>>()
    };
    assert_eq!(take(&mut served.outbox, u16::MAX, 1), [1, 0]);
    assert_eq!(take(&mut served.outbox, 1, 9), [] as [u64; 0], "no window");
    served.outbox.refuse(1, 3);
    assert_eq!(take(&mut served.outbox, 2, 3), [] as [u64; 0]);
    assert_eq!(take(&mut served.outbox, 2, 4), [4]);
}

#[test]
fn no_two_ids_meet_in_one_portion_even_where_positions_have_gaps() {
    let mut served = Served::new(false);
    served.deliver([1, 2, 65_536, 65_537].map(|n| small(n, QoS::AtLeastOnce)).into(), &[]);
    assert_eq!(served.take(usize::MAX), [1, 2]);
    assert_eq!(served.take(usize::MAX), [65_536, 65_537]);
}
