//! What is said of a message that was to be published: in EMQX's shape, or, for load scripts, flat and always 200.
//!
//! `200 {"id"}`: taken; `202 {"id","reason_code":16,"message"}`: taken, and nobody listens; anything else is an error body. With `stored`
//! asked for, `stored` says how many sessions keep it.

use std::{
    fmt::Write as _,
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::wish::{Durability, QUOTA};
use crate::{
    api::{
        answer::Answer,
        fault::{Fault, Kind, Space},
    },
    bus::{PublishError, Routed},
};

/// MQTT 5: "Implementation specific error", what EMQX says of a message it could not hand on.
const NOT_TAKEN: u8 = 0x83;
/// Says that an answer is one that was given before.
const REPLAYED: &str = "idempotent-replayed";

/// What is said of one message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Told {
    /// Empty: it was not taken.
    id: String,
    pub(super) status: u16,
    /// JSON.
    body: String,
    /// Empty: there is none.
    error: String,
}

/// The name of a message: unique, in EMQX's form of 32 hexadecimal digits.
fn id() -> String {
    static RUN: OnceLock<u64> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let run = RUN.get_or_init(|| uuid::Uuid::new_v4().as_u64_pair().0);
    format!("{run:016X}{:016X}", NEXT.fetch_add(1, Ordering::Relaxed))
}

