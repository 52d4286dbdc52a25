//! Logging: one line per event on the terminal, and the same lines in files where wanted; for people, or as JSON for programs.
//!
//! Butler's level names are kept; `RUST_LOG` overrules them. The level can be changed while the program runs. Invariants: the terminal gets colours only if it is one; no line waits for a
//! slow disk (the file has a thread of its own, see [`super::logfile`]); a closed standard error silences the terminal and nothing else; the same line again
//! and again is folded (`fold.rs`), and no number is lost at the end of the program.

use std::{
    io::{self, IsTerminal as _, Write as _},
    path::PathBuf,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::Instant,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::counter::ConstCounter,
};
use time::OffsetDateTime;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter, Registry,
    fmt::MakeWriter as _,
    layer::{Context, Layer, SubscriberExt as _},
    reload,
    util::SubscriberInitExt as _,
};

pub use super::line::Format;
use super::{
    fold::{Fold, Folded, Line},
    line::{Said, written},
    logfile::{self, LogFile},
    throttle,
};

/// The filter of the process, of which there is one, as there is one log.
static FILTER: OnceLock<reload::Handle<EnvFilter, Registry>> = OnceLock::new();

/// The variable that overrules the level.
const OVERRULES: &str = "RUST_LOG";

/// What is logged, and where to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// `logLevel`: error, warn, info, verbose (= info with detail), debug, silly (= trace).
    pub level: String,
    /// `fileLogging`
    pub to_file: bool,
    /// `logDirectory`
    pub directory: PathBuf,
    /// `logFormat`
    pub format: Format,
}

/// Why logging cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `logLevel` is none of Butler's.
    #[error("logLevel `{0}` is unknown; it is one of error, warn, info, verbose, debug, silly")]
    Level(String),
    /// `RUST_LOG` cannot be read.
    #[error("the environment variable RUST_LOG cannot be understood: {0}")]
    Environment(String),
    /// The log directory cannot be used.
    #[error(transparent)]
    File(#[from] logfile::FileError),
    /// No thread.
    #[error("the system gives no thread for the log: {0}")]
    Thread(io::Error),
    /// It was set up before.
    #[error("logging is set up already")]
    Twice,
}

/// Keeps the log going; what was logged and what was folded is written out when it is dropped, last thing in the program.
#[derive(Debug)]
#[must_use = "the log is closed when this is dropped"]
pub struct LogGuard {
    _folding: Folding,
    /// Behind the other: the numbers of folded lines go into the file, too.
    file: Option<logfile::Closer>,
}

/// Sets up logging for the process.
///
/// # Errors
/// See [`LogError`]; nothing is set up then.
pub fn init(settings: &LogSettings) -> Result<LogGuard, LogError> {
    let (filter, handle) = reload::Layer::new(filter(&settings.level, std::env::var(OVERRULES).ok().as_deref())?);
    let (file, closer) = if settings.to_file {
        let (file, closer) = LogFile::open(&settings.directory, logfile::LOG)?;
        (Some(file), Some(closer))
    } else {
        (None, None)
    };
    let terminal = Some(io::stderr().is_terminal());
    let log = Log(Arc::new(Inner { fold: Fold::default(), format: settings.format, terminal, file }));
    let folding = log.attended()?;
    let registry = tracing_subscriber::registry().with(filter).with(log).with(Counted);
    registry.try_init().map_err(|_| LogError::Twice)?;
    // Nobody was here before, or the line above had failed.
    let _ = FILTER.set(handle);
    Ok(LogGuard { _folding: folding, file: closer })
}

/// Where lines go, and which of them.
#[derive(Debug, Clone)]
struct Log(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    fold: Fold,
    format: Format,
    /// Whether standard error shows colours; `None`: nothing is written there.
    terminal: Option<bool>,
    file: Option<LogFile>,
}

