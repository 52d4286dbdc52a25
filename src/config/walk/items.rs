//! Lists of a configuration file: each item knows its place and its number.

use std::str::FromStr;

use super::{Section, accept_text, join, wrong_type};
use crate::{
    config::{
        diagnostic::Report,
        tree::{Node, Value, short},
    },
    names::TopicFilter,
};

/// One value of a list.
pub(in crate::config) struct Item<'a> {
    report: &'a Report,
    node: &'a Node,
    pub(in crate::config) path: String,
    schema: String,
    in_use: bool,
}

impl<'a> Section<'a> {
    /// A list; null and absent are empty.
    pub(in crate::config) fn list(&self, key: &'static str) -> Vec<Item<'a>> {
        self.list_if_written(key).unwrap_or_default()
    }

    /// A list, if the file has the key (null is an empty list).
    pub(in crate::config) fn list_if_written(&self, key: &'static str) -> Option<Vec<Item<'a>>> {
        let node = self.find_written(key)?;
        let items: &[Node] = match &node.value {
            Value::List(items) => items,
            Value::Null => &[],
            other => {
                self.wrong(key, node, "a list", other);
                &[]
            }
        };
        let item = |(position, node): (usize, &'a Node)| Item {
            report: self.report,
            node,
            path: format!("{}[{position}]", self.path_of(key)),
            schema: format!("{}[]", join(&self.schema, key)),
            in_use: self.in_use,
        };
        Some(items.iter().enumerate().map(item).collect())
    }

    /// Of each section of a list that was read already: the first of some keys that is a text.
    pub(in crate::config) fn texts_of(&self, key: &'static str, keys: &[&str]) -> Vec<&'a str> {
        let items = self.entries.iter().find(|entry| entry.key == key).map(|entry| &entry.node.value);
        let Some(Value::List(items)) = items else { return Vec::new() };
        let text = |item: &'a Node| {
            let Value::Map(entries) = &item.value else { return None };
            keys.iter().find_map(|key| match &entries.iter().find(|entry| entry.key == *key)?.node.value {
                Value::Text(text) => Some(text.as_str()),
                _ => None,
            })
        };
        items.iter().filter_map(text).collect()
    }

    /// A list of texts, each parsed; wrong ones are reported and left out.
    pub(in crate::config) fn parsed_list<T: FromStr<Err: std::fmt::Display>>(
        &self,
        key: &'static str,
    ) -> Option<Vec<T>> {
        let parse = |item: &Item<'a>| {
            let parsed = item.text()?.parse::<T>();
            parsed.inspect_err(|error| item.error(error.to_string())).ok()
        };
        Some(self.list_if_written(key)?.iter().filter_map(parse).collect())
    }

    /// A list of topic filters; wrong ones are reported and left out.
    pub(in crate::config) fn filters(&self, key: &'static str) -> Option<Vec<TopicFilter>> {
        let parse = |item: &Item<'a>| {
            let text = item.text()?;
            let parsed = TopicFilter::new(text);
            parsed.inspect_err(|error| item.error(format!("\"{}\" cannot be used: {error}", short(text)))).ok()
        };
        Some(self.list_if_written(key)?.iter().filter_map(parse).collect())
    }
}

impl<'a> Item<'a> {
    /// The item as a section of its own.
    pub(in crate::config) fn section(&self) -> Section<'a> {
        self.report.found(&self.path, self.node.at, self.node.at.column);
        Section::at(self.report, Some(self.node), self.path.clone(), self.schema.clone(), self.in_use)
    }

    /// The item as a text.
    pub(in crate::config) fn text(&self) -> Option<&'a str> {
        self.report.found(&self.path, self.node.at, self.node.at.column);
        match &self.node.value {
            Value::Text(text) => accept_text(self.report, &self.path, self.node.at, text, self.in_use),
            other => {
                wrong_type(self.report, &self.path, self.node.at, "a text", other);
                None
            }
        }
    }

    /// The item's value.
    pub(in crate::config) fn value(&self) -> &'a Value {
        self.report.found(&self.path, self.node.at, self.node.at.column);
        &self.node.value
    }

    pub(in crate::config) fn error(&self, message: impl Into<String>) {
        self.report.error_at(Some(self.node.at), &self.path, message);
    }
}
