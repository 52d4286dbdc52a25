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

use std::{
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::Engine as _;
use fake_qrs::{FakeQrs, starter_of};
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
        tasks::request::{StartRequest, StartStatus, StartTarget},
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

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
        Self::with(names, |_, _| {})
    }

    /// A site whose server's and client's certificates are somehow special.
    fn with(names: &[&str], change: impl Fn(&mut CertificateParams, &mut CertificateParams)) -> Self {
        let directory = std::env::temp_dir().join(format!("sense-butler-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&directory).unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let root = authority.self_signed(&key).unwrap();
        let issuer = Issuer::new(authority, key);
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let server_key = KeyPair::generate().unwrap();
        let mut server = CertificateParams::new(names).unwrap();
        let mut client = CertificateParams::new(vec!["QlikClient".into()]).unwrap();
        change(&mut server, &mut client);
        let server = server.signed_by(&server_key, &issuer).unwrap();
        let client_key = KeyPair::from_pem_and_sign_algo(RSA_KEY, &PKCS_RSA_SHA256).unwrap();
        let client = client.signed_by(&client_key, &issuer).unwrap();
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
            (site.settings(&qrs, QrsVerify::Ca { name: None }), "is not made out for \"localhost\", but for sense01"),
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

/// What is answered whatever is asked.
async fn answering(status: u16, body: &str) -> FakeQrs {
    let qrs = FakeQrs::start().await;
    qrs.script("GET", "/qrs/", status, body);
    qrs
}

/// A listener that does this with whoever comes.
async fn listener<F>(each: impl Fn(TcpStream) -> F + Send + 'static) -> (SocketAddr, JoinHandle<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(each(stream));
        }
    });
    (address, accepting)
}

/// One case of diagnosis: what it is, the settings that lead to it, what is said, what is to be done.
struct Case {
    name: &'static str,
    settings: QrsSettings,
    said: &'static [&'static str],
    remedy: &'static str,
    sent: bool,
}

