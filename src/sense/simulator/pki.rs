//! The certificates of the simulated site: an authority of its own, a server certificate, a client certificate, as files with the names and in
//! the form in which Qlik's management console exports them ("platform independent PEM").
//!
//! Invariants: files in the directory that still fit (chain, names, dates, keys) are used again, so that clients configured with them keep
//! working; otherwise all are made anew. The authority's own key is never written.

use std::{
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, SanType,
};
use rustls::{
    RootCertStore, ServerConfig,
    client::danger::ServerCertVerifier,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, ServerName, UnixTime},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};

use super::{
    SimulatorError,
    tls::{ServerCertificate, TlsChoices},
};
use crate::net::pem;

/// Validity of what is made: Qlik's exported certificates live about as long.
const VALIDITY: Duration = Duration::from_secs(10 * 365 * 86_400);
/// Clocks of clients may be behind by this much.
const BACKDATED: Duration = Duration::from_secs(86_400);

/// Where the certificates are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PkiFiles {
    /// The directory.
    pub directory: PathBuf,
    /// `client.pem`: what a client shows.
    pub client: PathBuf,
    /// `client_key.pem`: its key.
    pub client_key: PathBuf,
    /// `root.pem`: the authority clients trust.
    pub root: PathBuf,
    /// `server.pem`: what the repository shows.
    pub server: PathBuf,
    /// `server_key.pem`: its key.
    pub server_key: PathBuf,
}

impl PkiFiles {
    /// The files of a directory, whether they exist or not.
    pub fn of(directory: &Path) -> Self {
        Self {
            directory: directory.to_owned(),
            client: directory.join("client.pem"),
            client_key: directory.join("client_key.pem"),
            root: directory.join("root.pem"),
            server: directory.join("server.pem"),
            server_key: directory.join("server_key.pem"),
        }
    }
}

/// Everything as PEM text.
struct Bundle {
    client: String,
    client_key: String,
    root: String,
    server: String,
    server_key: String,
}

/// Uses the files of `directory` if they are fit for `host`, or makes them, and gives what the TLS listener needs. Where the server's
/// certificate is to have a fault, all are made anew.
pub fn prepare(directory: &Path, host: &str, tls: TlsChoices) -> Result<(PkiFiles, ServerConfig), SimulatorError> {
    let files = PkiFiles::of(directory);
    if tls.certificate == ServerCertificate::Sound
        && let Some(bundle) = load(&files)
        && let Ok(config) = server_config(&bundle, host, tls)
    {
        return Ok((files, config));
    }
    let bundle = make(host, tls.certificate)?;
    let config = server_config(&bundle, host, tls)?;
    store(&files, &bundle)?;
    Ok((files, config))
}

fn load(files: &PkiFiles) -> Option<Bundle> {
    let read = |path: &PathBuf| std::fs::read_to_string(path).ok();
    Some(Bundle {
        client: read(&files.client)?,
        client_key: read(&files.client_key)?,
        root: read(&files.root)?,
        server: read(&files.server)?,
        server_key: read(&files.server_key)?,
    })
}

fn store(files: &PkiFiles, bundle: &Bundle) -> Result<(), SimulatorError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| SimulatorError::File { path, deed: "write", source }
    };
    std::fs::create_dir_all(&files.directory).map_err(failed(&files.directory))?;
    let all = [
        (&files.client, &bundle.client),
        (&files.client_key, &bundle.client_key),
        (&files.root, &bundle.root),
        (&files.server, &bundle.server),
        (&files.server_key, &bundle.server_key),
    ];
    for (path, text) in all {
        write_private(path, text).map_err(failed(path))?;
    }
    Ok(())
}

/// Writes a file that only its owner may read (on Windows: whoever the directory admits).
fn write_private(path: &Path, text: &str) -> std::io::Result<()> {
    // A file that exists keeps its old rights when it is only truncated.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)?.write_all(text.as_bytes())
}

