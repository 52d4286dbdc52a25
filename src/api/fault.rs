//! What goes wrong with a request, and the error body it is told with.
//!
//! Under `/v4` the bodies have the field set and order of the Butler generation in use (restify's `{"code","message"}`; fastify's
//! `{"statusCode","code","error","message"}`, `{"message","error","statusCode"}` for an unknown route, `{"error","message","statusCode"}` for a
//! bad method override, `{"error","code","message","statusCode"}` for a bad path, no `code` where a handler of Butler refuses); elsewhere `{"error":{"code","message","reason_code","request_id"}}`,
//! with `reason_code` where a message was refused. Messages are for people: what, where, what to do.

use std::sync::{
    OnceLock,
    atomic::{AtomicU64, Ordering},
};

use serde_json::{Value, json};

use super::answer::Answer;
use crate::config::settings::Generation;

/// Whose error bodies are spoken at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Under `/v4`: as this generation of Butler.
    V4(Generation),
    /// Everywhere else.
    Own,
}

impl Space {
    /// The space of a path. `/V4` counts as `/v4`: it is Butler's user who mistyped it.
    pub fn of(path: &str, generation: Generation) -> Self {
        match path.as_bytes() {
            [b'/', b'v' | b'V', b'4'] | [b'/', b'v' | b'V', b'4', b'/', ..] => Self::V4(generation),
            _ => Self::Own,
        }
    }
}

/// The kind of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// No such route, or one that is switched off.
    NotFound,
    /// The route exists, the method does not; with the value of `Allow`.
    Method(&'static str),
    /// `X-HTTP-Method-Override` says something else than PUT or DELETE.
    Override,
    /// The body cannot be read.
    Content,
    /// A value is not allowed.
    Value,
    /// What is asked for does not fit what is there.
    Conflict,
    /// Something required is missing.
    Missing,
    /// The path is not percent-encoded text.
    Path,
    /// A key-value pair has no key.
    NoKey,
    /// There is no such namespace of key-value pairs.
    UnknownNamespace,
    /// There is no such key.
    UnknownKey,
    /// The body or message is too large.
    TooLarge,
    /// The topic of a message is none that can be published to.
    Topic,
    /// The broker takes no message of this size.
    MessageTooLarge,
    /// The idempotency key is none.
    BadKey,
    /// The idempotency key was used for another request.
    KeyReused,
    /// A request with this idempotency key is being carried out.
    KeyInUse,
    /// What became of the first request with this idempotency key is not known.
    OutcomeUnknown,
    /// The caller publishes too fast; after so many seconds as many more may be published.
    TooFast(u64),
    /// The caller may not do this from there.
    Forbidden,
    /// The token is none.
    BadToken,
    /// The token's time is over.
    TokenExpired,
    /// The token was revoked.
    TokenRevoked,
    /// The token does not allow this.
    NoRight,
    /// The body did not come in time.
    Slow,
    /// The broker cannot take the message now.
    Unavailable,
    /// There is no room left in the store of the broker, or of key-value pairs.
    StoreFull,
    /// The program's own file cannot be written now; nothing was stored.
    NotStored,
    /// Qlik Sense, or the part that asks it, cannot be reached now; nothing was started.
    SenseUnavailable,
    /// The work took too long.
    Overdue,
    /// A route of Butler that is switched on and not offered here.
    NotOffered,
    /// A configuration file cannot be used.
    Configuration,
    /// A defect of this program.
    Internal,
}

impl Kind {
    /// The HTTP status.
    pub const fn status(self, space: Space) -> u16 {
        match self {
            Self::NotFound => 404,
            Self::Method(_) => 405,
            Self::Missing | Self::NoKey | Self::UnknownNamespace if matches!(space, Space::V4(Generation::V5_4)) => 409,
            Self::Path | Self::UnknownKey if matches!(space, Space::V4(Generation::V5_4)) => 404,
            Self::Override | Self::Content | Self::Value | Self::Missing | Self::Topic | Self::BadKey => 400,
            Self::Path | Self::NoKey | Self::UnknownNamespace | Self::UnknownKey => 400,
            Self::Conflict | Self::KeyInUse | Self::OutcomeUnknown => 409,
            Self::TooLarge | Self::MessageTooLarge => 413,
            Self::KeyReused | Self::Configuration => 422,
            Self::TooFast(_) => 429,
            Self::BadToken | Self::TokenExpired | Self::TokenRevoked => 401,
            Self::Forbidden | Self::NoRight => 403,
            Self::Slow => 408,
            Self::Unavailable | Self::SenseUnavailable | Self::NotStored | Self::Overdue => 503,
            Self::StoreFull => 507,
            Self::NotOffered => 501,
            Self::Internal => 500,
        }
    }

