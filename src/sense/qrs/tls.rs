//! Certificates of the exported Qlik set to a TLS configuration: `client.pem`, `client_key.pem` (PKCS#1, PKCS#8 or SEC1), `root.pem`.
//!
//! Invariant: nothing here is read at start-up; a file that is missing is an error of the call that needed it, naming the file.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig,
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::CryptoProvider,
    pki_types::ServerName,
};

use super::{error::QrsError, verify::Verifier};
use crate::{
    config::settings::{QrsSettings, QrsVerify},
    net::pem::{self, FileError},
};

/// Reads the files and builds the TLS side of the client. Blocks on the disk.
///
/// # Errors
/// Names the file, or the setting, and what is wrong with it.
pub fn load(settings: &QrsSettings) -> Result<ClientConfig, QrsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| QrsError::Settings(error.to_string()))?
        .dangerous();
    if !settings.use_tls {
        // Never used for a connection; given so that the HTTP client does not look for the system's authorities.
        let nobody = Verifier::pinned([0; 32], provider);
        return Ok(builder.with_custom_certificate_verifier(Arc::new(nobody)).with_no_client_auth());
    }
    let builder = builder.with_custom_certificate_verifier(verifier(settings, &provider)?);
    let cert_file = named(settings.client_cert.as_deref(), "cert.clientCert")?;
    let key_file = named(settings.client_key.as_deref(), "cert.clientCertKey")?;
    let chain = pem::certificates(cert_file).map_err(unusable)?;
    let key = pem::private_key(key_file).map_err(unusable)?;
    builder.with_client_auth_cert(chain, key).map_err(|error| problem(key_file, &error))
}

fn verifier(settings: &QrsSettings, provider: &Arc<CryptoProvider>) -> Result<Arc<dyn ServerCertVerifier>, QrsError> {
    Ok(match &settings.verify {
        QrsVerify::Insecure => Arc::new(Verifier::anybody(provider.clone())),
        QrsVerify::Fingerprint(wanted) => Arc::new(Verifier::pinned(*wanted, provider.clone())),
        QrsVerify::Ca { name } => {
            let authorities = authorities(settings, provider)?;
            match name {
                None => authorities,
                Some(name) => Arc::new(Verifier::named(authorities, server_name(name)?, provider.clone())),
            }
        }
    })
}

fn authorities(settings: &QrsSettings, provider: &Arc<CryptoProvider>) -> Result<Arc<WebPkiServerVerifier>, QrsError> {
    let file = named(settings.ca.as_deref(), "cert.clientCertCA")?;
    let store = pem::authorities(file).map_err(unusable)?;
    WebPkiServerVerifier::builder_with_provider(Arc::new(store), provider.clone())
        .build()
        .map_err(|error| problem(file, &error))
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

fn problem(file: &Path, why: &dyn std::fmt::Display) -> QrsError {
    QrsError::CertificateFile { path: file.to_owned(), problem: why.to_string() }
}