impl Told {
    /// The broker has taken it.
    pub(super) fn taken(routed: Routed, durability: Durability) -> Self {
        let id = id();
        let mut body = format!(r#"{{"id":"{id}""#);
        if durability == Durability::Stored {
            let stored = routed.stored.map_or_else(|| "null".to_owned(), |stored| stored.to_string());
            // Writing into a string cannot fail.
            let _ = write!(body, r#","stored":{stored}"#);
        }
        let unmatched = routed.matched == Some(false);
        body.push_str(if unmatched { r#","reason_code":16,"message":"no_matching_subscribers"}"# } else { "}" });
        Self { id, status: if unmatched { 202 } else { 200 }, body, error: String::new() }
    }

    /// It was not taken.
    pub(super) fn refused(fault: &Fault) -> Self {
        let (status, body) = (fault.kind.status(Space::Own), fault.told().to_string());
        Self { id: String::new(), status, body, error: fault.message.clone() }
    }

    /// The broker's word.
    pub(super) fn of(word: Result<Routed, PublishError>, durability: Durability) -> Self {
        match word {
            Ok(routed) => Self::taken(routed, durability),
            Err(error) => Self::refused(&refused(&error)),
        }
    }

    const fn is_taken(&self) -> bool {
        self.status < 300
    }
}

/// What the broker refuses, as a fault.
pub(super) fn refused(error: &PublishError) -> Fault {
    let (kind, reason) = match error {
        PublishError::TooLarge { .. } => (Kind::MessageTooLarge, QUOTA),
        PublishError::Full(_) => (Kind::StoreFull, QUOTA),
        PublishError::Unavailable(_) | PublishError::Timeout(_) | PublishError::Refused(_) => {
            (Kind::Unavailable, NOT_TAKEN)
        }
    };
    Fault::new(kind, error.to_string()).with_reason(reason)
}

/// What is said of a whole request, and how.
#[derive(Debug)]
pub(super) struct Whole {
    pub told: Vec<Told>,
    /// Messages as an array.
    pub bulk: bool,
    pub soft: bool,
    /// It was said before.
    pub replayed: bool,
}

impl Whole {
    /// 200 where all were taken; 202 where somebody did not listen to one; 503 where one was not taken, 507 if for want of room.
    fn status(&self) -> u16 {
        let (taken, refused): (Vec<&Told>, Vec<&Told>) = self.told.iter().partition(|told| told.is_taken());
        match refused.as_slice() {
            [] if taken.iter().any(|told| told.status == 202) => 202,
            [] => 200,
            [only] if !self.bulk => only.status,
            refused if refused.iter().all(|told| told.status == 507) => 507,
            _ => 503,
        }
    }

    pub(super) fn answer(self) -> Answer {
        let status = self.status();
        let mut answer = if self.soft {
            let first = |text: fn(&Told) -> &String| self.told.iter().map(text).find(|text| !text.is_empty());
            let (error, id) = (first(|told| &told.error), first(|told| &told.id));
            soft(status, error.map_or("", String::as_str), id.map_or("", String::as_str))
        } else if self.bulk {
            let bodies: Vec<&str> = self.told.iter().map(|told| &*told.body).collect();
            Answer::json(status, format!("[{}]", bodies.join(",")))
        } else {
            let body = self.told.into_iter().next().map(|told| told.body);
            Answer::json(status, body.unwrap_or_default())
        };
        answer = answer.with("cache-control", "no-store");
        if self.replayed {
            answer = answer.with(REPLAYED, "true");
        }
        if status == 503 { answer.with("retry-after", "1") } else { answer }
    }
}

/// The answer for load scripts: always 200, always these four fields.
pub(super) fn soft(status: u16, error: &str, id: &str) -> Answer {
    let body = json!({"ok": status < 300, "status": status, "error": error, "id": id});
    Answer::json(200, body.to_string())
}

/// Words to be remembered.
pub(super) fn kept(told: &[Told]) -> Bytes {
    // Texts and numbers: writing them as JSON cannot fail.
    serde_json::to_vec(told).unwrap_or_default().into()
}

/// Words that were remembered; `None`: another version of the program wrote them.
pub(super) fn remembered(kept: &[u8]) -> Option<Vec<Told>> {
    serde_json::from_slice(kept).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(answer: &Answer) -> &str {
        std::str::from_utf8(&answer.body).unwrap()
    }

    fn whole(told: Vec<Told>, bulk: bool, soft: bool) -> Answer {
        Whole { told, bulk, soft, replayed: false }.answer()
    }

    fn told(status: u16) -> Told {
        Told { id: "I".into(), status, body: format!("{{\"s\":{status}}}"), error: String::new() }
    }

    #[test]
    fn bodies() {
        let with = |matched, stored, durability| {
            let told = Told::taken(Routed { matched, stored }, durability);
            assert_eq!(told.id.len(), 32);
            (told.status, told.body.replace(&told.id, "I"))
        };
        let stored = Durability::Stored;
        assert_eq!(with(Some(true), Some(2), Durability::Routed), (200, r#"{"id":"I"}"#.into()));
        assert_eq!(with(None, None, Durability::Routed), (200, r#"{"id":"I"}"#.into()));
        assert_eq!(with(Some(true), Some(2), stored), (200, r#"{"id":"I","stored":2}"#.into()));
        assert_eq!(with(None, None, stored), (200, r#"{"id":"I","stored":null}"#.into()));
        let nobody = r#","reason_code":16,"message":"no_matching_subscribers"}"#;
        assert_eq!(with(Some(false), Some(0), Durability::Routed), (202, format!(r#"{{"id":"I"{nobody}"#)));
        assert_eq!(with(Some(false), Some(0), stored), (202, format!(r#"{{"id":"I","stored":0{nobody}"#)));
        assert_ne!(id(), id());
    }

    #[test]
    fn the_status_of_several() {
        let of = |statuses: &[u16], bulk| {
            let answer = whole(statuses.iter().map(|status| told(*status)).collect(), bulk, false);
            (answer.status, text(&answer).to_owned())
        };
        for (statuses, expected) in [
            (&[200, 200][..], 200),
            (&[200, 202], 202),
            (&[202], 202),
            (&[202, 503], 503),
            (&[200, 507, 507], 507),
            (&[503, 507], 503),
            (&[413], 503),
        ] {
            assert_eq!(of(statuses, true).0, expected, "{statuses:?}");
        }
        assert_eq!(of(&[200, 202], true).1, r#"[{"s":200},{"s":202}]"#);
        assert_eq!(of(&[413], false), (413, r#"{"s":413}"#.into()));
    }

    #[test]
    fn soft_answers_are_flat_and_200() {
        let fault = Fault::new(Kind::StoreFull, "no \"room\"");
        let refused = whole(vec![told(200), Told::refused(&fault)], true, true);
        assert_eq!(refused.status, 200);
        assert_eq!(text(&refused), r#"{"ok":false,"status":507,"error":"no \"room\"","id":"I"}"#);
        let taken = whole(vec![told(202)], false, true);
        assert_eq!(text(&taken), r#"{"ok":true,"status":202,"error":"","id":"I"}"#);
    }

    #[test]
    fn what_is_remembered_is_said_again() {
        let words = vec![told(200), Told::refused(&Fault::new(Kind::Unavailable, "m"))];
        assert_eq!(remembered(&kept(&words)), Some(words.clone()));
        assert_eq!(remembered(b"[1]"), None);
        let answer = Whole { told: words, bulk: true, soft: false, replayed: true }.answer();
        assert!(answer.headers.contains(&(REPLAYED, "true".into())), "{answer:?}");
    }

    #[test]
    fn the_brokers_refusals() {
        let of = |error: PublishError| {
            let fault = refused(&error);
            (fault.kind.status(Space::Own), fault.kind.word(), fault.reason_code)
        };
        assert_eq!(of(PublishError::TooLarge { size: 2, limit: 1 }), (413, "message_too_large", Some(151)));
        assert_eq!(of(PublishError::Full(String::new())), (507, "store_full", Some(151)));
        assert_eq!(of(PublishError::Unavailable(String::new())), (503, "broker_unavailable", Some(131)));
    }
}
