//! The file: read, and replaced as a whole.
//!
//! It belongs to whoever the data directory belongs to, also when an administrator made it: the program must be able to read it.

use std::{
    fs, io,
    io::Write as _,
    path::{Path, PathBuf},
};

use time::OffsetDateTime;

use super::{MOST, NewToken, Standing, Token, record};
use crate::names::Secret;

const FILE: &str = "tokens.toml";
const UNFINISHED: &str = "tokens.toml.new";
const LOCK: &str = "tokens.lock";
/// Longest file, bytes.
const LONGEST: u64 = 4 << 20;

/// Why tokens cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum TokenFileError {
    /// The data directory is not there.
    #[error(
        "there is no data directory {0}: start the program once, which makes it, or name the one the program uses with --data"
    )]
    NoDirectory(PathBuf),
    /// The file cannot be read, written or locked.
    #[error("{file}: {why}; check that it is there for this user and that the disk has room")]
    File {
        /// The file.
        file: PathBuf,
        /// What the system says.
        why: io::Error,
    },
    /// What is in it cannot be understood.
    #[error("{file}: {why}; correct it, or move it away, which takes all tokens away with it")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// There is such a token.
    #[error("there is a token `{0}` already; revoke it first, or give the new one another name")]
    Exists(String),
    /// There is none.
    #[error("there is no token `{0}`; `sense-butler token list` shows those there are")]
    Unknown(String),
    /// Enough.
    #[error("there are {MOST} tokens already; revoked and expired ones make room when their names are used again")]
    Full,
    /// No secret without.
    #[error("the system gives no random numbers")]
    NoRandom,
}

/// What a file looked like from outside: another look that finds the same need not read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Look {
    modified: Option<std::time::SystemTime>,
    length: u64,
    #[cfg(unix)]
    inode: u64,
}

/// See the module.
#[derive(Debug, Clone)]
pub struct TokenFile {
    directory: PathBuf,
}

impl TokenFile {
    /// The one of a data directory; nothing is opened.
    pub fn of(directory: &Path) -> Self {
        Self { directory: directory.to_owned() }
    }

    /// Where it is.
    pub fn path(&self) -> PathBuf {
        self.directory.join(FILE)
    }

    /// What it looks like; `None`: it is not there.
    ///
    /// # Errors
    /// The system does not say.
    pub fn look(&self) -> Result<Option<Look>, TokenFileError> {
        match fs::metadata(self.path()) {
            Ok(found) => Ok(Some(Look {
                modified: found.modified().ok(),
                length: found.len(),
                #[cfg(unix)]
                inode: std::os::unix::fs::MetadataExt::ino(&found),
            })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(why) => Err(self.failed(FILE, why)),
        }
    }

    /// All tokens, in the order in which they were made; none without a file.
    ///
    /// # Errors
    /// It cannot be read or understood.
    pub fn read(&self) -> Result<Vec<Token>, TokenFileError> {
        let path = self.path();
        let file = match fs::File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(why) => return Err(self.failed(FILE, why)),
        };
        let text = io::read_to_string(io::Read::take(file, LONGEST)).map_err(|why| self.failed(FILE, why))?;
        record::read(&text).map_err(|why| TokenFileError::Unreadable { file: path, why })
    }

    /// Makes a token; its text is nowhere else.
    ///
    /// # Errors
    /// There is one of that name that is still good, or the file cannot be changed.
    pub fn create(&self, new: NewToken, now: OffsetDateTime) -> Result<(Token, Secret), TokenFileError> {
        self.change(|tokens| {
            if let Some(other) = tokens.iter().find(|token| token.name == new.name)
                && other.standing(now) == Standing::Good
            {
                return Err(TokenFileError::Exists(other.name.to_string()));
            }
            tokens.retain(|token| token.name != new.name);
            if tokens.len() >= MOST {
                return Err(TokenFileError::Full);
            }
            loop {
                let (token, secret) = Token::make(new.clone(), now)?;
                if tokens.iter().all(|other| other.id != token.id) {
                    tokens.push(token.clone());
                    return Ok((token, secret));
                }
            }
        })
    }

    /// Revokes a token; one that was revoked before stays so.
    ///
    /// # Errors
    /// There is none of that name, or the file cannot be changed.
    pub fn revoke(&self, name: &str, now: OffsetDateTime) -> Result<Token, TokenFileError> {
        self.change(|tokens| {
            let found = tokens.iter_mut().find(|token| token.name.as_str() == name);
            let token = found.ok_or_else(|| TokenFileError::Unknown(name.to_owned()))?;
            token.revoked.get_or_insert(now);
            Ok(token.clone())
        })
    }

    fn failed(&self, name: &str, why: io::Error) -> TokenFileError {
        TokenFileError::File { file: self.directory.join(name), why }
    }

