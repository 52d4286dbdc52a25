//! Why a call to QRS gave no answer, in words an administrator can act on.
//!
//! Invariants: [`QrsError::may_have_arrived`] is `false` only where it is certain that QRS did not get the request; every error says what
//! happened and where, and [`QrsError::remedy`] what to do.

use std::{io, path::PathBuf, sync::Arc, time::Duration};

use super::{filter::FilterError, trust::TrustProblem};

/// Why a call to QRS gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QrsError {
    /// No `configQRS.host`.
    #[error("no Qlik Repository Service is configured: set `configQRS.host` to the central node")]
    NotConfigured,
    /// A certificate or key that cannot be used.
    #[error(
        "the certificate file {} cannot be used: {problem}. Export the certificates in the QMC (platform independent PEM, with the \
         secret key) and let `cert.clientCert`, `cert.clientCertKey` and `cert.clientCertCA` name client.pem, client_key.pem and root.pem",
        path.display()
    )]
    CertificateFile {
        /// The file, or the key of the configuration that names none.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A setting no request can be made of (host name, header).
    #[error("the settings of `configQRS` cannot be used: {0}")]
    Settings(String),
    /// No connection: the request was not sent.
    #[error("the Qlik Repository Service at {at} cannot be reached: {problem}")]
    Connect {
        /// Host and port.
        at: String,
        /// Why.
        problem: ConnectProblem,
    },
    /// The two sides do not trust each other: the request was not sent, or not read.
    #[error("no trusted connection to the Qlik Repository Service at {at}: {problem}")]
    Trust {
        /// Host and port.
        at: String,
        /// Why.
        problem: Box<TrustProblem>,
    },
    /// QRS is known not to answer: the request was not sent.
    #[error("nothing was sent to the Qlik Repository Service, which did not answer a moment ago: {0}")]
    Down(Arc<QrsError>),
    /// Too many calls wait already: the request was not sent.
    #[error(
        "the Qlik Repository Service at {at} is too slow: the request waited {waited:?} for its turn and was not sent"
    )]
    Busy {
        /// Host and port.
        at: String,
        /// How long it waited.
        waited: Duration,
    },
    /// The connection broke, or the time ran out, after the request may have been sent.
    #[error("the Qlik Repository Service at {at} did not answer: {cause}")]
    NoAnswer {
        /// Host and port.
        at: String,
        /// Why.
        cause: String,
    },
    /// An answer that is no success.
    #[error("the Qlik Repository Service at {at} answered {status}: {text}")]
    Status {
        /// Host and port.
        at: String,
        /// HTTP status.
        status: u16,
        /// Its own words, cut.
        text: String,
    },
    /// A web page, or the way to one: something else than QRS answers there.
    #[error("at {at} a web page answers (status {status}: {text}), which the Qlik Repository Service never sends")]
    Page {
        /// Host and port.
        at: String,
        /// HTTP status.
        status: u16,
        /// Its beginning, without markup.
        text: String,
    },
    /// A success whose content makes no sense.
    #[error("the Qlik Repository Service at {at} answered something unexpected: {cause}")]
    BadAnswer {
        /// Host and port.
        at: String,
        /// What.
        cause: String,
    },
    /// A success that is larger than this program takes.
    #[error("the Qlik Repository Service at {at} answered more than {} MiB at once", limit >> 20)]
    TooMuch {
        /// Host and port.
        at: String,
        /// What it takes, bytes.
        limit: usize,
    },
    /// A name QRS cannot be asked for.
    #[error(transparent)]
    Filter(#[from] FilterError),
}

/// Why there is no connection.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectProblem {
    /// The machine is there, and nobody listens.
    #[error("nobody listens there (connection refused)")]
    Refused,
    /// Nobody knows the name.
    #[error("this machine cannot find out the address of that name ({0})")]
    UnknownName(String),
    /// Nothing came back.
    #[error("no connection within {} seconds", _0.as_secs())]
    TimedOut(Duration),
    /// Anything else, in the system's words.
    #[error("{0}")]
    Other(String),
}

impl ConnectProblem {
    /// Of what the system says.
    pub fn of(error: &io::Error, patience: Duration) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::TimedOut(patience),
            _ => Self::Other(error.to_string()),
        }
    }

    const fn remedy(&self) -> &'static str {
        match self {
            Self::Refused => {
                "Start the service \"Qlik Sense Repository Service\" on that machine, and check that `configQRS.port` is its port (4242)."
            }
            Self::UnknownName(_) => {
                "Correct `configQRS.host`, or make the name known: in DNS, or in the hosts file of this machine."
            }
            Self::TimedOut(_) => {
                "Check that the machine is on and that no firewall between this machine and it holds back TCP port 4242."
            }
            Self::Other(_) => {
                "Check that the machine is on, that host and port in `configQRS` are right and that no firewall stands between."
            }
        }
    }
}

