//! The list of statements against the tests that say they show them, and the table made of both.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write,
    fs,
    path::{Path, PathBuf},
};

use toml::{Table, Value};

/// Versions with the numbers their appendix B has.
const VERSIONS: [(&str, usize); 2] = [("3.1.1", 141), ("5.0", 251)];
const TABLE: &str = "docs/mqtt-conformance.md";
/// Set to write the table anew instead of comparing.
const UPDATE: &str = "UPDATE_DOCS";

/// `MQTT-3.1.4-2`, in the order of the standard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Number(Vec<u32>);

impl Number {
    fn read(text: &str) -> Option<Self> {
        let (section, last) = text.strip_prefix("MQTT-")?.rsplit_once('-')?;
        let parts: Option<Vec<u32>> = section.split('.').chain([last]).map(|part| part.parse().ok()).collect();
        parts.filter(|parts| parts.len() == 4).map(Self)
    }
}

impl std::fmt::Display for Number {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "MQTT-{}.{}.{}-{}", self.0[0], self.0[1], self.0[2], self.0[3])
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    Server,
    Client,
    NotOffered { why: String, answer: String },
    Untestable { why: String },
}

#[derive(Debug, Clone)]
struct Statement {
    says: String,
    kind: Kind,
}

type Statements = BTreeMap<(&'static str, Number), Statement>;
/// Which tests show a statement.
type Marks = BTreeMap<(&'static str, Number), BTreeSet<String>>;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn text(value: &Value, key: &str) -> String {
    let text = value.get(key).and_then(Value::as_str).unwrap_or_else(|| panic!("{value} needs `{key}`"));
    assert!(!text.is_empty());
    text.to_owned()
}

fn statement(kind: &str, value: &Value) -> Statement {
    let says = value.as_str().map_or_else(|| text(value, "says"), str::to_owned);
    let kind = match kind {
        "server" => Kind::Server,
        "client" => Kind::Client,
        "not_offered" => Kind::NotOffered { why: text(value, "why"), answer: text(value, "answer") },
        "untestable" => Kind::Untestable { why: text(value, "why") },
        other => panic!("no kind of statement: {other}"),
    };
    Statement { says, kind }
}

fn list() -> Table {
    fs::read_to_string(root().join("tests/conformance/statements.toml")).unwrap().parse().unwrap()
}

/// What the standards leave to a server, in sentences.
fn decided() -> Vec<String> {
    let sentences = list()["decided"].as_array().unwrap().clone();
    sentences.iter().map(|sentence| sentence.as_str().unwrap().to_owned()).collect()
}

/// The list; every number once per version, in the order of the standard.
fn statements() -> Statements {
    let list = list();
    assert_eq!(list.len(), VERSIONS.len() + 1);
    let mut statements = Statements::new();
    for (version, count) in VERSIONS {
        for (kind, entries) in list[version].as_table().unwrap() {
            for (number, value) in entries.as_table().unwrap() {
                let known = Number::read(number).unwrap_or_else(|| panic!("no number: {number}"));
                assert_eq!(known.to_string(), *number);
                let twice = statements.insert((version, known), statement(kind, value));
                assert!(twice.is_none(), "{number} stands twice for {version}");
            }
        }
        assert_eq!(statements.keys().filter(|(of, _)| *of == version).count(), count, "statements of {version}");
    }
    statements
}

/// Every Rust file below a directory, with its path from the root.
fn sources(directory: &str) -> Vec<(String, String)> {
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
    let mut found = Vec::new();
    walk(&root().join(directory), &mut found);
    let name = |path: &Path| path.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
    found.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

/// The marks of one file: version, number, test.
fn marks_of(file: &str, text: &str) -> Vec<(&'static str, Number, String)> {
    let (mut waiting, mut is_test, mut marks) = (Vec::new(), false, Vec::new());
    for line in text.lines().map(str::trim) {
        let mark = line.strip_prefix("/// Shows ").filter(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
        if let Some(mark) = mark {
            let (version, numbers) = mark.split_once(": ").unwrap_or_else(|| panic!("{file}: {line}"));
            let (version, _) =
                *VERSIONS.iter().find(|(known, _)| *known == version).unwrap_or_else(|| panic!("{file}: {line}"));
            for number in numbers.split(' ') {
                let bare = number.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).and_then(Number::read);
                waiting.push((version, bare.unwrap_or_else(|| panic!("{file}: `{number}` in {line}"))));
            }
        } else if line.starts_with("#[") {
            is_test |= line.starts_with("#[test]") || line.starts_with("#[tokio::test");
        } else if let Some(rest) = line.strip_prefix("async fn ").or_else(|| line.strip_prefix("fn ")) {
            let name = rest.split('(').next().unwrap();
            assert!(waiting.is_empty() || is_test, "{file}: `{name}` is marked and no test");
            let place = format!("{}::{name}", file.rsplit('/').next().unwrap().trim_end_matches(".rs"));
            marks.extend(waiting.drain(..).map(|(version, number)| (version, number, place.clone())));
            is_test = false;
        } else if !line.starts_with("///") {
            assert!(waiting.is_empty(), "{file}: a mark that belongs to no test before `{line}`");
        }
    }
    marks
}

fn marks() -> Marks {
    let mut marks = Marks::new();
    for (file, text) in sources("tests").into_iter().chain(sources("src/broker")).chain(sources("src/names")) {
        if file.ends_with("conformance/check.rs") {
            continue;
        }
        for (version, number, place) in marks_of(&file, &text) {
            let new = marks.entry((version, number.clone())).or_default().insert(place.clone());
            assert!(new, "{place} is marked twice with {number}");
        }
    }
    marks
}

/// Everything that is wrong between list and marks.
fn differences(statements: &Statements, marks: &Marks) -> Vec<String> {
    let mut wrong = Vec::new();
    for ((version, number), statement) in statements {
        let marked = marks.contains_key(&(*version, number.clone()));
        match (&statement.kind, marked) {
            (Kind::Server, false) => wrong.push(format!("{version} {number}: no test shows it ({})", statement.says)),
            (Kind::Server, true) | (_, false) => {}
            (kind, true) => wrong.push(format!("{version} {number}: a test shows it, and it is {kind:?}")),
        }
    }
    for ((version, number), places) in marks {
        if !statements.contains_key(&(*version, number.clone())) {
            wrong.push(format!("{version} {number}: no such statement, marked by {places:?}"));
        }
    }
    wrong
}

fn table(statements: &Statements, marks: &Marks) -> String {
    let mut out = String::from(
        "# Conformance with MQTT 3.1.1 and MQTT 5.0\n\n\
         Made by `cargo test --test conformance` from `tests/conformance/statements.toml` and the marks of the tests; after a change of either,\n\
         `UPDATE_DOCS=1 cargo test --test conformance check` writes it anew. The numbers are those of the standards' appendix B; the words are\n\
         ours. A test is named by its file and name; most lie in `tests/conformance/`.\n\n\
         | | statements | kept and shown by a test | clients alone | not offered | not testable |\n|---|---|---|---|---|---|\n",
    );
    for (version, count) in VERSIONS {
        let of = |wanted: fn(&Kind) -> bool| {
            statements.iter().filter(|((of, _), statement)| *of == version && wanted(&statement.kind)).count()
        };
        let counts = [
            of(|kind| *kind == Kind::Server),
            of(|kind| *kind == Kind::Client),
            of(|kind| matches!(kind, Kind::NotOffered { .. })),
            of(|kind| matches!(kind, Kind::Untestable { .. })),
        ];
        writeln!(out, "| MQTT {version} | {count} | {} | {} | {} | {} |", counts[0], counts[1], counts[2], counts[3])
            .unwrap();
    }
    out.push_str("\n## Decided\n\nWhat the standards leave to a server, and this one does:\n\n");
    for sentence in decided() {
        writeln!(out, "- {sentence}").unwrap();
    }
    for (version, _) in VERSIONS {
        writeln!(out, "\n## MQTT {version}\n\n| number | what | shown by |\n|---|---|---|").unwrap();
        for ((of, number), statement) in statements.iter().filter(|((of, _), _)| *of == version) {
            let places = marks.get(&(*of, number.clone())).into_iter().flatten().map(|place| format!("`{place}`"));
            let shown = match &statement.kind {
                Kind::Server => places.collect::<Vec<_>>().join(", "),
                Kind::Client => "clients alone".to_owned(),
                Kind::NotOffered { why, answer } => format!("**not offered.** {why}. The client gets: {answer}."),
                Kind::Untestable { why } => format!("**not testable.** {why}."),
            };
            writeln!(out, "| {number} | {} | {shown} |", statement.says).unwrap();
        }
    }
    out
}

#[test]
fn every_statement_is_shown_by_a_test_or_said_not_to_be() {
    let (statements, marks) = (statements(), marks());
    let wrong = differences(&statements, &marks);
    assert!(wrong.is_empty(), "{} differences:\n{}", wrong.len(), wrong.join("\n"));
    let fresh = table(&statements, &marks);
    let path = root().join(TABLE);
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, &fresh).unwrap();
    }
    let written = fs::read_to_string(&path).unwrap_or_default().replace("\r\n", "\n");
    assert!(written == fresh, "{TABLE} is out of date; `{UPDATE}=1 cargo test --test conformance check` writes it");
}

