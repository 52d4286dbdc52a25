//! Taps: what passes through the broker, shown to whoever looks on right now, cut and sampled so that looking on costs the broker next to nothing.
//!
//! The stream shows each message to every tap ([`Taps::show`]); who looks on takes what was seen and gives new room for it ([`Tap::take`]). A tap
//! without room counts and copies nothing, so a reader who stands still costs a comparison and an addition per message. Invariants: while nobody
//! looks, a message costs one load; nothing is ever waited for; a tap holds at most the room it was given; what is not shown is counted; what this
//! program itself publishes (events, answers) has room of its own, so that a flood of other messages does not hide it.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::{
    broker::{
        envelope::Message,
        message::{Door, Origin},
    },
    names::{ClientId, QoS, TopicFilter},
};

/// Bytes of a payload that are shown.
pub const SHOWN: usize = 4 << 10;
/// What a message counts beside its topic and the shown part of its payload, bytes.
const OVERHEAD: usize = 128;

/// A message as it passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glimpse {
    /// When it came in, milliseconds since 1970.
    pub at: u64,
    /// Its topic.
    pub topic: Box<str>,
    /// QoS it was published with.
    pub qos: QoS,
    /// The publisher's RETAIN flag.
    pub retain: bool,
    /// Bytes of the whole payload.
    pub size: usize,
    /// Its beginning, at most [`SHOWN`] bytes.
    pub payload: Bytes,
    /// Which way it came.
    pub door: Door,
    /// The client that published it.
    pub client: Option<ClientId>,
    /// The user, as in [`Origin::user`].
    pub user: Option<Arc<str>>,
}

/// How much a tap may take up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Room {
    /// Messages.
    pub messages: u32,
    /// Bytes.
    pub bytes: usize,
}

impl Room {
    fn grow(&mut self, by: Self, most: Self) {
        self.messages = self.messages.saturating_add(by.messages).min(most.messages);
        self.bytes = self.bytes.saturating_add(by.bytes).min(most.bytes);
    }

    /// Takes a place for so many bytes, if there is one.
    fn place(&mut self, bytes: usize) -> bool {
        let fits = self.messages > 0 && self.bytes >= bytes;
        if fits {
            self.messages -= 1;
            self.bytes -= bytes;
        }
        fits
    }
}

/// What passed since the last look.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Seen {
    /// In the order of the broker.
    pub glimpses: Vec<Glimpse>,
    /// Matching messages for which there was no room.
    pub missed: u64,
}

#[derive(Debug, Default)]
struct Inner {
    /// For what this program publishes by itself.
    own: Room,
    others: Room,
    seen: Seen,
}

#[derive(Debug)]
struct Bucket {
    filter: TopicFilter,
    inner: Mutex<Inner>,
}

impl Bucket {
    fn offer(&self, message: &Message, from: Option<&Origin>) {
        let topic = message.topic_str();
        if !self.filter.matches(topic) {
            return;
        }
        let payload = message.payload();
        let shown = payload.split_at_checked(SHOWN).map_or(payload, |(shown, _)| shown);
        let door = from.map_or(Door::Internal, |origin| origin.door);
        let mut inner = self.inner.lock();
        let inner = &mut *inner;
        let room = if door == Door::Internal { &mut inner.own } else { &mut inner.others };
        if !room.place(OVERHEAD + topic.len() + shown.len()) {
            inner.seen.missed += 1;
            return;
        }
        inner.seen.glimpses.push(Glimpse {
            at: message.received(),
            topic: topic.into(),
            qos: message.qos,
            retain: message.retain,
            size: payload.len(),
            payload: Bytes::copy_from_slice(shown),
            door,
            client: from.and_then(|origin| origin.client.clone()),
            user: from.and_then(|origin| origin.user.clone()),
        });
    }
}

/// The taps that are open.
#[derive(Debug, Default)]
pub(in crate::broker) struct Taps {
    open: AtomicUsize,
    buckets: Mutex<Vec<Arc<Bucket>>>,
}

impl Taps {
    /// Shows a message to whoever looks on. `from`: who published it, as far as that is known.
    pub(in crate::broker) fn show(&self, message: &Message, from: Option<&Origin>) {
        if self.open.load(Ordering::Relaxed) > 0 {
            for bucket in self.buckets.lock().iter() {
                bucket.offer(message, from);
            }
        }
    }

    /// Opens a tap on what a filter matches. It has no room yet.
    pub(in crate::broker) fn open(self: &Arc<Self>, filter: TopicFilter) -> Tap {
        let bucket = Arc::new(Bucket { filter, inner: Mutex::default() });
        let mut buckets = self.buckets.lock();
        buckets.push(Arc::clone(&bucket));
        self.open.store(buckets.len(), Ordering::Relaxed);
        Tap { bucket, taps: Arc::clone(self) }
    }
}

/// An open tap; it is closed when this is dropped.
#[derive(Debug)]
pub struct Tap {
    bucket: Arc<Bucket>,
    taps: Arc<Taps>,
}

