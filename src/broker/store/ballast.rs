//! The ballast: 8 MiB beside the database that are given up when the disk is full, because even deleting needs free pages.

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
};

use super::disk::{Place, owned_file};

/// Bytes of the ballast; so much has to drain, too, before a full store takes messages again.
pub(super) const SIZE: u64 = 8 << 20;
const FILE: &str = "store.ballast";
const BLOCK: usize = 64 << 10;

/// See the module. There is none where there is no directory.
#[derive(Debug)]
pub(super) struct Ballast(Option<PathBuf>);

impl Ballast {
    pub(super) fn of(place: &Place) -> Self {
        Self(place.directory().map(|directory| directory.join(FILE)))
    }

    /// Writes it, unless it is there: every byte, because a sparse file holds no room.
    ///
    /// # Errors
    /// As a rule, that the disk is full; nothing of it is left then.
    pub(super) fn write(&self) -> io::Result<()> {
        let Some(path) = &self.0 else { return Ok(()) };
        if fs::metadata(path).is_ok_and(|file| file.len() >= SIZE) {
            return Ok(());
        }
        let written = fill(path);
        if written.is_err() {
            // Half a ballast is none; what cannot be removed now is written over next time.
            let _ = fs::remove_file(path);
        }
        written
    }

    /// Gives it up; whether there was any.
    pub(super) fn release(&self) -> bool {
        self.0.as_ref().is_some_and(|path| fs::remove_file(path).is_ok())
    }
}

fn fill(path: &std::path::Path) -> io::Result<()> {
    let mut file = owned_file(path)?;
    // Not zeros: a file system that packs them would give nothing back.
    let mut block = vec![0_u8; BLOCK];
    let mut noise = 0x9e37_79b9_u32;
    for byte in &mut block {
        noise ^= noise << 13;
        noise ^= noise >> 17;
        noise ^= noise << 5;
        *byte = noise.to_le_bytes()[0];
    }
    let mut left = SIZE;
    while left > 0 {
        file.write_all(&block)?;
        left = left.saturating_sub(BLOCK as u64);
    }
    file.sync_all()
}
