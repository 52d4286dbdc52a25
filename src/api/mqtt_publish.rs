//! `PUT|POST /v4/mqttpublishmessage`: publishes `{"topic","message"}` and echoes the body.
//!
//! Butler's users write the body in load scripts, so its form is taken generously: JSON under any content type, with or without a byte order
//! mark, or a form; numbers and booleans are coerced to text and echoed so; further properties are echoed. Nothing else is guessed: everything
//! unreadable is a 4xx and nothing is published. The answer is sent when the broker has taken responsibility for the message, not before.

use serde_json::{Map, Value};

use super::{
    answer::{Answer, Request},
    fault::{Fault, Kind},
    js_number, json_object,
    state::State,
};
use crate::{
    bus::{Door, Origin, Publication, PublishError},
    config::{settings::Generation, tokens::Right},
    names::{NameError, QoS, TopicName},
};

/// MQTT 5: "Not authorized".
const NOT_AUTHORIZED: u8 = 0x87;
/// What the body should be.
const EXPECTED: &str = r#"{"topic":"...","message":"..."}"#;

/// Handles the request.
///
/// # Errors
/// 4xx for what cannot be published, 403 for a topic of the program's own, 503 when the broker cannot take it.
pub(super) async fn handle(state: &State, request: &Request) -> Result<Answer, Fault> {
    let mut object = json_object::read(request, EXPECTED)?;
    let topic = coerce(&mut object, "topic")?;
    let message = coerce(&mut object, "message")?;
    let mut publication = Publication::new(publishable(&topic)?, message);
    if state.setup.rest_qos_retain {
        publication.qos = qos(&object)?;
        publication.retain = retain(&object)?;
    }
    let publication = entitled(state, request, publication)?;
    state.rate.take(request, 1)?;
    request.bus(state).publish(publication).await.map_err(|error| refused(&error))?;
    let status = match state.setup.generation {
        Generation::V5_4 => 200,
        Generation::Head => 201,
    };
    Ok(Answer::json(status, js_number::stringify(&Value::Object(object))))
}

/// The message as this caller may publish it, with its origin; a start message is written to the log and kept until it is dealt with.
///
/// # Errors
/// 403: the topic is the program's own, or not this caller's.
pub(super) fn entitled(state: &State, request: &Request, mut publication: Publication) -> Result<Publication, Fault> {
    check_rights(state, &publication.topic)?;
    check_visitor(request, &publication.topic)?;
    let starts = state.setup.start_topics.contains(&publication.topic);
    check_token(state, request, &publication.topic, if starts { Right::Start } else { Right::Publish })?;
    if starts {
        // The broker keeps it until it is dealt with: what was answered "published" outlives a crash.
        publication.qos = publication.qos.max(QoS::AtLeastOnce);
        tracing::info!(peer = %request.peer, "a start message was published by REST");
    }
    Ok(publication.from(origin(request, starts)))
}

/// On whose behalf. Whoever came through the doors may start: loopback, or an address the administrator named. The address travels only with a
/// start, whose answer names who asked; who is logged in to the console is named with everything.
pub(super) fn origin(request: &Request, starts: bool) -> Origin {
    // Without the port, which is another one for each connection: a transaction is one of its asker.
    let starter = || starts.then(|| request.requester().into());
    let user = request.visitor_name().or_else(starter);
    Origin { door: Door::Rest, client: None, user, may_start: true }
}

/// A property as text, coerced in place so that the echo shows what was published: a number or boolean becomes its text, a null message is empty.
fn coerce(object: &mut Map<String, Value>, key: &'static str) -> Result<String, Fault> {
    let value = object
        .get_mut(key)
        .ok_or_else(|| Fault::new(Kind::Missing, format!("the body has no `{key}`; it is required")))?;
    let text = match &*value {
        Value::String(text) => return Ok(text.clone()),
        Value::Number(number) => js_number::text(number),
        Value::Bool(flag) => flag.to_string(),
        Value::Null if key == "message" => String::new(),
        Value::Null => return Err(Fault::new(Kind::Value, format!("`{key}` is null; it must be text"))),
        Value::Array(_) | Value::Object(_) => {
            let message = format!("`{key}` must be text; to send JSON, send it as a string with its quotes escaped");
            return Err(Fault::new(Kind::Value, message));
        }
    };
    *value = Value::String(text.clone());
    Ok(text)
}

