//! Who a client is by its certificate: the names in it, and the user of one of them.
//!
//! rustls has verified the certificate against the listener's authorities before anything here is asked. Invariants: a certificate that was
//! shown where certificates name users decides alone, whatever password comes with it; names are compared exactly; where a certificate
//! carries the names of several users, CONNECT must say which.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use x509_parser::{certificate::X509Certificate, extensions::GeneralName, parse_x509_certificate};

use super::settings::{CertificateName, User};

/// Names a certificate may carry that are looked at; more is no client's need.
const MOST: usize = 64;

/// The names a verified certificate carries, in the part of it the listener looks at. Empty if it has none there.
pub(super) fn names(der: &CertificateDer<'_>, part: CertificateName) -> Arc<[String]> {
    let Ok((_, certificate)) = parse_x509_certificate(der) else { return Arc::default() };
    let mut names = match part {
        CertificateName::Nobody => Vec::new(),
        CertificateName::CommonName => {
            certificate.subject().iter_common_name().filter_map(|name| name.as_str().ok()).map(str::to_owned).collect()
        }
        CertificateName::AlternativeName => alternative(&certificate),
    };
    names.truncate(MOST);
    names.into()
}

/// DNS names, mail addresses, URIs and IP addresses, as texts.
fn alternative(certificate: &X509Certificate<'_>) -> Vec<String> {
    let Ok(Some(extension)) = certificate.subject_alternative_name() else { return Vec::new() };
    let text = |name: &GeneralName<'_>| match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => Some((*text).to_owned()),
        GeneralName::IPAddress(bytes) => address(bytes),
        _ => None,
    };
    extension.value.general_names.iter().filter_map(text).collect()
}

fn address(bytes: &[u8]) -> Option<String> {
    let v4 = <[u8; 4]>::try_from(bytes).map(std::net::IpAddr::from).ok();
    let v6 = <[u8; 16]>::try_from(bytes).map(std::net::IpAddr::from).ok();
    Some(v4.or(v6)?.to_string())
}

/// The user of a certificate's names. `wanted`: the user name in CONNECT, if any; `known`: finds a user.
pub(super) fn user(
    names: &[String],
    wanted: Option<&str>,
    known: impl Fn(&str) -> Option<Arc<User>>,
) -> Option<Arc<User>> {
    if let Some(wanted) = wanted.filter(|wanted| !wanted.is_empty()) {
        return known(wanted).filter(|user| names.iter().any(|name| **name == *user.name));
    }
    let mut users = names.iter().filter_map(|name| known(name));
    let first = users.next()?;
    users.all(|other| other.name == first.name).then_some(first)
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;
    use crate::names::Secret;

    fn made(common: &[&str], alternative: Vec<SanType>) -> CertificateDer<'static> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        for name in common {
            params.distinguished_name.push(DnType::CommonName, *name);
        }
        params.subject_alt_names = alternative;
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().clone()
    }

    #[test]
    fn names_are_read_out() {
        let alternative = vec![
            SanType::DnsName("plc-7.plant".try_into().unwrap()),
            SanType::Rfc822Name("plc@plant".try_into().unwrap()),
            SanType::URI("urn:plc:7".try_into().unwrap()),
            SanType::IpAddress("10.0.0.7".parse().unwrap()),
            SanType::IpAddress("fd00::7".parse().unwrap()),
        ];
        let der = made(&["plc-7 ü"], alternative);
        assert_eq!(*names(&der, CertificateName::CommonName), ["plc-7 ü"]);
        let all = ["plc-7.plant", "plc@plant", "urn:plc:7", "10.0.0.7", "fd00::7"];
        assert_eq!(*names(&der, CertificateName::AlternativeName), all);
        assert!(names(&der, CertificateName::Nobody).is_empty());
        let bare = made(&[], vec![]);
        assert!(names(&bare, CertificateName::CommonName).is_empty());
        assert!(names(&bare, CertificateName::AlternativeName).is_empty());
        assert!(names(&CertificateDer::from(vec![1, 2, 3]), CertificateName::CommonName).is_empty());
    }

    #[test]
    fn a_certificate_means_one_user_or_nobody() {
        let known = |name: &str| {
            let user = User { password_hash: None, ..User::new(name, Secret::default()) };
            ["a", "b", ""].contains(&name).then(|| Arc::new(user))
        };
        let cases: [(&[&str], Option<&str>, Option<&str>); 11] = [
            (&["a"], None, Some("a")),
            (&["a"], Some(""), Some("a")),
            (&["a"], Some("a"), Some("a")),
            (&["a"], Some("b"), None),
            (&["a"], Some("x"), None),
            (&["A"], None, None),
            (&["x", "a", "a"], None, Some("a")),
            (&["a", "b"], None, None),
            (&["a", "b"], Some("b"), Some("b")),
            (&[], None, None),
            (&[], Some("a"), None),
        ];
        for (names, wanted, expected) in cases {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            let found = user(&names, wanted, known);
            assert_eq!(found.as_ref().map(|user| &*user.name), expected, "{names:?} {wanted:?}");
        }
    }
}
