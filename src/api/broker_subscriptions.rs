//! `GET /api/v1/broker/subscriptions`: who listens to what; with `?client=`, one client.

use serde_json::{Value, json};

use super::{
    answer::{Answer, Request},
    broker_desk::{Query, answer, desk, next},
    fault::{Fault, Kind},
    state::State,
};
use crate::{
    bus::desk::{LARGEST_PAGE, Subscription},
    names::ClientId,
};

/// # Errors
/// 400 for a wrong query, 501 with a broker elsewhere, 503 when the broker does not answer.
pub(super) async fn handle(state: &State, request: &Request) -> Result<Answer, Fault> {
    let desk = desk(state)?;
    let query = Query::read(request, &["client", "limit", "from"])?;
    let of = query.get("client").map(ClientId::new).transpose();
    let of = of.map_err(|error| Fault::new(Kind::Value, format!("`client` is no client id: {error}")))?;
    let page = desk.subscriptions(of, query.page(LARGEST_PAGE)?).await?;
    let rows: Vec<_> = page.rows.iter().map(subscription).collect();
    Ok(answer(&json!({"subscriptions": rows, "next": next(page.next.as_ref())})))
}

fn subscription(row: &Subscription) -> Value {
    json!({
        "client": row.client.as_str(),
        "filter": row.filter.as_str(),
        "qos": row.qos as u8,
        "noLocal": row.no_local,
        "retainAsPublished": row.retain_as_published,
        "id": row.id,
    })
}
