//! Windows' service manager: the process it calls ([`host`]), and what an administrator does with the service ([`manage`]).

pub mod host;
pub mod manage;

use std::{
    env,
    ffi::OsString,
    path::PathBuf,
    process::{Command, Stdio},
};

use super::winplan::{self, Kind};

/// `C:\Windows\System32`; not searched for in the path, where somebody else might have put something.
pub fn system() -> PathBuf {
    let root = env::var_os("SystemRoot").unwrap_or_else(|| OsString::from(r"C:\Windows"));
    PathBuf::from(root).join("System32")
}

/// Writes one entry to the event log, by the program Windows has for it, without waiting for it; an entry that cannot be written is no
/// reason to fail.
pub fn tell(kind: Kind, text: &str) {
    let program = system().join("eventcreate.exe");
    let mut command = Command::new(program);
    command.args(winplan::event(kind, text)).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Err(error) = command.spawn() {
        tracing::debug!(%error, "the event log was not told");
    }
}
