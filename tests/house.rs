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

/// Every `warn!` and `error!` of a text: its level, and what stands in its parentheses.
fn complaints(code: &str) -> Vec<(&'static str, &str)> {
    let mut found = Vec::new();
    for (word, level) in [("warn!(", "WARN"), ("error!(", "ERROR")] {
        for (at, _) in code.match_indices(word) {
            if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_') {
                continue;
            }
            let inside = &code[at + word.len()..];
            // Strings may hold parentheses that do not match: what is looked for stands at the beginning.
            let end = inside.find(");").or_else(|| inside.find("),")).unwrap_or(inside.len());
            found.push((level, &inside[..end]));
        }
    }
    found
}

#[test]
fn every_complaint_of_the_log_has_a_code_of_the_catalogue() {
    let (mut wrong, mut used) = (Vec::new(), BTreeSet::new());
    for (name, text) in sources() {
        let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        if name.ends_with("tests.rs") || name.contains("/tests/") {
            continue;
        }
        for (level, inside) in complaints(&code(product)) {
            match inside.trim_start().strip_prefix("code = \"").and_then(|rest| rest.split('"').next()) {
                Some(code) => drop(used.insert((level, code.to_owned()))),
                None => wrong.push(format!("src/{name}: {level} without a code: {}", inside.trim_start())),
            }
        }
    }
    assert_eq!(wrong, [""; 0], "begin it with code = \"...\" and describe that in src/telemetry/catalogue");
    let entries = sense_butler::telemetry::catalogue::groups().flat_map(|group| group.entries);
    let known: BTreeSet<_> = entries.map(|entry| (entry.level, entry.code.to_owned())).collect();
    let of = |one: &BTreeSet<_>, other: &BTreeSet<_>| one.difference(other).cloned().collect::<Vec<(&str, String)>>();
    assert_eq!(
        (of(&used, &known), of(&known, &used)),
        (Vec::new(), Vec::new()),
        "used and not described, described and not used"
    );
    assert!(known.len() > 90, "{}", known.len());
}

#[test]
fn the_reader_of_complaints_reads() {
    let text = "tracing::warn!(code = \"a\", x, \"b\");\nmy_error!(1);\nErr(e) => error!(\n    code = \"c\", \"d\"),";
    let found = complaints(text);
    assert_eq!(found, [("WARN", "code = \"a\", x, \"b\""), ("ERROR", "\n    code = \"c\", \"d\"")]);
}

#[test]
fn the_reader_of_imports_reads() {
    let text = "use crate::{\n    api::{self, x::Y},\n    bus::Bus,\n};\n// crate::cli is no import\nfn f() { crate::names::QoS; }\n";
    assert_eq!(imports(text).into_iter().collect::<Vec<_>>(), ["api", "bus", "names"]);
    assert_eq!(imports("let x = crate::app::signal();").into_iter().collect::<Vec<_>>(), ["app"]);
}
