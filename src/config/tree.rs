//! A configuration text as a tree whose every key and value knows its line and column, whichever format it came from.
//!
//! Invariants: a tree is at most [`MAX_DEPTH`] deep and [`MAX_NODES`] large, so nothing behind it can be made to recurse or grow without
//! bound by a file; keys of one map are unique.

use super::diagnostic::Place;

/// Deepest nesting of a configuration file; Butler's own goes to 8.
pub(super) const MAX_DEPTH: usize = 40;
/// Most values of a configuration file, aliases expanded; Butler's own has about 600.
pub(super) const MAX_NODES: usize = 20_000;

/// A value and where it stands.
#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) value: Value,
}

/// A key, where it stands, and its value.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) at: Place,
    pub(super) node: Node,
}

/// A value as it was written. Numbers keep their text: only the reader of a key knows which numbers it takes.
#[derive(Debug, Clone)]
pub(super) enum Value {
    Null,
    Bool(bool),
    Number(String),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

impl Value {
    /// What was found, for a sentence such as "a number is needed, but this is ...".
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Null => "empty".to_owned(),
            Self::Bool(value) => format!("`{value}`"),
            Self::Number(text) => format!("the number {}", short(text)),
            Self::Text(text) => format!("the text \"{}\"", short(text)),
            Self::List(_) => "a list".to_owned(),
            Self::Map(_) => "a section with keys of its own".to_owned(),
        }
    }
}

impl Node {
    /// This value and all below it.
    pub(super) fn count(&self) -> usize {
        1 + match &self.value {
            Value::List(items) => items.iter().map(Self::count).sum(),
            Value::Map(entries) => entries.iter().map(|entry| entry.node.count()).sum(),
            _ => 0,
        }
    }

    /// How many levels there are, this one included.
    pub(super) fn depth(&self) -> usize {
        1 + match &self.value {
            Value::List(items) => items.iter().map(Self::depth).max().unwrap_or(0),
            Value::Map(entries) => entries.iter().map(|entry| entry.node.depth()).max().unwrap_or(0),
            _ => 0,
        }
    }
}

/// At most 60 characters of a text, on one line.
pub(super) fn short(text: &str) -> String {
    let mut cut: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(60).collect();
    if text.chars().nth(60).is_some() {
        cut.push('…');
    }
    cut
}
