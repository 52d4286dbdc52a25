//! Judging the server's certificate: against Qlik's own authority under another name, by fingerprint, or not at all.
//!
//! Qlik's certificates carry the machine name that was given at installation, often only the short one, so the name to verify may differ
//! from the host that is called. Invariants: whichever way the certificate is judged, the handshake's signature is verified against it; what was
//! shown is kept, so that a refusal can say what it refused.

use std::sync::Arc;

use parking_lot::Mutex;
use rustls::{
    CertificateError, DigitallySignedStruct, Error, SignatureScheme, SupportedCipherSuite,
    client::{
        WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::certificate::Facts;

/// The certificate a server showed last, whatever was thought of it.
#[derive(Debug, Default)]
pub struct Seen(Mutex<Option<Facts>>);

impl Seen {
    /// What it says of itself.
    pub fn get(&self) -> Option<Facts> {
        self.0.lock().clone()
    }
}

/// SHA-256 of a certificate as the provider computes it; `None` if the provider has no SHA-256.
pub fn fingerprint(provider: &CryptoProvider, certificate: &CertificateDer<'_>) -> Option<[u8; 32]> {
    let hash = provider.cipher_suites.iter().find_map(|suite| match suite {
        SupportedCipherSuite::Tls13(suite) if suite.common.hash_provider.output_len() == 32 => {
            Some(suite.common.hash_provider)
        }
        _ => None,
    })?;
    hash.hash(certificate).as_ref().try_into().ok()
}

/// How the certificate itself is judged.
#[derive(Debug)]
pub enum Judgement {
    /// By Qlik's authority, for the host's name.
    Host(Arc<WebPkiServerVerifier>),
    /// By Qlik's authority, for this name instead of the host's.
    Named(Arc<WebPkiServerVerifier>, ServerName<'static>),
    /// It is this one.
    Pinned([u8; 32]),
    /// Anything goes.
    Anybody,
}

/// A verifier that remembers whom it saw.
#[derive(Debug)]
pub struct Verifier {
    /// What is asked of the certificate.
    pub judgement: Judgement,
    /// Where it is noted.
    pub seen: Arc<Seen>,
    /// What signatures are verified with.
    pub provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        host: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        *self.seen.0.lock() = Facts::read(end_entity, &self.provider);
        match &self.judgement {
            Judgement::Host(authorities) => {
                authorities.verify_server_cert(end_entity, intermediates, host, ocsp_response, now)
            }
            Judgement::Named(authorities, name) => {
                authorities.verify_server_cert(end_entity, intermediates, name, ocsp_response, now)
            }
            Judgement::Pinned(wanted) if fingerprint(&self.provider, end_entity).as_ref() == Some(wanted) => {
                Ok(ServerCertVerified::assertion())
            }
            Judgement::Pinned(_) => Err(Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)),
            Judgement::Anybody => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
