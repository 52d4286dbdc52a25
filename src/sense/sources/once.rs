//! Where all sources meet: an event of one kind about one execution is told once, whoever brings it first.
//!
//! Kind, task and execution make the key, as in [`super::super::dedup`]; an event without ids is never a duplicate, and neither is what users
//! do. Invariants: what was told is remembered for [`REMEMBERED`], over restarts, too, [`MOST`] at most (the oldest is forgotten first); an
//! event is remembered after the forwarder has taken it, so that none is lost for having been remembered; every drop is counted with the
//! source that was later and the one that was first.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use prometheus_client::{
    metrics::{counter::Counter, family::Family},
    registry::Registry,
};
use tokio::sync::mpsc;

use super::Silence;
use crate::{
    keep::{Change, KeepError, Shelf},
    names::{ExecutionId, TaskId},
    sense::event::{Origin, SenseEvent, TaskEvent, TaskEventKind},
};

/// How long it is known what was told, milliseconds: longer than polling ever looks back.
const REMEMBERED: u64 = 25 * 3_600_000;
/// Events known at most; about 20 MB.
const MOST: usize = 200_000;
/// Events between two writes.
const BATCH: usize = 256;
/// All kinds and sources, by their number on disk.
const KINDS: [TaskEventKind; 5] = [
    TaskEventKind::Failed,
    TaskEventKind::Aborted,
    TaskEventKind::Succeeded,
    TaskEventKind::Distributed,
    TaskEventKind::EngineReloadFailed,
];
const ORIGINS: [Origin; 3] = [Origin::Datagram, Origin::Polling, Origin::Notification];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Key(TaskEventKind, TaskId, ExecutionId);

impl Key {
    fn of(event: &TaskEvent) -> Option<Self> {
        let execution = event.execution_id().filter(|id| !id.is_zero())?;
        Some(Self(event.kind, event.task_id()?, execution))
    }

    fn bytes(self) -> Vec<u8> {
        let mut bytes = vec![number(&KINDS, &self.0)];
        bytes.extend(self.1.to_u128().to_be_bytes());
        bytes.extend(self.2.to_u128().to_be_bytes());
        bytes
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let (kind, ids) = bytes.split_first()?;
        let (task, execution) = ids.split_at_checked(16)?;
        let id = |bytes: &[u8]| Some(u128::from_be_bytes(bytes.try_into().ok()?));
        let kind = *KINDS.get(usize::from(*kind))?;
        Some(Self(kind, TaskId::from_u128(id(task)?), ExecutionId::from_u128(id(execution)?)))
    }
}

fn number<T: PartialEq>(all: &[T], one: &T) -> u8 {
    all.iter().position(|known| known == one).and_then(|at| u8::try_from(at).ok()).unwrap_or(u8::MAX)
}

/// What was told, without clock and disk.
#[derive(Debug, Default)]
struct Told {
    first: HashMap<Key, Origin>,
    /// Milliseconds since 1970; the oldest in front.
    order: VecDeque<(u64, Key)>,
}

impl Told {
    /// What the shelf holds, and the keys of what is too old or cannot be read.
    fn read(pairs: Vec<(Vec<u8>, Vec<u8>)>, now: u64) -> (Self, Vec<Change>) {
        let (mut known, mut rubbish) = (Vec::new(), Vec::new());
        for (key, value) in pairs {
            match Key::read(&key).zip(told_at(&value)).filter(|(_, (at, _))| now.saturating_sub(*at) < REMEMBERED) {
                Some((key, (at, origin))) => known.push((at, key, origin)),
                None => rubbish.push(Change::Delete(key)),
            }
        }
        known.sort_unstable_by_key(|(at, ..)| *at);
        let mut told = Self::default();
        for (at, key, origin) in known {
            told.first.insert(key, origin);
            told.order.push_back((at, key));
        }
        (told, rubbish)
    }