impl QrsError {
    /// [`QrsError::word`] of a call that was not sent because QRS is known to be down.
    pub(super) const DOWN: &'static str = "down";

    /// Whether QRS may have got (and obeyed) the request.
    pub const fn may_have_arrived(&self) -> bool {
        matches!(
            self,
            Self::NoAnswer { .. }
                | Self::BadAnswer { .. }
                | Self::TooMuch { .. }
                | Self::Page { status: ..300, .. }
                | Self::Status { status: 500.., .. }
        )
    }

    /// Whether there was nobody who could have said yes or no (as opposed to an answer that says no). A service that is just starting (503)
    /// is nobody yet.
    pub const fn is_unreachable(&self) -> bool {
        matches!(self, Self::Status { status: 503, .. }) || !matches!(self, Self::Status { .. } | Self::Filter(_))
    }

    /// Whether the next call has to expect the same: the host does not answer, or is not trusted, or is just starting.
    pub(super) const fn means_down(&self) -> bool {
        matches!(
            self,
            Self::Connect { .. } | Self::Trust { .. } | Self::NoAnswer { .. } | Self::Status { status: 503, .. }
        )
    }

    /// Whether somebody answered who does not have to be left.
    pub(super) const fn is_answer(&self) -> bool {
        let answer =
            matches!(self, Self::Status { .. } | Self::Page { .. } | Self::BadAnswer { .. } | Self::TooMuch { .. });
        answer && !self.means_down()
    }

    /// Whether it is certain that this host did not get the request, so that another may.
    pub(super) const fn is_unsent(&self) -> bool {
        matches!(self, Self::Connect { .. } | Self::Trust { .. })
    }

    /// The same, of a call that was not even sent because of it.
    pub(super) fn of_another_call(self) -> Self {
        match self {
            Self::Down(_) => self,
            error if error.may_have_arrived() => Self::Down(Arc::new(error)),
            error => error,
        }
    }

    /// Short word for metrics.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NotConfigured => "not_configured",
            Self::CertificateFile { .. } => "certificate_file",
            Self::Settings(_) => "settings",
            Self::Connect { .. } => "connect",
            Self::Trust { .. } => "trust",
            Self::Down(_) => Self::DOWN,
            Self::Busy { .. } => "busy",
            Self::NoAnswer { .. } => "no_answer",
            Self::Status { status: 500.., .. } => "status_5xx",
            Self::Status { .. } => "status_4xx",
            Self::Page { .. } => "page",
            Self::BadAnswer { .. } => "bad_answer",
            Self::TooMuch { .. } => "too_much",
            Self::Filter(_) => "filter",
        }
    }

    /// What the administrator can do about it; `None`: nothing, or it is said already.
    pub fn remedy(&self) -> Option<String> {
        Some(match self {
            Self::Filter(_) => return None,
            Self::Trust { problem, .. } => return Some(problem.remedy()),
            Self::Down(error) => return error.remedy(),
            Self::Connect { problem, .. } => problem.remedy(),
            Self::Status { status, text, .. } => status_remedy(*status, text),
            Self::NotConfigured | Self::Settings(_) => "Correct the section `configQRS` of butler.yaml.",
            Self::CertificateFile { .. } => {
                "Put the exported certificates where the section `cert` says; they are read again at the next call."
            }
            Self::NoAnswer { .. } | Self::Busy { .. } => {
                "Check on the Sense server whether the service \"Qlik Sense Repository Service\" is overloaded or hangs."
            }
            Self::Page { .. } => {
                "That is a proxy of Qlik Sense: set `configQRS.port` to the port of the repository service (4242). If it is, a proxy between \
                 this machine and the Sense server answers; let this program pass it by."
            }
            Self::BadAnswer { .. } => {
                "Check that `configQRS.port` is the port of the repository service (4242), not that of another service."
            }
            Self::TooMuch { .. } => "Look into the log of the Qlik Sense Repository Service at this time.",
        }
        .to_owned())
    }
}

fn status_remedy(status: u16, text: &str) -> &'static str {
    let text = text.to_lowercase();
    match status {
        403 if text.contains("xsrf") => {
            "Something between this program and QRS changes the address or takes the header X-Qlik-Xrfkey away: let `configQRS.host` and `port` \
             (4242) lead to the repository service itself."
        }
        403 if text.contains("inactive") => {
            "The user in `configQRS.headers.static` is inactive in Qlik Sense (QMC, Users): name another, e.g. \
             `UserDirectory=INTERNAL; UserId=sa_api`, or make this one active again."
        }
        401 | 403 => {
            "QRS refuses this user: check the header X-Qlik-User in `configQRS.headers.static` (UserDirectory=…; UserId=…) and that user's \
             roles in the QMC."
        }
        503 => "The service \"Qlik Sense Repository Service\" is starting, or not running; it is asked again.",
        404 => "Check that `configQRS.port` is the port of the repository service (4242).",
        _ => "Look into the log of the Qlik Sense Repository Service at this time.",
    }
}
