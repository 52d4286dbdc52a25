//! What a handler gets and gives: an HTTP request already read, an answer ready to send. No warp type passes this line.

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;

use super::{console::Visit, state::State};
use crate::{bus::Bus, config::tokens::Token};

/// A request as handlers see it. The body is complete and within the limit; the method is after `X-HTTP-Method-Override`.
#[derive(Debug, Clone)]
pub struct Request {
    /// Method, upper case.
    pub method: String,
    /// Path, percent-encoded as sent, without a trailing slash or doubled slashes.
    pub path: String,
    /// Query, raw, without `?`.
    pub query: String,
    /// Headers; names in lower case, in order.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: Bytes,
    /// Who called.
    pub peer: SocketAddr,
    /// The token that was shown, if that is what let the request in.
    pub token: Option<Arc<Token>>,
    /// What is known of a request of the web console's page; `None`: it is no such request.
    pub visit: Option<Visit>,
    /// The connection's own way to the broker; `None`: that of all.
    pub lane: Option<Bus>,
}

impl Request {
    /// Where messages of this request go.
    pub fn bus<'a>(&'a self, state: &'a State) -> &'a Bus {
        self.lane.as_ref().unwrap_or(&state.setup.bus)
    }

    /// Who asks, as answers, limits and the audit log tell it: who is logged in to the console, the token, or the address, without the
    /// port, which is another one for each connection.
    pub fn requester(&self) -> String {
        match (self.visitor_name(), &self.token) {
            (Some(visitor), _) => visitor.to_string(),
            (None, Some(token)) => token.name.to_string(),
            (None, None) => self.address(),
        }
    }

    /// Where the request came from.
    pub fn address(&self) -> String {
        self.peer.ip().to_canonical().to_string()
    }

    /// First value of a header; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The user who is logged in to the console.
    pub fn visitor_name(&self) -> Option<Arc<str>> {
        self.visit.as_ref()?.visitor.as_ref()?.name()
    }

    /// Whether who is logged in to the console may not publish on a topic. Whoever came another way may, as far as the doors let them.
    pub fn may_not_publish(&self, topic: &str) -> bool {
        let visitor = self.visit.as_ref().and_then(|visit| visit.visitor.as_ref());
        visitor.is_some_and(|visitor| !visitor.may_publish(topic))
    }
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// `Content-Type`; `None`: no body.
    pub content_type: Option<&'static str>,
    /// Further headers.
    pub headers: Vec<(&'static str, String)>,
    /// Body.
    pub body: Bytes,
}

/// Content type of every JSON answer.
pub const JSON: &str = "application/json; charset=utf-8";

impl Answer {
    /// A JSON answer from text that is JSON already.
    pub fn json(status: u16, body: impl Into<Bytes>) -> Self {
        Self { status, content_type: Some(JSON), headers: Vec::new(), body: body.into() }
    }

    /// An answer without a body.
    pub fn empty(status: u16) -> Self {
        Self { status, content_type: None, headers: Vec::new(), body: Bytes::new() }
    }

    /// With one more header.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
}
