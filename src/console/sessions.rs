//! Who is logged in: random tokens, kept in memory as hashes, with an end.
//!
//! Invariants: a token is 256 random bits and is kept nowhere in the clear; a session ends [`IDLE`] after its last use, [`LONGEST`] after the
//! log-in, with the program, and as soon as `broker.toml` takes the user, the password or the right away; there are at most [`MOST`] sessions, and
//! [`MOST_OF_ONE`] of one user (the one unused for longest makes room).

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use ring::{
    digest,
    rand::{SecureRandom as _, SystemRandom},
};

use super::metrics::LoginCounts;
use crate::{
    bus::desk::{LoginError, Logins, Member},
    names::Secret,
};

/// How long a session lives without being used.
pub const IDLE: Duration = Duration::from_secs(30 * 60);
/// How long a session lives at all.
pub const LONGEST: Duration = Duration::from_secs(12 * 3600);
/// Sessions at a time.
pub const MOST: usize = 64;
/// Sessions of one user at a time.
pub const MOST_OF_ONE: usize = 8;

/// Who uses the console.
#[derive(Debug, Clone)]
pub enum Visitor {
    /// Somebody on this machine, while `broker.toml` names no users: may do everything, as by REST without the console.
    Here,
    /// A user who logged in.
    Member(Member),
}

impl Visitor {
    /// The user's name; `None`: nobody had to log in.
    pub fn name(&self) -> Option<Arc<str>> {
        match self {
            Self::Here => None,
            Self::Member(member) => Some(member.name()),
        }
    }

    /// Whether messages may be published at all.
    pub fn publishes(&self) -> bool {
        match self {
            Self::Here => true,
            Self::Member(member) => member.publishes(),
        }
    }

    /// Whether a message may be published on a topic; on a start topic: whether tasks may be started.
    pub fn may_publish(&self, topic: &str) -> bool {
        match self {
            Self::Here => true,
            Self::Member(member) => member.may_publish(topic),
        }
    }
}

/// Why somebody does not get in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// What the log-in says.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// The system has no random numbers.
    #[error("the system's random generator does not answer; nobody can log in")]
    NoRandom,
}

impl EntryError {
    /// The word in metrics and answers.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Login(LoginError::Wrong) => "wrong",
            Self::Login(LoginError::TooManyFailures) => "login_rate",
            Self::Login(LoginError::Busy) => "login_queue",
            Self::Login(LoginError::NoRight) => "no_right",
            Self::NoRandom => "no_random",
        }
    }
}

struct Kept {
    member: Member,
    begun: Instant,
    used: Instant,
}

impl Kept {
    fn is_over(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.used) >= IDLE || now.saturating_duration_since(self.begun) >= LONGEST
    }
}

/// Tokens are looked up by their hash: comparing a guess with one tells nothing by the time it takes.
type Key = [u8; digest::SHA256_OUTPUT_LEN];

/// See the module.
pub struct Sessions {
    logins: Logins,
    random: SystemRandom,
    kept: Mutex<HashMap<Key, Kept>>,
    counts: LoginCounts,
}

impl Sessions {
    pub(super) fn new(logins: Logins, counts: LoginCounts) -> Self {
        Self { logins, random: SystemRandom::new(), kept: Mutex::default(), counts }
    }

    /// Whether there are users: then nobody comes in without logging in.
    pub fn has_users(&self) -> bool {
        self.logins.has_users()
    }

    /// Whether any user may log in.
    pub fn has_members(&self) -> bool {
        self.logins.has_members()
    }

    /// Logs a user in; gives back the token.
    ///
    /// # Errors
    /// Why not.
    pub async fn log_in(&self, name: &str, password: &Secret, from: IpAddr) -> Result<Secret, EntryError> {
        let entered = self.logins.enter(name, password, from).await.map_err(EntryError::from);
        let token = entered.and_then(|member| self.keep(member, Instant::now()));
        let result = token.as_ref().map_or_else(|error| error.word(), |_| "ok");
        self.counts.get_or_create(&[("result", result)]).inc();
        token
    }

    /// Who comes with this token. `is_here`: from this machine.
    pub fn visitor(&self, token: Option<&str>, is_here: bool) -> Option<Visitor> {
        if !self.has_users() {
            return is_here.then_some(Visitor::Here);
        }
        self.find(token?, Instant::now(), true).map(Visitor::Member)
    }

    /// Whether a visitor with this token would still be let in; does not count as a use.
    pub fn is_open(&self, token: Option<&str>) -> bool {
        match token {
            Some(token) if self.has_users() => self.find(token, Instant::now(), false).is_some(),
            _ => !self.has_users(),
        }
    }

    /// Ends a session.
    pub fn log_out(&self, token: &str) {
        self.kept.lock().remove(&key(token));
    }

    fn keep(&self, member: Member, now: Instant) -> Result<Secret, EntryError> {
        let mut bytes = [0; 32];
        self.random.fill(&mut bytes).map_err(|_| EntryError::NoRandom)?;
        let token = URL_SAFE_NO_PAD.encode(bytes);
        let mut kept = self.kept.lock();
        kept.retain(|_, session| !session.is_over(now));
        let name = member.name();
        make_room(&mut kept, MOST_OF_ONE, |session| session.member.name() == name);
        make_room(&mut kept, MOST, |_| true);
        kept.insert(key(&token), Kept { member, begun: now, used: now });
        Ok(Secret::new(token))
    }

