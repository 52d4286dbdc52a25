//! Who shows a token (`Authorization: Bearer`, RFC 6750), and what it opens.
//!
//! The file is looked at for every token that is shown, and read when it changed: a token that was revoked opens nothing from then on, and
//! a new one opens without a restart. Invariants: whoever shows a token is judged by it alone, not by his address; sums are compared in
//! constant time, also where there is no such token; a token appears in no log, error or metric. A file that cannot be read leaves in force
//! what was read before, and the log says so.

use std::{collections::HashMap, sync::Arc, time::Duration};

use parking_lot::Mutex;
use ring::hmac;
use time::OffsetDateTime;

use super::{
    counters::Counters,
    fault::{Fault, Kind},
};
use crate::{
    config::tokens::{self, Right, Standing, Token, TokenFile},
    telemetry::throttle::Throttle,
};

/// MQTT 5: "Not authorized".
const NOT_AUTHORIZED: u8 = 0x87;

/// The tokens of the file. Sums are compared as their HMAC, whose comparison takes the same time wherever they differ.
pub(super) struct Bearers {
    file: Option<TokenFile>,
    key: hmac::Key,
    seen: Mutex<Seen>,
    counters: Counters,
}

#[derive(Default)]
struct Seen {
    look: Option<tokens::Look>,
    known: HashMap<String, (Arc<Token>, hmac::Tag)>,
}

