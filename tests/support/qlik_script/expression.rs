//! Expressions: literals, variables, `&`, comparisons, and the functions the file uses.

use super::Script;

#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    Null,
    Text(String),
    Number(f64),
}

impl Value {
    pub fn text(&self) -> String {
        match self {
            Self::Null => String::new(),
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
        }
    }

    fn number(&self) -> Option<f64> {
        match self {
            Self::Null => None,
            Self::Text(text) => text.trim().parse().ok(),
            Self::Number(number) => Some(*number),
        }
    }

    pub(super) fn is_true(&self) -> bool {
        self.number().is_some_and(|number| number != 0.0)
    }
}

fn truth(holds: bool) -> Value {
    Value::Number(if holds { -1.0 } else { 0.0 })
}

pub(super) fn evaluate(text: &str, script: &Script) -> Value {
    let mut parser = Parser { text, script };
    let value = parser.comparison();
    assert_eq!(parser.text.trim(), "", "an expression with more than was understood: {text}");
    value
}

struct Parser<'a> {
    text: &'a str,
    script: &'a Script,
}

impl<'a> Parser<'a> {
    fn takes(&mut self, sign: &str) -> bool {
        match self.text.trim_start().strip_prefix(sign) {
            Some(rest) => {
                self.text = rest;
                true
            }
            None => false,
        }
    }

    fn comparison(&mut self) -> Value {
        let left = self.joined();
        for sign in [">=", "<=", "<>", "=", ">", "<"] {
            if self.takes(sign) {
                let right = self.joined();
                return compared(&left, sign, &right);
            }
        }
        left
    }

    fn joined(&mut self) -> Value {
        let mut value = self.primary();
        while self.takes("&") {
            value = Value::Text(value.text() + &self.primary().text());
        }
        value
    }

    fn primary(&mut self) -> Value {
        let text = self.text.trim_start();
        let first = text.chars().next().unwrap_or_else(|| panic!("an expression without an end"));
        if first == '\'' {
            return Value::Text(self.literal());
        }
        if first.is_ascii_digit() || first == '-' {
            let end = text[1..].find(|c: char| !c.is_ascii_digit() && c != '.').map_or(text.len(), |at| at + 1);
            let (digits, rest) = text.split_at(end);
            self.text = rest;
            return Value::Number(digits.parse().unwrap_or_else(|_| panic!("no number: {digits}")));
        }
        let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
        let (name, rest) = text.split_at(end);
        assert!(!name.is_empty(), "this is not understood: {text}");
        self.text = rest;
        if !self.takes("(") {
            let known = self.script.variables.get(name);
            return known.unwrap_or_else(|| panic!("there is no variable {name}")).clone();
        }
        let mut arguments = Vec::new();
        while !self.takes(")") {
            arguments.push(self.comparison());
            let more = self.takes(",");
            assert!(more || self.text.trim_start().starts_with(')'), "{name}: no end of its arguments: {}", self.text);
        }
        function(name, &arguments, self.script)
    }

    /// A text in single quotes; two of them are one inside.
    fn literal(&mut self) -> String {
        let text = self.text.trim_start();
        let mut at = 1;
        loop {
            let end = at + text[at..].find('\'').unwrap_or_else(|| panic!("a literal without end: {text}"));
            if !text[end + 1..].starts_with('\'') {
                self.text = &text[end + 1..];
                return text[1..end].replace("''", "'");
            }
            at = end + 2;
        }
    }
}

fn compared(left: &Value, sign: &str, right: &Value) -> Value {
    let order = match (left.number(), right.number()) {
        (Some(left), Some(right)) => left.total_cmp(&right),
        _ if *left == Value::Null || *right == Value::Null => return Value::Null,
        _ => left.text().cmp(&right.text()),
    };
    truth(match sign {
        "=" => order.is_eq(),
        "<>" => order.is_ne(),
        ">" => order.is_gt(),
        "<" => order.is_lt(),
        ">=" => order.is_ge(),
        _ => order.is_le(),
    })
}

fn function(name: &str, arguments: &[Value], script: &Script) -> Value {
    let text = |at: usize| arguments[at].text();
    let number = |at: usize| arguments[at].number().unwrap_or_else(|| panic!("{name}: no number: {arguments:?}"));
    match (&*name.to_uppercase(), arguments.len()) {
        ("REPLACE", 3) => Value::Text(text(0).replace(&text(1), &text(2))),
        ("CHR", 1) => Value::Text(char::from_u32(number(0) as u32).unwrap().to_string()),
        ("LEN", 1) => Value::Number(text(0).chars().count() as f64),
        ("LOWER", 1) => Value::Text(text(0).to_lowercase()),
        ("PURGECHAR", 2) => Value::Text(text(0).chars().filter(|c| !text(1).contains(*c)).collect()),
        ("MATCH", 2..) => {
            let found = (1..arguments.len()).find(|at| text(*at) == text(0));
            Value::Number(found.unwrap_or(0) as f64)
        }
        ("ALT", 2..) => arguments.iter().find(|value| value.number().is_some()).or(arguments.last()).unwrap().clone(),
        ("IF", 3) => arguments[if arguments[0].is_true() { 1 } else { 2 }].clone(),
        ("PEEK", 3) => script.peek(&text(0), number(1), &text(2)),
        ("TABLENUMBER", 1) => {
            if script.tables.contains_key(&text(0)) {
                Value::Number(0.0)
            } else {
                Value::Null
            }
        }
        ("DOCUMENTNAME", 0) => Value::Text(script.document.clone()),
        (_, count) => panic!("a function that is not known: {name} with {count} arguments"),
    }
}
