//! What certificates say of themselves: names, issuer, dates, fingerprint. For diagnosis and warnings; nothing here decides about trust.

use std::net::IpAddr;

use rustls::{crypto::CryptoProvider, pki_types::CertificateDer};
use time::{OffsetDateTime, format_description::BorrowedFormatItem, macros::format_description};
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, parse_x509_certificate};

use super::verify;

/// Names that are told; a certificate may carry more.
const NAMES: usize = 20;
/// How moments are told.
const MOMENT: &[BorrowedFormatItem<'_>] = format_description!("[year]-[month]-[day] [hour]:[minute]:[second] UTC");

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The names it is made out for (subject alternative names): DNS names and addresses.
    pub names: Vec<String>,
    /// Common name of its issuer.
    pub issuer: String,
    /// From when on it is valid, seconds since 1970 (UTC).
    pub from: i64,
    /// Until when it is valid, seconds since 1970 (UTC).
    pub until: i64,
    /// SHA-256 of it, as `configQRS.fingerprint` takes it.
    pub fingerprint: String,
}

impl Facts {
    /// Reads a certificate; `None` if it is none.
    pub fn read(certificate: &CertificateDer<'_>, provider: &CryptoProvider) -> Option<Self> {
        let (_, parsed) = parse_x509_certificate(certificate).ok()?;
        let issuer = parsed.issuer().iter_common_name().find_map(|name| name.as_str().ok());
        let mut names = names(&parsed);
        names.truncate(NAMES);
        Some(Self {
            names,
            issuer: issuer.map_or_else(|| parsed.issuer().to_string(), str::to_owned),
            from: parsed.validity().not_before.timestamp(),
            until: parsed.validity().not_after.timestamp(),
            fingerprint: hexadecimal(&verify::fingerprint(provider, certificate)?),
        })
    }
}

fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(text) => Some((*text).to_owned()),
        GeneralName::IPAddress(bytes) => {
            let v4 = <[u8; 4]>::try_from(*bytes).map(IpAddr::from).ok();
            let v6 = <[u8; 16]>::try_from(*bytes).map(IpAddr::from).ok();
            Some(v4.or(v6)?.to_string())
        }
        _ => None,
    };
    extension.value.general_names.iter().filter_map(text).collect()
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// Seconds since 1970 as people read them.
pub fn moment(seconds: i64) -> String {
    let moment = OffsetDateTime::from_unix_timestamp(seconds).ok().and_then(|moment| moment.format(MOMENT).ok());
    moment.unwrap_or_else(|| format!("second {seconds} of the era that begins with 1970"))
}

/// The present, seconds since 1970.
pub fn now() -> i64 {
    OffsetDateTime::now_utc().unix_timestamp()
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    #[test]
    fn a_certificate_is_read_out() {
        let provider = rustls::crypto::ring::default_provider();
        let mut params = CertificateParams::new(vec!["sense01".into(), "sense01.lab".into()]).unwrap();
        params.subject_alt_names.push(SanType::IpAddress("10.0.0.5".parse().unwrap()));
        params.distinguished_name.push(DnType::CommonName, "sense01.lab");
        params.not_before = rcgen::date_time_ymd(2020, 1, 2);
        params.not_after = rcgen::date_time_ymd(2030, 3, 4);
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let facts = Facts::read(made.der(), &provider).unwrap();
        assert_eq!(facts.names, ["sense01", "sense01.lab", "10.0.0.5"]);
        assert_eq!(facts.issuer, "sense01.lab");
        assert_eq!(
            (moment(facts.from).as_str(), moment(facts.until).as_str()),
            ("2020-01-02 00:00:00 UTC", "2030-03-04 00:00:00 UTC")
        );
        assert_eq!((facts.fingerprint.len(), facts.fingerprint.matches(':').count()), (95, 31));
        assert_eq!(Facts::read(&CertificateDer::from(vec![1, 2, 3]), &provider), None);
        assert!(moment(i64::MAX).contains("9223372036854775807"));
    }
}
