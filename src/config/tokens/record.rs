//! How tokens stand in `tokens.toml`: texts, which a person can read and `sha256sum` can check.

use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::{MOST, Token, TokenName};
use crate::names::TopicFilter;

/// What stands above the tokens.
const HEAD: &str = "# Made by `sense-butler token`. The tokens themselves are not in here, only their SHA-256.\n\n";

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Records {
    #[serde(default)]
    tokens: Vec<Record>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    name: String,
    id: String,
    sha256: String,
    rights: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    topics: Option<Vec<String>>,
    created: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revoked: Option<String>,
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    let mut bytes = [0; 32];
    if text.len() != 2 * bytes.len() {
        return None;
    }
    for (at, byte) in bytes.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
    }
    Some(bytes)
}

fn written(time: OffsetDateTime) -> String {
    // Years from 0 to 9999 have a form; a clock beyond that has none, and then the file says so when it is read.
    time.format(&Rfc3339).unwrap_or_default()
}

/// The text of a file with these tokens.
///
/// # Errors
/// They cannot be written as TOML.
pub(super) fn write(tokens: &[Token]) -> Result<String, String> {
    let record = |token: &Token| Record {
        name: token.name.as_str().to_owned(),
        id: token.id.clone(),
        sha256: hex(&token.sha256),
        rights: token.rights.iter().map(ToString::to_string).collect(),
        topics: token.topics.as_ref().map(|topics| topics.iter().map(|topic| topic.as_str().to_owned()).collect()),
        created: written(token.created),
        expires: token.expires.map(written),
        revoked: token.revoked.map(written),
    };
    let records = Records { tokens: tokens.iter().map(record).collect() };
    Ok(format!("{HEAD}{}", toml::to_string(&records).map_err(|error| error.to_string())?))
}

/// The tokens of a file.
///
/// # Errors
/// Says what is wrong, and with which token.
pub(super) fn read(text: &str) -> Result<Vec<Token>, String> {
    let records: Records = toml::from_str(text).map_err(|error| error.to_string())?;
    if records.tokens.len() > MOST {
        return Err(format!("these are {} tokens; {MOST} are the limit", records.tokens.len()));
    }
    let tokens: Vec<Token> = records.tokens.into_iter().map(token).collect::<Result<_, _>>()?;
    for (at, one) in tokens.iter().enumerate() {
        if tokens.iter().take(at).any(|other| other.name == one.name || other.id == one.id) {
            return Err(format!("name or id of the token `{}` is there twice", one.name));
        }
    }
    Ok(tokens)
}

fn token(record: Record) -> Result<Token, String> {
    let name = TokenName::new(&record.name)?;
    let wrong = |what: &str| format!("`{what}` of the token `{name}` is none");
    let time = |what: &str, text: &str| OffsetDateTime::parse(text, &Rfc3339).map_err(|_| wrong(what));
    let topics = record.topics.map(|topics| topics.into_iter().map(TopicFilter::new).collect::<Result<_, _>>());
    Ok(Token {
        sha256: unhex(&record.sha256).ok_or_else(|| wrong("sha256"))?,
        rights: record.rights.iter().map(|right| right.parse()).collect::<Result<_, _>>()?,
        topics: topics.transpose().map_err(|error| format!("{}: {error}", wrong("topics")))?,
        created: time("created", &record.created)?,
        expires: record.expires.as_deref().map(|text| time("expires", text)).transpose()?,
        revoked: record.revoked.as_deref().map(|text| time("revoked", text)).transpose()?,
        id: record.id,
        name,
    })
}

#[cfg(test)]
mod tests {
    use super::{super::Right, *};

    fn all() -> Vec<Token> {
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        let plain = Token {
            name: TokenName::new("load scripts").unwrap(),
            id: "0a1b2c3d".into(),
            sha256: [0xab; 32],
            rights: vec![Right::Publish, Right::Start],
            topics: None,
            created: at(1_700_000_000),
            expires: None,
            revoked: None,
        };
        let full = Token {
            name: TokenName::new("ä").unwrap(),
            id: "ffffffff".into(),
            topics: Some(vec![TopicFilter::new("plant/#").unwrap()]),
            expires: Some(at(1_800_000_000)),
            revoked: Some(at(1_750_000_000)),
            ..plain.clone()
        };
        vec![plain, full]
    }

    #[test]
    fn what_is_written_is_read() {
        let text = write(&all()).unwrap();
        assert!(text.contains("expires = \"2027-01-15T08:00:00Z\""), "{text}");
        assert_eq!(read(&text), Ok(all()));
        assert_eq!(read(&write(&[]).unwrap()), Ok(Vec::new()));
        assert_eq!(read(""), Ok(Vec::new()));
    }

    #[test]
    fn what_is_half_understood_is_no_token() {
        let text = write(&all()).unwrap();
        let cases = [
            ("name = \"load scripts\"", "name = \"ä\""),
            ("id = \"ffffffff\"", "id = \"0a1b2c3d\""),
            ("\"publish\"", "\"everything\""),
            ("abab", "abxx"),
            ("plant/#", "plant/#/x"),
            ("2027-01-15", "2027-13-15"),
            ("id = ", "identity = "),
            ("created = ", "[[created]]\nx = "),
        ];
        let refused = cases.iter().filter(|(from, to)| read(&text.replacen(from, to, 1)).is_err()).count();
        assert_eq!((refused, cases.len()), (8, 8));
    }
}
