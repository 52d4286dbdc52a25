//! Hostile peers of every kind against the real program, an honest pair of clients beside them.
//!
//! Inside `cargo test` the attacks are small, and what is asked is: nothing honest is lost, the program stays up, its memory comes back.
//! `tools/hostile` runs the same attacks in full size, compares the times of the honest with an attack on a program that only accepts and reads,
//! and prints a table (`HOSTILE_SECONDS`, `HOSTILE_REST`: how long an attack takes, and how long after it memory is looked at).
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
#[path = "support/hostile/mod.rs"]
mod hostile;
#[path = "support/oracle/mod.rs"]
mod oracle;

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use app::{App, Dir, FREE_PORTS};
use hostile::{
    attacks::{ALL, Kind, Size, Target, attack},
    honest::{Times, talk},
    sink::{self, Sink},
};
use oracle::liar::{Liar, Lie};
use tokio::sync::{oneshot, watch};

/// What memory may be above its value before, MB.
const MEMORY: f64 = 64.0;
/// How long it may take to come back.
const REST: Duration = Duration::from_secs(30);
/// A p99 below this is good whatever the machine does.
const GOOD: Duration = Duration::from_millis(50);

struct Site {
    app: App,
    target: Target,
    _dir: Dir,
}

impl Site {
    /// `limits`: further lines of the section.
    async fn start(limits: &str) -> Self {
        let dir = Dir::new();
        let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
        dir.write("cert.pem", &made.cert.pem());
        dir.write("key.pem", &made.signing_key.serialize_pem());
        let hashed = app::run_with_input(&dir, &["hash-password"], "right\n");
        let hash = app::said(&hashed).lines().next().unwrap().to_owned();
        let listener =
            |name: &str, rest: &str| format!("[[listeners]]\nname = \"{name}\"\naddress = \"127.0.0.1:0\"\n{rest}\n");
        let text = [
            listener("open", "allow_anonymous = true"),
            listener("tls", "allow_anonymous = true\ntls = { cert = \"cert.pem\", key = \"key.pem\" }"),
            listener("users", "allow_anonymous = false"),
            format!("[[users]]\nname = \"plc\"\npassword_hash = \"{hash}\"\n"),
            format!("[limits]\nconnect_timeout = 3\n{limits}\n"),
        ];
        dir.write("broker.toml", &text.concat());
        let mut app = App::start(&dir, &[&["run"], &FREE_PORTS[2..]].concat());
        app.wait_until_ready().await;
        let mut ports = Vec::new();
        for name in ["open", "tls", "users"] {
            ports.push(SocketAddr::from(([127, 0, 0, 1], app.listener(name).await)));
        }
        let target = Target { plain: ports[0], tls: ports[1], users: ports[2] };
        Self { app, target, _dir: dir }
    }

    /// Resident memory, MB; `None` where the system does not say.
    fn memory(&self) -> Option<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.app.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() / 1024.0)
    }

    /// The honest talk here while somebody is attacked: on a thread of their own, for it is the broker's fairness that is in question, not that
    /// of the runtime the attackers fill.
    async fn beside(&self, name: &str, attacked: impl Future<Output = u64>) -> (Times, u64) {
        let (stop, stopped) = watch::channel(false);
        let (told, times) = oneshot::channel();
        let talk = talk(self.target.plain, name.to_owned(), stopped);
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            // Whoever asked may have failed meanwhile.
            let _ = told.send(runtime.block_on(talk));
        });
        let connections = attacked.await;
        stop.send_replace(true);
        (times.await.expect("the honest are served"), connections)
    }

    /// Memory is near what it was, at once or a little later.
    async fn comes_back(&self, kind: Kind, before: Option<f64>) {
        let (begun, mut now) = (Instant::now(), self.memory());
        while now > before.map(|before| before + MEMORY) {
            assert!(begun.elapsed() < REST, "{kind:?}: {before:?} MB before, {now:?} MB {REST:?} after");
            // Looked at again, not waited for.
            tokio::time::sleep(Duration::from_millis(500)).await;
            now = self.memory();
        }
    }

    async fn is_up(&self) -> bool {
        self.app.get("/readyz").await.0 == 200
    }
}

