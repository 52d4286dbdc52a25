//! Every `code` of an error body outside Butler's `/v4`: its status, what it means, what to do. `docs/errors.md` is this table, and the OpenAPI document
//! has its errors from it.
//!
//! The codes of [`Kind`] are all here, which a test sees to; those of a start request are the same by every door and come from the room that
//! starts tasks.

use super::fault::{Kind, Space};

/// A code with its page in the catalogue.
struct Entry {
    kind: Kind,
    meaning: &'static str,
    remedy: &'static str,
}

const fn entry(kind: Kind, meaning: &'static str, remedy: &'static str) -> Entry {
    Entry { kind, meaning, remedy }
}

/// The codes of the server itself.
const OWN: &[Entry] = &[
    entry(
        Kind::Content,
        "the body is not what its form asks for: no UTF-8, no JSON",
        "correct the body; the message names the place",
    ),
    entry(Kind::Value, "a value is not allowed, or a name is not known", "correct it; the message names it"),
    entry(Kind::Missing, "something required is not there", "add it; the message names it"),
    entry(
        Kind::Topic,
        "the topic cannot be published to: empty, with a wildcard, beginning with `$`, too long",
        "publish to another topic",
    ),
    entry(
        Kind::BadKey,
        "the idempotency key is empty, longer than 255 characters, or given twice and not alike",
        "send one key",
    ),
    entry(Kind::Path, "the path is not percent-encoded UTF-8", "encode it"),
    entry(Kind::Override, "`X-HTTP-Method-Override` is neither PUT nor DELETE", "send one of the two, with POST"),
    entry(Kind::NoKey, "a key-value pair has no key", "name the key"),
    entry(Kind::UnknownNamespace, "there is no such namespace of key-value pairs", "store something in it first"),
    entry(Kind::UnknownKey, "there is no such key, or its time is over", "store it"),
    entry(
        Kind::BadToken,
        "the token is none that is known",
        "check what is sent as `Authorization: Bearer`; make one with `sense-butler token create`",
    ),
    entry(Kind::TokenExpired, "the token's time is over", "make a new one"),
    entry(Kind::TokenRevoked, "the token was revoked", "ask the administrator for another"),
    entry(Kind::NoRight, "the token does not allow this, or not on this topic", "make one that does"),
    entry(
        Kind::Forbidden,
        "the caller may not do this: not from this address, not from this web page, not on this topic",
        "the message names the line to add, if one may be added",
    ),
    entry(
        Kind::NotFound,
        "there is nothing at this path, or it is switched off",
        "check the path and `restServerEndpointsEnable`",
    ),
    entry(Kind::Method(""), "the path is there, not with this method", "`Allow` lists those it has"),
    entry(Kind::Slow, "the body did not arrive in time", "send it faster"),
    entry(Kind::Conflict, "what is asked for does not fit what is there", "the message says what is there"),
    entry(
        Kind::KeyInUse,
        "a request with this idempotency key is still being carried out",
        "send it again to hear what became of it",
    ),
    entry(
        Kind::OutcomeUnknown,
        "the first request with this idempotency key may have been carried out or not",
        "to publish it, perhaps a second time, use another key",
    ),
    entry(Kind::TooLarge, "the body is too large", "send less, or raise `restServerConfig.maxBodyBytes`"),
    entry(
        Kind::MessageTooLarge,
        "the broker takes no message of this size",
        "send less, or raise `limits.packet_size` in `broker.toml`",
    ),
    entry(
        Kind::KeyReused,
        "the idempotency key was used for another request within 24 hours",
        "use another key for another request",
    ),
    entry(
        Kind::Configuration,
        "the configuration files cannot be used as they are; what was in force stays",
        "correct them; the message names the places",
    ),
    entry(Kind::TooFast(0), "too much in too little time; nothing was done", "`Retry-After` says when"),
    entry(Kind::Internal, "a defect of sense-butler", "report it, with the log around the `request_id`"),
    entry(Kind::NotOffered, "this is not offered here", "the message says by whom it is"),
    entry(
        Kind::Unavailable,
        "the broker cannot take the message now",
        "try again after `Retry-After`; with an idempotency key, nothing doubles",
    ),
    entry(
        Kind::SenseUnavailable,
        "Qlik Sense cannot be asked now",
        "try again after `Retry-After`; `/readyz` shows how it is",
    ),
    entry(
        Kind::NotStored,
        "the file `sense.redb` cannot be written now; nothing was done",
        "check the disk; `/readyz` shows how it is",
    ),
    entry(
        Kind::Overdue,
        "no answer in time; the outcome is unknown",
        "look before you repeat it, or repeat it with the same idempotency key",
    ),
    entry(
        Kind::StoreFull,
        "there is no room in the broker's store, or for key-value pairs",
        "make room, or raise the limit the message names",
    ),
];

