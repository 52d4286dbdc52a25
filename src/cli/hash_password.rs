//! `sense-butler hash-password`: an Argon2id hash for `[[users]]` in `broker.toml`.
//!
//! Invariants: the password comes from the terminal (twice) or from standard input, never from an argument, where other users of the
//! machine could read it; it is never printed.

use std::io::{self, BufRead, IsTerminal, Write};

use argon2::{Algorithm, Argon2, Params, PasswordHasher, Version};

use crate::names::Secret;

/// Memory of one hashing, KiB: 19 MiB, with two passes and one lane what OWASP recommends for Argon2id at the least.
const MEMORY_KIB: u32 = 19 * 1024;
const PASSES: u32 = 2;
const LANES: u32 = 1;

/// Longest password, bytes; MQTT carries no longer one.
const LONGEST: u64 = 65_535;

/// Why there is no hash.
#[derive(Debug, thiserror::Error)]
pub enum HashError {
    /// Terminal or standard input.
    #[error("the password cannot be read: {0}")]
    Read(#[source] io::Error),
    /// The result cannot be written.
    #[error("the hash cannot be written: {0}")]
    Write(#[source] io::Error),
    /// The two entries differ.
    #[error("the two passwords differ; nothing was hashed")]
    Differ,
    /// Nothing was entered.
    #[error("the password is empty; give one, on the terminal or as the first line of standard input")]
    Empty,
    /// Too long.
    #[error("the password is longer than the 65,535 bytes MQTT can carry")]
    TooLong,
    /// Argon2 refused, e.g. for want of memory or randomness.
    #[error("the password cannot be hashed: {0}")]
    Hash(String),
}

/// Reads a password and writes its hash, with the lines to paste into `broker.toml`, to `out`.
///
/// # Errors
/// See [`HashError`].
pub fn run(out: &mut dyn Write) -> Result<(), HashError> {
    let stdin = io::stdin();
    let password = if stdin.is_terminal() { from_terminal()? } else { from_reader(stdin.lock())? };
    write_lines(&hash(&password)?, out).map_err(HashError::Write)
}

fn from_terminal() -> Result<Secret, HashError> {
    let ask = |prompt: &str| rpassword::prompt_password(prompt).map(Secret::new).map_err(HashError::Read);
    let password = ask("Password: ")?;
    if ask("Once more: ")? != password {
        return Err(HashError::Differ);
    }
    Ok(password)
}

/// The first line, without its end.
fn from_reader(reader: impl BufRead) -> Result<Secret, HashError> {
    let mut line = String::new();
    reader.take(LONGEST + 3).read_line(&mut line).map_err(HashError::Read)?;
    Ok(Secret::new(line.trim_end_matches(['\r', '\n'])))
}

/// The hash in PHC form, with a new random salt.
///
/// # Errors
/// For an empty or too long password, or if the system has no randomness or memory to give.
pub fn hash(password: &Secret) -> Result<String, HashError> {
    let bytes = password.expose().as_bytes();
    if bytes.is_empty() {
        return Err(HashError::Empty);
    }
    if u64::try_from(bytes.len()).map_or(true, |length| length > LONGEST) {
        return Err(HashError::TooLong);
    }
    let params = Params::new(MEMORY_KIB, PASSES, LANES, None).map_err(|error| HashError::Hash(error.to_string()))?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    argon2.hash_password(bytes).map(|hash| hash.to_string()).map_err(|error| HashError::Hash(error.to_string()))
}

fn write_lines(hash: &str, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{hash}\n")?;
    writeln!(out, "# Lines for broker.toml; change the name, and the rights as needed: publish, subscribe, start")?;
    writeln!(out, "[[users]]\nname = \"plant\"\npassword_hash = \"{hash}\"\nrights = [\"publish\", \"subscribe\"]")
}

#[cfg(test)]
mod tests {
    use argon2::{PasswordVerifier, password_hash::phc::PasswordHash};

    use super::*;

    #[test]
    fn a_line_becomes_a_hash_that_verifies() {
        let password = from_reader(&b"k\xc3\xa4se; 'x'\r\nrest"[..]).unwrap();
        assert_eq!(password.expose(), "käse; 'x'");
        let hash = hash(&password).unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        let parsed = PasswordHash::new(&hash).unwrap();
        assert!(Argon2::default().verify_password("käse; 'x'".as_bytes(), &parsed).is_ok());
        assert!(Argon2::default().verify_password(b"x", &parsed).is_err());
        let mut out = Vec::new();
        write_lines(&hash, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.starts_with(&hash) && text.contains("[[users]]") && !text.contains("käse"), "{text}");
    }

    #[test]
    fn what_is_refused() {
        assert!(matches!(hash(&from_reader(&b"\n"[..]).unwrap()), Err(HashError::Empty)));
        let long = "x".repeat(70_000);
        assert!(matches!(hash(&from_reader(long.as_bytes()).unwrap()), Err(HashError::TooLong)));
        assert!(matches!(from_reader(&b"\xff\n"[..]), Err(HashError::Read(_))));
    }
}
