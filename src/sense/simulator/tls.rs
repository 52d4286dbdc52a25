//! What can be chosen about TLS: server certificates with faults, versions, what happens to clients without a certificate.

/// What the repository shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ServerCertificate {
    /// One that clients with the site's `root.pem` trust.
    #[default]
    Sound,
    /// One whose time is over.
    Expired,
    /// One for another machine.
    WrongName,
    /// One without alternative names, as old installations have: the name is in the subject alone.
    NoNames,
    /// One of an authority that is not in `root.pem`.
    UnknownAuthority,
}

/// Which versions of TLS are spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TlsVersions {
    /// 1.2 and 1.3.
    #[default]
    Both,
    /// 1.2 alone, as Windows Server 2019 does.
    Only12,
    /// 1.3 alone.
    Only13,
}

/// What can be chosen about TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TlsChoices {
    /// What the repository shows.
    pub certificate: ServerCertificate,
    /// Which versions are spoken.
    pub versions: TlsVersions,
    /// A client without a certificate is answered 403 instead of being turned away in the handshake.
    pub soft: bool,
}

/// The words are none of those for TLS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a choice of TLS versions; use both, 1.2 or 1.3")]
pub struct TlsVersionsError(String);

impl std::str::FromStr for TlsVersions {
    type Err = TlsVersionsError;

    fn from_str(text: &str) -> Result<Self, TlsVersionsError> {
        match text {
            "both" => Ok(Self::Both),
            "1.2" => Ok(Self::Only12),
            "1.3" => Ok(Self::Only13),
            _ => Err(TlsVersionsError(text.to_owned())),
        }
    }
}

impl TlsVersions {
    /// As the TLS library names them.
    pub fn list(self) -> Vec<&'static rustls::SupportedProtocolVersion> {
        match self {
            Self::Both => vec![&rustls::version::TLS13, &rustls::version::TLS12],
            Self::Only12 => vec![&rustls::version::TLS12],
            Self::Only13 => vec![&rustls::version::TLS13],
        }
    }
}

/// The word is none of those for a server certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a kind of server certificate; use sound, expired, wrong-name, no-names or unknown-authority")]
pub struct ServerCertificateError(String);

impl std::str::FromStr for ServerCertificate {
    type Err = ServerCertificateError;

    fn from_str(text: &str) -> Result<Self, ServerCertificateError> {
        match text {
            "sound" => Ok(Self::Sound),
            "expired" => Ok(Self::Expired),
            "wrong-name" => Ok(Self::WrongName),
            "no-names" => Ok(Self::NoNames),
            "unknown-authority" => Ok(Self::UnknownAuthority),
            _ => Err(ServerCertificateError(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn choices_are_read_and_refused_in_words() {
        for word in ["sound", "expired", "wrong-name", "no-names", "unknown-authority"] {
            assert!(word.parse::<ServerCertificate>().is_ok(), "{word}");
        }
        let error = "old".parse::<ServerCertificate>().unwrap_err().to_string();
        assert!(error.contains("`old`") && error.contains("wrong-name"), "{error}");
        assert_eq!("1.2".parse::<TlsVersions>().map(|versions| versions.list().len()), Ok(1));
        assert!("1.1".parse::<TlsVersions>().is_err());
    }
}
