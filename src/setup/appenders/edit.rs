//! Changes of an XML text at known places: everything else stays as it is, to the byte.

use std::ops::Range;

use roxmltree::Node;

/// Elements directly below one.
pub(super) fn elements<'a, 'input>(parent: Node<'a, 'input>) -> impl Iterator<Item = Node<'a, 'input>> {
    parent.children().filter(Node::is_element)
}

/// Those of a kind and a name.
pub(super) fn named<'a, 'input>(
    parent: Node<'a, 'input>,
    kind: &'a str,
    name: &'a str,
) -> impl Iterator<Item = Node<'a, 'input>> {
    elements(parent).filter(move |node| node.has_tag_name(kind) && node.attribute("name") == Some(name))
}

/// Where the closing tag of an element begins in its text; `None`: it has none.
pub(super) fn closing(text: &str) -> Option<usize> {
    // The last tag of an element's text is its own.
    if text.ends_with("/>") { None } else { text.rfind("</") }
}

/// Changes that do not overlap, in any order.
pub(super) struct Edits<'a> {
    text: &'a str,
    edits: Vec<(Range<usize>, String)>,
}

impl<'a> Edits<'a> {
    pub(super) fn of(text: &'a str) -> Self {
        Self { text, edits: Vec::new() }
    }

    pub(super) fn replace(&mut self, range: Range<usize>, by: &str) {
        self.edits.push((range, self.in_its_lines(by)));
    }

    /// Behind the last child of an element; an empty one is opened for it. `None`: the text is not what it seemed.
    pub(super) fn append(&mut self, element: Node<'_, '_>, more: &str) -> Option<()> {
        let range = element.range();
        let text = self.text.get(range.clone())?;
        let more = self.in_its_lines(more);
        if let Some(at) = closing(text) {
            let end = range.start + text.get(..at)?.trim_end().len();
            // What was added at the same place before comes first.
            match self.edits.iter_mut().find(|(known, _)| *known == (end..end)) {
                Some((_, before)) => before.push_str(&more),
                None => self.edits.push((end..end, more)),
            }
            return Some(());
        }
        let open = text.strip_suffix("/>")?.trim_end();
        let name: String = open.strip_prefix('<')?.chars().take_while(|c| !c.is_whitespace()).collect();
        let close = self.in_its_lines(&format!("\n{}</{name}>", self.indent(range.start)));
        let end = range.start + open.len()..range.end;
        match self.edits.iter_mut().find(|(known, _)| *known == end) {
            Some((_, before)) => {
                let at = before.len() - close.len();
                before.insert_str(at, &more);
            }
            None => self.edits.push((end, format!(">{more}{close}"))),
        }
        Some(())
    }

    /// The blanks in front of what begins there, if its line has nothing else before it.
    fn indent(&self, at: usize) -> &'a str {
        let before = self.text.get(..at).unwrap_or_default();
        let line = before.rsplit('\n').next().unwrap_or_default();
        if line.trim().is_empty() { line } else { "" }
    }

    /// With the ends of lines the file has.
    fn in_its_lines(&self, text: &str) -> String {
        if self.text.contains("\r\n") { text.replace('\n', "\r\n") } else { text.to_owned() }
    }

    /// The text with all changes; `None`: two of them overlap.
    pub(super) fn applied(mut self) -> Option<String> {
        self.edits.sort_by_key(|(range, _)| (range.start, range.end));
        let (mut text, mut at) = (String::with_capacity(self.text.len() + 8_192), 0);
        for (range, by) in &self.edits {
            text.push_str(self.text.get(at..range.start)?);
            text.push_str(by);
            at = range.end;
        }
        text.push_str(self.text.get(at..)?);
        Some(text)
    }
}