impl<S: Subscriber> Layer<S> for Log {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let metadata = event.metadata();
        let (level, target) = (*metadata.level(), metadata.target());
        let said = Said::by(event, self.0.format);
        // A line that names a number speaks for a throttle.
        let rest = metadata.fields().field("suppressed").and_then(|_| throttle::passed());
        let line = Line {
            level,
            target,
            message: &said.message,
            values: &said.values,
            code: said.code.as_deref(),
            suppressed: said.suppressed,
            rest,
        };
        let (write, before) = self.0.fold.judge(&line, Instant::now());
        before.iter().for_each(|folded| self.0.tell(folded));
        if write {
            self.0.write(level, target, &said);
        }
    }
}

impl Log {
    /// With a thread that tells what was folded.
    fn attended(&self) -> Result<Folding, LogError> {
        let inner = Arc::clone(&self.0);
        let thread = std::thread::Builder::new().name("log-fold".into());
        let thread = thread.spawn(move || inner.fold.attend(|folded| inner.tell(folded))).map_err(LogError::Thread)?;
        Ok(Folding { log: self.clone(), thread: Some(thread) })
    }
}

impl Inner {
    fn tell(&self, folded: &Folded) {
        let said = Said::of_itself(folded.message.clone(), folded.code.clone(), self.format);
        self.write(folded.level, folded.target, &said);
    }

    fn write(&self, level: Level, target: &str, said: &Said) {
        let now = OffsetDateTime::now_utc();
        let plain = written(now, level, target, said, self.format, false);
        if let Some(colours) = self.terminal {
            let coloured = colours.then(|| written(now, level, target, said, self.format, true));
            // Nobody is left to tell when standard error is closed.
            let _ = io::stderr().write_all(coloured.as_ref().unwrap_or(&plain).as_bytes());
        }
        if let Some(file) = &self.file {
            // It takes every line or counts it.
            let _ = file.make_writer().write_all(plain.as_bytes());
        }
    }
}

/// Ends the folding when dropped, after every number was told.
#[derive(Debug)]
struct Folding {
    log: Log,
    thread: Option<JoinHandle<()>>,
}

impl Drop for Folding {
    fn drop(&mut self) {
        self.log.0.fold.close();
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Logs at another of Butler's levels from now on, where [`init`] was called. False: `RUST_LOG` is set, and goes on to overrule it.
///
/// # Errors
/// If there is no such level.
pub fn set_level(level: &str) -> Result<bool, LogError> {
    let environment = std::env::var(OVERRULES).ok();
    let filter = filter(level, environment.as_deref())?;
    if let Some(handle) = FILTER.get() {
        // It fails only where the log itself has gone.
        let _ = handle.reload(filter);
    }
    Ok(environment.is_none_or(|text| text.trim().is_empty()))
}

impl LogGuard {
    /// Lines that were not written to the file because the disk was too slow or full.
    pub fn lines_lost(&self) -> u64 {
        self.file.as_ref().map_or(0, logfile::Closer::lines_lost)
    }
}

/// Lines that were logged, of the two levels that somebody should look at.
static ERRORS: AtomicU64 = AtomicU64::new(0);
static WARNINGS: AtomicU64 = AtomicU64::new(0);

/// Counts what the filter lets pass.
struct Counted;

impl<S: Subscriber> Layer<S> for Counted {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        match *event.metadata().level() {
            Level::ERROR => ERRORS.fetch_add(1, Ordering::Relaxed),
            Level::WARN => WARNINGS.fetch_add(1, Ordering::Relaxed),
            _ => 0,
        };
    }
}

/// Shows the counts.
#[derive(Debug)]
struct Lines;

impl Collector for Lines {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (help, kind) = ("Lines in the log that report a problem, by level", ConstCounter::new(0_u64).metric_type());
        let mut family = encoder.encode_descriptor("sense_butler_log_lines", help, None, kind)?;
        for (level, lines) in [("error", &ERRORS), ("warn", &WARNINGS)] {
            let counter = ConstCounter::new(lines.load(Ordering::Relaxed));
            counter.encode(family.encode_family(&[("level", level)])?)?;
        }
        Ok(())
    }
}

/// Makes the lines visible as `sense_butler_log_lines_total{level}`.
pub(super) fn register(registry: &mut super::metrics::Registry) {
    registry.register_collector(Box::new(Lines));
}

