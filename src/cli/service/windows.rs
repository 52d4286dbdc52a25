//! The service on Windows: what an administrator asks of it, and the process its service manager starts.

use std::{
    ffi::OsString,
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use super::{Exit, Install, RunOptions, carry_out, load_options, program};
use crate::{
    cli::run::{Failed, work},
    config::{self, LoadOptions, Loaded, default_data_dir},
    service::{
        NAME, ServiceError,
        attend::{Manager, Pace},
        control::{Controller, Phase},
        lastwords,
        plan::{Plan, Registration},
        windows::{self, host, manage},
        winplan::{self, Kind, Machine},
    },
};

/// Without being ready for this long, the service ends with an error, and Windows starts it again.
const PATIENCE: Duration = Duration::from_secs(60);
/// It is said to run after this time, ready or not: Windows does not wait for ever.
const START: Duration = Duration::from_secs(30);
/// The exit code of a service that was never started.
const NEVER_STARTED: u32 = 1077;

/// Where the configuration of the service is expected.
pub(super) fn configuration() -> PathBuf {
    default_data_dir(true)
}

pub(super) fn may_install() -> Result<(), ServiceError> {
    manage::may_install("installing the service")
}

/// What installing does.
pub(super) fn plan(options: &Install, arguments: &[OsString], loaded: &Loaded) -> Result<Plan, ServiceError> {
    let words = ["service", "run"].map(OsString::from);
    let machine = Machine {
        program: program()?,
        system: windows::system(),
        arguments: words.into_iter().chain(arguments.iter().cloned()).collect(),
        nodes: options.node.clone(),
    };
    let mut plan = winplan::install(&machine, loaded)?;
    if machine.program.components().any(|part| part.as_os_str().eq_ignore_ascii_case("users")) {
        let program = machine.program.display();
        plan.notes.push(format!(
            "{program} lies in a user's directory; better copy it to C:\\Program Files\\{NAME} and install it from there"
        ));
    }
    Ok(plan)
}

pub(super) fn register(registration: &Registration) -> Result<Vec<String>, ServiceError> {
    manage::register(registration)
}

pub(super) fn uninstall(dry_run: bool) -> Result<(), ServiceError> {
    let data = data();
    if !dry_run {
        manage::unregister()?;
        writeln!(io::stdout(), "The service was stopped and removed.\n")?;
    }
    if carry_out(&winplan::uninstall(&windows::system()), dry_run)? {
        writeln!(io::stdout(), "\nRemoved. Configuration, data and log are still there: {}", data.display())?;
    }
    Ok(())
}

pub(super) fn start() -> Result<(), ServiceError> {
    manage::start(why_not)?;
    Ok(writeln!(io::stdout(), "The service runs.")?)
}

pub(super) fn stop() -> Result<(), ServiceError> {
    let said = if manage::stop()? { "The service has stopped." } else { "The service did not run." };
    Ok(writeln!(io::stdout(), "{said}")?)
}

pub(super) fn restart() -> Result<(), ServiceError> {
    manage::stop()?;
    start()
}

/// Why it does not run, as far as it could say so.
fn why_not() -> String {
    let data = data();
    let log = data.join("log");
    match lastwords::read(&data) {
        Some((at, why)) => format!("{why} (at {at}; more in {})", log.display()),
        None => format!("it left no word; look into {} and Windows' event log (Application)", log.display()),
    }
}

/// The data directory of the installed service.
fn data() -> PathBuf {
    let installed = manage::status().ok().and_then(|state| data_of(&state.command));
    installed.unwrap_or_else(|| default_data_dir(true))
}

/// What follows `--data` in a command line.
fn data_of(command: &str) -> Option<PathBuf> {
    let (_, rest) = command.split_once(" --data ").or_else(|| command.split_once(" \"--data\" "))?;
    let word = match rest.strip_prefix('"') {
        Some(quoted) => quoted.split('"').next(),
        None => rest.split(' ').next(),
    };
    word.map(PathBuf::from)
}

pub(super) fn status() -> Result<Exit, ServiceError> {
    let state = manage::status()?;
    let phase = match state.phase {
        Phase::Starting => "starting",
        Phase::Running => "running",
        Phase::Stopping => "stopping",
        Phase::Stopped => "stopped",
    };
    let process = state.process.map(|process| format!(" (process {process})")).unwrap_or_default();
    let out = &mut io::stdout();
    writeln!(out, "service     {NAME}: {phase}{process}")?;
    let automatic = if state.automatic { "with Windows" } else { "by hand" };
    writeln!(out, "start       {automatic}, as {}", state.account)?;
    writeln!(out, "command     {}", state.command)?;
    let data = data();
    writeln!(out, "data        {} (log in {})", data.display(), data.join("log").display())?;
    if state.phase == Phase::Running {
        return Ok(Exit::Done);
    }
    if !matches!(state.exit_code, 0 | NEVER_STARTED) {
        writeln!(out, "ended       with code {}", state.exit_code)?;
    }
    if let Some((at, why)) = lastwords::read(&data) {
        writeln!(out, "failed      at {at}: {why}")?;
    }
    Ok(Exit::Failed)
}

/// What Windows' service manager starts.
pub(super) fn run(options: &RunOptions) -> Exit {
    let load = load_options(options);
    match host::run(move |controller| hosted(&load, &controller)) {
        Ok(0) => Exit::Done,
        Ok(code) if code == Exit::Usage.code() => Exit::Usage,
        Ok(_) => Exit::Failed,
        Err(error) => crate::cli::complain(error),
    }
}

/// The service from its start to its end; answers the exit code.
fn hosted(load: &LoadOptions, controller: &Controller) -> u8 {
    let data = load.data();
    match served(load, controller, &data) {
        Ok(()) => {
            windows::tell(Kind::Stopped, "sense-butler has stopped in order.");
            0
        }
        Err(Failed { exit, text }) => {
            // Windows tries again and again: the same trouble is told once.
            if lastwords::write(&data, &text) {
                windows::tell(Kind::Failed, &text);
            }
            exit.code()
        }
    }
}

fn served(load: &LoadOptions, controller: &Controller, data: &Path) -> Result<(), Failed> {
    let mut loaded = config::load(load)?;
    // There is no terminal to read it on.
    loaded.settings.log.to_file = true;
    let service = Service { controller: controller.clone(), data: data.to_owned() };
    let stop = controller.stop();
    work(loaded, service, || async move {
        stop.cancelled().await;
        "Windows' service manager asked for it"
    })
}

/// Tells Windows how the service is.
struct Service {
    controller: Controller,
    data: PathBuf,
}

impl Manager for Service {
    fn ready(&mut self) {
        self.controller.running();
        lastwords::forget(&self.data);
        windows::tell(Kind::Started, concat!("sense-butler ", env!("CARGO_PKG_VERSION"), " runs."));
    }

    fn alive(&mut self) {}

    fn status(&mut self, text: &str) {
        tracing::debug!("state: {text}");
    }

    fn stopping(&mut self) {
        self.controller.stopping();
    }

    fn pace(&self) -> Pace {
        Pace { signs: None, patience: Some(PATIENCE), start: Some(START) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_data_directory_is_read_from_the_command() {
        let cases = [
            (r#"C:\x.exe service run --config "C:\a b\y" --data C:\data --mqtt x:1"#, Some(r"C:\data")),
            (r#""C:\a b\x.exe" service run --data "C:\Program Data\x""#, Some(r"C:\Program Data\x")),
            (r"C:\x.exe service run", None),
        ];
        for (command, expected) in cases {
            assert_eq!(data_of(command), expected.map(PathBuf::from), "{command}");
        }
    }
}
