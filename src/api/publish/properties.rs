//! The MQTT 5 properties of a message, in EMQX's names.

use std::fmt;

use bytes::Bytes;
use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};

use super::wish::once;
use crate::{
    api::fault::{Fault, Kind},
    bus::Properties,
    names::TopicName,
};

/// Bytes of a text or Binary Data in MQTT.
const LONGEST: usize = 65_535;
/// MQTT 5: "Topic Name invalid".
const TOPIC_INVALID: u8 = 0x90;
/// How a user property is called where names are flat.
const USER: &str = "user_properties.";

/// Properties as they were asked for.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AskedProperties {
    payload_format_indicator: Option<u64>,
    message_expiry_interval: Option<u64>,
    response_topic: Option<String>,
    correlation_data: Option<String>,
    content_type: Option<String>,
    #[serde(default)]
    user_properties: Pairs,
}

/// Names and values in their order; MQTT allows a name several times.
#[derive(Debug, Default)]
struct Pairs(Vec<(String, String)>);

impl<'de> Deserialize<'de> for Pairs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Collect)
    }
}

struct Collect;

impl<'de> Visitor<'de> for Collect {
    type Value = Pairs;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object of texts")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Pairs, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Pairs(pairs))
    }
}

impl AskedProperties {
    /// One of them from a form or an address.
    pub(super) fn set(&mut self, name: &str, text: String) -> Result<(), Fault> {
        let number = |text: &str| {
            text.parse::<u64>().map_err(|_| Fault::new(Kind::Value, format!("`{name}` must be a whole number")))
        };
        match name {
            "payload_format_indicator" => once(&mut self.payload_format_indicator, name, number(&text)?),
            "message_expiry_interval" => once(&mut self.message_expiry_interval, name, number(&text)?),
            "response_topic" => once(&mut self.response_topic, name, text),
            "correlation_data" => once(&mut self.correlation_data, name, text),
            "content_type" => once(&mut self.content_type, name, text),
            _ => match name.strip_prefix(USER) {
                Some(user) => {
                    self.user_properties.0.push((user.to_owned(), text));
                    Ok(())
                }
                None => {
                    let shown: String = name.chars().take(40).collect();
                    Err(Fault::new(Kind::Value, format!("`{shown}` is not known here")))
                }
            },
        }
    }

    /// What MQTT makes of them.
    ///
    /// # Errors
    /// 400 for what MQTT cannot carry.
    pub(super) fn read(self) -> Result<Properties, Fault> {
        let wrong = |message: &str| Fault::new(Kind::Value, message);
        let payload_is_utf8 = match self.payload_format_indicator {
            None | Some(0) => false,
            Some(1) => true,
            Some(_) => return Err(wrong("`payload_format_indicator` must be 0 or 1")),
        };
        let message_expiry = self.message_expiry_interval.map(u32::try_from).transpose();
        let message_expiry =
            message_expiry.map_err(|_| wrong("`message_expiry_interval` is in seconds, 4294967295 at most"))?;
        let response_topic = self.response_topic.map(TopicName::new).transpose().map_err(|why| {
            Fault::new(Kind::Topic, format!("`response_topic` is no topic: {why}")).with_reason(TOPIC_INVALID)
        })?;
        let correlation_data = self.correlation_data.map(Bytes::from);
        if correlation_data.as_ref().is_some_and(|data| data.len() > LONGEST) {
            return Err(wrong("`correlation_data` has 65,535 bytes at most"));
        }
        if let Some(text) = &self.content_type {
            check("content_type", text)?;
        }
        for (name, value) in &self.user_properties.0 {
            check("a name in user_properties", name)?;
            check("a value in user_properties", value)?;
        }
        Ok(Properties {
            payload_is_utf8,
            message_expiry,
            response_topic,
            correlation_data,
            content_type: self.content_type.map(Into::into),
            user: self.user_properties.0,
        })
    }
}

/// A text MQTT can carry.
fn check(what: &str, text: &str) -> Result<(), Fault> {
    if text.len() > LONGEST || text.contains('\0') {
        return Err(Fault::new(Kind::Value, format!("{what} has 65,535 bytes at most, and no character U+0000")));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<Properties, String> {
        let asked: AskedProperties = serde_json::from_str(json).map_err(|error| error.to_string())?;
        asked.read().map_err(|fault| fault.message)
    }

    #[test]
    fn user_properties_keep_order_and_repetition() {
        let found = read(r#"{"user_properties":{"b":"1","a":"2","b":"3"}}"#).unwrap();
        let expected = [("b", "1"), ("a", "2"), ("b", "3")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        assert_eq!(found.user, expected);
    }

    #[test]
    fn what_mqtt_cannot_carry() {
        let long = "x".repeat(65_536);
        let cases = [
            r#"{"payload_format_indicator":2}"#.to_owned(),
            r#"{"message_expiry_interval":4294967296}"#.to_owned(),
            r#"{"message_expiry_interval":-1}"#.to_owned(),
            r#"{"response_topic":"a/#"}"#.to_owned(),
            format!(r#"{{"correlation_data":"{long}"}}"#),
            format!(r#"{{"content_type":"{long}"}}"#),
            r#"{"content_type":"\u0000"}"#.to_owned(),
            r#"{"user_properties":{"a":1}}"#.to_owned(),
            r#"{"user_properties":[]}"#.to_owned(),
            r#"{"user_properties":{"\u0000":"a"}}"#.to_owned(),
            r#"{"topic_alias":1}"#.to_owned(),
        ];
        let refused = cases.iter().filter(|case| read(case).is_err()).count();
        assert_eq!((refused, cases.len()), (11, 11));
    }
}
