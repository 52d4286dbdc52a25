//! What the resources below `/api/v1/broker` share: the desk, pages, names in paths.
//!
//! A page is asked for with `limit` (1 to 1,000; 100 if absent) and `from`, the `next` of the page before: opaque, and safe in a URL. What a query
//! names and is not known is refused, so that a mistyped filter does not show everything.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use percent_encoding::percent_decode_str;
use serde_json::Value;

use super::{
    answer::{Answer, Request},
    fault::{Fault, Kind},
    form,
    state::State,
};
use crate::bus::desk::{Cursor, Desk, DeskError, LARGEST_PAGE, PageAsk};

/// Rows of a page if no other number is asked for.
const USUAL: usize = 100;

/// The desk of the built-in broker.
///
/// # Errors
/// 501 with a broker elsewhere.
pub(super) fn desk(state: &State) -> Result<&Desk, Fault> {
    state.setup.desk.as_ref().ok_or_else(|| {
        let message =
            format!("only the built-in broker can be looked at here, and it is not in use: {}", state.setup.broker);
        Fault::new(Kind::NotOffered, message)
    })
}

impl From<DeskError> for Fault {
    fn from(error: DeskError) -> Self {
        let kind = match error {
            DeskError::Stopping => Kind::Unavailable,
            DeskError::Overdue => Kind::Overdue,
        };
        Self::new(kind, error.to_string())
    }
}

/// The query of a request, each name at most once.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// # Errors
    /// 400 where it is no UTF-8, or has other names than `known`, or one of them twice.
    pub(super) fn read(request: &Request, known: &[&str]) -> Result<Self, Fault> {
        let wrong = |message: String| Fault::new(Kind::Value, message);
        let pairs = form::pairs(&request.query).collect::<Result<Vec<_>, _>>();
        let pairs = pairs.map_err(|error| wrong(format!("the query is not UTF-8: {error}")))?;
        for (at, (name, _)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let shown: String = name.chars().take(40).collect();
                return Err(wrong(format!("`{shown}` is not known here; the query may have: {}", known.join(", "))));
            }
            if pairs.iter().take(at).any(|(before, _)| before == name) {
                return Err(wrong(format!("`{name}` is in the query twice")));
            }
        }
        Ok(Self(pairs))
    }

    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// # Errors
    /// 400 for anything but `true` and `false`.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Fault> {
        match self.get(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(_) => Err(Fault::new(Kind::Value, format!("`{name}` must be true or false"))),
        }
    }

    /// # Errors
    /// 400 for a `limit` that is none and a `from` that was no `next`.
    pub(super) fn page(&self, most: usize) -> Result<PageAsk, Fault> {
        let most = most.min(LARGEST_PAGE);
        let limit = match self.get("limit") {
            None => USUAL.min(most),
            Some(text) => text
                .parse()
                .ok()
                .filter(|limit| (1..=most).contains(limit))
                .ok_or_else(|| Fault::new(Kind::Value, format!("`limit` must be a number from 1 to {most}")))?,
        };
        let from = self.get("from").map(|text| {
            let bytes = URL_SAFE_NO_PAD.decode(text).ok();
            bytes.and_then(|bytes| String::from_utf8(bytes).ok()).map(Cursor::new)
        });
        match from {
            Some(None) => Err(Fault::new(Kind::Value, "`from` must be the `next` of an earlier answer")),
            Some(from) => Ok(PageAsk { limit, from }),
            None => Ok(PageAsk { limit, from: None }),
        }
    }
}

/// `next` as it is written in answers.
pub(super) fn next(cursor: Option<&Cursor>) -> Value {
    cursor.map_or(Value::Null, |cursor| URL_SAFE_NO_PAD.encode(cursor.as_str()).into())
}

/// What a path names behind `root`, percent-decoded.
///
/// # Errors
/// 400 where it is no UTF-8.
pub(super) fn named(request: &Request, root: &str) -> Result<String, Fault> {
    let name = request.path.strip_prefix(root).unwrap_or_default();
    let text = percent_decode_str(name).decode_utf8();
    text.map(std::borrow::Cow::into_owned)
        .map_err(|error| Fault::new(Kind::Value, format!("the name in the path is not UTF-8: {error}")))
}

/// An answer that is old as soon as it is there.
pub(super) fn answer(body: &Value) -> Answer {
    Answer::json(200, body.to_string()).with("cache-control", "no-store")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(path: &str, query: &str) -> Request {
        Request {
            method: "GET".into(),
            path: path.into(),
            query: query.into(),
            headers: Vec::new(),
            body: bytes::Bytes::new(),
            peer: ([127, 0, 0, 1], 1).into(),
            token: None,
            visit: None,
            lane: None,
        }
    }

    #[test]
    fn queries_are_taken_strictly() {
        let page =
            |query: &str| Query::read(&request("/", query), &["limit", "from"]).and_then(|query| query.page(200));
        let read = |query: &str| page(query).map(|page| (page.limit, page.from.map(|from| from.as_str().to_owned())));
        assert_eq!(read(""), Ok((100, None)));
        let text = URL_SAFE_NO_PAD.encode("å\0b/#");
        assert_eq!(read(&format!("limit=200&from={text}")), Ok((200, Some("å\0b/#".to_owned()))));
        assert_eq!(next(Some(&Cursor::new("å\0b/#"))), Value::from(text));
        for wrong in ["limit=0", "limit=201", "limit=x", "from=%21", "from=_w", "limt=5", "limit=1&limit=2", "a=%ff"] {
            assert_eq!(read(wrong).unwrap_err().kind, Kind::Value, "{wrong}");
        }
    }

    #[test]
    fn names_are_decoded() {
        assert_eq!(named(&request("/c/a%2Fb%20%C3%A5+", ""), "/c/"), Ok("a/b å+".to_owned()));
        assert_eq!(named(&request("/c/%ff", ""), "/c/").unwrap_err().kind, Kind::Value);
    }
}
