//! Why a call to QRS gave no answer, in words an administrator can act on.
//!
//! Invariant: [`QrsError::may_have_arrived`] is `false` only where it is certain that QRS did not get the request.

use std::{path::PathBuf, time::Duration};

use super::filter::FilterError;

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
    #[error("the Qlik Repository Service at {at} cannot be reached: {cause}")]
    Connect {
        /// Host and port.
        at: String,
        /// Why.
        cause: String,
    },
    /// The two sides do not trust each other: the request was not sent, or not read.
    #[error("no trusted connection to the Qlik Repository Service at {at}: {cause}")]
    Trust {
        /// Host and port.
        at: String,
        /// Why, and what to do.
        cause: String,
    },
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
    #[error("the Qlik Repository Service answered {status}: {text}")]
    Status {
        /// HTTP status.
        status: u16,
        /// Its own words, cut.
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

impl QrsError {
    /// Whether QRS may have got (and obeyed) the request.
    pub const fn may_have_arrived(&self) -> bool {
        matches!(
            self,
            Self::NoAnswer { .. } | Self::BadAnswer { .. } | Self::TooMuch { .. } | Self::Status { status: 500.., .. }
        )
    }

    /// Whether there was nobody who could have said yes or no (as opposed to an answer that says no).
    pub const fn is_unreachable(&self) -> bool {
        !matches!(self, Self::Status { .. } | Self::Filter(_))
    }

    /// Short word for metrics.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NotConfigured => "not_configured",
            Self::CertificateFile { .. } => "certificate_file",
            Self::Settings(_) => "settings",
            Self::Connect { .. } => "connect",
            Self::Trust { .. } => "trust",
            Self::Busy { .. } => "busy",
            Self::NoAnswer { .. } => "no_answer",
            Self::Status { status: 500.., .. } => "status_5xx",
            Self::Status { .. } => "status_4xx",
            Self::BadAnswer { .. } => "bad_answer",
            Self::TooMuch { .. } => "too_much",
            Self::Filter(_) => "filter",
        }
    }
}
