//! What the running program says of itself.

use super::{
    finding::{Finding, Section},
    running::{Part, Running},
};
use crate::config::Loaded;

const HERE: Section = Section::Program;

/// Whether it runs, and whether all its parts do their work.
pub fn look(loaded: &Loaded, running: Option<&Running>) -> Vec<Finding> {
    let Some(running) = running else { return vec![HERE.ok(absent(loaded))] };
    let since = match &running.since {
        Some((version, seconds)) => format!("sense-butler {version} has run for {}", span(*seconds)),
        None => "sense-butler runs".to_owned(),
    };
    let process = running.process.as_ref().map(|process| format!(", {process}")).unwrap_or_default();
    let what = format!("{since} and answers at {}{process}", running.at);
    let whole = match running.ready {
        true => HERE.ok(what),
        false => HERE.problem(format!("{what}, but is not ready"), "The parts that are not ready follow."),
    };
    std::iter::once(whole).chain(other_version(running)).chain(running.parts.iter().filter_map(part)).collect()
}

fn absent(loaded: &Loaded) -> String {
    match loaded.settings.rest.enable {
        true => "it does not run: nobody who speaks like it answers at its REST port".to_owned(),
        false => "whether it runs is not known: restServerConfig.enable is false, so it cannot be asked".to_owned(),
    }
}

fn other_version(running: &Running) -> Option<Finding> {
    let (version, _) = running.since.as_ref().filter(|(version, _)| version != env!("CARGO_PKG_VERSION"))?;
    let what = format!("version {version} runs; this doctor is of version {}", env!("CARGO_PKG_VERSION"));
    Some(HERE.warning(what, "Restart the program if it was replaced by a newer one."))
}

fn part(part: &Part) -> Option<Finding> {
    if part.ready {
        return None;
    }
    let what = format!("part `{}` is not ready: {}", part.name, part.detail);
    let remedy = "docs/operations.md, \"Is it well?\", says what each part means; the log says more.";
    Some(if part.required { HERE.problem(what, remedy) } else { HERE.warning(what, remedy) })
}

/// A number of seconds as people say it.
pub fn span(seconds: u64) -> String {
    let (count, unit) = match seconds {
        0..120 => (seconds, "second"),
        120..7_200 => (seconds / 60, "minute"),
        7_200..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_said_in_the_unit_that_fits() {
        let cases = [(0, "0 seconds"), (1, "1 second"), (119, "119 seconds"), (120, "2 minutes"), (7_200, "2 hours")];
        for (seconds, said) in cases {
            assert_eq!(span(seconds), said);
        }
        assert_eq!(span(172_800), "2 days");
    }
}
