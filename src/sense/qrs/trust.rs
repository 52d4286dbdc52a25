//! Why two sides do not trust each other, and what the administrator does about it.
//!
//! Invariant: only what is certain to have happened before the request was read is told as a failure of trust ([`judge`] answers `None` for
//! everything else), because a start after such a failure is known not to have happened.

use std::path::PathBuf;

use rustls::{AlertDescription, CertificateError, Error};

use super::certificate::{Facts, moment};

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustProblem {
    /// The server's certificate is out of date.
    #[error("the server's certificate expired on {}", moment(*until))]
    Expired {
        /// End of validity, seconds since 1970.
        until: i64,
    },
    /// The server's certificate is not valid yet, or this machine's clock is wrong.
    #[error(
        "the server's certificate is valid from {} on, and the clock of this machine says {}",
        moment(*from),
        moment(*now)
    )]
    NotYetValid {
        /// Beginning of validity, seconds since 1970.
        from: i64,
        /// The clock of this machine.
        now: i64,
    },
    /// Another authority issued it.
    #[error("the server's certificate was issued by \"{issuer}\", which is not the authority in {}", root.display())]
    UnknownAuthority {
        /// Name of the issuer.
        issuer: String,
        /// `cert.clientCertCA`
        root: PathBuf,
    },
    /// It bears other names.
    #[error("the server's certificate is not made out for \"{wanted}\", but for {}", listed(names))]
    WrongName {
        /// Whom we wanted to speak to.
        wanted: String,
        /// The names it carries.
        names: Vec<String>,
        /// Its fingerprint.
        fingerprint: String,
    },
    /// It is not the pinned one.
    #[error("the server's certificate is not the one whose fingerprint is configured; this one has {seen}")]
    Fingerprint {
        /// The fingerprint of the one that was shown.
        seen: String,
    },
    /// Our own certificate is out of date, and the server refused it.
    #[error("the server refused the client certificate: the one in {} expired on {}", file.display(), moment(*until))]
    ClientExpired {
        /// `cert.clientCert`
        file: PathBuf,
        /// End of validity, seconds since 1970.
        until: i64,
    },
    /// Our own certificate was refused.
    #[error("the server refused the client certificate in {} (TLS alert {alert})", file.display())]
    ClientRefused {
        /// `cert.clientCert`
        file: PathBuf,
        /// The server's word.
        alert: String,
    },
    /// The two sides have no version or algorithm of TLS in common.
    #[error(
        "the server and this program have no version or cipher suite of TLS in common, or it wants another client certificate ({0})"
    )]
    NothingInCommon(String),
    /// The other side does not speak TLS.
    #[error("what answers there does not speak TLS")]
    NoTls,
    /// The other side hung up in the middle of the handshake.
    #[error("the server closed the connection during the TLS handshake, without saying why")]
    Closed,
    /// Anything else about the server's certificate or the handshake.
    #[error("the server's certificate or its handshake is not accepted: {0}")]
    Other(String),
}

impl TrustProblem {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Expired { .. } => "Renew the certificates of the Sense site (QMC, Certificates), restart its services, and export client.pem, \
                 client_key.pem and root.pem anew."
                .into(),
            Self::NotYetValid { .. } => "Correct the clock of this machine or of the Sense server.".into(),
            Self::UnknownAuthority { root, .. } => format!(
                "Export the certificates from this very Sense site (QMC, Certificates) and let `cert.clientCertCA` name its root.pem; if the \
                 site's certificates were made anew, {} is of the time before.",
                root.display()
            ),
            Self::WrongName { names, fingerprint, .. } => match names.first() {
                Some(name) => format!("Add to `configQRS` in butler.yaml the line `verifyName: {name}`, or write that name as `host`."),
                None => format!("Add to `configQRS` in butler.yaml the line `fingerprint: {fingerprint}`, if that is the certificate of your Sense server."),
            },
            Self::Fingerprint { seen } => format!(
                "If the certificate of the Sense server was renewed, write `fingerprint: {seen}`; if not, somebody else answers in its place."
            ),
            Self::ClientExpired { .. } => {
                "Export the certificates anew (QMC, Certificates) and put client.pem and client_key.pem in their places; no restart is needed.".into()
            }
            Self::ClientRefused { .. } => "Check that client.pem and client_key.pem were exported from this very Sense site since its certificates \
                 were made; put new ones in their places, no restart is needed."
                .into(),
            Self::NothingInCommon(_) => "Allow TLS 1.2 with ECDHE and AES-GCM on the Sense server (Windows, SChannel); check that client.pem is of this very site."
                .into(),
            Self::NoTls => "Check `configQRS.port` (4242) and `configQRS.useSSL`.".into(),
            Self::Closed => "Check that `configQRS.port` is the port of the repository service (4242), and that client.pem was exported from this \
                 very Sense site: Windows closes the connection when it does not accept a client certificate."
                .into(),
            Self::Other(_) => "Check that client.pem, client_key.pem and root.pem were exported from this very Sense site, and that `configQRS.host` \
                 is the name in the server's certificate (else set `configQRS.verifyName`)."
                .into(),
        }
    }
}

