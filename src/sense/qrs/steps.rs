//! The way to QRS step by step: files, name, connection, trust, user, rights, a question. Each step says in one sentence how it went.
//!
//! Invariants: nothing is started or changed; the walk ends at the first step that fails, because what is behind it cannot be seen; what
//! fails is told in the words of [`QrsError`], as the log and health tell it.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use time::{PrimitiveDateTime, format_description::BorrowedFormatItem, macros::format_description};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

use super::{
    certificate::{moment, now},
    error::{ConnectProblem, QrsError},
    hosts,
    http::Http,
    raw::Raw,
    tls,
    verify::Seen,
    watch::{self, BLIND, CertificateEnd, INSECURE},
};
use crate::{
    config::settings::{QrsSettings, QrsVerify},
    names::TaskId,
};

/// Time for a name, and for a connection.
const PATIENCE: Duration = Duration::from_secs(5);
/// `Date` of HTTP (RFC 9110 section 5.6.7).
const DATE: &[BorrowedFormatItem<'_>] =
    format_description!("[weekday repr:short], [day] [month repr:short] [year] [hour]:[minute]:[second] GMT");

/// A step of the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// The exported certificates are there and belong together.
    Files,
    /// The host's name has an address.
    Name,
    /// A TCP connection is made.
    Connection,
    /// Both sides trust each other.
    Trust,
    /// QRS answers this user.
    User,
    /// The user sees tasks.
    Rights,
    /// A question with a filter is answered.
    Question,
}

/// How a step went.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Well.
    Well(String),
    /// Well, but this should be known: what, and what to do.
    Remarkable(String, String),
    /// Not at all.
    Failed(QrsError),
}

/// The way to one host.
#[derive(Debug, Clone)]
pub struct Walk {
    /// `host:port`.
    pub at: String,
    /// The steps, as far as they were taken.
    pub steps: Vec<(Step, Outcome)>,
    /// What the server's clock is ahead of ours, seconds; `None`: it did not say.
    pub clock: Option<i64>,
}

/// Walks to every host of the settings. None if no host is configured.
pub async fn walk(settings: &QrsSettings) -> Vec<Walk> {
    let mut walks = Vec::new();
    if settings.host.is_some() {
        for host in hosts::each(settings) {
            walks.push(walk_to(host).await);
        }
    }
    walks
}

async fn walk_to(settings: QrsSettings) -> Walk {
    let http = Http::new(&settings);
    let mut walk = Walk { at: http.at().to_owned(), steps: Vec::new(), clock: None };
    // Whatever failed is the last step.
    if let Err((step, error)) = walk.go(&settings, &http).await {
        walk.steps.push((step, Outcome::Failed(error)));
    }
    walk
}

impl Walk {
    fn well(&mut self, step: Step, sentence: impl Into<String>) {
        self.steps.push((step, Outcome::Well(sentence.into())));
    }

    fn remark(&mut self, step: Step, what: impl Into<String>, remedy: impl Into<String>) {
        self.steps.push((step, Outcome::Remarkable(what.into(), remedy.into())));
    }

    async fn go(&mut self, settings: &QrsSettings, http: &Http) -> Result<(), (Step, QrsError)> {
        self.files(settings).await.map_err(at(Step::Files))?;
        let addresses = self.name(settings).await.map_err(at(Step::Name))?;
        self.connect(&addresses).await.map_err(at(Step::Connection))?;
        let about = self.about(http).await.map_err(|error| match error {
            QrsError::Connect { .. } => (Step::Connection, error),
            QrsError::Trust { .. } | QrsError::CertificateFile { .. } => (Step::Trust, error),
            error => (Step::User, error),
        })?;
        self.trusted(settings, http);
        self.user(settings, http, &about).map_err(at(Step::User))?;
        self.rights(http).await.map_err(at(Step::Rights))?;
        self.question(http).await.map_err(at(Step::Question))
    }

    async fn files(&mut self, settings: &QrsSettings) -> Result<(), QrsError> {
        if !settings.use_tls {
            self.remark(
                Step::Files,
                "`configQRS.useSSL` is false: certificates are not used, everything is sent unencrypted",
                "Qlik Sense itself answers with TLS only; set it to true.",
            );
            return Ok(());
        }
        for end in ends(settings).await? {
            let sentence = format!("{} is valid until {}", end.certificate, moment(end.expires));
            match watch::ending(&end, now()) {
                Some(warning) => self.remark(Step::Files, warning, ""),
                None => self.well(Step::Files, sentence),
            }
        }
        if let Some(key) = &settings.client_key {
            self.well(Step::Files, format!("{} is its key", key.display()));
        }
        Ok(())
    }

