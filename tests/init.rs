//! `init` from outside: from nothing to a running appliance, by keyboard and by flags; wrong answers are explained and asked for again.
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
    net::{TcpListener, UdpSocket},
};

use app::{App, Dir, assert_refused, run_to_end, run_with_input, said};
use sense_butler::sense::simulator::{Simulator, SimulatorSettings, Transport};
use tokio_util::sync::CancellationToken;

/// Options with ports that are free on every address at the moment.
fn ports() -> Vec<String> {
    let tcp = || TcpListener::bind("0.0.0.0:0").unwrap();
    let udp = || UdpSocket::bind("0.0.0.0:0").unwrap();
    let (tcp, udp) = ([tcp(), tcp(), tcp()], [udp(), udp()]);
    let found = [
        ("--mqtt-port", tcp[0].local_addr().unwrap().port()),
        ("--mqtts-port", tcp[2].local_addr().unwrap().port()),
        ("--rest-port", tcp[1].local_addr().unwrap().port()),
        ("--udp-port", udp[0].local_addr().unwrap().port()),
        ("--udp-sessions-port", udp[1].local_addr().unwrap().port()),
    ];
    found.into_iter().flat_map(|(option, port)| [option.to_owned(), port.to_string()]).collect()
}

fn init(dir: &Dir, further: &[&str]) -> Vec<String> {
    let directory = dir.0.join("site");
    let fixed = ["init", "--directory", directory.to_str().unwrap()].map(str::to_owned);
    fixed.into_iter().chain(ports()).chain(further.iter().map(|word| (*word).to_owned())).collect()
}

fn words(all: &[String]) -> Vec<&str> {
    all.iter().map(String::as_str).collect()
}

/// What stands behind the first `marker` on its line.
fn after<'a>(text: &'a str, marker: &str) -> &'a str {
    text.split_once(marker).unwrap_or_else(|| panic!("`{marker}` is not in\n{text}")).1.lines().next().unwrap().trim()
}

