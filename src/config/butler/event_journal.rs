//! `eventJournal`

use std::time::Duration;

use crate::{config::walk::Section, keep::journal::JournalSettings};

const DAY: u64 = 24 * 3_600;

pub(super) fn decode(section: Section<'_>) -> JournalSettings {
    let default = JournalSettings::default();
    let days = section.number("maxAgeDays", 1..=366, default.max_age.as_secs() / DAY);
    let journal = JournalSettings {
        enable: section.flag("enable", default.enable),
        sessions: section.flag("sessions", default.sessions),
        max_entries: section.number("maxEntries", 1..=500_000, default.max_entries),
        max_age: Duration::from_secs(days * DAY),
        max_bytes: section.number("maxBytes", 65_536..=1 << 28, default.max_bytes),
    };
    section.finish();
    journal
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        LoadOptions, load,
        samples::{Dir, root},
    };

    #[test]
    fn bounds_and_switches() {
        let journal = |text: &str| {
            let dir = Dir::new();
            let options = LoadOptions { config: Some(dir.write("butler.yaml", text)), ..dir.options() };
            load(&options).unwrap().settings.journal
        };
        let sample = std::fs::read_to_string(root().join("config/samples/valid/event-journal.yaml")).unwrap();
        let written = JournalSettings {
            enable: true,
            sessions: true,
            max_entries: 1_000,
            max_age: Duration::from_secs(DAY),
            max_bytes: 65_536,
        };
        assert_eq!(journal(&sample), written);
        assert_eq!(journal("Butler:\n  logLevel: info\n"), JournalSettings::default());
        assert!(!journal("Butler:\n  eventJournal: {enable: false}\n").enable);
    }
}