fn make(host: &str, kind: ServerCertificate) -> Result<Bundle, SimulatorError> {
    let wrong = |error: rcgen::Error| SimulatorError::Certificates(error.to_string());
    let root_key = KeyPair::generate().map_err(wrong)?;
    let root = CertifiedIssuer::self_signed(root_params(host), root_key).map_err(wrong)?;
    let other_key = KeyPair::generate().map_err(wrong)?;
    let other = CertifiedIssuer::self_signed(root_params("other"), other_key).map_err(wrong)?;
    let issue =
        |params: CertificateParams, by: &CertifiedIssuer<'_, KeyPair>| -> Result<(String, String), rcgen::Error> {
            let key = KeyPair::generate()?;
            Ok((params.signed_by(&key, by)?.pem(), key.serialize_pem()))
        };
    let by = if kind == ServerCertificate::UnknownAuthority { &other } else { &root };
    let (server, server_key) = issue(server_params(host, kind).map_err(wrong)?, by).map_err(wrong)?;
    let (client, client_key) = issue(client_params(), &root).map_err(wrong)?;
    Ok(Bundle { client, client_key, root: root.pem(), server, server_key })
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    params.not_before = (now - BACKDATED).into();
    params.not_after = (now + VALIDITY).into();
    params
}

fn root_params(host: &str) -> CertificateParams {
    let mut params = named(&format!("{host}-CA"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params
}

fn server_params(host: &str, kind: ServerCertificate) -> Result<CertificateParams, rcgen::Error> {
    let mut params = named(host);
    params.subject_alt_names = match kind {
        ServerCertificate::NoNames => Vec::new(),
        ServerCertificate::WrongName => vec![SanType::DnsName("other.example".try_into()?)],
        _ => vec![
            SanType::DnsName(host.try_into()?),
            SanType::DnsName("localhost".try_into()?),
            SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)),
        ],
    };
    if kind == ServerCertificate::Expired {
        params.not_before = (SystemTime::now() - 3 * BACKDATED).into();
        params.not_after = (SystemTime::now() - 2 * BACKDATED).into();
    }
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    Ok(params)
}

fn client_params() -> CertificateParams {
    let mut params = named("QlikClient");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params
}

fn wrong(error: &dyn std::fmt::Display) -> SimulatorError {
    SimulatorError::Certificates(error.to_string())
}

/// The listener's TLS settings, after checking that every part fits the others today (the server's certificate only if it is to be sound).
fn server_config(bundle: &Bundle, host: &str, tls: TlsChoices) -> Result<ServerConfig, SimulatorError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let root = pem::authorities_in(bundle.root.as_bytes(), Path::new("root.pem")).map_err(|error| wrong(&error))?;
    let roots = Arc::new(root);
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::clone(&roots), Arc::clone(&provider));
    let clients = if tls.soft { clients.allow_unauthenticated() } else { clients };
    let clients = clients.build().map_err(|error| wrong(&error))?;
    let server = certificates(&bundle.server, "server.pem")?;
    if tls.certificate == ServerCertificate::Sound {
        check_server(&server, &roots, &provider, host)?;
    }
    check_client(bundle, clients.as_ref(), &provider)?;
    let key = pem::private_key_in(bundle.server_key.as_bytes(), Path::new("server_key.pem"));
    let key = key.map_err(|error| wrong(&error))?;
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&tls.versions.list())
        .map_err(|error| wrong(&error))?
        .with_client_cert_verifier(clients)
        .with_single_cert(server, key)
        .map_err(|error| wrong(&error))
}

fn certificates(text: &str, file: &str) -> Result<Vec<CertificateDer<'static>>, SimulatorError> {
    pem::certificates_in(text.as_bytes(), Path::new(file)).map_err(|error| wrong(&error))
}

