//! What the load programs share: MQTT spoken raw, so that the client costs little, with TLS or without, HTTP for the doors that are only asked now and then, and
//! percentiles. Every program prints one line of `name=value` pairs for `benches/run`; what goes wrong is a sentence on standard error and
//! exit code 1.

pub mod http;
pub mod mqtt;
pub mod stream;

use std::{
    error::Error,
    fmt::Write as _,
    io::Write as _,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Longest run of a load program: whatever hangs ends as a failure.
const LONGEST: Duration = Duration::from_secs(300);

/// A result whose error is read by a person.
pub type Fallible<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// Runs a load program: one thread, so that it takes one core at most from what it measures.
pub fn run(program: impl Future<Output = Fallible<String>>) -> ExitCode {
    run_within(LONGEST, program)
}

/// The same with a longer time.
pub fn run_within(longest: Duration, program: impl Future<Output = Fallible<String>>) -> ExitCode {
    match in_runtime(longest, program) {
        Ok(line) => {
            say(&line);
            ExitCode::SUCCESS
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error}");
            ExitCode::FAILURE
        }
    }
}

fn in_runtime(longest: Duration, program: impl Future<Output = Fallible<String>>) -> Fallible<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let bounded = async {
        let ended = tokio::time::timeout(longest, program).await;
        ended.map_err(|_| format!("not finished after {} s", longest.as_secs()))?
    };
    tokio::task::LocalSet::new().block_on(&runtime, bounded)
}

/// A line for `benches/run`; who no longer listens has ended the measurement.
pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}

/// The arguments, by position.
pub struct Arguments(Vec<String>);

impl Arguments {
    /// Of this process.
    pub fn new() -> Self {
        Self(std::env::args().skip(1).collect())
    }

    /// The text at a position; `name` is for the error.
    pub fn text(&self, at: usize, name: &str) -> Fallible<&str> {
        self.0.get(at).map(String::as_str).ok_or_else(|| format!("argument {} is missing: {name}", at + 1).into())
    }

    /// The number at a position.
    pub fn number<T: std::str::FromStr>(&self, at: usize, name: &str) -> Fallible<T> {
        let text = self.text(at, name)?;
        text.parse().map_err(|_| format!("argument {} ({name}) is not a number: {text}", at + 1).into())
    }
}

impl Default for Arguments {
    fn default() -> Self {
        Self::new()
    }
}

/// Microseconds since 1970: stamps that several processes of one machine understand.
pub fn wall_micros() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_micros() as u64)
}

/// `p50_ms=… p99_ms=… max_ms=…` of latencies in microseconds.
pub fn percentiles(micros: &mut [u64]) -> String {
    micros.sort_unstable();
    let mut line = String::new();
    for (name, part) in [("p50_ms", 0.5), ("p99_ms", 0.99), ("max_ms", 1.0)] {
        let at = (micros.len().saturating_sub(1) as f64 * part) as usize;
        let value = micros.get(at).map_or(f64::NAN, |value| *value as f64 / 1000.0);
        let _ = write!(line, " {name}={value:.3}");
    }
    line.trim_start().to_owned()
}
