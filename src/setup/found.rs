//! Where Qlik Sense leaves the certificates it exports: the management console writes them to a directory of the machine's name, and every
//! Sense node keeps a set of its own beside them.

use std::{
    env, fs,
    path::{Path, PathBuf},
};

/// What an exported set is called.
pub(super) const FILES: [&str; 3] = ["client.pem", "client_key.pem", "root.pem"];
/// The set a Sense node keeps for itself.
const LOCAL: &str = ".Local Certificates";

/// The directories below which exported sets lie.
pub(super) fn places() -> Vec<PathBuf> {
    let root = env::var_os("ProgramData").map_or_else(|| PathBuf::from(r"C:\ProgramData"), PathBuf::from);
    let exported = root.join("Qlik").join("Sense").join("Repository").join("Exported Certificates");
    let here = env::current_dir().unwrap_or_default();
    vec![exported, here.join("certificates"), here.join("cert"), here]
}

/// Every complete set at or directly below these places, the most likely first.
pub(super) fn certificates(places: &[PathBuf]) -> Vec<PathBuf> {
    let mut sets = Vec::new();
    for place in places {
        let below = fs::read_dir(place).into_iter().flatten().flatten().map(|entry| entry.path());
        let mut below: Vec<PathBuf> = below.filter(|path| path.is_dir()).collect();
        // What was exported for somebody comes before the node's own.
        below.sort_by_key(|path| (path.ends_with(LOCAL), path.clone()));
        let complete = std::iter::once(place.clone()).chain(below).filter(|directory| is_set(directory));
        for set in complete {
            if !sets.contains(&set) {
                sets.push(set);
            }
        }
    }
    sets
}

/// Whether the three files are there.
pub(super) fn is_set(directory: &Path) -> bool {
    missing(directory).is_none()
}

/// The first of the three files that is not there.
pub(super) fn missing(directory: &Path) -> Option<&'static str> {
    FILES.into_iter().find(|file| !directory.join(file).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exported_sets_are_found_where_qlik_leaves_them() {
        let root = env::temp_dir().join(format!("sense-butler-found-{}", std::process::id()));
        for (directory, files) in [("b/.Local Certificates", 3), ("b/sense1.lab", 3), ("b/half", 2), ("a", 3)] {
            fs::create_dir_all(root.join(directory)).unwrap();
            for file in FILES.iter().take(files) {
                fs::write(root.join(directory).join(file), "").unwrap();
            }
        }
        let found = certificates(&[root.join("b"), root.join("a"), root.join("a"), root.join("none")]);
        assert_eq!(found, [root.join("b/sense1.lab"), root.join("b/.Local Certificates"), root.join("a")]);
        assert_eq!(missing(&root.join("b/half")), Some("root.pem"));
        fs::remove_dir_all(&root).unwrap();
    }
}
