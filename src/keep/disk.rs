//! Where a database lives: a file of its owner's alone, memory, or what a test hands in.
//!
//! Invariant: a file is never deleted and never overwritten; one that cannot be used is set aside under another name.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use redb::{Database, StorageBackend, backends::FileBackend, backends::InMemoryBackend};
use time::macros::format_description;

use super::fault::Fault;

/// A file in its directory, and how it is held.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Names {
    /// Name of the database.
    pub(crate) file: &'static str,
    /// Its name while it is made.
    pub(crate) unfinished: &'static str,
    /// Whoever has this file locked has the directory.
    pub(crate) lock: &'static str,
    /// Memory the database may keep of its file, bytes.
    pub(crate) cache: usize,
}

/// Makes a backend whenever the store is opened.
pub(crate) type Opener = dyn Fn() -> io::Result<Box<dyn StorageBackend>> + Send + Sync;

/// See the module.
#[derive(Clone)]
pub(crate) enum Place {
    /// A file in this directory.
    Directory(PathBuf, Names),
    /// This process's memory.
    Memory(Arc<InMemoryBackend>, Names),
    /// What this makes, anew at every opening.
    #[cfg_attr(not(test), expect(dead_code, reason = "the seam for disks that fail, which tests hand in"))]
    Backend(Arc<Opener>),
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Place({self})")
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Directory(directory, _) => write!(f, "{}", directory.display()),
            Self::Memory(..) => f.write_str("memory"),
            Self::Backend(_) => f.write_str("a backend"),
        }
    }
}

impl Place {
    /// A file in a directory, or memory without one.
    pub(crate) fn of(directory: Option<&Path>, names: Names) -> Self {
        let place = directory.map(|directory| Self::Directory(directory.to_owned(), names));
        place.unwrap_or_else(|| Self::Memory(Arc::default(), names))
    }

    pub(crate) fn directory(&self) -> Option<&Path> {
        match self {
            Self::Directory(directory, _) => Some(directory),
            _ => None,
        }
    }

    /// Makes the directory, for its owner alone, and takes possession of it until the returned lock is dropped: two processes that start at
    /// once must not make a database each.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] if another holds it.
    pub(crate) fn take(&self) -> io::Result<Option<fs::File>> {
        let Self::Directory(directory, names) = self else { return Ok(None) };
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(directory)?;
        let lock = owned_file(&directory.join(names.lock))?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            // A file system without locks: the database has one of its own.
            Err(fs::TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => Ok(Some(lock)),
            Err(fs::TryLockError::Error(error)) => Err(error),
        }
    }

    /// Opens the database, or makes an empty one, which `prepare` gives its tables.
    pub(crate) fn open<D: fmt::Debug + fmt::Display>(
        &self,
        prepare: impl Fn(&Database) -> Result<(), Fault<D>>,
    ) -> Result<Database, Fault<D>> {
        let mut builder = Database::builder();
        let database = match self {
            Self::Directory(directory, names) => {
                builder.set_cache_size(names.cache);
                let path = directory.join(names.file);
                if !path.exists() {
                    make(directory, *names, &prepare)?;
                }
                builder.create_with_backend(FileBackend::new(owned_file(&path)?)?)?
            }
            Self::Memory(memory, names) => {
                builder.set_cache_size(names.cache);
                builder.create_with_backend(Shared(Arc::<InMemoryBackend>::clone(memory)))?
            }
            // Nothing of it stays in memory: whatever is wrong with it shows at once.
            Self::Backend(make) => builder.set_cache_size(0).create_with_backend(Shared(Arc::from(make()?)))?,
        };
        prepare(&database)?;
        Ok(database)
    }

    /// Moves a database that cannot be used out of the way; `None`: there is no file. `now`: of the name it gets.
    pub(crate) fn set_aside(&self, now: time::OffsetDateTime) -> io::Result<Option<PathBuf>> {
        let Self::Directory(directory, Names { file, .. }) = self else { return Ok(None) };
        let path = directory.join(file);
        let stamp = now
            .format(format_description!("[year][month][day]T[hour][minute][second]Z"))
            .unwrap_or_else(|_| now.unix_timestamp().to_string());
        let names = (1..1_000).map(|number| match number {
            1 => format!("{file}.bad-{stamp}"),
            _ => format!("{file}.bad-{stamp}-{number}"),
        });
        for name in names {
            let aside = directory.join(name);
            // Nobody else writes here: the lock on the directory is ours.
            if !aside.exists() {
                fs::rename(&path, &aside)?;
                sync_directory(directory)?;
                return Ok(Some(aside));
            }
        }
        Err(io::Error::from(io::ErrorKind::AlreadyExists))
    }
}

/// Makes an empty database under another name, and gives it its own when it is whole: a power cut leaves all of it or nothing.
fn make<D: fmt::Debug + fmt::Display>(
    directory: &Path,
    names: Names,
    prepare: impl Fn(&Database) -> Result<(), Fault<D>>,
) -> Result<(), Fault<D>> {
    let path = directory.join(names.unfinished);
    let file = owned_file(&path)?;
    // What an earlier attempt left: it never had its name, so nothing was ever kept in it.
    file.set_len(0)?;
    let database = Database::builder().create_with_backend(FileBackend::new(file)?)?;
    prepare(&database)?;
    database.close()?;
    fs::rename(&path, directory.join(names.file))?;
    Ok(sync_directory(directory)?)
}

/// A file that only its owner may read and write (on Windows it inherits the rights of its directory).
pub(crate) fn owned_file(path: &Path) -> io::Result<fs::File> {
    let mut options = fs::OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

/// Makes sure that a new name is on disk.
#[cfg(unix)]
fn sync_directory(directory: &Path) -> io::Result<()> {
    fs::File::open(directory)?.sync_all()
}

/// Windows writes names with the file.
#[cfg(not(unix))]
fn sync_directory(_: &Path) -> io::Result<()> {
    Ok(())
}

/// A backend whose type is not known here. Memory outlives the database on it: one that failed is opened again.
#[derive(Debug)]
struct Shared(Arc<dyn StorageBackend>);

impl StorageBackend for Shared {
    fn len(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.write(offset, data)
    }

    fn close(&self) -> io::Result<()> {
        self.0.close()
    }
}
