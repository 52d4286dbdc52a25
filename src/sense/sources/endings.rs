//! Executions whose last known attempt failed: has the execution failed, or is it tried again?
//!
//! Between two attempts a failure looks final, and a session may be missing in one answer, so a failure is believed when two looks in a row found
//! no session and no later attempt. A state machine without a clock. Invariant: bounded; what does not fit is given back, not forgotten silently.

use std::collections::BTreeMap;

use crate::{
    names::ExecutionId,
    sense::{event::Origin, qrs::Attempt},
};

/// Executions in doubt at most.
const MOST: usize = 10_000;

/// One in doubt.
#[derive(Debug, Clone, Copy)]
struct Doubt {
    origin: Origin,
    /// The look before found it ended.
    looked_ended: bool,
}

/// All that are in doubt.
#[derive(Debug, Default)]
pub(super) struct Endings(BTreeMap<ExecutionId, Doubt>);

/// What a look brought about one.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// It ended; with its last attempt.
    Ended(Box<Attempt>, Origin),
    /// QRS knows nothing of it any more.
    Lost,
    /// Not yet known. Whether it looked ended this time.
    Open(bool),
}

impl Endings {
    /// Takes up an execution; `false`: there are too many.
    pub(super) fn doubt(&mut self, id: ExecutionId, origin: Origin) -> bool {
        let room = self.0.len() < MOST || self.0.contains_key(&id);
        if room {
            self.0.entry(id).or_insert(Doubt { origin, looked_ended: false });
        }
        room
    }

    /// The execution is told, or not to be told.
    pub(super) fn forget(&mut self, id: ExecutionId) {
        self.0.remove(&id);
    }

    /// Those in doubt.
    pub(super) fn all(&self) -> Vec<ExecutionId> {
        self.0.keys().copied().collect()
    }

    /// Judges one by what QRS says now: whether it has a session, and its attempts, oldest first. It stays in doubt until it is forgotten.
    pub(super) fn judge(&mut self, id: ExecutionId, has_session: bool, attempts: Vec<Attempt>) -> Verdict {
        let Some(doubt) = self.0.get_mut(&id) else { return Verdict::Open(false) };
        let last = attempts.into_iter().next_back();
        let looks_ended = !has_session && last.as_ref().is_none_or(|last| last.status.is_final());
        let before = std::mem::replace(&mut doubt.looked_ended, looks_ended);
        match last {
            _ if !looks_ended || !before => Verdict::Open(looks_ended),
            Some(last) => Verdict::Ended(Box::new(last), doubt.origin),
            None => Verdict::Lost,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::words::tests::attempt, *};
    use crate::sense::qrs::ExecutionStatus::{FinishedFail, FinishedSuccess, Retry};

    #[test]
    fn a_failure_is_believed_when_it_was_seen_twice() {
        let id = ExecutionId::from_u128(1);
        let mut endings = Endings::default();
        assert!(endings.doubt(id, Origin::Polling));
        let first = || attempt(1, 1, FinishedFail, 0);
        assert_eq!(endings.judge(id, true, vec![first()]), Verdict::Open(false), "it has a session");
        assert_eq!(endings.judge(id, false, vec![first()]), Verdict::Open(true));
        let retried = vec![first(), attempt(2, 1, Retry, 1)];
        assert_eq!(endings.judge(id, false, retried), Verdict::Open(false), "it is tried again");
        let well = || vec![first(), attempt(2, 1, FinishedSuccess, 2)];
        assert_eq!(endings.judge(id, false, well()), Verdict::Open(true));
        let ended = Verdict::Ended(Box::new(attempt(2, 1, FinishedSuccess, 2)), Origin::Polling);
        assert_eq!(endings.judge(id, false, well()), ended);
        endings.forget(id);
        assert!(endings.all().is_empty());
        assert_eq!(endings.judge(id, false, well()), Verdict::Open(false));
    }

    #[test]
    fn what_qrs_forgot_is_lost_and_there_is_a_bound() {
        let mut endings = Endings::default();
        for number in 0..MOST as u128 {
            assert!(endings.doubt(ExecutionId::from_u128(number), Origin::Notification));
        }
        assert!(!endings.doubt(ExecutionId::from_u128(MOST as u128), Origin::Notification));
        let id = ExecutionId::from_u128(5);
        assert!(endings.doubt(id, Origin::Polling), "known already");
        assert_eq!(endings.judge(id, false, Vec::new()), Verdict::Open(true));
        assert_eq!(endings.judge(id, false, Vec::new()), Verdict::Lost);
    }
}
