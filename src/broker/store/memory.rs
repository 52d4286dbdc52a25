//! A store that keeps everything in memory and commits at once: what the stream is tested with.

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

use super::{Change, Group, Page, Row, Sid};
use crate::broker::{envelope::Message, session::Session};

/// Rows read back at a time.
const PAGE: usize = 256;

/// By session and position.
type Rows = BTreeMap<(Sid, u64), (Row, Arc<Message>)>;

/// See the module.
#[derive(Debug, Default)]
pub(in crate::broker) struct MemoryStore {
    rows: Mutex<Rows>,
}

impl MemoryStore {
    /// Commits a group and keeps its promise.
    pub(in crate::broker) fn submit(&self, group: Group) {
        let mut rows = self.rows.lock();
        for (sid, queue) in group.queues {
            for row in queue {
                let message = usize::try_from(row.place.index).ok().and_then(|index| group.messages.get(index));
                if let Some(message) = message {
                    rows.insert((sid, row.qseq), (row, Arc::clone(message)));
                }
            }
        }
        for change in group.changes {
            match change {
                Change::End(sid, _) => rows.retain(|(owner, _), _| *owner != sid),
                Change::Advance(sid, floor) => rows.retain(|(owner, qseq), _| *owner != sid || *qseq >= floor),
                _ => {}
            }
        }
        drop(rows);
        group.promise.keep();
    }

    /// Writes the progress of a session.
    pub(in crate::broker) fn touch(&self, session: &Arc<Session>) {
        let Some(sid) = session.kept() else { return };
        let progress = session.progress();
        self.rows.lock().retain(|(owner, qseq), _| *owner != sid || *qseq >= progress.floor);
        session.progressed(&progress);
    }

    /// Reads back what a session wants.
    pub(in crate::broker) fn load(&self, session: &Arc<Session>) {
        let Some((sid, wanted)) = session.kept().zip(session.wanted()) else { return };
        let rows = self.rows.lock();
        let range = rows.range((sid, wanted.from)..=(sid, wanted.to)).take(PAGE);
        let found: Vec<_> = range.map(|(_, (row, message))| (row.clone(), Arc::clone(message))).collect();
        let next = found.get(PAGE - 1).map_or(wanted.to, |(row, _)| row.qseq) + 1;
        drop(rows);
        session.page(wanted, Some(Page { rows: found, next }));
    }
}
