//! Log-in: user names, Argon2id hashes, and what becomes of those who guess.
//!
//! At most two hashings run at once, off the runtime's threads, and a bounded number waits for a turn. A password that was right once is
//! remembered under a keyed hash (the key lives as long as the process), so that reconnecting clients do not become a denial of service. An
//! unknown user costs as much time as a wrong password.
//!
//! Failures are counted by address, by user name, and by both together. Who has none left is refused unseen, without hashing, until some
//! are forgiven. Invariants: nobody locks out a user whose log-in from another address succeeded before (a remembered password passes, however
//! often others failed with that name; a user who was right at an address passes there, however often others failed from it); nobody guesses
//! faster by that, since guesses at remembered passwords count like all others.

mod password;
mod tally;

use std::{collections::HashSet, net::IpAddr, sync::Arc, time::Instant};

use parking_lot::Mutex;
use ring::{hmac, rand::SystemRandom};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use self::{
    password::is_right,
    tally::{Tally, neighbourhood},
};
use super::{
    access::Policy,
    settings::{Limits, User},
};
use crate::names::Secret;

/// Hashings at a time; each needs 19 MiB.
const AT_ONCE: usize = 2;
/// Remembered passwords and places.
const REMEMBERED: usize = 20_000;
/// Verified against when the user is unknown: the hash of a random text nobody has.
const NOBODY: &str =
    "$argon2id$v=19$m=19456,t=2,p=1$c2Vuc2UtYnV0bGVyLW5vYm9keQ$1XJUiCnxqS6kKQAWIXYtMwLPk5cQRIq4Dp4a5aUhHWs";

/// The memory of right passwords and of failures, and whose turn it is to be verified.
#[derive(Debug)]
pub(super) struct Authenticator {
    hashing: Arc<Semaphore>,
    waiting: Arc<Semaphore>,
    key: hmac::Key,
    known: Mutex<HashSet<[u8; 32]>>,
    failures: Arc<Tally>,
    connects: Tally,
    started: Instant,
    /// Time that tests let pass, nanoseconds.
    #[cfg(test)]
    skipped: std::sync::atomic::AtomicU64,
}

/// The random generator of the system does not work.
#[derive(Debug, thiserror::Error)]
#[error("the system's random generator does not answer; without it no log-in is safe")]
pub struct NoRandom;

/// Why nobody is logged in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LoginRefused {
    /// User name or password is wrong.
    Wrong,
    /// Not looked at: too many failures lately.
    TooManyFailures,
    /// Not looked at: too many others wait.
    Busy,
}

/// Somebody who wants in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attempt<'a> {
    pub name: &'a str,
    pub password: &'a [u8],
    pub from: IpAddr,
}

