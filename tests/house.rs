//! The house reads as its map says: who imports whom, what every file opens with, how long it is.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::string_slice)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Lines a file may have: one idea each.
const LONGEST: usize = 450;

/// Every room and the rooms it may import. `main` and `lib` stand for the two files of the root.
const MAY_IMPORT: [(&str, &[&str]); 16] = [
    ("names", &[]),
    ("telemetry", &["names"]),
    ("net", &["telemetry"]),
    ("keep", &["names", "telemetry"]),
    ("broker", &["names", "telemetry", "net", "keep"]),
    ("config", &["names", "telemetry", "broker", "keep"]),
    ("sense", &["names", "config", "telemetry", "net", "keep"]),
    ("bus", &["names", "config", "telemetry", "broker", "net"]),
    ("console", &["names", "config", "bus", "sense"]),
    ("api", &["names", "config", "telemetry", "bus", "sense", "net", "keep", "console"]),
    ("bridge", &["names", "config", "telemetry", "bus", "sense"]),
    ("app", &["names", "config", "telemetry", "net", "keep", "broker", "bus", "sense", "api", "bridge", "console"]),
    ("doctor", &["names", "config", "net", "bus", "sense", "app"]),
    ("setup", &["names", "config", "doctor"]),
    ("service", &["config", "telemetry", "app"]),
    ("cli", &["names", "config", "telemetry", "broker", "bus", "sense", "app", "doctor", "setup", "service"]),
];

/// Every source file with its path below `src`, in `/` form.
fn sources() -> Vec<(String, String)> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    walk(&root, &mut found);
    assert!(found.len() > 200, "only {} files seen", found.len());
    let read = |path: PathBuf| {
        let name = path.strip_prefix(&root).unwrap().to_str().unwrap().replace('\\', "/");
        (name, fs::read_to_string(path).unwrap())
    };
    found.into_iter().map(read).collect()
}

/// The code without comments, so that a link in a doc comment is no import.
fn code(text: &str) -> String {
    text.lines().map(|line| line.split("//").next().unwrap()).collect::<Vec<_>>().join("\n")
}

/// The rooms named after `crate::`, also inside braces.
fn imports(text: &str) -> BTreeSet<String> {
    let code = code(text);
    let word =
        |text: &str| text.trim_start().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap().to_owned();
    let mut rooms = BTreeSet::new();
    for (_, rest) in code.match_indices("crate::").map(|(at, found)| (at, &code[at + found.len()..])) {
        match rest.strip_prefix('{') {
            None => drop(rooms.insert(word(rest))),
            Some(list) => {
                let mut depth = 0_i32;
                let first = |c: char| {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    (c == ',' && depth == 0) || depth < 0
                };
                let parts = list.split_inclusive(first);
                for part in parts {
                    rooms.insert(word(part));
                    if part.matches('}').count() > part.matches('{').count() {
                        break;
                    }
                }
            }
        }
    }
    rooms.remove("");
    rooms
}

#[test]
fn imports_run_one_way() {
    let mut wrong = Vec::new();
    let mut rooms_seen = BTreeSet::new();
    for (name, text) in sources() {
        let Some((room, _)) = name.split_once('/') else { continue };
        let (_, allowed) = MAY_IMPORT.iter().find(|(known, _)| *known == room).unwrap_or_else(|| panic!("{room}?"));
        rooms_seen.insert(room.to_owned());
        for import in imports(&text) {
            let is_room = MAY_IMPORT.iter().any(|(known, _)| *known == import);
            if is_room && import != room && !allowed.contains(&import.as_str()) {
                wrong.push(format!("src/{name} imports {import}"));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
    assert_eq!(rooms_seen.len(), MAY_IMPORT.len());
}

/// No room imports one that imports it, directly or through others.
#[test]
fn the_direction_has_no_circle() {
    let mut built: Vec<&str> = Vec::new();
    while built.len() < MAY_IMPORT.len() {
        let next = MAY_IMPORT
            .iter()
            .find(|(room, allowed)| !built.contains(room) && allowed.iter().all(|below| built.contains(below)));
        built.push(next.unwrap_or_else(|| panic!("a circle among all but {built:?}")).0);
    }
}

#[test]
fn every_file_says_what_it_is_for_and_stays_short() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        if !text.starts_with("//!") {
            wrong.push(format!("src/{name} does not open with //!"));
        }
        let lines = text.lines().count();
        if lines > LONGEST {
            wrong.push(format!("src/{name} has {lines} lines; {LONGEST} are the limit"));
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn nothing_panics_on_a_closed_output_or_grows_without_bound() {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        // Tests stand at the end of their file or in files of their own.
        let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        if name.ends_with("tests.rs") || name.contains("/tests/") {
            continue;
        }
        let code = code(product);
        for word in
            ["println!(", "print!(", "dbg!(", "unbounded_channel", "process::exit", "std::sync::Mutex", "todo!("]
        {
            if code.contains(word) {
                wrong.push(format!("src/{name}: {word}"));
            }
        }
    }
    assert_eq!(wrong, [""; 0]);
}

#[test]
fn the_reader_of_imports_reads() {
    let text = "use crate::{\n    api::{self, x::Y},\n    bus::Bus,\n};\n// crate::cli is no import\nfn f() { crate::names::QoS; }\n";
    assert_eq!(imports(text).into_iter().collect::<Vec<_>>(), ["api", "bus", "names"]);
    assert_eq!(imports("let x = crate::app::signal();").into_iter().collect::<Vec<_>>(), ["app"]);
}
