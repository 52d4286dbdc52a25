//! TLS and identity: which versions, which names, what becomes of a call without certificate or user.
//!
//! The handshakes here trust anybody, because what is asked is what the server does; nothing is sent in them but the question for its version.

use std::{sync::Arc, time::Duration};

use rustls::{
    ClientConfig, SupportedProtocolVersion,
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{Answer, Masks, Question};
use crate::{
    config::settings::QrsSettings,
    net::pem,
    sense::qrs::{
        http::Http,
        verify::{Judgement, Seen, Verifier},
    },
};

/// Time for a handshake, and for an answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// How much of an answer is read, bytes.
const MOST: usize = 2_048;
const NO_TLS: &str = "`configQRS.useSSL` is false";

/// Asks all.
pub(super) async fn ask(settings: &QrsSettings, http: &Http, masks: &Masks) -> Vec<(Question, Answer)> {
    let mut answers = vec![(Question::MissingUser, without_user(settings, masks).await)];
    if !settings.use_tls {
        let questions = [Question::MissingCertificate, Question::TlsVersions, Question::CertificateNames];
        answers.extend(questions.map(|question| (question, Answer::NotAsked(NO_TLS.to_owned()))));
        return answers;
    }
    let both: [&SupportedProtocolVersion; 2] = [&TLS13, &TLS12];
    let without = handshake(settings, &both, false).await;
    answers.push((Question::MissingCertificate, Answer::Told(vec![masks.text(&without)])));
    let mut versions = Vec::new();
    for (name, version) in [("TLS 1.2", [&TLS12]), ("TLS 1.3", [&TLS13])] {
        versions.push(format!("{name} alone: {}", masks.text(&handshake(settings, &version, true).await)));
    }
    answers.push((Question::TlsVersions, Answer::Told(versions)));
    answers.push((Question::CertificateNames, names(settings, http)));
    answers
}

async fn without_user(settings: &QrsSettings, masks: &Masks) -> Answer {
    let mut nobody = settings.clone();
    nobody.headers.retain(|(name, _)| !name.eq_ignore_ascii_case("x-qlik-user"));
    let http = Http::new(&nobody);
    let mut lines = Vec::new();
    for path in ["about", "task/count"] {
        lines.push(masks.answer(&format!("GET {path}"), &http.look_at(path).await));
    }
    Answer::Told(lines)
}

/// The names as what they are; the site's own are nobody's business.
fn names(settings: &QrsSettings, http: &Http) -> Answer {
    let Some(seen) = http.seen() else { return Answer::NotAsked("no certificate was seen".to_owned()) };
    let host = settings.host.clone().unwrap_or_default();
    let kind = |name: &String| {
        let what = if name.parse::<std::net::IpAddr>().is_ok() {
            "an address"
        } else if name.contains('.') {
            "a full name"
        } else {
            "a short name"
        };
        let configured = if name.eq_ignore_ascii_case(&host) { ", the one in `configQRS.host`" } else { "" };
        format!("{what}{configured}")
    };
    let mut lines: Vec<String> = seen.names.iter().map(kind).collect();
    if lines.is_empty() {
        lines.push("none at all".to_owned());
    }
    Answer::Told(lines)
}

/// What becomes of a call with these versions, with or without a client certificate.
async fn handshake(
    settings: &QrsSettings,
    versions: &[&'static SupportedProtocolVersion],
    certificate: bool,
) -> String {
    match timeout(PATIENCE, call(settings, versions, certificate)).await {
        Ok(Ok(said)) => said,
        Ok(Err(why)) => why,
        Err(_) => format!("nothing within {} seconds", PATIENCE.as_secs()),
    }
}

async fn call(
    settings: &QrsSettings,
    versions: &[&'static SupportedProtocolVersion],
    certificate: bool,
) -> Result<String, String> {
    let host = settings.host.clone().unwrap_or_default();
    let config = config(settings, versions, certificate).map_err(|why| format!("could not be tried: {why}"))?;
    let name = ServerName::try_from(host.clone()).map_err(|error| format!("could not be tried: {error}"))?;
    let stream =
        TcpStream::connect((host.as_str(), settings.port)).await.map_err(|error| format!("no connection: {error}"))?;
    let connector = TlsConnector::from(Arc::new(config));
    let mut stream =
        connector.connect(name, stream).await.map_err(|error| format!("refused in the handshake: {error}"))?;
    let spoken = stream.get_ref().1.protocol_version().map_or_else(String::new, |version| format!("{version:?}"));
    let request = format!(
        "GET /qrs/about?xrfkey=0123456789abcdef HTTP/1.1\r\nHost: {host}\r\nX-Qlik-Xrfkey: 0123456789abcdef\r\nConnection: close\r\n\r\n"
    );
    let after = |error: std::io::Error| format!("handshake done ({spoken}), then refused: {error}");
    stream.write_all(request.as_bytes()).await.map_err(after)?;
    let mut answer = vec![0; MOST];
    let length = stream.read(&mut answer).await.map_err(after)?;
    let text = String::from_utf8_lossy(answer.get(..length).unwrap_or_default()).into_owned();
    match text.lines().next() {
        Some(line) => Ok(format!("handshake done ({spoken}), then answered: {line}")),
        None => Ok(format!("handshake done ({spoken}), then the connection was closed")),
    }
}

fn config(
    settings: &QrsSettings,
    versions: &[&'static SupportedProtocolVersion],
    certificate: bool,
) -> Result<ClientConfig, String> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Arc::new(Verifier {
        judgement: Judgement::Anybody,
        seen: Arc::<Seen>::default(),
        provider: Arc::clone(&provider),
    });
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .map_err(|error| error.to_string())?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let (Some(cert), Some(key), true) = (&settings.client_cert, &settings.client_key, certificate) else {
        return Ok(builder.with_no_client_auth());
    };
    let chain = pem::certificates(cert).map_err(|error| error.why)?;
    let key = pem::private_key(key).map_err(|error| error.why)?;
    builder.with_client_auth_cert(chain, key).map_err(|error| error.to_string())
}
