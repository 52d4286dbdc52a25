//! What must be known of start requests after a crash: written before a request is acknowledged, before QRS is called, and before an answer
//! leaves. What its broker keeps until then may be written with the first of its steps: one wait for the disk less ([`Record`]).
//!
//! One shelf. `r<id>`: a request under way. `s<id><task>`: how far one of its tasks is. `e<id>`: the last words of a request that is
//! done, for as long as a repetition of it is known again. Values are JSON with a version. Invariants: ids are never used again; a request
//! and its steps leave in the transaction in which its last words come.

use std::{
    collections::{BTreeMap, HashMap},
    sync::atomic::{AtomicU64, Ordering},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use tokio::sync::SetOnce;

use super::{
    audit::Asker,
    memory::Key,
    request::{IdRule, OnRunning, StartOutcome, StartRequest, StartTarget, Wait},
    settle::Before,
    story::Word,
};
use crate::{
    keep::{Change, KeepError, Shelf},
    names::TaskId,
};

/// Version of the values.
const VERSION: u8 = 1;

/// A request's number, in the order of their arrival.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct RequestId(u64);

impl RequestId {
    /// For the audit log.
    pub(super) const fn number(self) -> u64 {
        self.0
    }
}

#[cfg(test)]
impl From<u64> for RequestId {
    fn from(number: u64) -> Self {
        Self(number)
    }
}

/// What a request is known again by.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Keys {
    pub transaction: Option<Key>,
    pub delivery: Option<Key>,
    /// Of a message the broker kept.
    #[serde(default)]
    pub kept: Option<Key>,
}

/// How far a task of a request is. A task without a step was not asked of QRS.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) enum Step {
    /// QRS is about to be called, or was.
    Calling {
        /// Milliseconds since 1970.
        at: u64,
        /// What QRS knew of the task before.
        before: Before,
    },
    /// What became of it: started, or the last word.
    Done(StartOutcome),
}

/// A request as it is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Request {
    v: u8,
    received: u64,
    deadline: u64,
    keys: Keys,
    targets: Vec<StartTarget>,
    id_rule: IdRule,
    transaction: Option<Value>,
    wait: Wait,
    on_running: OnRunning,
    parameters: Option<Map<String, Value>>,
    door: String,
    requested_by: String,
    #[serde(default)]
    asker: Asker,
    return_address: Option<Value>,
}

/// A request on its way to the disk: it goes by itself, or with one of its steps, whichever is first.
#[derive(Debug)]
pub(super) struct Record {
    id: RequestId,
    /// `None`: it was there before.
    change: Option<Change>,
    /// Whether it is on disk; `false`: it ended, and could not be written.
    written: SetOnce<bool>,
}

impl Record {
    /// Of a request that was written down by an earlier life of the program.
    pub(super) fn known(id: RequestId) -> Self {
        Self { id, change: None, written: SetOnce::new_with(Some(true)) }
    }

    /// Waits until it is on disk, or given up.
    pub(super) async fn decided(&self) {
        self.written.wait().await;
    }

    /// The request has ended.
    pub(super) fn give_up(&self) {
        self.decide(false);
    }

    fn decide(&self, written: bool) {
        // The first word stands.
        let _ = self.written.set(written);
    }

    /// What has to be written with the next step. Until it is known to be on disk that is said again with each: of two that are written at a time,
    /// one may fail.
    fn missing(&self) -> Option<Change> {
        self.change.clone().filter(|_| !self.written.initialized())
    }
}

/// The last words of a request that is done.
#[derive(Debug, Serialize, Deserialize)]
struct End {
    v: u8,
    at: u64,
    keys: Keys,
    words: Vec<(usize, StartOutcome)>,
}

/// A request that was under way when the program went down.
#[derive(Debug)]
pub(super) struct Interrupted {
    pub id: RequestId,
    pub keys: Keys,
    /// Milliseconds since 1970.
    pub deadline: u64,
    pub request: StartRequest,
    pub steps: HashMap<TaskId, Step>,
}

