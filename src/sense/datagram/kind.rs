//! The type words of datagrams: every alias Butler's generations and their shipped appender files ever used.

use crate::sense::event::TaskEventKind;

/// What the text before the first `;` is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TypeWord {
    /// A type of ours.
    Known(TaskEventKind),
    /// Meant as a type (it begins with `/`, or is empty), but not one of ours.
    Unknown,
    /// Not meant as a type: the first field of a datagram without one.
    NoType,
}

/// Type words without their slashes. Generation head's own success appender sends two slashes at the end; upper case occurs.
const ALIASES: [(&str, TaskEventKind); 9] = [
    ("scheduler-reload-failed", TaskEventKind::Failed),
    ("scheduler-task-failed", TaskEventKind::Failed),
    ("scheduler-reloadtask-failed", TaskEventKind::Failed),
    ("scheduler-reload-aborted", TaskEventKind::Aborted),
    ("scheduler-task-aborted", TaskEventKind::Aborted),
    ("scheduler-reloadtask-success", TaskEventKind::Succeeded),
    ("scheduler-task-success", TaskEventKind::Succeeded),
    ("scheduler-distribute", TaskEventKind::Distributed),
    ("engine-reload-failed", TaskEventKind::EngineReloadFailed),
];

/// Recognises a type word in any case, with blanks around it and any number of slashes at its ends.
pub(super) fn recognise(word: &str) -> TypeWord {
    let word = word.trim_matches(|c: char| c.is_whitespace() || c.is_control());
    let bare = word.strip_prefix('/').unwrap_or(word).trim_end_matches('/');
    match ALIASES.iter().find(|(alias, _)| alias.eq_ignore_ascii_case(bare)) {
        Some((_, kind)) => TypeWord::Known(*kind),
        None if word.is_empty() || word.starts_with('/') => TypeWord::Unknown,
        None => TypeWord::NoType,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn aliases_in_any_dress() {
        for (text, kind) in [
            ("/scheduler-reload-failed/", TaskEventKind::Failed),
            ("/SCHEDULER-Reload-Aborted/", TaskEventKind::Aborted),
            (" /scheduler-task-success// ", TaskEventKind::Succeeded),
            ("/scheduler-distribute", TaskEventKind::Distributed),
            ("engine-reload-failed", TaskEventKind::EngineReloadFailed),
            ("/scheduler-task-failed/\r\n", TaskEventKind::Failed),
        ] {
            assert_eq!(recognise(text), TypeWord::Known(kind), "{text:?}");
        }
    }

    #[test]
    fn other_words() {
        for text in ["", "/", "/scheduler-unknown/", "/proxy-session/", "  "] {
            assert_eq!(recognise(text), TypeWord::Unknown, "{text:?}");
        }
        for text in ["SENSE-01", "scheduler", "hostname/"] {
            assert_eq!(recognise(text), TypeWord::NoType, "{text:?}");
        }
    }
}
