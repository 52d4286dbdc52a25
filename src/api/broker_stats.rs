//! `GET /api/v1/broker/stats`: the whole broker in numbers, at most a second old.

use serde_json::{Map, Value, json};

use super::{
    answer::Answer,
    broker_desk::{answer, desk},
    fault::Fault,
    state::State,
};
use crate::bus::desk::{Stats, rfc3339};

/// # Errors
/// 501 with a broker elsewhere, 503 when the broker does not answer.
pub(super) async fn handle(state: &State) -> Result<Answer, Fault> {
    Ok(answer(&body(&desk(state)?.stats().await?)))
}

fn body(stats: &Stats) -> Value {
    let loads = stats.loads.iter().map(|(name, [one, five, fifteen])| {
        let round = |value: &f64| (value * 100.0).round() / 100.0;
        ((*name).to_owned(), json!({"1min": round(one), "5min": round(five), "15min": round(fifteen)}))
    });
    json!({
        "since": rfc3339(stats.since),
        "uptimeSeconds": stats.uptime.as_secs(),
        "clients": {
            "connected": stats.connected,
            "disconnected": stats.disconnected,
            "maximum": stats.maximum,
            "expired": stats.expired,
        },
        "subscriptions": {"count": stats.subscriptions, "shared": stats.shared_subscriptions},
        "retained": {"messages": stats.retained, "bytes": stats.retained_bytes},
        "queued": {"messages": stats.queued, "bytes": stats.queued_bytes},
        "inFlight": stats.in_flight,
        "received": {
            "messages": stats.messages_in,
            "packets": stats.packets_in,
            "payloadBytes": stats.payload_in,
            "bytes": stats.bytes_in,
        },
        "sent": {
            "messages": stats.messages_out,
            "packets": stats.packets_out,
            "payloadBytes": stats.payload_out,
            "bytes": stats.bytes_out,
        },
        "dropped": stats.dropped,
        "unmatched": stats.unmatched,
        "perMinute": loads.collect::<Map<_, _>>(),
    })
}
