//! Queues read back: a thread that reads a page whenever a session's connection has sent what memory had.
//!
//! Invariants: a session has one request here at most, and one that is late; a page is read in one short transaction; a message that is damaged
//! is left out and counted, and never anything else in its place; where the file cannot be read at all, nothing is left out: health says so
//! and reading is tried again, less and less often, until it succeeds or the session ends.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use redb::{ReadOnlyTable, ReadTransaction};

use super::{
    Page, Row, Sid, Wanted,
    health::Chart,
    inbox::Inbox,
    metrics::StoreMetrics,
    record::{batch::Batch, queue::Queued},
    tables::{Fault, MSG, QUEUE, Record, consult, guarded},
};
use crate::{
    broker::{envelope::Message, session::Session},
    keep::vault::Vault,
    telemetry::throttle::Throttle,
};

/// Rows of a page ...
const ROWS: usize = 256;
/// ... and bytes of its messages; one message of any size is in it.
const BYTES: usize = 1 << 20;
/// A page that could not be read is not tried again sooner ...
const PAUSE: Duration = Duration::from_millis(100);
/// ... and then twice as long, so many times.
const DOUBLED: u32 = 8;

/// A session with the page that it could not be given.
type Late = (Arc<Session>, Wanted);

#[derive(Debug, Default)]
struct State {
    requests: VecDeque<Arc<Session>>,
    /// Could not be served; tried again when their time has come, the first that came first.
    late: BTreeMap<(Instant, u64), Late>,
    /// Who is late.
    sids: BTreeSet<Sid>,
    count: u64,
    stopped: bool,
}

/// Requests for pages. Bounded by the number of connections.
#[derive(Debug, Default)]
pub(super) struct Desk {
    state: Mutex<State>,
    wake: Condvar,
}

impl Desk {
    pub(super) fn ask(&self, session: &Arc<Session>) {
        self.state.lock().requests.push_back(Arc::clone(session));
        self.wake.notify_one();
    }

    pub(super) fn stop(&self) {
        self.state.lock().stopped = true;
        self.wake.notify_one();
    }

    /// A session that came back meanwhile is late already: one attempt serves both.
    fn postpone(&self, sid: Sid, late: Late, pause: Duration) {
        let mut state = self.state.lock();
        if state.sids.insert(sid) {
            state.count += 1;
            let key = (Instant::now() + pause, state.count);
            state.late.insert(key, late);
        }
    }

    /// The next request, new or late. `None`: it is over.
    fn next(&self) -> Option<(Arc<Session>, Option<Wanted>)> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            let due = state.late.first_entry().filter(|first| first.key().0 <= Instant::now());
            if let Some((session, wanted)) = due.map(|first| first.remove()) {
                session.kept().map(|sid| state.sids.remove(&sid));
                return Some((session, Some(wanted)));
            }
            if let Some(session) = state.requests.pop_front() {
                return Some((session, None));
            }
            match state.late.keys().next().map(|(due, _)| *due) {
                Some(due) => drop(self.wake.wait_until(&mut state, due)),
                None => self.wake.wait(&mut state),
            }
        }
    }
}

/// The thread that reads.
pub(super) struct Reader {
    pub desk: Arc<Desk>,
    pub vault: Arc<Vault>,
    pub chart: Arc<Chart>,
    pub metrics: Arc<StoreMetrics>,
    pub inbox: Arc<Inbox>,
}

impl Reader {
    /// Serves requests until the desk is closed.
    pub(super) fn run(self) {
        while let Some((session, late)) = self.desk.next() {
            let Some(sid) = session.kept() else { continue };
            // Where nobody waits any more, a late page is read all the same: whether it can be is to be known.
            let late = late.filter(|_| self.chart.is_unreadable(sid));
            let Some(wanted) = session.wanted().or(late) else { continue };
            let read = self.vault.read(|database| guarded(|| consult(database, |txn| page(txn, sid, wanted))));
            match read {
                Ok((page, damaged)) => {
                    self.metrics.page(damaged);
                    // First what was read: who sees that all is well finds it.
                    session.page(wanted, Some(page));
                    if self.chart.readable(sid) {
                        tracing::info!(client = %session.client, "a stored queue that could not be read can be read again");
                        self.metrics.unreadable(self.chart.unread());
                    }
                }
                Err(fault) => self.failed(sid, session, wanted, &fault),
            }
        }
    }

