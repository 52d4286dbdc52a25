//! MQTT's names: topic names, topic filters, client ids and QoS, with the rules of MQTT 3.1.1 and 5.0 section 4.7.
//!
//! Topics are UTF-8 of any script and at most 65,535 bytes long (`[MQTT-4.7.3-3]`); nothing here ever slices a string by byte position.

use std::{fmt, str::FromStr, sync::Arc};

/// The longest UTF-8 string MQTT can carry, in bytes.
const MAX_BYTES: usize = 65_535;

/// Why a text is not the MQTT name it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// `[MQTT-4.7.3-1]`
    #[error("it is empty; at least one character is needed")]
    Empty,
    /// `[MQTT-4.7.3-3]`
    #[error("it is longer than the 65,535 bytes MQTT allows")]
    TooLong,
    /// `[MQTT-4.7.3-2]`, `[MQTT-1.5.4-2]`
    #[error("it contains the character U+0000, which MQTT forbids")]
    Nul,
    /// `[MQTT-3.3.2-2]`
    #[error("it contains `+` or `#`; wildcards belong into subscriptions, not into the topic of a message")]
    Wildcard,
    /// `[MQTT-4.7.1-1]`, `[MQTT-4.7.1-2]`
    #[error("a `#` must be the last level and `+` must stand alone between two `/`, e.g. `plant/+/state` or `plant/#`")]
    MisplacedWildcard,
    /// Topics beginning with `$` are the broker's own (`[MQTT-4.7.2-1]`).
    #[error("topics that begin with `$` belong to the broker; nobody else publishes there")]
    Dollar,
    /// `$share/<group>/<filter>` without a group or filter (`[MQTT-4.8.2-1]`, `[MQTT-4.8.2-2]`).
    #[error("a shared subscription is written `$share/<group>/<filter>`")]
    Share,
}

/// Quality of service of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
#[repr(u8)]
pub enum QoS {
    /// QoS 0
    #[default]
    AtMostOnce = 0,
    /// QoS 1
    AtLeastOnce = 1,
    /// QoS 2
    ExactlyOnce = 2,
}

impl QoS {
    /// From MQTT's number; 3 and above are no QoS.
    pub const fn from_u8(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }
}

macro_rules! text_newtype {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses the text.
            ///
            /// # Errors
            /// Names the rule that is broken.
            pub fn new(text: impl AsRef<str>) -> Result<Self, NameError> {
                let text = text.as_ref();
                $check(text)?;
                Ok(Self(Arc::from(text)))
            }

            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }
    };
}

text_newtype!(
    /// The topic of a message: not empty, no wildcards, no U+0000. May begin with `$` (only the broker publishes there; see
    /// [`TopicName::publishable`]).
    TopicName,
    check_topic_name
);
text_newtype!(
    /// What a subscription asks for; may be `$share/<group>/<filter>`.
    TopicFilter,
    check_topic_filter
);
text_newtype!(
    /// The id of an MQTT client: any UTF-8 without U+0000, `/ + #` included. Never used as a topic.
    ClientId,
    check_client_id
);

impl TopicName {
    /// A topic a client, a script or the configuration may publish to: one that does not begin with `$`.
    ///
    /// # Errors
    /// Names the rule that is broken.
    pub fn publishable(text: impl AsRef<str>) -> Result<Self, NameError> {
        let name = Self::new(text)?;
        if name.as_str().starts_with('$') { Err(NameError::Dollar) } else { Ok(name) }
    }

    /// This topic with `/` and another level (or several) behind it.
    ///
    /// # Errors
    /// If the result is no topic name.
    pub fn join(&self, level: &str) -> Result<Self, NameError> {
        Self::new(format!("{}/{level}", self.0))
    }
}

impl TopicFilter {
    /// The group and the filter proper of `$share/<group>/<filter>`; `None` for an ordinary filter.
    pub fn shared(&self) -> Option<(&str, &str)> {
        self.0.strip_prefix("$share/")?.split_once('/')
    }

    /// The filter that is matched against topics: without `$share/<group>/`.
    pub fn pattern(&self) -> &str {
        self.shared().map_or(&self.0, |(_, filter)| filter)
    }

    /// Whether a topic matches this filter (`[MQTT-4.7.1-1]`, `[MQTT-4.7.1-2]`, `[MQTT-4.7.2-1]`).
    pub fn matches(&self, topic: &str) -> bool {
        matches(self.pattern(), topic)
    }
}

