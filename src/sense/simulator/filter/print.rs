//! Writes a filter as the repository would read it: one blank between words, parentheses only where they change the meaning.
//!
//! Invariant: what is written here is read again as the same filter, as long as it is no longer than [`LONGEST`](super::LONGEST).

use std::fmt::{self, Display, Formatter};

use super::{Expression, Filter, Operand, Operator};

impl Display for Filter {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Display for Expression {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Compare { path, operator, operand } => write!(f, "{path} {} {operand}", operator.word()),
            // A group inside a group of its own kind was written with parentheses; without them it would become one with it.
            Self::All(parts) => joined(f, parts, " and ", |part| !matches!(part, Self::Compare { .. })),
            Self::Any(parts) => joined(f, parts, " or ", |part| matches!(part, Self::Any(_))),
        }
    }
}

fn joined(
    f: &mut Formatter<'_>,
    parts: &[Expression],
    word: &str,
    grouped: impl Fn(&Expression) -> bool,
) -> fmt::Result {
    for (number, part) in parts.iter().enumerate() {
        f.write_str(if number == 0 { "" } else { word })?;
        if grouped(part) { write!(f, "({part})")? } else { part.fmt(f)? }
    }
    Ok(())
}

impl Display for Operand {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(f, "'{}'", text.replace('\\', r"\\").replace('\'', r"\'")),
            Self::Date(date) => write!(f, "'{date}'"),
            Self::Id(id) => f.write_str(id),
            Self::Number(number) => number.fmt(f),
            Self::Truth(truth) => truth.fmt(f),
        }
    }
}

impl Operator {
    fn word(self) -> &'static str {
        match self {
            Self::Eq => "eq",
            Self::Ne => "ne",
            Self::Gt => "gt",
            Self::Ge => "ge",
            Self::Lt => "lt",
            Self::Le => "le",
            Self::StartsWith => "sw",
            Self::EndsWith => "ew",
            Self::Contains => "so",
        }
    }
}
