//! The idempotency key of a request: where it may stand, and what it may be.

use crate::api::{
    answer::Request,
    fault::{Fault, Kind},
};

/// What an idempotency key may have, in characters.
const LONGEST_KEY: usize = 255;

/// The key of a request, from the header and from where else it may stand.
///
/// # Errors
/// 400 for one that is empty or too long, and for two that differ.
pub(super) fn read(request: &Request, other: Option<&str>) -> Result<Option<String>, Fault> {
    let bad = |message: &str| Err(Fault::new(Kind::BadKey, message));
    let header = request.header("idempotency-key").map(str::trim);
    let key = match (header, other) {
        (Some(header), Some(other)) if header != other => {
            return bad("`Idempotency-Key` and `key` are two names for one thing; send one, or both alike");
        }
        (header, other) => header.or(other),
    };
    match key {
        Some(key) if key.is_empty() || key.chars().count() > LONGEST_KEY => {
            bad("an idempotency key must have 1 to 255 characters")
        }
        key => Ok(key.map(str::to_owned)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys() {
        let with = |header: Option<&str>, other: Option<&str>| {
            let request = Request {
                method: "POST".into(),
                path: super::super::PATH.into(),
                query: String::new(),
                headers: header.map(|key| ("idempotency-key".into(), key.into())).into_iter().collect(),
                body: bytes::Bytes::new(),
                peer: ([127, 0, 0, 1], 1).into(),
                token: None,
                visit: None,
                lane: None,
            };
            read(&request, other).map_err(|fault| fault.kind)
        };
        assert_eq!(with(None, None), Ok(None));
        assert_eq!(with(Some(" k "), None), Ok(Some("k".into())));
        assert_eq!(with(None, Some("k")), Ok(Some("k".into())));
        assert_eq!(with(Some("k"), Some("k")), Ok(Some("k".into())));
        assert_eq!(with(Some("k"), Some("l")), Err(Kind::BadKey));
        assert_eq!(with(Some(""), None), Err(Kind::BadKey));
        assert_eq!(with(None, Some(&"ä".repeat(256))), Err(Kind::BadKey));
        assert_eq!(with(None, Some(&"ä".repeat(255))), Ok(Some("ä".repeat(255))));
    }
}