    fn add(&mut self, key: Key, origin: Origin, now: u64, changes: &mut Vec<Change>) {
        while let Some((at, oldest)) = self.order.front().copied() {
            if self.order.len() < MOST && now.saturating_sub(at) < REMEMBERED {
                break;
            }
            self.order.pop_front();
            self.first.remove(&oldest);
            changes.push(Change::Delete(oldest.bytes()));
        }
        self.first.insert(key, origin);
        self.order.push_back((now, key));
        let mut value = now.to_be_bytes().to_vec();
        value.push(number(&ORIGINS, &origin));
        changes.push(Change::Put(key.bytes(), value));
    }
}

fn told_at(value: &[u8]) -> Option<(u64, Origin)> {
    let (at, origin) = value.split_at_checked(8)?;
    Some((u64::from_be_bytes(at.try_into().ok()?), *ORIGINS.get(usize::from(*origin.first()?))?))
}

/// The place where all sources meet.
pub struct Once {
    told: Told,
    shelf: Shelf,
    silence: Option<Arc<Silence>>,
    duplicates: Family<[(&'static str, &'static str); 2], Counter>,
}

impl Once {
    /// `silence`: whom to tell of datagrams, and of what came without one.
    ///
    /// # Errors
    /// If what was told before cannot be read.
    pub fn open(shelf: Shelf, silence: Option<Arc<Silence>>, registry: &mut Registry) -> Result<Self, KeepError> {
        let (told, rubbish) = Told::read(shelf.read_all()?, wall_ms());
        if !rubbish.is_empty() {
            shelf.write_later(rubbish);
        }
        let duplicates = Family::default();
        registry.register(
            "sense_butler_event_duplicates",
            "Task events that another source, or the same, had brought before",
            duplicates.clone(),
        );
        Ok(Self { told, shelf, silence, duplicates })
    }

    /// Hands events on until both sources have ended, or nobody takes events any more.
    pub async fn run(
        mut self,
        mut datagrams: mpsc::Receiver<SenseEvent>,
        mut others: mpsc::Receiver<SenseEvent>,
        out: mpsc::Sender<SenseEvent>,
    ) {
        let mut changes = Vec::new();
        loop {
            let first = tokio::select! {
                Some(event) = datagrams.recv() => event,
                Some(event) = others.recv() => event,
                else => return,
            };
            let mut next = Some(first);
            for _ in 0..BATCH {
                let Some(event) = next else { break };
                if !self.pass(event, &out, &mut changes).await {
                    return;
                }
                next = datagrams.try_recv().or_else(|_| others.try_recv()).ok();
            }
            if let Some(event) = next
                && !self.pass(event, &out, &mut changes).await
            {
                return;
            }
            if !changes.is_empty() {
                self.shelf.write_later(std::mem::take(&mut changes));
            }
        }
    }

    /// Hands one event on, unless it was told; `false`: nobody takes it.
    async fn pass(&mut self, event: SenseEvent, out: &mpsc::Sender<SenseEvent>, changes: &mut Vec<Change>) -> bool {
        let SenseEvent::Task(task) = &event else { return out.send(event).await.is_ok() };
        let (key, kind, origin) = (Key::of(task), task.kind, task.origin);
        self.listen(origin, kind, key);
        if let Some(first) = key.and_then(|key| self.told.first.get(&key)) {
            self.duplicates.get_or_create(&[("source", origin.as_str()), ("first", first.as_str())]).inc();
            return true;
        }
        if out.send(event).await.is_err() {
            return false;
        }
        if let Some(key) = key {
            self.told.add(key, origin, wall_ms(), changes);
        }
        true
    }

    fn listen(&self, origin: Origin, kind: TaskEventKind, key: Option<Key>) {
        let Some(silence) = &self.silence else { return };
        let first = key.and_then(|key| self.told.first.get(&key));
        match origin {
            Origin::Datagram => silence.heard(),
            _ if first.is_none() => silence.missed(kind),
            _ => {}
        }
    }
}

fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::{config::settings::Generation, keep::Keep, sense::datagram::parse_task};

    fn event(word: &str, execution: u32, origin: Origin) -> SenseEvent {
        let text = format!(
            "/{word}/;h;t;a;u;0000aaaa-0000-4000-8000-000000000001;;2026-05-04 10:00:01,234;INFO;ec000000-0000-4000-8000-{execution:012};m"
        );
        let event = parse_task(text.as_bytes(), Generation::Head, SystemTime::now()).unwrap();
        SenseEvent::Task(TaskEvent { origin, ..event })
    }

    /// Sends some events one after the other; what came out, and the counters.
    async fn through(keep: &Keep, events: Vec<SenseEvent>) -> (Vec<SenseEvent>, String) {
        let mut registry = Registry::default();
        let once = Once::open(keep.shelf("told"), None, &mut registry).unwrap();
        let (sender, datagrams) = mpsc::channel(100);
        let (_, others) = mpsc::channel(1);
        let (out, mut told) = mpsc::channel(100);
        for event in events {
            sender.send(event).await.unwrap();
        }
        drop(sender);
        once.run(datagrams, others, out).await;
        let mut all = Vec::new();
        while let Some(event) = told.recv().await {
            all.push(event);
        }
        // What is handed in after it is on disk after it.
        keep.shelf("told").write(Vec::new()).await.unwrap();
        (all, crate::telemetry::metrics::encode(&registry))
    }

    #[tokio::test]
    async fn whoever_comes_first_is_told_and_the_next_life_remembers() {
        let keep = Keep::open(None, &mut Registry::default()).unwrap();
        let failed = |execution, origin| event("scheduler-task-failed", execution, origin);
        let first = vec![
            failed(1, Origin::Datagram),
            failed(1, Origin::Polling),
            failed(2, Origin::Notification),
            failed(2, Origin::Polling),
            failed(2, Origin::Datagram),
            event("scheduler-task-aborted", 2, Origin::Polling),
        ];
        let (told, counters) = through(&keep, first.clone()).await;
        assert_eq!(told, [first[0].clone(), first[2].clone(), first[5].clone()]);
        for line in [
            r#"event_duplicates_total{source="polling",first="datagram"} 1"#,
            r#"event_duplicates_total{source="polling",first="notification"} 1"#,
            r#"event_duplicates_total{source="datagram",first="notification"} 1"#,
        ] {
            assert!(counters.contains(line), "{counters}");
        }
        let (again, _) = through(&keep, vec![failed(2, Origin::Polling), failed(3, Origin::Polling)]).await;
        let [SenseEvent::Task(only)] = &again[..] else { panic!("{again:?}") };
        assert_eq!(only.execution_id(), Some("ec000000-0000-4000-8000-000000000003".parse().unwrap()));
    }

    #[test]
    fn the_old_are_forgotten_here_and_on_disk() {
        let key = |number| Key(TaskEventKind::Aborted, TaskId::from_u128(7), ExecutionId::from_u128(number));
        let (mut told, mut changes) = (Told::default(), Vec::new());
        told.add(key(1), Origin::Polling, 1_000, &mut changes);
        told.add(key(2), Origin::Datagram, 1_000 + REMEMBERED, &mut changes);
        assert_eq!(told.first.len(), 1);
        let puts = changes.iter().filter(|change| matches!(change, Change::Put(..))).count();
        assert_eq!((puts, changes.len()), (2, 3));
        let pairs = |changes: &[Change]| -> Vec<(Vec<u8>, Vec<u8>)> {
            let pair = |change: &Change| match change {
                Change::Put(key, value) => Some((key.clone(), value.clone())),
                Change::Delete(_) => None,
            };
            changes.iter().filter_map(pair).chain([(b"odd".to_vec(), Vec::new())]).collect()
        };
        let (read, rubbish) = Told::read(pairs(&changes), 2_000 + REMEMBERED);
        assert_eq!(read.first, HashMap::from([(key(2), Origin::Datagram)]));
        assert_eq!(rubbish.len(), 2, "the old one, and what is no record");
    }
}
