//! What is wrong with a configuration file, in words an administrator can act on.
//!
//! Invariants: every diagnostic about a file names it, with line and column where there is one; a secret's value is never in the text; the
//! lines to add are complete and can be pasted as they stand.

use std::{
    cell::RefCell,
    collections::{BTreeSet, HashMap},
    fmt,
    path::{Path, PathBuf},
};

/// Exit code for a configuration that cannot be used (`EX_USAGE`).
pub const EXIT_CODE: u8 = 64;

/// A place in a file; lines and columns count from 1, columns in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

/// One remark on the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// The file; `None`: the command line or the built-in defaults.
    pub file: Option<PathBuf>,
    /// Where in it.
    pub place: Option<Place>,
    /// Key path, e.g. `Butler.mqttConfig.brokerPort`; empty when the file as a whole is meant.
    pub key: String,
    /// What is wrong and what to do.
    pub message: String,
    /// Lines to add, ready to paste; may be empty.
    pub lines: Vec<String>,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}", file.display())?;
            if let Some(Place { line, column }) = self.place {
                write!(f, ":{line}:{column}")?;
            }
            f.write_str(": ")?;
        }
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        self.lines.iter().try_for_each(|line| write!(f, "\n    {line}"))
    }
}

/// Everything that keeps a configuration from being used; [`EXIT_CODE`] is the exit code that goes with it.
#[derive(Debug, Clone, thiserror::Error)]
pub struct ConfigErrors {
    /// The errors, at least one; in the order of the files.
    pub errors: Vec<Diagnostic>,
    /// What was remarkable besides.
    pub warnings: Vec<Diagnostic>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, error) in self.errors.iter().enumerate() {
            if position > 0 {
                f.write_str("\n")?;
            }
            fmt::Display::fmt(error, f)?;
        }
        Ok(())
    }
}

/// Collects what is found while one file is read, and where its keys stand.
#[derive(Debug, Default)]
pub(super) struct Report {
    file: Option<PathBuf>,
    errors: RefCell<Vec<Diagnostic>>,
    warnings: RefCell<Vec<Diagnostic>>,
    /// Where a value stands, and the column of its key.
    places: RefCell<HashMap<String, (Place, usize)>>,
    asked: RefCell<BTreeSet<String>>,
}

impl Report {
    pub(super) fn new(file: Option<&Path>) -> Self {
        Self { file: file.map(Path::to_path_buf), ..Self::default() }
    }

    pub(super) fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Remembers where a key's value stands, for [`Report::error`], and the key's own column, for lines to add beside it.
    pub(super) fn found(&self, key: &str, place: Place, column: usize) {
        self.places.borrow_mut().insert(key.to_owned(), (place, column));
    }

    /// The blanks before a key; `None` if the file does not have it.
    pub(super) fn indent(&self, key: &str) -> Option<String> {
        self.places.borrow().get(key).map(|(_, column)| " ".repeat(column.saturating_sub(1)))
    }

    /// Whether the file writes a key (or section).
    pub(super) fn wrote(&self, key: &str) -> bool {
        self.places.borrow().contains_key(key)
    }

    /// Remembers that a key is known, whether the file has it or not.
    pub(super) fn asked(&self, key: String) {
        self.asked.borrow_mut().insert(key);
    }

    /// Every key that was asked for; list items are written `[]`.
    #[cfg(test)]
    pub(super) fn asked_keys(&self) -> BTreeSet<String> {
        self.asked.borrow().clone()
    }

    /// An error about a key, at its place or, when it is absent, at the section that should have it.
    pub(super) fn error(&self, key: &str, message: impl Into<String>) {
        self.error_with(key, message, Vec::new());
    }

    /// An error with the lines that would cure it.
    pub(super) fn error_with(&self, key: &str, message: impl Into<String>, lines: Vec<String>) {
        self.push_error(self.place(key), key, message.into(), lines);
    }

    pub(super) fn error_at(&self, place: Option<Place>, key: &str, message: impl Into<String>) {
        self.push_error(place, key, message.into(), Vec::new());
    }

    pub(super) fn warn(&self, key: &str, message: impl Into<String>) {
        let diagnostic = self.diagnostic(self.place(key), key, message.into(), Vec::new());
        self.warnings.borrow_mut().push(diagnostic);
    }

    /// Errors and warnings in the order of the file.
    pub(super) fn into_parts(self) -> (Vec<Diagnostic>, Vec<Diagnostic>) {
        let sorted = |list: RefCell<Vec<Diagnostic>>| {
            let mut list = list.into_inner();
            list.sort_by_key(|diagnostic| diagnostic.place);
            list
        };
        (sorted(self.errors), sorted(self.warnings))
    }

    fn place(&self, key: &str) -> Option<Place> {
        let places = self.places.borrow();
        let mut key = key;
        loop {
            if let Some((place, _)) = places.get(key) {
                return Some(*place);
            }
            key = key.rsplit_once('.')?.0;
        }
    }

    fn push_error(&self, place: Option<Place>, key: &str, message: String, lines: Vec<String>) {
        let diagnostic = self.diagnostic(place, key, message, lines);
        self.errors.borrow_mut().push(diagnostic);
    }

    fn diagnostic(&self, place: Option<Place>, key: &str, message: String, lines: Vec<String>) -> Diagnostic {
        Diagnostic { file: self.file.clone(), place, key: key.to_owned(), message, lines }
    }
}
