//! Stopping an execution on somebody's wish.
//!
//! QRS stops tasks, not executions; so it is asked only while the execution is the one under way. Who may not start a task may not stop it:
//! the filter and the list of the user hold as for a start. Invariant: the call is made once; the end of the execution comes later, to whoever follows it.

use super::{
    audit::Asker,
    follow::Execution,
    request::{StartOutcome, StartTarget},
    starter::Starter,
};
use crate::{
    names::ExecutionId,
    sense::qrs::{QrsError, TaskInfo},
};

/// Why an execution was not stopped.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum HaltError {
    /// QRS has no trace of it.
    #[error("Qlik Sense has no execution {0}, or hides it from the user of `configQRS`")]
    Unknown(ExecutionId),
    /// It runs no longer.
    #[error("the execution {0} does not run any more")]
    Over(ExecutionId),
    /// The filter, or the list of who asks, does not allow to start its task.
    #[error("the execution was not stopped: its task may not be started here, so it may not be stopped. {0}")]
    Denied(String),
    /// QRS could not be asked, or refused.
    #[error("{0}")]
    Qrs(#[from] QrsError),
}

impl HaltError {
    /// Stable word for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::Unknown(_) => "unknown_execution",
            Self::Over(_) => "not_running",
            Self::Denied(_) => "task_filter",
            Self::Qrs(error) if error.may_have_arrived() => "undecided",
            Self::Qrs(QrsError::Status { .. }) => "qrs_refused",
            Self::Qrs(_) => "qrs_unreachable",
        }
    }
}

impl Starter {
    /// Asks QRS to stop an execution and gives what is known of it; that it has ended comes later.
    ///
    /// # Errors
    /// If it does not run, may not be stopped, or QRS gives no usable answer.
    pub async fn halt(
        &self,
        id: ExecutionId,
        (door, requested_by, asker): (&'static str, &str, &Asker),
    ) -> Result<Execution, HaltError> {
        let found = self.follower().find(id).await.map_err(HaltError::from);
        let found = found.and_then(|found| found.ok_or(HaltError::Unknown(id)));
        let (execution, outcome) = match found {
            Err(error) => (None, Err(error)),
            Ok(found) => {
                let execution = found.borrow().clone();
                let outcome = self.stop_running(&execution, asker).await;
                (Some(execution), outcome)
            }
        };
        let task = execution.as_ref().map(|execution| (execution.task, execution.task_name.as_deref()));
        let why = outcome.as_ref().err().map(|error| (error.code(), error.to_string()));
        let refusal = why.as_ref().map(|(code, message)| (*code, message.as_str()));
        tracing::info!(door, requested_by, execution = %id, why = refusal.map(|(_, message)| message), "stop request");
        self.audit().stop((door, requested_by, asker), id, task, refusal);
        outcome?;
        execution.ok_or(HaltError::Unknown(id))
    }

    async fn stop_running(&self, execution: &Execution, asker: &Asker) -> Result<(), HaltError> {
        if execution.over {
            return Err(HaltError::Over(execution.id));
        }
        let target = StartTarget::Id(execution.task);
        if let Some(refusal) = self.work().rules.load().refusal(asker, &target)
            && !self.is_allowed_as_one_of_many(execution, asker).await?
        {
            return Err(HaltError::Denied(sentence(refusal)));
        }
        // QRS stops whatever of the task runs: that must be this execution, and no later one.
        let sessions = self.qrs().sessions_of(execution.task).await?;
        if !sessions.iter().any(|session| session.id == execution.id) {
            return Err(HaltError::Over(execution.id));
        }
        self.qrs().stop_task(execution.task).await?;
        self.follower().hint(execution.id);
        Ok(())
    }

    /// Whether the filter lets a tag or property of the task start it.
    async fn is_allowed_as_one_of_many(&self, execution: &Execution, asker: &Asker) -> Result<bool, QrsError> {
        let Some(TaskInfo { tags, custom_properties, .. }) = self.qrs().task_info(execution.task).await? else {
            return Ok(false);
        };
        let properties = custom_properties.into_iter().map(|(name, value)| StartTarget::CustomProperty { name, value });
        let rules = self.work().rules.load();
        let mut targets = tags.into_iter().map(StartTarget::Tag).chain(properties);
        Ok(targets.any(|target| rules.refusal(asker, &target).is_none()))
    }
}

fn sentence(refusal: StartOutcome) -> String {
    refusal.error.map(|error| error.message.replace("; nothing was started", "")).unwrap_or_default()
}
