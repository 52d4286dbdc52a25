//! The start topic: a message in, one answer per task out.
//!
//! Answer (all members always present, `null` where there is nothing to say; `duplicate` only when true):
//! `{"status","taskId","taskName","executionId","transaction","error":{"code","message"},"door","requestedBy","at"}`.
//! Invariants: every message gets an answer, also one that cannot be read; a retained message of the past starts nothing.

use std::{borrow::Cow, time::Duration};

use serde::Serialize;
use serde_json::Value;
use time::OffsetDateTime;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Handler,
    payload::{self, Problem, Wish},
    reply::Reply,
};
use crate::{
    bus::{BoxFuture, Delivery, Origin},
    names::{ClientId, ExecutionId, TaskId},
    sense::tasks::{
        Resumed, Starter, Ticket,
        end::{ExecutionEnd, timestamp},
        request::{Redelivery, StartError, StartOutcome, StartRequest, StartStatus},
    },
};

/// Starts what messages ask for.
pub(super) struct StartTask {
    starter: Starter,
    /// How long a request waits that does not say.
    deadline: Duration,
    /// Requests whose answers are still to come; the starter bounds them.
    answers: TaskTracker,
    /// The program stops: who still waits for an answer gets it when it is up again.
    stop: CancellationToken,
}

/// The answer, in the order of the wire.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Answer<'a> {
    status: StartStatus,
    task_id: Option<TaskId>,
    task_name: Option<&'a str>,
    execution_id: Option<ExecutionId>,
    transaction: Option<&'a Value>,
    error: Option<&'a StartError>,
    door: &'static str,
    requested_by: &'a str,
    at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    execution: Option<&'a ExecutionEnd>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    duplicate: bool,
}

/// What all answers to one message have in common.
struct Context {
    transaction: Option<Value>,
    door: &'static str,
    requested_by: String,
}

impl Context {
    fn answer(&self, outcome: &StartOutcome, duplicate: bool) -> String {
        let answer = Answer {
            status: outcome.status,
            task_id: outcome.task_id,
            task_name: outcome.task_name.as_deref(),
            execution_id: outcome.execution_id,
            transaction: self.transaction.as_ref(),
            error: outcome.error.as_ref(),
            door: self.door,
            requested_by: &self.requested_by,
            at: now(),
            execution: outcome.end.as_deref(),
            duplicate,
        };
        // Texts, ids and a value that was JSON: writing them as JSON cannot fail.
        serde_json::to_string(&answer).unwrap_or_default()
    }

    /// Answers word by word, until everything was said.
    async fn tell(self, mut ticket: Ticket, reply: Reply) {
        while let Some(word) = ticket.next().await {
            reply.send(self.answer(&word.outcome, ticket.duplicate)).await;
        }
    }
}

impl StartTask {
    pub(super) fn new(starter: Starter, deadline: Duration, answers: TaskTracker, stop: CancellationToken) -> Self {
        Self { starter, deadline, answers, stop }
    }

    async fn answer(&self, delivery: &Delivery, kept: Option<Redelivery>, reply: Reply) {
        let (door, requested_by) = (delivery.origin.door.as_str(), requester(&delivery.origin));
        let wish = match read(delivery) {
            Ok(wish) => wish,
            Err((status, Problem { code, message, transaction })) => {
                tracing::info!(door, requested_by, status = status.as_str(), why = message, "start request refused");
                let outcome = StartOutcome::failed(status, code, message);
                return reply.send(Context { transaction, door, requested_by }.answer(&outcome, false)).await;
            }
        };
        let context = Context { transaction: wish.transaction.clone(), door, requested_by: requested_by.clone() };
        let Wish { targets, transaction, wait, on_running, deadline } = wish;
        let request = StartRequest {
            transaction,
            wait,
            on_running,
            redelivery: redelivery(delivery),
            kept,
            patience: deadline.unwrap_or(self.deadline),
            return_address: Some(reply.address()),
            ..StartRequest::new(targets, door, requested_by)
        };
        let ticket = self.starter.submit(request).await;
        self.tell(context, ticket, reply);
    }

    /// The answers may take as long as the task runs; the message is dealt with.
    fn tell(&self, context: Context, ticket: Ticket, reply: Reply) {
        let stop = self.stop.clone();
        self.answers.spawn(async move { stop.run_until_cancelled(context.tell(ticket, reply)).await });
    }

    /// Answers what an earlier life of the program was asked.
    pub(super) fn resume(&self, resumed: Resumed, reply: Reply) {
        let StartRequest { transaction, door, requested_by, .. } = resumed.request;
        self.tell(Context { transaction, door, requested_by }, resumed.ticket, reply);
    }
}

impl Handler for StartTask {
    fn name(&self) -> &'static str {
        "start_task"
    }

    fn handle(&self, delivery: Delivery, kept: Option<Redelivery>, reply: Reply) -> BoxFuture<'_, ()> {
        Box::pin(async move { self.answer(&delivery, kept, reply).await })
    }
}

/// What a message asks for, or why it starts nothing.
fn read(delivery: &Delivery) -> Result<Wish, (StartStatus, Problem)> {
    let wish = payload::parse(&delivery.payload);
    let Some((code, why)) = denied(delivery) else { return wish.map_err(|problem| (StartStatus::Invalid, problem)) };
    let transaction = wish.map_or_else(|problem| problem.transaction, |wish| wish.transaction);
    Err((StartStatus::Denied, Problem { code, message: why.into(), transaction }))
}

/// Why a message may start nothing at all, whatever it says.
fn denied(delivery: &Delivery) -> Option<(&'static str, &'static str)> {
    let retained = "this is a retained message of the past; it would start its task again at every reconnect. Publish start messages \
                    without the retain flag and clear this one with an empty retained message";
    let no_right = "the sender does not hold the right `start`; give it in broker.toml, `[[users]]`, `rights`";
    if delivery.retained {
        return Some(("retained", retained));
    }
    (!delivery.origin.may_start).then_some(("no_right", no_right))
}

/// Who asked: user and client id as far as they are known.
fn requester(origin: &Origin) -> String {
    match (&origin.user, &origin.client) {
        (Some(user), Some(client)) => format!("{user} ({client})"),
        (Some(user), None) => user.to_string(),
        (None, Some(client)) => client.to_string(),
        (None, None) => "unknown".into(),
    }
}

/// What the message would have in common with itself if its publisher sent it a second time: to the built-in broker; one elsewhere names
/// nobody, and its own packet ids stand for it.
fn redelivery(delivery: &Delivery) -> Option<Redelivery> {
    let (origin, packet) = (&delivery.origin, delivery.packet_id?);
    let client = origin.client.as_ref().map_or(origin.door.as_str(), ClientId::as_str);
    let content: Cow<'_, str> = String::from_utf8_lossy(&delivery.payload);
    Some(Redelivery { mark: format!("{client}\0{packet}\0{content}"), repeated: delivery.dup })
}

/// The present time, UTC, RFC 3339 with milliseconds.
pub(super) fn now() -> String {
    timestamp(OffsetDateTime::now_utc())
}
