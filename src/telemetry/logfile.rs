//! Log files: a new one each day (UTC) or after 10 MB, the newest so many kept.
//!
//! Own code because no well-kept crate rotates by both size and age. Invariants: whoever logs never waits for the disk (lines go through a
//! bounded channel to one thread, and what does not fit is counted); at most [`Kind::keep`] files of a name stay in the directory,
//! and no other file is touched.

use std::{
    fs::{self, File},
    io::{self, Write},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread::JoinHandle,
};

use prometheus_client::metrics::counter::Counter;
use time::{Date, OffsetDateTime};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes of one file.
const MAX_BYTES: u64 = 10 << 20;
/// Lines that wait for the disk.
const CHANNEL: usize = 8_192;

/// What a series of files is called: `<name>.2026-11-22.000.<ending>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kind {
    /// Their beginning.
    pub name: &'static str,
    /// Their ending.
    pub ending: &'static str,
    /// How many of them are kept.
    pub keep: usize,
}

/// The program's log.
pub const LOG: Kind = Kind { name: "sense-butler", ending: "log", keep: 14 };

/// The log directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot write log files to `{path}` (logDirectory): {error}")]
pub struct FileError {
    path: PathBuf,
    error: io::Error,
}

/// Hands lines to the thread that writes them.
#[derive(Debug, Clone)]
pub struct LogFile {
    lines: SyncSender<Message>,
    lost: Counter,
}

#[derive(Debug)]
enum Message {
    Line(Vec<u8>),
    Close,
}

/// Ends the writing thread when dropped, after everything was written.
#[derive(Debug)]
pub struct Closer {
    file: LogFile,
    thread: Option<JoinHandle<()>>,
}

impl LogFile {
    /// Opens today's file, making the directory if need be.
    ///
    /// # Errors
    /// If the directory cannot be made or written to.
    pub fn open(directory: &Path, kind: Kind) -> Result<(Self, Closer), FileError> {
        let wrong = |error| FileError { path: directory.to_owned(), error };
        let mut rotation =
            Rotation::open(directory, kind, MAX_BYTES, OffsetDateTime::now_utc().date()).map_err(wrong)?;
        let (lines, received) = sync_channel(CHANNEL);
        let file = Self { lines, lost: Counter::default() };
        let lost = file.lost.clone();
        let thread = std::thread::Builder::new()
            .name(kind.name.into())
            .spawn(move || write_all(&received, &mut rotation, &lost));
        let thread = Some(thread.map_err(wrong)?);
        Ok((file.clone(), Closer { file, thread }))
    }

    /// Counts the lines that did not get into a file, to be hung into a registry.
    pub fn lost(&self) -> &Counter {
        &self.lost
    }
}

impl Closer {
    /// Lines that did not get into a file.
    pub fn lines_lost(&self) -> u64 {
        self.file.lost.get()
    }
}

impl Drop for Closer {
    fn drop(&mut self) {
        // Waits for room, unlike a line; fails only if the thread is gone.
        if self.file.lines.send(Message::Close).is_ok()
            && let Some(thread) = self.thread.take()
        {
            drop(thread.join());
        }
    }
}

/// One log line on its way.
#[derive(Debug)]
pub struct Line<'a> {
    file: &'a LogFile,
    bytes: Vec<u8>,
}

impl<'a> MakeWriter<'a> for LogFile {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { file: self, bytes: Vec::with_capacity(160) }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let line = std::mem::take(&mut self.bytes);
        if !line.is_empty() && self.file.lines.try_send(Message::Line(line)).is_err() {
            self.file.lost.inc();
        }
    }
}

fn write_all(lines: &Receiver<Message>, rotation: &mut Rotation, lost: &Counter) {
    while let Ok(Message::Line(line)) = lines.recv() {
        // A full disk must not end the program, and cannot be logged to itself: the count tells.
        if rotation.write(&line, OffsetDateTime::now_utc().date()).is_err() {
            lost.inc();
        }
    }
}

/// The file being written and when the next begins.
#[derive(Debug)]
struct Rotation {
    directory: PathBuf,
    kind: Kind,
    limit: u64,
    day: Date,
    part: u32,
    file: File,
    written: u64,
}

impl Rotation {
    fn open(directory: &Path, kind: Kind, limit: u64, day: Date) -> io::Result<Self> {
        make(directory)?;
        let part = kind.last_part(directory, day)?;
        let (file, written) = append_to(&directory.join(kind.file(day, part)))?;
        let rotation = Self { directory: directory.to_owned(), kind, limit, day, part, file, written };
        rotation.tidy()?;
        Ok(rotation)
    }