fn publishable(topic: &str) -> Result<TopicName, Fault> {
    let wrong = |why: NameError| Fault::new(Kind::Value, format!("the topic cannot be published to: {why}"));
    TopicName::publishable(topic).map_err(wrong)
}

/// A topic that may be published to by REST.
///
/// # Errors
/// 400 for what is none, 403 as [`entitled`].
pub(super) fn check_topic(state: &State, request: &Request, topic: &str) -> Result<TopicName, Fault> {
    let topic = publishable(topic)?;
    check_rights(state, &topic)?;
    check_visitor(request, &topic)?;
    check_token(state, request, &topic, Right::Manage)?;
    Ok(topic)
}

fn check_rights(state: &State, topic: &TopicName) -> Result<(), Fault> {
    let shown = || topic.as_str().chars().take(100).collect::<String>();
    if state.setup.protected_topics.iter().any(|filter| filter.matches(topic.as_str())) {
        let message = format!(
            "`{}` is one of the program's own topics, so that events cannot be forged; publish elsewhere",
            shown()
        );
        return Err(Fault::new(Kind::Forbidden, message).with_reason(NOT_AUTHORIZED));
    }
    if !state.setup.bus.may_publish(topic) {
        let message = format!("the access rules of broker.toml let nobody publish on `{}` by REST", shown());
        return Err(Fault::new(Kind::Forbidden, message).with_reason(NOT_AUTHORIZED));
    }
    Ok(())
}

/// Whether the token that is shown, if any, goes for a topic. A start needs its right and nothing else, as by MQTT.
fn check_token(state: &State, request: &Request, topic: &TopicName, right: Right) -> Result<(), Fault> {
    let Some(token) = &request.token else { return Ok(()) };
    state.bearers.check(token, &[right])?;
    if right == Right::Start || token.covers(topic.as_str()) {
        return Ok(());
    }
    Err(state.bearers.elsewhere(token))
}

/// Whoever is logged in to the console publishes what their own rights and rules allow.
fn check_visitor(request: &Request, topic: &TopicName) -> Result<(), Fault> {
    if !request.may_not_publish(topic.as_str()) {
        return Ok(());
    }
    let (name, shown) =
        (request.visitor_name().unwrap_or_default(), topic.as_str().chars().take(100).collect::<String>());
    let message = format!(
        "the user `{name}` may not publish on `{shown}`: see its rights and lists in broker.toml, and the access rules there"
    );
    Err(Fault::new(Kind::Forbidden, message).with_reason(NOT_AUTHORIZED))
}

/// `qos`: 0, 1 or 2, as number or (from a form) text; absent: 0.
fn qos(object: &Map<String, Value>) -> Result<QoS, Fault> {
    let number = match object.get("qos") {
        None => Some(0),
        Some(Value::String(text)) => text.parse().ok(),
        Some(value) => value.as_u64(),
    };
    number
        .and_then(|number| u8::try_from(number).ok())
        .and_then(QoS::from_u8)
        .ok_or_else(|| Fault::new(Kind::Value, "`qos` must be 0, 1 or 2"))
}

/// `retain`: a boolean, or (from a form) its text; absent: false.
fn retain(object: &Map<String, Value>) -> Result<bool, Fault> {
    let flag = match object.get("retain") {
        None => Some(false),
        Some(Value::String(text)) => text.parse().ok(),
        Some(value) => value.as_bool(),
    };
    flag.ok_or_else(|| Fault::new(Kind::Value, "`retain` must be true or false"))
}

