//! What stands in a publish request, in any of its three forms: JSON in EMQX's shape, a form with the same names, or the payload alone with
//! everything else in the address (`?topic=...`).
//!
//! Invariant: no field is ignored; one that is unknown, or there twice, makes the whole request invalid and says so, so that a mistyped
//! `retain` does not pass for none. (`clientid` alone is accepted without effect: clients of EMQX still send it.)

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use serde::{Deserialize, de::IgnoredAny};

use super::{object::Object, properties::AskedProperties};
use crate::{
    api::{
        answer::Request,
        fault::{Fault, Kind},
        form, json_object,
    },
    bus::Publication,
    keep::keys::Digest,
    names::{QoS, TopicName},
};

/// MQTT 5: "Topic Name invalid".
const TOPIC_INVALID: u8 = 0x90;
/// MQTT 5: "Quota exceeded", what EMQX says of too much.
pub(super) const QUOTA: u8 = 0x97;
/// MQTT 5: "Payload format invalid".
const PAYLOAD_INVALID: u8 = 0x99;
/// Most messages of one bulk.
pub(in crate::api) const MOST: usize = 10_000;

/// What is expected, for whoever sent something else.
const EXPECTED: &str = r#"{"topic":"...","payload":"..."}"#;

/// When a publish counts as done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Durability {
    /// It is in the outbox of every live session that wants it.
    #[default]
    Routed,
    /// It is also on disk for every session that outlives its connection, and for retention.
    Stored,
}

impl Durability {
    /// # Errors
    /// 400 for anything but its two words.
    pub(super) fn read(text: &str) -> Result<Self, Fault> {
        match text {
            "routed" => Ok(Self::Routed),
            "stored" => Ok(Self::Stored),
            _ => Err(value("`durability` must be `routed` or `stored`")),
        }
    }
}

/// A message somebody wants published.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    pub publication: Publication,
    pub durability: Durability,
}

impl Wish {
    /// What tells it from another one.
    pub(super) fn print(&self) -> Digest {
        let Publication { topic, payload, qos, retain, properties, origin: _ } = &self.publication;
        let flags = [*qos as u8, u8::from(*retain), u8::from(self.durability == Durability::Stored)];
        // Properties have no other canonical form than their own text; it never leaves this process but as a hash.
        let properties = format!("{properties:?}");
        Digest::of([topic.as_str().as_bytes(), payload.as_ref(), flags.as_slice(), properties.as_bytes()])
    }
}

/// A message as it was asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Asked {
    topic: Option<String>,
    payload: Option<String>,
    #[serde(alias = "encoding")]
    payload_encoding: Option<String>,
    qos: Option<u64>,
    retain: Option<bool>,
    properties: Option<Object<AskedProperties>>,
    durability: Option<String>,
    pub(super) key: Option<String>,
    #[serde(rename = "clientid")]
    _client: Option<IgnoredAny>,
    /// The payload where it was the whole body.
    #[serde(skip)]
    raw: Option<Bytes>,
}

fn value(message: impl Into<String>) -> Fault {
    Fault::new(Kind::Value, message)
}

/// One message.
///
/// # Errors
/// 400 for what cannot be read.
pub(super) fn one(request: &Request) -> Result<Asked, Fault> {
    let query = fields(&request.query, "query")?;
    if query.iter().any(|(name, _)| name == "topic") {
        let mut asked = flat(query)?;
        if asked.payload.is_some() {
            return Err(value(
                "with `?topic=` the body is the payload; `payload` must not stand in the address as well",
            ));
        }
        asked.raw = Some(request.body.clone());
        return Ok(asked);
    }
    if let Some((name, _)) = query.iter().find(|(name, _)| name != "soft") {
        let shown: String = name.chars().take(40).collect();
        let message = format!(
            "`{shown}` stands in the address, where only `soft` is known; it belongs into the body, unless the body is the payload alone: then \
             `?topic=` must be there, too"
        );
        return Err(value(message));
    }
    if json_object::is_form(request) {
        return flat(fields(text(request)?, "form")?);
    }
    let Object(asked) = json(text(request)?, '{', EXPECTED)?;
    Ok(asked)
}

/// Several messages, in order.
///
/// # Errors
/// 400 for what cannot be read, and for none or too many.
pub(super) fn several(request: &Request) -> Result<Vec<Asked>, Fault> {
    let asked: Vec<Object<Asked>> = json(text(request)?, '[', &format!("[{EXPECTED}, ...]"))?;
    let asked: Vec<Asked> = asked.into_iter().map(|Object(asked)| asked).collect();
    if asked.is_empty() {
        return Err(Fault::new(Kind::Missing, format!("the array is empty; expected [{EXPECTED}, ...]")));
    }
    if asked.len() > MOST {
        let message = format!("these are {} messages; one request takes {MOST} at most", asked.len());
        return Err(value(message).with_reason(QUOTA));
    }
    if asked.iter().any(|one| one.key.is_some()) {
        let message =
            "`key` names a whole request: send it as the header `Idempotency-Key` or as `?key=`, not with a message";
        return Err(value(message));
    }
    Ok(asked)
}

