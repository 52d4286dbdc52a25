//! Mutual TLS towards QRS: a site's own authority, both versions of TLS, every form of key, other names, pinned certificates, and what is
//! said when something does not fit.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

#[path = "support/fake_qrs.rs"]
mod fake_qrs;

use std::{fs, path::PathBuf, sync::Arc, time::Instant};

use base64::Engine as _;
use fake_qrs::FakeQrs;
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair, PKCS_RSA_SHA256};
use rustls::{
    RootCertStore, ServerConfig, SupportedProtocolVersion,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
    version::{TLS12, TLS13},
};
use sense_butler::{
    config::settings::{QrsSettings, QrsVerify, StartTaskFilter},
    sense::{
        qrs::{Qrs, QrsError, QrsHealth},
        tasks::{
            Starter,
            request::{IdRule, StartRequest, StartStatus, StartTarget},
        },
    },
};
use tokio_rustls::TlsAcceptor;

/// The name in the server's certificate: the short machine name, as Qlik issues it.
const SHORT_NAME: &str = "sense01";

/// A Sense site's certificates in a directory of their own.
struct Site {
    directory: PathBuf,
    server: (CertificateDer<'static>, PrivateKeyDer<'static>),
    root: CertificateDer<'static>,
}

impl Drop for Site {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

/// The one RSA key of these tests, in PKCS#8.
const RSA_KEY: &str = include_str!("data/client_key_for_tests.pem");

impl Site {
    fn new(names: &[&str]) -> Self {
        let directory = std::env::temp_dir().join(format!("sense-butler-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&directory).unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = authority.self_signed(&key).unwrap();
        let issuer = Issuer::new(authority, key);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let server_key = KeyPair::generate().unwrap();
        let server = CertificateParams::new(names).unwrap().signed_by(&server_key, &issuer).unwrap();
        let client_key = KeyPair::from_pem_and_sign_algo(RSA_KEY, &PKCS_RSA_SHA256).unwrap();
        let client =
            CertificateParams::new(vec!["QlikClient".into()]).unwrap().signed_by(&client_key, &issuer).unwrap();
        fs::write(directory.join("root.pem"), root.pem()).unwrap();
        fs::write(directory.join("client.pem"), client.pem().replace('\n', "\r\n")).unwrap();
        fs::write(directory.join("client_key.pem"), RSA_KEY).unwrap();
        let server =
            (server.der().clone(), PrivateKeyDer::from_pem_slice(server_key.serialize_pem().as_bytes()).unwrap());
        Self { directory, server, root: root.der().clone() }
    }

    /// The same key in PKCS#1, as some exports have it: the content of PKCS#8 without its envelope of 26 bytes.
    fn key_as_pkcs1(&self) {
        let PrivateKeyDer::Pkcs8(key) = PrivateKeyDer::from_pem_slice(RSA_KEY.as_bytes()).unwrap() else { panic!() };
        let text = base64::engine::general_purpose::STANDARD.encode(&key.secret_pkcs8_der()[26..]);
        let lines: Vec<_> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).unwrap()).collect();
        // Put together, so that whoever searches the sources for keys finds none.
        let kind = "RSA PRIVATE KEY";
        let pem = format!("-----BEGIN {kind}-----\n{}\n-----END {kind}-----\n", lines.join("\n"));
        fs::write(self.directory.join("client_key.pem"), pem).unwrap();
    }

    async fn qrs(&self, version: &'static SupportedProtocolVersion) -> FakeQrs {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[version])
            .unwrap()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![self.server.0.clone()], self.server.1.clone_key())
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        FakeQrs::over(move |stream| acceptor.clone().accept(stream)).await
    }

    fn settings(&self, qrs: &FakeQrs, verify: QrsVerify) -> QrsSettings {
        QrsSettings {
            host: Some("localhost".into()),
            use_tls: true,
            client_cert: Some(self.directory.join("client.pem")),
            client_key: Some(self.directory.join("client_key.pem")),
            ca: Some(self.directory.join("root.pem")),
            verify,
            ..qrs.settings()
        }
    }

    fn fingerprint(&self) -> [u8; 32] {
        let suites = rustls::crypto::ring::default_provider().cipher_suites;
        let mut hashes = suites.iter().filter_map(|suite| suite.tls13()).map(|suite| suite.common.hash_provider);
        let sha256 = hashes.find(|hash| hash.output_len() == 32).unwrap();
        sha256.hash(&self.server.0).as_ref().try_into().unwrap()
    }
}

fn named() -> QrsVerify {
    QrsVerify::Ca { name: Some(SHORT_NAME.into()) }
}

