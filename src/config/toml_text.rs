//! TOML text to [`tree`](mod@super::tree).

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    diagnostic::Place,
    tree::{Entry, MAX_DEPTH, Node, Value},
    yaml::SyntaxError,
};

/// Reads a document; all syntax errors are reported. The parser itself bounds nesting (arrays, tables and dotted keys alike).
pub(super) fn parse(text: &str) -> Result<Node, Vec<SyntaxError>> {
    let lines = Lines::new(text);
    let (table, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        let error = |error: &toml::de::Error| SyntaxError {
            at: lines.place(error.span().map_or(0, |span| span.start)),
            message: format!("this is not valid TOML: {}", error.message()),
        };
        return Err(errors.iter().map(error).collect());
    }
    let at = lines.place(0);
    table_node(at, table.get_ref(), &lines, 0).map_err(|error| vec![error])
}

fn table_node(at: Place, table: &DeTable<'_>, lines: &Lines<'_>, depth: usize) -> Result<Node, SyntaxError> {
    let mut entries = Vec::with_capacity(table.len());
    for (key, value) in table {
        let at = lines.place(key.span().start);
        entries.push(Entry { key: key.get_ref().to_string(), at, node: node(value, lines, depth + 1)? });
    }
    entries.sort_by_key(|entry| entry.at);
    Ok(Node { at, value: Value::Map(entries) })
}

fn node(value: &Spanned<DeValue<'_>>, lines: &Lines<'_>, depth: usize) -> Result<Node, SyntaxError> {
    let at = lines.place(value.span().start);
    if depth > MAX_DEPTH {
        return Err(SyntaxError { at, message: "this is nested too deeply for a configuration file".into() });
    }
    let value = match value.get_ref() {
        DeValue::String(text) => Value::Text(text.to_string()),
        DeValue::Integer(number) => Value::Number(integer(number.as_str(), number.radix())),
        DeValue::Float(number) => Value::Number(number.as_str().to_owned()),
        DeValue::Boolean(flag) => Value::Bool(*flag),
        DeValue::Datetime(time) => Value::Text(time.to_string()),
        DeValue::Array(items) => {
            Value::List(items.iter().map(|item| node(item, lines, depth + 1)).collect::<Result<_, _>>()?)
        }
        DeValue::Table(table) => return table_node(at, table, lines, depth),
    };
    Ok(Node { at, value })
}

fn integer(text: &str, radix: u32) -> String {
    i64::from_str_radix(text, radix).map_or_else(|_| text.to_owned(), |number| number.to_string())
}

/// From byte offsets to lines and columns.
struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        let ends = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(offset, _)| offset + 1);
        Self { text, starts: std::iter::once(0).chain(ends).collect() }
    }

    fn place(&self, offset: usize) -> Place {
        let line = self.starts.partition_point(|start| *start <= offset);
        let start = self.starts.get(line.saturating_sub(1)).copied().unwrap_or(0);
        let column = self.text.get(start..offset).map_or(0, |text| text.chars().count());
        Place { line, column: column + 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nesting_is_bounded() {
        let dotted = format!("{} = 1\n", vec!["a"; 20_000].join("."));
        for text in [dotted, format!("a = {}", "[".repeat(20_000)), format!("a = {}", "{a = ".repeat(20_000))] {
            assert!(parse(&text).is_err());
        }
    }

    #[test]
    fn positions_and_errors() {
        let root = parse("# ä\n[[listeners]]\nname = \"å\"\ntls = { cert = 1_0, key = 0x10 }\n").unwrap();
        let Value::Map(entries) = &root.value else { panic!("no map") };
        let Value::List(items) = &entries[0].node.value else { panic!("no list") };
        let Value::Map(listener) = &items[0].value else { panic!("no map") };
        assert_eq!((listener[1].at.line, listener[1].at.column), (4, 1));
        let Value::Map(tls) = &listener[1].node.value else { panic!("no map") };
        assert!(matches!(&tls[0].node.value, Value::Number(n) if n == "10"));
        assert!(matches!(&tls[1].node.value, Value::Number(n) if n == "16"));
        let errors = parse("a = 1\nb = \nc = 'x\n").unwrap_err();
        assert_eq!(errors[0].at.line, 2);
        assert!(errors.len() >= 2, "{errors:?}");
    }
}
