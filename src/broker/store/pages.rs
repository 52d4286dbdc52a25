//! Queues read back: a thread that reads a page whenever a session's connection has sent what memory had.
//!
//! Invariants: a session has one request here at most, because it asks again only when it was answered; a page is read in one short
//! transaction; what cannot be read back is left out and counted, and never anything else in its place.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::{Condvar, Mutex};
use redb::{ReadOnlyTable, ReadTransaction};

use super::{
    Page, Row, Sid, Wanted,
    metrics::StoreMetrics,
    record::{batch::Batch, queue::Queued},
    tables::{Fault, MSG, QUEUE, Record, consult, guarded},
    vault::Vault,
};
use crate::{
    broker::{envelope::Message, session::Session},
    telemetry::throttle::Throttle,
};

/// Rows of a page ...
const ROWS: usize = 256;
/// ... and bytes of its messages; one message of any size is in it.
const BYTES: usize = 1 << 20;
/// A page that could not be read is not asked for again sooner.
const PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
struct State {
    requests: VecDeque<Arc<Session>>,
    /// Could not be served; answered when their time has come.
    late: VecDeque<(Instant, Arc<Session>, Wanted)>,
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

    fn postpone(&self, session: Arc<Session>, wanted: Wanted) {
        self.state.lock().late.push_back((Instant::now() + PAUSE, session, wanted));
    }

    /// The next request; those that failed are answered on the way. `None`: it is over.
    fn next(&self) -> Option<Arc<Session>> {
        let mut state = self.state.lock();
        loop {
            if state.stopped {
                return None;
            }
            if let Some((_, session, wanted)) = state.late.pop_front_if(|(due, ..)| *due <= Instant::now()) {
                // Its connection asks again.
                parking_lot::MutexGuard::unlocked(&mut state, || session.page(wanted, None));
                continue;
            }
            if let Some(session) = state.requests.pop_front() {
                return Some(session);
            }
            match state.late.front().map(|(due, ..)| *due) {
                Some(due) => drop(self.wake.wait_until(&mut state, due)),
                None => self.wake.wait(&mut state),
            }
        }
    }
}

/// Serves requests until the desk is closed.
pub(super) fn run(desk: &Desk, vault: &Vault, metrics: &StoreMetrics) {
    static FAILED: Throttle = Throttle::every(Duration::from_secs(10));
    while let Some(session) = desk.next() {
        let Some((sid, wanted)) = session.kept().zip(session.wanted()) else { continue };
        let read = vault.read(|database| guarded(|| consult(database, |txn| page(txn, sid, wanted))));
        match read {
            Ok((page, damaged)) => {
                metrics.page(damaged);
                session.page(wanted, Some(page));
            }
            Err(fault) => {
                if let Some(suppressed) = FAILED.pass() {
                    tracing::error!(client = %session.client, suppressed, "a stored queue cannot be read now: {fault}");
                }
                desk.postpone(session, wanted);
            }
        }
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
            let Some(message) = message else {
                self.damaged += 1;
                continue;
            };
            if self.room < message.size() && !self.found.is_empty() {
                return Ok(Some(row.qseq));
            }
            self.room = self.room.saturating_sub(message.size());
            self.found.push((row.clone(), Arc::new(message)));
        }
        Ok(None)
    }
}
