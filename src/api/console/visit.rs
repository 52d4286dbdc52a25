//! Who a request of the console's page is: nobody yet, or who logged in.
//!
//! The cookie's name has the port in it, because a browser sends a cookie to every port of a machine.

use super::{Deed, HEADER, check_wire, error};
use crate::{
    api::{
        answer::Answer,
        doors::Caller,
        fault::{Fault, Kind},
        state::State,
    },
    console::sessions::Visitor,
    names::Secret,
};

/// A request of the console's page.
#[derive(Debug, Clone)]
pub struct Visit {
    /// Who is logged in.
    pub visitor: Option<Visitor>,
    /// The session's token, as it came.
    pub(super) token: Option<Secret>,
    /// The two ends of the connection.
    pub(super) caller: Caller,
}

/// The headers that tell.
#[derive(Debug, Clone, Copy)]
pub(in crate::api) struct Marks<'a> {
    /// [`HEADER`]
    pub(in crate::api) header: Option<&'a str>,
    /// `Cookie`
    pub(in crate::api) cookie: Option<&'a str>,
}

impl Visit {
    /// `None`: this is no request of the page, or there is no console.
    ///
    /// # Errors
    /// 403 for one that crossed a network unencrypted.
    pub(in crate::api) fn read(state: &State, caller: Caller, marks: Marks<'_>) -> Result<Option<Self>, Fault> {
        let Some(console) = state.setup.console.as_ref().filter(|_| marks.header.is_some()) else { return Ok(None) };
        check_wire(caller)?;
        let name = cookie_name(caller);
        let token = marks.cookie.and_then(|cookies| value(cookies, &name)).map(Secret::new);
        let visitor = console.sessions.visitor(token.as_ref().map(Secret::expose), is_here(caller));
        Ok(Some(Self { visitor, token, caller }))
    }

    /// Whether the visitor may do a deed. What is published where is judged later.
    ///
    /// # Errors
    /// The answer that refuses: 401 for nobody, 403 without the right.
    pub(in crate::api) fn check(&self, state: &State, deed: Deed) -> Result<(), Refusal> {
        let Some(visitor) = &self.visitor else { return Err(Refusal::Unknown(self.not_logged_in(state))) };
        let (is_allowed, what, right) = match deed {
            Deed::Console => (true, "", ""),
            Deed::Publish => (visitor.publishes(), "publish", "publish"),
            Deed::Start => (may_start(state, visitor), "start and stop tasks", "start"),
        };
        if is_allowed {
            return Ok(());
        }
        let name = visitor.name().unwrap_or_default();
        let message = format!("the user `{name}` may not {what}; it is the right \"{right}\" in broker.toml");
        Err(Refusal::Denied(Fault::new(Kind::Forbidden, message)))
    }

    /// Why nobody is logged in, and what to do.
    pub(super) fn not_logged_in(&self, state: &State) -> Answer {
        let sessions = state.setup.console.as_ref().map(|console| &console.sessions);
        let (has_users, has_members) =
            sessions.map_or((false, false), |sessions| (sessions.has_users(), sessions.has_members()));
        let (code, message) = match (has_users, has_members, &self.token) {
            (true, true, Some(_)) => ("session_ended", "you were logged out; log in again"),
            (true, true, None) => ("log_in", "log in with a user of broker.toml that has the right \"console\""),
            (true, false, _) => (
                "no_member",
                "no user may use the console yet: add \"console\" to the `rights` of a [[users]] entry in broker.toml (it takes effect within seconds)",
            ),
            (false, _, _) => (
                "no_users",
                "there are no users yet, so the console opens only on the machine itself; add a [[users]] entry with the right \"console\" to broker.toml",
            ),
        };
        error(401, code, message)
    }
}

/// Why a visitor is refused.
pub(in crate::api) enum Refusal {
    /// Nobody is logged in.
    Unknown(Answer),
    /// The right is missing.
    Denied(Fault),
}

impl Refusal {
    /// The answer that tells it.
    pub(in crate::api) fn into_answer(self) -> Result<Answer, Fault> {
        match self {
            Self::Unknown(answer) => Ok(answer),
            Self::Denied(fault) => Err(fault),
        }
    }
}

/// Whether tasks may be started: what the rules say of the first start topic.
pub(super) fn may_start(state: &State, visitor: &Visitor) -> bool {
    state.setup.start_topics.first().is_none_or(|topic| visitor.may_publish(topic.as_str()))
}

/// Whether a caller sits at this machine.
fn is_here(caller: Caller) -> bool {
    let is_loopback = |address: std::net::SocketAddr| address.ip().to_canonical().is_loopback();
    is_loopback(caller.peer) && is_loopback(caller.local)
}

pub(super) fn cookie_name(caller: Caller) -> String {
    format!("sense_butler_console_{}", caller.local.port())
}

/// The value of a cookie in a `Cookie` header (RFC 6265, section 4.2.1).
fn value<'a>(cookies: &'a str, name: &str) -> Option<&'a str> {
    cookies.split(';').find_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name).then_some(value)
    })
}

/// The header's name, for messages of this room.
pub(in crate::api) fn missing() -> Fault {
    Fault::new(Kind::Missing, format!("the header `{HEADER}: 1` is missing; only the console's own page comes here"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cookies() {
        for (cookies, expected) in [
            ("a=1", Some("1")),
            ("b=2; a=1", Some("1")),
            ("b=2;a=1=2", Some("1=2")),
            ("aa=1; ba=2", None),
            ("a", None),
            ("", None),
        ] {
            assert_eq!(value(cookies, "a"), expected, "{cookies}");
        }
    }

    #[test]
    fn only_both_ends_on_this_machine_are_here() {
        let caller =
            |peer: &str, local: &str| Caller { peer: peer.parse().unwrap(), local: local.parse().unwrap(), tls: true };
        assert!(
            is_here(caller("127.0.0.1:1", "127.0.0.1:8080")) && is_here(caller("[::ffff:127.0.0.1]:1", "[::1]:8080"))
        );
        assert!(!is_here(caller("10.0.0.7:1", "10.0.0.1:8080")) && !is_here(caller("127.0.0.1:1", "10.0.0.1:8080")));
        assert_eq!(cookie_name(caller("127.0.0.1:1", "127.0.0.1:8080")), "sense_butler_console_8080");
    }
}
