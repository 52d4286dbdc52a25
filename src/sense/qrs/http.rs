//! HTTP towards one host of QRS: the connection pool, its TLS, and what its failures mean.
//!
//! Invariants: the certificate files are read at the first call, again after a failure of trust, and when they changed ([`Http::follow`]), never
//! at start-up; files that were changed for the worse leave the good ones in force; a request is handed to the network once. The HTTP library's own repetition is switched off (`retry::never`). Below it, hyper-util takes another
//! pooled connection only for a request that hyper handed back unstarted, that is, whose first byte was never written because the idle
//! connection closed before the request was taken off its queue; such a request cannot have reached QRS. Whatever breaks later comes out
//! of here as [`QrsError::NoAnswer`], and nobody repeats a start after it.

use std::{error::Error as StdError, io, net::Ipv6Addr, path::PathBuf, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use bytes::{Buf as _, Bytes, BytesMut};
use reqwest::{
    Client, Method, Response,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use tokio::sync::Mutex;

use super::{
    certificate::{Facts, now},
    error::{ConnectProblem, QrsError},
    page::{is_page, words},
    tls,
    trust::{Circumstances, TrustProblem, judge},
    verify::Seen,
};
use crate::config::settings::{QrsSettings, QrsVerify};

/// Time to open a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a whole call.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections are closed before QRS closes them (120 s by default), so that a start rarely meets one that just went away.
const IDLE: Duration = Duration::from_secs(30);
/// Largest answer, bytes: ten thousand tasks in full need about 50 MB.
const MAX_ANSWER: usize = 64 << 20;
/// How much of an answer that is no success is read, bytes: a web page's words may stand behind its style sheets.
const MAX_REFUSAL: usize = 16 << 10;
/// Largest answer of which only the end is kept, bytes.
const MAX_PASSED: usize = 512 << 20;
/// Time for a call of which only the end is kept.
const LONG_TIMEOUT: Duration = Duration::from_secs(120);

/// The path of the short question.
const PROBE: &str = "about";

/// What is sent; its path begins behind `/qrs/` and may have a query.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    method: Method,
    path: &'a str,
    body: Option<Bytes>,
    /// Of the answer, only so many bytes of its end are wanted.
    end: Option<usize>,
    /// Time for the whole call.
    patience: Duration,
}

impl<'a> Request<'a> {
    /// Reads.
    pub fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, body: None, end: None, patience: CALL_TIMEOUT }
    }

    /// Asks whether QRS is there at all.
    pub fn probe() -> Self {
        Self { patience: CONNECT_TIMEOUT, ..Self::get(PROBE) }
    }

    /// Reads, keeps the last `kept` bytes.
    pub fn end_of(path: &'a str, kept: usize) -> Self {
        Self { end: Some(kept), patience: LONG_TIMEOUT, ..Self::get(path) }
    }

    /// Changes something; the body is JSON, or empty.
    pub fn act(method: Method, path: &'a str, body: Bytes) -> Self {
        Self { method, body: Some(body), ..Self::get(path) }
    }

    /// Whether it is the short question.
    pub fn is_probe(&self) -> bool {
        self.path == PROBE
    }

    /// Whether it changes nothing.
    pub fn only_reads(&self) -> bool {
        self.method == Method::GET
    }
}

/// What was kept of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The bytes.
    pub body: Bytes,
    /// Whether there was more before them.
    pub is_cut: bool,
}

/// A call that gave no usable answer.
#[derive(Debug)]
pub struct Fault {
    /// Why.
    pub error: QrsError,
    /// The connection broke before an answer came: a call that only reads may be repeated.
    pub broke: bool,
}

impl From<QrsError> for Fault {
    fn from(error: QrsError) -> Self {
        Self { error, broke: false }
    }
}

/// The pool of connections to one QRS.
pub struct Http {
    settings: QrsSettings,
    /// `host:port`, for messages.
    at: String,
    pool: ArcSwapOption<Pool>,
    building: Mutex<()>,
    /// The files with certificates as they were read last, and the earliest end of validity in each.
    ends: parking_lot::Mutex<Ends>,
    /// What was in the files when they were found unfit last.
    refused: parking_lot::Mutex<Option<[u8; 32]>>,
    seen: Arc<Seen>,
}

