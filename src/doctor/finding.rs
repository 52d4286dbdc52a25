//! What a look at one thing found: fine, remarkable or wrong, and what to do.
//!
//! Invariant: whatever is not fine says what to do about it, in [`Finding::remedy`] or in the sentence itself.

use serde::Serialize;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// Fine.
    Ok,
    /// It works, and should be looked at.
    Warning,
    /// Something does not work, or will not when the program starts.
    Problem,
}

/// What was looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Section {
    /// `butler.yaml` and `broker.toml`.
    Configuration,
    /// The running program, as it speaks of itself.
    Program,
    /// Every port the configuration opens.
    Ports,
    /// Certificates and keys of the program's own doors and of the broker elsewhere.
    Certificates,
    /// The Qlik Sense Repository Service, step by step.
    Qrs,
    /// What the log appenders of the Sense nodes sent.
    Events,
    /// This machine's clock.
    Clock,
    /// Where the program keeps its data.
    Disk,
    /// Who may read secrets.
    Permissions,
    /// What the operating system allows.
    Limits,
}

impl Section {
    /// Its heading.
    pub const fn title(self) -> &'static str {
        match self {
            Self::Configuration => "Configuration",
            Self::Program => "The running program",
            Self::Ports => "Ports",
            Self::Certificates => "Certificates of this program",
            Self::Qrs => "Qlik Sense Repository Service",
            Self::Events => "Events of Qlik Sense",
            Self::Clock => "Clock",
            Self::Disk => "Disk",
            Self::Permissions => "Files with secrets",
            Self::Limits => "Limits of the system",
        }
    }

    /// Something is fine.
    pub fn ok(self, what: impl Into<String>) -> Finding {
        Finding { section: self, level: Level::Ok, what: what.into(), remedy: None }
    }

    /// Something should be looked at.
    pub fn warning(self, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { section: self, level: Level::Warning, what: what.into(), remedy: some(remedy.into()) }
    }

    /// Something does not work.
    pub fn problem(self, what: impl Into<String>, remedy: impl Into<String>) -> Finding {
        Finding { section: self, level: Level::Problem, what: what.into(), remedy: some(remedy.into()) }
    }
}

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

/// One line of the result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Where it belongs.
    pub section: Section,
    /// How bad it is.
    pub level: Level,
    /// What was found; may have several lines.
    pub what: String,
    /// What to do about it; may have several lines.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

/// Everything that was found.
#[derive(Debug, Clone, Serialize)]
pub struct Report {
    /// Version of the program that looked.
    pub version: &'static str,
    /// How many problems there are.
    pub problems: usize,
    /// How many warnings.
    pub warnings: usize,
    /// In the order of the sections.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Counts what was found.
    pub fn new(findings: Vec<Finding>) -> Self {
        let count = |level| findings.iter().filter(|finding| finding.level == level).count();
        Self {
            version: env!("CARGO_PKG_VERSION"),
            problems: count(Level::Problem),
            warnings: count(Level::Warning),
            findings,
        }
    }
}
