//! The command line: one file per verb, shared options in [`options`], one table from verb to file in [`run()`].
//!
//! Invariant: a verb ends with an [`Exit`], never by leaving the process itself; what it has to say about a failure goes to standard
//! error as one sentence that says what, where and what to do.

pub mod appenders;
pub mod check;
pub mod demo;
pub mod doctor;
pub mod hash_password;
pub mod init;
pub mod options;
pub mod publish;
pub mod reload;
pub mod run;
pub mod service;
pub mod simulate;
pub mod subscribe;
pub mod talk;
pub mod token;
pub mod version;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    process::ExitCode,
    time::Duration,
};

use clap::{Args, Parser, Subcommand};

use options::{Addresses, ConfigFiles};

use crate::{app::BuildError, config::ConfigErrors};

/// How a verb ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// 0: done, or stopped in order.
    Done,
    /// 1: failed to start, or to do what was asked.
    Failed,
    /// 64 (`EX_USAGE` of sysexits.h): wrong usage or bad configuration; starting again without a change is pointless.
    Usage,
}

impl Exit {
    /// The number the operating system sees.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Failed => 1,
            Self::Usage => 64,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

/// The whole command line. Without a verb it is `run`.
#[derive(Debug, Parser)]
#[command(
    name = "sense-butler",
    version,
    about = "MQTT broker, event bridge and REST API for a Qlik Sense server, in one program",
    after_help = "Without a command it does `run`.\n\nExamples:\n  \
        sense-butler demo                     try everything on this machine, nothing to set up\n  \
        sense-butler -c production.yaml       run with Butler's configuration file\n\n\
        Exit codes: 0 stopped in order, 1 failed to start, 64 wrong usage or bad configuration.",
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    run: RunOptions,
}

/// Options of `run`.
#[derive(Debug, Clone, Default, Args)]
pub struct RunOptions {
    /// Configuration files.
    #[command(flatten)]
    pub files: ConfigFiles,
    /// What overrides them.
    #[command(flatten)]
    pub addresses: Addresses,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Run broker, bridge and REST API until stopped (the default).
    #[command(after_help = "Examples:\n  sense-butler run -c config/butler.yaml\n  \
        sense-butler run --rest localhost:8090 --data /var/lib/sense-butler")]
    Run(RunOptions),
    /// Show everything on this machine: broker, REST API and a simulated Qlik Sense site with events flowing.
    #[command(after_help = "Defaults: MQTT localhost:1883, REST localhost:8080, UDP localhost:9998 and 9997, \
        simulated QRS localhost:4242.\n\nExamples:\n  sense-butler demo\n  \
        sense-butler demo --mqtt localhost:11883 --rest localhost:18080")]
    Demo(Addresses),
    /// Check the configuration files and print what would be opened, where and with whose rights; opens nothing.
    #[command(
        after_help = "Exit code 64 if something is wrong.\n\nExamples:\n  sense-butler check -c production.yaml\n  \
        sense-butler check -c config/butler.yaml --broker-config broker.toml"
    )]
    Check(RunOptions),
    /// Write butler.yaml and broker.toml: five questions, what can be found out is proposed. Overwrites nothing without asking.
    #[command(after_help = "Examples:\n  sense-butler init\n  \
        sense-butler init --yes --directory config --qlik sense1.example.com --certificates ./certificates --user 'LAB\\svc-butler'")]
    Init(init::Options),
    /// Look at everything the program depends on (ports, certificates, Qlik Sense, disk, clock, ...) and say what is wrong and what to do.
    #[command(
        after_help = "Exit code 1 if there is a problem; warnings are none.\n\nExamples:\n  sense-butler doctor -c production.yaml\n  \
        sense-butler doctor -c config/butler.yaml --data /var/lib/sense-butler --json"
    )]
    Doctor(doctor::Options),
    /// Install, start, stop and look at the program as a service of this machine (Windows; Linux with systemd).
    #[command(subcommand, after_help = service::EXAMPLES)]
    Service(service::Verb),
    /// Have the running program read its configuration again, and say what is in force and what needs a restart.
    #[command(
        after_help = "Give it the options the program was started with. Exit code 64 if the files cannot be used; then nothing has changed.\n\n\
        Examples:\n  sense-butler reload -c production.yaml\n  sense-butler reload -c config/butler.yaml --rest localhost:8090"
    )]
    Reload(RunOptions),
    /// Simulate a Qlik Sense site: a repository service with mutual TLS, tasks that run, and the datagrams Sense would send.
    #[command(
        after_help = "Examples:\n  sense-butler simulate\n  sense-butler simulate --tasks config/simulator.yaml --pki ./certs"
    )]
    Simulate(simulate::Options),
    /// Publish one MQTT message and wait until the broker has taken it.
    #[command(name = "pub", after_help = publish::EXAMPLES)]
    Publish(publish::Options),
    /// Print MQTT messages as they come.
    #[command(name = "sub", after_help = subscribe::EXAMPLES)]
    Subscribe(subscribe::Options),
    /// Read a password from the terminal or standard input and print the hash for `broker.toml`.
    #[command(after_help = "Examples:\n  sense-butler hash-password\n  sense-butler hash-password < password.txt")]
    HashPassword,
    /// Make, show and revoke the tokens that open the REST API.
    #[command(after_help = token::EXAMPLES)]
    Token(token::Options),
    /// Write the log appenders of Qlik Sense for an address, merged into the files that are there.
    #[command(after_help = appenders::EXAMPLES)]
    Appenders(appenders::Options),
    /// Print the version and what it was built for.
    #[command(after_help = "Examples:\n  sense-butler version\n  sense-butler version --json")]
    Version(version::Options),
}

