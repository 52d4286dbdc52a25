//! Certificates that change, clients that show certificates, peers that do not finish their handshakes: over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

mod support;

use std::time::Duration;

use sense_butler::{
    broker::settings::{CertificateName, ClientCertificates, User, WebSocket},
    names::Secret,
};
use support::{
    raw::{Hello, Raw},
    running::Running,
    tls::{Authority, Files, connect, connector, der, listener_tls, shown},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

/// Looks again and again, for at most twenty seconds.
async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let looking = async {
        let mut interval = tokio::time::interval(Duration::from_millis(50));
        loop {
            interval.tick().await;
            if let Some(found) = look().await {
                return found;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), looking).await.unwrap_or_else(|_| panic!("never: {what}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_follow_their_files_and_connections_stay() {
    let (files, authority) = (Files::new("doors-reload"), Authority::new("plant"));
    let (first, second, third) = (authority.server(), authority.server(), authority.server());
    files.pair(&first);
    let broker = Running::start(|settings| settings.listeners[0].tls = Some(listener_tls(&files.0, None)));
    let client = connector(&[&authority], None);
    let seen = async || shown(&connect(broker.address, &client).await.unwrap());
    let stream = connect(broker.address, &client).await.unwrap();
    assert_eq!(shown(&stream), der(&first.cert));
    let (mut old, connack) = Raw::greet(stream, &Hello::v5("old")).await;
    assert_eq!(connack.unwrap()[1], 0);
    assert_eq!(old.subscribe("t", 0).await, 0);

    files.pair(&second);
    eventually("the new certificate", async || (seen().await == der(&second.cert)).then_some(())).await;
    let label =
        |result: &str| format!("sense_butler_tls_reloads_total{{door=\"MQTT listener test\",result=\"{result}\"}}");
    assert_eq!(broker.metric(&label("renewed")), Some(1));
    let failed = "sense_butler_tls_reload_failed{door=\"MQTT listener test\"}";
    assert_eq!(broker.metric(failed), Some(0));
    let expiry =
        format!("sense_butler_tls_cert_expiry_timestamp_seconds{{file=\"{}\"}}", files.path("cert.pem").display());
    assert_eq!(broker.metric(&expiry), Some(67_090_118_400), "rcgen's year 4096");

    // A key that is none, then the key of another certificate.
    for (count, key) in [(1, "nothing"), (2, third.key.as_str())] {
        files.write("key.pem", key);
        eventually("refused", async || (broker.metric(&label("refused")) == Some(count)).then_some(())).await;
        assert_eq!((seen().await, broker.metric(failed)), (der(&second.cert), Some(1)));
    }
    files.pair(&third);
    eventually("the third certificate", async || (seen().await == der(&third.cert)).then_some(())).await;
    assert_eq!(broker.metric(failed), Some(0));

    // The connection of the first hour is served as ever.
    let (mut new, _) = Raw::greet(connect(broker.address, &client).await.unwrap(), &Hello::v3("new")).await;
    new.publish("t", b"still here", 0, 0, false).await;
    assert_eq!(old.receive_publish().await.payload, b"still here");
    broker.stop().await;
}

fn user(name: &str) -> User {
    User { password_hash: None, ..User::new(name, Secret::default()) }
}

/// Users that come and go while the program runs, and another password for one who came without: certificates are judged by what is in force.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_name_users_of_the_moment() {
    let (files, authority) = (Files::new("doors-users"), Authority::new("plant"));
    files.pair(&authority.server());
    files.write("ca.pem", &authority.pem());
    let mut settings = Running::settings();
    let clients = ClientCertificates { ca: files.path("ca.pem"), required: true, name: CertificateName::CommonName };
    settings.listeners[0].tls = Some(listener_tls(&files.0, Some(clients)));
    settings.users = vec![user("stays"), user("goes")];
    let broker = Running::start(|started| *started = settings.clone());
    let client = |name: &str| connector(&[&authority], Some(&authority.client(name, &[])));
    let (stays, goes, comes) = (client("stays"), client("goes"), client("comes"));
    let mut served = Vec::new();
    for client in [&stays, &goes] {
        let stream = connect(broker.address, client).await.unwrap();
        let (raw, connack) = Raw::greet(stream, &Hello::v5(&served.len().to_string())).await;
        assert_eq!(connack.unwrap()[1], 0);
        served.push(raw);
    }
    assert_eq!(comes_in(&broker, &comes, &Hello::v5("comes")).await, Some(0x87));
    settings.users = vec![User::new("stays", Secret::new("$argon2id$")), user("comes")];
    broker.handle.reload(&settings);
    assert_eq!(served[1].receive().await, Some((0xe0, vec![0x98])), "its user is gone");
    assert_eq!(comes_in(&broker, &goes, &Hello::v3("goes")).await, Some(5));
    assert_eq!(comes_in(&broker, &comes, &Hello::v5("comes")).await, Some(0));
    served[0].send(0xc0, &[]).await;
    assert_eq!(
        served[0].receive().await,
        Some((0xd0, vec![])),
        "no password let it in, so another one does not turn it out"
    );
    // What is below MQTT stays as it was bound, and whoever changes it is told so.
    let differs = |change: fn(&mut sense_butler::broker::settings::Listener)| {
        let mut newer = settings.clone();
        change(&mut newer.listeners[0]);
        settings.needs_restart(&newer)
    };
    let web = |listener: &mut sense_butler::broker::settings::Listener| {
        listener.websocket = Some(WebSocket { path: "/mqtt".into(), allowed_origins: vec![], allowed_hosts: vec![] });
    };
    assert_eq!(differs(web), ["listeners"]);
    assert_eq!(differs(|listener| listener.tls.as_mut().unwrap().clients = None), ["listeners"]);
    assert_eq!(differs(|_| {}), [""; 0]);
    broker.stop().await;
}

/// The code of the CONNACK, or `None` where TLS already said no.
async fn comes_in(broker: &Running, client: &tokio_rustls::TlsConnector, hello: &Hello) -> Option<u8> {
    let Ok(stream) = connect(broker.address, client).await else { return None };
    let (_, connack) = Raw::greet(stream, hello).await;
    connack.map(|body| body[1])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn client_certificates_name_users() {
    let files = Files::new("doors-clients");
    let (authority, stranger) = (Authority::new("plant"), Authority::new("elsewhere"));
    files.pair(&authority.server());
    files.write("ca.pem", &authority.pem());
    let start = |required: bool, name: CertificateName| {
        let clients = ClientCertificates { ca: files.path("ca.pem"), required, name };
        let tls = listener_tls(&files.0, Some(clients));
        Running::start(move |settings| {
            settings.listeners[0].tls = Some(tls);
            settings.listeners[0].allow_anonymous = name == CertificateName::Nobody || !required;
            settings.users = vec![user("plc-7"), user("plc-8")];
        })
    };
    let client = |pair: &support::tls::Pair| connector(&[&authority], Some(pair));
    let (plc, expired) = (authority.client("plc-7", &["plc-8", "x.plant"]), authority.expired("plc-7"));
    let unknown = authority.client("nobody", &[]);
    let foreign = stranger.client("plc-7", &[]);
    let both = authority.client("x", &["plc-7", "plc-8"]);
    let (bare, v5, v3) = (connector(&[&authority], None), Hello::v5("c"), Hello::v3("c"));

    let broker = start(true, CertificateName::CommonName);
    let cases = [
        (client(&plc), v5.clone(), Some(0)),
        (client(&plc), v3.clone(), Some(0)),
        (client(&plc), v5.clone().user("plc-7", ""), Some(0)),
        (client(&plc), v5.clone().user("", ""), Some(0)),
        (client(&plc), v5.clone().user("plc-8", ""), Some(0x87)),
        (client(&plc), v3.clone().user("plc-8", ""), Some(5)),
        (client(&unknown), v5.clone(), Some(0x87)),
        (client(&unknown), v3.clone(), Some(5)),
        (client(&expired), v5.clone(), None),
        (client(&foreign), v5.clone(), None),
        (bare.clone(), v5.clone(), None),
    ];
    for (at, (client, hello, expected)) in cases.iter().enumerate() {
        assert_eq!(comes_in(&broker, client, hello).await, *expected, "required, case {at}");
    }
    // The authority is replaced: the next one signed by it comes in, the old ones do not.
    files.write("ca.pem", &stranger.pem());
    eventually("the new authority", async || comes_in(&broker, &client(&foreign), &v5).await.filter(|code| *code == 0))
        .await;
    assert_eq!(comes_in(&broker, &client(&plc), &v5).await, None);
    files.write("ca.pem", &authority.pem());
    broker.stop().await;

    let broker = start(false, CertificateName::AlternativeName);
    let cases = [
        (client(&plc), v5.clone(), Some(0)),
        (client(&plc), v5.clone().user("plc-8", ""), Some(0)),
        (client(&plc), v5.clone().user("plc-7", ""), Some(0x87)),
        (client(&both), v5.clone(), Some(0x87)),
        (client(&both), v5.clone().user("plc-7", ""), Some(0)),
        // Without a certificate it is as if there were none at all; who has no password cannot log in by one.
        (bare.clone(), v5.clone(), Some(0)),
        (bare.clone(), v5.clone().user("plc-7", ""), Some(0x86)),
        (client(&unknown), v5.clone(), Some(0x87)),
        (client(&foreign), v5.clone(), None),
    ];
    for (at, (client, hello, expected)) in cases.iter().enumerate() {
        assert_eq!(comes_in(&broker, client, hello).await, *expected, "optional, case {at}");
    }
    broker.stop().await;

    let broker = start(true, CertificateName::Nobody);
    let cases = [
        (client(&unknown), v5.clone(), Some(0)),
        (client(&unknown), v5.clone().user("plc-7", ""), Some(0x86)),
        (bare, v5, None),
    ];
    for (at, (client, hello, expected)) in cases.iter().enumerate() {
        assert_eq!(comes_in(&broker, client, hello).await, *expected, "nobody, case {at}");
    }
    broker.stop().await;
}

/// Whether the peer closes within the patience of a test.
async fn is_closed(stream: &mut TcpStream) -> bool {
    let mut rest = Vec::new();
    tokio::time::timeout(Duration::from_secs(20), stream.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silent_handshakes_keep_nobody_out() {
    let (files, authority) = (Files::new("doors-silent"), Authority::new("plant"));
    files.pair(&authority.server());
    let web = WebSocket { path: "/mqtt".into(), allowed_origins: vec![], allowed_hosts: vec![] };
    let beginnings: [(bool, bool, &[u8]); 4] = [
        (true, false, b""),
        // The beginning of a ClientHello.
        (true, false, b"\x16\x03\x01\x02"),
        (false, true, b"GET /mqtt HTTP/1.1\r\nHost:"),
        (true, true, b""),
    ];
    for (tls, ws, beginning) in beginnings {
        let broker = Running::start(|settings| {
            settings.listeners[0].tls = tls.then(|| listener_tls(&files.0, None));
            settings.listeners[0].websocket = ws.then(|| web.clone());
            settings.limits.handshakes = 20;
            settings.limits.handshakes_per_address = 10;
        });
        let mut silent = Vec::new();
        for _ in 0..50 {
            let mut stream = TcpStream::connect(broker.address).await.unwrap();
            stream.write_all(beginning).await.unwrap();
            silent.push(stream);
        }
        // Accepted in order: when the first forty were shown out, all have been seen.
        for stream in &mut silent[..40] {
            assert!(is_closed(stream).await);
        }
        let refused = broker.metric("sense_butler_mqtt_connections_refused_total{reason=\"handshakes_per_address\"}");
        assert_eq!(refused, Some(40));
        if tls && !ws {
            let stream = connect(broker.address, &connector(&[&authority], None)).await.unwrap();
            let (_, connack) = Raw::greet(stream, &Hello::v5("honest")).await;
            assert_eq!(connack.unwrap()[1], 0);
        } else if ws && !tls {
            let mut stream = TcpStream::connect(broker.address).await.unwrap();
            stream.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
        }
        broker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_handshake_has_its_time() {
    let (files, authority) = (Files::new("doors-late"), Authority::new("plant"));
    files.pair(&authority.server());
    let web = WebSocket { path: "/mqtt".into(), allowed_origins: vec![], allowed_hosts: vec![] };
    for (tls, ws, reason) in
        [(true, false, "tls_time"), (false, true, "upgrade_time"), (false, false, "no_connect_in_time")]
    {
        let broker = Running::start(|settings| {
            settings.listeners[0].tls = tls.then(|| listener_tls(&files.0, None));
            settings.listeners[0].websocket = ws.then(|| web.clone());
            settings.limits.connect_timeout = 1;
        });
        let mut stream = TcpStream::connect(broker.address).await.unwrap();
        assert!(is_closed(&mut stream).await);
        let name = format!("sense_butler_mqtt_connections_refused_total{{reason=\"{reason}\"}}");
        assert_eq!(broker.metric(&name), Some(1), "{reason}");
        broker.stop().await;
    }
}
