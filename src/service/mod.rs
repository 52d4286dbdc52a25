//! What the program says to whoever runs it as a service, and how it is put into that place: the service manager of Windows, systemd on Linux.
//!
//! | file | what it is for |
//! |---|---|
//! | [`attend`] | tells any manager that the program is ready, lives, or is about to stop |
//! | [`control`] | the answers to the orders of Windows' service manager, as a plain state machine |
//! | [`notify`] | the words of systemd's notification socket (Linux) |
//! | [`doors`], [`node`], [`files`] | which ports are open to other machines, who those may be, and which files the account has to read |
//! | [`plan`] | what an installation will do: printed first, then done |
//! | [`winplan`], [`systemd`] | the plans for the two systems |
//! | [`lastwords`] | why the service could not start, for whoever looks later |
//! | `windows` | the service manager itself (Windows) |
//!
//! Invariants: an order of the manager is answered at once and never waits for work; what is installed was printed before; only what a
//! configuration opens, and only for the machines that were named, is let through a firewall; no secret is in what is said to a manager.

pub mod attend;
pub mod control;
pub mod doors;
pub mod files;
pub mod lastwords;
pub mod node;
#[cfg(target_os = "linux")]
pub mod notify;
pub mod plan;
pub mod systemd;
#[cfg(windows)]
pub mod windows;
pub mod winplan;

use std::{io, path::PathBuf};

/// The name of the service, on every system.
pub const NAME: &str = "sense-butler";

/// Why a service could not be installed, steered or asked.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// Rights are missing.
    #[error("{what} needs the rights of an administrator; nothing was changed by it: {}", elevate())]
    NotAllowed {
        /// What was to be done.
        what: String,
    },
    /// There is no such service.
    #[error("the service `{NAME}` is not installed; `sense-butler service install` installs it")]
    NotInstalled,
    /// What the system says to a request.
    #[error("{what}: {why}")]
    Refused {
        /// What was to be done.
        what: String,
        /// What the system said.
        why: String,
    },
    /// A file or directory.
    #[error("{} cannot be written: {source}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A place from which the service could not read.
    #[error(
        "{} is in a place the service cannot see ({why}); copy it to {instead} and call `service install` again",
        file.display()
    )]
    Place {
        /// The file.
        file: PathBuf,
        /// Why.
        why: &'static str,
        /// Where it belongs.
        instead: &'static str,
    },
    /// No configuration to install a service for.
    #[error(
        "there is no configuration for the service; write one with `sense-butler init --directory \"{}\"`, or name yours with `-c FILE`",
        .0.display()
    )]
    NoConfiguration(PathBuf),
    /// The configuration that was found was not named, and is not in the service's own place.
    #[error(
        "{found} lies where you stand, and was not named; to install the service with it, say so: {option} \"{found}\". Or write a configuration in the service's own \
         place: sense-butler init --directory \"{}\"",
        own.display(), found = found.display()
    )]
    NotNamed {
        /// The file.
        found: PathBuf,
        /// The option that names it.
        option: &'static str,
        /// Where the service looks by itself.
        own: PathBuf,
    },
    /// A node's name stands for no address.
    #[error("--node {name}: the name is not known on this machine ({source}); write the address, e.g. --node 10.1.2.3")]
    Node {
        /// The name.
        name: String,
        /// What the system said.
        source: io::Error,
    },
    /// systemd does not run here.
    #[error(
        "systemd does not manage this system, so there is no service to {verb}; run `sense-butler run -c FILE` under whatever does (it stops in order on SIGTERM)"
    )]
    NoSystemd {
        /// What was to be done with the service.
        verb: &'static str,
    },
    /// It was asked to start and ended, or did not come up.
    #[error("the service does not run: {0}")]
    NotRunning(String),
    /// Standard output.
    #[error(transparent)]
    Io(#[from] io::Error),
}

const fn elevate() -> &'static str {
    if cfg!(windows) {
        "open the command line as administrator (Start, type cmd, right-click, \"Run as administrator\") and call it again"
    } else {
        "call it again with sudo, or as root"
    }
}