    fn write(&mut self, line: &[u8], today: Date) -> io::Result<()> {
        let length = u64::try_from(line.len()).unwrap_or(u64::MAX);
        if today != self.day {
            self.next(today, 0)?;
        } else if self.written > 0 && self.written.saturating_add(length) > self.limit {
            self.next(today, self.part + 1)?;
        }
        self.file.write_all(line)?;
        self.written += length;
        Ok(())
    }

    fn next(&mut self, day: Date, part: u32) -> io::Result<()> {
        (self.file, self.written) = append_to(&self.directory.join(self.kind.file(day, part)))?;
        (self.day, self.part) = (day, part);
        self.tidy()
    }

    /// Removes the oldest of our files; their names sort by age.
    fn tidy(&self) -> io::Result<()> {
        let mut names = self.kind.files(&self.directory)?;
        names.sort();
        for name in names.iter().rev().skip(self.kind.keep) {
            fs::remove_file(self.directory.join(name))?;
        }
        Ok(())
    }
}

/// Makes the directory, for its owner alone: the files say who did what.
fn make(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

fn append_to(path: &Path) -> io::Result<(File, u64)> {
    let mut options = File::options();
    options.create(true).append(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    let written = file.metadata()?.len();
    Ok((file, written))
}

impl Kind {
    fn file(&self, day: Date, part: u32) -> String {
        format!("{}.{day}.{part:03}.{}", self.name, self.ending)
    }

    /// Day and part of a file of ours, as they are written.
    fn middle<'a>(&self, name: &'a str) -> Option<&'a str> {
        name.strip_prefix(self.name)?.strip_prefix('.')?.strip_suffix(self.ending)?.strip_suffix('.')
    }

    fn files(&self, directory: &Path) -> io::Result<Vec<String>> {
        let names = fs::read_dir(directory)?.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter(|name| self.middle(name).is_some()).collect())
    }

    fn last_part(&self, directory: &Path, day: Date) -> io::Result<u32> {
        let beginning = format!("{day}.");
        let names = self.files(directory)?;
        let parts = names.iter().filter_map(|name| self.middle(name)?.strip_prefix(&beginning)?.parse().ok());
        Ok(parts.max().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("sense-butler-log-{name}-{}", std::process::id()));
            drop(fs::remove_dir_all(&path));
            Self(path)
        }

        fn names(&self) -> Vec<String> {
            let mut names = LOG.files(&self.0).unwrap();
            names.sort();
            names
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            drop(fs::remove_dir_all(&self.0));
        }
    }

    #[test]
    fn a_new_file_by_size_and_by_day_and_after_a_restart_the_last_goes_on() {
        let directory = Directory::new("rotation");
        let day = Date::from_ordinal_date(2026, 1).unwrap();
        let mut rotation = Rotation::open(&directory.0, LOG, 20, day).unwrap();
        for _ in 0..3 {
            rotation.write(b"ten bytes\n", day).unwrap();
        }
        drop(rotation);
        let mut rotation = Rotation::open(&directory.0, LOG, 20, day).unwrap();
        rotation.write(b"ten bytes\n", day).unwrap();
        rotation.write(b"ten bytes\n", day.next_day().unwrap()).unwrap();
        let expected =
            ["2026-01-01.000", "2026-01-01.001", "2026-01-02.000"].map(|name| format!("sense-butler.{name}.log"));
        assert_eq!(directory.names(), expected);
        assert_eq!(fs::read(directory.0.join(LOG.file(day, 1))).unwrap().len(), 20);
    }

    #[test]
    fn the_newest_are_kept_and_foreign_files_are_left_alone() {
        let directory = Directory::new("tidy");
        let mut day = Date::from_ordinal_date(2026, 1).unwrap();
        let mut rotation = Rotation::open(&directory.0, LOG, 1 << 20, day).unwrap();
        fs::write(directory.0.join("butler.2020-01-01.log"), "Butler's own").unwrap();
        for _ in 0..20 {
            rotation.write(b"line\n", day).unwrap();
            day = day.next_day().unwrap();
        }
        let names = directory.names();
        assert_eq!((names.len(), names[0].as_str()), (LOG.keep, "sense-butler.2026-01-07.000.log"));
        assert!(directory.0.join("butler.2020-01-01.log").exists());
    }

    #[test]
    fn lines_are_in_the_file_when_it_is_closed() {
        let directory = Directory::new("close");
        let (file, closer) = LogFile::open(&directory.0, LOG).unwrap();
        for number in 0..1_000 {
            writeln!(file.make_writer(), "line {number}").unwrap();
        }
        let lost = closer.lines_lost();
        drop(closer);
        let text = fs::read_to_string(directory.0.join(&directory.names()[0])).unwrap();
        assert_eq!((text.lines().count(), lost), (1_000, 0));
    }
}
