//! YAML text to [`tree`](mod@super::tree).
//!
//! Why not `serde_yaml` here: its values carry no positions, and an error without a line is no help in a file of 1,500 lines. The events of
//! `saphyr-parser` do. Types follow YAML 1.2's core schema, as Butler's own reader did (`yes` is a text, not a flag). The parser is driven
//! as an iterator, so nesting costs no stack.

use std::collections::HashMap;

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use super::{
    diagnostic::Place,
    tree::{Entry, MAX_DEPTH, MAX_NODES, Node, Value},
};

/// Why a text is no usable YAML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) at: Place,
    pub(super) message: String,
}

/// Reads one document. Duplicate keys and anything else that cannot be kept in the tree are errors; all duplicates are reported.
pub(super) fn parse(text: &str) -> Result<Option<Node>, Vec<SyntaxError>> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text.strip_prefix('\u{feff}').unwrap_or(text)) {
        let step = match event {
            Ok((event, span)) => builder.event(event, place(&span.start)),
            Err(error) => Err(syntax(&error)),
        };
        if let Err(error) = step {
            builder.errors.push(error);
            return Err(builder.errors);
        }
    }
    if builder.errors.is_empty() { Ok(builder.root) } else { Err(builder.errors) }
}

fn place(marker: &Marker) -> Place {
    Place { line: marker.line().max(1), column: marker.col() + 1 }
}

fn syntax(error: &ScanError) -> SyntaxError {
    let info = error.info();
    let hint = if info.contains("escape") || info.contains("hexadecimal") {
        "; inside \"double quotes\" a backslash begins an escape: write Windows paths in 'single quotes'"
    } else if info.contains("tab") {
        "; indent with blanks, never with tabs"
    } else {
        "; look at this line and the one above: indentation, a missing `:` or blank behind it, an open quote"
    };
    SyntaxError { at: place(error.marker()), message: format!("this is not valid YAML: {info}{hint}") }
}

/// A list or map whose end has not come yet.
struct Open {
    at: Place,
    anchor: usize,
    items: Items,
}

enum Items {
    List(Vec<Node>),
    Map { entries: Vec<Entry>, key: Option<(String, Place)> },
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Node>,
    root: Option<Node>,
    documents: usize,
    nodes: usize,
    errors: Vec<SyntaxError>,
}

impl Builder {
    fn event(&mut self, event: Event<'_>, at: Place) -> Result<(), SyntaxError> {
        match event {
            Event::DocumentStart(_) => self.document(at),
            Event::Scalar(text, style, anchor, tag) => {
                let value = scalar(&text, style, tag.as_deref());
                self.add(Node { at, value }, anchor, Some(&text))
            }
            Event::SequenceStart(anchor, _) => self.start(at, anchor, Items::List(Vec::new())),
            Event::MappingStart(anchor, _) => self.start(at, anchor, Items::Map { entries: Vec::new(), key: None }),
            Event::SequenceEnd | Event::MappingEnd => self.end(at),
            Event::Alias(anchor) => self.alias(at, anchor),
            Event::Nothing | Event::StreamStart | Event::StreamEnd | Event::DocumentEnd => Ok(()),
        }
    }

    fn document(&mut self, at: Place) -> Result<(), SyntaxError> {
        self.documents += 1;
        if self.documents > 1 {
            return Err(wrong(at, "a second document begins here; a configuration file holds one: remove the `---`"));
        }
        Ok(())
    }

    fn start(&mut self, at: Place, anchor: usize, items: Items) -> Result<(), SyntaxError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(wrong(at, "this is nested too deeply for a configuration file"));
        }
        self.open.push(Open { at, anchor, items });
        Ok(())
    }

    fn end(&mut self, at: Place) -> Result<(), SyntaxError> {
        let Some(Open { at, anchor, items }) = self.open.pop() else {
            return Err(wrong(at, "a list or section ends here that never began"));
        };
        let value = match items {
            Items::List(items) => Value::List(items),
            Items::Map { entries, .. } => Value::Map(merged(entries)),
        };
        self.add(Node { at, value }, anchor, None)
    }

    fn alias(&mut self, at: Place, anchor: usize) -> Result<(), SyntaxError> {
        let Some(mut node) = self.anchors.get(&anchor).cloned() else {
            return Err(wrong(at, "this `*alias` refers to an `&anchor` that is not complete before it"));
        };
        node.at = at;
        self.nodes += node.count();
        if self.open.len() + node.depth() > MAX_DEPTH {
            return Err(wrong(at, "this is nested too deeply for a configuration file"));
        }
        self.add(node, 0, None)
    }

    /// Puts a complete value where it belongs: a key, the value of the pending key, a list item, or the root. `text` is the scalar's own
    /// text: only a scalar can be a key.
    fn add(&mut self, node: Node, anchor: usize, text: Option<&str>) -> Result<(), SyntaxError> {
        self.nodes += 1;
        if self.nodes > MAX_NODES {
            return Err(wrong(node.at, "this file has more values than a configuration can have"));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, node.clone());
        }
        match self.open.last_mut().map(|open| &mut open.items) {
            None => self.root = Some(node),
            Some(Items::List(items)) => items.push(node),
            Some(Items::Map { entries, key }) => match key.take() {
                Some((key, at)) => entries.push(Entry { key, at, node }),
                None => {
                    let Some(text) = text else {
                        return Err(wrong(node.at, "a list or section cannot be a key"));
                    };
                    if let Some(first) = entries.iter().find(|entry| entry.key == text) {
                        let message = format!("the key `{text}` is already in line {}; remove one", first.at.line);
                        self.errors.push(SyntaxError { at: node.at, message });
                    }
                    *key = Some((text.to_owned(), node.at));
                }
            },
        }
        Ok(())
    }
}

