//! TLS towards a broker: which authorities are trusted, which name is expected, which certificate is shown.
//!
//! Files are read at every connect, so renewed certificates are taken without a restart and missing ones do not keep the program from
//! starting.

use std::{path::Path, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::ring,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::{
    config::settings::BrokerTls,
    net::pem::{self, FileError},
};

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be used.
    #[error("{what} {error}")]
    File {
        /// Which of the files.
        what: &'static str,
        /// What is wrong with it.
        error: FileError,
    },
    /// The system names no authorities.
    #[error("the system has no list of trusted authorities ({0}); name a file with `ca`")]
    NoAuthorities(String),
    /// Certificate without key or key without certificate.
    #[error("a client certificate needs both `cert` and `key`")]
    HalfPair,
    /// `verifyName` is no name.
    #[error("`{0}` is no host name or address that a certificate could carry")]
    Name(String),
    /// rustls says no.
    #[error("the certificates do not fit together: {0}")]
    Rustls(#[from] rustls::Error),
}

/// What rustls needs for a connection. Reads files: call it where blocking is allowed.
///
/// # Errors
/// Names the file or option that is wrong.
pub fn client_config(tls: &BrokerTls) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(ring::default_provider());
    let roots = Arc::new(roots(tls.ca.as_deref())?);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match &tls.verify_name {
        None => builder.with_root_certificates(roots),
        Some(name) => {
            let expected = ServerName::try_from(name.clone()).map_err(|_| TlsError::Name(name.clone()))?;
            let inner = WebPkiServerVerifier::builder_with_provider(roots, provider)
                .build()
                .map_err(|error| TlsError::NoAuthorities(error.to_string()))?;
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Named { inner, expected }))
        }
    };
    Ok(match (&tls.cert, &tls.key) {
        (Some(cert), Some(key)) => {
            let chain = pem::certificates(cert).map_err(file("the client certificate"))?;
            builder.with_client_auth_cert(chain, pem::private_key(key).map_err(file("the private key"))?)?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(TlsError::HalfPair),
    })
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let Some(path) = ca else {
        let mut store = RootCertStore::empty();
        let found = rustls_native_certs::load_native_certs();
        // Systems carry authorities that webpki does not understand; the others count.
        let (taken, _) = store.add_parsable_certificates(found.certs);
        let why = found.errors.first().map_or_else(|| "it is empty".to_owned(), ToString::to_string);
        return if taken == 0 { Err(TlsError::NoAuthorities(why)) } else { Ok(store) };
    };
    pem::authorities(path).map_err(file("the file of authorities"))
}

fn file(what: &'static str) -> impl Fn(FileError) -> TlsError {
    move |error| TlsError::File { what, error }
}

/// Checks a certificate as usual, but for a name of our choice instead of the host's.
#[derive(Debug)]
struct Named {
    inner: Arc<WebPkiServerVerifier>,
    expected: ServerName<'static>,
}

impl ServerCertVerifier for Named {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _host: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.inner.verify_server_cert(end_entity, intermediates, &self.expected, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.inner.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.inner.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_named() {
        let tls = BrokerTls { ca: Some("nowhere.pem".into()), cert: None, key: None, verify_name: None };
        let error = client_config(&tls).unwrap_err().to_string();
        assert_eq!(error, "the file of authorities nowhere.pem cannot be read: there is no such file");
    }
}
