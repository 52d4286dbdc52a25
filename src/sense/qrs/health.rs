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
            Self::Ok { .. } => "The Qlik Repository Service answers.".into(),
            Self::Failing { error, .. } => format!("Tasks cannot be started: {error}."),
        }
    }

    /// What the administrator can do about it; `None`: nothing to do.
    pub fn remedy(&self) -> Option<&'static str> {
        let Self::Failing { error, .. } = self else { return None };
        match error {
            QrsError::NotConfigured | QrsError::Settings(_) => Some("Correct the section `configQRS` of butler.yaml."),
            QrsError::CertificateFile { .. } => Some(
                "Put the exported certificates where the section `cert` says; they are read again at the next call.",
            ),
            QrsError::Trust { .. } => Some(
                "Check that client.pem, client_key.pem and root.pem were exported from this very Sense site and have not expired, and that \
                 `configQRS.host` is the name in the server's certificate (else set `configQRS.verifyName`).",
            ),
            QrsError::Connect { .. } | QrsError::NoAnswer { .. } | QrsError::Busy { .. } => Some(
                "Check that the service \"Qlik Sense Repository Service\" runs on the central node, that host and port in `configQRS` are \
                 right and that no firewall stands between.",
            ),
            QrsError::Status { status: 401 | 403, .. } => Some(
                "QRS refuses this user or certificate: check the X-Qlik-User header in `configQRS.headers.static` and that user's roles in \
                 the QMC.",
            ),
            QrsError::Status { .. } | QrsError::TooMuch { .. } => Some("Look into the log of the Qlik Sense Repository Service at this time."),
            QrsError::BadAnswer { .. } => {
                Some("Check that `configQRS.port` is the port of the repository service (4242), not that of the proxy.")
            }
            QrsError::Filter(_) => None,
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

    /// Takes note of a call. True if that changed the state, so that the change can be logged once.
    pub(super) fn note(&self, outcome: Result<(), &QrsError>) -> bool {
        let mut state = self.0.lock();
        let since = SystemTime::now();
        let next = match (outcome, &*state) {
            (Ok(()), QrsHealth::Ok { .. }) => return false,
            (Ok(()), _) => QrsHealth::Ok { since },
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
        _ => one.word() == other.word(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_keeps_the_time_it_began_and_changes_are_told_once() {
        let cell = HealthCell::new(QrsHealth::Untried);
        let refused = QrsError::Connect { at: "sense:4242".into(), cause: "refused".into() };
        assert!(cell.note(Err(&refused)));
        let before = cell.get();
        let other_words = QrsError::Connect { at: "sense:4242".into(), cause: "no route".into() };
        assert!(!cell.note(Err(&other_words)));
        assert_eq!(cell.get(), before);
        assert!(before.sentence().contains("sense:4242"));
        assert!(before.remedy().is_some());
        assert!(cell.note(Ok(())));
        assert!(!cell.note(Ok(())));
        assert!(cell.get().is_ok());
        assert_eq!(cell.get().remedy(), None);
    }
}
