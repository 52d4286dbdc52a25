//! HTTP towards QRS: the connection pool, its TLS, and what its failures mean.
//!
//! Invariants: the certificate files are read at the first call and again after a failure of trust, never at start-up; a request is
//! handed to the network once. The HTTP library's own repetition is switched off (`retry::never`). Below it, hyper-util takes another
//! pooled connection only for a request that hyper handed back unstarted, that is, whose first byte was never written because the idle
//! connection closed before the request was taken off its queue; such a request cannot have reached QRS. Whatever breaks later comes out
//! of here as [`QrsError::NoAnswer`], and nobody repeats a start after it.

use std::{error::Error as StdError, io, net::Ipv6Addr, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use bytes::{Buf as _, Bytes, BytesMut};
use reqwest::{
    Client, Method, Response,
    header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue},
};
use tokio::sync::Mutex;

use super::{error::QrsError, tls};
use crate::config::settings::QrsSettings;

/// Time to open a connection, TLS included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for a whole call.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle connections are closed before QRS closes them (120 s by default), so that a start rarely meets one that just went away.
const IDLE: Duration = Duration::from_secs(30);
/// Largest answer, bytes: ten thousand tasks in full need about 50 MB.
const MAX_ANSWER: usize = 64 << 20;
/// Largest answer of which only the end is kept, bytes.
const MAX_PASSED: usize = 512 << 20;
/// Time for a call of which only the end is kept.
const LONG_TIMEOUT: Duration = Duration::from_secs(120);
/// How much of QRS's own words is kept, characters.
const MAX_WORDS: usize = 300;

/// What is sent; its path begins behind `/qrs/` and may have a query.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    method: Method,
    path: &'a str,
    body: Option<Bytes>,
    /// Of the answer, only so many bytes of its end are wanted.
    end: Option<usize>,
}

impl<'a> Request<'a> {
    /// Reads.
    pub fn get(path: &'a str) -> Self {
        Self { method: Method::GET, path, body: None, end: None }
    }

    /// Reads, keeps the last `kept` bytes.
    pub fn end_of(path: &'a str, kept: usize) -> Self {
        Self { end: Some(kept), ..Self::get(path) }
    }

    /// Changes something; the body is JSON, or empty.
    pub fn act(method: Method, path: &'a str, body: Bytes) -> Self {
        Self { method, path, body: Some(body), end: None }
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
    client: ArcSwapOption<Client>,
    building: Mutex<()>,
}

impl Http {
    pub fn new(settings: &QrsSettings) -> Self {
        let host = settings.host.as_deref().unwrap_or_default();
        let host = if host.parse::<Ipv6Addr>().is_ok() { format!("[{host}]") } else { host.to_owned() };
        let at = format!("{host}:{}", settings.port);
        Self { settings: settings.clone(), at, client: ArcSwapOption::empty(), building: Mutex::new(()) }
    }

    /// `host:port`.
    pub fn at(&self) -> &str {
        &self.at
    }

    /// Sends a request, once, and reads its answer.
    pub async fn send(&self, request: &Request<'_>) -> Result<Taken, Fault> {
        let client = self.client().await?;
        let (scheme, key) = (if self.settings.use_tls { "https" } else { "http" }, xrfkey());
        let and = if request.path.contains('?') { '&' } else { '?' };
        let url = format!("{scheme}://{}/qrs/{}{and}xrfkey={key}", self.at, request.path);
        let mut sent = client.request(request.method.clone(), url).header("x-qlik-xrfkey", key);
        if let Some(body) = &request.body {
            sent = sent.header(CONTENT_TYPE, "application/json").body(body.clone());
        }
        if request.end.is_some() {
            sent = sent.timeout(LONG_TIMEOUT);
        }
        let response = sent.send().await.map_err(|error| self.fault(error))?;
        self.take(response, request.end).await
    }

    async fn client(&self) -> Result<Arc<Client>, QrsError> {
        if let Some(client) = self.client.load_full() {
            return Ok(client);
        }
        let _one_builds = self.building.lock().await;
        if let Some(client) = self.client.load_full() {
            return Ok(client);
        }
        let settings = self.settings.clone();
        let built = tokio::task::spawn_blocking(move || build(&settings)).await;
        let client = Arc::new(built.map_err(|error| QrsError::Settings(error.to_string()))??);
        self.client.store(Some(client.clone()));
        Ok(client)
    }

