//! `init`: from nothing to two configuration files that work: five questions, what can be found out is found out, what is written says why.
//!
//! Invariants: nothing is overwritten without a word of consent, and nothing is written before every question is answered and the result
//! was read by [`crate::config`] without an error; the password that is made is shown once and stored as a hash; an answer that cannot be right is explained
//! and asked for again.

mod answers;
pub mod appenders;
mod authority;
mod dialog;
mod found;
mod texts;
mod write;

use std::{
    io::{self, BufRead, Write},
    net::{IpAddr, SocketAddr},
    path::PathBuf,
};

use self::dialog::Dialog;
pub use self::{
    answers::{Answers, Given, Reach},
    write::Written,
};
use crate::{config::ConfigErrors, names::Secret};

/// Why nothing was written, or not everything.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The person, or the pipe, went away.
    #[error("the answers ended before the last question; nothing was written. With --yes no question is asked")]
    NoMoreAnswers,
    /// What was said at a question cannot be used, and nobody is there to ask again.
    #[error("{0}")]
    Answer(String),
    /// There is a file already.
    #[error("{} is there already; nothing was written. Move it away, choose another --directory, or add --overwrite", .0.display())]
    Exists(PathBuf),
    /// A file cannot be written.
    #[error("{} cannot be written: {source}", file.display())]
    File {
        /// Which.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What would be written is not accepted by the program itself.
    #[error("these answers give a configuration that cannot be used; nothing was written:\n{0}")]
    Configuration(ConfigErrors),
    /// Certificates or the hash cannot be made.
    #[error("{0}")]
    Made(String),
    /// Standard output or input.
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What the machine tells about itself.
#[derive(Debug, Clone, Default)]
pub struct Machine {
    /// Its name; empty: unknown.
    pub name: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// Complete sets of exported certificates that lie about.
    pub certificates: Vec<PathBuf>,
    /// Whether Qlik Sense is installed on it.
    pub has_sense: bool,
}

impl Machine {
    /// This one.
    pub fn this() -> Self {
        let places = found::places();
        Self {
            name: crate::config::host_name(),
            addresses: crate::config::own_addresses(),
            certificates: found::certificates(&places),
            // The first is Qlik's own.
            has_sense: places.first().is_some_and(|place| place.is_dir()),
        }
    }
}

/// Where the files go, and what may be done there.
#[derive(Debug, Clone)]
pub struct Target {
    /// The directory.
    pub directory: PathBuf,
    /// Whether files that are there may be replaced without asking.
    pub overwrite: bool,
    /// Makes the hash of a password for `broker.toml`.
    pub hash: fn(&Secret) -> Result<String, String>,
}

/// What was done, for the last words.
#[derive(Debug)]
pub struct Done {
    /// The files.
    pub written: Written,
    /// What they were made of.
    pub answers: Answers,
    /// The password of the first user; shown once.
    pub password: Secret,
}

/// Asks the questions that `given` leaves open and writes the files.
///
/// # Errors
/// See [`SetupError`]; then nothing was written, unless a file could not be.
pub fn by_dialog(
    given: &Given,
    target: &Target,
    machine: &Machine,
    input: &mut dyn BufRead,
    out: &mut dyn Write,
) -> Result<Done, SetupError> {
    let mut dialog = Dialog::new(input, out);
    let answers = answers::ask(given, machine, &mut dialog)?;
    let overwrite = write::consent(target, &answers, &mut dialog)?;
    write::all(&Target { overwrite, ..target.clone() }, answers)
}

/// Takes what `given` says and the proposals for the rest, and writes the files.
///
/// # Errors
/// See [`SetupError`].
pub fn by_flags(given: &Given, target: &Target, machine: &Machine) -> Result<Done, SetupError> {
    write::all(target, answers::take(given, machine)?)
}

/// Whether a port is free on this machine.
fn is_free(kind: crate::doctor::ports::Kind, address: SocketAddr) -> bool {
    kind.try_open(address).is_ok()
}
