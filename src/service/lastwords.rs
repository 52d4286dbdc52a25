//! Why the service could not start or gave up: one small text file in the data directory. A service has no terminal, and whoever looks
//! later should not have to know where the log is.
//!
//! Invariants: it holds the latest failure only and goes away when the service has come up; no failure to write it stands in anybody's way.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Its name.
pub const FILE: &str = "service-failure.txt";
/// Most that is read of it, bytes.
const LONGEST: u64 = 16_384;

/// Where it is.
pub fn file(data: &Path) -> PathBuf {
    data.join(FILE)
}

/// Writes down why. Answers whether this is news: another reason than the one that stands there.
pub fn write(data: &Path, why: &str) -> bool {
    let why = why.trim_end();
    let news = reason(data).is_none_or(|known| known != why);
    let now = OffsetDateTime::now_utc();
    let at = now.replace_nanosecond(0).unwrap_or(now).format(&Rfc3339).unwrap_or_default();
    // What cannot be written here is in the log.
    let _ = fs::create_dir_all(data).and_then(|()| fs::write(file(data), format!("{at}\n{why}\n")));
    news
}

/// The service has come up.
pub fn forget(data: &Path) {
    // Mostly there is none.
    let _ = fs::remove_file(file(data));
}

/// When and why, if it failed last time.
pub fn read(data: &Path) -> Option<(String, String)> {
    let mut bytes = Vec::new();
    fs::File::open(file(data)).ok()?.take(LONGEST).read_to_end(&mut bytes).ok()?;
    let text = String::from_utf8_lossy(&bytes);
    let (at, why) = text.split_once('\n')?;
    Some((at.trim().to_owned(), why.trim().to_owned()))
}

fn reason(data: &Path) -> Option<String> {
    read(data).map(|(_, why)| why)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_failure_stands_there_until_the_service_is_up() {
        let data = std::env::temp_dir().join(format!("sense-butler-lastwords-{}", uuid::Uuid::new_v4().simple()));
        assert_eq!(read(&data), None);
        assert!(write(&data, "butler.yaml: line 3: no\nsecond line\n"), "the first is news");
        assert!(!write(&data, "butler.yaml: line 3: no\nsecond line"), "the same again is none");
        let (at, why) = read(&data).unwrap();
        assert!(at.ends_with('Z') && at.len() == 20, "{at}");
        assert_eq!(why, "butler.yaml: line 3: no\nsecond line");
        assert!(write(&data, "port 1883 is taken"));
        assert_eq!(read(&data).unwrap().1, "port 1883 is taken");
        forget(&data);
        forget(&data);
        assert_eq!(read(&data), None);
        fs::remove_dir_all(&data).unwrap();
    }
}