    async fn take(&self, mut response: Response, end: Option<usize>) -> Result<Taken, Fault> {
        let status = response.status();
        let limit = match end {
            _ if !status.is_success() => 4 * MAX_WORDS,
            None => MAX_ANSWER,
            Some(_) => MAX_PASSED,
        };
        let (mut body, mut passed) = (BytesMut::new(), 0);
        loop {
            match response.chunk().await {
                Ok(Some(chunk)) if passed + chunk.len() <= limit => {
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
                Err(error) => return Err(self.fault(error)),
            }
        }
        if !status.is_success() {
            return Err(QrsError::Status { status: status.as_u16(), text: words(&body) }.into());
        }
        if let Some(kept) = end {
            body.advance(body.len().saturating_sub(kept));
        }
        Ok(Taken { is_cut: passed > body.len(), body: body.freeze() })
    }

    /// A success that makes no sense.
    pub fn bad_answer(&self, cause: impl Into<String>) -> QrsError {
        QrsError::BadAnswer { at: self.at.clone(), cause: cause.into() }
    }

    fn fault(&self, error: reqwest::Error) -> Fault {
        let (connecting, timeout) = (error.is_connect(), error.is_timeout());
        // The address carries the key of the request; it says nothing the message does not say.
        let error = error.without_url();
        let at = self.at.clone();
        if let Some(cause) = tls_cause(&error).and_then(|tls| trust(tls, connecting)) {
            // New certificates may have been put in place: the next call reads the files again.
            self.client.store(None);
            return QrsError::Trust { at, cause }.into();
        }
        let cause = root_cause(&error);
        match (connecting, timeout) {
            (true, true) => QrsError::Connect { at, cause: format!("no connection within {CONNECT_TIMEOUT:?}") }.into(),
            (true, false) => QrsError::Connect { at, cause }.into(),
            (false, true) => QrsError::NoAnswer { at, cause: format!("nothing within {CALL_TIMEOUT:?}") }.into(),
            (false, false) => Fault { error: QrsError::NoAnswer { at, cause }, broke: true },
        }
    }
}

fn build(settings: &QrsSettings) -> Result<Client, QrsError> {
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
    Client::builder()
        .tls_backend_preconfigured(tls::load(settings)?)
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
        .map_err(|error| QrsError::Settings(root_cause(&error)))
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

/// What a TLS failure means to the administrator; `None`: nothing about trust (a connection that broke later).
fn trust(error: &rustls::Error, connecting: bool) -> Option<String> {
    use rustls::CertificateError as Certificate;
    Some(match error {
        rustls::Error::InvalidCertificate(Certificate::ApplicationVerificationFailure) => {
            "the server's certificate is not the one whose fingerprint is configured".into()
        }
        // A bad signature under the right name: the site's authority was made anew since the export.
        rustls::Error::InvalidCertificate(Certificate::UnknownIssuer | Certificate::BadSignature) => {
            "the server's certificate was not issued by the authority in root.pem".into()
        }
        rustls::Error::InvalidCertificate(why) => format!("the server's certificate is not accepted: {why}"),
        // The server's word on our certificate; with TLS 1.3 it arrives after the handshake, in place of an answer.
        rustls::Error::AlertReceived(alert) => {
            format!("the server refused the client certificate or the connection ({alert:?})")
        }
        other if connecting => other.to_string(),
        _ => return None,
    })
}

/// The beginning of an error's body as one line of text.
fn words(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if text.is_empty() { "(no further words)".into() } else { text.chars().take(MAX_WORDS).collect() }
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

    #[test]
    fn words_are_one_short_line() {
        assert_eq!(words(b"XSRF  prevention\r\ncheck failed."), "XSRF prevention check failed.");
        assert_eq!(words(b""), "(no further words)");
        assert_eq!(words("å".repeat(5_000).as_bytes()).chars().count(), MAX_WORDS);
    }
}
