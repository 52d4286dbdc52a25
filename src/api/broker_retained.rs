//! `GET /api/v1/broker/retained?filter=`: what the broker keeps; `DELETE /api/v1/broker/retained/{topic}`: let go of one.
//!
//! Payloads are shown as text where they are UTF-8, else in base64, up to [`SHOWN`] bytes in a list and [`SHOWN_ALONE`] where the filter names one topic.
//! `DELETE` is what MQTT itself does: an empty retained message is published, by the door of REST and under its rules, so who listens
//! gets it and the program's own topics are refused. `$SYS` is made anew for each who asks, nothing of it is kept.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    answer::{Answer, Request},
    broker_desk::{Query, answer, desk, named, next},
    fault::{Fault, Kind},
    mqtt_publish,
    state::State,
};
use crate::{
    bus::{
        Publication,
        desk::{PageAsk, RetainedMessage},
    },
    names::{QoS, TopicFilter},
};

/// Where single topics are.
pub(super) const ROOT: &str = "/api/v1/broker/retained/";
/// Messages of a page at most: with their payloads they are larger than other rows.
const MOST: usize = 200;
/// Bytes of a payload in a list.
const SHOWN: usize = 4 << 10;
/// Bytes of the payload of the one topic that was asked for.
const SHOWN_ALONE: usize = 64 << 10;

/// # Errors
/// 400 for a wrong query, 501 with a broker elsewhere, 503 when the broker does not answer.
pub(super) async fn list(state: &State, request: &Request) -> Result<Answer, Fault> {
    let desk = desk(state)?;
    let query = Query::read(request, &["filter", "limit", "from"])?;
    let filter = TopicFilter::new(query.get("filter").unwrap_or("#"));
    let filter = filter.map_err(|error| Fault::new(Kind::Value, format!("`filter` is no topic filter: {error}")))?;
    let is_one = !filter.as_str().contains(['+', '#']);
    let shown = if is_one { SHOWN_ALONE } else { SHOWN };
    let page = desk.retained(filter, query.page(MOST)?).await?;
    let rows: Vec<_> = page.rows.iter().map(|row| message(row, shown)).collect();
    Ok(answer(&json!({"retained": rows, "next": next(page.next.as_ref())})))
}

/// # Errors
/// 404 where nothing is kept, 403 for a topic of the program's own, else as [`list`].
pub(super) async fn clear(state: &State, request: &Request) -> Result<Answer, Fault> {
    let desk = desk(state)?;
    Query::read(request, &[])?;
    let topic = mqtt_publish::check_topic(state, request, &named(request, ROOT)?)?;
    let kept = desk.retained(topic.clone().into(), PageAsk { limit: 1, from: None }).await?;
    if kept.rows.is_empty() {
        return Err(Fault::new(Kind::NotFound, "the broker keeps no message of this topic"));
    }
    let publication = Publication::new(topic.clone(), "").qos(QoS::AtLeastOnce).retained();
    let publication = publication.from(mqtt_publish::origin(request, false));
    state.setup.bus.publish(publication).await.map_err(|error| mqtt_publish::refused(&error))?;
    let user = request.visitor_name();
    tracing::info!(peer = %request.peer, user = user.as_deref(), %topic, "a retained message was removed by REST");
    Ok(Answer::empty(204))
}

fn message(row: &RetainedMessage, shown: usize) -> Value {
    let (encoding, payload, cut) = match std::str::from_utf8(&row.payload) {
        Ok(text) => {
            let end = text.floor_char_boundary(shown);
            let (part, rest) = text.split_at_checked(end).unwrap_or((text, ""));
            ("text", part.to_owned(), !rest.is_empty())
        }
        Err(_) => {
            let (part, rest) = row.payload.split_at_checked(shown).unwrap_or((&row.payload, &[]));
            ("base64", STANDARD.encode(part), !rest.is_empty())
        }
    };
    json!({
        "topic": row.topic,
        "qos": row.qos as u8,
        "size": row.payload.len(),
        "expiresInSeconds": row.expires_in,
        "encoding": encoding,
        "payload": payload,
        "cut": cut,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payloads_are_text_or_base64_and_cut() {
        let show = |payload: &[u8]| {
            let row = RetainedMessage {
                topic: "t".into(),
                qos: QoS::AtMostOnce,
                payload: bytes::Bytes::copy_from_slice(payload),
                expires_in: None,
            };
            let value = message(&row, 4);
            (value["encoding"].clone(), value["payload"].clone(), value["cut"].clone(), value["size"].clone())
        };
        let expected = |encoding: &str, payload: &str, cut: bool, size: usize| {
            (json!(encoding), json!(payload), json!(cut), json!(size))
        };
        assert_eq!(show(b"abcd"), expected("text", "abcd", false, 4));
        assert_eq!(show("abcå".as_bytes()), expected("text", "abc", true, 5));
        assert_eq!(show(b"\xff\xfe"), expected("base64", "//4=", false, 2));
        assert_eq!(show(b"\xff\xfe\xfd\xfc\xfb"), expected("base64", "//79/A==", true, 5));
        assert_eq!(show(b""), expected("text", "", false, 0));
    }
}