    fn find(&self, token: &str, now: Instant, is_use: bool) -> Option<Member> {
        let (mut kept, key) = (self.kept.lock(), key(token));
        let session = kept.get_mut(&key)?;
        let member = self.logins.renewed(&session.member).filter(|_| !session.is_over(now));
        match &member {
            Some(member) => {
                session.member = member.clone();
                if is_use {
                    session.used = now;
                }
            }
            None => drop(kept.remove(&key)),
        }
        member
    }
}

/// Ends sessions of a kind, longest unused first, until one more fits.
fn make_room(kept: &mut HashMap<Key, Kept>, most: usize, is_meant: impl Fn(&Kept) -> bool) {
    while kept.values().filter(|session| is_meant(session)).count() >= most {
        let oldest = kept.iter().filter(|(_, session)| is_meant(session)).min_by_key(|(_, session)| session.used);
        let Some(key) = oldest.map(|(key, _)| *key) else { return };
        kept.remove(&key);
    }
}

fn key(token: &str) -> Key {
    let mut key = Key::default();
    let hash = digest::digest(&digest::SHA256, token.as_bytes());
    key.iter_mut().zip(hash.as_ref()).for_each(|(to, from)| *to = *from);
    key
}

#[cfg(test)]
mod tests {
    use argon2::{Argon2, Params, PasswordHasher};

    use super::*;
    use crate::config::{LoadOptions, built_in};

    /// Of users who all have the password `geheim`.
    fn sessions(names: &[&str]) -> Sessions {
        let cheap = Params::new(8, 1, 1, None).unwrap();
        let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, cheap);
        let user = |name: &&str| {
            let hash = argon2.hash_password(b"geheim").unwrap().to_string();
            format!("[[users]]\nname = \"{name}\"\npassword_hash = \"{hash}\"\nrights = [\"console\"]\n")
        };
        let file: String = names.iter().map(user).collect();
        let settings = built_in(&LoadOptions::default()).unwrap().broker_from(&file).unwrap();
        Sessions::new(Logins::of(&settings).unwrap(), LoginCounts::default())
    }

    async fn log_in(sessions: &Sessions, name: &str) -> Secret {
        sessions.log_in(name, &Secret::new("geheim"), [127, 0, 0, 1].into()).await.unwrap()
    }

    fn name(visitor: Option<Visitor>) -> Option<String> {
        visitor.map(|visitor| visitor.name().map_or_else(|| "here".to_owned(), |name| name.to_string()))
    }

    #[tokio::test]
    async fn in_and_out() {
        let sessions = sessions(&["anna"]);
        let wrong = sessions.log_in("anna", &Secret::new("x"), [127, 0, 0, 1].into()).await;
        assert_eq!(wrong.unwrap_err(), EntryError::Login(LoginError::Wrong));
        let (one, other) = (log_in(&sessions, "anna").await, log_in(&sessions, "anna").await);
        assert_eq!((one.expose().len(), one != other), (43, true));
        for (token, expected) in [(Some(one.expose()), Some("anna")), (Some("x"), None), (Some(""), None), (None, None)]
        {
            for is_here in [true, false] {
                assert_eq!(name(sessions.visitor(token, is_here)).as_deref(), expected, "{token:?}");
            }
            assert_eq!(sessions.is_open(token), expected.is_some());
        }
        sessions.log_out(one.expose());
        assert!(sessions.visitor(Some(one.expose()), true).is_none());
        assert!(sessions.visitor(Some(other.expose()), true).is_some());
        let count = |result| sessions.counts.get_or_create(&[("result", result)]).get();
        assert_eq!((count("ok"), count("wrong")), (2, 1));
    }

    #[test]
    fn without_users_this_machine_is_let_in_and_nobody_else() {
        let sessions = sessions(&[]);
        assert_eq!(name(sessions.visitor(None, true)).as_deref(), Some("here"));
        assert_eq!(name(sessions.visitor(Some("x"), false)), None);
        assert!(sessions.is_open(None));
    }

    #[tokio::test]
    async fn sessions_end_with_time() {
        let sessions = sessions(&["anna"]);
        let token = log_in(&sessions, "anna").await;
        let mut now = Instant::now();
        let almost = IDLE.checked_sub(Duration::from_secs(1)).unwrap();
        let used = LONGEST.as_secs() / almost.as_secs();
        for _ in 0..used {
            now += almost;
            assert!(sessions.find(token.expose(), now, true).is_some(), "used within time");
        }
        now += almost;
        assert!(sessions.find(token.expose(), now, true).is_none(), "the longest a session lives");
        let token = log_in(&sessions, "anna").await;
        let start = Instant::now();
        assert!(sessions.find(token.expose(), start + almost, false).is_some(), "a look is no use");
        assert!(sessions.find(token.expose(), start + IDLE, false).is_none());
        assert!(sessions.kept.lock().is_empty());
    }

    #[tokio::test]
    async fn their_number_is_bounded_and_one_user_pushes_nobody_else_out() {
        let names: Vec<String> = (0..10).map(|number| format!("user {number}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let sessions = sessions(&names);
        let other = log_in(&sessions, names[0]).await;
        let mut tokens = Vec::new();
        for _ in 0..=MOST_OF_ONE {
            tokens.push(log_in(&sessions, names[1]).await);
        }
        let is_in = |token: &Secret| sessions.visitor(Some(token.expose()), true).is_some();
        assert_eq!(tokens.iter().filter(|token| is_in(token)).count(), MOST_OF_ONE);
        assert!(!is_in(&tokens[0]) && is_in(&other));
        for name in &names {
            for _ in 0..MOST_OF_ONE {
                log_in(&sessions, name).await;
            }
        }
        assert_eq!(sessions.kept.lock().len(), MOST);
    }
}
