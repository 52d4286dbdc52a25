//! Log-ins at a door that does not speak MQTT, the web console: users, passwords and what becomes of those who guess are the broker's own.
//!
//! Invariants: only a password lets in, and only a user with the right `console`; what a [`Member`] may do is what the users and rules of the
//! moment say, asked anew with [`Logins::renewed`]; a failure here counts as one of MQTT does, so nobody gets more guesses by another door.

use std::{net::IpAddr, sync::Arc};

use super::{
    access::{Access, Policies, Who},
    auth::{Attempt, Authenticator, LoginRefused, NoRandom},
    settings::Settings,
};
use crate::names::{ClientId, Secret};

/// What access rules see as the client id: `$` keeps it apart from whatever `%c` may stand for in a topic.
const CLIENT: &str = "$console";

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LoginError {
    /// User name or password.
    #[error("user name or password is wrong")]
    Wrong,
    /// Not looked at: too many failures lately.
    #[error("too many log-ins failed lately; wait a minute, or log in from where it worked before")]
    TooManyFailures,
    /// Not looked at: too many others wait.
    #[error("too many log-ins are under way; try again in a moment")]
    Busy,
    /// The password is right, the user may not use the console.
    #[error(
        "this user has no right to use the console; an administrator adds \"console\" to its `rights` in broker.toml"
    )]
    NoRight,
}

impl From<LoginRefused> for LoginError {
    fn from(why: LoginRefused) -> Self {
        match why {
            LoginRefused::Wrong => Self::Wrong,
            LoginRefused::TooManyFailures => Self::TooManyFailures,
            LoginRefused::Busy => Self::Busy,
        }
    }
}

/// Where a user logs in. Cheap to clone; clones share the count of failures.
#[derive(Debug, Clone)]
pub struct Logins {
    auth: Arc<Authenticator>,
    policies: Arc<Policies>,
}

impl Logins {
    pub(super) const fn new(auth: Arc<Authenticator>, policies: Arc<Policies>) -> Self {
        Self { auth, policies }
    }

    /// Of settings whose broker does not run here.
    ///
    /// # Errors
    /// If the system has no random numbers.
    pub fn of(settings: &Settings) -> Result<Self, NoRandom> {
        let auth = Authenticator::new(&settings.limits)?;
        Ok(Self::new(Arc::new(auth), Arc::new(Policies::new(settings))))
    }

    /// Whether there are users at all; without any, nobody can log in and nobody has to.
    pub fn has_users(&self) -> bool {
        self.policies.present().has_users()
    }

    /// Whether any user may log in here.
    pub fn has_members(&self) -> bool {
        self.policies.present().has_console_users()
    }

    /// Lets a user in.
    ///
    /// # Errors
    /// Why not.
    pub async fn enter(&self, name: &str, password: &Secret, from: IpAddr) -> Result<Member, LoginError> {
        let policy = self.policies.present();
        let attempt = Attempt { name, password: password.expose().as_bytes(), from };
        let user = self.auth.verify(&policy, attempt).await?;
        // The constant is a client id.
        let client = ClientId::new(CLIENT).map_err(|_| LoginError::NoRight)?;
        let access = policy.access(Who::User { user, by_password: true }, &client, None);
        if access.has_console() { Ok(Member(access)) } else { Err(LoginError::NoRight) }
    }

    /// The same user by the users and rules of the moment; `None`: has to go (gone, another password, no right any more).
    pub fn renewed(&self, member: &Member) -> Option<Member> {
        if member.0.generation == self.policies.generation() {
            return Some(member.clone());
        }
        let (access, ended) = self.policies.present().renew(&member.0);
        (ended.is_none() && access.has_console()).then_some(Member(access))
    }
}

/// A user who was let in.
#[derive(Debug, Clone)]
pub struct Member(Arc<Access>);

impl Member {
    /// User name.
    pub fn name(&self) -> Arc<str> {
        self.0.user_name().unwrap_or_default()
    }

