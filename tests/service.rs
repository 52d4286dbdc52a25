//! The program as a service on Linux: what systemd is told through a stand-in for its socket, and the unit that is shipped.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "support/app.rs"]
mod app;

use std::{path::Path, process::Command, time::Duration};

use app::{App, Dir, FREE_PORTS, PATIENCE, assert_refused, run_to_end, said};
use sense_butler::{
    app::App as Program,
    config::{self, LoadOptions},
    service::{
        attend::{GivenUp, attend},
        notify::Notify,
    },
};
use tokio::{net::UnixDatagram, time::timeout};
use tokio_util::sync::CancellationToken;

/// Where systemd would listen.
struct Systemd {
    socket: UnixDatagram,
    path: String,
}

impl Systemd {
    fn new(dir: &Dir) -> Self {
        let path = dir.0.join("notify").to_str().unwrap().to_owned();
        Self { socket: UnixDatagram::bind(&path).unwrap(), path }
    }

    async fn try_next(&self, within: Duration) -> Option<String> {
        let mut buffer = [0; 1024];
        let length = timeout(within, self.socket.recv(&mut buffer)).await.ok()?.unwrap();
        Some(String::from_utf8(buffer[..length].to_vec()).unwrap())
    }

    /// Everything up to the first datagram that begins so.
    async fn until(&self, beginning: &str) -> Vec<String> {
        let mut all: Vec<String> = Vec::new();
        while all.last().is_none_or(|last| !last.starts_with(beginning)) {
            let next = self.try_next(PATIENCE).await;
            all.push(next.unwrap_or_else(|| panic!("no {beginning} after {all:?}")));
        }
        all
    }
}

#[tokio::test]
async fn systemd_hears_of_readiness_life_and_the_stop() {
    let dir = Dir::new();
    let systemd = Systemd::new(&dir);
    let environment = [("NOTIFY_SOCKET", systemd.path.as_str()), ("WATCHDOG_USEC", "200000")];
    let program = App::start_with(&dir, &[&["run"][..], &FREE_PORTS].concat(), &environment);
    let before = systemd.until("READY=1").await;
    assert!(before.contains(&"STATUS=ready".to_owned()), "{before:?}");
    assert_eq!(program.get("/readyz").await.0, 200, "as /readyz says");
    assert!(!before.contains(&"WATCHDOG=1".to_owned()), "nothing alive before it is ready: {before:?}");
    for _ in 0..5 {
        systemd.until("WATCHDOG=1").await;
    }
    program.signal("TERM");
    let last = systemd.until("STOPPING=1").await;
    assert_eq!(last.last().unwrap(), "STOPPING=1\nSTATUS=stopping");
    let ended = program.ended().await;
    assert_eq!(ended.status.code(), Some(0), "{}", ended.output);
    assert_eq!(systemd.try_next(Duration::from_millis(50)).await, None, "nothing after the stop");
}

/// The whole program with one part more, which goes deaf and hears again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_program_that_is_deaf_gives_no_sign_of_life() {
    let dir = Dir::new();
    let systemd = Systemd::new(&dir);
    let mut options = LoadOptions { data_dir: dir.0.join("data"), cwd: dir.0.clone(), ..LoadOptions::default() };
    let anywhere = || Some("127.0.0.1:0".parse().unwrap());
    options.overrides.mqtt = anywhere();
    options.overrides.rest = anywhere();
    options.overrides.udp = anywhere();
    options.overrides.udp_sessions = anywhere();
    let _ = rustls::crypto::ring::default_provider().install_default();
    let program = Program::build(&config::built_in(&options).unwrap()).unwrap();
    let (readiness, stop) = (program.readiness(), CancellationToken::new());
    let part = readiness.latch("part of a test");
    part.up();
    let watchdog = Duration::from_millis(200);
    let notify = Notify::new(systemd.path.as_ref(), Some(watchdog)).unwrap();
    let asked = stop.clone();
    let attended = attend(notify, readiness, GivenUp::default(), async move {
        asked.cancelled().await;
        "a test"
    });
    let running = tokio::spawn(program.run(attended));
    systemd.until("READY=1").await;
    systemd.until("WATCHDOG=1").await;
    part.down("it hears nothing");
    systemd.until("STATUS=not ready; part of a test: it hears nothing").await;
    assert_eq!(systemd.try_next(watchdog * 5).await, None, "systemd would have started it again");
    part.up();
    systemd.until("WATCHDOG=1").await;
    stop.cancel();
    systemd.until("STOPPING=1").await;
    running.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_socket_nobody_reads_is_told_in_the_log_and_harms_nobody() {
    let dir = Dir::new();
    let environment = [("NOTIFY_SOCKET", "/nowhere/at/all"), ("WATCHDOG_USEC", "200000")];
    let mut program = App::start_with(&dir, &[&["run"][..], &FREE_PORTS].concat(), &environment);
    program.wait_until_ready().await;
    program.printed(|text| text.contains("systemd cannot be told how the program is").then_some(())).await;
    program.stop().await;
}

