//! States of an execution, with the numbers and names of the repository.

/// State of an execution (`status` of an execution result).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// 1: asked for.
    Triggered,
    /// 2: runs.
    Started,
    /// 3: waits for a slot.
    Queued,
    /// 4: somebody wants it stopped.
    AbortInitiated,
    /// 5: is being stopped.
    Aborting,
    /// 6: was stopped.
    Aborted,
    /// 7: succeeded.
    FinishedSuccess,
    /// 8: failed.
    FinishedFail,
    /// 9: was left out.
    Skipped,
    /// 10: failed, will be tried again.
    Retry,
    /// 11: could not be run.
    Error,
    /// 12: was lost when the scheduler was started anew.
    Reset,
    /// 13: a distribute task waits.
    DistributionQueue,
    /// 14: a distribute task runs.
    DistributionRunning,
}

/// Every state of the repository, also those a simulated execution never takes: filters may name them all.
pub const STATUS_NAMES: &[(&str, i64)] = &[
    ("NeverStarted", 0),
    ("Triggered", 1),
    ("Started", 2),
    ("Queued", 3),
    ("AbortInitiated", 4),
    ("Aborting", 5),
    ("Aborted", 6),
    ("FinishedSuccess", 7),
    ("FinishedFail", 8),
    ("Skipped", 9),
    ("Retry", 10),
    ("Error", 11),
    ("Reset", 12),
    ("DistributionQueue", 13),
    ("DistributionRunning", 14),
];

impl Status {
    /// The number in JSON.
    pub fn number(self) -> i64 {
        STATUS_NAMES.iter().find(|(name, _)| *name == self.name()).map_or(0, |(_, number)| *number)
    }

    /// The name in filters and messages.
    pub fn name(self) -> &'static str {
        match self {
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
        }
    }
}
