//! `POST /api/v1/reload`: reads the configuration files again and takes what can be taken while the program runs.
//!
//! A right of its own: whoever is on this machine may, since the files are there; callers from `allowedSources` only where
//! `restServerEndpointsEnable.configReload` says so, because they may publish and start, not administrate; whoever shows a token, where it has the
//! right to manage. An invalid file changes nothing and is
//! answered with what is wrong.

use super::{
    answer::{Answer, Request},
    broker_desk::Query,
    fault::{Fault, Kind},
    state::State,
};

/// Where it is.
pub(super) const PATH: &str = "/api/v1/reload";

/// # Errors
/// 403 for who may not, 422 for files that cannot be used.
pub(super) async fn handle(state: &State, request: &Request) -> Result<Answer, Fault> {
    Query::read(request, &[])?;
    let peer = request.peer.ip().to_canonical();
    // Whoever shows a token was judged by its right to manage.
    if request.token.is_none() && !peer.is_loopback() && !state.setup.rest.endpoints.config_reload {
        let message = format!(
            "{peer} may not reload the configuration; if it should, write restServerEndpointsEnable.configReload: true and restart"
        );
        return Err(Fault::new(Kind::Forbidden, message));
    }
    let token = request.token.as_ref().map(|token| format!(", token `{}`", token.name)).unwrap_or_default();
    let reloaded = (state.setup.reload)(format!("REST, {peer}{token}")).await;
    let told = reloaded.map_err(|errors| Fault::new(Kind::Configuration, errors.to_string()))?;
    // Lists of texts: writing them as JSON cannot fail.
    let body = serde_json::to_string(&told).unwrap_or_default();
    Ok(Answer::json(200, body).with("cache-control", "no-store"))
}
