//! Tests of the store: it alone, without a stream or sockets.

mod basics;
mod failures;
mod model;
mod speed;

use std::sync::Arc;

use prometheus_client::registry::Registry;
use tokio::sync::oneshot;

use super::{disk, handle::Store, *};
use crate::{
    broker::{
        cargo::{Taken, Word},
        codec::SubscribeOptions,
        envelope::{Draft, Message, PublishDraft},
        promise::Step,
        settings::Storage,
        stream::Asked,
    },
    keep::tests::disks,
    names::{ClientId, QoS},
};

/// A directory that goes with the test.
struct Scratch(std::path::PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("sense-butler-store-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        Self(path)
    }

    fn storage(&self) -> Storage {
        Storage { directory: Some(self.0.clone()), ..Storage::default() }
    }

    fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = std::fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open(settings: &Storage) -> (Arc<Store>, Recovered) {
    Store::open(settings, &mut Registry::default()).unwrap()
}

fn open_at(place: disk::Place, settings: &Storage) -> (Arc<Store>, Recovered) {
    Store::open_at(place, settings, &mut Registry::default()).unwrap()
}

/// A message whose payload is a number, padded to a length.
fn message(topic: &str, number: u64, length: usize) -> Arc<Message> {
    let mut payload = number.to_be_bytes().to_vec();
    payload.resize(length.max(8), b'.');
    plain(topic, &payload)
}

fn plain(topic: &str, payload: &[u8]) -> Arc<Message> {
    let draft = Draft::publish(&PublishDraft {
        topic: topic.as_bytes(),
        properties: b"",
        payload,
        qos: QoS::AtLeastOnce,
        retain: true,
        dup: false,
        packet_id: 1,
        received: 1,
        expires: 0,
    });
    Arc::new(Message::read(draft.stamp(1, 1)).unwrap())
}

fn number(message: &Message) -> u64 {
    u64::from_be_bytes(*message.payload().first_chunk().unwrap())
}

fn record(client: &str, expiry: u32, left_at: Option<u64>) -> Box<SessionRecord> {
    let (owner, client) = (Owner::Client, ClientId::new(client).unwrap());
    Box::new(SessionRecord { owner, client, origin: None, expiry, left_at, will: None })
}

fn asked(qos: QoS) -> Asked {
    let options = SubscribeOptions { qos, no_local: false, retain_as_published: true, retain_handling: 0 };
    Asked { options, id: Some(7), internal: false }
}

/// Adds a row with its message to a group.
fn queue(group: &mut Group, sid: Sid, qseq: u64, message: &Arc<Message>) {
    let place = group.place(message);
    let row = Row {
        qseq,
        place,
        qos: QoS::AtLeastOnce,
        retain: false,
        ids: Some(Arc::from([1, 2])),
        pool: None,
        origin: None,
    };
    match group.queues.iter_mut().find(|(owner, _)| *owner == sid) {
        Some((_, rows)) => rows.push(row),
        None => group.queues.push((sid, vec![row])),
    }
}

/// What a counter says, without the beginning and the end that all have.
fn counter(registry: &Registry, name: &str) -> u64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry).unwrap();
    let value =
        |line: &str| line.strip_prefix("sense_butler_")?.strip_prefix(name)?.strip_prefix("_total ")?.parse().ok();
    text.lines().find_map(value).unwrap_or_else(|| panic!("no {name} in {text}"))
}

/// Hands a group over; the receiver hears whether it was kept.
fn submit(store: &Store, mut group: Group) -> oneshot::Receiver<Word> {
    let (sender, receiver) = oneshot::channel();
    group.promise.push(Step::Word(sender, Taken::default()));
    store.submit(group);
    receiver
}

/// Hands a group over and waits; whether it was kept.
fn commit(store: &Store, group: Group) -> bool {
    submit(store, group).blocking_recv().unwrap().is_ok()
}

/// Everything a session has queued, as (position, number of the message), read page by page.
fn read_back(store: &Store, sid: Sid) -> Vec<(u64, u64)> {
    let (mut found, mut from) = (Vec::new(), 0);
    while from < u64::MAX {
        let page = store.page(sid, Wanted { from, to: u64::MAX - 1, turn: 0 }).unwrap();
        found.extend(page.rows.iter().map(|(row, message)| (row.qseq, number(message))));
        assert!(page.next > from);
        from = page.next;
    }
    found
}
