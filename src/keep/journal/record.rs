//! How events lie in memory and in the file. Numbers are big endian; texts are UTF-8, each followed by a zero byte, which no text has inside.
//!
//! ```text
//! id of the first event u64      version u8 (1), then for each event: id u64, at u64, noted u64 (milliseconds since 1970), length u32, 11 texts:
//!                                type, task id, execution id, app id, task name, app name, user, host, source, log time, message
//! ```

use std::sync::Arc;

use super::Note;

const VERSION: u8 = 1;
/// Texts of an event.
pub(super) const TEXTS: usize = 11;
/// Characters of a message that are kept, and of every other text.
const LONGEST: (usize, usize) = (1_000, 300);
/// Bytes an event is counted with besides its texts.
pub(super) const OVERHEAD: usize = 96;
/// What stands where a text was cut.
const CUT: char = '…';

/// An event as it is kept. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number: greater than that of every event noted before.
    pub id: u64,
    /// When it happened, milliseconds since 1970.
    pub at: u64,
    /// When it was noted.
    pub(super) noted: u64,
    /// The texts, each followed by a zero byte.
    pub(super) texts: Arc<str>,
}

/// The texts of an event.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Texts<'a> {
    /// As in [`Note`], and so on.
    pub kind: &'a str,
    /// Task.
    pub task_id: &'a str,
    /// Execution.
    pub execution_id: &'a str,
    /// App.
    pub app_id: &'a str,
    /// The task's name.
    pub task_name: &'a str,
    /// The app's name.
    pub app_name: &'a str,
    /// User.
    pub user: &'a str,
    /// Node.
    pub host: &'a str,
    /// Who told of it.
    pub source: &'a str,
    /// Its time as it was told.
    pub log_time: &'a str,
    /// What was told with it.
    pub message: &'a str,
}

impl Entry {
    pub(super) fn new(id: u64, noted: u64, note: &Note) -> Self {
        let (message, others) = LONGEST;
        let mut texts = String::with_capacity(512);
        let ids = [note.kind, &note.task_id, &note.execution_id, &note.app_id, &note.task_name, &note.app_name];
        for text in ids.into_iter().chain([&*note.user, &note.host, note.source, &note.log_time]) {
            push(&mut texts, text, others);
        }
        push(&mut texts, &note.message, message);
        Self { id, at: note.at, noted, texts: texts.into() }
    }

    /// Its texts.
    pub fn texts(&self) -> Texts<'_> {
        let mut parts = self.texts.split('\0');
        let mut next = || parts.next().unwrap_or_default();
        Texts {
            kind: next(),
            task_id: next(),
            execution_id: next(),
            app_id: next(),
            task_name: next(),
            app_name: next(),
            user: next(),
            host: next(),
            source: next(),
            log_time: next(),
            message: next(),
        }
    }

    pub(super) fn weight(&self) -> usize {
        self.texts.len() + OVERHEAD
    }
}

/// A text without zero bytes, cut if it is too long.
fn push(texts: &mut String, text: &str, longest: usize) {
    // As good as every one: no longer in bytes, either.
    if text.len() <= longest && !text.as_bytes().contains(&0) {
        texts.push_str(text);
        texts.push('\0');
        return;
    }
    let mut characters = text.chars();
    texts.extend(characters.by_ref().take(longest).map(|c| if c == '\0' { ' ' } else { c }));
    if characters.next().is_some() {
        texts.push(CUT);
    }
    texts.push('\0');
}

pub(super) fn key(first: u64) -> Vec<u8> {
    first.to_be_bytes().to_vec()
}

pub(super) fn read_key(key: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(key.try_into().ok()?))
}

pub(super) fn body<'a>(entries: impl Iterator<Item = &'a Entry>) -> Vec<u8> {
    let mut body = vec![VERSION];
    for Entry { id, at, noted, texts } in entries {
        for number in [id, at, noted] {
            body.extend_from_slice(&number.to_be_bytes());
        }
        // Eleven texts of bounded length.
        body.extend_from_slice(&u32::try_from(texts.len()).unwrap_or(u32::MAX).to_be_bytes());
        body.extend_from_slice(texts.as_bytes());
    }
    body
}

/// The events of a record; `None`: nothing this version knows.
pub(super) fn read(body: &[u8]) -> Option<Vec<Entry>> {
    let (&VERSION, mut rest) = body.split_first()? else { return None };
    let mut entries = Vec::new();
    while !rest.is_empty() {
        let (id, at, noted) = (number(&mut rest)?, number(&mut rest)?, number(&mut rest)?);
        let (length, after) = rest.split_first_chunk()?;
        let (texts, after) = after.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)?;
        let texts = std::str::from_utf8(texts).ok()?;
        if texts.matches('\0').count() != TEXTS {
            return None;
        }
        entries.push(Entry { id, at, noted, texts: texts.into() });
        rest = after;
    }
    Some(entries)
}

fn number(rest: &mut &[u8]) -> Option<u64> {
    let (number, after) = rest.split_first_chunk()?;
    *rest = after;
    Some(u64::from_be_bytes(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note() -> Note {
        Note {
            at: 5,
            kind: "sense.task.failed",
            task_id: "t".into(),
            execution_id: "e".into(),
            app_id: "a".into(),
            task_name: "T\0ä".into(),
            app_name: "A".into(),
            user: r"D\u".into(),
            host: "h".into(),
            source: "datagram",
            log_time: "l".into(),
            message: "m".repeat(2_000),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let entries = [Entry::new(7, 9, &note()), Entry::new(8, 9, &Note::default())];
        let written = body(entries.iter());
        assert_eq!(read(&written), Some(entries.to_vec()));
        assert_eq!(read_key(&key(7)), Some(7));
        for end in 0..written.len() {
            let first = body(entries.iter().take(1)).len();
            assert_eq!(read(&written[..end]).is_some(), end == 1 || end == first, "{end}");
        }
        let mut later = written.clone();
        later[0] = 2;
        assert_eq!(read(&later), None);
        assert_eq!(read_key(b"short"), None);
    }

    #[test]
    fn texts_keep_their_places_whatever_is_in_them() {
        let entry = Entry::new(7, 9, &note());
        let texts = entry.texts();
        assert_eq!((texts.kind, texts.task_id, texts.execution_id), ("sense.task.failed", "t", "e"));
        assert_eq!((texts.app_id, texts.task_name, texts.app_name), ("a", "T ä", "A"));
        assert_eq!((texts.user, texts.host, texts.source, texts.log_time), (r"D\u", "h", "datagram", "l"));
        assert_eq!(texts.message, format!("{}…", "m".repeat(1_000)));
        assert_eq!(Entry::new(1, 1, &Note::default()).texts(), Texts::default());
    }
}