/// A request that was done.
#[derive(Debug)]
pub(super) struct Ended {
    pub id: RequestId,
    /// Milliseconds since 1970.
    pub at: u64,
    pub keys: Keys,
    pub words: Vec<Word>,
}

/// What an earlier life of the program left.
#[derive(Debug, Default)]
pub(super) struct Left {
    pub interrupted: Vec<Interrupted>,
    pub ended: Vec<Ended>,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Journal {
    shelf: Shelf,
    next: AtomicU64,
}

impl Journal {
    /// Takes it up. What cannot be read is left out, with a line in the log.
    pub(super) fn open(shelf: Shelf) -> Result<(Self, Left), KeepError> {
        let (mut requests, mut left, mut last) = (BTreeMap::new(), Left::default(), 0);
        for (key, value) in shelf.read_all()? {
            let Some((kind, id, rest)) = split(&key) else { continue };
            last = last.max(id.0);
            match kind {
                b'e' => left.ended.extend(read::<End>(&value).map(|end| ended(id, end))),
                b'r' => {
                    requests.extend(read::<Request>(&value).map(|request| (id, interrupted(id, request))));
                }
                _ => {
                    let task = rest.try_into().ok().map(|bytes| TaskId::from_u128(u128::from_be_bytes(bytes)));
                    if let (Some(request), Some(task), Some(step)) = (requests.get_mut(&id), task, read(&value)) {
                        request.steps.insert(task, step);
                    }
                }
            }
        }
        left.interrupted = requests.into_values().collect();
        Ok((Self { shelf, next: AtomicU64::new(last + 1) }, left))
    }

    pub(super) fn new_id(&self) -> RequestId {
        RequestId(self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// A request is under way, and not written down yet.
    pub(super) fn record(
        id: RequestId,
        keys: Keys,
        request: &StartRequest,
        (received, deadline): (u64, u64),
    ) -> Record {
        let record = Request {
            v: VERSION,
            received,
            deadline,
            keys,
            targets: request.targets.clone(),
            id_rule: request.id_rule,
            transaction: request.transaction.clone(),
            wait: request.wait,
            on_running: request.on_running,
            parameters: request.parameters.clone(),
            door: request.door.to_owned(),
            requested_by: request.requested_by.clone(),
            asker: request.asker.clone(),
            return_address: request.return_address.clone(),
        };
        Record { id, change: Some(Change::Put(key(b'r', id), json(&record))), written: SetOnce::new() }
    }

    /// A request is under way.
    pub(super) async fn ask(&self, record: &Record) -> Result<(), KeepError> {
        self.write(record, None).await
    }

    /// A task has come so far.
    pub(super) async fn step(&self, record: &Record, task: TaskId, step: &Step) -> Result<(), KeepError> {
        self.write(record, Some(Change::Put(step_key(record.id, task), json(step)))).await
    }

    async fn write(&self, record: &Record, step: Option<Change>) -> Result<(), KeepError> {
        let changes: Vec<_> = record.missing().into_iter().chain(step).collect();
        if !changes.is_empty() {
            self.shelf.write(changes).await?;
            record.decide(true);
        }
        Ok(())
    }

    /// QRS was certainly not called.
    pub(super) async fn step_back(&self, id: RequestId, task: TaskId) -> Result<(), KeepError> {
        self.shelf.write(vec![Change::Delete(step_key(id, task))]).await
    }

    /// It is done; its last words are kept where a repetition can be known again. `stepped`: further tasks that may have steps.
    pub(super) fn end(
        &self,
        id: RequestId,
        keys: Keys,
        words: &[Word],
        stepped: impl Iterator<Item = TaskId>,
        now: u64,
    ) {
        let mut changes = vec![Change::Delete(key(b'r', id))];
        let tasks = words.iter().filter_map(|word| word.outcome.task_id).chain(stepped);
        changes.extend(tasks.map(|task| Change::Delete(step_key(id, task))));
        if keys != Keys::default() {
            let words = words.iter().map(|word| (word.place, word.outcome.clone())).collect();
            changes.push(Change::Put(key(b'e', id), json(&End { v: VERSION, at: now, keys, words })));
        }
        self.shelf.write_later(changes);
    }

    /// These are not known again any more.
    pub(super) fn forget(&self, ids: Vec<RequestId>) {
        if !ids.is_empty() {
            self.shelf.write_later(ids.into_iter().map(|id| Change::Delete(key(b'e', id))).collect());
        }
    }
}

fn key(kind: u8, id: RequestId) -> Vec<u8> {
    [&[kind], id.0.to_be_bytes().as_slice()].concat()
}

fn step_key(id: RequestId, task: TaskId) -> Vec<u8> {
    [key(b's', id).as_slice(), &task.to_u128().to_be_bytes()].concat()
}

fn split(key: &[u8]) -> Option<(u8, RequestId, &[u8])> {
    let (kind, rest) = key.split_first()?;
    let (id, rest) = rest.split_first_chunk::<8>()?;
    Some((*kind, RequestId(u64::from_be_bytes(*id)), rest))
}

fn json(value: &impl Serialize) -> Vec<u8> {
    // Texts, numbers and values that were JSON: writing them as JSON cannot fail.
    serde_json::to_vec(value).unwrap_or_default()
}

fn read<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    serde_json::from_slice(value)
        .inspect_err(|error| {
            tracing::error!(
                code = "start_unreadable",
                %error,
                "a start request kept on disk cannot be read and is left out; look in the QMC which tasks ran"
            )
        })
        .ok()
}

fn ended(id: RequestId, end: End) -> Ended {
    let words = end.words.into_iter().map(|(place, outcome)| Word { place, last: true, outcome }).collect();
    Ended { id, at: end.at, keys: end.keys, words }
}

fn interrupted(id: RequestId, kept: Request) -> Interrupted {
    let door = ["mqtt", "rest", "external"].into_iter().find(|door| *door == kept.door).unwrap_or("internal");
    let request = StartRequest {
        targets: kept.targets,
        id_rule: kept.id_rule,
        transaction: kept.transaction,
        redelivery: None,
        kept: None,
        wait: kept.wait,
        on_running: kept.on_running,
        patience: std::time::Duration::ZERO,
        parameters: kept.parameters,
        door,
        requested_by: kept.requested_by,
        asker: kept.asker,
        return_address: kept.return_address,
    };
    Interrupted { id, keys: kept.keys, deadline: kept.deadline, request, steps: HashMap::new() }
}

#[cfg(test)]
mod tests {
    use prometheus_client::registry::Registry;

