//! A typed walk over a configuration tree: every key is asked for by name and type, and what nobody asked for is an error.
//!
//! Invariants: a reader asks for all keys of its section before [`Section::finish`], whatever the values are, so that the set of known keys
//! does not depend on the file; a wrong value is reported once and replaced by the default, so that all errors of a file come out in one
//! run; no secret is quoted in a message.

mod items;

use std::{cell::RefCell, ops::RangeInclusive, path::PathBuf};

pub(super) use self::items::Item;

use super::{
    diagnostic::{Place, Report},
    tree::{Entry, Node, Value, short},
};
use crate::names::{NameError, TopicFilter, TopicName};

/// One section (map) of a file, present or not.
pub(super) struct Section<'a> {
    report: &'a Report,
    entries: &'a [Entry],
    /// Key path for messages: list items carry their number.
    path: String,
    /// Key path for the set of known keys: list items are `[]`.
    schema: String,
    in_use: bool,
    known: RefCell<Vec<&'static str>>,
}

impl<'a> Section<'a> {
    /// The top of a file; `None`: an empty file, or none at all.
    pub(super) fn root(report: &'a Report, node: Option<&'a Node>) -> Self {
        Self::at(report, node, String::new(), String::new(), true)
    }

    /// Whether the values matter: in a section that is switched off, placeholders of the template may stand.
    pub(super) fn used(mut self, in_use: bool) -> Self {
        self.in_use = self.in_use && in_use;
        self
    }

