//! Scripts as text: statements, comments, quotes, and the parts of a `SELECT`.

use super::Request;

/// A statement without its semicolon, comments gone.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    pub text: String,
}

/// Statements that end with their line.
const CONTROL: [&str; 5] = ["SUB", "END", "IF", "ELSE", "ELSEIF"];

/// Cuts a script into statements.
pub(super) fn statements(script: &str) -> Vec<Statement> {
    let script = without_comments(script);
    let (mut found, mut rest) = (Vec::new(), script.trim_start());
    while !rest.is_empty() {
        let (first, _) = word(rest);
        let end = if CONTROL.contains(&&*first.to_uppercase()) {
            rest.find('\n').unwrap_or(rest.len())
        } else {
            semicolon(rest).unwrap_or_else(|| panic!("a statement without an end: {rest}"))
        };
        let text = rest[..end].trim().trim_end_matches(';').to_owned();
        if !text.is_empty() {
            found.push(Statement { text });
        }
        rest = rest[end..].trim_start_matches(|c: char| c == ';' || c.is_whitespace());
    }
    found
}

/// Where a quoted part ends that begins with the first character, if one does; a doubled quote is one inside.
fn quoted(text: &str) -> Option<usize> {
    let open = text.chars().next()?;
    let close = match open {
        '\'' | '"' => open,
        '[' => ']',
        _ => return None,
    };
    let mut at = 1;
    loop {
        let end = at + text[at..].find(close).unwrap_or_else(|| panic!("a quote without end: {text}"));
        if close == ']' || !text[end + 1..].starts_with(close) {
            return Some(end + 1);
        }
        at = end + 2;
    }
}

fn without_comments(script: &str) -> String {
    let (mut text, mut rest) = (String::new(), script);
    while let Some(c) = rest.chars().next() {
        let end = if let Some(comment) = rest.strip_prefix("//") {
            let comment = comment.split('\n').next().unwrap();
            assert!(!comment.contains("$("), "Qlik may expand it, also in a comment: {comment}");
            let end = comment.len() + 2;
            rest = &rest[end..];
            continue;
        } else {
            assert!(!rest.starts_with("/*"), "a comment of another kind");
            quoted(rest).unwrap_or(c.len_utf8())
        };
        text.push_str(&rest[..end]);
        rest = &rest[end..];
    }
    text
}

fn semicolon(text: &str) -> Option<usize> {
    outside(text, |c| c == ';')
}

/// Where a character stands that is in no quotes.
fn outside(text: &str, mut is: impl FnMut(char) -> bool) -> Option<usize> {
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        if is(c) {
            return Some(at);
        }
        at += quoted(&text[at..]).unwrap_or(c.len_utf8());
    }
    None
}

/// After the expansion it is still one statement.
pub(super) fn assert_whole(text: &str) {
    assert_eq!(semicolon(text), None, "the statement fell apart: {text}");
    assert_eq!(without_comments(text), text, "the statement became a comment: {text}");
}

/// The first word and the rest.
pub(super) fn word(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len()))
}

pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
}

/// Where the block ends that begins here.
pub(super) fn end_of(statements: &[Statement], from: usize, what: &str) -> usize {
    let mut depth = 0;
    for (at, statement) in statements.iter().enumerate().skip(from) {
        let (first, rest) = word(&statement.text);
        let is_same = |text: &str| word(text.trim()).0.eq_ignore_ascii_case(what);
        if first.eq_ignore_ascii_case("END") && is_same(rest) {
            if depth == 0 {
                return at;
            }
            depth -= 1;
        } else if is_same(first) {
            depth += 1;
        }
    }
    panic!("{what} without an end")
}

/// Where the `ELSE` of a block stands that has no other block in it before.
pub(super) fn else_of(block: &[Statement]) -> Option<usize> {
    let mut depth = 0;
    block.iter().position(|statement| {
        let first = word(&statement.text).0.to_uppercase();
        assert_ne!(first, "ELSEIF", "ELSEIF is not known here");
        depth += i32::from(first == "IF") - i32::from(first == "END");
        first == "ELSE" && depth == 0
    })
}

/// Parts with commas between, none of them in quotes or brackets.
pub(super) fn arguments(list: &str) -> Vec<String> {
    let (mut parts, mut rest) = (Vec::new(), list);
    loop {
        let mut depth = 0;
        let comma = outside(rest, |c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            c == ',' && depth == 0
        });
        let Some(at) = comma else { break };
        parts.push(rest[..at].trim().to_owned());
        rest = &rest[at + 1..];
    }
    if !rest.trim().is_empty() {
        parts.push(rest.trim().to_owned());
    }
    parts
}

/// What is selected, and what is sent for it.
pub(super) fn select(text: &str, connection: String) -> (Vec<String>, Request) {
    let mut reader = Reader(text);
    reader.words("SQL SELECT");
    let mut fields = vec![reader.quoted()];
    while reader.takes(",") {
        fields.push(reader.quoted());
    }
    reader.words("FROM JSON (wrap on) \"root\" WITH CONNECTION (");
    let (mut url, mut headers, mut body) = (None, Vec::new(), None);
    loop {
        if reader.takes("Url") {
            assert!(url.replace(reader.quoted()).is_none(), "two addresses: {text}");
        } else if reader.takes("HTTPHEADER") {
            headers.push((reader.quoted(), reader.quoted()));
        } else if reader.takes("BODY") {
            assert!(body.replace(reader.quoted()).is_none(), "two bodies: {text}");
        } else {
            panic!("what is this? {}", reader.0);
        }
        if !reader.takes(",") {
            break;
        }
    }
    reader.words(")");
    assert_eq!(reader.0.trim(), "", "more than a SELECT: {text}");
    (fields, Request { connection, url: url.expect("an address"), headers, body })
}

struct Reader<'a>(&'a str);

impl Reader<'_> {
    fn takes(&mut self, word: &str) -> bool {
        match self.0.trim_start().strip_prefix(word) {
            Some(rest) => {
                self.0 = rest;
                true
            }
            None => false,
        }
    }

    fn words(&mut self, words: &str) {
        for word in words.split(' ') {
            assert!(self.takes(word), "`{word}` is not at {}", self.0);
        }
    }

    /// A text in double quotes.
    fn quoted(&mut self) -> String {
        let text = self.0.trim_start();
        assert!(text.starts_with('"'), "no quoted text: {text}");
        let end = quoted(text).unwrap();
        self.0 = &text[end..];
        text[1..end - 1].replace("\"\"", "\"")
    }
}