#[tokio::test]
async fn every_failure_says_what_happened_where_and_what_to_do() {
    let year = |year| rcgen::date_time_ymd(year, 1, 2);
    let site = Site::new(&[SHORT_NAME, "sense01.lab"]);
    let expired = Site::with(&[SHORT_NAME], |server, _| server.not_after = year(2020));
    let early = Site::with(&[SHORT_NAME], |server, _| server.not_before = year(2090));
    let nameless = Site::with(&[], |_, _| {});
    let old_client = Site::with(&[SHORT_NAME], |_, client| client.not_after = year(2021));
    let other = Site::new(&[SHORT_NAME]);
    let qrs = site.qrs(&TLS13).await;
    let at_expired = expired.qrs(&TLS13).await;
    let at_early = early.qrs(&TLS13).await;
    let at_nameless = nameless.qrs(&TLS13).await;
    let (at_old_client, at_old_client_12) = (old_client.qrs(&TLS13).await, old_client.qrs(&TLS12).await);
    let plain = FakeQrs::start().await;
    let (no_tls, _no_tls) = listener(|mut stream| async move {
        let _ = stream.read(&mut [0; 1024]).await;
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await;
    })
    .await;
    let (closing, _closing) = listener(|stream| async move { drop(stream) }).await;
    let (stalling, _stalling) = listener(|stream| async move {
        let _kept = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let unused = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let strange_client = |qrs| QrsSettings {
        client_cert: Some(other.directory.join("client.pem")),
        client_key: Some(other.directory.join("client_key.pem")),
        ..site.settings(qrs, named())
    };
    let tls_at = |address: SocketAddr| QrsSettings { port: address.port(), ..site.settings(&qrs, named()) };
    let page = "<!DOCTYPE html><html><head><style>b{}</style></head><body><h1>The http request header is incorrect.</h1></body></html>";
    let answers = [
        answering(403, "XSRF prevention check failed. Possible XSRF discovered.").await,
        answering(403, "Forbidden").await,
        answering(403, "Forbidden: Your account is inactive. Contact your administrator.").await,
        answering(200, "<html><body>Please log in</body></html>").await,
        answering(302, "").await,
        answering(400, page).await,
        answering(503, "Service is initialising").await,
        answering(200, "buildVersion").await,
        answering(404, "<html>Not Found</html>").await,
        answering(500, "An error occurred").await,
    ];
    let answered = |index: usize| answers[index].settings();
    let case = |name, settings, said, remedy| Case { name, settings, said, remedy, sent: false };
    let told = |name, settings, said, remedy| Case { name, settings, said, remedy, sent: true };
    let cases = [
        case(
            "server expired",
            expired.settings(&at_expired, named()),
            &["localhost:", "server's certificate expired on 2020-01-02 00:00:00 UTC"],
            "Renew the certificates",
        ),
        case(
            "server not yet valid",
            early.settings(&at_early, named()),
            &["valid from 2090-01-02", "clock of this machine says 20"],
            "Correct the clock",
        ),
        case(
            "unknown authority",
            QrsSettings { ca: Some(other.directory.join("root.pem")), ..site.settings(&qrs, named()) },
            &["issued by \"", "is not the authority in", "root.pem"],
            "Export the certificates from this very Sense site",
        ),
        case(
            "wrong name",
            site.settings(&qrs, QrsVerify::Ca { name: None }),
            &["not made out for \"localhost\", but for sense01, sense01.lab"],
            "`verifyName: sense01`",
        ),
        case(
            "no name",
            nameless.settings(&at_nameless, named()),
            &["not made out for \"sense01\", but for no name at all"],
            "`fingerprint: ",
        ),
        case(
            "another fingerprint",
            site.settings(&qrs, QrsVerify::Fingerprint([7; 32])),
            &["not the one whose fingerprint is configured; this one has "],
            "somebody else answers",
        ),
        case(
            "client refused, TLS 1.3",
            strange_client(&qrs),
            &["refused the client certificate in", "client.pem"],
            "exported from this very Sense site",
        ),
        case(
            "client expired, TLS 1.3",
            old_client.settings(&at_old_client, named()),
            &["refused the client certificate: the one in", "expired on 2021-01-02"],
            "Export the certificates anew",
        ),
        case(
            "client expired, TLS 1.2",
            old_client.settings(&at_old_client_12, named()),
            &["refused the client certificate: the one in", "expired on 2021-01-02"],
            "Export the certificates anew",
        ),
        case(
            "client missing",
            QrsSettings { client_cert: None, ..site.settings(&qrs, named()) },
            &["cert.clientCert", "names no file"],
            "section `cert`",
        ),
        case("no TLS there", tls_at(no_tls), &["does not speak TLS"], "`configQRS.useSSL`"),
        case(
            "closed in the handshake",
            tls_at(closing),
            &["closed the connection during the TLS handshake"],
            "Windows closes the connection",
        ),
        case("stalled handshake", tls_at(stalling), &["cannot be reached: no connection within 5 seconds"], "firewall"),
        case(
            "refused",
            tls_at(unused),
            &["cannot be reached: nobody listens there (connection refused)"],
            "Start the service",
        ),
        case(
            "unknown name",
            QrsSettings { host: Some(format!("{}.invalid", "x".repeat(64))), ..plain.settings() },
            &["cannot find out the address of that name"],
            "in DNS, or in the hosts file",
        ),
        case(
            "not configured",
            QrsSettings { host: None, ..plain.settings() },
            &["set `configQRS.host`"],
            "section `configQRS`",
        ),
        case("403 XSRF", answered(0), &["answered 403: XSRF prevention"], "X-Qlik-Xrfkey"),
        case(
            "403 not allowed",
            answered(1),
            &["127.0.0.1:", "answered 403: Forbidden"],
            "that user's roles in the QMC",
        ),
        case("403 inactive", answered(2), &["answered 403", "inactive"], "is inactive in Qlik Sense"),
        told("200 login page", answered(3), &["a web page answers (status 200: Please log in)"], "(4242)"),
        case("302 to a login", answered(4), &["a web page answers (status 302"], "proxy of Qlik Sense"),
        case(
            "400 host header",
            answered(5),
            &["a web page answers (status 400: The http request header is incorrect.)"],
            "proxy of Qlik Sense",
        ),
        told("503 starting", answered(6), &["answered 503: Service is initialising"], "is starting"),
        told("200 no JSON", answered(7), &["something unexpected: it is not JSON"], "(4242)"),
        case("404 of Windows", answered(8), &["a web page answers (status 404: Not Found)"], "(4242)"),
        told("500", answered(9), &["answered 500: An error occurred"], "Look into the log"),
    ];
    let mut ran = 0;
    for Case { name, settings, said, remedy, sent } in cases {
        let client = Qrs::new(&settings);
        let error = client.about().await.expect_err(name);
        for part in said {
            assert!(error.to_string().contains(part), "{name}: {part}: {error}");
        }
        let told = error.remedy().unwrap_or_default();
        assert!(told.contains(remedy), "{name}: {told}");
        assert_eq!(error.may_have_arrived(), sent, "{name}: {error}");
        let health = client.health();
        assert!(!health.is_ok() && health.sentence().contains(&error.to_string()), "{name}: {}", health.sentence());
        assert_eq!(health.remedy(), error.remedy(), "{name}");
        println!("{name}\n    {error}\n    {told}");
        ran += 1;
    }
    assert_eq!(ran, 26);
}

#[tokio::test]
async fn certificates_that_end_soon_are_told_and_new_files_are_taken_up() {
    let soon = |days: u64| time::OffsetDateTime::now_utc() + Duration::from_secs(days * 86_400 + 43_200);
    let site = Site::with(&[SHORT_NAME], |server, client| {
        server.not_after = soon(20);
        client.not_after = soon(10);
    });
    let renewed = Site::new(&[SHORT_NAME]);
    let qrs = site.qrs(&TLS13).await;
    let client = Qrs::new(&site.settings(&qrs, named()));
    let mut registry = prometheus_client::registry::Registry::default();
    client.tell_certificates(&sense_butler::net::certificates::Certificates::new(&mut registry));
    assert_eq!((client.warning(), client.certificate_ends().len()), (None, 0), "nothing was read yet");
    let watch_once = || async {
        let (stop, before) = (CancellationToken::new(), qrs.seen().len());
        let watching = tokio::spawn(client.clone().watch(stop.clone()));
        while qrs.seen().len() < before + 2 {
            tokio::task::yield_now().await;
        }
        stop.cancel();
        watching.await.unwrap();
    };
    watch_once().await;
    let warning = client.warning().unwrap();
    assert!(
        warning.contains("client.pem ends on ") && warning.contains("in 10 days") && warning.contains("in 20 days"),
        "{warning}"
    );
    assert_eq!(warning.matches(" ends on ").count(), 2, "not the authority's: {warning}");
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
    let told = |name: &str, end: i64| {
        text.contains(&format!("sense_butler_tls_cert_expiry_timestamp_seconds{{file=\"{name}\"}} {end}"))
    };
    let ends = client.certificate_ends();
    assert_eq!(ends.len(), 3);
    assert!(ends.iter().all(|end| told(&end.certificate, end.expires)), "{text}");

    // Files of another site are good files, but this server will not like them; unreadable ones are not taken at all.
    let (file, good) = (site.directory.join("client.pem"), fs::read(site.directory.join("client.pem")).unwrap());
    fs::write(&file, "half a certi").unwrap();
    watch_once().await;
    client.about().await.expect("the good ones stay in force");
    fs::write(&file, fs::read(renewed.directory.join("client.pem")).unwrap()).unwrap();
    let stop = CancellationToken::new();
    let watching = tokio::spawn(client.clone().watch(stop.clone()));
    while client.health().is_ok() {
        tokio::task::yield_now().await;
    }
    stop.cancel();
    watching.await.unwrap();
    assert!(client.health().sentence().contains("refused the client certificate"), "{}", client.health().sentence());
    fs::write(&file, good).unwrap();
    client.about().await.expect("read again after the refusal");
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
    let starter = starter_of(client, StartTaskFilter::default());
    let begun = Instant::now();
    let mut asking = tokio::task::JoinSet::new();
    for number in 0..2_000 {
        let target = StartTarget::Id(format!("0000aaaa-0000-4000-8000-{number:012x}").parse().unwrap());
        let request = StartRequest::new(vec![target], "rest", "test");
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
