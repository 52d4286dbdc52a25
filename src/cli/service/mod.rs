//! `sense-butler service`: the program as a service of this machine. What differs between the systems is in the file of each.

#[cfg(not(windows))]
mod systemd;
#[cfg(windows)]
mod windows;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};

#[cfg(not(windows))]
use self::systemd as platform;
#[cfg(windows)]
use self::windows as platform;
use super::{Exit, RunOptions, complain, refuse};
use crate::{
    config::{self, ConfigErrors, LoadOptions, Loaded},
    service::{ServiceError, node::Node, plan::Plan},
};

/// Examples of the verb.
pub const EXAMPLES: &str = "Windows: in a command line that was opened as administrator. Linux: with sudo.\n\nExamples:\n  \
    sense-butler service install --node 10.1.2.3\n  \
    sense-butler service install -c \"C:\\ProgramData\\sense-butler\\butler.yaml\" --dry-run\n  \
    sense-butler service start\n  \
    sense-butler service status";

/// What to do with the service.
#[derive(Debug, Clone, Subcommand)]
pub enum Verb {
    /// Say what will be done, and install the service; once more: bring it up to date
    Install(Install),
    /// Stop the service and take it away; configuration and data stay
    Uninstall(Uninstall),
    /// Start the service and wait until it is ready
    Start,
    /// Stop the service and wait until it has stopped
    Stop,
    /// Stop it if it runs, and start it
    Restart,
    /// Have it read its configuration again, and say what is in force and what needs a restart
    Reload(RunOptions),
    /// Say how the service is; exit code 1 if it does not run
    Status,
    /// What Windows' service manager calls
    #[command(hide = true)]
    Run(RunOptions),
}

/// Options of `service install`.
#[derive(Debug, Clone, Args)]
pub struct Install {
    /// With what the service runs: as for `run`.
    #[command(flatten)]
    pub run: RunOptions,
    /// Who may reach the ports that are open to other machines (Windows firewall): an address, network or name; localsubnet; any. Once for each
    #[arg(long, value_name = "WHO")]
    pub node: Vec<Node>,
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// Options of `service uninstall`.
#[derive(Debug, Clone, Args)]
pub struct Uninstall {
    /// Only say what would be done
    #[arg(long)]
    pub dry_run: bool,
}

/// Why a verb did not do its work.
#[derive(Debug)]
enum Trouble {
    Configuration(ConfigErrors),
    Service(ServiceError),
}

impl From<ServiceError> for Trouble {
    fn from(error: ServiceError) -> Self {
        Self::Service(error)
    }
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Service(error.into())
    }
}

/// Does it.
pub fn run(verb: &Verb) -> Exit {
    let done = match verb {
        Verb::Install(options) => install(options),
        Verb::Uninstall(options) => platform::uninstall(options.dry_run).map_err(Trouble::from),
        Verb::Start => platform::start().map_err(Trouble::from),
        Verb::Stop => platform::stop().map_err(Trouble::from),
        Verb::Restart => platform::restart().map_err(Trouble::from),
        Verb::Reload(options) => return super::reload::with(&load_options(options)),
        Verb::Status => return platform::status().unwrap_or_else(complain),
        Verb::Run(options) => return platform::run(options),
    };
    match done {
        Ok(()) => Exit::Done,
        Err(Trouble::Configuration(errors)) => refuse(&errors),
        Err(Trouble::Service(ServiceError::Io(error))) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(Trouble::Service(error)) => complain(error),
    }
}

/// Says what will be done, does it, says what is next.
fn install(options: &Install) -> Result<(), Trouble> {
    if !options.dry_run {
        platform::may_install()?;
    }
    let load = load_options(&options.run);
    let loaded = config::load(&load).map_err(Trouble::Configuration)?;
    let butler = meant(&load, &loaded)?;
    let plan = platform::plan(options, &arguments(&options.run, &loaded, butler), &loaded)?;
    let carried = carry_out(&plan, options.dry_run)?;
    if carried {
        let (out, butler) = (&mut io::stdout(), butler.display());
        writeln!(
            out,
            "\nInstalled. Next:\n  sense-butler service start\n  sense-butler doctor -c \"{butler}\" --data \"{}\"",
            loaded.data_dir.display()
        )?;
    }
    Ok(())
}

/// The configuration file that was meant: named, or in a place of the service or beside the program. One that merely lies in the directory in which
/// somebody stands is not, and nor is such a `broker.toml`.
fn meant<'a>(load: &LoadOptions, loaded: &'a Loaded) -> Result<&'a Path, ServiceError> {
    let own = platform::configuration();
    let Some(butler) = &loaded.sources.butler else { return Err(ServiceError::NoConfiguration(own)) };
    let data = load.data();
    let named = load.config.as_ref().and(butler.parent());
    let places = [Some(own.as_path()), Some(data.as_path()), load.exe_dir.as_deref(), named];
    let stray = |file: &Path| !places.iter().flatten().any(|place| file.starts_with(place));
    let refuse =
        |found: &PathBuf, option| Err(ServiceError::NotNamed { found: found.clone(), option, own: own.clone() });
    if load.config.is_none() && stray(butler) {
        return refuse(butler, "-c");
    }
    match loaded.sources.broker.as_ref().filter(|file| load.broker_config.is_none() && stray(file)) {
        Some(broker) => refuse(broker, "--broker-config"),
        None => Ok(butler),
    }
}

