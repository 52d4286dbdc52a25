//! The command line from outside: help, version, check on the shipped files, usage errors.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

#[path = "support/app.rs"]
mod app;

use app::{Dir, assert_refused, root, run_to_end, run_with_input, said};

const VERBS: [&str; 14] = [
    "run",
    "demo",
    "check",
    "init",
    "doctor",
    "service",
    "reload",
    "simulate",
    "pub",
    "sub",
    "hash-password",
    "token",
    "appenders",
    "version",
];

#[test]
fn the_help_of_every_verb_shows_two_examples() {
    let dir = Dir::new();
    let overview = run_to_end(&dir, &["--help"]);
    let listed = said(&overview);
    assert!(overview.status.success() && overview.stderr.is_empty(), "{listed}");
    for verb in VERBS {
        assert!(listed.contains(&format!("\n  {verb} ")), "{verb} is not in\n{listed}");
        let output = run_to_end(&dir, &[verb, "--help"]);
        let text = said(&output);
        assert!(output.status.success() && output.stderr.is_empty(), "{verb}: {text}");
        let (_, examples) = text.split_once("Examples:\n").unwrap_or_else(|| panic!("{verb} has no examples:\n{text}"));
        assert!(examples.matches(&format!("sense-butler {verb}")).count() >= 2, "{verb}:\n{text}");
    }
    let commands = listed.split_once("Commands:\n").unwrap().1.split_once("\n\n").unwrap().0;
    let names: Vec<&str> = commands
        .lines()
        .filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')))
        .map(|line| line.split_whitespace().next().unwrap())
        .collect();
    assert_eq!(names, VERBS, "a verb without a test, or the other way round");
}

#[test]
fn version_says_what_it_is() {
    let dir = Dir::new();
    let output = run_to_end(&dir, &["version"]);
    assert!(output.status.success() && said(&output).contains(env!("CARGO_PKG_VERSION")), "{}", said(&output));
    let output = run_to_end(&dir, &["version", "--json"]);
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(json["version"], env!("CARGO_PKG_VERSION"));
    let output = run_to_end(&dir, &["--version"]);
    assert_eq!(said(&output), format!("sense-butler {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn check_accepts_the_shipped_files_and_opens_nothing() {
    let dir = Dir::new();
    let butler = root().join("config/butler.yaml");
    let broker = root().join("broker.toml");
    let arguments = ["check", "-c", butler.to_str().unwrap(), "--broker-config", broker.to_str().unwrap()];
    let output = run_to_end(&dir, &arguments);
    let text = said(&output);
    assert!(output.status.success() && text.ends_with("\nOK\n") && output.stderr.is_empty(), "{text}");
    for opened in ["opens MQTT on 127.0.0.1:1883 and [::1]:1883", "opens UDP on localhost port 9998", "port 8080"] {
        assert!(text.contains(opened), "`{opened}` is not in\n{text}");
    }
    assert_eq!(std::fs::read_dir(&dir.0).unwrap().count(), 0, "check left something behind");
}

/// The sample files beside the shipped ones are accepted and refused as their names say, by the program as well as by its library.
#[test]
fn check_tells_good_samples_from_bad_ones() {
    let (mut good, mut bad) = (0, 0);
    for (kind, code) in [("valid", 0), ("invalid", 64)] {
        for entry in std::fs::read_dir(root().join("config/samples").join(kind)).unwrap() {
            let file = entry.unwrap().path();
            let option = if file.extension().unwrap() == "yaml" { "-c" } else { "--broker-config" };
            let dir = Dir::new();
            let output = run_to_end(&dir, &["check", option, file.to_str().unwrap()]);
            assert_eq!(output.status.code(), Some(code), "{}: {}", file.display(), said(&output));
            *(if code == 0 { &mut good } else { &mut bad }) += 1;
        }
    }
    assert!(good >= 17 && bad >= 47, "{good} good, {bad} bad");
}

#[test]
fn a_password_is_hashed_and_never_shown() {
    let dir = Dir::new();
    let output = run_with_input(&dir, &["hash-password"], "geheim-å\n");
    let text = said(&output);
    assert!(output.status.success() && text.starts_with("$argon2id$v=19$"), "{text}");
    assert!(!text.contains("geheim"), "{text}");
    let empty = run_with_input(&dir, &["hash-password"], "\n");
    assert_eq!(empty.status.code(), Some(1), "{}", said(&empty));
    assert!(said(&empty).contains("empty"), "{}", said(&empty));
}

#[test]
fn wrong_usage_is_64_with_a_hint() {
    let dir = Dir::new();
    let cases: [(&[&str], &str); 5] = [
        (&["rnu"], "'rnu'"),
        (&["run", "--mqt", "x"], "--mqtt"),
        (&["run", "--rest", "localhost"], "has no port"),
        (&["pub", "-t", "a/#", "-m", "x"], "a/#"),
        (&["sub"], "--topic"),
    ];
    for (arguments, hint) in cases {
        assert_refused(&dir, arguments, 64, &[hint]);
    }
}
