//! An execution as it is written on the wire: on its topic and in REST.
//!
//! `{"executionId","taskId","taskName","status","qlikStatus","startedBy":{"door","requestedBy"},"at","end"}`, all of them always present, `null`
//! where there is nothing to say.

use serde::Serialize;

use super::{
    answer::now,
    end::{ExecutionEnd, verdict},
    follow::Execution,
    request::StartStatus,
};
use crate::names::{ExecutionId, TaskId};

/// An execution, in the order of the wire.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionReport<'a> {
    execution_id: ExecutionId,
    task_id: TaskId,
    task_name: Option<&'a str>,
    status: StartStatus,
    qlik_status: Option<&'static str>,
    started_by: Option<StartedBy<'a>>,
    at: String,
    end: Option<&'a ExecutionEnd>,
}

/// By which door it was started and by whom; only of executions this program started.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct StartedBy<'a> {
    door: &'static str,
    requested_by: &'a str,
}

impl Execution {
    /// The word of answers for its state: `started` while it runs, then `finished`, `failed` or `aborted`; `unknown` where QRS has no trace of
    /// it any more.
    pub fn word(&self) -> StartStatus {
        match (self.over, self.status.filter(|_| self.end.is_some())) {
            (false, _) => StartStatus::Started,
            (true, Some(status)) => verdict(status),
            (true, None) => StartStatus::Unknown,
        }
    }

    /// As it is written on the wire, now.
    pub fn report(&self) -> ExecutionReport<'_> {
        let started_by = self.started_by.as_ref();
        ExecutionReport {
            execution_id: self.id,
            task_id: self.task,
            task_name: self.task_name.as_deref(),
            status: self.word(),
            qlik_status: self.status.map(|status| status.as_str()),
            started_by: started_by.map(|(door, requested_by)| StartedBy { door, requested_by }),
            at: now(),
            end: self.end.as_ref(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sense::qrs::ExecutionStatus;

    #[test]
    fn states_have_the_words_of_answers() {
        let end = || ExecutionEnd {
            status: "x".into(),
            started_at: None,
            stopped_at: None,
            duration_ms: None,
            attempts: 1,
            node: None,
            log_tail: Vec::new(),
        };
        let word = |status, over, ended: bool| {
            let (id, task) = (ExecutionId::ZERO, TaskId::ZERO);
            let end = ended.then(end);
            Execution { id, task, task_name: None, started_by: None, status, end, over }.word()
        };
        assert_eq!(word(None, false, false), StartStatus::Started);
        assert_eq!(word(Some(ExecutionStatus::FinishedFail), false, false), StartStatus::Started, "a retry may come");
        assert_eq!(word(Some(ExecutionStatus::FinishedSuccess), true, true), StartStatus::Finished);
        assert_eq!(word(Some(ExecutionStatus::Aborted), true, true), StartStatus::Aborted);
        assert_eq!(word(Some(ExecutionStatus::Error), true, true), StartStatus::Failed);
        assert_eq!(word(Some(ExecutionStatus::Started), true, false), StartStatus::Unknown);
    }
}
