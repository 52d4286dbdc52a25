//! The filter language of the repository: `[property] op [value]`, `and`, `or`, parentheses.
//!
//! Strings stand in single quotes and are compared without regard to case; a quote or backslash inside is escaped with a backslash (doubling
//! the quote is an error, as on a real server). Ids, numbers, `true`/`false` and names of enumerations stand without quotes, dates with.
//! A property that has several values (`tags.name`) matches when one of them does.
//!
//! Invariants: parsing never panics and never recurses deeper than [`MOST_NESTING`]; a parsed filter names only known properties and
//! compares each with a value of its own kind, so evaluation cannot fail; written out, it is read again as the same filter.

mod eval;
mod lexer;
mod parser;
mod print;
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
    /// A GUID, lower case.
    Id(String),
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

    /// The texts of which one of `paths` must equal one for anything to pass, if the filter says so; lets callers look only where it can be.
    pub fn among(&self, paths: &[&str]) -> Option<Vec<&str>> {
        self.0.among(paths)
    }

    /// The date before which none of `paths` may be for anything to pass, if the filter says so, as QRS writes it.
    pub fn not_before(&self, paths: &[&str]) -> Option<&str> {
        self.0.not_before(paths)
    }
}

impl Expression {
    fn among(&self, paths: &[&str]) -> Option<Vec<&str>> {
        match self {
            Self::Compare { path, operator: Operator::Eq, operand: Operand::Text(text) | Operand::Id(text) }
                if paths.contains(path) =>
            {
                Some(vec![text.as_str()])
            }
            Self::Compare { .. } => None,
            Self::All(parts) => parts.iter().find_map(|part| part.among(paths)),
            Self::Any(parts) => {
                let each: Option<Vec<Vec<&str>>> = parts.iter().map(|part| part.among(paths)).collect();
                each.map(|each| each.into_iter().flatten().collect())
            }
        }
    }

    fn not_before(&self, paths: &[&str]) -> Option<&str> {
        match self {
            Self::Compare {
                path,
                operator: Operator::Gt | Operator::Ge | Operator::Eq,
                operand: Operand::Date(date),
            } if paths.contains(path) => Some(date),
            Self::Compare { .. } => None,
            Self::All(parts) => parts.iter().filter_map(|part| part.not_before(paths)).max(),
            Self::Any(parts) => {
                let each: Option<Vec<&str>> = parts.iter().map(|part| part.not_before(paths)).collect();
                each.and_then(|each| each.into_iter().min())
            }
        }
    }
}

#[cfg(test)]
mod tests;
