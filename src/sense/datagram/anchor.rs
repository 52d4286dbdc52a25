//! The anchor of a scheduler datagram: `task id;app id;time;level;execution id;` in a row, which no name or message imitates by accident.
//!
//! It can be imitated on purpose (datagrams are not authenticated, and a task name is free text). The last one counts: names come before
//! it, the text behind it is Qlik's.

use crate::{names::TaskId, sense::event::TaskEvent};

/// Fields an anchor spans.
const SPAN: usize = 5;

/// Where anchors were found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Anchors {
    /// Index of the task id of the last one.
    pub last: Option<usize>,
    /// How many there are.
    pub count: usize,
}

/// Finds the anchors whose task id stands at index `first` or later and which have a field behind them.
pub(super) fn find(fields: &[&str], first: usize) -> Anchors {
    let mut found = Anchors::default();
    for (index, window) in fields.windows(SPAN + 1).enumerate().skip(first) {
        if is_anchor(window) {
            found = Anchors { last: Some(index), count: found.count + 1 };
        }
    }
    found
}

fn is_anchor(window: &[&str]) -> bool {
    let [task, app, time, level, execution, ..] = window else { return false };
    // The time first: it fails fastest.
    is_time(time) && is_level(level) && is_id(task) && is_id(app) && is_id(execution)
}

/// Whether task and app id of an event are what generation head accepts, or what log4net writes for "none".
pub(super) fn ids_are_valid(event: &TaskEvent) -> bool {
    [&event.task_id, &event.app_id].into_iter().flatten().all(|id| is_id(id))
}

/// A GUID in any case, nothing, or log4net's word for a property that is not set.
fn is_id(text: &str) -> bool {
    text.is_empty() || text == "(null)" || text.parse::<TaskId>().is_ok()
}

/// `2024-04-12 07:33:03,508` (`%date`) or `20211109T153726.028+0200` (Qlik's `%longIso8601date`).
fn is_time(text: &str) -> bool {
    let digits = text.bytes().filter(u8::is_ascii_digit).count();
    text.len() <= 40
        && digits >= 14
        && text.bytes().take(4).all(|byte| byte.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_digit() || b" -:,.+TZ".contains(&byte))
}

/// log4net's levels are upper-case words.
fn is_level(text: &str) -> bool {
    !text.is_empty() && text.len() <= 16 && text.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_levels() {
        for time in ["2024-04-12 07:33:03,508", "20211109T153726.028+0200", "2021-11-09T15:37:26.028Z"] {
            assert!(is_time(time), "{time}");
        }
        for time in ["", "2024", "Sales 2024-04-12 07:33:03,508", "0000aaaa-0000-4000-8000-000000000001"] {
            assert!(!is_time(time), "{time}");
        }
        assert!(is_level("INFO") && !is_level("") && !is_level("Sales"));
    }

    #[test]
    fn an_anchor_needs_something_behind_it() {
        let guid = "0000aaaa-0000-4000-8000-000000000001";
        let time = "2024-04-12 07:33:03,508";
        let row = ["h", "t", "a", "u", guid, "(null)", time, "INFO", "", "message"];
        assert_eq!(find(&row, 4), Anchors { last: Some(4), count: 1 });
        assert_eq!(find(row.split_last().unwrap().1, 4), Anchors::default());
        assert_eq!(find(&row, 5), Anchors::default());
    }
}
