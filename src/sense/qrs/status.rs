//! States of an execution, by QRS's numbers and names (`ReloadTaskStatus` of `/qrs/about/api/enums`).
//!
//! Invariant: every number has a value here and comes out as it went in; QRS versions know different ones.

/// `status` of an execution result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ExecutionStatus {
    /// 0
    NeverStarted,
    /// 1: asked for.
    Triggered,
    /// 2: runs.
    Started,
    /// 3: waits for a scheduler with room.
    Queued,
    /// 4: somebody wants it stopped.
    AbortInitiated,
    /// 5: is being stopped.
    Aborting,
    /// 6: was stopped.
    Aborted,
    /// 7
    FinishedSuccess,
    /// 8
    FinishedFail,
    /// 9: a policy of Sense left it out.
    Skipped,
    /// 10: failed, and is tried again.
    Retry,
    /// 11
    Error,
    /// 12: the scheduler was restarted.
    Reset,
    /// 13: a distribution waits.
    DistributionQueue,
    /// 14: a distribution runs.
    DistributionRunning,
    /// A number this program does not know.
    Other(i64),
}

/// All states with their numbers.
const ALL: [(i64, ExecutionStatus); 15] = [
    (0, ExecutionStatus::NeverStarted),
    (1, ExecutionStatus::Triggered),
    (2, ExecutionStatus::Started),
    (3, ExecutionStatus::Queued),
    (4, ExecutionStatus::AbortInitiated),
    (5, ExecutionStatus::Aborting),
    (6, ExecutionStatus::Aborted),
    (7, ExecutionStatus::FinishedSuccess),
    (8, ExecutionStatus::FinishedFail),
    (9, ExecutionStatus::Skipped),
    (10, ExecutionStatus::Retry),
    (11, ExecutionStatus::Error),
    (12, ExecutionStatus::Reset),
    (13, ExecutionStatus::DistributionQueue),
    (14, ExecutionStatus::DistributionRunning),
];

impl ExecutionStatus {
    /// The state with this number.
    pub fn from_number(number: i64) -> Self {
        ALL.iter().find(|(known, _)| *known == number).map_or(Self::Other(number), |(_, status)| *status)
    }

    /// QRS's number.
    pub fn number(self) -> i64 {
        match self {
            Self::Other(number) => number,
            known => ALL.iter().find(|(_, status)| *status == known).map_or(0, |(number, _)| *number),
        }
    }

    /// Whether nothing follows. A state this program does not know is not final: whoever follows goes on until the session ends.
    pub fn is_final(self) -> bool {
        matches!(
            self,
            Self::Aborted | Self::FinishedSuccess | Self::FinishedFail | Self::Skipped | Self::Error | Self::Reset
        )
    }

    /// QRS's word, e.g. `FinishedSuccess`; `Other` for a number this program does not know.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NeverStarted => "NeverStarted",
            Self::Triggered => "Triggered",
            Self::Started => "Started",
            Self::Queued => "Queued",
            Self::AbortInitiated => "AbortInitiated",
            Self::Aborting => "Aborting",
            Self::Aborted => "Aborted",
            Self::FinishedSuccess => "FinishedSuccess",
            Self::FinishedFail => "FinishedFail",
            Self::Skipped => "Skipped",
            Self::Retry => "Retry",
            Self::Error => "Error",
            Self::Reset => "Reset",
            Self::DistributionQueue => "DistributionQueue",
            Self::DistributionRunning => "DistributionRunning",
            Self::Other(_) => "Other",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the enumerations of QRS list them.
    const WORDS: &str = "0 NeverStarted, 1 Triggered, 2 Started, 3 Queued, 4 AbortInitiated, 5 Aborting, 6 Aborted, 7 FinishedSuccess, \
        8 FinishedFail, 9 Skipped, 10 Retry, 11 Error, 12 Reset, 13 DistributionQueue, 14 DistributionRunning";

    #[test]
    fn numbers_and_words_are_those_of_qrs() {
        let mut seen = 0;
        for entry in WORDS.split(", ") {
            let (number, word) = entry.split_once(' ').unwrap();
            let status = ExecutionStatus::from_number(number.parse().unwrap());
            assert_eq!((status.number().to_string().as_str(), status.as_str()), (number, word));
            seen += 1;
        }
        assert_eq!(seen, 15);
        let strange = ExecutionStatus::from_number(99);
        assert_eq!((strange, strange.number(), strange.as_str()), (ExecutionStatus::Other(99), 99, "Other"));
    }

    #[test]
    fn six_states_are_final() {
        let last: Vec<i64> = (-1..20).filter(|number| ExecutionStatus::from_number(*number).is_final()).collect();
        assert_eq!(last, [6, 7, 8, 9, 11, 12]);
    }
}