    /// The `code` of restify's errors.
    const fn restify(self) -> &'static str {
        match self {
            Self::NotFound | Self::Path | Self::UnknownKey => "ResourceNotFound",
            Self::Method(_) => "MethodNotAllowed",
            Self::Override | Self::Value | Self::Topic | Self::BadKey | Self::Configuration => "BadRequest",
            Self::Conflict | Self::KeyInUse | Self::OutcomeUnknown => "Conflict",
            Self::KeyReused => "UnprocessableEntity",
            Self::TooFast(_) => "TooManyRequests",
            Self::Content => "InvalidContent",
            Self::Missing | Self::NoKey | Self::UnknownNamespace => "MissingParameter",
            Self::TooLarge | Self::MessageTooLarge => "PayloadTooLarge",
            Self::BadToken | Self::TokenExpired | Self::TokenRevoked => "InvalidCredentials",
            Self::Forbidden | Self::NoRight => "Forbidden",
            Self::Slow => "RequestTimeout",
            Self::Unavailable | Self::SenseUnavailable | Self::NotStored | Self::Overdue => "ServiceUnavailable",
            Self::StoreFull => "InsufficientStorage",
            Self::NotOffered => "NotImplemented",
            Self::Internal => "Internal",
        }
    }

    /// The `code` of fastify's errors, where it has one for this; our own word otherwise.
    const fn fastify(self) -> &'static str {
        match self {
            Self::Content => "FST_ERR_CTP_INVALID_JSON_BODY",
            Self::Path => "FST_ERR_BAD_URL",
            Self::Value | Self::Missing => "FST_ERR_VALIDATION",
            Self::TooLarge => "FST_ERR_CTP_BODY_TOO_LARGE",
            other => other.word(),
        }
    }

    /// The `code` in a space; `None`: bodies of this kind have none there.
    pub(super) const fn code(self, space: Space) -> Option<&'static str> {
        match (space, self) {
            (Space::Own, kind) => Some(kind.word()),
            (Space::V4(Generation::V5_4), kind) => Some(kind.restify()),
            (Space::V4(Generation::Head), Self::NotFound | Self::Override) => None,
            (Space::V4(Generation::Head), Self::NoKey | Self::UnknownNamespace | Self::UnknownKey) => None,
            (Space::V4(Generation::Head), kind) => Some(kind.fastify()),
        }
    }

    /// The `code` on our own routes, and the reason in metrics.
    pub const fn word(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::Method(_) => "method_not_allowed",
            Self::Override => "bad_method_override",
            Self::Content => "unreadable_body",
            Self::Value => "invalid_value",
            Self::Missing => "missing_value",
            Self::Path => "bad_path",
            Self::NoKey => "no_key",
            Self::UnknownNamespace => "unknown_namespace",
            Self::UnknownKey => "unknown_key",
            Self::Conflict => "conflict",
            Self::TooLarge => "too_large",
            Self::Topic => "bad_topic",
            Self::MessageTooLarge => "message_too_large",
            Self::BadKey => "bad_idempotency_key",
            Self::KeyReused => "idempotency_key_reused",
            Self::KeyInUse => "idempotency_key_in_use",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::TooFast(_) => "rate_limited",
            Self::Forbidden => "forbidden",
            Self::BadToken => "bad_token",
            Self::TokenExpired => "token_expired",
            Self::TokenRevoked => "token_revoked",
            Self::NoRight => "insufficient_rights",
            Self::Slow => "body_timeout",
            Self::Unavailable => "broker_unavailable",
            Self::SenseUnavailable => "qrs_unreachable",
            Self::Overdue => "timeout",
            Self::StoreFull => "store_full",
            Self::NotStored => "not_stored",
            Self::NotOffered => "not_offered",
            Self::Configuration => "invalid_configuration",
            Self::Internal => "internal",
        }
    }
}

/// A fault with its sentence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What kind.
    pub kind: Kind,
    /// The sentence.
    pub message: String,
    /// MQTT's word for it (MQTT 5.0 section 2.4), where a message was refused.
    pub reason_code: Option<u8>,
}