/// Whose failures are counted.
#[derive(Debug, Hash)]
enum Whose<'a> {
    Address(IpAddr),
    Name(&'a str),
    Both(IpAddr, &'a str),
}

impl Authenticator {
    pub(super) fn new(limits: &Limits) -> Result<Self, NoRandom> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new()).map_err(|_| NoRandom)?;
        Ok(Self {
            hashing: Arc::new(Semaphore::new(AT_ONCE)),
            waiting: Arc::new(Semaphore::new(limits.waiting_logins + AT_ONCE)),
            key,
            known: Mutex::default(),
            failures: Arc::new(Tally::new(limits.failed_logins)),
            connects: Tally::new(limits.connects),
            started: Instant::now(),
            #[cfg(test)]
            skipped: Default::default(),
        })
    }

    fn now(&self) -> u64 {
        let now = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX / 2);
        #[cfg(test)]
        let now = now + self.skipped.load(std::sync::atomic::Ordering::Relaxed);
        now
    }

    /// Whether an address may open one more connection.
    pub(super) fn may_connect(&self, from: IpAddr) -> bool {
        self.connects.charge(&neighbourhood(from), self.now())
    }

    /// The user, if the password is right.
    pub(super) async fn verify(&self, policy: &Policy, attempt: Attempt<'_>) -> Result<Arc<User>, LoginRefused> {
        let attempt = Attempt { from: neighbourhood(attempt.from), ..attempt };
        let Attempt { name, password, from } = attempt;
        let user = policy.user(name).filter(|user| user.password_hash.is_some()).cloned();
        let hash = user.as_ref().and_then(|user| user.password_hash.as_ref()).map_or(NOBODY, Secret::expose).to_owned();
        let right = self.tag(&[b"password", name.as_bytes(), password, hash.as_bytes()]);
        let place = self.tag(&[b"place", name.as_bytes(), from.to_string().as_bytes(), hash.as_bytes()]);
        let known = || self.without_hashing(&attempt, user.as_ref(), right, place);
        if let Some(user) = known()? {
            return Ok(user);
        }
        let turn = self.turn().await?;
        // While it waited, others may have failed, or the same password may have been right for another connection.
        if let Some(user) = known()? {
            return Ok(user);
        }
        let (failures, now, exists) = (Arc::clone(&self.failures), self.now(), user.is_some());
        let (name, password) = (name.to_owned(), password.to_vec());
        let hashing = move || {
            let is_right = is_right(&hash, &password) && exists;
            if !is_right {
                charge(&failures, &Attempt { name: &name, password: &password, from }, now);
            }
            // The turn ends with the hashing, counted, and not with the wait for it: a client that goes away meanwhile makes no room for
            // another and gets no guess for nothing.
            drop(turn);
            is_right
        };
        let is_right = tokio::task::spawn_blocking(hashing).await.unwrap_or(false);
        let user = user.filter(|_| is_right).ok_or(LoginRefused::Wrong)?;
        self.remember(right);
        self.remember(place);
        Ok(user)
    }

    /// A user whose password is remembered; refuses who has no guess left.
    fn without_hashing(
        &self,
        attempt: &Attempt<'_>,
        user: Option<&Arc<User>>,
        right: [u8; 32],
        place: [u8; 32],
    ) -> Result<Option<Arc<User>>, LoginRefused> {
        let at_home = self.known.lock().contains(&place);
        self.look_at_failures(attempt, at_home)?;
        if let Some(user) = user.filter(|_| self.known.lock().contains(&right)) {
            self.remember(place);
            return Ok(Some(Arc::clone(user)));
        }
        if !at_home && self.failures.is_spent(&Whose::Name(attempt.name), self.now()) {
            charge(&self.failures, attempt, self.now());
            return Err(LoginRefused::TooManyFailures);
        }
        Ok(None)
    }

    /// Waits for a turn to hash.
    async fn turn(&self) -> Result<[OwnedSemaphorePermit; 2], LoginRefused> {
        let place = Arc::clone(&self.waiting).try_acquire_owned().map_err(|_| LoginRefused::Busy)?;
        let turn = Arc::clone(&self.hashing).acquire_owned().await.map_err(|_| LoginRefused::Busy)?;
        Ok([place, turn])
    }

    fn look_at_failures(&self, attempt: &Attempt<'_>, at_home: bool) -> Result<(), LoginRefused> {
        let spent = |whose| self.failures.is_spent(&whose, self.now());
        let Attempt { name, from, .. } = *attempt;
        if spent(Whose::Both(from, name)) || (!at_home && spent(Whose::Address(from))) {
            return Err(LoginRefused::TooManyFailures);
        }
        Ok(())
    }

    fn remember(&self, tag: [u8; 32]) {
        let mut known = self.known.lock();
        if known.len() >= REMEMBERED {
            known.clear();
        }
        known.insert(tag);
    }

    fn tag(&self, parts: &[&[u8]]) -> [u8; 32] {
        let mut context = hmac::Context::with_key(&self.key);
        for part in parts {
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

/// A failure counts against all whose it is.
fn charge(failures: &Tally, attempt: &Attempt<'_>, now: u64) {
    let Attempt { name, from, .. } = *attempt;
    for whose in [Whose::Address(from), Whose::Name(name), Whose::Both(from, name)] {
        failures.charge(&whose, now);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::Ordering, time::Duration};

    use argon2::{Argon2, Params, PasswordHash, PasswordHasher};

    use super::*;
    use crate::broker::access::{Policies, tests::settings};

    /// A user whose hash is cheap to verify.
    fn policy(name: &str, password: &str) -> Arc<Policy> {
        let cheap = Params::new(8, 1, 1, None).unwrap();
        let argon2 = Argon2::new(argon2::Algorithm::Argon2id, argon2::Version::V0x13, cheap);
        let hash = argon2.hash_password(password.as_bytes()).unwrap().to_string();
        Policies::new(&settings(vec![User::new(name, Secret::new(hash))], vec![], false)).present()
    }

    fn authenticator() -> Authenticator {
        Authenticator::new(&Limits { failed_logins: 3, waiting_logins: 4, ..Limits::default() }).unwrap()
    }

    fn pass(auth: &Authenticator, seconds: u64) {
        let nanos = Duration::from_secs(seconds).as_nanos();
        auth.skipped.fetch_add(u64::try_from(nanos).unwrap(), Ordering::Relaxed);
    }

    /// Logs in from the address 192.0.2.`from`.
    async fn login(
        auth: &Authenticator,
        policy: &Policy,
        (name, password, from): (&str, &str, u8),
    ) -> Result<(), LoginRefused> {
        let attempt = Attempt { name, password: password.as_bytes(), from: [192, 0, 2, from].into() };
        auth.verify(policy, attempt).await.map(drop)
    }

    use LoginRefused::{TooManyFailures, Wrong};

    #[tokio::test]
    async fn right_wrong_and_unknown() {
        let (auth, policy) = (authenticator(), policy("anna", "geheim"));
        for (name, password, expected) in [
            ("anna", "geheim", Ok(())),
            ("anna", "geheim", Ok(())),
            ("anna", "Geheim", Err(Wrong)),
            ("bo", "geheim", Err(Wrong)),
        ] {
            assert_eq!(login(&auth, &policy, (name, password, 1)).await, expected, "{name} {password}");
        }
        assert_eq!(auth.known.lock().len(), 2, "one password, one place");
    }

    #[tokio::test]
    async fn a_user_without_a_hash_has_no_right_password() {
        let auth = authenticator();
        let user = User { password_hash: None, ..User::new("carl", Secret::default()) };
        let policy = Policies::new(&settings(vec![user], vec![], false)).present();
        for password in ["", "nobody"] {
            assert_eq!(login(&auth, &policy, ("carl", password, 1)).await, Err(Wrong));
        }
    }

    #[tokio::test]
    async fn who_guesses_is_refused_unseen_and_forgiven_with_time() {
        let (auth, policy) = (authenticator(), policy("anna", "geheim"));
        for name in ["anna", "bo", "cy"] {
            assert_eq!(login(&auth, &policy, (name, "x", 1)).await, Err(Wrong));
        }
        // The address is spent: also the right password is not looked at.
        assert_eq!(login(&auth, &policy, ("anna", "geheim", 1)).await, Err(TooManyFailures));
        assert_eq!(login(&auth, &policy, ("anna", "geheim", 2)).await, Ok(()), "another address is not");
        pass(&auth, 21);
        assert_eq!(login(&auth, &policy, ("anna", "y", 1)).await, Err(Wrong), "one is forgiven");
        assert_eq!(login(&auth, &policy, ("anna", "geheim", 1)).await, Err(TooManyFailures));
        pass(&auth, 61);
        assert_eq!(login(&auth, &policy, ("anna", "geheim", 1)).await, Ok(()));
    }

    #[tokio::test]
    async fn nobody_locks_out_who_was_right_before() {
        let (auth, policy) = (authenticator(), policy("anna", "geheim"));
        assert_eq!(login(&auth, &policy, ("anna", "geheim", 1)).await, Ok(()));
        // From everywhere, until the name is spent.
        for from in [2, 3, 4] {
            assert_eq!(login(&auth, &policy, ("anna", "x", from)).await, Err(Wrong));
        }
        assert_eq!(login(&auth, &policy, ("anna", "x", 5)).await, Err(TooManyFailures));
        assert_eq!(login(&auth, &policy, ("anna", "geheim", 6)).await, Ok(()), "a remembered password, anywhere");
        // From her own address, with other names, until the address is spent.
        for name in ["bo", "cy", "di"] {
            assert_eq!(login(&auth, &policy, (name, "x", 1)).await, Err(Wrong));
        }
        assert_eq!(login(&auth, &policy, ("bo", "x", 1)).await, Err(TooManyFailures));
        assert_eq!(login(&auth, &policy, ("anna", "geheim", 1)).await, Ok(()), "her place is remembered");
        // Guessing at the remembered password there is guessing all the same.
        for guess in ["a", "b", "c"] {
            assert_eq!(login(&auth, &policy, ("anna", guess, 1)).await, Err(Wrong));
        }
        assert_eq!(login(&auth, &policy, ("anna", "geheim", 1)).await, Err(TooManyFailures));
        assert_eq!(login(&auth, &policy, ("anna", "geheim", 6)).await, Ok(()), "elsewhere she is in");
    }

    #[tokio::test]
    async fn guesses_at_a_spent_name_count_against_the_address() {
        let (auth, policy) = (authenticator(), policy("anna", "geheim"));
        for from in [2, 3, 4] {
            assert_eq!(login(&auth, &policy, ("anna", "x", from)).await, Err(Wrong));
        }
        for _ in 0..3 {
            assert_eq!(login(&auth, &policy, ("anna", "x", 9)).await, Err(TooManyFailures));
        }
        assert_eq!(login(&auth, &policy, ("bo", "x", 9)).await, Err(TooManyFailures), "the address is spent");
    }

    #[tokio::test]
    async fn those_who_wait_are_few_and_are_looked_at_again_when_it_is_their_turn() {
        let (auth, policy) = (Arc::new(authenticator()), policy("anna", "geheim"));
        let busy = auth.hashing.acquire_many(2).await.unwrap();
        let waiting: Vec<_> = (0..6)
            .map(|_| {
                let (auth, policy) = (Arc::clone(&auth), Arc::clone(&policy));
                tokio::spawn(async move { login(&auth, &policy, ("anna", "x", 1)).await })
            })
            .collect();
        while auth.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(login(&auth, &policy, ("anna", "geheim", 2)).await, Err(LoginRefused::Busy));
        drop(busy);
        let mut ended = Vec::new();
        for one in waiting {
            ended.push(one.await.unwrap());
        }
        let count = |what| ended.iter().filter(|end| **end == what).count();
        // Two are hashed at once, so one more than allowed may be under way when the last allowed one fails.
        assert!((3..=4).contains(&count(Err(Wrong))), "{ended:?}");
        assert_eq!(count(Err(Wrong)) + count(Err(TooManyFailures)), 6);
        assert_eq!(auth.waiting.available_permits(), 6);
    }

    #[tokio::test]
    async fn a_password_that_many_wait_with_is_hashed_once() {
        let (auth, policy) = (Arc::new(authenticator()), policy("anna", "geheim"));
        let busy = auth.hashing.acquire_many(2).await.unwrap();
        let waiting: Vec<_> = (0..4)
            .map(|_| {
                let (auth, policy) = (Arc::clone(&auth), Arc::clone(&policy));
                tokio::spawn(async move { login(&auth, &policy, ("anna", "remembered", 1)).await })
            })
            .collect();
        while auth.waiting.available_permits() > 2 {
            tokio::task::yield_now().await;
        }
        // Remembered meanwhile, as if it had been right for another connection; hashed, it would be wrong.
        let hash = policy.user("anna").unwrap().password_hash.as_ref().unwrap().expose().to_owned();
        auth.remember(auth.tag(&[b"password", b"anna", b"remembered", hash.as_bytes()]));
        drop(busy);
        for one in waiting {
            assert_eq!(one.await.unwrap(), Ok(()));
        }
    }

    #[tokio::test]
    async fn connections_of_an_address_are_counted() {
        let auth = Authenticator::new(&Limits { connects: 2, ..Limits::default() }).unwrap();
        let (one, other) = ([192, 0, 2, 1].into(), [192, 0, 2, 2].into());
        assert!(auth.may_connect(one) && auth.may_connect(one) && !auth.may_connect(one) && auth.may_connect(other));
        pass(&auth, 31);
        assert!(auth.may_connect(one) && !auth.may_connect(one));
    }

    #[test]
    fn the_hash_of_nobody_is_a_hash() {
        assert!(PasswordHash::new(NOBODY).is_ok());
        assert!(!is_right(NOBODY, b""));
    }
}
