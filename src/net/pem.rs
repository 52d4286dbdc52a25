//! Certificates and keys in PEM form: the one place that reads them.
//!
//! Invariants: every error names the file and says what is wrong with it in words an administrator understands; no content of a key is ever
//! in an error; what is not a small text file is not read into memory.

use std::{
    fs::File,
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
};

/// Bytes a PEM file may have: thousands of certificates.
const LARGEST: u64 = 4 << 20;

/// A file that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} {why}", path.display())]
pub struct FileError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it; the sentence begins with the file.
    pub why: String,
}

impl FileError {
    /// An error of a file.
    pub fn new(path: &Path, why: impl Into<String>) -> Self {
        Self { path: path.to_owned(), why: why.into() }
    }
}

/// The content of a file. Blocks on the disk.
///
/// # Errors
/// If it cannot be read, or is larger than 4 MiB.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    let wrong = |error: io::Error| FileError::new(path, unreadable(&error));
    let mut content = Vec::new();
    File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut content)).map_err(wrong)?;
    if content.len() as u64 > LARGEST {
        return Err(FileError::new(path, "is larger than 4 MiB, which no PEM file is"));
    }
    Ok(content)
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "cannot be read: there is no such file".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "cannot be read: this program's account has no right to; give it the right to read".to_owned()
        }
        _ => format!("cannot be read: {error}"),
    }
}

/// All certificates of a PEM text; at least one.
///
/// # Errors
/// If there is none, or one is damaged.
pub fn certificates_in(content: &[u8], path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(content).collect();
    let found = found.map_err(|error| FileError::new(path, damaged(&error)))?;
    if found.is_empty() {
        return Err(FileError::new(path, "holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)"));
    }
    Ok(found)
}

/// The first private key of a PEM text: PKCS#8, PKCS#1 or SEC1, not encrypted.
///
/// # Errors
/// If there is none.
pub fn private_key_in(content: &[u8], path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    PrivateKeyDer::from_pem_slice(content).map_err(|error| {
        let encrypted = content.windows(9).any(|window| window == b"ENCRYPTED");
        FileError::new(
            path,
            match error {
                pem::Error::NoItemsFound if encrypted => {
                    "holds an encrypted key, which cannot be read without its password; write the key without one, e.g. `openssl pkey -in key.pem -out plain.pem`".to_owned()
                }
                pem::Error::NoItemsFound => "holds no private key in PEM form".to_owned(),
                error => damaged(&error),
            },
        )
    })
}

fn damaged(error: &pem::Error) -> String {
    format!("is damaged: {error}")
}

/// [`certificates_in`] a file. Blocks on the disk.
///
/// # Errors
/// As there, or if it cannot be read.
pub fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, FileError> {
    certificates_in(&read(path)?, path)
}

/// [`private_key_in`] a file. Blocks on the disk.
///
/// # Errors
/// As there, or if it cannot be read.
pub fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, FileError> {
    private_key_in(&read(path)?, path)
}

/// The earliest end of validity among certificates, seconds since 1970 (UTC); `None` where none can be read out.
pub fn earliest_end(chain: &[CertificateDer<'_>]) -> Option<i64> {
    let end = |der: &CertificateDer<'_>| {
        let (_, parsed) = x509_parser::parse_x509_certificate(der).ok()?;
        Some(parsed.validity().not_after.timestamp())
    };
    chain.iter().filter_map(end).min()
}

/// Authorities to trust: every certificate of a PEM text must be usable as one.
///
/// # Errors
/// If one is not.
pub fn authorities_in(content: &[u8], path: &Path) -> Result<RootCertStore, FileError> {
    let mut store = RootCertStore::empty();
    for certificate in certificates_in(content, path)? {
        store
            .add(certificate)
            .map_err(|error| FileError::new(path, format!("holds a certificate that cannot be trusted: {error}")))?;
    }
    Ok(store)
}

/// [`authorities_in`] a file. Blocks on the disk.
///
/// # Errors
/// As there, or if it cannot be read.
pub fn authorities(path: &Path) -> Result<RootCertStore, FileError> {
    authorities_in(&read(path)?, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_has_its_sentence() {
        let file = Path::new("x.pem");
        let begin = |what: &str| format!("-----BEGIN {what}-----\n");
        let end = |what: &str| format!("-----END {what}-----\n");
        let cases: [(String, &str, &str); 5] = [
            (String::new(), "holds no certificate", "holds no private key"),
            ("just text".into(), "holds no certificate", "holds no private key"),
            (begin("CERTIFICATE"), "is damaged", "is damaged"),
            (format!("{}!!!!\n{}", begin("CERTIFICATE"), end("CERTIFICATE")), "is damaged", "is damaged"),
            (
                format!("{}AAAA\n{}", begin("ENCRYPTED PRIVATE KEY"), end("ENCRYPTED PRIVATE KEY")),
                "holds no certificate",
                "holds an encrypted key",
            ),
        ];
        for (text, certificate, key) in cases {
            let error = certificates_in(text.as_bytes(), file).unwrap_err().to_string();
            assert!(error.starts_with("x.pem ") && error.contains(certificate), "{error}: {text}");
            let error = private_key_in(text.as_bytes(), file).unwrap_err().to_string();
            assert!(error.starts_with("x.pem ") && error.contains(key), "{error}: {text}");
        }
        let error = certificates(Path::new("nowhere.pem")).unwrap_err().to_string();
        assert_eq!(error, "nowhere.pem cannot be read: there is no such file");
    }

    #[test]
    fn a_certificate_that_is_none_is_no_authority() {
        let text = format!("-----BEGIN {0}-----\nAAAA\n-----END {0}-----\n", "CERTIFICATE");
        assert!(certificates_in(text.as_bytes(), Path::new("x.pem")).is_ok(), "the reader looks at the form alone");
        let error = authorities_in(text.as_bytes(), Path::new("x.pem")).unwrap_err().to_string();
        assert!(error.contains("cannot be trusted"), "{error}");
    }
}
