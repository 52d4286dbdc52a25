//! `application/x-www-form-urlencoded` (WHATWG URL standard): the body of an HTML form, and the query of a URL.

use percent_encoding::percent_decode_str;

/// The pairs of a form, in order; `Err` where a name or value is no UTF-8 after decoding.
pub(super) fn pairs(text: &str) -> impl Iterator<Item = Result<(String, String), std::str::Utf8Error>> {
    text.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        Ok((decode(key)?, decode(value)?))
    })
}

fn decode(text: &str) -> Result<String, std::str::Utf8Error> {
    percent_decode_str(&text.replace('+', " ")).decode_utf8().map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms() {
        let read = |text| pairs(text).collect::<Result<Vec<_>, _>>();
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(
            read("topic=a%2Fb&message=x+y%2B%C3%A4&&flag"),
            Ok(vec![pair("topic", "a/b"), pair("message", "x y+ä"), pair("flag", "")])
        );
        assert_eq!(read("a=%zz"), Ok(vec![pair("a", "%zz")]), "what is no escape stays as it is");
        assert!(read("a=%E5").is_err());
        assert_eq!(read(""), Ok(vec![]));
    }
}
