//! The store: what is promised is handed over here, one group per dispatcher round, and only a committed group is acknowledged.
//!
//! This one keeps nothing beyond the sessions' own memory and commits at once: persistent sessions last as long as the process. `check`,
//! health and README say so. A durable store replaces this type and nothing else.

use std::sync::Arc;

use super::session::Session;

/// What one round promises.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Queue rows of persistent sessions: the last position each session was given.
    pub rows: Vec<(Arc<Session>, u64)>,
    /// Changes of the retained tree.
    pub retained: usize,
}

impl Group {
    /// A queue row; positions of one session come in order, so only the last is kept.
    pub(super) fn row(&mut self, session: &Arc<Session>, qseq: u64) {
        match self.rows.last_mut() {
            Some((last, position)) if Arc::ptr_eq(last, session) => *position = qseq,
            _ => self.rows.push((Arc::clone(session), qseq)),
        }
    }
}

/// Sessions and retained messages in memory.
#[derive(Debug, Default)]
pub(super) struct MemoryStore {
    groups: u64,
}

impl MemoryStore {
    /// Commits a group; afterwards its positions may be sent and its publishers acknowledged.
    pub(super) fn commit(&mut self, group: &mut Group) {
        self.groups += u64::from(!group.rows.is_empty() || group.retained > 0);
        for (session, qseq) in group.rows.drain(..) {
            session.commit(qseq);
        }
        group.retained = 0;
    }
}