    pub(super) fn report(&self) -> &'a Report {
        self.report
    }

    /// Full path of a key of this section.
    pub(super) fn path_of(&self, key: &str) -> String {
        join(&self.path, key)
    }

    /// Whether the file has this key with a value.
    pub(super) fn has(&self, key: &'static str) -> bool {
        self.find(key).is_some()
    }

    /// Whether the file has any key here.
    pub(super) fn is_written(&self) -> bool {
        !self.entries.is_empty()
    }

    /// The value of a key; an empty one counts as absent.
    pub(super) fn find(&self, key: &'static str) -> Option<&'a Node> {
        let node = self.find_written(key)?;
        if matches!(node.value, Value::Null) { None } else { Some(node) }
    }

    fn find_written(&self, key: &'static str) -> Option<&'a Node> {
        self.known.borrow_mut().push(key);
        self.report.asked(join(&self.schema, key));
        let entry = self.entries.iter().find(|entry| entry.key == key)?;
        self.report.found(&self.path_of(key), entry.node_place(), entry.at.column);
        Some(&entry.node)
    }

    /// A section below.
    pub(super) fn section(&self, key: &'static str) -> Section<'a> {
        let node = self.find(key);
        Self::at(self.report, node, self.path_of(key), join(&self.schema, key), self.in_use)
    }

    fn at(report: &'a Report, node: Option<&'a Node>, path: String, schema: String, in_use: bool) -> Self {
        let entries = node.map_or(&[] as &[Entry], |node| map_of(report, node, &path));
        Self { report, entries, path, schema, in_use, known: RefCell::default() }
    }

    /// `true` or `false`.
    pub(super) fn flag(&self, key: &'static str, default: bool) -> bool {
        let Some(node) = self.find_written(key) else { return default };
        match &node.value {
            Value::Bool(value) => *value,
            // An empty list is nobody's intention to change anything; an empty switch might be.
            other => {
                self.wrong(key, node, "`true` or `false`", other);
                default
            }
        }
    }

    /// A whole number within limits.
    pub(super) fn number<T: TryFrom<u64>>(&self, key: &'static str, range: RangeInclusive<u64>, default: T) -> T {
        self.number_if_written(key, range).unwrap_or(default)
    }

    /// A whole number within limits, if the file has one.
    pub(super) fn number_if_written<T: TryFrom<u64>>(
        &self,
        key: &'static str,
        range: RangeInclusive<u64>,
    ) -> Option<T> {
        let node = self.find_written(key)?;
        let number = match &node.value {
            Value::Number(text) => text.parse::<u64>().ok().filter(|number| range.contains(number)),
            Value::Text(text) if is_placeholder(text) && !self.in_use => return None,
            _ => None,
        };
        let converted = number.and_then(|number| T::try_from(number).ok());
        if converted.is_none() {
            self.wrong(key, node, &format!("a whole number from {} to {}", range.start(), range.end()), &node.value);
        }
        converted
    }

    /// A TCP or UDP port.
    pub(super) fn port(&self, key: &'static str, default: u16) -> u16 {
        self.number(key, 1..=65_535, default)
    }

    /// A text. Placeholders are errors in a section in use, absent otherwise; an empty text is absent.
    pub(super) fn text(&self, key: &'static str) -> Option<&'a str> {
        let (node, text) = self.raw_text(key)?;
        accept_text(self.report, &self.path_of(key), node.at, text, self.in_use)
    }

    /// A text as it stands, placeholder or not.
    pub(super) fn raw_text(&self, key: &'static str) -> Option<(&'a Node, &'a str)> {
        let node = self.find(key)?;
        match &node.value {
            Value::Text(text) => Some((node, text.as_str())),
            other => {
                self.wrong(key, node, "a text", other);
                None
            }
        }
    }

    /// A text that is never quoted in messages.
    pub(super) fn secret(&self, key: &'static str) -> Option<&'a str> {
        let node = self.find(key)?;
        match &node.value {
            Value::Text(text) => accept_text(self.report, &self.path_of(key), node.at, text, self.in_use),
            _ => {
                self.report.error(&self.path_of(key), "a text is needed; write it in 'quotes'");
                None
            }
        }
    }

    /// A file or directory; relative ones are relative to `base`.
    pub(super) fn path(&self, key: &'static str, base: &std::path::Path) -> Option<PathBuf> {
        self.text(key).map(|text| base.join(text))
    }

    /// One of several words, in any case. Answers the position.
    pub(super) fn choice(&self, key: &'static str, words: &[&str]) -> Option<usize> {
        let text = self.text(key)?;
        let position = words.iter().position(|word| word.eq_ignore_ascii_case(text));
        if position.is_none() {
            let list = words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ");
            self.report.error(&self.path_of(key), format!("\"{}\" is none of {list}", short(text)));
        }
        position
    }

    /// A topic this program publishes to or listens on: no wildcards, no `$`. `None` only after an error was reported.
    pub(super) fn topic(&self, key: &'static str, default: &str) -> Option<TopicName> {
        self.named(key, self.text_or_empty(key).unwrap_or(default), |text| TopicName::publishable(text))
    }

    /// A topic filter. `None` only after an error was reported.
    pub(super) fn filter(&self, key: &'static str, default: &str) -> Option<TopicFilter> {
        self.named(key, self.text_or_empty(key).unwrap_or(default), |text| TopicFilter::new(text))
    }

    /// As [`Section::text`], but an empty text is a text: for keys where it is more likely a mistake than a wish for the default.
    fn text_or_empty(&self, key: &'static str) -> Option<&'a str> {
        let empty = matches!(self.find(key).map(|node| &node.value), Some(Value::Text(text)) if text.is_empty());
        if empty { Some("") } else { self.text(key) }
    }

    fn named<T>(&self, key: &str, text: &str, parse: impl Fn(&str) -> Result<T, NameError>) -> Option<T> {
        parse(text)
            .inspect_err(|error| {
                self.report.error(&self.path_of(key), format!("\"{}\" cannot be used: {error}", short(text)))
            })
            .ok()
    }

    /// Keys of Butler that are taken and have no effect here, whatever they hold.
    pub(super) fn accept(&self, keys: &[&'static str]) {
        for key in keys {
            self.find_written(key);
        }
    }

    /// A key whose work is not built: refused where it is written, never ignored. It is no known key for suggestions.
    pub(super) fn refuse(&self, key: &'static str, why: &str) {
        if let Some(entry) = self.entries.iter().find(|entry| entry.key == key) {
            self.known.borrow_mut().push(key);
            self.report.error_at(Some(entry.at), &self.path_of(key), why);
        }
    }

    /// Every key nobody asked for is an error that names the nearest known one.
    pub(super) fn finish(self) {
        self.refuse_unknown();
    }

    /// [`Section::finish`] for a section that is still needed.
    pub(super) fn refuse_unknown(&self) {
        for entry in self.unknown() {
            let key = self.path_of(&entry.key);
            self.report.error_at(Some(entry.at), &key, self.unknown_text(&entry.key));
        }
    }

    /// The entries nobody asked for.
    pub(super) fn unknown(&self) -> impl Iterator<Item = &'a Entry> {
        let known = self.known.borrow().clone();
        self.entries.iter().filter(move |entry| !known.iter().any(|name| *name == entry.key))
    }

    fn unknown_text(&self, key: &str) -> String {
        let known = self.known.borrow();
        match nearest(key, &known) {
            Some(near) => format!("there is no such key; did you mean `{near}`?"),
            None if known.len() <= 12 => format!("there is no such key; known here are {}", known.join(", ")),
            None => "there is no such key; see the annotated default file for those there are".to_owned(),
        }
    }

    fn wrong(&self, key: &str, node: &Node, needed: &str, found: &Value) {
        wrong_type(self.report, &self.path_of(key), node.at, needed, found);
    }
}

impl Entry {
    /// Where to point for a value: at the value, or at the key when the value is a section or empty.
    fn node_place(&self) -> Place {
        match self.node.value {
            Value::Map(_) | Value::List(_) | Value::Null => self.at,
            _ => self.node.at,
        }
    }
}

fn map_of<'a>(report: &Report, node: &'a Node, path: &str) -> &'a [Entry] {
    match &node.value {
        Value::Map(entries) => entries,
        Value::Null => &[],
        other => {
            let message = format!("a section with keys is needed, but this is {}", other.describe());
            report.error_at(Some(node.at), path, message);
            &[]
        }
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn wrong_type(report: &Report, path: &str, at: Place, needed: &str, found: &Value) {
    let hint = match found {
        Value::Number(_) | Value::Bool(_) if needed == "a text" => "; write it in 'quotes'",
        Value::Text(text) if needed.starts_with('`') && is_yes_or_no(text) => {
            "; `yes`, `no` and quoted words are texts here"
        }
        _ => "",
    };
    report.error_at(Some(at), path, format!("{needed} is needed, but this is {}{hint}", found.describe()));
}

fn is_yes_or_no(text: &str) -> bool {
    ["yes", "no", "on", "off", "true", "false"].iter().any(|word| word.eq_ignore_ascii_case(text))
}

/// Whether a text is still of the template's form `<...>`.
pub(super) fn is_placeholder(text: &str) -> bool {
    let text = text.trim();
    text.starts_with('<') && text.ends_with('>')
}

fn accept_text<'a>(report: &Report, path: &str, at: Place, text: &'a str, in_use: bool) -> Option<&'a str> {
    if is_placeholder(text) {
        if in_use {
            let message = format!("{} is a placeholder of the template; write the real value", short(text.trim()));
            report.error_at(Some(at), path, message);
        }
        return None;
    }
    if text.is_empty() { None } else { Some(text) }
}

/// The known key that is nearest to a misspelt one, if any is near enough to be meant.
pub(super) fn nearest<'k>(key: &str, known: &[&'k str]) -> Option<&'k str> {
    let wanted = key.to_lowercase();
    let similarity = |name: &str| strsim::normalized_damerau_levenshtein(&wanted, &name.to_lowercase());
    let best = known.iter().map(|name| (similarity(name), *name)).max_by(|(a, _), (b, _)| a.total_cmp(b))?;
    (best.0 >= 0.6).then_some(best.1)
}