/// The body as text, without a byte order mark.
fn text(request: &Request) -> Result<&str, Fault> {
    let text = std::str::from_utf8(&request.body).map_err(|error| {
        let message = format!(
            "the body is not UTF-8: {error}; send text as UTF-8, or bytes as the whole body with `?topic=`, or as base64 with \
             `\"payload_encoding\":\"base64\"`"
        );
        Fault::new(Kind::Content, message)
    })?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

/// JSON that begins with `opening`.
fn json<T: for<'a> Deserialize<'a>>(text: &str, opening: char, expected: &str) -> Result<T, Fault> {
    if !text.trim_start().starts_with(opening) && serde_json::from_str::<IgnoredAny>(text).is_ok() {
        return Err(value(format!("the body is something else than expected: {expected}")));
    }
    serde_json::from_str(text).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => value(format!("in the body: {error}")),
        _ => Fault::new(
            Kind::Content,
            format!("the body is not JSON: {error}; expected {expected}, or the payload alone with `?topic=...` in the address"),
        ),
    })
}

fn fields(text: &str, what: &str) -> Result<Vec<(String, String)>, Fault> {
    let pairs = form::pairs(text).collect::<Result<_, _>>();
    pairs.map_err(|error| Fault::new(Kind::Content, format!("a value of the {what} is not UTF-8: {error}")))
}

/// Names and values of a form or an address.
fn flat(fields: Vec<(String, String)>) -> Result<Asked, Fault> {
    let mut asked = Asked::default();
    for (name, text) in fields {
        asked.set(&name, text)?;
    }
    Ok(asked)
}

/// Fills a place that must be empty.
pub(super) fn once<T>(place: &mut Option<T>, name: &str, value_of: T) -> Result<(), Fault> {
    match place.replace(value_of) {
        None => Ok(()),
        Some(_) => Err(value(format!("`{name}` is there twice"))),
    }
}

impl Asked {
    fn set(&mut self, name: &str, text: String) -> Result<(), Fault> {
        match name {
            "topic" => once(&mut self.topic, name, text),
            "payload" => once(&mut self.payload, name, text),
            "payload_encoding" | "encoding" => once(&mut self.payload_encoding, name, text),
            "qos" => {
                let number = text.parse().map_err(|_| no_qos())?;
                once(&mut self.qos, name, number)
            }
            "retain" => {
                let flag = match &*text {
                    "true" | "1" => true,
                    "false" | "0" => false,
                    _ => return Err(value("`retain` must be true or false")),
                };
                once(&mut self.retain, name, flag)
            }
            "durability" => once(&mut self.durability, name, text),
            "key" => once(&mut self.key, name, text),
            // It is looked at before anything else is read.
            "soft" => Ok(()),
            _ => self.properties.get_or_insert_default().0.set(name, text),
        }
    }

    /// The message it means; `usual`: how durable one is that does not say.
    ///
    /// # Errors
    /// 400 for a value that is not allowed.
    pub(super) fn wish(self, usual: Durability) -> Result<Wish, Fault> {
        let missing = |what: &str| Fault::new(Kind::Missing, format!("there is no `{what}`; expected {EXPECTED}"));
        let topic = self.topic.ok_or_else(|| missing("topic"))?;
        let topic = TopicName::publishable(topic).map_err(|why| {
            Fault::new(Kind::Topic, format!("the topic cannot be published to: {why}")).with_reason(TOPIC_INVALID)
        })?;
        let payload = self.raw.or_else(|| self.payload.map(Bytes::from)).ok_or_else(|| missing("payload"))?;
        let payload = decoded(payload, self.payload_encoding.as_deref())?;
        let durability = self.durability.as_deref().map_or(Ok(usual), Durability::read)?;
        let mut publication = Publication::new(topic, payload);
        publication.qos = quality(self.qos)?;
        if durability == Durability::Stored {
            publication.qos = publication.qos.max(QoS::AtLeastOnce);
        }
        publication.retain = self.retain.unwrap_or(false);
        publication.properties = self.properties.unwrap_or_default().0.read()?;
        if publication.properties.payload_is_utf8 && std::str::from_utf8(&publication.payload).is_err() {
            let message = "`payload_format_indicator` is 1, and the payload is not UTF-8 text";
            return Err(value(message).with_reason(PAYLOAD_INVALID));
        }
        Ok(Wish { publication, durability })
    }
}

fn no_qos() -> Fault {
    value("`qos` must be 0, 1 or 2")
}

