//! The configuration that was good last: copies of the files as they were read, in `last-good` of the data directory.
//!
//! For the administrator who has spoilt a file and wants to see what was there before; the program itself never reads them. Invariants: what lies there
//! was in use; it is for its owner only, as it may hold passwords; nothing is written where the program is to keep nothing on disk.

use std::{
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
};

use crate::{config::Loaded, keep::disk::owned_file};

/// Where the copies are.
#[derive(Debug, Clone)]
pub(super) struct LastGood(PathBuf);

impl LastGood {
    /// `None`: the program keeps nothing on disk.
    pub(super) fn of(loaded: &Loaded) -> Option<Self> {
        loaded.keep_dir().map(|_| Self(loaded.last_good()))
    }

    /// The directory, for people.
    pub(super) fn directory(&self) -> std::path::Display<'_> {
        self.0.display()
    }

    /// Keeps the files that were read. What is there already is not written again.
    ///
    /// # Errors
    /// What the system says; a copy is there whole or as before.
    pub(super) fn save(&self, loaded: &Loaded) -> io::Result<()> {
        let files = [("butler.yaml", &loaded.butler_read), ("broker.toml", &loaded.broker_read)];
        for (name, text) in files {
            let (file, text) = (self.0.join(name), text.as_ref().map(|text| text.expose()));
            match text {
                Some(text) if fs::read_to_string(&file).is_ok_and(|kept| kept == text) => {}
                Some(text) => self.write(&file, text)?,
                None => {}
            }
        }
        Ok(())
    }

    fn write(&self, file: &Path, text: &str) -> io::Result<()> {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&self.0)?;
        let unfinished = file.with_extension("unfinished");
        let mut open = owned_file(&unfinished)?;
        open.set_len(0)?;
        open.write_all(text.as_bytes())?;
        open.sync_all()?;
        drop(open);
        fs::rename(&unfinished, file)
    }
}