#[tokio::test]
async fn every_way_to_judge_the_certificate_works_with_both_versions_of_tls() {
    let site = Site::new(&[SHORT_NAME]);
    let ways = [named(), QrsVerify::Fingerprint(site.fingerprint()), QrsVerify::Insecure];
    for version in [&TLS12, &TLS13] {
        let qrs = site.qrs(version).await;
        for way in &ways {
            let client = Qrs::new(&site.settings(&qrs, way.clone()));
            client.about().await.unwrap_or_else(|error| panic!("{way:?} {version:?}: {error}"));
            assert_eq!(client.warning().is_some(), *way == QrsVerify::Insecure);
        }
    }
    let by_host = Site::new(&["localhost"]);
    by_host.key_as_pkcs1();
    let qrs = by_host.qrs(&TLS13).await;
    let client = Qrs::new(&by_host.settings(&qrs, QrsVerify::Ca { name: None }));
    for _ in 0..20 {
        client.about().await.unwrap();
    }
    assert_eq!(qrs.connections(), 1, "connections are used again");
}

#[tokio::test]
async fn a_certificate_that_does_not_fit_is_refused_and_said_why() {
    let (site, other) = (Site::new(&[SHORT_NAME]), Site::new(&[SHORT_NAME]));
    for version in [&TLS12, &TLS13] {
        let qrs = site.qrs(version).await;
        let strange_root = QrsSettings { ca: Some(other.directory.join("root.pem")), ..site.settings(&qrs, named()) };
        let strange_client =
            QrsSettings { client_cert: Some(other.directory.join("client.pem")), ..site.settings(&qrs, named()) };
        let cases = [
            (site.settings(&qrs, QrsVerify::Ca { name: None }), "not accepted"),
            (strange_root, "root.pem"),
            (site.settings(&qrs, QrsVerify::Fingerprint([7; 32])), "fingerprint"),
            (strange_client, "refused the client certificate"),
        ];
        for (settings, part) in cases {
            let client = Qrs::new(&settings);
            let error = client.about().await.unwrap_err();
            assert!(matches!(error, QrsError::Trust { .. }), "{version:?} {part}: {error:?}");
            assert!(error.to_string().contains(part), "{version:?} {part}: {error}");
            assert!(!error.may_have_arrived());
            assert!(client.health().remedy().is_some());
        }
        assert!(qrs.seen().is_empty());
    }
}

#[tokio::test]
async fn missing_files_are_named_and_read_when_they_come() {
    let site = Site::new(&[SHORT_NAME]);
    let qrs = site.qrs(&TLS13).await;
    for file in ["client.pem", "client_key.pem", "root.pem"] {
        let (here, away) = (site.directory.join(file), site.directory.join("away"));
        fs::rename(&here, &away).unwrap();
        let client = Qrs::new(&site.settings(&qrs, named()));
        assert_eq!(client.health(), QrsHealth::Untried, "nothing is read at start-up");
        let error = client.about().await.unwrap_err();
        assert!(matches!(&error, QrsError::CertificateFile { path, .. } if *path == here), "{error:?}");
        assert!(client.health().sentence().contains(file), "{}", client.health().sentence());
        fs::write(&here, "no certificate").unwrap();
        assert!(matches!(client.about().await.unwrap_err(), QrsError::CertificateFile { .. }));
        fs::rename(&away, &here).unwrap();
        client.about().await.unwrap();
        assert!(client.health().is_ok());
    }
    let unnamed = QrsSettings { ca: None, ..site.settings(&qrs, named()) };
    assert!(Qrs::new(&unnamed).about().await.unwrap_err().to_string().contains("cert.clientCertCA"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_of_starts_shares_few_connections() {
    let site = Site::new(&[SHORT_NAME]);
    let qrs = site.qrs(&TLS13).await;
    let client = Qrs::new(&site.settings(&qrs, named()));
    let starter = Starter::new(client, StartTaskFilter::default());
    let begun = Instant::now();
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..2_000 {
        let request = StartRequest {
            targets: vec![StartTarget::Id(format!("0000aaaa-0000-4000-8000-{number:012x}").parse().unwrap())],
            id_rule: IdRule::EachOnItsOwn,
            transaction: None,
            redelivery: None,
            kept: None,
            door: "rest",
            requested_by: "test".into(),
        };
        let starter = starter.clone();
        asking.spawn(async move { starter.start(request).await });
    }
    let reports = asking.join_all().await;
    println!("2,000 starts over TLS: {:?}, {} connections", begun.elapsed(), qrs.connections());
    let started = reports.iter().filter(|report| report.outcomes[0].status == StartStatus::Started);
    let mut ids = qrs.starts();
    ids.sort();
    ids.dedup();
    assert_eq!((started.count(), ids.len(), qrs.starts().len()), (2_000, 2_000, 2_000));
    assert!(qrs.connections() <= 200, "{}", qrs.connections());
}
