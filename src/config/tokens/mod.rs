//! Tokens for the REST API: who they name, what they allow, until when; and the file they are kept in (`tokens.toml` in the data directory).
//!
//! A token is `sbt_<id>_<secret>`: the id is public and says which one is meant, the secret has 256 bits from the system's random numbers.
//! Invariants: the file holds the SHA-256 of a token and never the token; it is replaced as a whole, never changed in place, so whoever reads
//! it sees all of it or all of what was there before; what in it cannot be understood makes all of it an error, so that no right is read out
//! of half an entry.

mod file;
mod record;

use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    digest::{SHA256, digest},
    rand::{SecureRandom as _, SystemRandom},
};
use time::OffsetDateTime;

pub use self::file::{Look, TokenFile, TokenFileError};
use crate::names::{Secret, TopicFilter};

/// What every token begins with, so that one is known when it is seen where it should not be.
pub const PREFIX: &str = "sbt_";
/// Tokens a file may have.
pub const MOST: usize = 1_000;
/// Bytes of the secret.
const SECRET: usize = 32;
/// Bytes of the id.
const ID: usize = 4;

/// What a token may allow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// Publish messages; where, its topics say.
    Publish,
    /// Start and stop tasks, also by a message on a start topic.
    Start,
    /// Look: tasks, executions, events, users, status, metrics, the built-in broker.
    Read,
    /// Read and write key-value pairs.
    Values,
    /// Disconnect clients and remove retained messages.
    Manage,
}

impl Right {
    /// All there are.
    pub const ALL: [Self; 5] = [Self::Publish, Self::Start, Self::Read, Self::Values, Self::Manage];

    /// The word in the file and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Publish => "publish",
            Self::Start => "start",
            Self::Read => "read",
            Self::Values => "values",
            Self::Manage => "manage",
        }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Right {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|right| right.as_str() == text)
            .ok_or_else(|| format!("`{text}` is no right; they are {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

/// The name of a token: what answers, the audit log and limits say of whoever shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenName(Arc<str>);

impl TokenName {
    /// 1 to 64 letters, digits, blanks, `-`, `_` and `.`, of which the first is a letter: never an address.
    ///
    /// # Errors
    /// Says what a name may be.
    pub fn new(text: &str) -> Result<Self, String> {
        let allowed = |c: char| c.is_alphanumeric() || " -_.".contains(c);
        let is_name = text.starts_with(char::is_alphabetic)
            && text.chars().all(allowed)
            && text.chars().count() <= 64
            && text.trim_end() == text;
        if is_name {
            Ok(Self(text.into()))
        } else {
            Err("the name of a token has 1 to 64 letters, digits, blanks, `-`, `_` and `.`; it begins with a letter"
                .into())
        }
    }

    /// Its text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TokenName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a token stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// It opens what it allows.
    Good,
    /// Its time is over.
    Expired,
    /// It was revoked.
    Revoked,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Good => "good",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        })
    }
}

/// A token, without its secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// Its name.
    pub name: TokenName,
    /// Its public part.
    pub id: String,
    /// Of all of it.
    pub sha256: [u8; 32],
    /// What it allows.
    pub rights: Vec<Right>,
    /// Where it may publish; `None`: wherever anybody may by REST.
    pub topics: Option<Vec<TopicFilter>>,
    /// When it was made.
    pub created: OffsetDateTime,
    /// When its time is over; `None`: never.
    pub expires: Option<OffsetDateTime>,
    /// When it was revoked.
    pub revoked: Option<OffsetDateTime>,
}

/// What a new token is to be.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// Its name.
    pub name: TokenName,
    /// What it allows.
    pub rights: Vec<Right>,
    /// Where it may publish.
    pub topics: Option<Vec<TopicFilter>>,
    /// When its time is over.
    pub expires: Option<OffsetDateTime>,
}

impl Token {
    /// Makes one; the secret is in the text alone.
    ///
    /// # Errors
    /// The system has no random numbers.
    fn make(new: NewToken, now: OffsetDateTime) -> Result<(Self, Secret), TokenFileError> {
        let mut bytes = [0; ID + SECRET];
        SystemRandom::new().fill(&mut bytes).map_err(|_| TokenFileError::NoRandom)?;
        let (id, secret) = bytes.split_first_chunk::<ID>().unwrap_or((&[0; ID], &[]));
        let id = record::hex(id);
        let text = format!("{PREFIX}{id}_{}", URL_SAFE_NO_PAD.encode(secret));
        let sha256 = sha256(&text);
        let NewToken { name, rights, topics, expires } = new;
        let token = Self { name, id, sha256, rights, topics, created: now, expires, revoked: None };
        Ok((token, Secret::new(text)))
    }

    /// How it stands at a moment.
    pub fn standing(&self, now: OffsetDateTime) -> Standing {
        if self.revoked.is_some() {
            Standing::Revoked
        } else if self.expires.is_some_and(|end| end <= now) {
            Standing::Expired
        } else {
            Standing::Good
        }
    }

    /// Whether it has a right.
    pub fn has(&self, right: Right) -> bool {
        self.rights.contains(&right)
    }

    /// Whether its topics have this one among them.
    pub fn covers(&self, topic: &str) -> bool {
        self.topics.as_ref().is_none_or(|topics| topics.iter().any(|filter| filter.matches(topic)))
    }
}

/// The public part of what may be a token.
pub fn id_of(text: &str) -> Option<&str> {
    text.strip_prefix(PREFIX)?.split_once('_').map(|(id, _)| id)
}

/// What the file keeps of a token.
pub fn sha256(text: &str) -> [u8; 32] {
    let mut sum = [0; 32];
    sum.iter_mut().zip(digest(&SHA256, text.as_bytes()).as_ref()).for_each(|(to, from)| *to = *from);
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for good in ["a", "load scripts", "Ä-1_2.x", &"x".repeat(64)] {
            assert_eq!(TokenName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", " a", "a ", "127.0.0.1", "fe80::1", "a\nb", "a/b", &"x".repeat(65)] {
            assert!(TokenName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_token_is_known_by_its_sum_alone() {
        let new = NewToken {
            name: TokenName::new("n").unwrap(),
            rights: vec![Right::Publish],
            topics: Some(vec![TopicFilter::new("plant/#").unwrap()]),
            expires: None,
        };
        let now = OffsetDateTime::UNIX_EPOCH;
        let (token, secret) = Token::make(new.clone(), now).unwrap();
        let (other, other_secret) = Token::make(new, now).unwrap();
        assert!(token.id != other.id && token.sha256 != other.sha256 && secret != other_secret);
        let text = secret.expose();
        assert_eq!((text.len(), id_of(text)), (PREFIX.len() + 8 + 1 + 43, Some(&*token.id)));
        assert_eq!(sha256(text), token.sha256);
        assert!(!format!("{token:?}").contains(text.rsplit('_').next().unwrap()));
        assert!(token.covers("plant/x") && !token.covers("office/x"));
        assert!(token.has(Right::Publish) && !token.has(Right::Start));
    }

    #[test]
    fn standings() {
        let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
        let new = NewToken { name: TokenName::new("n").unwrap(), rights: vec![], topics: None, expires: Some(at(100)) };
        let (mut token, _) = Token::make(new, at(0)).unwrap();
        assert_eq!((token.standing(at(99)), token.standing(at(100))), (Standing::Good, Standing::Expired));
        token.revoked = Some(at(50));
        assert_eq!(token.standing(at(60)), Standing::Revoked);
        assert!(token.covers("anything"));
    }
}
