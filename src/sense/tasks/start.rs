//! Starting one task: whose turn it is, whether it runs already, the call.
//!
//! Invariants: two requests for one task are decided one after the other, so the second one finds the first one's execution; the request's
//! parameters are stored before the call, and no other request's; the call is written down before it is made and made once; it is written down
//! when its turn has come, so that of all that wait when the program is killed only a few have to be looked for.

use std::time::Duration;

use tokio_util::task::task_tracker::TaskTrackerToken;

use super::{
    journal::Step,
    lines::Waiting,
    request::{OnRunning, StartOutcome, StartStatus},
    settle::{self, Before},
    wall_ms,
    words::{expired, may_pass, not_kept, not_started, not_stored, skipped, started, undecided},
    work::{Order, PAUSES, Work},
};
use crate::{
    names::ExecutionId,
    sense::qrs::{QrsError, StartReply, model::Task},
};

/// How a try went.
enum Try {
    /// This is the outcome.
    Decided(StartOutcome),
    /// The task runs; try again when it does not.
    Runs(Option<ExecutionId>),
    /// QRS could not be asked.
    Away(QrsError),
}

impl Work {
    /// Starts a task, waiting for QRS or for its present execution as long as the request allows. `accepted` is told why it waits. A stop
    /// of the program waits for what comes with the outcome.
    pub(super) async fn start(
        &self,
        order: &Order,
        task: &Task,
        mut call: TaskTrackerToken,
        accepted: &mut (dyn FnMut(StartOutcome) + Send),
    ) -> (StartOutcome, TaskTrackerToken) {
        let (mut pause, mut place): (Duration, Option<Waiting>) = (PAUSES.0, None);
        loop {
            let why = match self.attempt(order, task).await {
                Try::Decided(outcome) => return (outcome, call),
                Try::Runs(execution) if order.request.on_running != OnRunning::Queue || !order.waits() => {
                    return (skipped(execution, "running", "the task runs already"), call);
                }
                Try::Runs(execution) => {
                    if place.is_none() {
                        place = self.lines.wait(task.id);
                    }
                    if place.is_none() {
                        let why = "the task runs, and another request waits for its end already";
                        return (skipped(execution, "already_queued", why), call);
                    }
                    let why = "the task runs already; the request waits for its end".to_owned();
                    accepted(StartOutcome {
                        execution_id: execution,
                        ..StartOutcome::failed(StartStatus::Accepted, "queued", why.clone())
                    });
                    pause = PAUSES.0;
                    why
                }
                Try::Away(error) if !order.waits() => return (not_started(&error), call),
                Try::Away(error) => {
                    accepted(StartOutcome::failed(
                        StartStatus::Accepted,
                        "qrs_unreachable",
                        format!("the request waits: {error}"),
                    ));
                    error.to_string()
                }
            };
            drop(call);
            let in_time = order.pause(&mut pause).await;
            call = self.call().await;
            if !in_time {
                return (expired(&why), call);
            }
        }
    }

    /// What a stop of the program waits for. Once it stops, nothing begins any more: requests rest in the journal.
    pub(super) async fn call(&self) -> TaskTrackerToken {
        if self.calls.is_closed() {
            std::future::pending::<()>().await;
        }
        self.calls.token()
    }

    async fn attempt(&self, order: &Order, task: &Task) -> Try {
        let line = self.lines.of(task.id);
        let _alone = line.lock().await;
        if order.is_late() {
            return Try::Decided(expired("the program was not running in time"));
        }
        let (before, app) = match Before::ask(&self.qrs, task.id).await {
            Ok(known) => known,
            Err(error) if may_pass(&error) => return Try::Away(error),
            Err(error) => return Try::Decided(not_started(&error)),
        };
        if let Some(execution) = before.running().filter(|_| order.request.on_running != OnRunning::Start) {
            return Try::Runs(Some(execution));
        }
        // Not before it is this request's turn: one that waits must not find what a later one left.
        let parameters = order.request.parameters.as_ref();
        let rules = self.rules.load_full();
        if let Err(error) = rules.parameters.hand_over(task.id, app, parameters).await {
            return Try::Decided(not_stored(&error));
        }
        let turn = match self.qrs.turn_to_start().await {
            Ok(turn) => turn,
            Err(error) if may_pass(&error) => return Try::Away(error),
            Err(error) => return Try::Decided(not_started(&error)),
        };
        let step = Step::Calling { at: wall_ms(), before: before.clone() };
        if let Err(error) = self.journal.step(&order.record, task.id, &step).await {
            return Try::Decided(not_kept(&error));
        }
        match self.qrs.start_now(turn, task.id).await {
            Ok(StartReply::Started(execution)) => Try::Decided(started(execution)),
            Ok(StartReply::NotStarted) => self.why_not(order, task).await,
            Err(error) if error.may_have_arrived() => {
                let found = settle::find_out(&self.qrs, task.id, &before, self.patience).await;
                Try::Decided(found.map_or_else(|| undecided(&error.to_string()), |execution| started(Some(execution))))
            }
            Err(error) if may_pass(&error) => {
                // It certainly did not arrive; after a crash nobody needs to look for what became of it.
                if let Err(error) = self.journal.step_back(order.id, task.id).await {
                    return Try::Decided(not_kept(&error));
                }
                Try::Away(error)
            }
            Err(error) => Try::Decided(not_started(&error)),
        }
    }

    /// QRS did not start it: because it runs?
    async fn why_not(&self, order: &Order, task: &Task) -> Try {
        if let Ok(sessions) = self.qrs.sessions_of(task.id).await
            && let Some(session) = sessions.first()
            && order.request.on_running != OnRunning::Start
            && self.journal.step_back(order.id, task.id).await.is_ok()
        {
            return Try::Runs(Some(session.id));
        }
        Try::Decided(StartOutcome::failed(
            StartStatus::NotStarted,
            "not_started",
            "QRS did not start the task: it may be disabled, its app missing, no scheduler free, or it runs already",
        ))
    }
}