impl From<TopicName> for TopicFilter {
    fn from(topic: TopicName) -> Self {
        Self(topic.0)
    }
}

/// Whether a well-formed filter matches a topic. `#` and `+` at the first level do not match topics beginning with `$`.
pub fn matches(filter: &str, topic: &str) -> bool {
    if topic.starts_with('$') && (filter.starts_with('#') || filter.starts_with('+')) {
        return false;
    }
    let mut levels = topic.split('/');
    for wanted in filter.split('/') {
        match (wanted, levels.next()) {
            ("#", _) => return true,
            ("+", Some(_)) => {}
            (wanted, Some(level)) if wanted == level => {}
            _ => return false,
        }
    }
    levels.next().is_none()
}

fn check_text(text: &str) -> Result<(), NameError> {
    if text.len() > MAX_BYTES {
        Err(NameError::TooLong)
    } else if text.contains('\0') {
        Err(NameError::Nul)
    } else {
        Ok(())
    }
}

fn check_topic_name(text: &str) -> Result<(), NameError> {
    check_text(text)?;
    if text.is_empty() {
        Err(NameError::Empty)
    } else if text.contains(['+', '#']) {
        Err(NameError::Wildcard)
    } else {
        Ok(())
    }
}

fn check_topic_filter(text: &str) -> Result<(), NameError> {
    check_text(text)?;
    let pattern = match text.strip_prefix("$share/") {
        Some(rest) => {
            let (group, filter) = rest.split_once('/').ok_or(NameError::Share)?;
            if group.is_empty() || group.contains(['+', '#']) || filter.is_empty() {
                return Err(NameError::Share);
            }
            filter
        }
        None if text == "$share" => return Err(NameError::Share),
        None => text,
    };
    if pattern.is_empty() {
        return Err(NameError::Empty);
    }
    let mut levels = pattern.split('/').peekable();
    while let Some(level) = levels.next() {
        let alone = level.len() == 1;
        let hash = level.contains('#');
        if (hash && (!alone || levels.peek().is_some())) || (level.contains('+') && !alone) {
            return Err(NameError::MisplacedWildcard);
        }
    }
    Ok(())
}

fn check_client_id(text: &str) -> Result<(), NameError> {
    check_text(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_names() {
        for good in ["a", "/", "å/ö/日本", "a//b", "$SYS/x", " ", &"x".repeat(65_535)] {
            assert!(TopicName::new(good).is_ok(), "{good:?}");
        }
        for (bad, why) in
            [("", NameError::Empty), ("a/#", NameError::Wildcard), ("+", NameError::Wildcard), ("a\0", NameError::Nul)]
        {
            assert_eq!(TopicName::new(bad), Err(why), "{bad:?}");
        }
        assert_eq!(TopicName::new("ä".repeat(32_768)), Err(NameError::TooLong));
        assert_eq!(TopicName::publishable("$SYS/x"), Err(NameError::Dollar));
    }

    #[test]
    fn topic_filters() {
        for good in ["#", "+", "a/#", "+/b/+", "/", "a//+", "$SYS/#", "$share/g/a/#", "$share/å/+"] {
            assert!(TopicFilter::new(good).is_ok(), "{good:?}");
        }
        for bad in
            ["", "a/#/b", "a#", "a+/b", "##", "+#", "$share/g", "$share//a", "$share/g/", "$share/+/a", "$share", "a\0"]
        {
            assert!(TopicFilter::new(bad).is_err(), "{bad:?}");
        }
        let shared = TopicFilter::new("$share/workers/a/+").unwrap();
        assert_eq!(shared.shared(), Some(("workers", "a/+")));
        assert!(shared.matches("a/b"));
    }

    #[test]
    fn matching_follows_section_4_7() {
        let cases = [
            ("a/b", "a/b", true),
            ("a/b", "a/b/c", false),
            ("a/+", "a/b", true),
            ("a/+", "a", false),
            ("a/+", "a/", true),
            ("a/#", "a", true),
            ("a/#", "a/b/c", true),
            ("#", "a", true),
            ("#", "$SYS/a", false),
            ("+/a", "$SYS/a", false),
            ("$SYS/#", "$SYS/a", true),
            ("+", "/a", false),
            ("+/+", "/a", true),
            ("/+", "/a", true),
            ("å/+", "å/ö", true),
            ("a/b/#", "a", false),
            ("a", "", false),
            ("+/+/#", "a/b", true),
        ];
        for (filter, topic, expected) in cases {
            assert_eq!(matches(filter, topic), expected, "{filter} {topic}");
        }
    }
}
