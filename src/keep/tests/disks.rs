//! Disks that lose power, fill up and fail, as backends of the database.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::Mutex;
use redb::StorageBackend;

use crate::keep::disk::Place;

pub(crate) const SECTOR: u64 = 512;

/// Numbers that look random and come again with the same seed (splitmix64).
#[derive(Debug, Clone)]
pub(crate) struct Random(pub u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub(crate) fn one_in(&mut self, chances: u64) -> bool {
        self.below(chances) == 0
    }
}

/// What `sync_data` does of what it says it did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Syncs {
    /// All of it.
    #[default]
    Honestly,
    /// Nothing: what was written is lost or not, as luck has it, until the power goes.
    Never,
    /// What was written before the sync before: a cache that is one behind.
    Late,
}

#[derive(Debug, Default)]
struct Platter {
    now: Vec<u8>,
    /// Sectors written since the last sync, as they were on disk before.
    unsynced: BTreeMap<u64, Vec<u8>>,
    synced_len: u64,
    syncs: Syncs,
    /// Of a disk that is late: sectors and length at the last sync, which the next one makes true.
    held: Option<(BTreeMap<u64, Vec<u8>>, u64)>,
    /// Operations until the power goes; `None`: it stays.
    left: Option<u64>,
    off: bool,
}

/// A disk in memory. Cloned handles are the same disk.
#[derive(Debug, Default, Clone)]
pub(crate) struct Disk {
    platter: Arc<Mutex<Platter>>,
    /// Bytes there is room for; 0: for everything.
    room: Arc<AtomicU64>,
    /// Places that cannot be read.
    bad: Arc<Mutex<Vec<u64>>>,
    pub(crate) writes: Arc<AtomicU64>,
}

impl Disk {
    pub(crate) fn of(image: Vec<u8>) -> Self {
        let disk = Self::default();
        {
            let mut platter = disk.platter.lock();
            platter.synced_len = image.len() as u64;
            platter.now = image;
        }
        disk
    }

    /// From here on it syncs like this.
    pub(crate) fn syncs(&self, syncs: Syncs) {
        self.platter.lock().syncs = syncs;
    }

    pub(crate) fn image(&self) -> Vec<u8> {
        self.platter.lock().now.clone()
    }

    pub(crate) fn place(&self) -> Place {
        let disk = self.clone();
        Place::Backend(Arc::new(move || {
            if disk.platter.lock().off {
                return Err(io::Error::other("no power"));
            }
            Ok(Box::new(disk.clone()))
        }))
    }

    /// The power goes after so many operations.
    pub(crate) fn cut_after(&self, operations: u64) {
        self.platter.lock().left = Some(operations);
    }

    /// It is back, and everything written is there.
    pub(crate) fn power_on(&self) {
        let mut platter = self.platter.lock();
        (platter.off, platter.left) = (false, None);
    }

    pub(crate) fn is_off(&self) -> bool {
        self.platter.lock().off
    }

    /// What is found when the power is back: everything synced, and of the rest a random part, sector by sector.
    pub(crate) fn after_the_cut(&self, random: &mut Random) -> Vec<u8> {
        let platter = self.platter.lock();
        let mut image = platter.now.clone();
        let held = platter.held.iter().flat_map(|(sectors, _)| sectors);
        // What was written last is lost first.
        for (sector, before) in platter.unsynced.iter().chain(held) {
            if random.one_in(2) {
                let start = usize::try_from(sector * SECTOR).unwrap();
                let end = (start + before.len()).min(image.len());
                if start < end {
                    image[start..end].copy_from_slice(&before[..end - start]);
                }
            }
        }
        // A file may have grown or not.
        if platter.synced_len != image.len() as u64 && random.one_in(2) {
            image.resize(usize::try_from(platter.synced_len).unwrap(), 0);
        }
        image
    }

    /// Bytes there is room for; 0: for everything.
    pub(crate) fn set_room(&self, bytes: u64) {
        self.room.store(bytes, Ordering::SeqCst);
    }

    /// These bytes, with whatever is read together with one, cannot be read by the thread that reads queues back. (Opening goes through the
    /// whole file where the database checks itself, as it does in tests.)
    pub(crate) fn set_bad(&self, places: &[u64]) {
        *self.bad.lock() = places.to_vec();
    }

    fn step(platter: &mut Platter) -> io::Result<()> {
        match &mut platter.left {
            _ if platter.off => {}
            None => return Ok(()),
            Some(0) => platter.off = true,
            Some(left) => {
                *left -= 1;
                return Ok(());
            }
        }
        Err(io::Error::other("no power"))
    }

    fn fits(&self, end: u64) -> io::Result<()> {
        let room = self.room.load(Ordering::SeqCst);
        if room != 0 && end > room { Err(io::ErrorKind::StorageFull.into()) } else { Ok(()) }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.platter.lock().now.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let is_bad = self.bad.lock().iter().any(|bad| (offset..offset + out.len() as u64).contains(bad));
        if is_bad && std::thread::current().name() == Some("store-reader") {
            return Err(io::Error::other("a bad sector"));
        }
        let platter = self.platter.lock();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let found = start.checked_add(out.len()).and_then(|end| platter.now.get(start..end));
        out.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut platter = self.platter.lock();
        Self::step(&mut platter)?;
        platter.now.resize(usize::try_from(len).map_err(io::Error::other)?, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut platter = self.platter.lock();
        Self::step(&mut platter)?;
        let len = platter.now.len() as u64;
        match platter.syncs {
            Syncs::Honestly => {
                platter.unsynced.clear();
                platter.synced_len = len;
            }
            Syncs::Never => {}
            Syncs::Late => {
                let written = std::mem::take(&mut platter.unsynced);
                if let Some((_, len)) = platter.held.replace((written, len)) {
                    platter.synced_len = len;
                }
            }
        }
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.fits(offset + data.len() as u64)?;
        self.writes.fetch_add(1, Ordering::SeqCst);
        let mut guard = self.platter.lock();
        Self::step(&mut guard)?;
        let platter = &mut *guard;
        let end = offset + data.len() as u64;
        for sector in offset / SECTOR..end.div_ceil(SECTOR) {
            let start = usize::try_from(sector * SECTOR).unwrap();
            let stop = (start + 512).min(platter.now.len());
            let before = platter.now.get(start..stop).unwrap_or_default();
            platter.unsynced.entry(sector).or_insert_with(|| before.to_vec());
        }
        let start = usize::try_from(offset).unwrap();
        let place = platter.now.get_mut(start..start + data.len());
        place.ok_or(io::ErrorKind::UnexpectedEof)?.copy_from_slice(data);
        Ok(())
    }
}