/// Prints a plan, then does it unless it is only asked for. Answers whether it was done.
fn carry_out(plan: &Plan, dry_run: bool) -> Result<bool, ServiceError> {
    let out = &mut io::stdout();
    writeln!(out, "This will be done:\n")?;
    plan.print(out)?;
    if dry_run {
        writeln!(out, "\nNothing was done (--dry-run).")?;
        return Ok(false);
    }
    writeln!(out, "\nDoing it:\n")?;
    plan.carry_out(&mut platform::register, out)?;
    Ok(true)
}

/// What the service loads: where nobody says otherwise, the configuration in the service's own place.
fn load_options(options: &RunOptions) -> LoadOptions {
    let mut load = LoadOptions::from_environment(options.addresses.overrides(), true);
    let own = platform::configuration().join("butler.yaml");
    load.config = options.files.config.clone().or_else(|| own.is_file().then_some(own));
    load.broker_config.clone_from(&options.files.broker_config);
    load
}

/// The options with which the service is started: everything said here, with full paths, because a service starts somewhere else.
fn arguments(options: &RunOptions, loaded: &Loaded, butler: &Path) -> Vec<OsString> {
    let whole = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned()).into_os_string();
    let mut words: Vec<OsString> = vec!["--config".into(), whole(butler)];
    let beside = butler.with_file_name("broker.toml");
    if let Some(broker) = loaded.sources.broker.as_ref().filter(|broker| **broker != beside) {
        words.extend(["--broker-config".into(), whole(broker)]);
    }
    words.extend(["--data".into(), whole(&loaded.data_dir)]);
    let given = &options.addresses;
    let addresses = [
        ("--mqtt", &given.mqtt),
        ("--rest", &given.rest),
        ("--udp", &given.udp),
        ("--udp-sessions", &given.udp_sessions),
        ("--qrs", &given.qrs),
    ];
    let addresses = addresses.into_iter().filter_map(|(option, address)| Some((option, address.as_ref()?)));
    words.extend(addresses.flat_map(|(option, address)| [option.into(), address.to_string().into()]));
    words
}

/// The program itself, by its full path.
fn program() -> Result<PathBuf, ServiceError> {
    Ok(std::env::current_exe()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_is_started_with_everything_that_was_said() {
        let directory = std::env::temp_dir().join(format!("sense-butler-service-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(directory.join("elsewhere")).unwrap();
        let (butler, broker) = (directory.join("butler.yaml"), directory.join("elsewhere/broker.toml"));
        std::fs::write(&butler, "Butler:\n  mqttConfig:\n    broker: embedded\n").unwrap();
        std::fs::write(&broker, "").unwrap();
        let mut options = RunOptions::default();
        options.files.config = Some(butler.clone());
        options.files.broker_config = Some(broker.clone());
        options.addresses.mqtt = Some("127.0.0.1:11883".parse().unwrap());
        options.addresses.data = Some(directory.join("data"));
        let loaded = config::load(&load_options(&options)).unwrap();
        let words = arguments(&options, &loaded, &butler);
        let data = directory.join("data");
        let expected: [&std::ffi::OsStr; 8] = [
            "--config".as_ref(),
            butler.as_os_str(),
            "--broker-config".as_ref(),
            broker.as_os_str(),
            "--data".as_ref(),
            data.as_os_str(),
            "--mqtt".as_ref(),
            "127.0.0.1:11883".as_ref(),
        ];
        assert_eq!(words, expected);
        // One that lies beside is found anyway, and may come or go.
        options.files.broker_config = None;
        std::fs::write(directory.join("broker.toml"), "").unwrap();
        let loaded = config::load(&load_options(&options)).unwrap();
        assert_eq!(arguments(&options, &loaded, &butler).len(), 6);
        std::fs::remove_dir_all(directory).unwrap();
    }

    #[test]
    fn a_file_somebody_stands_beside_is_not_meant() {
        let directory = std::env::temp_dir().join(format!("sense-butler-service-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(directory.join("config")).unwrap();
        let file = directory.join("config/production.yaml");
        std::fs::write(&file, "Butler:\n  logLevel: info\n").unwrap();
        let load = LoadOptions { cwd: directory.clone(), data_dir: directory.join("data"), ..LoadOptions::default() };
        let loaded = config::load(&load).unwrap();
        let refused = meant(&load, &loaded).unwrap_err().to_string();
        assert!(refused.contains(&format!("-c \"{}\"", file.display())) && refused.contains("init"), "{refused}");
        let named = LoadOptions { config: Some(file.clone()), ..load };
        assert_eq!(meant(&named, &loaded).unwrap(), file);
        // Nor is one of the broker, unless it is beside the file that was named.
        let stray = directory.join("broker.toml");
        std::fs::write(&stray, "").unwrap();
        let loaded = config::load(&named).unwrap();
        let refused = meant(&named, &loaded).unwrap_err().to_string();
        assert!(refused.contains(&format!("--broker-config \"{}\"", stray.display())), "{refused}");
        let both = LoadOptions { broker_config: Some(stray), ..named.clone() };
        assert_eq!(meant(&both, &config::load(&both).unwrap()).unwrap(), file);
        std::fs::write(directory.join("config/broker.toml"), "").unwrap();
        assert_eq!(meant(&named, &config::load(&named).unwrap()).unwrap(), file);
        // What lies beside the program or in the data directory is the service's.
        let beside = LoadOptions { config: None, exe_dir: Some(directory.clone()), ..named };
        assert_eq!(meant(&beside, &config::load(&beside).unwrap()).unwrap(), file);
        std::fs::remove_dir_all(directory).unwrap();
    }
}
