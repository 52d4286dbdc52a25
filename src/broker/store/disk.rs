//! Where the store lives: `broker.redb`, a file of its owner's alone, or memory.

use std::path::Path;

use crate::keep::disk::Names;
pub(super) use crate::keep::disk::{Place, owned_file};

const NAMES: Names = Names { file: "broker.redb", unfinished: "broker.redb.new", lock: "store.lock", cache: 32 << 20 };

/// The place of a store; memory without a directory.
pub(super) fn place(directory: Option<&Path>) -> Place {
    Place::of(directory, NAMES)
}
