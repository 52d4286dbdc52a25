//! Log-in: user names and Argon2id hashes.
//!
//! At most two hashings run at once, off the runtime's threads, and a password that was right once is remembered under a keyed hash (the
//! key lives as long as the process), so that reconnecting clients do not become a denial of service. An unknown user costs as much time as
//! a wrong password.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use argon2::{Argon2, PasswordHash, PasswordVerifier};
use parking_lot::Mutex;
use ring::{hmac, rand::SystemRandom};
use tokio::sync::Semaphore;

use super::settings::User;

/// Hashings at a time; each needs 19 MiB.
const AT_ONCE: usize = 2;
/// Remembered log-ins.
const REMEMBERED: usize = 10_000;
/// Verified against when the user is unknown: the hash of a random text nobody has.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$c2Vuc2UtYnV0bGVyLW5vYm9keQ$1XJUiCnxqS6kKQAWIXYtMwLPk5cQRIq4Dp4a5aUhHWs";

/// The users and the memory of right passwords.
#[derive(Debug)]
pub(super) struct Authenticator {
    users: HashMap<Arc<str>, Arc<User>>,
    hashing: Semaphore,
    key: hmac::Key,
    known: Mutex<HashSet<[u8; 32]>>,
}

/// The random generator of the system does not work.
#[derive(Debug, thiserror::Error)]
#[error("the system's random generator does not answer; without it no log-in is safe")]
pub struct NoRandom;

impl Authenticator {
    pub(super) fn new(users: &[User]) -> Result<Self, NoRandom> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| NoRandom)?;
        let users = users.iter().map(|user| (Arc::clone(&user.name), Arc::new(user.clone()))).collect();
        Ok(Self { users, hashing: Semaphore::new(AT_ONCE), key, known: Mutex::default() })
    }

    /// Whether there are users at all; without any, names and passwords mean nothing.
    pub(super) fn has_users(&self) -> bool {
        !self.users.is_empty()
    }

    /// A user by name alone: for one whose certificate was verified.
    pub(super) fn user(&self, name: &str) -> Option<Arc<User>> {
        self.users.get(name).cloned()
    }

    /// The user, if the password is right. One without a hash has no right password.
    pub(super) async fn verify(&self, name: &str, password: &[u8]) -> Option<Arc<User>> {
        let user = self.users.get(name).filter(|user| user.password_hash.is_some()).cloned();
        let hash = user.as_ref().and_then(|user| user.password_hash.as_deref()).unwrap_or(NOBODY).to_owned();
        let tag = self.tag(name, password, &hash);
        if user.is_some() && self.known.lock().contains(&tag) {
            return user;
        }
        let _turn = self.hashing.acquire().await.ok()?;
        let password = password.to_vec();
        let right = tokio::task::spawn_blocking(move || is_right(&hash, &password)).await.unwrap_or(false);
        let user = user.filter(|_| right)?;
        self.remember(tag);
        Some(user)
    }

    fn remember(&self, tag: [u8; 32]) {
        let mut known = self.known.lock();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(tag);
    }

    fn tag(&self, name: &str, password: &[u8], hash: &str) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in [name.as_bytes(), password, hash.as_bytes()] {
            context.update(&part.len().to_le_bytes());
            context.update(part);
        }
        let mut tag = [0; 32];
        for (to, from) in tag.iter_mut().zip(context.sign().as_ref()) {
            *to = *from;
        }
        tag
    }
}

fn is_right(hash: &str, password: &[u8]) -> bool {
    PasswordHash::new(hash).is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok())
}

#[cfg(test)]
mod tests {
    use argon2::PasswordHasher;

    use super::*;
    use crate::broker::settings::Rights;

    fn user(name: &str, password: &str) -> User {
        let hash = Argon2::default().hash_password(password.as_bytes()).unwrap().to_string();
        User { name: name.into(), password_hash: Some(hash), rights: Rights::default(), publish: None, subscribe: None }
    }

    #[tokio::test]
    async fn right_wrong_and_unknown() {
        let auth = Authenticator::new(&[user("anna", "geheim")]).unwrap();
        assert!(auth.verify("anna", b"geheim").await.is_some());
        assert_eq!(auth.known.lock().len(), 1);
        assert!(auth.verify("anna", b"geheim").await.is_some());
        assert!(auth.verify("anna", b"Geheim").await.is_none());
        assert!(auth.verify("bo", b"geheim").await.is_none());
        let by_certificate = User { password_hash: None, ..user("carl", "") };
        let auth = Authenticator::new(&[user("anna", "geheim"), by_certificate]).unwrap();
        assert!(auth.verify("carl", b"").await.is_none() && auth.user("carl").is_some());
        assert!(auth.verify("anna", b"geheim").await.is_some());
        assert_eq!(auth.known.lock().len(), 1);
    }

    #[test]
    fn the_hash_of_nobody_is_a_hash() {
        assert!(PasswordHash::new(NOBODY).is_ok());
        assert!(!is_right(NOBODY, b""));
    }
}