    /// Whether the user holds the right `publish`.
    pub fn publishes(&self) -> bool {
        self.0.publishes()
    }

    /// Whether the user may publish on a topic, or start where it is a start topic.
    pub fn may_publish(&self, topic: &str) -> bool {
        self.0.may_publish(topic)
    }
}

#[cfg(test)]
mod tests {
    use argon2::{Argon2, Params, PasswordHasher};

    use super::*;
    use crate::broker::{
        access::tests::settings,
        settings::{Rights, User},
    };

    fn user(name: &str, password: &str, console: bool) -> User {
        let cheap = Params::new(8, 1, 1, None).unwrap();
        let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, cheap);
        let hash = argon2.hash_password(password.as_bytes()).unwrap().to_string();
        User { console, ..User::new(name, Secret::new(hash)) }
    }

    async fn enter(logins: &Logins, name: &str, password: &str) -> Result<Member, LoginError> {
        logins.enter(name, &Secret::new(password), [192, 0, 2, 1].into()).await
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_user_with_the_right() {
        let logins =
            Logins::of(&settings(vec![user("anna", "a", true), user("bo", "b", false)], vec![], false)).unwrap();
        assert!(logins.has_users() && logins.has_members());
        for (name, password, expected) in [
            ("anna", "a", Ok("anna")),
            ("anna", "b", Err(LoginError::Wrong)),
            ("bo", "b", Err(LoginError::NoRight)),
            ("bo", "a", Err(LoginError::Wrong)),
            ("cy", "a", Err(LoginError::Wrong)),
        ] {
            let member = enter(&logins, name, password).await.map(|member| member.name());
            assert_eq!(member.as_deref().map_err(|error| *error), expected, "{name} {password}");
        }
        let nobody = Logins::of(&settings(vec![user("bo", "b", false)], vec![], false)).unwrap();
        assert!(nobody.has_users() && !nobody.has_members());
        let empty = Logins::of(&settings(vec![], vec![], true)).unwrap();
        assert!(!empty.has_users() && !empty.has_members());
        assert_eq!(enter(&empty, "anna", "a").await.map(|_| ()), Err(LoginError::Wrong));
    }

    #[tokio::test]
    async fn who_guesses_is_refused_unseen() {
        let mut settings = settings(vec![user("anna", "a", true)], vec![], false);
        settings.limits.failed_logins = 3;
        let logins = Logins::of(&settings).unwrap();
        for _ in 0..3 {
            assert_eq!(enter(&logins, "anna", "x").await.map(|_| ()), Err(LoginError::Wrong));
        }
        assert_eq!(enter(&logins, "anna", "a").await.map(|_| ()), Err(LoginError::TooManyFailures));
    }

    #[tokio::test]
    async fn a_member_follows_the_file() {
        let anna = user("anna", "a", true);
        let logins = Logins::of(&settings(vec![anna.clone()], vec![], false)).unwrap();
        let member = enter(&logins, "anna", "a").await.unwrap();
        assert!(member.publishes() && member.may_publish("x") && !member.may_publish("q/own/x"));
        assert!(!member.may_publish("q/start"), "`start` is a right of its own");
        let rights = Rights { publish: false, subscribe: true, start: true };
        let mut ran = 0;
        for (now, expected) in [
            (Some(anna.clone()), Some(true)),
            (Some(User { rights, ..anna.clone() }), Some(false)),
            (Some(User { console: false, ..anna.clone() }), None),
            (Some(user("anna", "other", true)), None),
            (None, None),
        ] {
            logins.policies.replace(&settings(now.into_iter().collect(), vec![], false));
            let renewed = logins.renewed(&member);
            assert_eq!(renewed.as_ref().map(Member::publishes), expected, "{ran}");
            if let Some(member) = renewed.filter(|member| !member.publishes()) {
                assert!(member.may_publish("q/start") && !member.may_publish("x"));
            }
            ran += 1;
        }
        assert_eq!(ran, 5);
    }
}