fn wrong(at: Place, message: &str) -> SyntaxError {
    SyntaxError { at, message: message.to_owned() }
}

/// Resolves `<<: *anchor`, as Butler's reader did: keys written here win over merged ones.
fn merged(entries: Vec<Entry>) -> Vec<Entry> {
    if entries.iter().all(|entry| entry.key != "<<") {
        return entries;
    }
    let (merges, mut own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|entry| entry.key == "<<");
    for merge in merges {
        let sources = match merge.node.value {
            Value::List(items) => items,
            value => vec![Node { at: merge.node.at, value }],
        };
        for entry in sources
            .into_iter()
            .filter_map(|node| if let Value::Map(map) = node.value { Some(map) } else { None })
            .flatten()
        {
            if own.iter().all(|present| present.key != entry.key) {
                own.push(entry);
            }
        }
    }
    own
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    let forced_text = tag.is_some_and(|tag| tag.suffix == "str" || tag.handle == "!");
    if style != ScalarStyle::Plain || forced_text {
        return Value::Text(text.to_owned());
    }
    match text {
        "" | "~" | "null" | "Null" | "NULL" => Value::Null,
        "true" | "True" | "TRUE" => Value::Bool(true),
        "false" | "False" | "FALSE" => Value::Bool(false),
        _ if is_number(text) => Value::Number(text.to_owned()),
        _ => Value::Text(text.to_owned()),
    }
}

/// Decimal integers and fractions; the other notations of YAML are no use in a configuration and stay texts.
fn is_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    let all_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    match digits.split_once('.') {
        Some((whole, fraction)) => all_digits(whole) && all_digits(fraction),
        None => all_digits(digits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(node: &Node) -> &[Entry] {
        match &node.value {
            Value::Map(entries) => entries,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn positions_and_types() {
        let root = parse("\u{feff}# c\nä: 1\nb:\n  - x\n  - 'y'\nc: {d: true, e: , f: 5.4}\n").unwrap().unwrap();
        let entries = map(&root);
        let keys: Vec<_> = entries.iter().map(|e| (e.key.as_str(), e.at.line, e.at.column)).collect();
        assert_eq!(keys, [("ä", 2, 1), ("b", 3, 1), ("c", 6, 1)]);
        let c = map(&entries[2].node);
        assert!(matches!(c[0].node.value, Value::Bool(true)));
        assert!(matches!(c[1].node.value, Value::Null));
        assert!(matches!(&c[2].node.value, Value::Number(n) if n == "5.4"));
        assert_eq!((c[0].node.at.line, c[0].node.at.column), (6, 8));
    }

    #[test]
    fn merge_keys_and_aliases() {
        let root = parse("a: &a {x: 1, y: 2}\nb: {<<: *a, x: 3}\nc: *a\n").unwrap().unwrap();
        let b: Vec<_> = map(&map(&root)[1].node).iter().map(|e| e.key.as_str()).collect();
        assert_eq!(b, ["x", "y"]);
        assert_eq!(map(&map(&root)[2].node).len(), 2);
    }

    #[test]
    fn what_is_refused() {
        let deep = "[".repeat(60);
        let bomb = format!(
            "a: &a [1,1,1,1,1,1,1,1,1]\n{}",
            ('b'..='j')
                .map(|c| format!("{c}: &{c} [{}]\n", vec![format!("*{}", (c as u8 - 1) as char); 9].join(",")))
                .collect::<String>()
        );
        let cases = [
            ("a: 1\na: 2\n", "already in line 1"),
            ("a: 1\n---\nb: 2\n", "second document"),
            ("? [a]\n: b\n", "cannot be a key"),
            ("a: \"C:\\Users\"\n", "single quotes"),
            ("a: *b\n", "not valid YAML"),
            (deep.as_str(), "nested too deeply"),
            (bomb.as_str(), "more values"),
        ];
        assert_eq!(cases.len(), 7);
        for (text, fragment) in cases {
            let errors = parse(text).unwrap_err();
            assert!(errors[0].message.contains(fragment), "{text:.40}: {errors:?}");
        }
    }
}
