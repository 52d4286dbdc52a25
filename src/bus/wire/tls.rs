//! TLS towards a broker: which authorities are trusted, which name is expected, which certificate is shown.
//!
//! Files are read at every connect, so renewed certificates are taken without a restart and missing ones do not keep the program from
//! starting.

use std::{io, path::Path, path::PathBuf, sync::Arc};

use rustls::{
    ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem, pem::PemObject as _},
};

use crate::config::settings::BrokerTls;

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("{what} `{path}` cannot be read: {error}")]
    File {
        /// Which of the files.
        what: &'static str,
        /// Its path.
        path: PathBuf,
        /// What is wrong with it.
        error: String,
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
            builder.with_client_auth_cert(chain("the client certificate", cert)?, private_key(key)?)?
        }
        (None, None) => builder.with_no_client_auth(),
        _ => return Err(TlsError::HalfPair),
    })
}

fn roots(ca: Option<&Path>) -> Result<RootCertStore, TlsError> {
    let mut store = RootCertStore::empty();
    let Some(path) = ca else {
        let found = rustls_native_certs::load_native_certs();
        // Systems carry authorities that webpki does not understand; the others count.
        let (taken, _) = store.add_parsable_certificates(found.certs);
        let why = found.errors.first().map_or_else(|| "it is empty".to_owned(), ToString::to_string);
        return if taken == 0 { Err(TlsError::NoAuthorities(why)) } else { Ok(store) };
    };
    for certificate in chain("the file of authorities", path)? {
        store.add(certificate)?;
    }
    Ok(store)
}

fn chain(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let wrong = |error: String| TlsError::File { what, path: path.to_owned(), error };
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let certificates = read.map_err(|error| wrong(pem_text(&error)))?;
    if certificates.is_empty() {
        Err(wrong("it holds no certificate in PEM form".to_owned()))
    } else {
        Ok(certificates)
    }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_file(path).map_err(|error| TlsError::File {
        what: "the private key",
        path: path.to_owned(),
        error: pem_text(&error),
    })
}

fn pem_text(error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) if error.kind() == io::ErrorKind::NotFound => "there is no such file".to_owned(),
        pem::Error::NoItemsFound => "it holds nothing of the kind in PEM form".to_owned(),
        other => other.to_string(),
    }
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
        assert_eq!(error, "the file of authorities `nowhere.pem` cannot be read: there is no such file");
    }
}