/// The token in the value of `Authorization`, if that is what it has.
fn shown(authorization: Option<&str>) -> Option<&str> {
    let (scheme, token) = authorization?.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

impl Bearers {
    /// Of this file; `None`: nobody is let in by a token.
    pub(super) fn new(file: Option<TokenFile>, counters: Counters) -> Self {
        // Not a secret: the HMAC is for its comparison, what is compared are sums.
        let key = hmac::Key::new(hmac::HMAC_SHA256, b"sense-butler tokens");
        Self { file, key, seen: Mutex::default(), counters }
    }

    /// The token that is shown, if any. `ignores_others`: what is none of ours passes as if it was not there.
    ///
    /// # Errors
    /// 401: it opens nothing.
    pub(super) fn judge(&self, authorization: Option<&str>, ignores_others: bool) -> Result<Option<Arc<Token>>, Fault> {
        let Some(text) = shown(authorization) else { return Ok(None) };
        if ignores_others && !text.starts_with(tokens::PREFIX) {
            return Ok(None);
        }
        let (found, sum) = {
            let mut seen = self.seen.lock();
            self.refresh(&mut seen);
            let known = tokens::id_of(text).and_then(|id| seen.known.get(id));
            match known {
                Some((token, sum)) => (Some(Arc::clone(token)), *sum),
                // As much work for one that does not exist.
                None => (None, hmac::sign(&self.key, b"")),
            }
        };
        let is_it = hmac::verify(&self.key, &tokens::sha256(text), sum.as_ref()).is_ok();
        let Some(token) = found.filter(|_| is_it) else {
            return Err(self.refused(Kind::BadToken, None, "the token is none that is known here"));
        };
        match token.standing(OffsetDateTime::now_utc()) {
            Standing::Good => Ok(Some(token)),
            Standing::Expired => Err(self.refused(Kind::TokenExpired, Some(&token), "the token has expired")),
            Standing::Revoked => Err(self.refused(Kind::TokenRevoked, Some(&token), "the token was revoked")),
        }
    }

    /// Whether a token has one of these rights.
    ///
    /// # Errors
    /// 403: it has none of them.
    pub(super) fn check(&self, token: &Token, rights: &[Right]) -> Result<(), Fault> {
        if rights.iter().any(|right| token.has(*right)) {
            return Ok(());
        }
        let needed = rights.iter().map(|right| right.as_str()).collect::<Vec<_>>().join("` or `");
        let message = format!("the token `{}` does not have the right `{needed}`", token.name);
        Err(self.refused(Kind::NoRight, Some(token), &message))
    }

    /// The refusal of a topic a token does not have.
    pub(super) fn elsewhere(&self, token: &Token) -> Fault {
        let message = format!("the token `{}` may not publish there", token.name);
        self.refused(Kind::NoRight, Some(token), &message).with_reason(NOT_AUTHORIZED)
    }

    fn refused(&self, kind: Kind, token: Option<&Token>, message: &str) -> Fault {
        static LINE: Throttle = Throttle::every(Duration::from_secs(10));
        self.counters.token_refused(kind.word());
        if let Some(suppressed) = LINE.pass() {
            let name = token.map(|token| token.name.as_str());
            tracing::warn!(
                code = "token_refused",
                token = name,
                suppressed,
                "REST: {message}; if the caller may, make a token that does (sense-butler token create)"
            );
        }
        Fault::new(kind, message)
    }

    /// Reads the file if it is another one than before.
    fn refresh(&self, seen: &mut Seen) {
        static LINE: Throttle = Throttle::every(Duration::from_secs(10));
        let Some(file) = &self.file else { return };
        let read = file.look().and_then(|look| {
            if look == seen.look {
                return Ok(());
            }
            let tokens = file.read()?;
            seen.known = tokens.into_iter().map(|token| self.known(token)).collect();
            seen.look = look;
            Ok(())
        });
        if let Err(error) = read
            && let Some(suppressed) = LINE.pass()
        {
            tracing::error!(
                code = "tokens_unreadable",
                %error,
                suppressed,
                "the tokens of before stay in force; look at the file and who may read it"
            );
        }
    }

    fn known(&self, token: Token) -> (String, (Arc<Token>, hmac::Tag)) {
        let sum = hmac::sign(&self.key, &token.sha256);
        (token.id.clone(), (Arc::new(token), sum))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use super::*;
    use crate::config::tokens::{NewToken, TokenName};

    struct Scene {
        directory: PathBuf,
        file: TokenFile,
        bearers: Bearers,
    }

    impl Scene {
        fn new() -> Self {
            let name = format!("sense-butler-bearer-{}", uuid::Uuid::new_v4().simple());
            let directory = std::env::temp_dir().join(name);
            fs::create_dir_all(&directory).unwrap();
            let file = TokenFile::of(&directory);
            let bearers = Bearers::new(Some(file.clone()), Counters::default());
            Self { directory, file, bearers }
        }

        fn make(&self, name: &str, expires: Option<OffsetDateTime>) -> String {
            let name = TokenName::new(name).unwrap();
            let new = NewToken { name, rights: vec![Right::Publish], topics: None, expires };
            self.file.create(new, OffsetDateTime::now_utc()).unwrap().1.expose().to_owned()
        }

        fn judge(&self, authorization: &str) -> Result<Option<String>, Kind> {
            let token = self.bearers.judge(Some(authorization), false).map_err(|fault| fault.kind)?;
            Ok(token.map(|token| token.name.to_string()))
        }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.directory);
        }
    }

    #[test]
    fn a_token_opens_from_when_it_is_made_until_it_is_revoked() {
        let scene = Scene::new();
        let before = scene.judge("Bearer sbt_00000000_x");
        assert_eq!(before, Err(Kind::BadToken));
        let (a, b) = (scene.make("a", None), scene.make("b", None));
        assert_eq!(scene.judge(&format!("Bearer {a}")), Ok(Some("a".into())));
        assert_eq!(scene.judge(&format!("bearer  {b} ")), Ok(Some("b".into())));
        scene.file.revoke("a", OffsetDateTime::now_utc()).unwrap();
        assert_eq!(scene.judge(&format!("Bearer {a}")), Err(Kind::TokenRevoked));
        assert_eq!(scene.judge(&format!("Bearer {b}")), Ok(Some("b".into())));
        fs::remove_file(scene.file.path()).unwrap();
        assert_eq!(scene.judge(&format!("Bearer {b}")), Err(Kind::BadToken));
    }

    #[test]
    fn what_is_no_token_of_ours() {
        let scene = Scene::new();
        let good = scene.make("a", None);
        let late = scene.make("late", Some(OffsetDateTime::now_utc()));
        let id = tokens::id_of(&good).unwrap();
        assert_eq!(scene.judge(&format!("Bearer {late}")), Err(Kind::TokenExpired));
        let mut flipped = good.clone().into_bytes();
        let last = flipped.last_mut().unwrap();
        *last = if *last == b'A' { b'B' } else { b'A' };
        let wrong = [
            String::from_utf8(flipped).unwrap(),
            format!("{good}x"),
            format!("sbt_{id}_"),
            format!("sbt_{id}"),
            good.replace("sbt_", "SBT_"),
            "eyJhbGciOi".to_owned(),
            String::new(),
        ];
        for text in &wrong {
            assert_eq!(scene.judge(&format!("Bearer {text}x")), Err(Kind::BadToken), "{text}");
        }
        for other in ["Basic YTpi", "Bearer", "", "Negotiate x"] {
            assert_eq!(scene.judge(other), Ok(None), "{other}");
        }
        let foreign =
            |text: &str| scene.bearers.judge(Some(text), true).map(|token| token.is_some()).map_err(|fault| fault.kind);
        assert_eq!(foreign("Bearer eyJhbGciOi"), Ok(false));
        assert_eq!(foreign("Bearer sbt_x"), Err(Kind::BadToken));
        let off = Bearers::new(None, Counters::default());
        assert!(off.judge(Some(&format!("Bearer {good}")), false).is_err());
    }

    #[test]
    fn a_file_that_cannot_be_read_changes_nothing() {
        let scene = Scene::new();
        let good = format!("Bearer {}", scene.make("a", None));
        assert_eq!(scene.judge(&good), Ok(Some("a".into())));
        let text = fs::read_to_string(scene.file.path()).unwrap();
        fs::write(scene.file.path(), "tokens = 7\n").unwrap();
        assert_eq!(scene.judge(&good), Ok(Some("a".into())));
        fs::write(scene.file.path(), text.replace("publish", "read")).unwrap();
        let token = scene.bearers.judge(Some(&good), false).unwrap().unwrap();
        assert!(scene.bearers.check(&token, &[Right::Read]).is_ok());
        let fault = scene.bearers.check(&token, &[Right::Publish, Right::Start]).unwrap_err();
        assert_eq!(
            (fault.kind, fault.message.as_str()),
            (Kind::NoRight, "the token `a` does not have the right `publish` or `start`")
        );
    }
}
