//! The catalogue of the log: every line that reports a problem has a `code`, and here is what it means and what to do. `docs/log-codes.md` is this table.
//!
//! Invariants, which tests see to: every `warn!` and `error!` of the program carries a code of this table, and every code of the table is carried by one; codes
//! stay as they are when texts change, so that whoever searches or alerts by them may.

mod broker;
mod house;
mod sense;

/// What a code says.
pub struct Entry {
    /// The word behind `code=`.
    pub code: &'static str,
    /// `ERROR`: something is lost or does not work; `WARN`: something should be looked at.
    pub level: &'static str,
    /// What has happened.
    pub meaning: &'static str,
    /// What to do about it.
    pub remedy: &'static str,
}

/// The codes of one part of the program.
pub struct Group {
    /// Whom they concern, as a heading.
    pub title: &'static str,
    /// By the order in which one meets them.
    pub entries: &'static [Entry],
}

/// An entry of Windows' event log: number, kind, meaning, remedy.
pub type EventLogEntry = (&'static str, &'static str, &'static str, &'static str);

const fn error(code: &'static str, meaning: &'static str, remedy: &'static str) -> Entry {
    Entry { code, level: "ERROR", meaning, remedy }
}

const fn warning(code: &'static str, meaning: &'static str, remedy: &'static str) -> Entry {
    Entry { code, level: "WARN", meaning, remedy }
}

/// Windows' event log (Application, source `sense-butler`).
pub const EVENT_LOG: [EventLogEntry; 4] = [
    ("1", "INFORMATION", "the service runs", "nothing"),
    ("2", "INFORMATION", "the service has stopped in order", "nothing"),
    (
        "3",
        "ERROR",
        "the service could not start, or gave up; the entry says why, once for each reason",
        "as the entry says; `sense-butler service status` repeats it, the log has more",
    ),
    ("4", "INFORMATION", "the service was installed", "nothing"),
];

/// All codes.
pub fn groups() -> impl Iterator<Item = &'static Group> {
    [sense::SENSE, broker::BROKER, house::HOUSE].into_iter().flatten()
}

/// The page.
#[cfg(test)]
fn page() -> String {
    let mut page = String::from(
        "# Log codes\n\nEvery line of the log that reports a problem ends with a code. It stays as it is when texts change, so it can be searched for and \
         alerted by:\n\n```\n2026-11-23T11:20:07.201Z WARN  sense: datagram ignored: it is empty port=\"task\" from=127.0.0.1 reason=\"empty\" beginning=\"\" \
         code=udp_ignored\n```\n\n`ERROR`: something is lost or does not work. `WARN`: something should be looked at. How lines are written, folded and \
         where they go: [operations](operations.md#logs). Codes of REST answers are [others](errors.md). This page is made from the program.\n",
    );
    for group in groups() {
        page.push_str(&format!(
            "\n## {}\n\n| code | level | what has happened | what to do |\n|---|---|---|---|\n",
            group.title
        ));
        for Entry { code, level, meaning, remedy } in group.entries {
            page.push_str(&format!("| `{code}` | {level} | {meaning} | {remedy} |\n"));
        }
    }
    page.push_str(
        "\n## Windows' event log\n\nApplication, source `sense-butler`:\n\n| number | kind | what has happened | what to do |\n|---|---|---|---|\n",
    );
    for (number, kind, meaning, remedy) in EVENT_LOG {
        page.push_str(&format!("| {number} | {kind} | {meaning} | {remedy} |\n"));
    }
    page
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    /// `WRITE_DOCS=1` writes the page anew.
    #[test]
    fn the_page_is_what_the_program_says() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/log-codes.md");
        if std::env::var_os("WRITE_DOCS").is_some() {
            fs::write(&file, page()).unwrap();
        }
        assert_eq!(fs::read_to_string(file).unwrap(), page(), "WRITE_DOCS=1 makes it anew");
    }

    #[test]
    fn a_code_is_one_plain_word_and_there_once() {
        let codes: Vec<&str> = groups().flat_map(|group| group.entries).map(|entry| entry.code).collect();
        let plain = |code: &&str| code.chars().all(|c| c.is_ascii_lowercase() || c == '_');
        assert!(codes.iter().all(plain), "{codes:?}");
        assert_eq!(codes.iter().collect::<BTreeSet<_>>().len(), codes.len());
    }
}