pub(super) fn refused(error: &PublishError) -> Fault {
    let kind = match error {
        PublishError::TooLarge { .. } => Kind::TooLarge,
        PublishError::Full(_) => Kind::StoreFull,
        PublishError::Unavailable(_) | PublishError::Timeout(_) | PublishError::Refused(_) => Kind::Unavailable,
    };
    Fault::new(kind, error.to_string())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn request(kind: Option<&str>, body: &[u8]) -> Request {
        Request {
            method: "PUT".into(),
            path: "/v4/mqttpublishmessage".into(),
            query: String::new(),
            headers: kind.map(|kind| ("content-type".to_owned(), kind.to_owned())).into_iter().collect(),
            body: Bytes::copy_from_slice(body),
            peer: ([127, 0, 0, 1], 1).into(),
            token: None,
            visit: None,
            lane: None,
        }
    }

    #[test]
    fn bodies_are_read_generously() {
        let expected: Value = serde_json::json!({"topic": "a", "message": "b"});
        let json = br#"{"topic":"a","message":"b"}"#.as_slice();
        let form = Some("application/x-www-form-urlencoded; charset=utf-8");
        for (kind, body) in [
            (None, json),
            (Some("application/json"), json),
            (Some("application/vnd.api+json"), json),
            (Some("text/plain"), json),
            (Some("application/octet-stream"), json),
            (form, json),
            (form, b"topic=a&message=b"),
            (None, "\u{feff} {\"topic\":\"a\",\"message\":\"b\"}\r\n".as_bytes()),
        ] {
            assert_eq!(
                json_object::read(&request(kind, body), EXPECTED).map(Value::Object),
                Ok(expected.clone()),
                "{kind:?} {body:?}"
            );
        }
        for (body, kind) in [
            (&b""[..], Kind::Content),
            (b"null", Kind::Content),
            (b"{\"topic\":\"a\"", Kind::Content),
            (b"\xff", Kind::Content),
            (b"topic=a&message=b", Kind::Content),
            (b"[1]", Kind::Missing),
            (b"5", Kind::Missing),
        ] {
            assert_eq!(json_object::read(&request(None, body), EXPECTED).unwrap_err().kind, kind, "{body:?}");
        }
        assert_eq!(json_object::read(&request(form, b"topic=%ff"), EXPECTED).unwrap_err().kind, Kind::Content);
    }

    #[test]
    fn values_are_coerced_in_place() {
        let mut object = serde_json::json!({"topic": 5, "message": null, "deep": [1]}).as_object().unwrap().clone();
        assert_eq!(coerce(&mut object, "topic").unwrap(), "5");
        assert_eq!(coerce(&mut object, "message").unwrap(), "");
        assert_eq!(coerce(&mut object, "deep").unwrap_err().kind, Kind::Value);
        assert_eq!(coerce(&mut object, "none").unwrap_err().kind, Kind::Missing);
        assert_eq!(Value::Object(object).to_string(), r#"{"topic":"5","message":"","deep":[1]}"#);
    }

    #[test]
    fn qos_and_retain() {
        let read = |value: Value| {
            let object = value.as_object().unwrap().clone();
            (qos(&object).ok(), retain(&object).ok())
        };
        assert_eq!(read(serde_json::json!({})), (Some(QoS::AtMostOnce), Some(false)));
        assert_eq!(read(serde_json::json!({"qos": 2, "retain": true})), (Some(QoS::ExactlyOnce), Some(true)));
        assert_eq!(read(serde_json::json!({"qos": "1", "retain": "true"})), (Some(QoS::AtLeastOnce), Some(true)));
        for wrong in [serde_json::json!(3), serde_json::json!(-1), serde_json::json!(256), serde_json::json!(1.5)] {
            assert_eq!(read(serde_json::json!({"qos": wrong, "retain": 1})), (None, None));
        }
    }
}
