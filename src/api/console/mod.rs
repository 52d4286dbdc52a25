//! `/console`: the web console over HTTP, and what a log-in there opens.
//!
//! The page is served to everybody, and holds nothing. Its requests carry the header [`HEADER`]; only such a request is looked at for a session's
//! cookie ([`visit`]), so that no other page and no script of before is judged otherwise than it was. Invariants: nothing of the console crosses
//! a network unencrypted; whoever is logged in is judged by their own rights, also on this machine; a session opens the resources that name
//! a [`Deed`] and no others.

mod session;
mod stream;
mod trial;
pub(super) mod visit;

pub use self::visit::Visit;

pub(super) use self::{
    session::session,
    stream::{Pieces, stream},
    trial::trial,
};

use super::{
    answer::{Answer, Request},
    doors::Caller,
    fault::{Fault, Kind, request_id},
    state::State,
};
use crate::console::{
    Console,
    page::{self, POLICY},
};

/// Where the log-in is.
pub(super) const SESSION: &str = "/console/session";
/// Where the live stream is.
pub(super) const LIVE: &str = "/console/live";
/// Where a test event is sent.
pub(super) const TRIAL: &str = "/console/test-event";
/// What a request of the page carries. Another page cannot add it without being asked for by a preflight, which is not answered so.
pub(super) const HEADER: &str = "x-sense-butler-console";

/// Bytes of the form that logs in: two words of 1,024 bytes, each of them written as an escape.
pub(super) const LARGEST_FORM: usize = 16 << 10;

/// What somebody who is logged in must be allowed for a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deed {
    /// Looking, and disconnecting clients: the right `console`, which everybody who is logged in has.
    Console,
    /// Publishing anything; the topic is judged where it is known.
    Publish,
    /// Starting and stopping tasks.
    Start,
}

/// Whether a path is one of the page's files.
pub(super) fn is_page(path: &str) -> bool {
    page::find(path).is_some()
}

/// The console, which the router found only because it is there.
fn console(state: &State) -> Result<&Console, Fault> {
    let off = || Fault::new(Kind::NotFound, "the console is switched off: restServerEndpointsEnable.console");
    state.setup.console.as_deref().ok_or_else(off)
}

/// Keeps the console from networks that everybody on the way can read.
///
/// # Errors
/// 403, with what to do.
pub(super) fn check_wire(caller: Caller) -> Result<(), Fault> {
    if caller.tls || caller.peer.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    let message = "the console is not shown to other machines without encryption, because a password would cross the network readable; \
                   open it on the machine itself, or give the REST server a certificate (restServerConfig.tls)";
    Err(Fault::new(Kind::Forbidden, message))
}

/// A file of the page.
///
/// # Errors
/// 404.
pub(super) fn page(request: &Request) -> Result<Answer, Fault> {
    page::find(&request.path).map(served).ok_or_else(|| Fault::new(Kind::NotFound, "the console has no such file"))
}

/// A file of a page of ours, with everything that keeps a browser from doing more with it than it should.
pub(super) fn served(file: page::File) -> Answer {
    let answer = Answer { content_type: Some(file.content_type), ..Answer::json(200, file.text) };
    answer
        .with("content-security-policy", POLICY)
        .with("x-content-type-options", "nosniff")
        .with("x-frame-options", "DENY")
        .with("referrer-policy", "no-referrer")
        .with("cross-origin-opener-policy", "same-origin")
        .with("cross-origin-resource-policy", "same-origin")
        .with("permissions-policy", "camera=(), geolocation=(), microphone=()")
        .with("cache-control", "no-cache")
}

/// An error with a code of the console's own.
fn error(status: u16, code: &str, message: &str) -> Answer {
    let body = serde_json::json!({"error": {"code": code, "message": message, "request_id": request_id()}});
    let answer = Answer::json(status, body.to_string()).with("cache-control", "no-store");
    match status {
        429 => answer.with("retry-after", "60"),
        503 => answer.with("retry-after", "1"),
        _ => answer,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_machines_need_encryption() {
        let mut ran = 0;
        for (peer, tls, passes) in [
            ("127.0.0.1:1", false, true),
            ("[::1]:1", false, true),
            ("[::ffff:127.0.0.1]:1", false, true),
            ("10.0.0.7:1", false, false),
            ("[fe80::1]:1", false, false),
            ("10.0.0.7:1", true, true),
        ] {
            let caller = Caller { peer: peer.parse().unwrap(), local: ([10, 0, 0, 1], 8080).into(), tls };
            assert_eq!(check_wire(caller).is_ok(), passes, "{peer} {tls}");
            ran += 1;
        }
        assert_eq!(ran, 6);
    }
}
