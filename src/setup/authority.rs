//! A certificate authority of the installation's own and a server certificate, for MQTT over TLS where nobody has another.
//!
//! Invariant: the authority's key is never written: it signs once, and can be made anew with everything it signed.

use std::{
    net::IpAddr,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};

/// How long both are valid: five years. Clients that trust the authority need the new one then.
const VALIDITY: Duration = Duration::from_secs(5 * 365 * 86_400);
/// Clocks of clients may be behind by this much.
const BACKDATED: Duration = Duration::from_secs(86_400);

/// PEM texts.
pub(super) struct Made {
    /// What clients trust.
    pub(super) ca: String,
    /// What the server shows.
    pub(super) server: String,
    /// Its key.
    pub(super) server_key: String,
}

/// Makes both for these names and addresses; the first is the server's common name.
///
/// # Errors
/// If the system has no randomness, or a name cannot stand in a certificate.
pub(super) fn make(names: &[String]) -> Result<Made, rcgen::Error> {
    let name = names.first().map_or("sense-butler", String::as_str);
    let mut authority = named(&format!("sense-butler authority of {name}"));
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority = CertifiedIssuer::self_signed(authority, KeyPair::generate()?)?;
    let mut server = named(name);
    for name in names {
        server.subject_alt_names.push(match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => SanType::DnsName(name.as_str().try_into()?),
        });
    }
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    let key = KeyPair::generate()?;
    let signed = server.signed_by(&key, &authority)?;
    Ok(Made { ca: authority.pem(), server: signed.pem(), server_key: key.serialize_pem() })
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + VALIDITY).into();
    params
}
