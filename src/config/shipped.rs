//! Tests of the shipped files: they name every key there is, no other, and say what holds without them.

use std::{collections::BTreeSet, fs};

use super::{
    samples::{Dir, root},
    *,
};

/// A shipped file with every commented-out key switched on: `#key` becomes `key`, prose (`# text`) stays.
fn uncommented(text: &str) -> String {
    let line = |line: &str| match line.trim_start().strip_prefix('#') {
        Some(rest) if rest.starts_with(|c: char| !c.is_whitespace()) => line.replacen('#', "", 1),
        _ => line.to_owned(),
    };
    text.lines().map(|text| line(text) + "\n").collect()
}

fn keys_of(node: &Node, path: &str, keys: &mut BTreeSet<String>) {
    match &node.value {
        tree::Value::Map(entries) => {
            for entry in entries {
                let path = if path.is_empty() { entry.key.clone() } else { format!("{path}.{}", entry.key) };
                keys_of(&entry.node, &path, keys);
                keys.insert(path);
            }
        }
        tree::Value::List(items) => items.iter().for_each(|item| keys_of(item, &format!("{path}[]"), keys)),
        _ => {}
    }
}

/// Sections of Butler that are only looked at for their switches need not be in the shipped file.
fn is_ours(key: &str) -> bool {
    let section = key.strip_prefix("Butler.").unwrap_or(key).split('.').next().unwrap();
    key == "Butler" || butler::OWN_SECTIONS.contains(&section)
}

#[test]
fn the_shipped_butler_yaml_has_exactly_the_known_keys() {
    let text = uncommented(&fs::read_to_string(root().join("config/butler.yaml")).unwrap());
    let tree = yaml::parse(&text).unwrap();
    let dir = Dir::new();
    let options = dir.options();
    let report = Report::new(Some(&dir.write("butler.yaml", &text)));
    let cx = butler::Context::new(&report, &options, &dir.0);
    assert!(butler::decode(tree.as_ref(), cx).is_some());
    let known: BTreeSet<_> = report.asked_keys().into_iter().filter(|key| is_ours(key)).collect();
    let mut written = BTreeSet::new();
    keys_of(tree.as_ref().unwrap(), "", &mut written);
    assert_eq!(known, written);
    assert!(known.len() > 130, "{}", known.len());
    let (errors, _) = report.into_parts();
    assert!(errors.is_empty(), "{errors:?}");
}

#[test]
fn the_shipped_broker_toml_has_exactly_the_known_keys() {
    let text = uncommented(&fs::read_to_string(root().join("broker.toml")).unwrap());
    let dir = Dir::new();
    dir.write("certs/server.pem", "");
    dir.write("certs/server_key.pem", "");
    dir.write("certs/clients_ca.pem", "");
    let file = dir.write("broker.toml", &text);
    let settings = built_in(&dir.options()).unwrap().settings;
    let tree = toml_text::parse(&text).unwrap();
    let report = Report::new(Some(&file));
    let overrides = Overrides::default();
    let base = broker_file::base(report.file(), &dir.0);
    let cx = broker_file::Context {
        report: &report,
        data: base.join("data"),
        base,
        overrides: &overrides,
        butler: &settings,
    };
    assert!(broker_file::decode(Some(&tree), &cx).is_some());
    let mut written = BTreeSet::new();
    keys_of(&tree, "", &mut written);
    assert_eq!(report.asked_keys(), written);
    assert!(written.len() > 30, "{}", written.len());
    let (errors, _) = report.into_parts();
    assert!(errors.is_empty(), "{errors:?}");
}

/// The only differences: where it was read from, and that nobody names the listener's name.
#[test]
fn the_shipped_files_say_what_holds_without_them() {
    let dir = Dir::new();
    let shipped = LoadOptions {
        config: Some(root().join("config/butler.yaml")),
        broker_config: Some(root().join("broker.toml")),
        ..dir.options()
    };
    let mut shipped = load(&shipped).unwrap();
    let built_in = built_in(&dir.options()).unwrap();
    assert_eq!(shipped.settings.file.take(), Some(root().join("config/butler.yaml")));
    assert_eq!(format!("{:#?}", shipped.settings), format!("{:#?}", built_in.settings));
    assert_eq!(format!("{:#?}", shipped.broker), format!("{:#?}", built_in.broker));
}