fn quality(number: Option<u64>) -> Result<QoS, Fault> {
    let Some(number) = number else { return Ok(QoS::AtMostOnce) };
    u8::try_from(number).ok().and_then(QoS::from_u8).ok_or_else(no_qos)
}

fn decoded(payload: Bytes, encoding: Option<&str>) -> Result<Bytes, Fault> {
    match encoding {
        None | Some("plain") => Ok(payload),
        Some("base64") => STANDARD
            .decode(&payload)
            .map(Bytes::from)
            .map_err(|error| value(format!("the payload is not base64: {error}")).with_reason(PAYLOAD_INVALID)),
        Some(_) => Err(value("`payload_encoding` must be `plain` or `base64`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::Properties;

    const FORM: Option<&str> = Some("application/x-www-form-urlencoded");

    fn request(query: &str, kind: Option<&str>, body: &[u8]) -> Request {
        Request {
            method: "POST".into(),
            path: super::super::PATH.into(),
            query: query.into(),
            headers: kind.map(|kind| ("content-type".to_owned(), kind.to_owned())).into_iter().collect(),
            body: Bytes::copy_from_slice(body),
            peer: ([127, 0, 0, 1], 1).into(),
            token: None,
            visit: None,
            lane: None,
        }
    }

    fn read(query: &str, kind: Option<&str>, body: &[u8]) -> Result<Wish, Fault> {
        one(&request(query, kind, body))?.wish(Durability::Routed)
    }

    #[test]
    fn three_forms_of_one_message() {
        let json = br#"{"topic":"a/b","payload":"x \"y\"\n\u00e4","qos":1,"retain":true,"payload_encoding":"plain",
            "properties":{"message_expiry_interval":60,"response_topic":"r","correlation_data":"c","content_type":"text/plain",
            "payload_format_indicator":1,"user_properties":{"n":"v","m":"w"}},"durability":"stored","clientid":"me"}"#;
        let flat = "topic=a/b&qos=1&retain=1&encoding=plain&message_expiry_interval=60&response_topic=r&correlation_data=c&\
            content_type=text%2Fplain&payload_format_indicator=1&user_properties.n=v&user_properties.m=w&durability=stored";
        let form = format!("{flat}&payload=x+%22y%22%0A%C3%A4");
        let payload = "x \"y\"\nä".as_bytes();
        let all = [
            read("", Some("application/json"), json),
            read("soft=1", FORM, json),
            read("", FORM, form.as_bytes()),
            read(&format!("{flat}&soft=1"), Some("text/plain"), payload),
            read(flat, FORM, payload),
        ]
        .map(Result::unwrap);
        for wish in &all {
            let Publication { topic, payload: found, qos, retain, properties, .. } = &wish.publication;
            assert_eq!((topic.as_str(), &found[..], *qos, *retain), ("a/b", payload, QoS::AtLeastOnce, true));
            let user = vec![("n".into(), "v".into()), ("m".into(), "w".into())];
            let expected = Properties {
                payload_is_utf8: true,
                message_expiry: Some(60),
                response_topic: Some(TopicName::new("r").unwrap()),
                correlation_data: Some(Bytes::from_static(b"c")),
                content_type: Some("text/plain".into()),
                user,
            };
            assert_eq!((properties, wish.durability), (&expected, Durability::Stored));
            assert_eq!(wish.print(), all[0].print(), "the same message by any door is the same");
        }
    }

    #[test]
    fn what_is_not_said() {
        let wish = read("", None, br#"{"topic":"a","payload":""}"#).unwrap();
        let Publication { qos, retain, properties, .. } = &wish.publication;
        assert_eq!((*qos, *retain, properties), (QoS::AtMostOnce, false, &Properties::default()));
        let stored = read("", None, br#"{"topic":"a","payload":"","durability":"stored"}"#).unwrap();
        assert_eq!(stored.publication.qos, QoS::AtLeastOnce);
        let exactly = read("", None, br#"{"topic":"a","payload":"","durability":"stored","qos":2}"#).unwrap();
        assert_eq!(exactly.publication.qos, QoS::ExactlyOnce);
        assert_ne!(wish.print(), stored.print());
        let bytes = read("topic=a", None, b"\xff\x00").unwrap();
        assert_eq!(&bytes.publication.payload[..], b"\xff\x00");
        let bytes = read("", None, br#"{"topic":"a","payload":"/wA=","payload_encoding":"base64"}"#).unwrap();
        assert_eq!(&bytes.publication.payload[..], b"\xff\x00");
        assert!(read("", None, "\u{feff}{\"topic\":\"a\",\"payload\":\"\"}".as_bytes()).is_ok());
    }

    /// Query, content type, body; kind and reason of the refusal.
    type Case<'a> = (&'a str, Option<&'a str>, &'a [u8], Kind, Option<u8>);

    #[test]
    fn what_is_refused() {
        let deep = format!("{{\"topic\":\"a\",\"payload\":{}", "[".repeat(100_000));
        let cases: Vec<Case<'_>> = vec![
            ("", None, b"", Kind::Content, None),
            ("", None, b"plain text", Kind::Content, None),
            ("", None, b"{\"topic\":\"a\",\"payload\":\"\xff\"}", Kind::Content, None),
            ("", None, br#"{"topic":"a","payload":"b""#, Kind::Content, None),
            ("", None, deep.as_bytes(), Kind::Value, None),
            ("", None, b"null", Kind::Value, None),
            ("", None, b"[]", Kind::Value, None),
            ("", None, br#"["a","b",null,null,null,null,null,null,null]"#, Kind::Value, None),
            ("", None, br#"{"topic":"a","payload":"b","properties":[1,1,"r","c","t",{}]}"#, Kind::Value, None),
            ("", None, br#"{"payload":"b"}"#, Kind::Missing, None),
            ("", None, br#"{"topic":"a"}"#, Kind::Missing, None),
            ("", None, br#"{"topic":"a","payload":5}"#, Kind::Value, None),
            ("", None, br#"{"topic":"a","payload":{"b":1}}"#, Kind::Value, None),
            ("", None, br#"{"topic":"a","payload":"b","topic":"c"}"#, Kind::Value, None),
            (
                "",
                None,
                br#"{"topic":"a","payload":"b","encoding":"plain","payload_encoding":"plain"}"#,
                Kind::Value,
                None,
            ),
            ("", None, br#"{"topic":"a","payload":"b","retian":true}"#, Kind::Value, None),
            ("", None, br#"{"topic":"a","payload":"b","qos":3}"#, Kind::Value, None),
            ("", None, br#"{"topic":"a","payload":"b","qos":-1}"#, Kind::Value, None),
            ("", None, br#"{"topic":"a","payload":"b","qos":"1"}"#, Kind::Value, None),
            ("", None, br#"{"topic":"a","payload":"b","durability":"safe"}"#, Kind::Value, None),
            ("", None, br#"{"topic":"a","payload":"b","payload_encoding":"hex"}"#, Kind::Value, None),
            ("", None, br#"{"topic":"a","payload":"?","payload_encoding":"base64"}"#, Kind::Value, Some(153)),
            ("", None, br#"{"topic":"a/+","payload":"b"}"#, Kind::Topic, Some(144)),
            ("", None, br#"{"topic":"","payload":"b"}"#, Kind::Topic, Some(144)),
            ("", None, br#"{"topic":"$SYS/x","payload":"b"}"#, Kind::Topic, Some(144)),
            ("", None, b"{\"topic\":\"a\\u0000\",\"payload\":\"b\"}", Kind::Topic, Some(144)),
            ("", FORM, b"topic=a&payload=b&qos=x", Kind::Value, None),
            ("", FORM, b"topic=a&payload=b&retain=maybe", Kind::Value, None),
            ("", FORM, b"topic=a&payload=b&topic=c", Kind::Value, None),
            ("", FORM, b"topic=a&payload=b&other=c", Kind::Value, None),
            ("", FORM, b"topic=%ff&payload=b", Kind::Content, None),
            ("qos=1", None, br#"{"topic":"a","payload":"b"}"#, Kind::Value, None),
            ("topic=a&payload=b", None, b"c", Kind::Value, None),
            ("topic=a&payload_format_indicator=1", None, b"\xff", Kind::Value, Some(153)),
        ];
        let mut ran = 0;
        for (query, kind, body, expected, reason) in cases {
            let fault = read(query, kind, body).unwrap_err();
            let shown = String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned();
            assert_eq!((fault.kind, fault.reason_code), (expected, reason), "?{query} {shown}: {}", fault.message);
            ran += 1;
        }
        assert_eq!(ran, 34);
    }

    #[test]
    fn several_messages() {
        let kind = |body: &str| several(&request("", None, body.as_bytes())).map(|asked| asked.len());
        assert_eq!(kind(r#"[{"topic":"a","payload":"b"},{"topic":"c","payload":"d"}]"#), Ok(2));
        assert_eq!(kind("[]").unwrap_err().kind, Kind::Missing);
        for wrong in ["{}", r#"[["a","b"]]"#, "[null]", r#"["a"]"#] {
            assert_eq!(kind(wrong).unwrap_err().kind, Kind::Value, "{wrong}");
        }
        assert_eq!(kind(r#"[{"topic":"a","payload":"b","key":"k"}]"#).unwrap_err().kind, Kind::Value);
        let many = format!("[{}]", vec!["{}"; MOST + 1].join(","));
        assert_eq!(kind(&many).unwrap_err().reason_code, Some(QUOTA));
    }
}
