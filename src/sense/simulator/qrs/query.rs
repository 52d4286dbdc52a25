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
    use super::*;

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
}
