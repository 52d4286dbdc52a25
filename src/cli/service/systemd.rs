//! The service on Linux: a unit of systemd, steered by `systemctl`.

use std::{
    ffi::OsString,
    fs,
    io::{self, Write as _},
    path::PathBuf,
    process::Command,
};

use super::{Exit, Install, RunOptions, carry_out, program};
use crate::{
    config::Loaded,
    service::{
        NAME, ServiceError,
        plan::{Plan, Registration},
        systemd,
    },
};

/// Where the configuration of the service is expected.
pub(super) fn configuration() -> PathBuf {
    systemd::CONFIGURATION.into()
}

/// Whether there is a systemd, and its files may be written.
pub(super) fn may_install() -> Result<(), ServiceError> {
    needed("install")?;
    administrator("installing the service")
}

fn needed(verb: &'static str) -> Result<(), ServiceError> {
    if systemd::is_here() { Ok(()) } else { Err(ServiceError::NoSystemd { verb }) }
}

/// Whether this is root: only root can open the file of passwords.
fn administrator(what: &str) -> Result<(), ServiceError> {
    match fs::File::open("/etc/shadow") {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            Err(ServiceError::NotAllowed { what: what.to_owned() })
        }
        _ => Ok(()),
    }
}

/// What installing does.
pub(super) fn plan(options: &Install, arguments: &[OsString], loaded: &Loaded) -> Result<Plan, ServiceError> {
    let words: Vec<OsString> = std::iter::once("run".into()).chain(arguments.iter().cloned()).collect();
    let mut plan = systemd::install(&program()?, &words, loaded)?;
    if !options.node.is_empty() {
        plan.notes.push("--node is for the firewall of Windows and does nothing here".to_owned());
    }
    Ok(plan)
}

/// No plan for this system asks for it.
pub(super) fn register(_: &Registration) -> Result<Vec<String>, ServiceError> {
    Ok(Vec::new())
}

pub(super) fn uninstall(dry_run: bool) -> Result<(), ServiceError> {
    if !dry_run {
        needed("uninstall")?;
        administrator("removing the service")?;
    }
    if carry_out(&systemd::uninstall(), dry_run)? {
        let kept =
            "Removed. The configuration, the data (/var/lib/sense-butler) and the user sense-butler are still there.";
        writeln!(io::stdout(), "\n{kept}")?;
    }
    Ok(())
}

pub(super) fn start() -> Result<(), ServiceError> {
    steer("start")
}

pub(super) fn stop() -> Result<(), ServiceError> {
    steer("stop")
}

pub(super) fn restart() -> Result<(), ServiceError> {
    steer("restart")
}

/// `systemctl` says what is wrong itself; here only what to look at.
fn steer(verb: &'static str) -> Result<(), ServiceError> {
    if systemctl(verb, &[])? {
        return Ok(writeln!(io::stdout(), "systemctl {verb} {NAME}: done")?);
    }
    let why = format!("see above, and: journalctl -u {NAME} -n 50");
    Err(ServiceError::Refused { what: format!("systemctl {verb} {NAME}"), why })
}

pub(super) fn status() -> Result<Exit, ServiceError> {
    Ok(if systemctl("status", &["--no-pager"])? { Exit::Done } else { Exit::Failed })
}

/// Calls it in this terminal; whether it was content.
fn systemctl(verb: &'static str, options: &[&str]) -> Result<bool, ServiceError> {
    needed(verb)?;
    let mut command = Command::new("/usr/bin/systemctl");
    Ok(command.arg(verb).args(options).arg(format!("{NAME}.service")).status()?.success())
}

/// The unit calls `run`; this is the same.
pub(super) fn run(options: &RunOptions) -> Exit {
    crate::cli::run::run(options)
}
