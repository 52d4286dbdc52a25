//! TLS of the REST listener: certificate and key are read once, when the server is bound.

use std::{path::Path, sync::Arc};

use rustls::{
    ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;

use super::server::ApiError;
use crate::config::settings::RestTls;

/// Reads the pair.
///
/// # Errors
/// Names the file that is missing, empty or does not fit.
pub(super) fn acceptor(settings: &RestTls) -> Result<TlsAcceptor, ApiError> {
    let unreadable = |path: &Path, why: String| ApiError::Certificate { path: path.to_owned(), why };
    let chain = CertificateDer::pem_file_iter(&settings.cert)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| unreadable(&settings.cert, error.to_string()))?;
    if chain.is_empty() {
        return Err(unreadable(&settings.cert, "it holds no certificate".into()));
    }
    let key =
        PrivateKeyDer::from_pem_file(&settings.key).map_err(|error| unreadable(&settings.key, error.to_string()))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| unreadable(&settings.cert, error.to_string()))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(config)))
}
