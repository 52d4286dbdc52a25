//! `GET /api/v1/broker/clients`, `GET` and `DELETE /api/v1/broker/clients/{id}`: who is connected, whose session is kept, and out with one.
//!
//! `DELETE` ends the connection as MQTT lets a server do it (DISCONNECT 0x98 for 5.0; the will is published); the client may come back. With
//! `?session=true` its session ends, too, also while it is away. The answer, 204, comes when that stands in the order of the broker; the
//! client hears of it a moment later.

use serde_json::{Value, json};

use super::{
    answer::{Answer, Request},
    broker_desk::{Query, answer, desk, named, next},
    fault::{Fault, Kind},
    state::State,
};
use crate::{
    bus::desk::{Client, LARGEST_PAGE, Parting, rfc3339},
    names::ClientId,
};

/// Where single clients are.
pub(super) const ROOT: &str = "/api/v1/broker/clients/";

/// # Errors
/// 400 for a wrong query, 501 with a broker elsewhere, 503 when the broker does not answer.
pub(super) async fn list(state: &State, request: &Request) -> Result<Answer, Fault> {
    let desk = desk(state)?;
    let page = Query::read(request, &["limit", "from"])?.page(LARGEST_PAGE)?;
    let page = desk.clients(page).await?;
    let clients: Vec<_> = page.rows.iter().map(client).collect();
    Ok(answer(&json!({"clients": clients, "next": next(page.next.as_ref())})))
}

/// # Errors
/// 404 for one that is not there, else as [`list`].
pub(super) async fn one(state: &State, request: &Request) -> Result<Answer, Fault> {
    let desk = desk(state)?;
    Query::read(request, &[])?;
    let id = id(request)?;
    let found = desk.client(id.clone()).await?;
    found.map(|found| answer(&client(&found))).ok_or_else(|| unknown(&id))
}

/// # Errors
/// 404 for one that is not there, 409 for one that is away if its session is to stay, else as [`list`].
pub(super) async fn disconnect(state: &State, request: &Request) -> Result<Answer, Fault> {
    let desk = desk(state)?;
    let end_session = Query::read(request, &["session"])?.flag("session")?;
    let id = id(request)?;
    let parting = desk.disconnect(id.clone(), end_session).await?;
    match parting {
        Parting::Done => {
            let (peer, user) = (request.peer, request.visitor_name());
            let user = user.as_deref();
            tracing::info!(%peer, user, client = %id, end_session, "an MQTT client was disconnected by REST");
            Ok(Answer::empty(204))
        }
        Parting::Unknown => Err(unknown(&id)),
        Parting::Unstored => Err(Fault::new(
            Kind::Unavailable,
            "the session was ended, but the store could not note it; after a restart it is there again",
        )),
        Parting::NotConnected => Err(Fault::new(
            Kind::Conflict,
            "the client is not connected, only its session is kept; `?session=true` ends the session",
        )),
    }
}

fn id(request: &Request) -> Result<ClientId, Fault> {
    let name = named(request, ROOT)?;
    ClientId::new(&name).map_err(|error| Fault::new(Kind::Value, format!("this is no client id: {error}")))
}

fn unknown(id: &ClientId) -> Fault {
    let shown: String = id.as_str().chars().take(100).collect();
    Fault::new(Kind::NotFound, format!("the broker knows no client `{shown}`"))
}

fn client(client: &Client) -> Value {
    let connection = client.connection.as_ref().map(|connection| {
        json!({
            "address": connection.address,
            "listener": &*connection.listener,
            "protocol": connection.protocol,
            "since": rfc3339(connection.since),
            "keepAliveSeconds": connection.keep_alive,
            "messagesIn": connection.messages_in,
            "messagesOut": connection.messages_out,
            "bytesIn": connection.bytes_in,
            "bytesOut": connection.bytes_out,
        })
    });
    json!({
        "id": client.id.as_str(),
        "user": client.user.as_deref(),
        "connected": connection.is_some(),
        "connection": connection,
        "session": {
            "persistent": client.session_expiry > 0,
            "expirySeconds": client.session_expiry,
            "ends": client.session_ends.map(rfc3339),
        },
        "subscriptions": client.subscriptions,
        "queue": {"messages": client.queued_messages, "bytes": client.queued_bytes},
        "inFlight": client.in_flight,
        "dropped": client.dropped,
    })
}