    /// Reads, changes and replaces, while nobody else does.
    fn change<T>(&self, work: impl FnOnce(&mut Vec<Token>) -> Result<T, TokenFileError>) -> Result<T, TokenFileError> {
        if !self.directory.is_dir() {
            return Err(TokenFileError::NoDirectory(self.directory.clone()));
        }
        let lock = self.own(LOCK).map_err(|why| self.failed(LOCK, why))?;
        match lock.lock() {
            // A file system without locks: two administrators at once are their own affair there.
            Err(error) if error.kind() != io::ErrorKind::Unsupported => return Err(self.failed(LOCK, error)),
            _ => {}
        }
        let mut tokens = self.read()?;
        let done = work(&mut tokens)?;
        let text = record::write(&tokens).map_err(|why| TokenFileError::Unreadable { file: self.path(), why })?;
        self.replace(&text).map_err(|why| self.failed(FILE, why))?;
        Ok(done)
    }

    fn replace(&self, text: &str) -> io::Result<()> {
        let unfinished = self.directory.join(UNFINISHED);
        // What a crash left is no start.
        match fs::remove_file(&unfinished) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = self.own(UNFINISHED)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        drop(file);
        fs::rename(unfinished, self.path())
    }

    /// A file for its owner alone, who is the directory's.
    fn own(&self, name: &str) -> io::Result<fs::File> {
        let mut options = fs::OpenOptions::new();
        options.read(true).write(true).create(true).truncate(false);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let file = options.open(self.directory.join(name))?;
        #[cfg(unix)]
        self.hand_over(&file)?;
        Ok(file)
    }

    #[cfg(unix)]
    fn hand_over(&self, file: &fs::File) -> io::Result<()> {
        use std::os::unix::fs::{MetadataExt as _, fchown};
        let (wanted, is) = (fs::metadata(&self.directory)?, file.metadata()?);
        if wanted.uid() == is.uid() { Ok(()) } else { fchown(file, Some(wanted.uid()), Some(wanted.gid())) }
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Right, TokenName},
        *,
    };

    struct Scratch(PathBuf);

    impl Scratch {
        fn new() -> Self {
            let path = std::env::temp_dir().join(format!("sense-butler-tokens-{}", uuid::Uuid::new_v4().simple()));
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        fn file(&self) -> TokenFile {
            TokenFile::of(&self.0)
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn new(name: &str) -> NewToken {
        NewToken { name: TokenName::new(name).unwrap(), rights: vec![Right::Publish], topics: None, expires: None }
    }

    fn at(seconds: i64) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(seconds).unwrap()
    }

    #[test]
    fn made_listed_revoked_and_made_again() {
        let scratch = Scratch::new();
        let file = scratch.file();
        assert_eq!((file.read().unwrap(), file.look().unwrap()), (Vec::new(), None));
        let (token, secret) = file.create(new("a"), at(1)).unwrap();
        let first = file.look().unwrap();
        assert!(matches!(file.create(new("a"), at(2)), Err(TokenFileError::Exists(_))));
        assert_eq!(file.look().unwrap(), first, "what is refused changes nothing");
        assert_eq!(file.read().unwrap(), std::slice::from_ref(&token));
        let text = fs::read_to_string(file.path()).unwrap();
        assert!(!text.contains(secret.expose()), "{text}");
        assert_eq!(file.revoke("a", at(3)).unwrap().revoked, Some(at(3)));
        assert_ne!(file.look().unwrap(), first);
        assert_eq!(file.revoke("a", at(4)).unwrap().revoked, Some(at(3)));
        assert!(matches!(file.revoke("b", at(4)), Err(TokenFileError::Unknown(_))));
        let (again, other) = file.create(new("a"), at(5)).unwrap();
        assert!(again.id != token.id && other != secret);
        assert_eq!(file.read().unwrap(), [again]);
    }

    #[cfg(unix)]
    #[test]
    fn nobody_else_can_read_it() {
        use std::os::unix::fs::MetadataExt as _;
        let scratch = Scratch::new();
        scratch.file().create(new("a"), at(1)).unwrap();
        assert_eq!(fs::metadata(scratch.file().path()).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_cannot_be_used_is_said() {
        let scratch = Scratch::new();
        let missing = TokenFile::of(&scratch.0.join("none"));
        assert!(matches!(missing.create(new("a"), at(1)), Err(TokenFileError::NoDirectory(_))));
        fs::write(scratch.file().path(), "tokens = 5").unwrap();
        let error = scratch.file().create(new("a"), at(1)).unwrap_err().to_string();
        assert!(error.contains("tokens.toml") && error.contains("move it away"), "{error}");
        assert_eq!(fs::read_to_string(scratch.file().path()).unwrap(), "tokens = 5", "and it stays as it is");
    }

    #[test]
    fn two_at_once_lose_nothing() {
        let scratch = Scratch::new();
        let file = scratch.file();
        std::thread::scope(|scope| {
            for worker in 0..4 {
                let file = &file;
                scope.spawn(move || {
                    for number in 0..5 {
                        file.create(new(&format!("w{worker} {number}")), at(1)).unwrap();
                    }
                });
            }
        });
        assert_eq!(file.read().unwrap().len(), 20);
    }
}
