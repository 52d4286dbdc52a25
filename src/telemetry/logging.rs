//! Logging: one readable line per event on the terminal, and the same lines in files where wanted.
//!
//! Butler's level names are kept; `RUST_LOG` overrules them. The level can be changed while the program runs. Invariants: the terminal gets colours only if it is one; no line waits for a
//! slow disk (the file has a thread of its own, see [`super::logfile`]); a closed standard error silences the terminal and nothing else.

use std::{
    io::IsTerminal as _,
    path::PathBuf,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::counter::ConstCounter,
};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{
    EnvFilter, Registry,
    fmt::{self, FmtContext, FormatEvent, FormatFields, format::Writer},
    layer::{Context, Layer, SubscriberExt as _},
    registry::LookupSpan,
    reload,
    util::SubscriberInitExt as _,
};

use super::logfile::{self, LogFile};

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
    /// It was set up before.
    #[error("logging is set up already")]
    Twice,
}

/// Keeps the log file going; what was logged is written out when it is dropped, last thing in the program.
#[derive(Debug)]
#[must_use = "the log file is closed when this is dropped"]
pub struct LogGuard(Option<logfile::Closer>);

/// Sets up logging for the process.
///
/// # Errors
/// See [`LogError`]; nothing is set up then.
pub fn init(settings: &LogSettings) -> Result<LogGuard, LogError> {
    let (filter, handle) = reload::Layer::new(filter(&settings.level, std::env::var(OVERRULES).ok().as_deref())?);
    let colours = std::io::stderr().is_terminal();
    let terminal = fmt::layer().with_ansi(colours).with_writer(std::io::stderr).event_format(Readable);
    let (file, closer) = if settings.to_file {
        let (file, closer) = LogFile::open(&settings.directory, logfile::LOG)?;
        (Some(fmt::layer().with_ansi(false).with_writer(file).event_format(Readable)), Some(closer))
    } else {
        (None, None)
    };
    let registry = tracing_subscriber::registry().with(filter).with(terminal).with(file).with(Counted);
    registry.try_init().map_err(|_| LogError::Twice)?;
    // Nobody was here before, or the line above had failed.
    let _ = FILTER.set(handle);
    Ok(LogGuard(closer))
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
        self.0.as_ref().map_or(0, logfile::Closer::lines_lost)
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

/// `2026-11-22T16:08:01.123Z WARN  bus: message key=value`; times are UTC.
struct Readable;

impl<S, N> FormatEvent<S, N> for Readable
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> std::fmt::Result {
        let format =
            time::macros::format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
        let now = time::OffsetDateTime::now_utc().format(&format).map_err(|_| std::fmt::Error)?;
        let level = *event.metadata().level();
        let (on, off) = if out.has_ansi_escapes() { (colour(level), "\x1b[0m") } else { ("", "") };
        write!(out, "{now} {on}{level:<5}{off} {}: ", part(event.metadata().target()))?;
        context.field_format().format_fields(out.by_ref(), event)?;
        writeln!(out)
    }
}

/// The room a line comes from: `sense_butler::bus::external::driver` is `bus`; of libraries, their name.
fn part(target: &str) -> &str {
    let inside = target.strip_prefix("sense_butler::").unwrap_or(target);
    inside.split("::").next().unwrap_or(inside)
}

const fn colour(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG | Level::TRACE => "\x1b[2m",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_time_level_room_and_message() {
        let directory = std::env::temp_dir().join(format!("sense-butler-line-{}", std::process::id()));
        let (file, closer) = LogFile::open(&directory, logfile::LOG).unwrap();
        let layer = fmt::layer().with_ansi(false).with_writer(file).event_format(Readable);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::warn!(waiting = 3, "the broker is away");
        });
        drop(closer);
        let name = std::fs::read_dir(&directory).unwrap().next().unwrap().unwrap().path();
        let text = std::fs::read_to_string(name).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        let (time, rest) = text.split_once(' ').unwrap();
        assert!(time.len() == 24 && time.ends_with('Z'), "{text}");
        assert_eq!(rest, "WARN  telemetry: the broker is away waiting=3\n");
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
