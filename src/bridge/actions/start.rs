//! The start topic: a message in, one answer per task out.
//!
//! Invariants: every message gets an answer, also one that cannot be read; a retained message of the past starts nothing.

use std::{borrow::Cow, net::IpAddr};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Handler, reply::Reply};
use crate::{
    bus::{BoxFuture, Delivery, Door, Origin},
    names::ClientId,
    sense::tasks::{
        Resumed, Starter, Ticket,
        answer::Asked,
        audit::Asker,
        request::{Redelivery, StartOutcome, StartRequest, StartStatus},
        wish::{self, Problem, Wish},
    },
};

/// What a message asks for, or why it asks for nothing.
pub(super) type Asking = Result<Wish, (StartStatus, Problem)>;

/// Starts what messages ask for.
pub(super) struct StartTask {
    starter: Starter,
    /// Requests whose answers are still to come; the starter bounds them.
    answers: TaskTracker,
    /// The program stops: who still waits for an answer gets it when it is up again.
    stop: CancellationToken,
}

/// Answers word by word, until everything was said.
async fn tell(asked: Asked, mut ticket: Ticket, reply: Reply) {
    while let Some(word) = ticket.next().await {
        reply.send(asked.answer(&word.outcome, ticket.duplicate).to_json()).await;
    }
}

impl StartTask {
    pub(super) fn new(starter: Starter, answers: TaskTracker, stop: CancellationToken) -> Self {
        Self { starter, answers, stop }
    }

    /// Answers a message that asks for this, where it may ask at all.
    pub(super) async fn answer(&self, delivery: &Delivery, kept: Option<Redelivery>, reply: Reply, wish: Asking) {
        let (door, requested_by) = (delivery.origin.door.as_str(), requester(&delivery.origin));
        let wish = match permitted(delivery, wish) {
            Ok(wish) => wish,
            Err((status, Problem { code, message, transaction })) => {
                tracing::info!(door, requested_by, status = status.as_str(), why = message, "start request refused");
                let outcome = StartOutcome::failed(status, code, message);
                let who = asker(&delivery.origin);
                self.starter.audit().refused((door, &requested_by, &who), transaction.as_ref(), &outcome);
                return reply.send(Asked { transaction, door, requested_by }.answer(&outcome, false).to_json()).await;
            }
        };
        let request = StartRequest {
            asker: asker(&delivery.origin),
            redelivery: redelivery(delivery),
            kept,
            return_address: Some(reply.address()),
            ..wish.into_request(door, requested_by, self.starter.deadline())
        };
        let asked = Asked::of(&request);
        let ticket = self.starter.submit(request).await;
        self.tell(asked, ticket, reply);
    }

    /// The answers may take as long as the task runs; the message is dealt with.
    fn tell(&self, asked: Asked, ticket: Ticket, reply: Reply) {
        let stop = self.stop.clone();
        self.answers.spawn(async move { stop.run_until_cancelled(tell(asked, ticket, reply)).await });
    }

    /// Answers what an earlier life of the program was asked.
    pub(super) fn resume(&self, resumed: Resumed, reply: Reply) {
        self.tell(Asked::of(&resumed.request), resumed.ticket, reply);
    }
}

impl Handler for StartTask {
    fn name(&self) -> &'static str {
        "start_task"
    }

    fn handle(&self, delivery: Delivery, kept: Option<Redelivery>, reply: Reply) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let wish = wish::parse(&delivery.payload).map_err(|problem| (StartStatus::Invalid, problem));
            self.answer(&delivery, kept, reply, wish).await;
        })
    }
}

/// What a message asks for, or why it starts nothing.
fn permitted(delivery: &Delivery, wish: Asking) -> Asking {
    let Some((code, why)) = denied(delivery) else { return wish };
    let transaction = wish.map_or_else(|(_, problem)| problem.transaction, |wish| wish.transaction);
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

/// The same in parts. The REST door has no users: its user is an address.
fn asker(origin: &Origin) -> Asker {
    let user = origin.user.as_deref().map(str::to_owned);
    let client = origin.client.as_ref().map(ToString::to_string);
    match origin.door {
        // Who shows a token is named by it, and no such name is an address.
        Door::Rest if user.as_deref().is_some_and(|user| user.parse::<IpAddr>().is_ok()) => {
            Asker { user: None, client, address: user }
        }
        _ => Asker { user, client, address: None },
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
