//! Qlik Sense identifiers: task and execution ids are GUIDs, compared and sent in lower case.

use std::{fmt, str::FromStr};

/// Why a text is not a GUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not an id of Qlik Sense: 8-4-4-4-12 hexadecimal digits are expected, e.g. 0a1b2c3d-0000-4000-8000-000000000001"
)]
pub struct GuidError {
    /// What was found, cut to 60 characters.
    pub text: String,
}

/// 36 ASCII bytes `8-4-4-4-12`, lower-case hex; version and variant are free (Qlik and Butler users have all kinds).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
struct Guid(u128);

impl Guid {
    fn parse(text: &str) -> Result<Self, GuidError> {
        let wrong = || GuidError { text: text.chars().take(60).collect() };
        if text.len() != 36 {
            return Err(wrong());
        }
        let mut value = 0u128;
        for (position, byte) in text.bytes().enumerate() {
            if matches!(position, 8 | 13 | 18 | 23) {
                if byte != b'-' {
                    return Err(wrong());
                }
                continue;
            }
            let digit = char::from(byte).to_digit(16).ok_or_else(wrong)?;
            value = (value << 4) | u128::from(digit);
        }
        Ok(Self(value))
    }
}

impl fmt::Display for Guid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let v = self.0;
        write!(
            f,
            "{:08x}-{:04x}-{:04x}-{:04x}-{:012x}",
            v >> 96,
            (v >> 80) & 0xffff,
            (v >> 64) & 0xffff,
            (v >> 48) & 0xffff,
            v & 0xffff_ffff_ffff
        )
    }
}

macro_rules! guid_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Guid);

        impl $name {
            /// The id `00000000-0000-0000-0000-000000000000`, Qlik's word for "none".
            pub const ZERO: Self = Self(Guid(0));

            /// Makes an id of 128 bits (a random one, say).
            pub const fn from_u128(value: u128) -> Self {
                Self(Guid(value))
            }

            /// Its 128 bits.
            pub const fn to_u128(self) -> u128 {
                self.0.0
            }

            /// Whether this is Qlik's "none" (for a synchronous start: the task did not start).
            pub fn is_zero(&self) -> bool {
                self.0.0 == 0
            }
        }

        impl FromStr for $name {
            type Err = GuidError;
            fn from_str(text: &str) -> Result<Self, GuidError> {
                Guid::parse(text).map(Self)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

guid_newtype!(
    /// The id of a task in Qlik Sense.
    TaskId
);
guid_newtype!(
    /// The id of one execution of a task (`executionID` in QRS, `%property{ExecutionId}` in the logs).
    ExecutionId
);
guid_newtype!(
    /// The id of an app in Qlik Sense.
    AppId
);
guid_newtype!(
    /// The id of an execution result: one attempt of an execution (`id` of `executionresult` in QRS).
    ResultId
);
guid_newtype!(
    /// The handle of a subscription to changes (`value` in the answer of `POST /qrs/notification`).
    SubscriptionHandle
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_case_is_read_and_lower_case_is_written() {
        let id: TaskId = "0000AAAA-0000-4000-8000-00000000000F".parse().unwrap();
        assert_eq!(id.to_string(), "0000aaaa-0000-4000-8000-00000000000f");
        assert!(!id.is_zero());
        assert!("00000000-0000-0000-0000-000000000000".parse::<ExecutionId>().unwrap().is_zero());
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            "abc",
            "{0000aaaa-0000-4000-8000-000000000001}",
            "0000aaaa0000-4000-8000-000000000001--",
            "0000aaaa-0000-4000-8000-00000000000g",
            " 000aaaa-0000-4000-8000-000000000001",
            "0000aaaa-0000-4000-8000-0000000000é",
        ] {
            assert!(text.parse::<TaskId>().is_err(), "{text:?}");
        }
    }
}
