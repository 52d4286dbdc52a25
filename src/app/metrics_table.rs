//! The table of metrics in `docs/operations.md` against what the program has: a metric that is not in it, or stands there and is gone, fails.
//!
//! Families show nothing before they count, so the names come from the sources, where each is written whole; what the registry shows besides
//! must stand in the table under the very name a monitoring system sees.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::App;
use crate::{
    config::{self, LoadOptions},
    telemetry::metrics,
};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// First cells of the table's rows.
fn documented() -> Vec<String> {
    let text = fs::read_to_string(root().join("docs/operations.md")).unwrap();
    let section = text.split_once("\n## Metrics\n").unwrap().1.split("\n## ").next().unwrap();
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")?.split_once('`'));
    rows.map(|(name, _)| name.to_owned()).collect()
}

/// Names as they are registered, from the sources without their tests.
fn registered() -> BTreeSet<String> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { walk(&path, found) } else { found.push(path) }
        }
    }
    let mut files = Vec::new();
    walk(&root().join("src"), &mut files);
    let mut names = BTreeSet::new();
    for file in files {
        let text = fs::read_to_string(file).unwrap();
        let product = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
        for prefix in ["\"sense_butler_", "\"process_"] {
            for (_, rest) in product.match_indices(prefix).map(|(at, _)| product.split_at(at + 1)) {
                let name = rest.split('"').next().unwrap();
                let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
                names.extend((is_name && !name.ends_with('_')).then(|| name.to_owned()));
            }
        }
    }
    names
}

/// Names as they are shown, with the ending their type gives them; with the built-in broker, or the one of a file.
fn shown(butler: Option<&str>) -> BTreeSet<String> {
    let directory = std::env::temp_dir().join(format!("sense-butler-metrics-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let mut options = LoadOptions { data_dir: directory.join("data"), ..LoadOptions::default() };
    let anywhere = || Some("127.0.0.1:0".parse().unwrap());
    (options.overrides.rest, options.overrides.udp, options.overrides.udp_sessions) =
        (anywhere(), anywhere(), anywhere());
    let loaded = match butler {
        None => {
            options.overrides.mqtt = anywhere();
            config::built_in(&options).unwrap()
        }
        Some(text) => {
            let file = directory.join("butler.yaml");
            fs::write(&file, text).unwrap();
            options.config = Some(file);
            config::load(&options).unwrap_or_else(|errors| panic!("{errors:?}"))
        }
    };
    let app = App::build(&loaded).unwrap();
    let text = metrics::encode(&app.registry);
    drop(app);
    // A file that is still open somewhere keeps its directory on Windows; it is a temporary one.
    let _ = fs::remove_dir_all(&directory);
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let names = types.map(|(name, kind)| match kind {
        "counter" => format!("{name}_total"),
        "info" => format!("{name}_info"),
        _ => name.to_owned(),
    });
    names.collect()
}

fn without_ending(name: &str) -> &str {
    name.strip_suffix("_total").or_else(|| name.strip_suffix("_info")).unwrap_or(name)
}

#[tokio::test]
async fn the_table_of_metrics_names_all_there_are_and_no_others() {
    let documented = documented();
    let table: BTreeSet<&str> = documented.iter().map(|name| without_ending(name)).collect();
    assert_eq!(table.len(), documented.len(), "a metric stands there twice");
    let registered = registered();
    assert!(registered.len() > 50, "only {} names", registered.len());
    let sources: BTreeSet<&str> = registered.iter().map(String::as_str).collect();
    let (extra, missing): (Vec<_>, Vec<_>) =
        (table.difference(&sources).collect(), sources.difference(&table).collect());
    assert!(extra.is_empty() && missing.is_empty(), "only in the table: {extra:?}; only in the program: {missing:?}");
    let external = "Butler:\n  mqttConfig: {enable: true, broker: external, brokerHost: 127.0.0.1}\n";
    let all: BTreeSet<String> = shown(None).into_iter().chain(shown(Some(external))).collect();
    let wrong: Vec<_> = all.iter().filter(|name| !documented.contains(name)).collect();
    assert!(wrong.is_empty(), "shown under another name than in the table: {wrong:?}");
    assert!(all.len() > 30, "only {} shown", all.len());
}