/// Numbers in comments and tables are true numbers too, of either version.
#[test]
fn every_number_in_the_sources_exists() {
    let statements = statements();
    let known: BTreeSet<&Number> = statements.keys().map(|(_, number)| number).collect();
    let mut seen = 0;
    for (file, text) in sources("tests").into_iter().chain(sources("src")) {
        if file.ends_with("conformance/check.rs") {
            continue;
        }
        for (at, _) in text.match_indices("[MQTT-") {
            let number = text[at + 1..].split(']').next().unwrap();
            if number == "MQTT-x.y.z-n" {
                continue;
            }
            let found = Number::read(number).is_some_and(|number| known.contains(&number));
            assert!(found, "{file}: [{number}] is no statement");
            seen += 1;
        }
    }
    assert!(seen > 100, "only {seen} numbers seen");
}

#[test]
fn what_is_wrong_between_list_and_marks_is_told() {
    let text = "/// Shows 5.0: [MQTT-4.12.0-2] [MQTT-9.9.9-9]\n/// Shows 3.1.1: [MQTT-3.1.0-1]\n#[tokio::test]\nasync fn a() {}\n";
    let mut marks = Marks::new();
    for (version, number, place) in marks_of("tests/x.rs", text) {
        assert_eq!(place, "x::a");
        marks.entry((version, number)).or_default().insert(place);
    }
    let statements = statements();
    let wrong = differences(&statements, &marks);
    let missing = wrong.iter().filter(|line| line.contains("no test shows it")).count();
    let servers = statements.values().filter(|statement| statement.kind == Kind::Server).count();
    assert_eq!((missing, wrong.len()), (servers - 1, servers + 1));
    assert!(wrong.iter().any(|line| line.starts_with("5.0 MQTT-4.12.0-2: a test shows it")));
    assert!(wrong.iter().any(|line| line.starts_with("5.0 MQTT-9.9.9-9: no such statement")));
}

#[test]
fn marks_that_cannot_be_read_are_not_passed_over() {
    for wrong in [
        "/// Shows 5.1: [MQTT-3.1.0-1]\n#[test]\nfn a() {}",
        "/// Shows 5.0 [MQTT-3.1.0-1]\n#[test]\nfn a() {}",
        "/// Shows 5.0: MQTT-3.1.0-1\n#[test]\nfn a() {}",
        "/// Shows 5.0: [MQTT-3.1.0-1], [MQTT-3.1.0-2]\n#[test]\nfn a() {}",
        "/// Shows 5.0: [MQTT-3-1.0-1]\n#[test]\nfn a() {}",
        "/// Shows 5.0: [MQTT-3.1.0-1]\nfn a() {}",
        "/// Shows 5.0: [MQTT-3.1.0-1]\nconst A: u8 = 1;",
    ] {
        assert!(std::panic::catch_unwind(|| marks_of("tests/x.rs", wrong)).is_err(), "{wrong}");
    }
}
