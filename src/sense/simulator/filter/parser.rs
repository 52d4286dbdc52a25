//! From parts to an expression: `or` binds looser than `and`, parentheses tighter than both.

use std::{iter::Peekable, vec::IntoIter};

use time::{
    Date, OffsetDateTime, PrimitiveDateTime, format_description::well_known::Rfc3339, macros::format_description,
};
use uuid::Uuid;

use super::{
    Expression, FilterError, LONGEST, MOST_NESTING, Operand, Operator,
    lexer::{Token, tokens},
    schema::{Kind, Schema, find},
};

/// Reads a whole expression.
pub fn parse(text: &str, schema: &Schema) -> Result<Expression, FilterError> {
    let wrong = || FilterError::CannotParse(text.to_owned());
    if text.len() > LONGEST {
        return Err(FilterError::CannotParse(format!("longer than {LONGEST} bytes")));
    }
    let mut parser = Parser { tokens: tokens(text).ok_or_else(wrong)?.into_iter().peekable(), schema, text };
    let expression = parser.any(0)?;
    match parser.tokens.next() {
        None => Ok(expression),
        Some(_) => Err(wrong()),
    }
}

struct Parser<'a> {
    tokens: Peekable<IntoIter<Token>>,
    schema: &'a Schema,
    text: &'a str,
}

impl Parser<'_> {
    fn wrong(&self) -> FilterError {
        FilterError::CannotParse(self.text.to_owned())
    }

    /// Takes the next part if it is this word.
    fn takes(&mut self, word: &str) -> bool {
        self.tokens.next_if(|token| matches!(token, Token::Word(found) if found.eq_ignore_ascii_case(word))).is_some()
    }

    fn any(&mut self, depth: usize) -> Result<Expression, FilterError> {
        let mut parts = vec![self.all(depth)?];
        while self.takes("or") {
            parts.push(self.all(depth)?);
        }
        Ok(joined(parts, Expression::Any))
    }

    fn all(&mut self, depth: usize) -> Result<Expression, FilterError> {
        let mut parts = vec![self.one(depth)?];
        while self.takes("and") {
            parts.push(self.one(depth)?);
        }
        Ok(joined(parts, Expression::All))
    }

    fn one(&mut self, depth: usize) -> Result<Expression, FilterError> {
        if self.tokens.next_if_eq(&Token::Open).is_none() {
            return self.comparison();
        }
        if depth >= MOST_NESTING {
            return Err(self.wrong());
        }
        if self.tokens.peek() == Some(&Token::Close) {
            return Err(FilterError::EmptyGroup);
        }
        let inner = self.any(depth + 1)?;
        self.tokens.next_if_eq(&Token::Close).map(|_| inner).ok_or_else(|| self.wrong())
    }

    fn comparison(&mut self) -> Result<Expression, FilterError> {
        let (Some(Token::Word(name)), Some(Token::Word(word))) = (self.tokens.next(), self.tokens.next()) else {
            return Err(self.wrong());
        };
        let operator = operator(&word).ok_or_else(|| self.wrong())?;
        let (path, kind) = find(self.schema, &name).ok_or(FilterError::UnknownProperty(name))?;
        let operand = self.tokens.next().and_then(|token| operand(kind, token)).ok_or_else(|| self.wrong())?;
        let fits = match kind {
            Kind::Text => true,
            Kind::Number | Kind::Date | Kind::Enumeration(_) => !operator.is_for_text(),
            Kind::Guid | Kind::Truth => matches!(operator, Operator::Eq | Operator::Ne),
        };
        if fits { Ok(Expression::Compare { path, operator, operand }) } else { Err(self.wrong()) }
    }
}

fn joined(mut parts: Vec<Expression>, join: fn(Vec<Expression>) -> Expression) -> Expression {
    match parts.pop() {
        Some(only) if parts.is_empty() => only,
        Some(last) => {
            parts.push(last);
            join(parts)
        }
        None => join(parts),
    }
}

impl Operator {
    fn is_for_text(self) -> bool {
        matches!(self, Self::StartsWith | Self::EndsWith | Self::Contains)
    }
}

fn operator(word: &str) -> Option<Operator> {
    Some(match word.to_ascii_lowercase().as_str() {
        "eq" => Operator::Eq,
        "ne" => Operator::Ne,
        "gt" => Operator::Gt,
        "ge" => Operator::Ge,
        "lt" => Operator::Lt,
        "le" => Operator::Le,
        "sw" => Operator::StartsWith,
        "ew" => Operator::EndsWith,
        "so" => Operator::Contains,
        _ => return None,
    })
}

/// A value, if it is one of this kind.
fn operand(kind: Kind, token: Token) -> Option<Operand> {
    match (kind, token) {
        (Kind::Text, Token::Text(text)) => Some(Operand::Text(text.to_lowercase())),
        (Kind::Date, Token::Text(text)) => date(&text).map(Operand::Date),
        (Kind::Guid, Token::Word(word)) if word.len() == 36 => {
            Uuid::try_parse(&word).ok().map(|id| Operand::Id(id.to_string()))
        }
        (Kind::Number, Token::Word(word)) => word.parse().ok().map(Operand::Number),
        (Kind::Truth, Token::Word(word)) => word.to_ascii_lowercase().parse().ok().map(Operand::Truth),
        (Kind::Enumeration(names), Token::Word(word)) => {
            let named = names.iter().find(|(name, _)| name.eq_ignore_ascii_case(&word)).map(|(_, number)| *number);
            named.or_else(|| word.parse().ok()).map(Operand::Number)
        }
        _ => None,
    }
}

/// A date as QRS writes it, from the forms it accepts: with or without milliseconds and zone, or a day alone.
fn date(text: &str) -> Option<String> {
    let local = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second]");
    let day = format_description!("[year]-[month]-[day]");
    let written = format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");
    let moment = OffsetDateTime::parse(text, &Rfc3339)
        .or_else(|_| PrimitiveDateTime::parse(text, local).map(PrimitiveDateTime::assume_utc))
        .or_else(|_| Date::parse(text, day).map(|day| day.midnight().assume_utc()))
        .ok()?;
    // Before year 0 the order of the texts would not be the order of the dates.
    moment.checked_to_offset(time::UtcOffset::UTC).filter(|moment| moment.year() >= 0)?.format(written).ok()
}