/// Codes of the room that starts tasks, where they are the code of a whole answer: (code, status, meaning, what to do).
const STARTS: &[(&str, u16, &str, &str)] = &[
    ("empty", 400, "the start request is empty", "send a task id or a JSON object"),
    ("not_text", 400, "it is not UTF-8", "send it as UTF-8"),
    ("not_an_id", 400, "what stands there is no task id", "copy the id from the QMC"),
    ("bad_json", 400, "it is not JSON", "correct it"),
    ("unknown_field", 400, "it has a field that is not known", "correct or remove it"),
    ("bad_request", 400, "its fields do not go together, or one has a wrong value", "correct it; the message names it"),
    ("task_filter", 403, "`startTaskFilter` does not let this task be started or stopped", "list it there"),
    ("user_filter", 403, "`startTask.users` does not let this caller start or stop this task", "list it there"),
    ("unknown_execution", 404, "Qlik Sense has no trace of the execution", "check the id"),
    ("not_running", 409, "the execution has ended", "nothing needs to be done"),
    (
        "requester_busy",
        429,
        "this caller has too many requests under way; nothing was started",
        "wait for one to end, or raise `startTask.limits.atOncePerRequester`",
    ),
    ("busy", 503, "too many start requests are under way; nothing was started", "try again after `Retry-After`"),
    ("not_kept", 503, "the request could not be written to disk; nothing was started", "check the disk"),
    ("qrs_refused", 503, "Qlik Sense refuses our user, or what it was asked for", "the message says what it said"),
    ("stopping", 503, "the program is stopping; nothing was started", "try again when it is up"),
    (
        "undecided",
        503,
        "no answer came from Qlik Sense; it may have done what it was asked for",
        "look in the QMC before you repeat it",
    ),
];

/// What is told under a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Line {
    /// The code of our own routes.
    pub word: &'static str,
    /// HTTP status.
    pub status: u16,
    /// What stands in the body; `None`: no code.
    pub code: Option<&'static str>,
    pub meaning: &'static str,
    pub remedy: &'static str,
}

/// The line of a code, as it is told in a space; `None`: there is no such code.
pub(super) fn line(word: &str, space: Space) -> Option<Line> {
    let own = OWN.iter().find(|entry| entry.kind.word() == word).map(|entry| Line {
        word: entry.kind.word(),
        status: entry.kind.status(space),
        code: entry.kind.code(space),
        meaning: entry.meaning,
        remedy: entry.remedy,
    });
    let start = |&(word, status, meaning, remedy)| Line { word, status, code: Some(word), meaning, remedy };
    own.or_else(|| STARTS.iter().find(|(code, ..)| *code == word).map(start))
}

/// Every code.
#[cfg(test)]
pub(super) fn words() -> impl Iterator<Item = &'static str> {
    OWN.iter().map(|entry| entry.kind.word()).chain(STARTS.iter().map(|(code, ..)| *code))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;

    /// The page.
    fn page() -> String {
        let own =
            OWN.iter().map(|entry| (entry.kind.word(), entry.kind.status(Space::Own), entry.meaning, entry.remedy));
        let mut rows: Vec<_> = own.chain(STARTS.iter().copied()).collect();
        rows.sort_by_key(|(code, status, ..)| (*status, *code));
        let mut page = String::from(
            "# Errors\n\nEvery error body outside `/v4` has the same form; `code` is for programs and stays as it is, `message` for people and may\n\
             change. `reason_code` is there where a message was refused: MQTT's word for it.\n\n```\n\
             {\"error\":{\"code\":\"bad_topic\",\"message\":\"the topic cannot be published to: …\",\"reason_code\":144,\"request_id\":\"028bc58c-1\"}}\n\
             ```\n\nThese are all codes. What becomes of each task of a start request is told by a `status` and a `code` of its own\n\
             ([tasks](tasks.md#the-answer)). Under `/v4`, errors have Butler's form and Butler's status. This page is made from the program.\n\n\
             | status | code | meaning | what to do |\n|---|---|---|---|\n",
        );
        for (code, status, meaning, remedy) in rows {
            page.push_str(&format!("| {status} | `{code}` | {meaning} | {remedy} |\n"));
        }
        page
    }

    fn root() -> &'static Path {
        Path::new(env!("CARGO_MANIFEST_DIR"))
    }

    /// `WRITE_DOCS=1` writes the page anew.
    #[test]
    fn the_page_is_what_the_program_says() {
        let file = root().join("docs/errors.md");
        if std::env::var_os("WRITE_DOCS").is_some() {
            fs::write(&file, page()).unwrap();
        }
        assert_eq!(fs::read_to_string(file).unwrap(), page(), "WRITE_DOCS=1 makes it anew");
    }

    #[test]
    fn every_code_has_its_line_once() {
        let codes: Vec<&str> =
            OWN.iter().map(|entry| entry.kind.word()).chain(STARTS.iter().map(|(code, ..)| *code)).collect();
        let distinct: BTreeSet<&str> = codes.iter().copied().collect();
        assert_eq!(distinct.len(), codes.len());
        // The words are written in one function, one arm each.
        let text = fs::read_to_string(root().join("src/api/fault.rs")).unwrap();
        let (_, function) = text.split_once("pub const fn word(self)").unwrap();
        let words: BTreeSet<&str> = function.split("\n    }\n").next().unwrap().split('"').skip(1).step_by(2).collect();
        let own: BTreeSet<&str> = OWN.iter().map(|entry| entry.kind.word()).collect();
        assert_eq!(words, own);
        assert!(words.len() > 30, "{words:?}");
    }

    #[test]
    fn the_codes_of_starts_are_those_of_the_room_that_starts() {
        let mut rooms = String::new();
        for directory in ["src/sense/tasks", "src/sense/tasks/starter"] {
            let files = fs::read_dir(root().join(directory)).unwrap().map(|file| file.unwrap().path());
            files.filter(|path| path.is_file()).for_each(|path| rooms += &fs::read_to_string(path).unwrap());
        }
        let strange: Vec<_> = STARTS.iter().filter(|(code, ..)| !rooms.contains(&format!("\"{code}\""))).collect();
        assert!(strange.is_empty(), "{strange:?}");
    }
}
