//! Where the program keeps its data: can it be written, and is there room.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::finding::{Finding, Section};
use crate::config::Loaded;

const HERE: Section = Section::Disk;
/// Below this much room the stores soon refuse messages, bytes.
const LITTLE: u64 = 1 << 30;
/// Below this much they do already, bytes.
const NOTHING: u64 = 64 << 20;

/// Looks at each directory once.
pub fn look(loaded: &Loaded) -> Vec<Finding> {
    let store = loaded.broker.storage.directory.clone();
    let log = loaded.settings.log.to_file.then(|| loaded.settings.log.directory.clone());
    let mut directories: Vec<PathBuf> = Vec::new();
    for directory in [loaded.keep_dir().map(Path::to_path_buf), store, log].into_iter().flatten() {
        // What lies in a directory that is looked at anyway tells nothing new.
        if !directories.iter().any(|known| directory.starts_with(known)) {
            directories.push(directory);
        }
    }
    if directories.is_empty() {
        return vec![HERE.ok("nothing is kept on disk (storage.in_memory in broker.toml)")];
    }
    directories.iter().flat_map(|directory| one(directory)).collect()
}

fn one(directory: &Path) -> Vec<Finding> {
    let shown = directory.display();
    let Some(there) = directory.ancestors().find(|place| place.exists()) else {
        return vec![HERE.problem(format!("{shown} cannot be made: there is no such place"), REMEDY)];
    };
    let writable = match writes(there) {
        Err(error) => {
            let what = match there == directory {
                true => format!("{shown} cannot be written: {error}"),
                false => format!("{shown} is not there and cannot be made in {}: {error}", there.display()),
            };
            return vec![HERE.problem(what, REMEDY)];
        }
        Ok(()) if there == directory => HERE.ok(format!("{shown} can be written")),
        Ok(()) => HERE.ok(format!("{shown} is not there yet and can be made")),
    };
    std::iter::once(writable).chain(room(there)).collect()
}

const REMEDY: &str = "The data directory must be a directory that belongs to the user the program runs as; another one is named with --data.";

/// Makes a file and removes it.
fn writes(directory: &Path) -> std::io::Result<()> {
    let file = directory.join(format!(".sense-butler-doctor-{}", std::process::id()));
    fs::write(&file, b"x")?;
    fs::remove_file(&file)
}

fn room(directory: &Path) -> Option<Finding> {
    let free = fs4::available_space(directory).ok()?;
    let said = format!("{} free at {}", size(free), directory.display());
    let remedy = "Make room, or put the data elsewhere (--data, storage.path in broker.toml); the stores refuse messages when the disk is full.";
    Some(match free {
        ..NOTHING => HERE.problem(format!("only {said}"), remedy),
        free if free < LITTLE => HERE.warning(format!("only {said}"), remedy),
        _ => HERE.ok(said),
    })
}

fn size(bytes: u64) -> String {
    match bytes >> 20 {
        mib @ 0..10_240 => format!("{mib} MiB"),
        mib => format!("{} GiB", mib >> 10),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::finding::Level, *};

    #[test]
    fn a_directory_that_can_be_made_is_fine_and_is_not_made() {
        let parent = std::env::temp_dir().join(format!("sense-butler-doctor-disk-{}", std::process::id()));
        fs::create_dir_all(&parent).unwrap();
        let wanted = parent.join("a/b");
        assert_eq!(one(&wanted).first().map(|finding| finding.level), Some(Level::Ok), "{:?}", one(&wanted));
        assert_eq!(fs::read_dir(&parent).unwrap().count(), 0);
        let file = parent.join("file");
        fs::write(&file, "").unwrap();
        for wrong in [file.join("data"), file] {
            let found = one(&wrong);
            assert_eq!(
                (found.len(), found.first().map(|finding| finding.level)),
                (1, Some(Level::Problem)),
                "{found:?}"
            );
        }
        fs::remove_dir_all(&parent).unwrap();
        assert_eq!((size(5 << 20).as_str(), size(50 << 30).as_str()), ("5 MiB", "50 GiB"));
    }
}