fn listed(names: &[String]) -> String {
    if names.is_empty() { "no name at all (it has no subject alternative name)".to_owned() } else { names.join(", ") }
}

/// What is known when a handshake fails.
#[derive(Debug, Clone, Default)]
pub struct Circumstances {
    /// The name the certificate must carry.
    pub wanted: String,
    /// `cert.clientCertCA`
    pub root: PathBuf,
    /// `cert.clientCert`
    pub client: PathBuf,
    /// End of validity of that, seconds since 1970.
    pub client_until: Option<i64>,
    /// The server's certificate as it was shown last.
    pub seen: Option<Facts>,
    /// The clock of this machine, seconds since 1970.
    pub now: i64,
}

/// What a TLS failure means; `None`: nothing that is certain to have happened before the request was read.
pub fn judge(error: &Error, connecting: bool, known: &Circumstances) -> Option<TrustProblem> {
    Some(match error {
        Error::InvalidCertificate(why) => certificate(why, known),
        // With TLS 1.3 the server's word on our certificate arrives after the handshake, in place of an answer.
        Error::AlertReceived(alert) if is_about_us(*alert) => match known.client_until {
            Some(until) if until < known.now => TrustProblem::ClientExpired { file: known.client.clone(), until },
            _ => TrustProblem::ClientRefused { file: known.client.clone(), alert: format!("{alert:?}") },
        },
        _ if !connecting => return None,
        Error::AlertReceived(alert) => TrustProblem::NothingInCommon(format!("TLS alert {alert:?}")),
        Error::PeerIncompatible(why) => TrustProblem::NothingInCommon(format!("{why:?}")),
        Error::InvalidMessage(_) => TrustProblem::NoTls,
        other => TrustProblem::Other(other.to_string()),
    })
}

fn certificate(why: &CertificateError, known: &Circumstances) -> TrustProblem {
    let seen = known.seen.as_ref();
    match why {
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            TrustProblem::Expired { until: seen.map_or(0, |seen| seen.until) }
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            TrustProblem::NotYetValid { from: seen.map_or(0, |seen| seen.from), now: known.now }
        }
        // A bad signature under the right name: the site's authority was made anew since the export.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => TrustProblem::UnknownAuthority {
            issuer: seen.map_or_else(|| "somebody".to_owned(), |seen| seen.issuer.clone()),
            root: known.root.clone(),
        },
        CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
            TrustProblem::WrongName {
                wanted: known.wanted.clone(),
                names: seen.map(|seen| seen.names.clone()).unwrap_or_default(),
                fingerprint: seen.map(|seen| seen.fingerprint.clone()).unwrap_or_default(),
            }
        }
        CertificateError::ApplicationVerificationFailure => {
            TrustProblem::Fingerprint { seen: seen.map(|seen| seen.fingerprint.clone()).unwrap_or_default() }
        }
        other => TrustProblem::Other(other.to_string()),
    }
}

/// Whether an alert is the server's word on our certificate, which it gives before it reads a request.
fn is_about_us(alert: AlertDescription) -> bool {
    matches!(
        alert,
        AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied
            | AlertDescription::DecryptError
            | AlertDescription::NoCertificate
            | AlertDescription::CertificateRequired
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alert_after_the_handshake_is_trust_only_when_it_is_about_our_certificate() {
        let known =
            Circumstances { client: "client.pem".into(), client_until: Some(100), now: 50, ..Default::default() };
        let cases = [
            (AlertDescription::CertificateRequired, false, "refused the client certificate in client.pem"),
            (AlertDescription::UnknownCA, true, "refused the client certificate in client.pem"),
            (AlertDescription::HandshakeFailure, true, "in common"),
            (AlertDescription::InternalError, false, ""),
            (AlertDescription::BadRecordMac, false, ""),
        ];
        assert_eq!(cases.len(), 5);
        for (alert, connecting, part) in cases {
            let problem = judge(&Error::AlertReceived(alert), connecting, &known);
            match problem {
                Some(problem) => {
                    assert!(!part.is_empty() && problem.to_string().contains(part), "{alert:?}: {problem}")
                }
                None => assert!(part.is_empty(), "{alert:?}"),
            }
        }
        let late = Circumstances { now: 200, ..known };
        let problem = judge(&Error::AlertReceived(AlertDescription::CertificateExpired), false, &late).unwrap();
        assert_eq!(problem, TrustProblem::ClientExpired { file: "client.pem".into(), until: 100 });
        assert!(problem.to_string().contains("1970-01-01 00:01:40 UTC"), "{problem}");
    }
}
