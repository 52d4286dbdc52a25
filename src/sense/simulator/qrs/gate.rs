//! Who may pass: the Xrfkey that keeps foreign web pages out, and the user the call is made for.

use hyper::Uri;

use super::super::{
    http::Call,
    plan::{OnMissingUser, Plan, Role, TaskKind},
    reply::Reply,
};
use super::query::xrfkey;

/// The repository's own words.
pub const XSRF: &str = "XSRF prevention check failed. Possible XSRF discovered.";
/// Who a call without a user header is made for.
const CERTIFICATE_USER: &str = r"INTERNAL\sa_repository";

/// What a caller sees and may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rights {
    /// Everything.
    All,
    /// Everything but users, licence, external programs and user synchronisations.
    Content,
    /// Nothing.
    None,
}

impl Rights {
    /// Whether tasks of a kind are seen, started and changed.
    pub fn cover(self, kind: TaskKind) -> bool {
        match self {
            Self::All => true,
            Self::Content => kind.has_app(),
            Self::None => false,
        }
    }
}

/// For whom a call is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// `DIR\user`
    pub name: String,
    /// What the caller sees and may do.
    pub rights: Rights,
}

/// Lets a call pass, or says why not.
pub fn admit(call: &Call, plan: &Plan) -> Result<Caller, Reply> {
    if !plan.allowed_hosts.is_empty() && !is_addressed(call, &plan.allowed_hosts) {
        return Err(wrong_host());
    }
    if !keys_agree(call) {
        return Err(Reply::text(403, XSRF));
    }
    let Some(header) = call.headers.get("x-qlik-user") else {
        return match plan.on_missing_user {
            OnMissingUser::Admin => Ok(Caller { name: CERTIFICATE_USER.to_owned(), rights: Rights::All }),
            OnMissingUser::Forbidden => Err(Reply::text(403, "Forbidden: the call names no user (X-Qlik-User)")),
        };
    };
    // Names may carry bytes beyond ASCII; the header is then not "text" for the HTTP library.
    let text = String::from_utf8_lossy(header.as_bytes());
    let malformed = || Reply::text(403, "Forbidden: expected X-Qlik-User: UserDirectory=DIR; UserId=user");
    let (directory, id) = user(&text).ok_or_else(malformed)?;
    let same = |a: &str, b: &str| a.to_lowercase() == b.to_lowercase();
    let known = plan.users.iter().find(|user| same(&user.directory, directory) && same(&user.id, id));
    let name = format!("{directory}\\{id}");
    match known.map(|user| user.role) {
        Some(Role::Inactive) => Err(Reply::text(403, "Forbidden: Your account is inactive.")),
        Some(Role::Admin) => Ok(Caller { name, rights: Rights::All }),
        Some(Role::ContentAdmin) => Ok(Caller { name, rights: Rights::Content }),
        Some(Role::None) => Ok(Caller { name, rights: Rights::None }),
        None => Err(Reply::text(403, format!("Forbidden: the user {name} is not known"))),
    }
}

/// Whether a call names one of these hosts, whatever its port.
fn is_addressed(call: &Call, hosts: &[String]) -> bool {
    let named = call.header("host").and_then(|host| host.parse::<Uri>().ok());
    let named = named.as_ref().and_then(Uri::host);
    named.is_some_and(|named| hosts.iter().any(|host| host.eq_ignore_ascii_case(named)))
}

/// What a proxy says that is addressed by a name it does not know.
fn wrong_host() -> Reply {
    let page = "<!DOCTYPE html>\n<html><head><title>400 Bad Request</title></head><body>\
                <h1>The http request header is incorrect.</h1></body></html>\n";
    Reply::html(400, page)
}

fn keys_agree(call: &Call) -> bool {
    let key = xrfkey(&call.query);
    let sound = |key: &str| key.len() == 16 && key.bytes().all(|byte| byte.is_ascii_alphanumeric());
    key.is_some_and(sound) && key == call.header("x-qlik-xrfkey")
}

/// `UserDirectory=INTERNAL; UserId=sa_repository`: names of the parts in any case, the blank optional.
fn user(text: &str) -> Option<(&str, &str)> {
    let part = |name: &str| {
        let parts = text.split(';').filter_map(|part| part.split_once('='));
        parts.filter(|(key, _)| key.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    };
    Some((part("UserDirectory")?, part("UserId")?)).filter(|(directory, id)| !directory.is_empty() && !id.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sense::simulator::{http::Connection, plan::DEFAULT_SITE};

    fn call(query: &str, headers: &[(&'static str, &str)]) -> Call {
        Call {
            method: "GET".to_owned(),
            path: "/qrs/about".to_owned(),
            query: query.to_owned(),
            headers: headers.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect(),
            body: bytes::Bytes::new(),
            connection: Connection { number: 1, peer: ([127, 0, 0, 1], 1).into(), certificate: None },
        }
    }

    #[test]
    fn the_key_must_be_there_twice() {
        let plan = Plan::parse(DEFAULT_SITE, "built in").unwrap();
        let key = "0123456789abcdEF";
        let cases = [
            (format!("xrfkey={key}"), Some(key), true),
            (format!("filter=a&XrfKey={key}"), Some(key), true),
            (String::new(), Some(key), false),
            (format!("xrfkey={key}"), None, false),
            (format!("xrfkey={key}"), Some("0123456789abcdEG"), false),
            ("xrfkey=short".to_owned(), Some("short"), false),
            ("xrfkey=0123456789abcd-F".to_owned(), Some("0123456789abcd-F"), false),
        ];
        assert_eq!(cases.len(), 7);
        for (query, header, passes) in cases {
            let headers: Vec<_> = header.map(|key| ("x-qlik-xrfkey", key)).into_iter().collect();
            let admitted = admit(&call(&query, &headers), &plan);
            assert_eq!(admitted.is_ok(), passes, "{query} {header:?}");
            if let Err(reply) = admitted {
                assert_eq!(reply, Reply::text(403, XSRF));
            }
        }
    }

    #[test]
    fn the_user_must_be_known() {
        let plan = Plan::parse(DEFAULT_SITE, "built in").unwrap();
        let key = "0123456789abcdef";
        let admit = |user: &str| {
            let headers = [("x-qlik-xrfkey", key), ("X-Qlik-User", user)];
            admit(&call(&format!("xrfkey={key}"), &headers), &plan).map(|caller| (caller.name, caller.rights))
        };
        let cases = [
            ("UserDirectory=INTERNAL; UserId=sa_repository", Some((r"INTERNAL\sa_repository", Rights::All))),
            ("userdirectory=internal;userid=SA_API", Some((r"internal\SA_API", Rights::All))),
            ("UserDirectory=LAB; UserId=reader", Some((r"LAB\reader", Rights::None))),
            ("UserDirectory=LAB;UserId=editor", Some((r"LAB\editor", Rights::Content))),
            ("UserDirectory=LAB; UserId=left-company", None),
            ("UserDirectory=LAB; UserId=nobody", None),
            ("LAB\\goran", None),
            ("", None),
        ];
        assert_eq!(cases.len(), 8);
        for (user, expected) in cases {
            let expected = expected.map(|(name, rights)| (name.to_owned(), rights));
            assert_eq!(admit(user).ok(), expected, "{user}");
        }
    }
}
