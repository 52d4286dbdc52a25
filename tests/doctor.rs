//! `doctor` from outside: a healthy installation against the simulated site, and broken ones, each of which must be told by its cause.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

#[path = "support/app.rs"]
mod app;

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, UdpSocket},
    path::{Path, PathBuf},
};

use app::{App, Dir, run_to_end, said};
use sense_butler::sense::simulator::{
    PkiFiles, ServerCertificate, Simulator, SimulatorSettings, Targets, TlsChoices, Transport,
};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// A simulated site; it ends with the test.
struct Site {
    port: u16,
    files: PkiFiles,
    stop: CancellationToken,
    _running: JoinHandle<()>,
}

impl Drop for Site {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Site {
    async fn start(dir: &Dir) -> Self {
        Self::with(dir, "certificates", ServerCertificate::Sound).await
    }

    async fn with(dir: &Dir, directory: &str, certificate: ServerCertificate) -> Self {
        let directory = dir.0.join(directory);
        let settings = SimulatorSettings {
            qrs: vec!["127.0.0.1:0".parse().unwrap()],
            control: None,
            transport: Transport::MutualTls { directory: directory.clone() },
            tls: TlsChoices { certificate, ..TlsChoices::default() },
            rate: 0.0,
            ..SimulatorSettings::new(&directory)
        };
        let simulator = Simulator::bind(settings).await.unwrap();
        let (port, files) = (simulator.addresses().qrs[0].port(), simulator.pki().unwrap().clone());
        let stop = CancellationToken::new();
        let until = stop.clone();
        let running = tokio::spawn(async move { simulator.run(until).await.unwrap() });
        Self { port, files, stop, _running: running }
    }

    /// The lines of butler.yaml for it.
    fn lines(&self, user: &str) -> String {
        qrs(self.port, true, user) + &certificates(&self.files.client, &self.files.client_key, &self.files.root)
    }
}

const API: &str = "UserDirectory=INTERNAL; UserId=sa_api";

fn qrs(port: u16, tls: bool, user: &str) -> String {
    format!(
        "  configQRS:\n    host: localhost\n    port: {port}\n    useSSL: {tls}\n    headers:\n      static:\n        - name: X-Qlik-User\n          value: {user}\n"
    )
}

fn certificates(client: &Path, key: &Path, root: &Path) -> String {
    let quoted = |path: &Path| format!("'{}'", path.display());
    format!(
        "  cert:\n    clientCert: {}\n    clientCertKey: {}\n    clientCertCA: {}\n",
        quoted(client),
        quoted(key),
        quoted(root)
    )
}

/// Somebody who answers over plain HTTP; lists are asked for with a filter.
fn answering(head: &'static str, body: &'static str, list: &'static str) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut stream = stream;
            let mut seen = [0; 4096];
            let length = stream.read(&mut seen).unwrap_or(0);
            let asked = String::from_utf8_lossy(&seen[..length]).into_owned();
            let body = if asked.contains("filter=") { list } else { body };
            let _ = write!(stream, "{head}content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
        }
    });
    port
}

/// A port nobody has at the moment.
fn free() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Ports of the program's own doors that are free for TCP and UDP.
struct Ports([u16; 4]);

impl Ports {
    fn new() -> Self {
        let tcp = || TcpListener::bind("127.0.0.1:0").unwrap();
        let udp = || UdpSocket::bind("127.0.0.1:0").unwrap();
        let (tcp, udp) = ([tcp(), tcp()], [udp(), udp()]);
        let of = |address: std::io::Result<SocketAddr>| address.unwrap().port();
        Self([of(tcp[0].local_addr()), of(tcp[1].local_addr()), of(udp[0].local_addr()), of(udp[1].local_addr())])
    }

    fn options(&self) -> Vec<String> {
        let [mqtt, rest, udp, sessions] = self.0;
        [("--mqtt", mqtt), ("--rest", rest), ("--udp", udp), ("--udp-sessions", sessions)]
            .into_iter()
            .flat_map(|(option, port)| [option.to_owned(), format!("127.0.0.1:{port}")])
            .collect()
    }
}

struct Told {
    code: i32,
    json: Value,
    text: String,
}

impl Told {
    /// The findings of a level: section, and the text with its remedy.
    fn of(&self, level: &str) -> Vec<(String, String)> {
        let text = |finding: &Value| {
            let word = |key: &str| finding[key].as_str().unwrap_or_default().to_owned();
            (word("section"), format!("{} {}", word("what"), word("remedy")))
        };
        let findings = self.json["findings"].as_array().unwrap().iter();
        findings.filter(|finding| finding["level"] == level).map(text).collect()
    }
}

