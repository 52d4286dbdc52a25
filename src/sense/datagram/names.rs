//! Task name and app name when one of them contains `;`: which of the possible splits is meant.

/// The two names.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// Task name.
    pub task: String,
    /// App name.
    pub app: String,
    /// Another split would have been as good.
    pub ambiguous: bool,
}

/// Names with more pieces than this are not tried split by split (a datagram can hold 65,000 of them).
const MAX_PIECES: usize = 64;

/// Splits the pieces of `task;app`. `None` if there are fewer than two.
///
/// With more than two pieces: the split whose task name ends with the app name (Qlik's own names for tasks do), else the only one where
/// neither part begins or ends with a blank, else the last (task names are free text more often than app names).
pub(super) fn split_names(pieces: &[&str]) -> Option<Names> {
    let last = pieces.len().checked_sub(1).filter(|last| *last > 0)?;
    if pieces.len() > MAX_PIECES || pieces.len() == 2 {
        return cut(pieces, last, pieces.len() > 2);
    }
    let splits = || (1..=last).filter_map(|at| cut(pieces, at, false));
    if let Some(names) = splits().find(|names| !names.app.is_empty() && names.task.ends_with(&names.app)) {
        return Some(names);
    }
    let mut tidy = splits().filter(|names| is_tidy(&names.task) && is_tidy(&names.app));
    match (tidy.next(), tidy.next_back()) {
        (Some(only), None) => Some(only),
        (Some(_), Some(last)) => Some(Names { ambiguous: true, ..last }),
        (None, _) => cut(pieces, last, true),
    }
}

fn cut(pieces: &[&str], at: usize, ambiguous: bool) -> Option<Names> {
    let (task, app) = pieces.split_at_checked(at)?;
    Some(Names { task: task.join(";"), app: app.join(";"), ambiguous })
}

fn is_tidy(name: &str) -> bool {
    name.trim() == name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str) -> (String, String, bool) {
        let pieces: Vec<&str> = text.split(';').collect();
        let names = split_names(&pieces).unwrap();
        (names.task, names.app, names.ambiguous)
    }

    #[test]
    fn the_likeliest_split_is_taken() {
        for (text, task, app, ambiguous) in [
            ("t;a", "t", "a", false),
            (" t ; a", " t ", " a", false),
            ("Load; sales;Sales app", "Load; sales", "Sales app", false),
            ("Reload of A;B;A;B", "Reload of A;B", "A;B", false),
            ("x;y;z", "x;y", "z", true),
            ("Distribute; Sales;", "Distribute; Sales", "", false),
            (" x; y;z ", " x; y", "z ", true),
        ] {
            assert_eq!(split(text), (task.to_owned(), app.to_owned(), ambiguous), "{text}");
        }
    }

    #[test]
    fn one_piece_is_not_two_names() {
        assert_eq!(split_names(&["t"]), None);
        assert_eq!(split_names(&[]), None);
    }

    #[test]
    fn a_flood_of_semicolons_costs_nothing() {
        let pieces = vec![""; 60_000];
        assert!(split_names(&pieces).unwrap().ambiguous);
    }
}
