//! This machine's clock against that of the Sense server.

use super::{
    finding::{Finding, Section},
    program::span,
};
use crate::sense::qrs::steps::Walk;

const HERE: Section = Section::Clock;
/// Seconds nobody feels: the server tells whole ones, and the answer was under way.
const NOTHING: u64 = 10;
/// Seconds from which on certificates, log-ins and deadlines go wrong (Windows domains allow five minutes).
const TOO_MUCH: u64 = 300;

/// Compares.
pub fn look(walks: &[Walk]) -> Vec<Finding> {
    let told: Vec<Finding> = walks.iter().filter_map(|walk| walk.clock.map(|ahead| judge(&walk.at, ahead))).collect();
    match told.is_empty() {
        true => vec![HERE.ok("not compared: Qlik Sense did not tell its time")],
        false => told,
    }
}

fn judge(at: &str, ahead: i64) -> Finding {
    let away = ahead.unsigned_abs();
    let side = if ahead > 0 { "ahead of" } else { "behind" };
    let what = format!("the clock of {at} is {} {side} that of this machine", span(away));
    let remedy = "Let both machines take their time from the same source (w32tm /query /status on Windows, timedatectl on Linux).";
    match away {
        0..=NOTHING => HERE.ok(format!("it agrees with that of {at}")),
        away if away < TOO_MUCH => HERE.warning(what, remedy),
        _ => HERE.problem(format!("{what}: certificates and deadlines are judged wrongly"), remedy),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn a_little_is_nothing_and_much_is_a_problem() {
        let cases = [
            (0, Level::Ok),
            (-10, Level::Ok),
            (11, Level::Warning),
            (-299, Level::Warning),
            (300, Level::Problem),
            (-86_400, Level::Problem),
        ];
        for (ahead, level) in cases {
            let finding = judge("sense1:4242", ahead);
            assert_eq!(finding.level, level, "{ahead}: {finding:?}");
        }
        assert!(judge("x:1", -86_400).what.contains("24 hours behind"), "{:?}", judge("x:1", -86_400));
    }
}