fn check_server(
    chain: &[CertificateDer<'_>],
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
    host: &str,
) -> Result<(), SimulatorError> {
    let (server, intermediates) = chain.split_first().ok_or_else(|| wrong(&"server.pem is empty"))?;
    let builder = rustls::client::WebPkiServerVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider));
    let verifier = builder.build().map_err(|error| wrong(&error))?;
    for name in [host, "localhost", "127.0.0.1", "::1"] {
        let name = ServerName::try_from(name).map_err(|error| wrong(&error))?;
        verifier
            .verify_server_cert(server, intermediates, &name, &[], UnixTime::now())
            .map_err(|error| wrong(&error))?;
    }
    Ok(())
}

fn check_client(
    bundle: &Bundle,
    verifier: &dyn ClientCertVerifier,
    provider: &CryptoProvider,
) -> Result<(), SimulatorError> {
    let chain = certificates(&bundle.client, "client.pem")?;
    let (client, intermediates) = chain.split_first().ok_or_else(|| wrong(&"client.pem is empty"))?;
    verifier.verify_client_cert(client, intermediates, UnixTime::now()).map_err(|error| wrong(&error))?;
    let key = pem::private_key_in(bundle.client_key.as_bytes(), Path::new("client_key.pem"));
    let key = key.map_err(|error| wrong(&error))?;
    rustls::sign::CertifiedKey::from_der(chain, key, provider).map_err(|error| wrong(&error)).map(|_| ())
}

/// The common name in a certificate.
pub fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    use x509_parser::prelude::{FromDer as _, X509Certificate};
    let (_, certificate) = X509Certificate::from_der(certificate).ok()?;
    certificate.subject().iter_common_name().next()?.as_str().ok().map(str::to_owned)
}

/// The name of this machine, lower case; `localhost` where the system does not tell or the name cannot stand in a certificate.
pub fn machine_name() -> String {
    let told = std::env::var("COMPUTERNAME")
        .or_else(|_| std::env::var("HOSTNAME"))
        .or_else(|_| std::fs::read_to_string("/etc/hostname"));
    told.map(|name| name.trim().to_lowercase())
        .ok()
        .filter(|name| matches!(ServerName::try_from(name.as_str()), Ok(ServerName::DnsName(_))))
        .unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory(name: &str) -> PathBuf {
        std::env::temp_dir().join(format!("sense-butler-pki-{name}-{}", std::process::id()))
    }

    #[test]
    fn what_fits_is_used_again_and_what_does_not_is_replaced() {
        let directory = directory("reuse");
        let (files, _) = prepare(&directory, "sense-1", TlsChoices::default()).unwrap();
        let read =
            || [&files.root, &files.client_key, &files.server].map(|path| std::fs::read_to_string(path).unwrap());
        let first = read();
        prepare(&directory, "sense-1", TlsChoices::default()).unwrap();
        assert_eq!(read(), first, "the same files are used again");
        // For another name the server certificate does not fit.
        prepare(&directory, "other", TlsChoices::default()).unwrap();
        let second = read();
        assert_ne!(second, first);
        let expired = TlsChoices { certificate: ServerCertificate::Expired, ..TlsChoices::default() };
        // One with a fault is not used again by who wants a sound one.
        prepare(&directory, "other", expired).unwrap();
        let odd = read();
        prepare(&directory, "other", TlsChoices::default()).unwrap();
        assert_ne!(read(), odd);
        // A key of another pair does not fit either.
        std::fs::copy(&files.server_key, &files.client_key).unwrap();
        prepare(&directory, "other", TlsChoices::default()).unwrap();
        assert_ne!(read(), second);
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn the_files_are_for_their_owner_only() {
        use std::os::unix::fs::PermissionsExt as _;
        let directory = directory("rights");
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join("client_key.pem"), "old").unwrap();
        let (files, _) = prepare(&directory, "sense-1", TlsChoices::default()).unwrap();
        for path in [&files.client, &files.client_key, &files.root, &files.server, &files.server_key] {
            assert_eq!(std::fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        }
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
