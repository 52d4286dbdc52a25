//! The files: made beside their places, read by the program's own reader, then put in place.
//!
//! Invariants: files that are there are replaced only with consent; what the reader refuses never comes into place; files with secrets are for
//! their owner only (Unix; on Windows: whoever the directory admits).

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
};

use ring::rand::{SecureRandom as _, SystemRandom};

use super::{
    Done, SetupError, Target,
    answers::{Answers, Reach},
    authority,
    dialog::Dialog,
    texts,
};
use crate::{
    config::{self, LoadOptions},
    names::Secret,
};

/// Letters and digits nobody mistakes for others.
const ALPHABET: &[u8; 32] = b"abcdefghjkmnpqrstuvwxyz23456789A";
/// Characters of a password: 20 of 32 kinds are 100 bits.
const PASSWORD: usize = 20;

/// Where everything lies.
#[derive(Debug, Clone)]
pub struct Written {
    /// `butler.yaml`
    pub butler: PathBuf,
    /// `broker.toml`
    pub broker: PathBuf,
    /// The authority for MQTT clients on other machines.
    pub ca: Option<PathBuf>,
}

/// The files, by their path below the directory.
fn names(answers: &Answers) -> Vec<&'static str> {
    let certificates: &[&str] = match answers.reach {
        Reach::ThisMachine => &[],
        Reach::Others(_) => &["certs/ca.pem", "certs/server.pem", "certs/server_key.pem"],
    };
    ["butler.yaml", "broker.toml"].into_iter().chain(certificates.iter().copied()).collect()
}

/// Asks whether what is there may be replaced.
pub(super) fn consent(target: &Target, answers: &Answers, dialog: &mut Dialog<'_>) -> Result<bool, SetupError> {
    let there: Vec<PathBuf> =
        names(answers).iter().map(|name| target.directory.join(name)).filter(|file| file.exists()).collect();
    if target.overwrite || there.is_empty() {
        return Ok(target.overwrite);
    }
    let list: Vec<String> = there.iter().map(|file| file.display().to_string()).collect();
    dialog.agree(&format!("There already: {}. Replace?", list.join(", ")))
}

/// Writes them all.
pub(super) fn all(target: &Target, answers: Answers) -> Result<Done, SetupError> {
    let directory = std::path::absolute(&target.directory)?;
    let names = names(&answers);
    if let Some(file) = names.iter().map(|name| directory.join(name)).find(|file| file.exists() && !target.overwrite) {
        return Err(SetupError::Exists(file));
    }
    let password = password()?;
    let hash = (target.hash)(&password).map_err(SetupError::Made)?;
    let mut files = vec![texts::butler(&answers), texts::broker(&answers, &hash)];
    if let Reach::Others(_) = answers.reach {
        let made = authority::make(&answers.names)
            .map_err(|error| SetupError::Made(format!("the certificates for MQTT with TLS cannot be made: {error}")))?;
        files.extend([made.ca, made.server, made.server_key]);
    }
    let staged = directory.join(format!(".init-{}", uuid::Uuid::new_v4().simple()));
    let result =
        stage(&staged, &names, &files).and_then(|()| accept(&staged)).and_then(|()| place(&staged, &directory, &names));
    // Only what did not come into place is left in it.
    let _ = fs::remove_dir_all(&staged);
    result?;
    let ca = matches!(answers.reach, Reach::Others(_)).then(|| directory.join("certs/ca.pem"));
    let written = Written { butler: directory.join("butler.yaml"), broker: directory.join("broker.toml"), ca };
    Ok(Done { written, answers, password })
}

fn stage(staged: &Path, names: &[&str], texts: &[String]) -> Result<(), SetupError> {
    for (name, text) in names.iter().zip(texts) {
        let file = staged.join(name);
        let failed = |source| SetupError::File { file: file.clone(), source };
        fs::create_dir_all(file.parent().unwrap_or(staged)).map_err(failed)?;
        private(&file, text).map_err(failed)?;
    }
    Ok(())
}

fn private(file: &Path, text: &str) -> std::io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(file)?.write_all(text.as_bytes())
}

/// Whether the program would start with them.
fn accept(staged: &Path) -> Result<(), SetupError> {
    let options = LoadOptions {
        config: Some(staged.join("butler.yaml")),
        broker_config: Some(staged.join("broker.toml")),
        cwd: staged.to_owned(),
        data_dir: staged.join("data"),
        ..LoadOptions::default()
    };
    config::load(&options).map(drop).map_err(SetupError::Configuration)
}

fn place(staged: &Path, directory: &Path, names: &[&str]) -> Result<(), SetupError> {
    for name in names {
        let file = directory.join(name);
        let failed = |source| SetupError::File { file: file.clone(), source };
        fs::create_dir_all(file.parent().unwrap_or(directory)).map_err(failed)?;
        fs::rename(staged.join(name), &file).map_err(failed)?;
    }
    Ok(())
}

fn password() -> Result<Secret, SetupError> {
    let mut random = [0_u8; PASSWORD];
    SystemRandom::new().fill(&mut random).map_err(|_| SetupError::Made("the system gives no randomness".to_owned()))?;
    let letter = |byte: u8| ALPHABET.get(usize::from(byte % 32)).map_or('x', |letter| char::from(*letter));
    Ok(Secret::new(random.into_iter().map(letter).collect::<String>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_differ_and_use_the_whole_alphabet() {
        let all: Vec<String> = (0..200).map(|_| password().unwrap().expose().to_owned()).collect();
        let kinds: std::collections::BTreeSet<char> = all.iter().flat_map(|text| text.chars()).collect();
        assert!(all.iter().all(|text| text.len() == PASSWORD) && kinds.len() == 32, "{kinds:?}");
        assert_eq!(all.iter().collect::<std::collections::BTreeSet<_>>().len(), 200);
    }
}