/// Files with certificates, and the earliest end of validity in each, seconds since 1970.
type Ends = Vec<(PathBuf, i64)>;

/// The connections, and what the files had in them when they were made.
struct Pool {
    client: Client,
    digest: [u8; 32],
}

impl Http {
    pub fn new(settings: &QrsSettings) -> Self {
        let host = settings.host.as_deref().unwrap_or_default();
        let host = if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]") } else { host.to_owned() };
        let at = format!("{host}:{}", settings.port);
        Self {
            settings: QrsSettings { further: Vec::new(), ..settings.clone() },
            at,
            pool: ArcSwapOption::empty(),
            building: Mutex::new(()),
            ends: parking_lot::Mutex::default(),
            refused: parking_lot::Mutex::default(),
            seen: Arc::default(),
        }
    }

    /// `host:port`.
    pub fn at(&self) -> &str {
        &self.at
    }

    /// The certificate the server showed last.
    pub(super) fn seen(&self) -> Option<Facts> {
        self.seen.get()
    }

    /// When the certificates this client works with end, seconds since 1970: of the files as they are in force, and of the server's as it was
    /// shown last (as `host:port`).
    pub fn ends(&self) -> Vec<(String, i64)> {
        let ends = self.ends.lock().clone();
        let files = ends.into_iter().map(|(file, end)| (file.display().to_string(), end));
        let seen = self.seen.get().map(|seen| (self.at.clone(), seen.until));
        files.chain(seen).collect()
    }

    /// Sends a request, once, and reads its answer.
    pub async fn send(&self, request: &Request<'_>) -> Result<Taken, Fault> {
        let response = self.call(request).await?;
        self.take(response, request).await
    }

    /// Sends a request, once.
    pub(super) async fn call(&self, request: &Request<'_>) -> Result<Response, Fault> {
        let pool = self.pool().await?;
        let (scheme, key) = (if self.settings.use_tls { "https" } else { "http" }, xrfkey());
        let and = if request.path.contains('?') { '&' } else { '?' };
        let url = format!("{scheme}://{}/qrs/{}{and}xrfkey={key}", self.at, request.path);
        let mut sent = pool.client.request(request.method.clone(), url).header("x-qlik-xrfkey", key);
        if let Some(body) = &request.body {
            sent = sent.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        let response = sent.timeout(request.patience).send().await;
        response.map_err(|error| self.fault(error, request.patience))
    }

    async fn pool(&self) -> Result<Arc<Pool>, QrsError> {
        if let Some(pool) = self.pool.load_full() {
            return Ok(pool);
        }
        let _one_builds = self.building.lock().await;
        if let Some(pool) = self.pool.load_full() {
            return Ok(pool);
        }
        let (settings, seen) = (self.settings.clone(), self.seen.clone());
        let built = tokio::task::spawn_blocking(move || build(&settings, &seen)).await;
        let (pool, ends) = built.map_err(|error| QrsError::Settings(error.to_string()))??;
        Ok(self.take_over(pool, ends))
    }

    fn take_over(&self, pool: Pool, ends: Ends) -> Arc<Pool> {
        let pool = Arc::new(pool);
        *self.ends.lock() = ends;
        self.pool.store(Some(pool.clone()));
        pool
    }

    /// Looks whether the certificate files changed, and takes the new ones if they are good. Files that are not stay unused, and the error is
    /// told, once for the same content; the ones before stay in force.
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub async fn follow(&self) -> Result<bool, QrsError> {
        let Some(before) = self.pool.load_full().map(|pool| pool.digest) else { return Ok(false) };
        let _one_builds = self.building.lock().await;
        let (settings, seen, refused) = (self.settings.clone(), self.seen.clone(), *self.refused.lock());
        let looked = tokio::task::spawn_blocking(move || {
            let digest = tls::digest(&settings);
            let is_new = digest != before && Some(digest) != refused;
            (digest, is_new.then(|| build(&settings, &seen)))
        });
        match looked.await.map_err(|error| QrsError::Settings(error.to_string()))? {
            (_, None) => Ok(false),
            (_, Some(Ok((pool, ends)))) => {
                self.take_over(pool, ends);
                Ok(true)
            }
            (digest, Some(Err(error))) => {
                *self.refused.lock() = Some(digest);
                Err(error)
            }
        }
    }

    async fn take(&self, mut response: Response, request: &Request<'_>) -> Result<Taken, Fault> {
        let (status, end) = (response.status(), request.end);
        let limit = match end {
            _ if !status.is_success() => MAX_REFUSAL,
            None => MAX_ANSWER,
            Some(_) => MAX_PASSED,
        };
        let (mut body, mut passed) = (BytesMut::new(), 0);
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if passed + chunk.len() <= limit => {
                    // A little on the wire may be much to unpack: others have their turn in between.
                    tokio::task::consume_budget().await;
                    passed += chunk.len();
                    body.extend_from_slice(&chunk);
                    // Moved seldom: only when as much again has come.
                    if let Some(kept) = end.filter(|kept| body.len() > 2 * kept) {
                        body.advance(body.len() - kept);
                    }
                }
                Ok(None) => break,
                // What an error says beyond its first sentences is not worth reading.
                _ if !status.is_success() => break,
                Ok(Some(_)) => return Err(QrsError::TooMuch { at: self.at.clone(), limit }.into()),
                Err(error) if cannot_unpack(&error) => {
                    let cause = format!("its compressed answer cannot be unpacked ({})", root_cause(&error));
                    return Err(QrsError::BadAnswer { at: self.at.clone(), cause }.into());
                }
                Err(error) => return Err(self.fault(error, request.patience)),
            }
        }
        if let Some(error) = self.refusal(status.as_u16(), &body, end.is_none()) {
            return Err(error.into());
        }
        if let Some(kept) = end {
            body.advance(body.len().saturating_sub(kept));
        }
        Ok(Taken { is_cut: passed > body.len(), body: body.freeze() })
    }

    /// What an answer says that is none; a web page may be the text that was asked for if it is not JSON (`json`) that is wanted.
    pub(super) fn refusal(&self, status: u16, body: &[u8], json: bool) -> Option<QrsError> {
        let (at, is_page) = (self.at.clone(), is_page(body));
        match status {
            200..300 if is_page && json => Some(QrsError::Page { at, status, text: words(body) }),
            200..300 => None,
            // A redirection leads to a log-in.
            300..400 => Some(QrsError::Page { at, status, text: words(body) }),
            400..500 if is_page => Some(QrsError::Page { at, status, text: words(body) }),
            _ => Some(QrsError::Status { at, status, text: words(body) }),
        }
    }

    fn fault(&self, error: reqwest::Error, patience: Duration) -> Fault {
        let (connecting, timeout) = (error.is_connect(), error.is_timeout());
        // The address carries the key of the request; it says nothing the message does not say.
        let error = error.without_url();
        let at = self.at.clone();
        if let Some(problem) = tls_cause(&error).and_then(|tls| judge(tls, connecting, &self.circumstances())) {
            // New certificates may have been put in place: the next call reads the files again.
            self.pool.store(None);
            return QrsError::Trust { at, problem: Box::new(problem) }.into();
        }
        if connecting {
            return self.no_connection(&error, timeout).into();
        }
        let cause = root_cause(&error);
        match timeout {
            true => QrsError::NoAnswer { at, cause: format!("nothing within {} seconds", patience.as_secs()) }.into(),
            false => Fault { error: QrsError::NoAnswer { at, cause }, broke: true },
        }
    }

    fn no_connection(&self, error: &reqwest::Error, timeout: bool) -> QrsError {
        let at = self.at.clone();
        let system = chain(error).filter_map(|error| error.downcast_ref::<io::Error>()).last().map(innermost);
        let problem = match system {
            _ if error.is_dns() => ConnectProblem::UnknownName(root_cause(error)),
            _ if timeout => ConnectProblem::TimedOut(CONNECT_TIMEOUT),
            // The connection was there and went away again, before any request: so ends a handshake that somebody does not want.
            Some(error) if self.settings.use_tls && went_away(error) => {
                return QrsError::Trust { at, problem: Box::new(TrustProblem::Closed) };
            }
            Some(error) => ConnectProblem::of(error, CONNECT_TIMEOUT),
            None => ConnectProblem::Other(root_cause(error)),
        };
        QrsError::Connect { at, problem }
    }

    fn circumstances(&self) -> Circumstances {
        let settings = &self.settings;
        let wanted = match &settings.verify {
            QrsVerify::Ca { name: Some(name) } => Some(name),
            _ => settings.host.as_ref(),
        };
        let client = settings.client_cert.clone().unwrap_or_default();
        let client_until = self.ends.lock().iter().find(|(file, _)| *file == client).map(|(_, end)| *end);
        Circumstances {
            wanted: wanted.cloned().unwrap_or_default(),
            root: settings.ca.clone().unwrap_or_default(),
            client,
            client_until,
            seen: self.seen.get(),
            now: now(),
        }
    }
}

