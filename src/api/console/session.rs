//! `GET`, `POST`, `DELETE /console/session`: who is logged in and what they may do; log in; log out.

use serde::Deserialize;
use serde_json::json;

use super::{
    console, error,
    visit::{Visit, cookie_name, may_start, missing},
};
use crate::{
    api::{
        answer::{Answer, Request},
        doors::Caller,
        fault::{Fault, Kind},
        state::State,
    },
    bus::desk::LoginError,
    console::sessions::{EntryError, LONGEST, Visitor},
    names::Secret,
};

/// Longest user name and password that are looked at, bytes.
pub(super) const LONGEST_WORD: usize = 1_024;

/// What is sent to log in. It has no `Debug`: one field is a password.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    user: String,
    password: String,
}

/// # Errors
/// 400 for a request that is none of the page's, or no form.
pub(in crate::api) async fn session(state: &State, request: &Request) -> Result<Answer, Fault> {
    let visit = request.visit.as_ref().ok_or_else(missing)?;
    match request.method.as_str() {
        "POST" => log_in(state, request, visit).await,
        "DELETE" => log_out(state, visit),
        _ => Ok(match &visit.visitor {
            Some(visitor) => known(state, visitor, visit.caller),
            None => visit.not_logged_in(state),
        }),
    }
}

async fn log_in(state: &State, request: &Request, visit: &Visit) -> Result<Answer, Fault> {
    let sessions = &console(state)?.sessions;
    if !sessions.has_members() {
        return Ok(visit.not_logged_in(state));
    }
    let form: Form = serde_json::from_slice(&request.body)
        .map_err(|_| Fault::new(Kind::Content, r#"the body must be {"user":"...","password":"..."}"#))?;
    if form.user.len() > LONGEST_WORD || form.password.len() > LONGEST_WORD {
        return Err(Fault::new(Kind::Value, format!("user and password may have {LONGEST_WORD} bytes each")));
    }
    let peer = request.peer.ip().to_canonical();
    match sessions.log_in(&form.user, &Secret::new(form.password), peer).await {
        Ok(token) => {
            tracing::info!(%peer, user = form.user, "somebody logged in to the console");
            Ok(Answer::empty(204).with("set-cookie", cookie(visit.caller, token.expose(), LONGEST.as_secs())))
        }
        Err(why) => {
            // What was typed as a user name may be a password.
            tracing::warn!(
                code = "console_login_refused",
                %peer,
                why = why.word(),
                "a log-in to the console was refused: {why}"
            );
            Ok(error(status(why), why.word(), &why.to_string()))
        }
    }
}

const fn status(why: EntryError) -> u16 {
    match why {
        EntryError::Login(LoginError::Wrong) => 401,
        EntryError::Login(LoginError::NoRight) => 403,
        EntryError::Login(LoginError::TooManyFailures) => 429,
        EntryError::Login(LoginError::Busy) | EntryError::NoRandom => 503,
    }
}

fn log_out(state: &State, visit: &Visit) -> Result<Answer, Fault> {
    if let Some(token) = &visit.token {
        console(state)?.sessions.log_out(token.expose());
    }
    Ok(Answer::empty(204).with("set-cookie", cookie(visit.caller, "", 0)))
}

/// Scripts cannot read it, other sites' pages do not send it, and over TLS it never leaves TLS.
fn cookie(caller: Caller, token: &str, seconds: u64) -> String {
    let secure = if caller.tls { "; Secure" } else { "" };
    format!("{}={token}; Path=/; HttpOnly; SameSite=Strict; Max-Age={seconds}{secure}", cookie_name(caller))
}

/// What the page needs to know.
fn known(state: &State, visitor: &Visitor, caller: Caller) -> Answer {
    let setup = &state.setup;
    let on = &setup.rest.endpoints;
    let console = setup.console.as_ref();
    let start = may_start(state, visitor);
    let body = json!({
        "user": visitor.name().as_deref(),
        "may": {
            "publish": on.mqtt_publish && visitor.publishes(),
            "retain": setup.rest_qos_retain,
            "seeTasks": on.tasks_read,
            "start": on.tasks_start && start,
            "stop": on.tasks_stop && start,
        },
        "version": env!("CARGO_PKG_VERSION"),
        "broker": setup.broker,
        "embedded": setup.desk.is_some(),
        "live": console.is_some_and(|console| console.live.is_here()),
        "ownTopics": console.map(|console| console.own_topics.as_str()),
        "encrypted": caller.tls,
    });
    Answer::json(200, body.to_string()).with("cache-control", "no-store")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cookie_is_kept_from_scripts_other_sites_and_plain_connections() {
        let caller = |tls| Caller { peer: ([10, 0, 0, 7], 1).into(), local: ([10, 0, 0, 1], 8443).into(), tls };
        let plain = "sense_butler_console_8443=T; Path=/; HttpOnly; SameSite=Strict; Max-Age=60";
        assert_eq!(cookie(caller(false), "T", 60), plain);
        assert_eq!(cookie(caller(true), "T", 60), format!("{plain}; Secure"));
    }
}
