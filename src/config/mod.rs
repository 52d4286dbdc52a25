//! `butler.yaml` and `broker.toml` to typed settings; diagnostics with file, line, key and hint.
//!
//! Invariants: nothing here touches the network or looks a name up; every error of both files is reported in one run, as far as the files
//! can be read; what [`load`] answers needs no further checks.

pub mod address;
mod broker_file;
mod butler;
mod diagnostic;
mod find;
pub mod reload;
#[cfg(test)]
mod samples;
pub mod settings;
#[cfg(test)]
mod shipped;
pub mod tokens;
mod toml_text;
mod tree;
mod walk;
mod yaml;

use std::{
    env,
    net::IpAddr,
    path::{Path, PathBuf},
};

pub use self::{
    address::HostPort,
    diagnostic::{ConfigErrors, Diagnostic, EXIT_CODE, Place},
    find::{default_data_dir, host_name, own_addresses},
};
use self::{diagnostic::Report, settings::Settings, tree::Node, yaml::SyntaxError};
use crate::names::Secret;

/// The directory, in the data directory, with copies of the files that were good last.
const LAST_GOOD: &str = "last-good";

/// What the command line says instead of the files.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `--mqtt`: the one listener of the built-in broker, or the address of the external one.
    pub mqtt: Option<HostPort>,
    /// `--rest`
    pub rest: Option<HostPort>,
    /// `--udp`: task events.
    pub udp: Option<HostPort>,
    /// `--udp-sessions`: session events; same host as the task events.
    pub udp_sessions: Option<HostPort>,
    /// `--qrs`
    pub qrs: Option<HostPort>,
    /// `--data`
    pub data: Option<PathBuf>,
}

/// Where to look and what to know; see [`LoadOptions::from_environment`].
#[derive(Debug, Clone, Default)]
pub struct LoadOptions {
    /// `--config`: must exist. `None`: searched for.
    pub config: Option<PathBuf>,
    /// `--broker-config`: must exist. `None`: searched for.
    pub broker_config: Option<PathBuf>,
    /// Working directory.
    pub cwd: PathBuf,
    /// Directory of the executable.
    pub exe_dir: Option<PathBuf>,
    /// Data directory, unless [`Overrides::data`] says another.
    pub data_dir: PathBuf,
    /// `NODE_ENV`, by which Butler 5.4 chose its file.
    pub node_env: Option<String>,
    /// This machine's name; empty: unknown.
    pub host_name: String,
    /// This machine's addresses, loopback or not; empty: unknown.
    pub own_addresses: Vec<IpAddr>,
    /// The command line.
    pub overrides: Overrides,
}

impl LoadOptions {
    /// What the process knows of itself. `service`: whether it runs as a service (which decides the data directory).
    pub fn from_environment(overrides: Overrides, service: bool) -> Self {
        let cwd = env::current_dir().unwrap_or_default();
        Self {
            exe_dir: env::current_exe().ok().and_then(|exe| exe.parent().map(Path::to_path_buf)),
            data_dir: cwd.join(default_data_dir(service)),
            cwd,
            node_env: env::var("NODE_ENV").ok(),
            host_name: host_name(),
            own_addresses: own_addresses(),
            overrides,
            ..Self::default()
        }
    }

    /// Where copies of the files are that were good last, if there are any.
    pub fn last_good(&self) -> Option<PathBuf> {
        Some(self.data().join(LAST_GOOD)).filter(|directory| directory.is_dir())
    }

    /// The data directory that holds.
    pub fn data(&self) -> PathBuf {
        self.overrides.data.as_ref().map_or_else(|| self.data_dir.clone(), |data| self.cwd.join(data))
    }
}

/// The files that were read; `None`: built-in defaults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Sources {
    /// `butler.yaml`
    pub butler: Option<PathBuf>,
    /// `broker.toml`
    pub broker: Option<PathBuf>,
}

/// A configuration that can be used.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// `butler.yaml`
    pub settings: Settings,
    /// `broker.toml`; no listeners when the broker is external.
    pub broker: crate::broker::settings::Settings,
    /// Data directory.
    pub data_dir: PathBuf,
    /// What was read.
    pub sources: Sources,
    /// What is remarkable, [`Settings::not_offered`] included.
    pub warnings: Vec<Diagnostic>,
    /// What the command line said instead of the files.
    pub overrides: Overrides,
    /// The text of `broker.toml` as it was read; it holds hashes of passwords.
    pub broker_read: Option<Secret>,
    /// The text of `butler.yaml` as it was read; it may hold a password.
    pub butler_read: Option<Secret>,
    /// Where it was looked for and what was known of this machine.
    options: LoadOptions,
}

impl Loaded {
    /// Where the program keeps its own file; `None`: in memory, as `storage.in_memory` of `broker.toml` says for both stores.
    pub fn keep_dir(&self) -> Option<&Path> {
        self.broker.storage.directory.as_ref().map(|_| self.data_dir.as_path())
    }

    /// Where copies of the files are that were good last.
    pub fn last_good(&self) -> PathBuf {
        self.data_dir.join(LAST_GOOD)
    }