/// Our own lines at the level asked for, those of libraries one step quieter: their `info` is our `debug`.
fn filter(level: &str, environment: Option<&str>) -> Result<EnvFilter, LogError> {
    if let Some(directives) = environment.filter(|text| !text.trim().is_empty()) {
        return EnvFilter::try_new(directives).map_err(|error| LogError::Environment(error.to_string()));
    }
    let (ours, theirs) = match level {
        "error" => ("error", "error"),
        "warn" => ("warn", "error"),
        "info" | "verbose" => ("info", "warn"),
        "debug" => ("debug", "info"),
        "silly" => ("trace", "debug"),
        other => return Err(LogError::Level(other.to_owned())),
    };
    // rumqttd and rumqttc call it an error when a peer goes away; this program says what matters of it itself.
    let engine = if theirs == "debug" { "debug" } else { "off" };
    let directives = format!("{theirs},sense_butler={ours},rumqttd={engine},rumqttc={engine}");
    EnvFilter::try_new(directives).map_err(|error| LogError::Environment(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a scene leaves in the log file.
    fn logged(name: &str, format: Format, scene: impl FnOnce()) -> String {
        let directory = std::env::temp_dir().join(format!("sense-butler-{name}-{}", std::process::id()));
        let (file, closer) = LogFile::open(&directory, logfile::LOG).unwrap();
        let log = Log(Arc::new(Inner { fold: Fold::default(), format, terminal: None, file: Some(file) }));
        let guard = LogGuard { _folding: log.attended().unwrap(), file: Some(closer) };
        tracing::subscriber::with_default(tracing_subscriber::registry().with(log), scene);
        assert_eq!(guard.lines_lost(), 0);
        drop(guard);
        let name = std::fs::read_dir(&directory).unwrap().next().unwrap().unwrap().path();
        let text = std::fs::read_to_string(name).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        text
    }

    #[test]
    fn a_line_is_time_level_room_and_message() {
        let text = logged("line", Format::Text, || tracing::warn!(waiting = 3, "the broker is away"));
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(time.len() == 24 && time.ends_with('Z'), "{text}");
        assert_eq!(rest, "WARN  telemetry: the broker is away waiting=3\n");
    }

    #[test]
    fn a_thousand_times_the_same_are_two_lines_and_the_number_is_there_at_the_end() {
        static TOO_MANY: throttle::Throttle = throttle::Throttle::every(std::time::Duration::from_secs(3_600));
        let text = logged("fold", Format::Json, || {
            for number in 0..1_000 {
                tracing::error!(code = "a_word", "the disk is full");
                if let Some(suppressed) = TOO_MANY.pass() {
                    tracing::warn!(suppressed, number, "datagram dropped");
                }
            }
        });
        let lines: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let messages: std::collections::BTreeSet<_> =
            lines.iter().map(|line| line["message"].as_str().unwrap()).collect();
        let expected = [
            "999 more lines like this one within 1 s: datagram dropped number=0",
            "999 more lines like this one within 1 s: the disk is full",
            "datagram dropped",
            "the disk is full",
        ];
        assert_eq!((lines.len(), messages.into_iter().collect::<Vec<_>>()), (4, expected.to_vec()));
        let coded = lines.iter().filter(|line| line["code"] == "a_word" && line["level"] == "error").count();
        assert_eq!(coded, 2);
    }

    #[test]
    fn butlers_levels_are_known_and_the_environment_overrules_them() {
        let cases = [
            ("error", "sense_butler=error"),
            ("warn", "sense_butler=warn"),
            ("info", "sense_butler=info"),
            ("verbose", "sense_butler=info"),
            ("debug", "sense_butler=debug"),
            ("silly", "sense_butler=trace"),
        ];
        for (level, expected) in cases {
            let text = filter(level, None).unwrap().to_string();
            assert!(text.contains(expected), "{level}: {text}");
        }
        assert_eq!(filter("error", Some("trace")).unwrap().to_string(), "trace");
        assert!(matches!(filter("loud", None), Err(LogError::Level(_))));
        assert!(matches!(filter("info", Some("a=b=c")), Err(LogError::Environment(_))));
    }
}
