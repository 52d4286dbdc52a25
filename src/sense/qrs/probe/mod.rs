//! What a real repository service does where no document says so: every open question, asked, with the answer as it came.
//!
//! Invariants: without consent ([`Consent`]) nothing is started, stopped or subscribed to that exists; what is told holds no secret, and no
//! name of a site: hosts, users, tasks and values are replaced by what they are.

mod callback;
mod shapes;
mod starts;
mod trust;

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;

use super::{http::Http, raw::Raw, steps};
use crate::{config::settings::QrsSettings, names::TaskId};

pub use self::shapes::shape;

/// An open question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Start of an id nobody has.
    UnknownStart,
    /// Start of what is no id.
    MalformedStart,
    /// Stop of a task that does not run.
    IdleStop,
    /// Status of a synchronous start.
    SynchronousStart,
    /// Start of a task that runs.
    RunningStart,
    /// Start of a disabled task.
    DisabledStart,
    /// A call without `X-Qlik-User`.
    MissingUser,
    /// A call without a client certificate.
    MissingCertificate,
    /// Versions of TLS.
    TlsVersions,
    /// Names in the server's certificate.
    CertificateNames,
    /// Whether a filter on a custom property and its value means one row.
    PropertyRows,
    /// Whether distribute and preload tasks are reload tasks.
    OtherKinds,
    /// What a notification holds.
    NotificationBody,
    /// What becomes of a notification that is refused or not answered.
    NotificationRetry,
    /// The user in datagrams.
    DatagramUser,
    /// The app id in datagrams of tasks without an app.
    DatagramAppId,
    /// Origin, context and message of the proxy's datagrams.
    ProxyFields,
    /// Whether an abort is followed by a failure.
    AbortThenFailure,
}

impl Question {
    /// Every one.
    pub const ALL: [Self; 18] = [
        Self::UnknownStart,
        Self::MalformedStart,
        Self::IdleStop,
        Self::SynchronousStart,
        Self::RunningStart,
        Self::DisabledStart,
        Self::MissingUser,
        Self::MissingCertificate,
        Self::TlsVersions,
        Self::CertificateNames,
        Self::PropertyRows,
        Self::OtherKinds,
        Self::NotificationBody,
        Self::NotificationRetry,
        Self::DatagramUser,
        Self::DatagramAppId,
        Self::ProxyFields,
        Self::AbortThenFailure,
    ];

    /// As a person would ask it.
    pub const fn text(self) -> &'static str {
        match self {
            Self::UnknownStart => "What is answered to the start of a task id that does not exist?",
            Self::MalformedStart => "What is answered to the start of something that is no id?",
            Self::IdleStop => "What is answered to the stop of a task that does not run?",
            Self::SynchronousStart => "With which status is a synchronous start answered, 200 or 201?",
            Self::RunningStart => "What is answered to the start of a task that runs already?",
            Self::DisabledStart => "What is answered to the start of a disabled task?",
            Self::MissingUser => "What is answered to a call without X-Qlik-User?",
            Self::MissingCertificate => "What becomes of a call without a client certificate: a TLS alert, or 403?",
            Self::TlsVersions => "Which versions of TLS are spoken?",
            Self::CertificateNames => "Which names does the server's certificate carry (SAN)?",
            Self::PropertyRows => {
                "Does a filter on name and value of a custom property match only where both stand in one row?"
            }
            Self::OtherKinds => "Are distribute, preload and other tasks found under reloadtask/{id}?",
            Self::NotificationBody => "What does the body of a change notification hold?",
            Self::NotificationRetry => {
                "Is a notification repeated that was refused or not answered, and how long is an answer waited for?"
            }
            Self::DatagramUser => "What do datagrams hold as user, for tasks started by API and by schedule?",
            Self::DatagramAppId => {
                "What do datagrams hold as app id, for tasks without an app: (null), a zero id, nothing?"
            }
            Self::ProxyFields => "What do the proxy's datagrams hold as origin, context and message?",
            Self::AbortThenFailure => "Is the datagram of an abort followed by one of a failure?",
        }
    }
}

/// What may be done beyond looking.
#[derive(Debug, Clone, Default)]
pub struct Consent {
    /// A task that may be started and stopped.
    pub task: Option<TaskId>,
    /// A disabled task whose start may be asked for.
    pub disabled: Option<TaskId>,
    /// Where a notification may be received: our address, and the same as QRS reaches it (`http://host:port`).
    pub callback: Option<(SocketAddr, String)>,
    /// How long notifications are waited for.
    pub patience: Duration,
}

/// What became of a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// These lines.
    Told(Vec<String>),
    /// It could not be asked: why, and what would let it.
    NotAsked(String),
}

/// Asks everything that QRS itself can answer.
pub async fn ask(settings: &QrsSettings, consent: &Consent) -> Vec<(Question, Answer)> {
    let http = Http::new(settings);
    let masks = Masks::new(settings);
    let mut answers = starts::harmless(&http, &masks).await;
    answers.extend(trust::ask(settings, &http, &masks).await);
    answers.extend(shapes::ask(&http, &masks).await);
    let mut listening = callback::Listening::begin(&http, consent, &masks).await;
    answers.extend(starts::with_consent(&http, consent, &masks).await);
    answers.extend(listening.gather(&http, consent).await);
    answers
}

/// Names of the site that are not told.
struct Masks(Vec<(String, &'static str)>);

impl Masks {
    fn new(settings: &QrsSettings) -> Self {
        let host = settings.host.clone().map(|host| (host, "<host>"));
        let user = steps::user(settings).unwrap_or_default();
        let parts = user.split(';').filter_map(|part| part.split_once('='));
        let names = parts.map(|(key, value)| match key.trim().eq_ignore_ascii_case("UserId") {
            true => (value.trim().to_owned(), "<user>"),
            false => (value.trim().to_owned(), "<directory>"),
        });
        Self(host.into_iter().chain(names).filter(|(name, _)| name.len() > 2).collect())
    }

    /// One line about an answer: status, and what its body is.
    fn answer(&self, what: &str, answer: &Result<Raw, super::error::QrsError>) -> String {
        match answer {
            Err(error) => format!("{what}: no answer: {}", self.text(&error.to_string())),
            Ok(raw) => format!("{what}: {} {}", raw.status, self.body(&raw.body)),
        }
    }

    fn body(&self, body: &Bytes) -> String {
        match serde_json::from_slice::<serde_json::Value>(body) {
            _ if body.is_empty() => "without a body".to_owned(),
            Ok(value) => format!("with JSON {}", shape(&value)),
            Err(_) => format!("with text \"{}\"", self.text(&super::page::words(body))),
        }
    }

    /// A text without the site's names and ids.
    fn text(&self, text: &str) -> String {
        let masked = self.0.iter().fold(text.to_owned(), |text, (name, mask)| text.replace(name.as_str(), mask));
        masked.split(' ').map(shapes::without_id).collect::<Vec<_>>().join(" ")
    }
}
