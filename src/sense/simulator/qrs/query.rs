//! The query of a call, as the repository reads it: `&` separates, a parameter without a value is an error. A raw `+` is a blank, as in forms:
//! public clients write blanks so and filter with it.

use percent_encoding::percent_decode_str;

/// Why a query is refused; the text is the body of the 400.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// A parameter has no value: typically a raw `&` inside a filter.
    #[error("Missing parameter value(s)")]
    MissingValue,
    /// A percent sign that begins no escape, or bytes that are not UTF-8.
    #[error("Bad Request")]
    Malformed,
}

/// The parameters, decoded, in order; names in lower case.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query(pub Vec<(String, String)>);

impl Query {
    /// Reads a query.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        let parts = text.split('&').filter(|_| !text.is_empty());
        parts.map(parameter).collect::<Result<_, _>>().map(Self)
    }

    /// The value of a parameter; `name` in lower case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
    }
}

fn parameter(part: &str) -> Result<(String, String), QueryError> {
    let (name, value) = part.split_once('=').ok_or(QueryError::MissingValue)?;
    if value.is_empty() {
        return Err(QueryError::MissingValue);
    }
    Ok((decode(name)?.to_lowercase(), decode(value)?))
}

fn decode(text: &str) -> Result<String, QueryError> {
    let escapes_are_whole = text.split('%').skip(1).all(|after| {
        let mut digits = after.bytes().take(2);
        digits.len() == 2 && digits.all(|digit| digit.is_ascii_hexdigit())
    });
    let text = text.replace('+', " ");
    let decoded = percent_decode_str(&text).decode_utf8().ok().filter(|_| escapes_are_whole);
    decoded.map(Into::into).ok_or(QueryError::Malformed)
}

/// The value of the parameter `xrfkey` (whatever its case), without judging the rest of the query.
pub fn xrfkey(text: &str) -> Option<&str> {
    let parts = text.split('&').filter_map(|part| part.split_once('='));
    parts.filter(|(name, _)| name.eq_ignore_ascii_case("xrfkey")).map(|(_, value)| value).next()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::{
        super::super::filter::{Filter, schema},
        *,
    };
    use crate::sense::qrs::filter::Filter as Written;

    #[test]
    fn queries_are_read_as_the_repository_does() {
        let query = Query::parse("Filter=name+eq%20%27a%26b%2Bc%27&Xrfkey=0123456789abcdef").unwrap();
        assert_eq!(query.get("filter"), Some("name eq 'a&b+c'"));
        assert_eq!(query.get("orderby"), None);
        assert_eq!(Query::parse("").unwrap(), Query::default());
        let cases = [
            ("filter=name eq 'a & b'", QueryError::MissingValue),
            ("filter=", QueryError::MissingValue),
            ("filter=100%", QueryError::Malformed),
            ("filter=%zz", QueryError::Malformed),
            ("filter=%ff", QueryError::Malformed),
        ];
        for (text, error) in cases {
            assert_eq!(Query::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn the_key_is_found_whatever_its_case() {
        assert_eq!(xrfkey("a=b&XRFKEY=k"), Some("k"));
        assert_eq!(xrfkey("filter=a & b&xrfkey=k"), Some("k"));
        assert_eq!(xrfkey("filter=a"), None);
    }

    /// As a filter of this program arrives at the repository: beside the key, like every call.
    fn arrived(filter: &Written) -> Filter {
        let query = Query::parse(&format!("filter={}&xrfkey=0123456789abcdef", filter.encoded())).unwrap();
        Filter::parse(query.get("filter").unwrap(), schema::TASK).unwrap()
    }

    fn tagged(tag: &str) -> serde_json::Value {
        json!({ "tags": [{ "name": tag }] })
    }

    #[test]
    fn attempts_to_widen_a_filter_find_their_tag_and_nothing_else() {
        let attempts = [
            "x' or name ne '",
            r"x\' or name ne \'",
            r"\' or 1",
            r"trailing \",
            r"\\'",
            "' or tags.name so '",
            "x) or (name ne 'y'",
            "a&filter=name ne 'x'",
            "a#b",
            "100%",
            "%27 or name ne %27",
            "a+b",
            "''",
        ];
        assert_eq!(attempts.len(), 13);
        for attempt in attempts {
            let filter = arrived(&Written::tag(attempt).unwrap());
            assert!(filter.matches(&tagged(attempt)), "{attempt}");
            assert!(!filter.matches(&tagged("x")) && !filter.matches(&json!({ "name": "y", "tags": [] })), "{attempt}");
        }
    }

    proptest! {
        /// Whatever a tag is called: the filter this program writes finds it, as the repository reads it, and nothing else.
        #[test]
        fn no_name_widens_a_filter(name in "[^\\p{Cc}]{1,40}|['\\\\ &#%+()a-c]{1,12}", other in "[^\\p{Cc}]{1,10}") {
            let filter = arrived(&Written::tag(&name).unwrap());
            prop_assert!(filter.matches(&tagged(&name)));
            prop_assert_eq!(filter.matches(&tagged(&other)), other.to_lowercase() == name.to_lowercase());
            let longer = format!("{name}x");
            prop_assert!(!filter.matches(&tagged(&longer)));
        }

        #[test]
        fn nothing_makes_it_panic(text in ".{0,200}") {
            let _ = Query::parse(&text);
            let _ = xrfkey(&text);
        }
    }
}
