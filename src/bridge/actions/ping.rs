//! `<own topics>/ping`: the self-test. Whoever publishes there and gets the answer has proved the whole way through broker and bridge.

use serde::Serialize;

use super::{Handler, reply::Reply};
use crate::{
    bus::{BoxFuture, Delivery},
    sense::tasks::{answer::now, request::Redelivery},
};

/// How much of the message comes back, characters.
const ECHO: usize = 256;

/// Answers pings.
pub(super) struct Ping;

#[derive(Serialize)]
struct Pong {
    status: &'static str,
    version: &'static str,
    /// The beginning of the message, so that clients without Correlation Data can tell their answers apart.
    echo: String,
    at: String,
}

impl Handler for Ping {
    fn name(&self) -> &'static str {
        "ping"
    }

    fn handle(&self, delivery: Delivery, _: Option<Redelivery>, reply: Reply) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            // A ping an external broker kept is nobody's question.
            if delivery.retained {
                return;
            }
            let echo = String::from_utf8_lossy(&delivery.payload).chars().take(ECHO).collect();
            let pong = Pong { status: "ok", version: env!("CARGO_PKG_VERSION"), echo, at: now() };
            // Four texts: writing them as JSON cannot fail.
            reply.send(serde_json::to_string(&pong).unwrap_or_default()).await;
        })
    }
}
