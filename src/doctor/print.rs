//! The result for people: headings, one entry per finding, wrapped for a terminal of 80 columns.
//!
//! Invariants: a line is longer than 80 characters only where a single word (a path) is; colours only where the caller says that a terminal
//! reads; line breaks inside a finding are kept, because behind them stand lines to paste.

use std::io::{self, Write};

use super::finding::{Finding, Level, Report, Section};

/// Characters of a line.
const WIDTH: usize = 80;
/// Characters before a finding's text.
const INDENT: usize = 11;

/// Writes the result.
///
/// # Errors
/// If `out` cannot be written to.
pub fn text(report: &Report, colours: bool, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "sense-butler doctor {}", report.version)?;
    let mut before: Option<Section> = None;
    for finding in &report.findings {
        if before != Some(finding.section) {
            writeln!(out, "\n{}", finding.section.title())?;
            before = Some(finding.section);
        }
        entry(finding, colours, out)?;
    }
    writeln!(out, "\n{}", summary(report))
}

fn entry(finding: &Finding, colours: bool, out: &mut dyn Write) -> io::Result<()> {
    let (word, colour) = match finding.level {
        Level::Ok => ("ok", "32"),
        Level::Warning => ("WARNING", "33"),
        Level::Problem => ("PROBLEM", "31"),
    };
    let mut lead = format!("  {word:<9}");
    if colours {
        lead = format!("  \x1b[{colour}m{word:<9}\x1b[0m");
    }
    for line in wrapped(&finding.what) {
        writeln!(out, "{lead}{line}")?;
        lead = " ".repeat(INDENT);
    }
    for (number, line) in finding.remedy.iter().flat_map(|remedy| wrapped(&format!("-> {remedy}"))).enumerate() {
        let more = if number > 0 { "   " } else { "" };
        writeln!(out, "{}{more}{line}", " ".repeat(INDENT))?;
    }
    Ok(())
}

/// A text in lines that fit behind the indentation, with room for the arrow.
fn wrapped(text: &str) -> Vec<String> {
    text.lines().flat_map(wrap).collect()
}

/// One line in pieces; its own indentation is that of every piece.
fn wrap(line: &str) -> Vec<String> {
    let room = WIDTH - INDENT - 3;
    let own: String = line.chars().take_while(|c| *c == ' ').collect();
    // Lines to paste are never broken.
    if own.len() >= 4 {
        return vec![line.to_owned()];
    }
    let (mut lines, mut current) = (Vec::new(), own.clone());
    for word in line.split_whitespace() {
        let length = current.chars().count();
        if length > own.len() && length + 1 + word.chars().count() > room {
            lines.push(std::mem::replace(&mut current, own.clone()));
        }
        if current.len() > own.len() {
            current.push(' ');
        }
        current.push_str(word);
    }
    lines.push(current);
    lines
}

fn summary(report: &Report) -> String {
    let number = |count: usize, what: &str| match count {
        0 => format!("no {what}s"),
        1 => format!("1 {what}"),
        more => format!("{more} {what}s"),
    };
    format!("{}, {}", number(report.problems, "problem"), number(report.warnings, "warning"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printed(findings: Vec<Finding>, colours: bool) -> String {
        let mut out = Vec::new();
        text(&Report::new(findings), colours, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn it_reads_at_eighty_columns() {
        let long = "word ".repeat(60);
        let path = format!("/{}", "å".repeat(100));
        let findings = vec![
            Section::Ports.ok("free"),
            Section::Ports.warning(&long, &long),
            Section::Disk.problem(format!("{path} is full"), "Add:\n    a: b\n    c: d"),
        ];
        let text = printed(findings, false);
        let mut lines = 0;
        for line in text.lines() {
            lines += 1;
            assert!(line.chars().count() <= WIDTH || line.split_whitespace().any(|word| word == path), "{line}");
        }
        assert!(lines > 20, "{text}");
        assert!(text.contains("\nPorts\n  ok       free\n  WARNING  word word"), "{text}");
        assert!(text.contains("           -> Add:\n                  a: b\n                  c: d\n"), "{text}");
        assert!(text.ends_with("\n1 problem, 1 warning\n"), "{text}");
        assert!(!text.contains('\x1b'), "{text}");
    }

    #[test]
    fn colours_are_for_terminals() {
        let text = printed(vec![Section::Clock.problem("late", "")], true);
        assert!(
            text.contains("\x1b[31mPROBLEM  \x1b[0mlate\n") && text.ends_with("1 problem, no warnings\n"),
            "{text}"
        );
    }
}