impl Tap {
    /// What passed since the last call. From now on there is room for so much more of the program's own messages, and for as much of others;
    /// unused room adds up to `most`.
    pub fn take(&self, more: Room, most: Room) -> Seen {
        let mut inner = self.bucket.inner.lock();
        inner.own.grow(more, most);
        inner.others.grow(more, most);
        std::mem::take(&mut inner.seen)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        let mut buckets = self.taps.buckets.lock();
        buckets.retain(|bucket| !Arc::ptr_eq(bucket, &self.bucket));
        self.taps.open.store(buckets.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::envelope::{Draft, PublishDraft};

    fn message(topic: &str, payload: &[u8]) -> Message {
        let draft = Draft::publish(&PublishDraft {
            topic: topic.as_bytes(),
            properties: b"",
            payload,
            qos: QoS::AtLeastOnce,
            retain: true,
            dup: false,
            packet_id: 1,
            received: 77,
            expires: 0,
        });
        Message::read(draft.stamp(0, 0)).unwrap()
    }

    fn client() -> Origin {
        let (client, user) = (ClientId::new("plc").unwrap(), "anna".into());
        Origin { door: Door::Mqtt, client: Some(client), user: Some(user), may_start: false }
    }

    const ROOM: Room = Room { messages: 2, bytes: 100_000 };

    fn open(taps: &Arc<Taps>, filter: &str) -> Tap {
        let tap = taps.open(TopicFilter::new(filter).unwrap());
        assert_eq!(tap.take(ROOM, ROOM), Seen::default());
        tap
    }

    fn topics(seen: &Seen) -> Vec<&str> {
        seen.glimpses.iter().map(|glimpse| &*glimpse.topic).collect()
    }

    #[test]
    fn what_matches_is_shown_as_it_passed() {
        let taps = Arc::new(Taps::default());
        let (all, some) = (open(&taps, "#"), open(&taps, "a/+"));
        for topic in ["a/b", "a/b/c", "$probe/x"] {
            taps.show(&message(topic, b"hello"), Some(&client()));
        }
        assert_eq!(topics(&all.take(ROOM, ROOM)), ["a/b", "a/b/c"]);
        let seen = some.take(ROOM, ROOM);
        let glimpse = Glimpse {
            at: 77,
            topic: "a/b".into(),
            qos: QoS::AtLeastOnce,
            retain: true,
            size: 5,
            payload: Bytes::from_static(b"hello"),
            door: Door::Mqtt,
            client: Some(ClientId::new("plc").unwrap()),
            user: Some("anna".into()),
        };
        assert_eq!(seen, Seen { glimpses: vec![glimpse], missed: 0 });
    }

    #[test]
    fn beyond_its_room_a_tap_only_counts() {
        let taps = Arc::new(Taps::default());
        let tap = open(&taps, "#");
        for number in 0..1_000 {
            taps.show(&message(&format!("t/{number}"), b""), Some(&client()));
        }
        let seen = tap.take(Room { messages: 1, bytes: 1_000 }, ROOM);
        assert_eq!((topics(&seen), seen.missed), (vec!["t/0", "t/1"], 998));
        for number in 0..3 {
            taps.show(&message(&format!("u/{number}"), b""), Some(&client()));
        }
        let seen = tap.take(ROOM, ROOM);
        assert_eq!((topics(&seen), seen.missed), (vec!["u/0"], 2), "room is given anew, not made up for");
    }

    #[test]
    fn bytes_are_bounded_and_payloads_are_cut() {
        let taps = Arc::new(Taps::default());
        let tap = open(&taps, "#");
        taps.show(&message("t", &vec![b'x'; 1 << 20]), Some(&client()));
        let seen = tap.take(Room::default(), ROOM);
        assert_eq!((seen.glimpses[0].size, seen.glimpses[0].payload.len()), (1 << 20, SHOWN));
        let narrow = Room { messages: 10, bytes: OVERHEAD + 1 + SHOWN };
        let tap = taps.open(TopicFilter::new("#").unwrap());
        tap.take(narrow, narrow);
        for payload in [SHOWN, 0] {
            taps.show(&message("t", &vec![b'x'; payload]), Some(&client()));
        }
        let seen = tap.take(narrow, narrow);
        assert_eq!((seen.glimpses.len(), seen.missed), (1, 1));
    }

    #[test]
    fn a_flood_does_not_hide_what_the_program_says() {
        let taps = Arc::new(Taps::default());
        let tap = open(&taps, "#");
        for _ in 0..100 {
            taps.show(&message("flood", b""), Some(&client()));
        }
        taps.show(&message("event", b""), None);
        let own = Origin { door: Door::Internal, client: None, user: None, may_start: true };
        taps.show(&message("answer", b""), Some(&own));
        let seen = tap.take(ROOM, ROOM);
        assert_eq!((topics(&seen), seen.missed), (vec!["flood", "flood", "event", "answer"], 98));
    }

    #[test]
    fn a_dropped_tap_is_closed() {
        let taps = Arc::new(Taps::default());
        let (one, other) = (open(&taps, "#"), open(&taps, "#"));
        drop(one);
        assert_eq!(taps.buckets.lock().len(), 1);
        taps.show(&message("t", b""), None);
        assert_eq!(other.take(ROOM, ROOM).glimpses.len(), 1);
        drop(other);
        assert_eq!((taps.open.load(Ordering::Relaxed), taps.buckets.lock().len()), (0, 0));
    }
}
