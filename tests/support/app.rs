//! The real program as a child process: started on ports the system chooses, asked over its own doors, stopped by a signal.
//!
//! Invariants: the true ports are read from what the program prints; readiness is what `/readyz` says; whatever happens to a test, the
//! child does not outlive it and its directory is removed.
#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::string_slice,
    missing_docs
)]

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Read, Write as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::watch,
};

/// How long a test waits for anything; the machine may be busy.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Overrides that let the system choose every port.
pub const FREE_PORTS: [&str; 8] =
    ["--mqtt", "127.0.0.1:0", "--rest", "127.0.0.1:0", "--udp", "127.0.0.1:0", "--udp-sessions", "127.0.0.1:0"];

/// [`FREE_PORTS`] with one of them given.
pub fn free_ports_but(option: &str, address: &str) -> Vec<String> {
    let pairs = FREE_PORTS.chunks(2).map(|pair| [pair[0], if pair[0] == option { address } else { pair[1] }]);
    pairs.flatten().map(str::to_owned).collect()
}

/// A directory of the test's own, removed at its end.
pub struct Dir(pub PathBuf);

impl Dir {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("sense-butler-app-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.0.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        file
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        // A directory that stays behind is no failure of what was tested.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The program that is tested: the one cargo built, or what `BUTLER_PROGRAM` names, with its first arguments (separated by blanks).
fn program() -> Command {
    let named = std::env::var("BUTLER_PROGRAM").unwrap_or_default();
    let mut words = named.split_whitespace();
    let mut command = Command::new(words.next().unwrap_or(env!("CARGO_BIN_EXE_sense-butler")));
    command.args(words);
    command
}

/// The program with its working directory, untouched by the environment of whoever runs the tests.
fn command(dir: &Dir, arguments: &[&str]) -> Command {
    let mut command = program();
    command.args(arguments).current_dir(&dir.0);
    for variable in ["RUST_LOG", "NODE_ENV", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        command.env_remove(variable);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Runs a verb that ends by itself.
pub fn run_to_end(dir: &Dir, arguments: &[&str]) -> Output {
    command(dir, arguments).output().unwrap()
}

/// The same, with something to read on standard input.
pub fn run_with_input(dir: &Dir, arguments: &[&str], input: &str) -> Output {
    let mut child = command(dir, arguments).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

/// Standard output and standard error.
pub fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A refusal to start: the exit code and every word of the text are as expected.
pub fn assert_refused(dir: &Dir, arguments: &[&str], code: i32, words: &[&str]) -> String {
    let output = run_to_end(dir, arguments);
    let text = said(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments:?}: {text}");
    for word in words {
        assert!(text.contains(word), "`{word}` is not in what {arguments:?} says:\n{text}");
    }
    assert!(!text.contains("panicked"), "{text}");
    text
}

/// How the program ended, and all it said.
pub struct Ended {
    pub status: ExitStatus,
    pub output: String,
    pub took: Duration,
}

/// The running program.
pub struct App {
    child: Child,
    output: watch::Receiver<String>,
    readers: Vec<thread::JoinHandle<()>>,
}

impl App {
    /// Starts a verb; returns at once.
    pub fn start(dir: &Dir, arguments: &[&str]) -> Self {
        Self::start_with(dir, arguments, &[])
    }

    /// Starts a verb with these variables in its environment; returns at once.
    pub fn start_with(dir: &Dir, arguments: &[&str], environment: &[(&str, &str)]) -> Self {
        let mut child = command(dir, arguments).envs(environment.iter().copied()).spawn().unwrap();
        let (sender, output) = watch::channel(String::new());
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        let readers = streams.map(|stream| {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(stream).lines().map_while(Result::ok) {
                    sender.send_modify(|text| text.extend([&line, "\n"]));
                }
            })
        });
        Self { child, output, readers: readers.into() }
    }

    /// `run` on ports of the system's choice with these further arguments, ready.
    pub async fn run(dir: &Dir, arguments: &[&str]) -> Self {
        Self::run_at(dir, &FREE_PORTS, arguments).await
    }

    /// `run` with this `butler.yaml`, its data below the directory, ready.
    pub async fn configured(dir: &Dir, yaml: &str) -> Self {
        let file = dir.write("butler.yaml", yaml);
        Self::run(dir, &["--data", "data", "--config", file.to_str().unwrap()]).await
    }

    /// `run` at these addresses with these further arguments, ready.
    pub async fn run_at(dir: &Dir, addresses: &[&str], arguments: &[&str]) -> Self {
        let mut app = Self::start(dir, &[&["run"], addresses, arguments].concat());
        app.wait_until_ready().await;
        app
    }

    pub async fn wait_until_ready(&mut self) {
        let begun = Instant::now();
        let mut last = String::new();
        while begun.elapsed() < PATIENCE {
            assert!(self.child.try_wait().unwrap().is_none(), "the program ended:\n{}", self.said());
            match self.get("/readyz").await {
                (200, _) => return,
                (_, body) => last = body,
            }
            // The pause between two looks, not what the test relies on.
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("not ready: {last}\n{}", self.said());
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Everything it printed so far.
    pub fn said(&self) -> String {
        self.output.borrow().clone()
    }

    /// Waits until what it printed yields something.
    pub async fn printed<T>(&self, mut find: impl FnMut(&str) -> Option<T>) -> T {
        let mut output = self.output.clone();
        let search = async {
            loop {
                if let Some(found) = find(&output.borrow_and_update()) {
                    return found;
                }
                output.changed().await.unwrap_or_else(|_| panic!("it ended and said only\n{}", self.said()));
            }
        };
        match tokio::time::timeout(PATIENCE, search).await {
            Ok(found) => found,
            Err(_) => panic!("it says only\n{}", self.said()),
        }
    }

    /// The port behind the first `marker` in what it printed, e.g. `REST on http://127.0.0.1:`.
    async fn port_after(&self, markers: &[&str]) -> u16 {
        self.printed(|text| {
            let rest = markers.iter().find_map(|marker| text.split_once(marker))?.1;
            let (digits, _) = rest.split_once(|c: char| !c.is_ascii_digit())?;
            digits.parse().ok()
        })
        .await
    }

    /// Port of the first MQTT listener, from the log of `run` or the banner of `demo`.
    pub async fn mqtt(&self) -> u16 {
        self.port_after(&["MQTT on 127.0.0.1:", "MQTT           127.0.0.1:"]).await
    }

    /// Port of a listener named in broker.toml.
    pub async fn listener(&self, name: &str) -> u16 {
        let end = format!(" (listener `{name}`)");
        self.printed(|text| {
            let line = text.lines().find_map(|line| line.strip_suffix(&end))?;
            line.rsplit_once(':')?.1.parse().ok()
        })
        .await
    }

    pub async fn rest(&self) -> u16 {
        let markers = ["REST on http://127.0.0.1:", "REST on http://0.0.0.0:", "REST           http://127.0.0.1:"];
        self.port_after(&markers).await
    }

    /// The port for task events.
    pub async fn udp(&self) -> u16 {
        self.port_after(&["UDP on 127.0.0.1:", "Sense events   127.0.0.1:"]).await
    }

    pub async fn get(&self, path: &str) -> (u16, String) {
        self.call("GET", path, &[], "").await
    }

    pub async fn json(&self, path: &str) -> Value {
        let (status, body) = self.get(path).await;
        serde_json::from_str(&body).unwrap_or_else(|error| panic!("{status} {error}: {body}"))
    }

    pub async fn put(&self, path: &str, body: &str) -> (u16, String) {
        self.call("PUT", path, &[("content-type", "application/json")], body).await
    }

    pub async fn call(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        http(self.rest().await, method, path, headers, body).await
    }

    /// `TERM`, `INT` or `KILL`, through the shell's own `kill`.
    #[cfg(unix)]
    pub fn signal(&self, name: &str) {
        signal(self.pid(), name);
    }

    /// Waits for the end. The promise of 5 s is the caller's to check.
    pub async fn ended(mut self) -> Ended {
        let begun = Instant::now();
        // Its ends of the pipes close when it ends, and with them the readers'.
        let mut output = self.output.clone();
        let closed = async { while output.changed().await.is_ok() {} };
        if tokio::time::timeout(PATIENCE, closed).await.is_err() {
            panic!("it goes on:\n{}", self.said());
        }
        let status = self.child.wait().unwrap();
        let took = begun.elapsed();
        for reader in std::mem::take(&mut self.readers) {
            reader.join().unwrap();
        }
        Ended { status, output: self.said(), took }
    }

    /// Stops it in order; what it says in a panic is a failure of any test.
    pub async fn stop(self) {
        #[cfg(unix)]
        {
            self.signal("TERM");
            let ended = self.ended().await;
            assert_eq!(ended.status.code(), Some(0), "{}", ended.output);
            assert!(!ended.output.contains("panicked"), "{}", ended.output);
        }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        // Ended already in most tests.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[cfg(unix)]
pub fn signal(pid: u32, name: &str) {
    let sent = Command::new("sh").arg("-c").arg(format!("kill -{name} {pid}")).status().unwrap();
    assert!(sent.success());
}

/// One HTTP request on a connection of its own.
pub async fn http(port: u16, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let exchange = try_http(port, method, path, headers, body);
    let answer = tokio::time::timeout(PATIENCE, exchange).await.expect("an answer to every request");
    answer.unwrap_or_else(|error| panic!("{method} {path}: {error}"))
}

/// The same for a program that may die over it: an answer that is not whole is an error. Waits without a limit.
pub async fn try_http(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> io::Result<(u16, String)> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nconnection: close\r\ncontent-length: {}\r\n", body.len());
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        head += &format!("host: 127.0.0.1:{port}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let torn = || io::Error::new(io::ErrorKind::UnexpectedEof, format!("no whole answer: `{answer}`"));
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(torn)?;
    let length =
        head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
    if length.is_some_and(|length: usize| length != body.len()) {
        return Err(torn());
    }
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).ok_or_else(torn)?;
    Ok((status, body.to_owned()))
}

/// A number in the environment, for tests that can be made longer or repeated.
pub fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is not a number: {text}")))
}

/// The seed of a test: the variable of this name, else the clock's. It is printed.
pub fn seed(name: &str) -> u64 {
    let clock = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_micros() as u64;
    let seed = variable(name).unwrap_or_else(clock);
    println!("{name}={seed}");
    seed
}

/// Whether the other programs must be there (`.ci/run`) or a test may skip what needs them.
fn required() -> bool {
    std::env::var_os("REQUIRE_MOSQUITTO").is_some()
}

/// Whether a program is there; its absence is said aloud, and fails the test where it must be there.
pub fn has_program(program: &str, argument: &str, test: &str) -> bool {
    let there = Command::new(program).arg(argument).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    absent_is_said(there, program, test)
}

fn absent_is_said(there: bool, what: &str, test: &str) -> bool {
    assert!(there || !required(), "{what} is required here and absent");
    if !there {
        eprintln!("SKIPPED 1 test ({test}): {what} is not installed");
    }
    there
}

/// The Python that has paho, if any: `BUTLER_PYTHON`, else `python3`.
pub fn python_with_paho(test: &str) -> Option<PathBuf> {
    let python = std::env::var_os("BUTLER_PYTHON").map_or_else(|| PathBuf::from("python3"), PathBuf::from);
    let output = Command::new(&python).args(["-c", "import paho.mqtt.client"]).output();
    let there = output.is_ok_and(|output| output.status.success());
    absent_is_said(there, "Python with paho-mqtt", test).then_some(python)
}

/// The top of the source tree.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
