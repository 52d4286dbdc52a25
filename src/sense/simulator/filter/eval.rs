//! Whether an object passes a filter.

use std::cmp::Ordering;

use serde_json::Value;

use super::{Expression, Operand, Operator};

/// Evaluates; recursion is as deep as the parentheses, which the parser bounds.
pub fn matches(expression: &Expression, object: &Value) -> bool {
    match expression {
        Expression::All(parts) => parts.iter().all(|part| matches(part, object)),
        Expression::Any(parts) => parts.iter().any(|part| matches(part, object)),
        Expression::Compare { path, operator, operand } => {
            reach(object, path, &|value| holds(value, *operator, operand))
        }
    }
}

/// Whether one of the values at a dotted path passes; a list on the way stands for all its members.
fn reach(value: &Value, path: &str, test: &dyn Fn(&Value) -> bool) -> bool {
    if let Value::Array(members) = value {
        return members.iter().any(|member| reach(member, path, test));
    }
    let (first, rest) = path.split_once('.').map_or((path, None), |(first, rest)| (first, Some(rest)));
    match (value.get(first), rest) {
        (Some(inner), Some(rest)) => reach(inner, rest, test),
        (Some(Value::Array(members)), None) => members.iter().any(test),
        (Some(found), None) => test(found),
        (None, _) => false,
    }
}

fn holds(value: &Value, operator: Operator, operand: &Operand) -> bool {
    match (value, operand) {
        (Value::String(text), Operand::Text(wanted) | Operand::Id(wanted)) => {
            text_holds(&text.to_lowercase(), operator, wanted)
        }
        (Value::String(text), Operand::Date(wanted)) => order_holds(text.cmp(wanted), operator),
        (Value::Number(number), Operand::Number(wanted)) => {
            number.as_i64().is_some_and(|number| order_holds(number.cmp(wanted), operator))
        }
        (Value::Bool(truth), Operand::Truth(wanted)) => order_holds(truth.cmp(wanted), operator),
        _ => false,
    }
}

fn text_holds(text: &str, operator: Operator, wanted: &str) -> bool {
    match operator {
        Operator::StartsWith => text.starts_with(wanted),
        Operator::EndsWith => text.ends_with(wanted),
        Operator::Contains => text.contains(wanted),
        _ => order_holds(text.cmp(wanted), operator),
    }
}

fn order_holds(order: Ordering, operator: Operator) -> bool {
    match operator {
        Operator::Eq => order.is_eq(),
        Operator::Ne => order.is_ne(),
        Operator::Gt => order.is_gt(),
        Operator::Ge => order.is_ge(),
        Operator::Lt => order.is_lt(),
        Operator::Le => order.is_le(),
        Operator::StartsWith | Operator::EndsWith | Operator::Contains => false,
    }
}
