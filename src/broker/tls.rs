//! TLS of the listeners: certificate and key from PEM files.

use std::{path::Path, sync::Arc};

use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio_rustls::TlsAcceptor;

use super::{BrokerError, settings::ListenerTls};

/// The acceptor of a listener.
pub(super) fn acceptor(listener: &str, tls: &ListenerTls) -> Result<TlsAcceptor, BrokerError> {
    let wrong = |path: &Path, why: String| BrokerError::Certificate {
        listener: listener.to_owned(),
        path: path.to_owned(),
        why,
    };
    let chain = CertificateDer::pem_file_iter(&tls.cert).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let chain = chain.map_err(|error| wrong(&tls.cert, error.to_string()))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|error| wrong(&tls.key, error.to_string()))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| wrong(&tls.cert, error.to_string()))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
