//! The store: what is promised is handed over here, one group per dispatcher round, and only a committed group is acknowledged.

mod group;
mod memory;

pub(super) use self::{
    group::{
        Change, Group, Owner, Page, Place, Progress, Recovered, RecoveredSession, Row, SessionRecord, Sid, Wanted,
        WillRecord,
    },
    memory::MemoryStore as Store,
};
