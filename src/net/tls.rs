//! TLS of one door, made of its files, and made again when they change.
//!
//! Invariants: certificate, key and authorities of clients are taken together or not at all; files that are broken, or do not belong
//! together, leave the last good ones in force; files that are just being written are not looked at before two looks found them the same.
//! Connections keep the certificate they were greeted with.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use rustls::{
    ServerConfig,
    crypto::{CryptoProvider, ring::default_provider},
    pki_types::CertificateDer,
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
};
use tokio_rustls::TlsAcceptor;

use super::pem::{self, FileError};

/// The files of a door.
#[derive(Debug, Clone)]
pub struct Files {
    /// Certificate chain, PEM, the server's own first.
    pub cert: PathBuf,
    /// Private key, PEM.
    pub key: PathBuf,
    /// Whether clients show certificates.
    pub clients: Option<Clients>,
    /// ALPN protocols, preferred first; none: whatever a client offers is taken.
    pub alpn: Vec<Vec<u8>>,
}

/// Certificates of clients.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clients {
    /// Authorities that sign them, PEM.
    pub ca: PathBuf,
    /// Whether a client without one is turned away.
    pub required: bool,
}

/// What a look at the files found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// Nothing to tell.
    Same,
    /// New files are in force.
    Renewed,
    /// The files are again those in force, after others that could not be used.
    Restored,
    /// New files cannot be used; the old ones stay in force. Told once for the same content.
    Refused(FileError),
}

/// What is known of one file.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Certificate {
    /// The file.
    pub file: PathBuf,
    /// The earliest end of validity in it, seconds since 1970 (UTC); `None` where it cannot be read out.
    pub expires: Option<i64>,
}

/// A door's TLS.
#[derive(Debug)]
pub struct TlsDoor {
    name: String,
    files: Files,
    current: ArcSwap<ServerConfig>,
    state: Mutex<State>,
}

type Digest = [u8; 32];

#[derive(Debug)]
struct State {
    /// Of the files in force.
    loaded: Digest,
    /// Of the last look.
    seen: Digest,
    /// Of files that could not be used, and why.
    refused: Option<(Digest, FileError)>,
    certificates: Vec<Certificate>,
}

impl TlsDoor {
    /// Reads the files. Blocks on the disk.
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub(super) fn load(name: &str, files: Files) -> Result<Self, FileError> {
        let contents = Contents::read(&files);
        let digest = contents.digest();
        let (config, certificates) = contents.build(&files)?;
        let state = State { loaded: digest, seen: digest, refused: None, certificates };
        Ok(Self { name: name.to_owned(), files, current: ArcSwap::from_pointee(config), state: Mutex::new(state) })
    }

    /// The door's name in logs and metrics.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Greets one connection with what is in force now.
    pub fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.current.load_full())
    }

    /// The files with certificates.
    pub fn certificates(&self) -> Vec<Certificate> {
        self.state.lock().certificates.clone()
    }

    /// Why the files as they are now cannot be used, while older ones are in force.
    pub fn problem(&self) -> Option<FileError> {
        self.state.lock().refused.as_ref().map(|(_, why)| why.clone())
    }

    /// Looks at the files, and takes them if they are new, good and no longer being written. Blocks on the disk.
    pub(super) fn look(&self) -> Look {
        let contents = Contents::read(&self.files);
        let digest = contents.digest();
        match self.judge(digest) {
            Judged::Done(look) => look,
            Judged::New => match contents.build(&self.files) {
                Ok((config, certificates)) => {
                    self.current.store(Arc::new(config));
                    *self.state.lock() = State { loaded: digest, seen: digest, refused: None, certificates };
                    Look::Renewed
                }
                Err(error) => {
                    self.state.lock().refused = Some((digest, error.clone()));
                    Look::Refused(error)
                }
            },
        }
    }

    fn judge(&self, digest: Digest) -> Judged {
        let mut state = self.state.lock();
        let settled = std::mem::replace(&mut state.seen, digest) == digest;
        if digest == state.loaded {
            return Judged::Done(if state.refused.take().is_some() { Look::Restored } else { Look::Same });
        }
        let known = state.refused.as_ref().is_some_and(|(refused, _)| *refused == digest);
        if known || !settled { Judged::Done(Look::Same) } else { Judged::New }
    }
}

enum Judged {
    Done(Look),
    New,
}

type Content = Result<Vec<u8>, FileError>;

/// The files as they were read, once.
struct Contents {
    cert: Content,
    key: Content,
    ca: Option<Content>,
}

impl Contents {
    fn read(files: &Files) -> Self {
        Self {
            cert: pem::read(&files.cert),
            key: pem::read(&files.key),
            ca: files.clients.as_ref().map(|clients| pem::read(&clients.ca)),
        }
    }

    /// Files that cannot be read have a digest, too: that of the reason.
    fn digest(&self) -> Digest {
        let mut context = ring::digest::Context::new(&ring::digest::SHA256);
        for content in [Some(&self.cert), Some(&self.key), self.ca.as_ref()].into_iter().flatten() {
            let (kind, bytes) = match content {
                Ok(bytes) => (0, bytes.as_slice()),
                Err(error) => (1, error.why.as_bytes()),
            };
            context.update(&[kind]);
            context.update(&bytes.len().to_le_bytes());
            context.update(bytes);
        }
        let mut digest = Digest::default();
        for (to, from) in digest.iter_mut().zip(context.finish().as_ref()) {
            *to = *from;
        }
        digest
    }

