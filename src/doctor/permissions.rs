//! Who may read what must stay secret: keys, hashes of passwords, passwords, the data directory.
//!
//! Unix tells it in the mode of a file; on Windows the rights are an access list, and the command that shows it is named instead.

use std::path::{Path, PathBuf};

use super::finding::{Finding, Section};
use crate::config::{Loaded, settings::BrokerChoice};

const HERE: Section = Section::Permissions;

/// Looks at every file.
pub fn look(loaded: &Loaded) -> Vec<Finding> {
    let found: Vec<Finding> =
        secrets(loaded).iter().filter(|(file, _)| file.exists()).map(|(file, what)| one(file, what)).collect();
    if found.is_empty() { vec![HERE.ok("the configuration names none that is there")] } else { found }
}

/// Files and what is secret in them.
fn secrets(loaded: &Loaded) -> Vec<(PathBuf, &'static str)> {
    let settings = &loaded.settings;
    let mut files: Vec<(PathBuf, &'static str)> = Vec::new();
    if settings.qrs.use_tls && settings.qrs.host.is_some() {
        files.extend(
            settings.qrs.client_key.clone().map(|file| (file, "the key to Qlik Sense, with full rights on the site")),
        );
    }
    files.extend(settings.rest.tls.as_ref().map(|tls| (tls.key.clone(), "the key of REST")));
    let doors = loaded.broker.listeners.iter().filter_map(|listener| listener.tls.as_ref());
    files.extend(doors.map(|tls| (tls.key.clone(), "the key of a listener")));
    if loaded.broker.users.iter().any(|user| user.password_hash.is_some()) {
        files.extend(loaded.sources.broker.clone().map(|file| (file, "hashes of passwords")));
    }
    if let BrokerChoice::External(broker) = &settings.mqtt.broker {
        files.extend(broker.tls.iter().filter_map(|tls| tls.key.clone()).map(|file| (file, "the key for the broker")));
        let password = broker.password.is_some().then(|| loaded.sources.butler.clone()).flatten();
        files.extend(password.map(|file| (file, "the password of the broker, or the name of its file")));
    }
    files.push((loaded.data_dir.clone(), "stored messages and start requests"));
    files
}

#[cfg(unix)]
fn one(file: &Path, what: &str) -> Finding {
    use std::os::unix::fs::PermissionsExt as _;
    let name = file.display();
    let Ok(about) = std::fs::metadata(file) else {
        return HERE.warning(format!("{name} cannot be looked at"), "Run this as the user the program runs as.");
    };
    let (mode, whole) = (about.permissions().mode(), if about.is_dir() { 0o700 } else { 0o600 });
    if mode & 0o007 == 0 {
        return HERE.ok(format!("{name} ({what}): mode {:o}", mode & 0o777));
    }
    HERE.warning(
        format!("{name} ({what}) is open to every user of this machine: mode {:o}", mode & 0o777),
        format!("chmod {whole:o} \"{name}\" (it must belong to the user the program runs as)"),
    )
}

#[cfg(not(unix))]
fn one(file: &Path, what: &str) -> Finding {
    let name = file.display();
    HERE.ok(format!(
        "{name} ({what}): not examined on this system. `icacls \"{name}\"` shows who may read it; SYSTEM, Administrators and the program's own \
         account should be all"
    ))
}