impl Fault {
    /// A fault of a kind, with its sentence.
    pub fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), reason_code: None }
    }

    /// With MQTT's reason code.
    #[must_use]
    pub fn with_reason(self, code: u8) -> Self {
        Self { reason_code: Some(code), ..self }
    }

    /// It as our own routes tell it.
    pub(super) fn told(&self) -> Value {
        let (code, message) = (self.kind.word(), self.message.as_str());
        match self.reason_code {
            None => json!({"error": {"code": code, "message": message, "request_id": request_id()}}),
            Some(reason) => json!({
                "error": {"code": code, "message": message, "reason_code": reason, "request_id": request_id()}
            }),
        }
    }

    /// The answer that tells it.
    pub fn answer(&self, space: Space) -> Answer {
        let status = self.kind.status(space);
        let reason = reason(status);
        let (kind, message) = (self.kind, self.message.as_str());
        let body = match (space, kind) {
            (Space::V4(Generation::V5_4), _) => json!({"code": kind.restify(), "message": message}),
            (Space::V4(Generation::Head), Kind::NotFound) => {
                json!({"message": message, "error": reason, "statusCode": status})
            }
            (Space::V4(Generation::Head), Kind::Override) => {
                json!({"error": reason, "message": message, "statusCode": status})
            }
            (Space::V4(Generation::Head), Kind::Path) => {
                json!({"error": reason, "code": kind.fastify(), "message": message, "statusCode": status})
            }
            (Space::V4(Generation::Head), Kind::NoKey | Kind::UnknownNamespace | Kind::UnknownKey) => {
                json!({"statusCode": status, "error": reason, "message": message})
            }
            (Space::V4(Generation::Head), _) => {
                json!({"statusCode": status, "code": kind.fastify(), "error": reason, "message": message})
            }
            (Space::Own, _) => self.told(),
        };
        let answer = Answer::json(status, body.to_string());
        match kind {
            Kind::Method(allow) => answer.with("allow", allow),
            // RFC 6750 section 3
            Kind::BadToken | Kind::TokenExpired | Kind::TokenRevoked => {
                answer.with("www-authenticate", r#"Bearer realm="sense-butler", error="invalid_token""#)
            }
            Kind::NoRight => {
                answer.with("www-authenticate", r#"Bearer realm="sense-butler", error="insufficient_scope""#)
            }
            Kind::TooFast(seconds) => answer.with("retry-after", seconds.to_string()),
            Kind::Unavailable | Kind::NotStored | Kind::Overdue | Kind::KeyInUse => answer.with("retry-after", "1"),
            // A Qlik service that restarts takes its time.
            Kind::SenseUnavailable => answer.with("retry-after", "5"),
            // The rest of the body is still on its way: this connection cannot carry another request.
            Kind::TooLarge | Kind::Slow => answer.with("connection", "close"),
            _ => answer,
        }
    }
}

/// The reason phrase of a status we use (RFC 9110 section 15).
const fn reason(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Payload Too Large",
        422 => "Unprocessable Content",
        429 => "Too Many Requests",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        507 => "Insufficient Storage",
        _ => "Internal Server Error",
    }
}

/// A name for one failed request: unique in this run, and telling runs apart.
pub fn request_id() -> String {
    static RUN: OnceLock<u32> = OnceLock::new();
    static NEXT: AtomicU64 = AtomicU64::new(1);
    let run = RUN.get_or_init(|| uuid::Uuid::new_v4().as_fields().0);
    format!("{run:08x}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_generation_has_its_field_set() {
        let text = |kind, space| {
            let answer = Fault::new(kind, "m").answer(space);
            (answer.status, String::from_utf8(answer.body.to_vec()).unwrap())
        };
        let (old, head) = (Space::V4(Generation::V5_4), Space::V4(Generation::Head));
        let cases = [
            (Kind::NotFound, old, 404, r#"{"code":"ResourceNotFound","message":"m"}"#),
            (Kind::NotFound, head, 404, r#"{"message":"m","error":"Not Found","statusCode":404}"#),
            (Kind::Missing, old, 409, r#"{"code":"MissingParameter","message":"m"}"#),
            (
                Kind::Missing,
                head,
                400,
                r#"{"statusCode":400,"code":"FST_ERR_VALIDATION","error":"Bad Request","message":"m"}"#,
            ),
            (Kind::Override, head, 400, r#"{"error":"Bad Request","message":"m","statusCode":400}"#),
        ];
        for (kind, space, status, body) in cases {
            assert_eq!(text(kind, space), (status, body.to_owned()), "{kind:?} {space:?}");
        }
        let (status, body) = text(Kind::Forbidden, Space::Own);
        assert_eq!(status, 403);
        assert!(body.starts_with(r#"{"error":{"code":"forbidden","message":"m","request_id":""#), "{body}");
    }

    #[test]
    fn the_space_of_a_path() {
        let v4 = Space::V4(Generation::Head);
        for (path, space) in [
            ("/v4", v4),
            ("/v4/x", v4),
            ("/V4/ButlerPing", v4),
            ("/v44", Space::Own),
            ("/", Space::Own),
            ("/api/v1/status", Space::Own),
            ("", Space::Own),
        ] {
            assert_eq!(Space::of(path, Generation::Head), space, "{path}");
        }
    }
}
