//! `GET /console/live?filter=`: the live stream, as server-sent events.
//!
//! Each event is `{"messages":[...],"notShown":n}`; the event `end` says that the session is over. What is bounded and how: [`crate::console::live`].

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use tokio_util::sync::CancellationToken;
use warp::Stream;

use super::{console, error};
use crate::{
    api::{
        answer::{Answer, Request},
        broker_desk::Query,
        fault::{Fault, Kind},
        state::State,
    },
    console::live::{Flow, LiveError, Ties},
    names::TopicFilter,
};

/// The pieces of a stream as the body of an answer.
pub(in crate::api) struct Pieces(Flow);

impl Stream for Pieces {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_next(context).map(|piece| piece.map(Ok))
    }
}

/// The head of the answer, and its body, if there is one. `hang_up`: closes the connection.
///
/// # Errors
/// 400 for what is no filter.
pub(in crate::api) fn stream(
    state: &Arc<State>,
    request: &Request,
    hang_up: &CancellationToken,
) -> Result<(Answer, Option<Pieces>), Fault> {
    let query = Query::read(request, &["filter"])?;
    let filter = TopicFilter::new(query.get("filter").unwrap_or("#"));
    let filter = filter.map_err(|error| Fault::new(Kind::Value, format!("`filter` is no topic filter: {error}")))?;
    let token = request.visit.as_ref().and_then(|visit| visit.token.clone());
    let owned = Arc::clone(state);
    let is_open = move || {
        let console = owned.setup.console.as_ref();
        console.is_some_and(|console| console.sessions.is_open(token.as_ref().map(|token| token.expose())))
    };
    let ties = Ties { is_open: Box::new(is_open), stop: state.stopping.clone(), hang_up: hang_up.clone() };
    match console(state)?.live.open(filter, ties) {
        Ok(flow) => {
            let head = Answer { content_type: Some("text/event-stream"), ..Answer::empty(200) };
            // A proxy that gathers what it passes on would make the stream late.
            let head = head.with("cache-control", "no-store").with("x-accel-buffering", "no");
            Ok((head, Some(Pieces(flow))))
        }
        Err(why @ LiveError::Elsewhere) => Err(Fault::new(Kind::NotOffered, why.to_string())),
        Err(why @ LiveError::Full) => Ok((error(503, "too_many_streams", &why.to_string()), None)),
    }
}