/// Reads the command line. Help and version are printed here.
///
/// # Errors
/// The exit code when there is nothing (more) to do: [`Exit::Done`] after help, [`Exit::Usage`] after a mistake was explained.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, Exit> {
    match Cli::try_parse_from(arguments) {
        Ok(cli) => Ok(cli.command.unwrap_or(Command::Run(cli.run))),
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            // A reader who went away (`--help | head -1`) has seen enough.
            drop(error.print());
            Err(exit)
        }
    }
}

/// Does what was asked.
pub fn run(command: Command) -> Exit {
    match command {
        Command::Run(options) => run::run(&options),
        Command::Demo(addresses) => demo::run(&addresses),
        Command::Check(options) => {
            written(check::run(&options.files.load_options(&options.addresses), &mut io::stdout()))
        }
        Command::Init(options) => init::run(&options),
        Command::Doctor(options) => doctor::run(&options),
        Command::Service(verb) => service::run(&verb),
        Command::Reload(options) => reload::run(&options),
        Command::Simulate(options) => simulate::main(&options),
        Command::HashPassword => match hash_password::run(&mut io::stdout()) {
            Ok(()) => Exit::Done,
            Err(error) => complain(error),
        },
        Command::Token(options) => token::run(&options),
        Command::Appenders(options) => appenders::run(&options),
        Command::Publish(options) => publish::run(&options),
        Command::Subscribe(options) => subscribe::run(&options),
        Command::Version(options) => version::run(&options),
    }
}

/// Turns of tasks between two looks at the sockets. The library's 61 are long when a flood makes each turn last: a client that has just sent
/// something would wait for all of them before anybody notices.
const LOOK_AT_SOCKETS: u32 = 5;

/// Runs a verb on a runtime of its own.
fn in_runtime(verb: impl Future<Output = Exit>) -> Exit {
    on_runtime(verb).unwrap_or_else(|error| complain(format_args!("{NO_THREADS}: {error}")))
}

const NO_THREADS: &str = "the system gives no threads to run on";

/// The same for whatever a future says.
fn on_runtime<T>(verb: impl Future<Output = T>) -> io::Result<T> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = builder.event_interval(LOOK_AT_SOCKETS).enable_all().build()?;
    let said = runtime.block_on(verb);
    // What still runs was given its time to stop; a thread that hangs must not keep the process.
    runtime.shutdown_timeout(Duration::from_millis(200));
    Ok(said)
}

/// Says what is wrong with the configuration. Exit code 64.
fn refuse(errors: &ConfigErrors) -> Exit {
    drop(write!(io::stderr(), "{errors}"));
    Exit::Usage
}

/// Says why the program cannot start. Exit code 64 where the configuration is at fault, 1 where the machine is.
fn not_built(error: &BuildError) -> Exit {
    let exit = complain(error);
    if error.is_configuration() { Exit::Usage } else { exit }
}

/// The exit of a verb that writes; standard output may be closed.
fn written(result: io::Result<u8>) -> Exit {
    match result {
        Ok(0) => Exit::Done,
        Ok(64) => Exit::Usage,
        Ok(_) => Exit::Failed,
        // A reader who went away has seen enough.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Exit::Done,
        Err(error) => complain(error),
    }
}

/// Says on standard error what went wrong. Exit code 1.
fn complain(what: impl std::fmt::Display) -> Exit {
    // Nobody is left to tell when standard error is closed.
    drop(writeln!(io::stderr(), "sense-butler: {what}"));
    Exit::Failed
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse_words(words: &str) -> Result<Command, Exit> {
        parse(std::iter::once("sense-butler").chain(words.split_whitespace()).map(OsString::from))
    }

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_verb_means_run_with_its_options() {
        let Ok(Command::Run(options)) = parse_words("-c a.yaml --broker-config b.toml --rest localhost:18080") else {
            panic!("not run");
        };
        assert_eq!(options.files.config.unwrap().to_str(), Some("a.yaml"));
        assert_eq!(options.files.broker_config.unwrap().to_str(), Some("b.toml"));
        assert_eq!(options.addresses.rest.unwrap().to_string(), "localhost:18080");
        assert!(matches!(parse_words(""), Ok(Command::Run(_))));
    }

    #[test]
    fn every_verb_teaches_with_two_examples() {
        let mut verbs = 0;
        for verb in Cli::command().get_subcommands_mut() {
            let help = verb.render_long_help().to_string();
            let name = verb.get_name();
            let (_, examples) = help.split_once("Examples:\n").unwrap_or_else(|| panic!("{name} has no examples"));
            assert!(examples.matches(&format!("sense-butler {name}")).count() >= 2, "{name}:\n{help}");
            assert!(verb.get_about().is_some_and(|about| !about.to_string().is_empty()), "{name}");
            verbs += 1;
        }
        assert_eq!(verbs, 14);
    }

    #[test]
    fn usage_errors_are_64_and_help_is_0() {
        for wrong in [
            "frobnicate",
            "run --rest",
            "run --rest localhost:99999",
            "pub -t a",
            "pub -m b",
            "sub",
            "pub -t a/# -m x",
            "pub -t a -m b -q 3",
            "sub -t a --count 0",
        ] {
            assert_eq!(parse_words(wrong).unwrap_err(), Exit::Usage, "{wrong}");
        }
        for fine in ["--help", "run --help", "pub -h", "--version"] {
            assert_eq!(parse_words(fine).unwrap_err(), Exit::Done, "{fine}");
        }
        assert_eq!(Exit::Usage.code(), 64);
    }
}
