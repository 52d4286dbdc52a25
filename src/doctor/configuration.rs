//! `butler.yaml` and `broker.toml`: can they be read, which were read, what is remarkable.

use super::finding::{Finding, Section};
use crate::config::{ConfigErrors, Diagnostic, Loaded};

const HERE: Section = Section::Configuration;

/// What reading both files gave.
pub fn look(loaded: &Result<Loaded, ConfigErrors>) -> Vec<Finding> {
    match loaded {
        Ok(loaded) => good(loaded),
        Err(errors) => bad(errors),
    }
}

fn good(loaded: &Loaded) -> Vec<Finding> {
    let sources = &loaded.sources;
    let butler = match &sources.butler {
        Some(file) => HERE.ok(format!("{} is read", file.display())),
        None => HERE.warning(
            "no butler.yaml was found, the built-in defaults are used",
            "Name the file with -c if there is one, or let `sense-butler init` write one.",
        ),
    };
    let broker = match &sources.broker {
        Some(file) => HERE.ok(format!("{} is read", file.display())),
        None => HERE.ok("no broker.toml: the built-in broker has one door, on this machine"),
    };
    let choice = HERE.ok(format!("broker: {}", loaded.settings.mqtt.broker_reason));
    let warnings = loaded.warnings.iter().map(|warning| HERE.warning(said(warning), remedy(warning)));
    [butler, broker, choice].into_iter().chain(warnings).collect()
}

fn bad(errors: &ConfigErrors) -> Vec<Finding> {
    let problems = errors.errors.iter().map(|error| HERE.problem(said(error), remedy(error)));
    let warnings = errors.warnings.iter().map(|warning| HERE.warning(said(warning), remedy(warning)));
    let rest = HERE.warning(
        "the program does not start with this configuration, so nothing else was looked at",
        "Correct the files, then run `sense-butler doctor` again.",
    );
    problems.chain(warnings).chain([rest]).collect()
}

/// The sentence without its lines to add.
fn said(diagnostic: &Diagnostic) -> String {
    Diagnostic { lines: Vec::new(), ..diagnostic.clone() }.to_string()
}

fn remedy(diagnostic: &Diagnostic) -> String {
    match diagnostic.lines.as_slice() {
        [] => String::new(),
        lines => lines.iter().fold("Add:".to_owned(), |text, line| format!("{text}\n    {line}")),
    }
}