    /// The settings of a newer text of `broker.toml`, with everything else as it is.
    ///
    /// # Errors
    /// All errors of the text; exit code and text as for [`load`].
    pub fn broker_from(&self, text: &str) -> Result<crate::broker::settings::Settings, ConfigErrors> {
        let report = Report::new(self.sources.broker.as_deref());
        let root = tree(&report, Some(Ok(text.to_owned())), |text| toml_text::parse(text).map(Some));
        let base = broker_file::base(report.file(), Path::new(""));
        let cx = broker_file::Context {
            report: &report,
            base,
            data: self.data_dir.clone(),
            overrides: &self.overrides,
            butler: &self.settings,
        };
        let broker = root.ok().and_then(|root| broker_file::decode(root.as_ref(), &cx));
        let (errors, warnings) = report.into_parts();
        broker.filter(|_| errors.is_empty()).ok_or(ConfigErrors { errors, warnings })
    }

    /// What `broker.toml` holds now; `None`: there was none when the program was started.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn broker_text(&self) -> Option<Result<String, ConfigErrors>> {
        let file = self.sources.broker.as_deref()?;
        Some(find::read(file).map_err(|message| {
            let report = Report::new(Some(file));
            report.error("", message);
            let (errors, warnings) = report.into_parts();
            ConfigErrors { errors, warnings }
        }))
    }
}

/// Finds and reads both files.
///
/// # Errors
/// All errors of both files, as far as they can be read; exit code [`EXIT_CODE`].
pub fn load(options: &LoadOptions) -> Result<Loaded, ConfigErrors> {
    load_from(options, Sources { butler: find::butler(options), broker: find::broker(options) })
}

/// The built-in defaults, whatever files lie about, with the command line of `options`.
///
/// # Errors
/// If the command line asks for something that is refused.
pub fn built_in(options: &LoadOptions) -> Result<Loaded, ConfigErrors> {
    load_from(options, Sources::default())
}

/// The tree of a file, `None` without one.
type Tree = Result<Option<Node>, Reported>;

/// Errors were reported.
struct Reported;

fn load_from(options: &LoadOptions, sources: Sources) -> Result<Loaded, ConfigErrors> {
    let butler_text = sources.butler.as_deref().map(find::read);
    let broker_text = sources.broker.as_deref().map(find::read);
    let secret =
        |text: &Option<Result<String, String>>| text.as_ref().and_then(|text| text.as_ref().ok()).map(Secret::new);
    let (butler_read, broker_read) = (secret(&butler_text), secret(&broker_text));
    let butler_report = Report::new(sources.butler.as_deref());
    let broker_report = Report::new(sources.broker.as_deref());
    let butler_root = tree(&butler_report, butler_text, yaml::parse);
    let broker_root = tree(&broker_report, broker_text, |text| toml_text::parse(text).map(Some));
    let texts = (butler_root, broker_root);
    let (settings, broker) = decode(options, &texts, &butler_report, &broker_report);
    let mut loaded = finish(settings.zip(broker), options, sources, [butler_report, broker_report])?;
    (loaded.butler_read, loaded.broker_read) = (butler_read, broker_read);
    Ok(loaded)
}

/// Both trees to settings. If `butler.yaml` cannot be used, `broker.toml` is still read, for its own errors.
fn decode(
    options: &LoadOptions,
    (butler_root, broker_root): &(Tree, Tree),
    butler_report: &Report,
    broker_report: &Report,
) -> (Option<Settings>, Option<crate::broker::settings::Settings>) {
    let data = options.data();
    let settings = butler_root
        .as_ref()
        .ok()
        .and_then(|root| butler::decode(root.as_ref(), butler::Context::new(butler_report, options, &data)));
    let scratch = Report::default();
    let fallback = || butler::decode(None, butler::Context::new(&scratch, options, &data));
    let Some(known) = settings.clone().or_else(fallback) else { return (settings, None) };
    let base = broker_file::base(broker_report.file(), &options.cwd);
    let overrides = &options.overrides;
    let cx = broker_file::Context { report: broker_report, base, data: data.clone(), overrides, butler: &known };
    let broker = broker_root.as_ref().ok().and_then(|root| broker_file::decode(root.as_ref(), &cx));
    if let Some((settings, broker)) = settings.as_ref().zip(broker.as_ref()) {
        butler::rules::users(settings, broker, butler_report);
    }
    (settings, broker)
}

fn tree(
    report: &Report,
    text: Option<Result<String, String>>,
    parse: impl Fn(&str) -> Result<Option<Node>, Vec<SyntaxError>>,
) -> Tree {
    match text {
        None => Ok(None),
        Some(Err(message)) => {
            report.error("", message);
            Err(Reported)
        }
        Some(Ok(text)) => parse(&text).map_err(|errors| {
            for error in errors {
                report.error_at(Some(error.at), "", error.message);
            }
            Reported
        }),
    }
}

fn finish(
    settings: Option<(Settings, crate::broker::settings::Settings)>,
    options: &LoadOptions,
    sources: Sources,
    reports: [Report; 2],
) -> Result<Loaded, ConfigErrors> {
    let mut errors = Vec::new();
    let mut warnings = Vec::new();
    for report in reports {
        let (some_errors, some_warnings) = report.into_parts();
        errors.extend(some_errors);
        warnings.extend(some_warnings);
    }
    match settings {
        Some((settings, broker)) if errors.is_empty() => {
            let (data_dir, overrides, options) = (options.data(), options.overrides.clone(), options.clone());
            let (butler_read, broker_read) = (None, None);
            Ok(Loaded { settings, broker, data_dir, sources, warnings, overrides, broker_read, butler_read, options })
        }
        _ => Err(ConfigErrors { errors, warnings }),
    }
}