    fn failed(&self, sid: Sid, session: Arc<Session>, wanted: Wanted, fault: &Fault) {
        static FAILED: Throttle = Throttle::every(Duration::from_secs(10));
        if matches!(fault, Fault::Closed) {
            // The writer is about to open it again, and says what is wrong.
            return self.desk.postpone(sid, (session, wanted), PAUSE);
        }
        let tries = self.chart.unreadable(sid, &session.client, fault.to_string());
        self.metrics.unreadable(self.chart.unread());
        if let Some(suppressed) = FAILED.pass() {
            tracing::error!(
                code = "store_queue_unreadable",
                client = %session.client,
                suppressed,
                "a stored queue cannot be read: {fault}; its messages wait and reading is tried again; check the disk that holds the store"
            );
        }
        if fault.latches() {
            self.inbox.reopen();
        }
        let pause = PAUSE.saturating_mul(1 << tries.saturating_sub(1).min(DOUBLED));
        self.desk.postpone(sid, (session, wanted), pause);
    }
}

/// Reads a page; also how many rows of it were damaged or without a message.
pub(super) fn page(txn: &ReadTransaction, sid: Sid, wanted: Wanted) -> Result<(Page, u64), Fault> {
    let queue = txn.open_table(QUEUE)?;
    // The value that holds the first position may begin before it.
    let before = queue.range((sid.0, 0)..=(sid.0, wanted.from))?.next_back().transpose()?;
    let start = before.map_or(wanted.from, |(key, _)| key.value().1);
    let (mut rows, mut damaged, mut next) = (Vec::new(), 0, wanted.to.saturating_add(1));
    'values: for value in queue.range((sid.0, start)..=(sid.0, wanted.to))? {
        let (key, value) = value?;
        let Ok(queued) = Queued::read(sid, key.value().1, value.value()) else {
            damaged += 1;
            continue;
        };
        for row in queued {
            let Ok((row, batch)) = row else {
                damaged += 1;
                break;
            };
            if row.qseq < wanted.from || row.qseq > wanted.to {
                continue;
            }
            if rows.len() == ROWS {
                next = row.qseq;
                break 'values;
            }
            rows.push((row, batch));
        }
    }
    let mut messages = Messages { table: txn.open_table(MSG)?, found: Vec::new(), room: BYTES, damaged };
    for run in rows.chunk_by(|(_, one), (_, other)| one == other) {
        if let Some(stopped) = messages.add(run)? {
            next = stopped;
            break;
        }
    }
    Ok((Page { rows: messages.found, next }, messages.damaged))
}

/// The messages of a page.
struct Messages {
    table: ReadOnlyTable<u64, Record>,
    found: Vec<(Row, Arc<Message>)>,
    room: usize,
    damaged: u64,
}

impl Messages {
    /// Adds rows whose messages lie in one batch. Returns the position of the first there is no room for.
    fn add(&mut self, rows: &[(Row, u64)]) -> Result<Option<u64>, Fault> {
        let Some(key) = rows.first().map(|(_, batch)| *batch) else { return Ok(None) };
        let value = self.table.get(key)?;
        let batch = value.as_ref().and_then(|value| Batch::read(key, value.value()).ok());
        for (row, _) in rows {
            let envelope = batch.as_ref().and_then(|batch| batch.find(row.place.batch, row.place.index));
            // A copy of its own size, so that no page of the file stays in memory for it.
            let message = envelope.and_then(|envelope| Message::read(Bytes::copy_from_slice(envelope)));
            let Some(mut message) = message else {
                self.damaged += 1;
                continue;
            };
            if self.room < message.size() && !self.found.is_empty() {
                return Ok(Some(row.qseq));
            }
            self.room = self.room.saturating_sub(message.size());
            message.origin.clone_from(&row.origin);
            self.found.push((row.clone(), Arc::new(message)));
        }
        Ok(None)
    }
}