/// A simulated site; its port and where its certificates are.
async fn site(dir: &Dir) -> (u16, std::path::PathBuf, CancellationToken) {
    let directory = dir.0.join("exported");
    let settings = SimulatorSettings {
        qrs: vec!["127.0.0.1:0".parse().unwrap()],
        control: None,
        transport: Transport::MutualTls { directory: directory.clone() },
        rate: 0.0,
        ..SimulatorSettings::new(&directory)
    };
    let simulator = Simulator::bind(settings).await.unwrap();
    let port = simulator.addresses().qrs[0].port();
    let stop = CancellationToken::new();
    let until = stop.clone();
    tokio::spawn(async move { simulator.run(until).await.unwrap() });
    (port, directory, stop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_the_first_question_to_a_running_appliance() {
    let dir = Dir::new();
    let (port, certificates, _stop) = site(&dir).await;
    // Each wrong answer, what it is told, and the right one.
    let dialog = [
        ("https://sense1/qmc", "is neither an address nor a host name"),
        (&format!("localhost:{port}"), ""),
        ("/no/such/place", "is no directory"),
        (dir.0.to_str().unwrap(), "client.pem is not in"),
        (certificates.to_str().unwrap(), ""),
        ("goran", "write DIRECTORY\\user"),
        (r"INTERNAL\sa_api", ""),
        ("10.0.0.0/8", "`10.0.0.0/8` is neither an address"),
        ("127.0.0.1", "is this machine"),
        ("none", ""),
        ("two words", "no blanks"),
        ("plc-7", ""),
    ];
    let input: String = dialog.iter().map(|(answer, _)| format!("{answer}\n")).collect();
    let arguments = init(&dir, &[]);
    let output = run_with_input(&dir, &words(&arguments), &input);
    let text = said(&output);
    assert!(output.status.success(), "{text}");
    let mut explained = 0;
    for (_, why) in dialog.iter().filter(|(_, why)| !why.is_empty()) {
        assert!(text.contains(why), "`{why}` is not in\n{text}");
        explained += 1;
    }
    assert_eq!(explained, 7);
    for number in 1..=5 {
        assert!(text.contains(&format!("\n{number}. ")), "question {number} is not in\n{text}");
    }
    // What was written works as it stands.
    let butler = dir.0.join("site/butler.yaml");
    let config = butler.to_str().unwrap();
    let check = run_to_end(&dir, &["check", "-c", config]);
    assert!(
        check.status.success() && said(&check).contains("user \"plc-7\": publish, subscribe, start tasks"),
        "{}",
        said(&check)
    );
    let doctor = run_to_end(&dir, &["doctor", "-c", config]);
    assert_eq!(doctor.status.code(), Some(0), "{}", said(&doctor));
    let mut app = App::start(&dir, &["run", "-c", config]);
    app.wait_until_ready().await;
    let mqtt = app.mqtt().await.to_string();
    let publish = |password: &str| {
        let arguments = ["pub", "-p", &mqtt, "--user", "plc-7", "--password-stdin", "-t", "plant/x", "-m", "1"];
        run_with_input(&dir, &arguments, &format!("{password}\n"))
    };
    let password = after(&text, "Its password, shown this once:");
    assert_eq!(publish(password).status.code(), Some(0), "{}", said(&publish(password)));
    assert_ne!(publish("guessed").status.code(), Some(0));
    app.stop().await;
    secrets_are_closed(&dir, password);
}

/// The password stands nowhere, and the file with its hash is its owner's.
fn secrets_are_closed(dir: &Dir, password: &str) {
    for file in ["site/butler.yaml", "site/broker.toml"] {
        let text = fs::read_to_string(dir.0.join(file)).unwrap();
        assert!(!text.contains(password), "{file}");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(dir.0.join(file)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{file}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flags_answer_everything_and_nothing_is_overwritten() {
    let dir = Dir::new();
    let arguments = init(&dir, &["--yes", "--qlik", "none", "--from", "10.1.0.7,sense2.lab", "--mqtt-user", "hmi"]);
    let output = run_to_end(&dir, &words(&arguments));
    let text = said(&output);
    assert!(output.status.success() && text.contains("certs"), "{text}");
    let butler = dir.0.join("site/butler.yaml");
    let first = fs::read_to_string(&butler).unwrap();
    let check = said(&run_to_end(&dir, &["check", "-c", butler.to_str().unwrap()]));
    for part in ["(\"plant\", TLS; users only)", "from 127.0.0.1, ::1, 10.1.0.7, sense2.lab", "cannot be started"] {
        assert!(check.contains(part), "{part}: {check}");
    }
    // What is there stays, unless the word is given.
    assert_refused(&dir, &words(&arguments), 1, &["is there already", "--overwrite"]);
    let asked = init(&dir, &["--qlik", "none", "--from", "none", "--mqtt-user", "hmi"]);
    let refused = run_with_input(&dir, &words(&asked), "perhaps\nno\n");
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("Please answer yes or no."), "{}", said(&refused));
    assert_eq!(fs::read_to_string(&butler).unwrap(), first);
    let agreed = run_with_input(&dir, &words(&asked), "yes\n");
    assert!(agreed.status.success(), "{}", said(&agreed));
    assert_ne!(fs::read_to_string(&butler).unwrap(), first);
    let left: Vec<_> = fs::read_dir(dir.0.join("site")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 3, "nothing but the two files and certs: {left:?}");
}

#[test]
fn what_cannot_be_used_is_refused_and_leaves_nothing() {
    let dir = Dir::new();
    let held = TcpListener::bind("0.0.0.0:0").unwrap();
    let port = held.local_addr().unwrap().port().to_string();
    let cases: [(&[&str], &str); 6] = [
        (&["--yes", "--qlik", "sense1"], "--certificates"),
        (&["--yes", "--qlik", "sense1", "--certificates", "."], "client.pem is not in"),
        (&["--yes", "--qlik", "none", "--mqtt-user", "a b"], "no blanks"),
        (&["--yes", "--qlik", "none", "--mqtt-port", &port], "is in use"),
        (&["--yes", "--qlik", "none", "--rest-port", "4242"], "Qlik Sense uses itself"),
        (&["--qlik", "none"], "the answers ended before the last question"),
    ];
    let mut refused = 0;
    for (further, why) in cases {
        let directory = dir.0.join("site");
        let mut arguments = vec!["init", "--directory", directory.to_str().unwrap()];
        let ports = ports();
        let free = ports.chunks(2).filter(|pair| !further.contains(&pair[0].as_str()));
        let free: Vec<&str> = free.flatten().map(String::as_str).collect();
        arguments.extend(free);
        arguments.extend(further);
        assert_refused(&dir, &arguments, 1, &[why]);
        assert!(!dir.0.join("site/butler.yaml").exists(), "{further:?}");
        refused += 1;
    }
    assert_eq!(refused, 6);
    // A port that is taken is one more question.
    let mut arguments = init(&dir, &["--qlik", "none", "--from", "none", "--mqtt-user", "x"]);
    let at = arguments.iter().position(|word| word == "--mqtt-port").unwrap();
    arguments[at + 1] = port.clone();
    let output = run_with_input(&dir, &words(&arguments), &format!("{port}\n4747\n\n"));
    let text = said(&output);
    assert!(output.status.success() && text.contains("Which other port for MQTT on this machine?"), "{text}");
    assert_eq!(text.matches("is in use").count(), 2, "{text}");
    assert!(text.contains("port 4747 is one Qlik Sense uses itself"), "{text}");
}

/// Runs a command line of the program on a pseudo-terminal, by `script` of util-linux.
#[cfg(target_os = "linux")]
fn on_a_terminal(dir: &Dir, arguments: &[&str], typed: &str) -> (bool, String) {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };
    let quoted: Vec<String> = arguments.iter().map(|word| format!("'{word}'")).collect();
    let line = format!("{} {}", env!("CARGO_BIN_EXE_sense-butler"), quoted.join(" "));
    let mut child = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .current_dir(&dir.0)
        .env_remove("NO_COLOR")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(typed.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(target_os = "linux")]
#[test]
fn the_same_on_a_terminal() {
    if !app::has_program("script", "--version", "the_same_on_a_terminal") {
        return;
    }
    let dir = Dir::new();
    let arguments = init(&dir, &["--qlik", "none"]);
    let (done, text) = on_a_terminal(&dir, &words(&arguments), "http://x\nnone\nno blanks\nplc\n");
    assert!(done && text.contains("Its password, shown this once: "), "{text}");
    for why in ["`http://x` is neither an address", "A name has 1 to 64 letters"] {
        assert!(text.contains(why), "{why}: {text}");
    }
    let butler = dir.0.join("site/butler.yaml");
    let (well, text) = on_a_terminal(&dir, &["doctor", "-c", butler.to_str().unwrap()], "");
    assert!(well && text.contains("\x1b[32mok       \x1b[0m"), "a terminal has colours: {text}");
}