    fn build(self, files: &Files) -> Result<(ServerConfig, Vec<Certificate>), FileError> {
        let provider = Arc::new(default_provider());
        let chain = pem::certificates_in(&self.cert?, &files.cert)?;
        let key = pem::private_key_in(&self.key?, &files.key)?;
        let mut certificates = vec![certificate(&files.cert, &chain)];
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| FileError::new(&files.cert, error.to_string()))?;
        let builder = match (&files.clients, self.ca) {
            (Some(clients), Some(ca)) => {
                let ca = ca?;
                certificates.push(certificate(&clients.ca, &pem::certificates_in(&ca, &clients.ca)?));
                builder.with_client_cert_verifier(verifier(clients, &ca, provider)?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, key).map_err(|error| unfit(files, &error))?;
        config.alpn_protocols.clone_from(&files.alpn);
        if files.clients.is_some() {
            // A resumed session would bring a certificate that nobody looked at again.
            config.session_storage = Arc::new(NoServerSessionStorage {});
            config.send_tls13_tickets = 0;
        }
        Ok((config, certificates))
    }
}

fn verifier(
    clients: &Clients,
    ca: &[u8],
    provider: Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, FileError> {
    let authorities = Arc::new(pem::authorities_in(ca, &clients.ca)?);
    let builder = WebPkiClientVerifier::builder_with_provider(authorities, provider);
    let builder = if clients.required { builder } else { builder.allow_unauthenticated() };
    builder.build().map_err(|error| FileError::new(&clients.ca, format!("cannot be used to verify clients: {error}")))
}

fn unfit(files: &Files, error: &rustls::Error) -> FileError {
    match error {
        rustls::Error::InconsistentKeys(_) => {
            FileError::new(&files.key, format!("is not the key of the certificate in {}", files.cert.display()))
        }
        rustls::Error::InvalidCertificate(_) => {
            FileError::new(&files.cert, format!("holds a certificate that cannot be used: {error}"))
        }
        error => FileError::new(&files.key, format!("cannot be used as a key: {error}")),
    }
}

fn certificate(file: &Path, chain: &[CertificateDer<'_>]) -> Certificate {
    Certificate { file: file.to_owned(), expires: pem::earliest_end(chain) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with the files of a door.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sense-butler-net-tls-{name}-{}", std::process::id()));
            std::fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn files(&self) -> Files {
            let clients = Some(Clients { ca: self.0.join("ca.pem"), required: true });
            Files { cert: self.0.join("cert.pem"), key: self.0.join("key.pem"), clients, alpn: vec![] }
        }

        fn write(&self, file: &str, content: &str) {
            std::fs::write(self.0.join(file), content).unwrap();
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn pair(name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    #[test]
    fn files_are_taken_together_or_not_at_all() {
        let place = Place::new("together");
        let ((cert, key), (new_cert, new_key)) = (pair("one"), pair("two"));
        place.write("cert.pem", &cert);
        place.write("key.pem", &key);
        place.write("ca.pem", &cert);
        let door = TlsDoor::load("door", place.files()).unwrap();
        assert_eq!((door.look(), door.problem()), (Look::Same, None));
        let first = door.current.load_full();
        let unchanged = |door: &TlsDoor| Arc::ptr_eq(&first, &door.current.load_full());

        // The certificate comes first, its key a look later: in between nothing is taken and nobody is alarmed.
        place.write("cert.pem", &new_cert);
        assert_eq!(door.look(), Look::Same);
        place.write("key.pem", &new_key);
        assert_eq!(door.look(), Look::Same);
        assert!(unchanged(&door));
        assert_eq!(door.look(), Look::Renewed);
        assert!(!unchanged(&door));

        let kept = door.current.load_full();
        let broken: [(&str, Option<&str>, &str); 6] = [
            ("key.pem", Some(&key), "is not the key of the certificate in"),
            ("key.pem", Some("no key"), "holds no private key"),
            ("cert.pem", Some(""), "holds no certificate"),
            ("ca.pem", Some("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"), "cannot be trusted"),
            ("ca.pem", Some(" "), "holds no certificate"),
            ("cert.pem", None, "there is no such file"),
        ];
        for (file, content, why) in broken {
            let before = std::fs::read_to_string(place.0.join(file)).unwrap();
            match content {
                Some(content) => place.write(file, content),
                None => std::fs::remove_file(place.0.join(file)).unwrap(),
            }
            assert_eq!(door.look(), Look::Same, "{why}");
            let Look::Refused(error) = door.look() else { panic!("{why}") };
            assert!(error.why.contains(why), "{error}");
            assert_eq!((error.path.clone(), door.problem()), (place.0.join(file), Some(error)));
            assert_eq!(door.look(), Look::Same, "told once: {why}");
            place.write(file, &before);
            assert_eq!((door.look(), door.problem()), (Look::Restored, None));
        }
        assert!(Arc::ptr_eq(&kept, &door.current.load_full()), "the good pair stayed in force all the time");
    }

    #[test]
    fn the_end_of_validity_is_known() {
        let place = Place::new("expiry");
        let made = |year: i32| {
            let mut params = rcgen::CertificateParams::new(vec!["x".to_owned()]).unwrap();
            params.not_after = rcgen::date_time_ymd(year, 1, 1);
            let key = rcgen::KeyPair::generate().unwrap();
            (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
        };
        let ((late, key), (early, _)) = (made(2040), made(2039));
        place.write("cert.pem", &format!("{late}{early}"));
        place.write("key.pem", &key);
        place.write("ca.pem", &late);
        let door = TlsDoor::load("door", place.files()).unwrap();
        let ends: Vec<_> = door.certificates().iter().map(|certificate| certificate.expires).collect();
        assert_eq!(ends, [Some(2_177_452_800), Some(2_208_988_800)], "the earliest of each file");
    }
}
