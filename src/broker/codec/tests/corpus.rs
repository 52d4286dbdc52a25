//! The seeds of the fuzz targets, replayed: what fuzzing once found, or starts from, is checked by every run of the tests.

use std::{fs, path::Path};

use super::*;

/// Runs every seed of a target; gives how many files there were, and how many packets were read.
fn replay(target: &str, run: impl Fn(&[u8]) -> usize) -> (usize, usize) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut paths: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let packets = paths.iter().map(|path| run(&fs::read(path).unwrap())).sum();
    (paths.len(), packets)
}

#[test]
fn packets_v3() {
    assert_eq!(replay("packets_v3", |input| walk::walk(input, Version::V3)), (11, 20));
}

#[test]
fn packets_v5() {
    assert_eq!(replay("packets_v5", |input| walk::walk(input, Version::V5)), (14, 31));
}

#[test]
fn connect() {
    let run = |body: &[u8]| usize::from(walk::one(0x10, body, Version::V3)) + walk::walk(body, Version::V5);
    assert_eq!(replay("connect", run), (12, 6));
}
