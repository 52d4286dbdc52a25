//! The seeds of the fuzz target `upgrade`, replayed.

use super::{Frames, Rules, Verdict, examine};
use crate::net::origin::{Allowed, Here};

#[path = "../../../fuzz/fuzz_targets/web.rs"]
mod web;

#[test]
fn upgrade() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/upgrade");
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let found: Vec<_> = paths.iter().map(|path| web::walk(&std::fs::read(path).unwrap())).collect();
    // By name: bare_lf close declared fragments good good_connect host listed middle origin partial path post text unmasked.
    assert_eq!(found, [0, 0, 0, 2, 0, 15, 403, 0, 300, 403, 0, 404, 405, 0, 0]);
}