/// What systemd finds wrong with the shipped unit, with a program that is there.
#[test]
fn the_shipped_unit_is_sound() {
    let Ok(version) = Command::new("systemd-analyze").arg("--version").output() else {
        assert!(std::env::var_os("REQUIRE_SYSTEMD").is_none(), "systemd-analyze is not here");
        return;
    };
    assert!(version.status.success());
    let dir = Dir::new();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd/sense-butler.service");
    let text = std::fs::read_to_string(shipped).unwrap();
    assert_eq!(text.matches("\nExecStart=/usr/local/bin/sense-butler ").count(), 1);
    assert!(text.contains("\nExecReload=/bin/kill -HUP $MAINPID\n"), "systemctl reload");
    let unit = dir.write("sense-butler.service", &text.replace("/usr/local/bin/sense-butler run", "/bin/sh run"));
    let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output().unwrap();
    let said = said(&verified);
    let about_ours: Vec<&str> = said.lines().filter(|line| line.contains("sense-butler")).collect();
    assert!(verified.status.success() && about_ours.is_empty(), "{said}");
    // And it does find what is wrong.
    let unit = dir.write("wrong.service", &text.replace("Type=notify", "Type=nonsense"));
    let verified = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&unit).output().unwrap();
    assert!(String::from_utf8_lossy(&verified.stderr).contains("nonsense"));
}

#[test]
fn refusals_say_what_to_do() {
    let dir = Dir::new();
    let hidden = dir.write("butler.yaml", "Butler:\n  mqttConfig:\n    broker: embedded\n");
    let hidden = hidden.to_str().unwrap();
    // Temporary directories are hidden from the service, and a program in a home directory is, too.
    assert_refused(
        &dir,
        &["service", "install", "--dry-run", "-c", hidden],
        1,
        &["is in a place the service cannot see", "copy it to /", "`service install` again"],
    );
    let wrong = dir.write("wrong.yaml", "Butler:\n  mqttConfig:\n    enable: perhaps\n");
    let wrong = wrong.to_str().unwrap();
    assert_refused(&dir, &["service", "install", "--dry-run", "-c", wrong], 64, &["wrong.yaml:3:13", "enable"]);
    assert_refused(&dir, &["service", "install", "--node", "10.0.0.0/33"], 64, &["--node", "10.0.0.0/33"]);
    assert_refused(&dir, &["service"], 64, &["install", "status"]);
    if !Path::new("/run/systemd/system").exists() {
        for verb in ["start", "stop", "restart", "status", "uninstall", "install"] {
            assert_refused(&dir, &["service", verb], 1, &["systemd does not manage this system", verb]);
        }
    }
    // A file that lies where somebody stands is not what the service is installed with, unless it is named.
    let stray = dir.write("config/butler.yaml", "Butler:\n  mqttConfig:\n    broker: embedded\n");
    if !Path::new("/etc/sense-butler/butler.yaml").exists() {
        let option = format!("-c \"{}\"", stray.display());
        let words = ["lies where you stand, and was not named", &option, "init --directory \"/etc/sense-butler\""];
        assert_refused(&dir, &["service", "install", "--dry-run"], 1, &words);
    }
    let plan = run_to_end(&dir, &["service", "uninstall", "--dry-run"]);
    let said = said(&plan);
    assert!(plan.status.success() && said.contains("disable --now sense-butler.service"), "{said}");
    assert!(said.contains("Nothing was done (--dry-run)."), "{said}");
}