/// Every kind, small, one after the other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_peers_cost_the_honest_nothing() {
    // The attacks come in quick succession and from the address of the honest, who would be turned away with them.
    let site = Site::start("connects = 0").await;
    let mut tried = 0;
    for kind in ALL {
        let (before, size) = (site.memory(), Size { full: false, length: Duration::from_millis(1_200) });
        let (times, connections) = site.beside(&format!("{kind:?}"), attack(kind, site.target, size)).await;
        println!("{kind:?}: {connections} connections, {times:?}, {before:?} MB, {:?} MB", site.memory());
        assert!(connections >= 3 && times.messages >= 50, "{kind:?}: {connections} connections, {times:?}");
        assert!(site.is_up().await, "{kind:?}: {}", site.app.said());
        site.comes_back(kind, before).await;
        tried += 1;
    }
    assert_eq!(tried, 14);
    site.app.stop().await;
}

/// The honest notice when a message of theirs is dropped, doubled or swallowed before the broker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_honest_notice_what_they_lose() {
    let site = Site::start("").await;
    let lies =
        [(Lie::None, true), (Lie::SwallowPublish, false), (Lie::SwallowDelivery, false), (Lie::TwiceQos1, false)];
    let mut noticed = Vec::new();
    for (lie, _) in lies {
        let liar = Liar::start(site.target.plain, lie).await;
        let (_stop, stopped) = watch::channel(true);
        noticed.push((lie, tokio::spawn(talk(liar.address, format!("{lie:?}"), stopped)).await.is_ok()));
    }
    assert_eq!(noticed, lies);
    site.app.stop().await;
}

fn seconds(name: &str, default: u64) -> Duration {
    Duration::from_secs(std::env::var(name).map_or(default, |text| text.parse().expect("a number of seconds")))
}

fn wanted() -> Vec<Kind> {
    let names = std::env::var("HOSTILE_KINDS").unwrap_or_default();
    let named = |kind: &Kind| names.split_whitespace().any(|name| name == format!("{kind:?}"));
    ALL.into_iter().filter(|kind| names.trim().is_empty() || named(kind)).collect()
}

/// Full size, with a verdict on times: for `tools/hostile`, on a machine that does nothing else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "takes minutes and a quiet machine; tools/hostile runs it"]
async fn the_table() {
    let (length, rest) = (seconds("HOSTILE_SECONDS", 10), seconds("HOSTILE_REST", REST.as_secs()));
    let (site, sink) = (Site::start("").await, Sink::start());
    let nowhere = Target { plain: sink.address, tls: sink.address, users: sink.address };
    let size = Size { full: true, length };
    let mut failed = Vec::new();
    let line = |cells: [&str; 9]| {
        let [kind, peers, mine, theirs, limit, messages, before, after, verdict] = cells;
        println!(
            "{kind:<20} {peers:>11} {mine:>9} {theirs:>12} {limit:>9} {messages:>8} {before:>9} {after:>9}  {verdict}"
        );
    };
    line(["attack", "connections", "p99 ms", "p99 at sink", "limit ms", "honest", "MB before", "MB after", ""]);
    let kinds = wanted();
    assert!(!kinds.is_empty(), "HOSTILE_KINDS names none");
    for kind in &kinds {
        let (measure, _) = site.beside(&format!("{kind:?}-sink"), attack(*kind, nowhere, size)).await;
        let before = site.memory().unwrap_or_default();
        let (times, connections) = site.beside(&format!("{kind:?}"), attack(*kind, site.target, size)).await;
        tokio::time::sleep(rest).await;
        let (after, limit) = (site.memory().unwrap_or_default(), GOOD.max(3 * measure.p99));
        let mut verdict = Vec::new();
        verdict.extend((times.p99 > limit).then_some("SLOW"));
        verdict.extend((after > before + MEMORY).then_some("MEMORY"));
        verdict.extend((!site.is_up().await).then_some("DOWN"));
        let millis = |time: Duration| format!("{:.2}", time.as_secs_f64() * 1e3);
        line([
            &format!("{kind:?}"),
            &connections.to_string(),
            &millis(times.p99),
            &millis(measure.p99),
            &millis(limit),
            &times.messages.to_string(),
            &format!("{before:.1}"),
            &format!("{after:.1}"),
            if verdict.is_empty() { "ok" } else { "FAILED" },
        ]);
        if !verdict.is_empty() {
            failed.push(format!("{kind:?}: {}", verdict.join(", ")));
        }
    }
    println!("{} attacks; every message of the honest arrived, once and in order", kinds.len());
    assert!(failed.is_empty(), "{}", failed.join("; "));
    site.app.stop().await;
}

/// Not a test: the program that only accepts and reads, when started as that.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it is the sink that the_table starts"]
async fn the_sink() {
    sink::serve().await;
}