/// The system's own error: there may be several wrappers around it, which do not name what they wrap as their source.
fn innermost(error: &io::Error) -> &io::Error {
    error.get_ref().and_then(|inner| inner.downcast_ref::<io::Error>()).map_or(error, innermost)
}

/// Whether an answer came, and what is compressed in it makes no sense; a connection that broke in its middle, or a time that ran out, is
/// something else.
fn cannot_unpack(error: &reqwest::Error) -> bool {
    let of_connection = |error: &(dyn StdError + 'static)| {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        error.is::<hyper::Error>() || inner.is_some_and(|inner| inner.is::<hyper::Error>())
    };
    error.is_decode() && !error.is_timeout() && !chain(error).any(of_connection)
}

fn went_away(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(error.kind(), Kind::ConnectionReset | Kind::ConnectionAborted | Kind::UnexpectedEof | Kind::BrokenPipe)
}

fn build(settings: &QrsSettings, seen: &Arc<Seen>) -> Result<(Pool, Ends), QrsError> {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    for (name, value) in &settings.headers {
        let wrong =
            || QrsError::Settings(format!("the header `{name}` cannot be sent: name or value is not allowed in HTTP"));
        headers.insert(
            HeaderName::from_bytes(name.as_bytes()).map_err(|_| wrong())?,
            HeaderValue::from_str(value).map_err(|_| wrong())?,
        );
    }
    // Before the files are read: what changes between is then found by the next look.
    let digest = tls::digest(settings);
    let tls = tls::load(settings, seen)?;
    let client = Client::builder()
        .tls_backend_preconfigured(tls.config)
        .http1_only()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(CALL_TIMEOUT)
        .pool_idle_timeout(IDLE)
        .tcp_nodelay(true)
        .default_headers(headers)
        .build()
        .map_err(|error| QrsError::Settings(root_cause(&error)))?;
    Ok((Pool { client, digest }, tls.ends))
}

/// 16 characters `0-9a-f`, new for every request; QRS only compares header and query.
fn xrfkey() -> String {
    let (_, low) = uuid::Uuid::new_v4().as_u64_pair();
    format!("{low:016x}")
}

fn chain<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source())
}

fn root_cause(error: &(dyn StdError + 'static)) -> String {
    chain(error).last().map_or_else(|| error.to_string(), ToString::to_string)
}

fn tls_cause<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    chain(error).find_map(unwrapped)
}

/// The TLS error an error is or carries. An I/O error does not name what it wraps as its source, and there may be several around it.
fn unwrapped<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    match error.downcast_ref::<io::Error>() {
        Some(wrapper) => unwrapped(wrapper.get_ref()?),
        None => error.downcast_ref(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_sixteen_characters_and_differ() {
        let (one, other) = (xrfkey(), xrfkey());
        assert!(one.len() == 16 && one.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{one}");
        assert_ne!(one, other);
    }
}