    use super::*;
    use crate::keep::Keep;

    #[tokio::test]
    async fn a_request_is_written_with_the_first_of_its_steps_and_once() {
        let keep = Keep::open(None, &mut Registry::default()).unwrap();
        let shelf = keep.shelf("starts");
        let (journal, _) = Journal::open(shelf.clone()).unwrap();
        let (id, task) = (journal.new_id(), TaskId::from_u128(1));
        let request = StartRequest::new(vec![StartTarget::Id(task)], "mqtt", "tester");
        let record = Journal::record(id, Keys::default(), &request, (1, 2));
        assert!(record.missing().is_some());
        let step = Step::Calling { at: 1, before: Before::default() };
        journal.step(&record, task, &step).await.unwrap();
        record.decided().await;
        assert!(record.missing().is_none());
        let kinds = |shelf: &Shelf| shelf.read_all().unwrap().iter().map(|(key, _)| key[0]).collect::<Vec<_>>();
        assert_eq!(kinds(&shelf), [b'r', b's']);
        // What is there is not written again, also not after it has gone.
        journal.end(id, Keys::default(), &[], [task].into_iter(), 3);
        journal.ask(&record).await.unwrap();
        journal.step(&record, TaskId::from_u128(2), &step).await.unwrap();
        assert_eq!(kinds(&shelf), [b's']);
        keep.stop();
        let record = Journal::record(journal.new_id(), Keys::default(), &request, (1, 2));
        assert_eq!(journal.ask(&record).await, Err(KeepError::Stopped));
        assert!(record.missing().is_some());
        record.give_up();
        record.decided().await;
    }
}