fn doctor(dir: &Dir, config: &Path, options: &[String]) -> Told {
    let data = dir.0.join("data");
    let mut arguments = vec!["doctor", "-c", config.to_str().unwrap(), "--json"];
    if !options.iter().any(|option| option == "--data") {
        arguments.extend(["--data", data.to_str().unwrap()]);
    }
    arguments.extend(options.iter().map(String::as_str));
    let output = run_to_end(dir, &arguments);
    let text = said(&output);
    let json = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {text}"));
    assert!(!text.contains("panicked"), "{text}");
    Told { code: output.status.code().unwrap(), json, text }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_installation_has_no_problem() {
    let dir = Dir::new();
    let site = Site::start(&dir).await;
    let config = dir.write("butler.yaml", &format!("Butler:\n{}", site.lines(API)));
    let ports = Ports::new();
    let options = ports.options();
    // Before the first start.
    let told = doctor(&dir, &config, &options);
    assert_eq!((told.code, &told.json["problems"]), (0, &Value::from(0)), "{}", told.text);
    for part in ["is free", "it does not run", "tasks can be looked for", "it agrees with that of", "can be made"] {
        assert!(told.of("ok").iter().any(|(_, text)| text.contains(part)), "{part}: {}", told.text);
    }
    assert!(!dir.0.join("data").exists(), "the doctor leaves nothing behind");
    // While it runs: its own ports are no problem, and the nodes are told.
    let data = dir.0.join("data");
    let further = ["-c", config.to_str().unwrap(), "--data", data.to_str().unwrap()];
    let addresses: Vec<&str> = options.iter().map(String::as_str).collect();
    let app = App::run_at(&dir, &addresses, &further).await;
    let datagram = "/scheduler-reload-failed/;sense-7;Nightly;Sales;LAB\\goran;5a1e5000-0000-4000-8000-000000000001;a9900000-0000-4000-8000-000000000001;2026-11-22 17:24:58,897;INFO;5a1e5000-0000-4000-8000-0000000000ff;Message";
    UdpSocket::bind("127.0.0.1:0").unwrap().send_to(datagram.as_bytes(), ("127.0.0.1", ports.0[2])).unwrap();
    let begun = std::time::Instant::now();
    while !app.get("/metrics").await.1.contains("host=\"sense-7\"") {
        assert!(begun.elapsed() < app::PATIENCE, "the datagram is not in the metrics");
        // The pause between two looks, not what the test relies on.
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    let told = doctor(&dir, &config, &options);
    assert_eq!((told.code, &told.json["problems"]), (0, &Value::from(0)), "{}", told.text);
    let fine = told.of("ok");
    let held = fine.iter().filter(|(section, text)| section == "ports" && text.contains("the running sense-butler"));
    assert_eq!(held.count(), 4, "{}", told.text);
    for part in ["has run for", "node sense-7: last datagram (task events) "] {
        assert!(fine.iter().any(|(_, text)| text.contains(part)), "{part}: {}", told.text);
    }
    // For people the same.
    let mut arguments = vec!["doctor"];
    arguments.extend(addresses);
    arguments.extend(further);
    let text = said(&run_to_end(&dir, &arguments));
    let long = text.lines().filter(|line| line.chars().count() > 80 && line.split_whitespace().count() > 4).count();
    assert!(text.contains("\nPorts\n  ok       MQTT") && text.contains("\nno problems, ") && long == 0, "{text}");
    app.stop().await;
}

/// A broken installation: what makes it, and by what it must be told.
struct Broken {
    name: &'static str,
    config: String,
    options: Vec<String>,
    level: &'static str,
    section: &'static str,
    parts: Vec<String>,
}

fn broken(name: &'static str, config: impl Into<String>, section: &'static str, parts: &[&str]) -> Broken {
    let parts = parts.iter().map(|part| (*part).to_owned()).collect();
    Broken { name, config: config.into(), options: Vec::new(), level: "problem", section, parts }
}

/// A certificate with its key, valid until a year.
fn pair(dir: &Dir, name: &str, year: i32) -> [PathBuf; 2] {
    let mut params = rcgen::CertificateParams::new(vec!["localhost".to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(2020, 1, 1);
    params.not_after = rcgen::date_time_ymd(year, 1, 1);
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate = params.self_signed(&key).unwrap().pem();
    [dir.write(&format!("{name}.pem"), &certificate), dir.write(&format!("{name}_key.pem"), &key.serialize_pem())]
}

fn rest_tls(cert: &Path, key: &Path) -> String {
    format!("  restServerConfig:\n    tls: {{enable: true, cert: '{}', key: '{}'}}\n", cert.display(), key.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_broken_installation_is_told_by_its_cause() {
    let dir = Dir::new();
    let site = Site::start(&dir).await;
    let mut cases = Vec::new();
    cases.extend(doors(&dir));
    cases.extend(files(&dir, &site));
    cases.extend(trust(&dir, &site).await);
    cases.extend(answers(&site));
    let mut told_well = 0;
    for case in &cases {
        let config = dir.write(&format!("{}/butler.yaml", case.name), &format!("Butler:\n{}", case.config));
        let mut options = case.options.clone();
        let ports = Ports::new().options();
        for pair in ports.chunks(2).filter(|pair| !case.options.contains(&pair[0])) {
            options.extend_from_slice(pair);
        }
        let told = doctor(&dir, &config, &options);
        assert_eq!(told.code, i32::from(case.level == "problem"), "{}: {}", case.name, told.text);
        let found = told.of(case.level);
        let fits = |(section, text): &(String, String)| {
            section == case.section && case.parts.iter().all(|part| text.contains(part.as_str()))
        };
        assert!(found.iter().any(fits), "{}: {:?} is not in {found:#?}", case.name, case.parts);
        if case.level == "problem" {
            assert_eq!(found.len(), 1, "{}: one cause, one problem: {found:#?}", case.name);
        }
        told_well += 1;
    }
    assert_eq!(told_well, if cfg!(unix) { 23 } else { 22 });
}

/// Ports, and whose they are.
fn doors(dir: &Dir) -> Vec<Broken> {
    let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = |address: std::io::Result<SocketAddr>| address.unwrap().to_string();
    let (tcp_at, udp_at) = (address(tcp.local_addr()), address(udp.local_addr()));
    // They are held until the process ends.
    std::mem::forget((tcp, udp));
    let by = if cfg!(target_os = "linux") {
        format!("held by process {} (", std::process::id())
    } else {
        "is held by".into()
    };
    let plain = "  configQRS: {port: 4242}\n";
    let mut cases = Vec::new();
    for (name, option, at, part) in [
        ("mqtt-port-taken", "--mqtt", &tcp_at, "set `mqttConfig.broker: external` or stop it"),
        ("rest-port-taken", "--rest", &tcp_at, "`restServerConfig.serverPort`"),
        ("udp-port-taken", "--udp", &udp_at, "If that is Butler, stop it"),
    ] {
        let case = broken(name, plain, "ports", &[by.as_str(), part]);
        cases.push(Broken { options: vec![option.to_owned(), at.clone()], ..case });
    }
    let elsewhere =
        broken("no-such-address", plain, "ports", &["cannot be opened", "Is that an address of this machine?"]);
    cases.push(Broken {
        options: vec!["--udp".into(), "192.0.2.7:9998".into(), "--udp-sessions".into(), "192.0.2.7:0".into()],
        ..elsewhere
    });
    let file = dir.write("a-file", "");
    let data = broken("data-not-writable", plain, "disk", &["cannot be made", "named with --data"]);
    cases.push(Broken { options: vec!["--data".into(), file.join("data").display().to_string()], ..data });
    cases
}

/// Files of the configuration and of certificates.
fn files(dir: &Dir, site: &Site) -> Vec<Broken> {
    let [old, old_key] = pair(dir, "old", 2021);
    let [good, _] = pair(dir, "good", 2040);
    let mut cases = vec![
        broken("unknown-key", "  mqttConfig: {enabel: true}\n", "configuration", &["did you mean `enable`?"]),
        broken("expired-certificate", rest_tls(&old, &old_key), "certificates", &["expired on 2021-01-01", "Renew it"]),
        broken("key-of-another", rest_tls(&good, &old_key), "certificates", &["is not the key of the certificate in"]),
    ];
    dir.write("broker-file-broken/broker.toml", "[limits]\nclients = \"many\"\n");
    cases.push(broken(
        "broker-file-broken",
        "  configQRS: {port: 4242}\n",
        "configuration",
        &["broker.toml:2:", "limits.clients"],
    ));
    let wrong = certificates(&site.files.client, &site.files.server_key, &site.files.root);
    cases.push(broken(
        "client-key-of-another",
        qrs(site.port, true, API) + &wrong,
        "qrs",
        &["it is not the key of the certificate in"],
    ));
    let gone = certificates(&dir.0.join("gone.pem"), &site.files.client_key, &site.files.root);
    cases.push(broken(
        "client-certificate-absent",
        qrs(site.port, true, API) + &gone,
        "qrs",
        &["gone.pem", "there is no such file"],
    ));
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let open = dir.write("open_key.pem", &fs::read_to_string(&site.files.client_key).unwrap());
        fs::set_permissions(&open, fs::Permissions::from_mode(0o644)).unwrap();
        let lines = qrs(site.port, true, API) + &certificates(&site.files.client, &open, &site.files.root);
        let case = broken("key-open-to-all", lines, "permissions", &["open_key.pem", "mode 644", "chmod 600"]);
        cases.push(Broken { level: "warning", ..case });
    }
    cases
}

/// Who can be reached, and trusted.
async fn trust(dir: &Dir, site: &Site) -> Vec<Broken> {
    let mut cases = Vec::new();
    for (name, kind, parts) in [
        (
            "server-expired",
            ServerCertificate::Expired,
            ["the server's certificate expired on", "Renew the certificates of the Sense site"],
        ),
        (
            "server-wrong-name",
            ServerCertificate::WrongName,
            ["is not made out for \"localhost\", but for other.example", "`verifyName: other.example`"],
        ),
    ] {
        let odd = Site::with(dir, name, kind).await;
        cases.push(broken(name, odd.lines(API), "qrs", &parts));
        // It is asked later.
        std::mem::forget(odd);
    }
    let other = Site::with(dir, "another-site", ServerCertificate::Sound).await;
    let strange = certificates(&other.files.client, &other.files.client_key, &site.files.root);
    cases.push(broken(
        "client-of-another-site",
        qrs(site.port, true, API) + &strange,
        "qrs",
        &["refused the client certificate", "this very Sense site"],
    ));
    let files = certificates(&site.files.client, &site.files.client_key, &site.files.root);
    let nobody = qrs(free(), true, API) + &files;
    cases.push(broken(
        "nobody-listens",
        nobody,
        "qrs",
        &["connection refused", "Start the service \"Qlik Sense Repository Service\""],
    ));
    let hosts = format!("    hosts:\n      - host: localhost\n        port: {}\n", site.port);
    let candidate = qrs(free(), true, API) + &hosts + &files;
    let candidate = broken("first-host-down", candidate, "qrs", &["connection refused"]);
    cases.push(Broken { level: "warning", ..candidate });
    let unknown = (qrs(4242, true, API) + &files).replace("host: localhost", "host: no-such-host.invalid");
    cases.push(broken(
        "unknown-name",
        unknown,
        "qrs",
        &["find out the address of that name", "Correct `configQRS.host`"],
    ));
    cases
}

/// What is answered.
fn answers(site: &Site) -> Vec<Broken> {
    let inactive = site.lines("UserDirectory=LAB; UserId=left-company");
    let reader = broken(
        "sees-no-task",
        site.lines("UserDirectory=LAB; UserId=reader"),
        "qrs",
        &["not a single task", "right to read tasks"],
    );
    let mighty = site.lines("UserDirectory=INTERNAL; UserId=sa_repository");
    let mighty = broken("too-powerful", mighty, "qrs", &["may do everything", "Security rules", "UserId=svc-butler"]);
    let page = answering("HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n", "<html><body>Log in</body></html>", "");
    let late = answering(
        "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n",
        "{\"buildVersion\":\"1\",\"value\":3}",
        "[]",
    );
    vec![
        broken(
            "user-inactive",
            inactive,
            "qrs",
            &["Your account is inactive", "is inactive in Qlik Sense (QMC, Users)"],
        ),
        broken("proxy-login", qrs(page, false, API), "qrs", &["a web page answers", "`configQRS.port`"]),
        Broken { level: "warning", ..reader },
        Broken { level: "warning", ..mighty },
        broken("clock-off", qrs(late, false, API), "clock", &["behind that of this machine", "the same source"]),
    ]
}

/// A site where things happen, with its control door.
async fn lively(dir: &Dir, ports: &Ports, rate: f64) -> (Site, u16, String, String) {
    let directory = dir.0.join("certificates");
    let at = |port: u16| vec![SocketAddr::from(([127, 0, 0, 1], port))];
    let settings = SimulatorSettings {
        qrs: vec!["127.0.0.1:0".parse().unwrap()],
        control: Some("127.0.0.1:0".parse().unwrap()),
        transport: Transport::MutualTls { directory: directory.clone() },
        targets: Targets { tasks: at(ports.0[2]), sessions: at(ports.0[3]) },
        seed: Some(7),
        speed: 5.0,
        rate,
        ..SimulatorSettings::new(&directory)
    };
    let simulator = Simulator::bind(settings).await.unwrap();
    let (addresses, files) = (simulator.addresses().clone(), simulator.pki().unwrap().clone());
    let disabled = simulator.plan().tasks.iter().find(|task| !task.enabled).unwrap().id.to_string();
    let task = simulator.sample_task().to_string();
    let stop = CancellationToken::new();
    let until = stop.clone();
    let running = tokio::spawn(async move { simulator.run(until).await.unwrap() });
    let site = Site { port: addresses.qrs[0].port(), files, stop, _running: running };
    (site, addresses.control.unwrap().port(), task, disabled)
}

fn probe(dir: &Dir, config: &Path, options: &[String]) -> (String, String) {
    let report = dir.0.join("report.txt");
    let mut arguments = vec!["doctor", "-c", config.to_str().unwrap(), "--probe", "--report", report.to_str().unwrap()];
    arguments.extend(options.iter().map(String::as_str));
    let output = run_to_end(dir, &arguments);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    (text, fs::read_to_string(report).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_probe_answers_every_question() {
    let (dir, ports) = (Dir::new(), Ports::new());
    let (site, _, task, disabled) = lively(&dir, &ports, 3.0).await;
    let config = dir.write("butler.yaml", &format!("Butler:\n{}", site.lines(API)));
    let mut options = ports.options();
    let further = [
        ("--task", task.clone()),
        ("--disabled-task", disabled.clone()),
        ("--callback", format!("http://127.0.0.1:{}", free())),
        // The simulated site waits ten seconds for an answer to a notification.
        ("--patience", "13".to_owned()),
        ("--listen", "5".to_owned()),
    ];
    options.extend(further.into_iter().flat_map(|(option, value)| [option.to_owned(), value]));
    let (text, report) = probe(&dir, &config, &options);
    assert!(text.starts_with("18 of 18 questions are answered"), "{text}\n{report}");
    let told = [
        "POST task/{id}/start: 404 with text \"The object does not exist\"",
        "POST task/{id}/start/synchronous: 201 with JSON {value: <id>}",
        "POST task/{id}/start/synchronous: 201 with JSON {value: <zero id>}",
        "GET about: 200 with JSON {buildVersion:",
        "handshake done",
        "TLS 1.2 alone: handshake done (TLSv1_2), then answered: HTTP/1.1 200 OK",
        "a short name, the one in `configQRS.host`",
        "it matches a task that has the name in one row and the value in another",
        "distribute (taskType 3): GET reloadtask/{id}: ",
        "objectType: \"ExecutionResult\"",
        "answered 503: not repeated within 13 s",
        "not answered: it hung up after 10.",
        "Aborted, started by this probe: \"",
        "Distributed: app id ",
        "SessionStarted: origin \"",
        "heard of the task that was started and stopped: [Aborted",
    ];
    for part in told {
        assert!(report.contains(part), "`{part}` is not in\n{report}");
    }
    for secret in ["goran", "localhost", "Reload Sales", "BEGIN", &task, &disabled, "configured-secret"] {
        assert!(!report.contains(secret), "`{secret}` is in\n{report}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_consent_the_probe_touches_nothing() {
    let (dir, ports) = (Dir::new(), Ports::new());
    let (site, control, ..) = lively(&dir, &ports, 0.0).await;
    let config = dir.write("butler.yaml", &format!("Butler:\n{}", site.lines(API)));
    let (text, report) = probe(&dir, &config, &ports.options());
    assert!(text.starts_with("8 of 18 questions are answered"), "{text}\n{report}");
    for option in ["--task <id>", "--disabled-task <id>", "--callback http://", "--listen 300"] {
        assert!(report.contains(option), "{option}: {report}");
    }
    let (status, starts) = app::http(control, "GET", "/control/starts", &[], "").await;
    let starts: Value = serde_json::from_str(&starts).unwrap();
    assert_eq!((status, starts["starts"].as_array().map(Vec::len)), (200, Some(0)), "{starts}");
    let (_, notifications) = app::http(control, "GET", "/control/notifications", &[], "").await;
    assert!(!notifications.contains("http://"), "{notifications}");
    // Nobody to ask is told as everywhere.
    let nobody = dir.write("nobody.yaml", "Butler:\n  mqttConfig: {enable: true}\n");
    app::assert_refused(&dir, &["doctor", "-c", nobody.to_str().unwrap(), "--probe"], 1, &["configQRS.host"]);
}