    async fn name(&mut self, settings: &QrsSettings) -> Result<Vec<SocketAddr>, QrsError> {
        let host = settings.host.clone().unwrap_or_default();
        let unknown =
            |why: String| QrsError::Connect { at: self.at.clone(), problem: ConnectProblem::UnknownName(why) };
        let found: Vec<SocketAddr> = match timeout(PATIENCE, lookup_host((host.as_str(), settings.port))).await {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(error)) => return Err(unknown(error.to_string())),
            Err(_) => return Err(unknown(format!("no answer within {} seconds", PATIENCE.as_secs()))),
        };
        if found.is_empty() {
            return Err(unknown("it has none".to_owned()));
        }
        let shown: Vec<_> = found.iter().map(|address| address.ip().to_string()).collect();
        self.well(Step::Name, format!("{host} is {}", shown.join(", ")));
        Ok(found)
    }

    async fn connect(&mut self, addresses: &[SocketAddr]) -> Result<(), QrsError> {
        let mut problem = ConnectProblem::TimedOut(PATIENCE);
        for address in addresses {
            match timeout(PATIENCE, TcpStream::connect(address)).await {
                Ok(Ok(_)) => {
                    self.well(Step::Connection, format!("somebody listens at {address} (TCP)"));
                    return Ok(());
                }
                Ok(Err(error)) => problem = ConnectProblem::of(&error, PATIENCE),
                Err(_) => {}
            }
        }
        Err(QrsError::Connect { at: self.at.clone(), problem })
    }

    async fn about(&mut self, http: &Http) -> Result<Raw, QrsError> {
        let before = SystemTime::now();
        let raw = http.look_at("about").await?;
        let theirs = raw.date.as_deref().and_then(date);
        self.clock = theirs.zip(middle(before)).map(|(theirs, ours)| theirs - ours);
        Ok(raw)
    }

    fn trusted(&mut self, settings: &QrsSettings, http: &Http) {
        let Some(seen) = http.seen() else { return };
        let names = if seen.names.is_empty() { "no name".to_owned() } else { seen.names.join(", ") };
        let sentence =
            format!("its certificate is made out for {names} by {}, valid until {}", seen.issuer, moment(seen.until));
        let end = CertificateEnd { certificate: self.at.clone(), expires: seen.until };
        match (&settings.verify, watch::ending(&end, now())) {
            (QrsVerify::Insecure, _) => self.remark(Step::Trust, INSECURE[0], INSECURE[1]),
            (_, Some(warning)) => self.remark(Step::Trust, warning, ""),
            (_, None) => self.well(Step::Trust, sentence),
        }
    }

    fn user(&mut self, settings: &QrsSettings, http: &Http, about: &Raw) -> Result<(), QrsError> {
        let about: Value = json(http, about)?;
        let version = about.get("buildVersion").and_then(Value::as_str).unwrap_or("unknown");
        let user = user(settings).unwrap_or("nobody in particular");
        self.well(Step::User, format!("it answers {user}; its version is {version}"));
        Ok(())
    }

    async fn rights(&mut self, http: &Http) -> Result<(), QrsError> {
        let raw = http.look_at("task/count").await?;
        match json(http, &raw)?.get("value").and_then(Value::as_u64) {
            Some(0) => self.remark(Step::Rights, BLIND[0], BLIND[1]),
            Some(count) => self.well(Step::Rights, format!("this user sees {count} tasks")),
            None => return Err(odd(http, "a count was expected")),
        }
        Ok(())
    }

    /// Asks for a task that cannot exist: the answer to the way every task is looked for.
    async fn question(&mut self, http: &Http) -> Result<(), QrsError> {
        let nobody = super::filter::Filter::task(TaskId::from_u128(0));
        let raw = http.look_at(&format!("task?filter={}", nobody.encoded())).await?;
        match json(http, &raw)? {
            Value::Array(_) => self.well(Step::Question, "tasks can be looked for"),
            _ => return Err(odd(http, "a list was expected")),
        }
        Ok(())
    }
}

/// The exported certificates of the settings, read as the client reads them, with their ends.
///
/// # Errors
/// Names the file and what is wrong with it.
pub async fn ends(settings: &QrsSettings) -> Result<Vec<CertificateEnd>, QrsError> {
    let settings = settings.clone();
    let read = tokio::task::spawn_blocking(move || tls::load(&settings, &Arc::<Seen>::default()).map(|tls| tls.ends));
    let ends: Vec<(PathBuf, i64)> = read.await.map_err(|error| QrsError::Settings(error.to_string()))??;
    Ok(ends
        .into_iter()
        .map(|(file, expires)| CertificateEnd { certificate: file.display().to_string(), expires })
        .collect())
}

/// The user the calls are made for, as it is sent.
pub fn user(settings: &QrsSettings) -> Option<&str> {
    let header = settings.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-qlik-user"));
    header.map(|(_, value)| value.as_str())
}

fn at(step: Step) -> impl Fn(QrsError) -> (Step, QrsError) {
    move |error| (step, error)
}

fn json(http: &Http, raw: &Raw) -> Result<Value, QrsError> {
    serde_json::from_slice(http.sound(raw)?).map_err(|_| odd(http, "it is not JSON"))
}

fn odd(http: &Http, cause: &str) -> QrsError {
    QrsError::BadAnswer { at: http.at().to_owned(), cause: cause.to_owned() }
}

/// `Date` as seconds since 1970.
fn date(text: &str) -> Option<i64> {
    PrimitiveDateTime::parse(text, DATE).ok().map(|moment| moment.assume_utc().unix_timestamp())
}

/// The moment halfway between one and now, seconds since 1970: when the server most likely wrote its date.
fn middle(before: SystemTime) -> Option<i64> {
    let half = before.elapsed().ok()? / 2;
    i64::try_from((before + half).duration_since(UNIX_EPOCH).ok()?.as_secs()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_of_http_is_read() {
        assert_eq!(date("Sun, 06 Nov 1994 08:49:37 GMT"), Some(784_111_777));
        assert_eq!(date("Thu, 01 Jan 1970 00:00:00 GMT"), Some(0));
        for wrong in ["", "now", "Sunday, 06-Nov-94 08:49:37 GMT", "1994-11-06"] {
            assert_eq!(date(wrong), None, "{wrong}");
        }
    }
}
