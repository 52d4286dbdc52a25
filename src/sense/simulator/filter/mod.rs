//! The filter language of the repository: `[property] op [value]`, `and`, `or`, parentheses.
//!
//! Strings stand in single quotes and are compared without regard to case; a quote or backslash inside is escaped with a backslash (doubling
//! the quote is an error, as on a real server). Ids, numbers, `true`/`false` and names of enumerations stand without quotes, dates with.
//! A property that has several values (`tags.name`) matches when one of them does.
//!
//! Invariants: parsing never panics and never recurses deeper than [`MOST_NESTING`]; a parsed filter names only known properties and
//! compares each with a value of its own kind, so evaluation cannot fail.

mod eval;
mod lexer;
mod parser;
pub mod schema;

use serde_json::Value;

pub use self::schema::Schema;

/// Parentheses inside parentheses.
pub const MOST_NESTING: usize = 64;
/// Longest expression, bytes.
pub const LONGEST: usize = 64 * 1024;

/// Why an expression is refused; the text is the body of the 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// It does not follow the grammar, or compares a property with a value of another kind.
    #[error("Cannot parse the expression: {0}")]
    CannotParse(String),
    /// Parentheses with nothing between them.
    #[error("Invalid expression")]
    EmptyGroup,
    /// No object of this kind has such a property.
    #[error("Invalid expression: the property '{0}' is not known")]
    UnknownProperty(String),
}

/// How a property is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Eq,
    Ne,
    Gt,
    Ge,
    Lt,
    Le,
    StartsWith,
    EndsWith,
    Contains,
}

/// With what a property is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Operand {
    /// Lower case.
    Text(String),
    Number(i64),
    Truth(bool),
    /// As QRS writes it, so that the order of the texts is the order of the dates.
    Date(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Expression {
    All(Vec<Expression>),
    Any(Vec<Expression>),
    Compare { path: &'static str, operator: Operator, operand: Operand },
}

/// A filter that was understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter(Expression);

impl Filter {
    /// Reads a filter over objects of one kind.
    pub fn parse(text: &str, schema: &Schema) -> Result<Self, FilterError> {
        parser::parse(text, schema).map(Self)
    }

    /// Whether an object passes.
    pub fn matches(&self, object: &Value) -> bool {
        eval::matches(&self.0, object)
    }

    /// The text that `path` must equal for anything to pass, if the filter says so; lets callers look only where it can be.
    pub fn pinned(&self, path: &str) -> Option<&str> {
        let pin = |expression: &'_ Expression| match expression {
            Expression::Compare { path: this, operator: Operator::Eq, operand: Operand::Text(_) } => *this == path,
            _ => false,
        };
        let found = match &self.0 {
            Expression::All(parts) => parts.iter().find(|part| pin(part))?,
            other => Some(other).filter(|other| pin(other))?,
        };
        match found {
            Expression::Compare { operand: Operand::Text(text), .. } => Some(text),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
