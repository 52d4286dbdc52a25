//! How the connection to QRS is doing, as the last calls found it.
//!
//! Invariant: reading it never waits and never asks anybody; `since` is the time the present state began.

use std::time::SystemTime;

use parking_lot::Mutex;

use super::error::QrsError;

/// State of the connection to QRS.
#[derive(Debug, Clone, PartialEq)]
pub enum QrsHealth {
    /// Nobody asked it yet.
    Untried,
    /// The last call was answered.
    Ok {
        /// Since when.
        since: SystemTime,
        /// Host and port of the one that answers.
        at: String,
    },
    /// The last call was not answered as it should.
    Failing {
        /// Since when.
        since: SystemTime,
        /// Why.
        error: QrsError,
    },
}

impl QrsHealth {
    /// Whether tasks can be expected to start.
    pub const fn is_ok(&self) -> bool {
        matches!(self, Self::Ok { .. })
    }

    /// One plain sentence for health and console.
    pub fn sentence(&self) -> String {
        match self {
            Self::Untried => "The Qlik Repository Service was not called yet.".into(),
            Self::Ok { at, .. } => format!("The Qlik Repository Service at {at} answers."),
            Self::Failing { error, .. } => format!("Tasks cannot be started: {error}."),
        }
    }

    /// What the administrator can do about it; `None`: nothing to do.
    pub fn remedy(&self) -> Option<String> {
        match self {
            Self::Failing { error, .. } => error.remedy(),
            _ => None,
        }
    }
}

/// Where the client writes down how the calls went.
#[derive(Debug)]
pub(super) struct HealthCell(Mutex<QrsHealth>);

impl HealthCell {
    pub(super) fn new(state: QrsHealth) -> Self {
        Self(Mutex::new(state))
    }

    pub(super) fn get(&self) -> QrsHealth {
        self.0.lock().clone()
    }

    /// Takes note of a call to the host `at`. True if that changed the state, so that the change can be logged once.
    pub(super) fn note(&self, outcome: Result<(), &QrsError>, at: &str) -> bool {
        let mut state = self.0.lock();
        let since = SystemTime::now();
        let next = match (outcome, &*state) {
            (Ok(()), QrsHealth::Ok { at: before, .. }) if before == at => return false,
            (Ok(()), _) => QrsHealth::Ok { since, at: at.to_owned() },
            (Err(error), QrsHealth::Failing { error: before, .. }) if same_kind(error, before) => return false,
            (Err(error), _) => QrsHealth::Failing { since, error: error.clone() },
        };
        *state = next;
        true
    }
}

/// Whether two errors tell the administrator the same: no new log line, no new `since`.
fn same_kind(one: &QrsError, other: &QrsError) -> bool {
    match (one, other) {
        (QrsError::CertificateFile { path: a, .. }, QrsError::CertificateFile { path: b, .. }) => a == b,
        (QrsError::Status { status: a, .. }, QrsError::Status { status: b, .. }) => a == b,
        (QrsError::Trust { problem: a, .. }, QrsError::Trust { problem: b, .. }) => a == b,
        (QrsError::Connect { problem: a, .. }, QrsError::Connect { problem: b, .. }) => a == b,
        _ => one.word() == other.word(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sense::qrs::error::ConnectProblem;

    #[test]
    fn a_state_keeps_the_time_it_began_and_changes_are_told_once() {
        let cell = HealthCell::new(QrsHealth::Untried);
        let at = "sense:4242";
        let failed = |problem| QrsError::Connect { at: at.into(), problem };
        let refused = failed(ConnectProblem::Refused);
        assert!(cell.note(Err(&refused), at));
        let before = cell.get();
        assert!(!cell.note(Err(&refused), at));
        assert_eq!(cell.get(), before);
        assert!(before.sentence().contains("sense:4242"));
        assert!(before.remedy().unwrap().contains("Start the service"));
        assert!(
            cell.note(Err(&failed(ConnectProblem::UnknownName("none".into()))), at),
            "something else is to be done"
        );
        assert!(cell.note(Ok(()), at));
        assert!(!cell.note(Ok(()), at));
        assert!(cell.get().is_ok());
        assert_eq!(cell.get().remedy(), None);
        assert!(cell.note(Ok(()), "other:4242"), "another host answers");
        assert!(cell.get().sentence().contains("other:4242"));
    }
}
