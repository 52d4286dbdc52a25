//! What differs between two trees of a configuration file, key by key; places in the file do not count.
//!
//! A list is one value: its items have no names by which they could be told apart.

use crate::config::tree::{Entry, Node, Value};

/// A key, from the top of the file down.
pub(super) type Path = Vec<String>;

/// The keys whose values differ, in the order of their names. A section that only one of the two has counts as an empty one in the other.
pub(super) fn keys(one: Option<&Node>, other: Option<&Node>) -> Vec<Path> {
    let mut found = Vec::new();
    collect(one, other, &mut Vec::new(), &mut found);
    found.sort();
    found
}

fn collect(one: Option<&Node>, other: Option<&Node>, path: &mut Path, found: &mut Vec<Path>) {
    match (entries(one), entries(other)) {
        (Some(these), Some(those)) => {
            let only_there = those.iter().filter(|entry| these.iter().all(|known| known.key != entry.key));
            for entry in these.iter().chain(only_there) {
                path.push(entry.key.clone());
                collect(child(these, &entry.key), child(those, &entry.key), path, found);
                path.pop();
            }
        }
        _ if same(one, other) => {}
        _ => found.push(path.clone()),
    }
}

/// The entries of a section; nothing at all is an empty section where the other is one.
fn entries(node: Option<&Node>) -> Option<&[Entry]> {
    match node.map(|node| &node.value) {
        None | Some(Value::Null) => Some(&[]),
        Some(Value::Map(entries)) => Some(entries),
        Some(_) => None,
    }
}

fn child<'a>(entries: &'a [Entry], key: &str) -> Option<&'a Node> {
    entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node)
}

fn same(one: Option<&Node>, other: Option<&Node>) -> bool {
    match (one.map(|node| &node.value), other.map(|node| &node.value)) {
        (None | Some(Value::Null), None | Some(Value::Null)) => true,
        (Some(Value::Bool(one)), Some(Value::Bool(other))) => one == other,
        (Some(Value::Number(one)), Some(Value::Number(other))) | (Some(Value::Text(one)), Some(Value::Text(other))) => {
            one == other
        }
        (Some(Value::List(one)), Some(Value::List(other))) => {
            one.len() == other.len() && one.iter().zip(other).all(|(one, other)| same(Some(one), Some(other)))
        }
        (Some(Value::Map(one)), Some(Value::Map(other))) => {
            let there =
                |entry: &Entry| child(other, &entry.key).is_some_and(|node| same(Some(&entry.node), Some(node)));
            one.len() == other.len() && one.iter().all(there)
        }
        _ => false,
    }
}

/// What stands under a key.
pub(super) fn find<'a>(root: Option<&'a Node>, path: &[String]) -> Option<&'a Node> {
    path.iter().try_fold(root?, |node, key| child(entries(Some(node))?, key))
}

/// A tree with another value under a key; `None`: without the key.
pub(super) fn with(root: Option<&Node>, path: &[String], value: Option<&Node>) -> Option<Node> {
    let Some((key, rest)) = path.split_first() else { return value.cloned() };
    let at = root.or(value)?.at;
    let mut entries = entries(root).unwrap_or_default().to_vec();
    let node = with(child(&entries, key), rest, value);
    match (entries.iter().position(|entry| entry.key == *key), node) {
        (Some(position), Some(node)) => {
            if let Some(entry) = entries.get_mut(position) {
                entry.node = node;
            }
        }
        (Some(position), None) => drop(entries.remove(position)),
        (None, Some(node)) => entries.push(Entry { key: key.clone(), at, node }),
        (None, None) => {}
    }
    Some(Node { at, value: Value::Map(entries) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml;

    fn tree(text: &str) -> Option<Node> {
        yaml::parse(text).unwrap()
    }

    fn changed(one: &str, other: &str) -> Vec<String> {
        keys(tree(one).as_ref(), tree(other).as_ref()).iter().map(|path| path.join(".")).collect()
    }

    #[test]
    fn keys_differ_by_value_not_by_place() {
        let base = "a: {b: 1, c: [x, {d: y}]}\ne: text\n";
        let cases: [(&str, &[&str]); 9] = [
            ("e: 'text'\n\na:\n  c:\n  - x\n  - d: y\n  b: 1\n", &[]),
            ("a: {b: 2, c: [x, {d: y}]}\ne: text\n", &["a.b"]),
            ("a: {b: '1', c: [x, {d: y}]}\ne: text\n", &["a.b"]),
            ("a: {b: 1, c: [x, {d: z}]}\n", &["a.c", "e"]),
            ("a:\ne: text\n", &["a.b", "a.c"]),
            ("e: text\nf: {g: {h: 1, i: 2}}\na: {b: 1, c: [x, {d: y}]}\n", &["f.g.h", "f.g.i"]),
            ("a: 5\ne: text\n", &["a"]),
            ("", &["a.b", "a.c", "e"]),
            ("a: {b: 1, c: [{d: y}, x]}\ne: text\ng:\n", &["a.c"]),
        ];
        for (other, expected) in cases {
            assert_eq!(changed(base, other), expected, "{other}");
            assert_eq!(changed(other, base), expected, "{other}");
        }
    }

    #[test]
    fn a_value_is_put_in_and_taken_out() {
        let (one, other) = (tree("a: {b: 1, c: 2}\nd: 3\n"), tree("a: {b: 5}\ne: {f: {g: 1}}\n"));
        let mut mixed = one.clone();
        for path in keys(one.as_ref(), other.as_ref()) {
            let there = find(other.as_ref(), &path);
            mixed = with(mixed.as_ref(), &path, there);
            assert!(same(find(mixed.as_ref(), &path), there), "{path:?}");
        }
        assert_eq!(keys(mixed.as_ref(), other.as_ref()), Vec::<Path>::new());
        let from_nothing = with(None, &["x".to_owned()], one.as_ref());
        assert!(same(find(from_nothing.as_ref(), &["x".to_owned()]), one.as_ref()));
        assert!(with(None, &["x".to_owned()], None).is_none());
    }
}
