//! Certificates of the exported Qlik set to a TLS configuration: `client.pem`, `client_key.pem` (PKCS#1, PKCS#8 or SEC1), `root.pem`.
//!
//! Invariant: nothing here is read at start-up; a file that is missing is an error of the call that needed it, naming the file.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig,
    client::WebPkiServerVerifier,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName},
};

use super::{
    certificate::Facts,
    error::QrsError,
    verify::{Judgement, Seen, Verifier},
};
use crate::{
    config::settings::{QrsSettings, QrsVerify},
    net::pem::{self, FileError},
};

/// What the files gave.
pub struct Tls {
    /// The TLS side of the client.
    pub config: ClientConfig,
    /// The files with certificates, and the earliest end of validity in each, seconds since 1970.
    pub ends: Vec<(PathBuf, i64)>,
}

/// Reads the files and builds the TLS side of the client, which notes in `seen` whom it meets. Blocks on the disk.
///
/// # Errors
/// Names the file, or the setting, and what is wrong with it.
pub fn load(settings: &QrsSettings, seen: &Arc<Seen>) -> Result<Tls, QrsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| QrsError::Settings(error.to_string()))?
        .dangerous();
    let verifier = |judgement| Arc::new(Verifier { judgement, seen: seen.clone(), provider: provider.clone() });
    if !settings.use_tls {
        // Never used for a connection; given so that the HTTP client does not look for the system's authorities.
        let config =
            builder.with_custom_certificate_verifier(verifier(Judgement::Pinned([0; 32]))).with_no_client_auth();
        return Ok(Tls { config, ends: Vec::new() });
    }
    let mut ends = Vec::new();
    let builder = builder.with_custom_certificate_verifier(verifier(judgement(settings, &provider, &mut ends)?));
    let cert_file = named(settings.client_cert.as_deref(), "cert.clientCert")?;
    let key_file = named(settings.client_key.as_deref(), "cert.clientCertKey")?;
    let chain = pem::certificates(cert_file).map_err(unusable)?;
    ends.extend(end_of(cert_file, &chain, &provider));
    let key = pem::private_key(key_file).map_err(unusable)?;
    let config = builder.with_client_auth_cert(chain, key).map_err(|error| unfit(cert_file, key_file, &error))?;
    Ok(Tls { config, ends })
}

/// SHA-256 of the content of all the files, or of the reasons why they cannot be read. Blocks on the disk.
pub fn digest(settings: &QrsSettings) -> [u8; 32] {
    let mut context = ring::digest::Context::new(&ring::digest::SHA256);
    for file in [&settings.client_cert, &settings.client_key, &settings.ca].into_iter().flatten() {
        let (kind, content) = match pem::read(file) {
            Ok(content) => (0, content),
            Err(error) => (1, error.why.into_bytes()),
        };
        context.update(&[kind]);
        context.update(&content.len().to_le_bytes());
        context.update(&content);
    }
    let mut digest = [0; 32];
    for (to, from) in digest.iter_mut().zip(context.finish().as_ref()) {
        *to = *from;
    }
    digest
}

fn judgement(
    settings: &QrsSettings,
    provider: &Arc<CryptoProvider>,
    ends: &mut Vec<(PathBuf, i64)>,
) -> Result<Judgement, QrsError> {
    Ok(match &settings.verify {
        QrsVerify::Insecure => Judgement::Anybody,
        QrsVerify::Fingerprint(wanted) => Judgement::Pinned(*wanted),
        QrsVerify::Ca { name } => {
            let file = named(settings.ca.as_deref(), "cert.clientCertCA")?;
            let authorities = authorities(file, provider)?;
            ends.extend(end_of(file, &pem::certificates(file).map_err(unusable)?, provider));
            match name {
                None => Judgement::Host(authorities),
                Some(name) => Judgement::Named(authorities, server_name(name)?),
            }
        }
    })
}

fn authorities(file: &Path, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, QrsError> {
    let store = pem::authorities(file).map_err(unusable)?;
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone())
        .build()
        .map_err(|error| problem(file, &error))
}

fn end_of(file: &Path, chain: &[CertificateDer<'_>], provider: &CryptoProvider) -> Option<(PathBuf, i64)> {
    let ends = chain.iter().filter_map(|certificate| Some(Facts::read(certificate, provider)?.until));
    ends.min().map(|end| (file.to_owned(), end))
}

fn server_name(name: &str) -> Result<ServerName<'static>, QrsError> {
    ServerName::try_from(name.to_owned())
        .map_err(|error| QrsError::Settings(format!("`verifyName` is `{name}`: {error}")))
}

fn unusable(error: FileError) -> QrsError {
    QrsError::CertificateFile { path: error.path, problem: error.why }
}

fn named<'a>(file: Option<&'a Path>, key: &str) -> Result<&'a Path, QrsError> {
    file.ok_or_else(|| problem(&PathBuf::from(key), &"the configuration names no file"))
}

fn unfit(cert: &Path, key: &Path, error: &rustls::Error) -> QrsError {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            problem(key, &format!("it is not the key of the certificate in {}", cert.display()))
        }
        error => problem(key, error),
    }
}

fn problem(file: &Path, why: &dyn std::fmt::Display) -> QrsError {
    QrsError::CertificateFile { path: file.to_owned(), problem: why.to_string() }
}
