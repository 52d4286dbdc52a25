//! Numbers as JavaScript writes them: Butler's echoes and coerced messages come out of `String(number)` and `JSON.stringify`.
//!
//! Rule: ECMA-262 `Number::toString`: shortest digits that read back; an exponent from 1e21 upwards and below 1e-6, written `1e+21`, `1e-7`.
//! Integers beyond 2^53, which JavaScript would round, are kept exactly: nobody is served by digits that were not sent.

use std::io;

use serde_json::{Number, Value, ser::Formatter};

/// A number as text.
pub(super) fn text(number: &Number) -> String {
    match number.as_f64() {
        Some(float) if number.is_f64() => float_text(float),
        _ => number.to_string(),
    }
}

fn float_text(float: f64) -> String {
    let size = float.abs();
    if size == 0.0 {
        return "0".into();
    }
    if (1e-6..1e21).contains(&size) {
        return float.to_string();
    }
    let text = format!("{float:e}");
    match text.split_once('e') {
        Some((digits, exponent)) if !exponent.starts_with('-') => format!("{digits}e+{exponent}"),
        _ => text,
    }
}

/// A value as `JSON.stringify` would write it: compact, in order.
pub(super) fn stringify(value: &Value) -> Vec<u8> {
    let mut out = Vec::with_capacity(128);
    let mut serializer = serde_json::Serializer::with_formatter(&mut out, JsFormatter);
    // Writing a `Value` to memory cannot fail: its keys are strings and its numbers finite.
    if serde::Serialize::serialize(value, &mut serializer).is_err() {
        out.clear();
    }
    out
}

struct JsFormatter;

impl Formatter for JsFormatter {
    fn write_f64<W: ?Sized + io::Write>(&mut self, writer: &mut W, value: f64) -> io::Result<()> {
        writer.write_all(float_text(value).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_as_javascript_writes_them() {
        for (json, js) in [
            ("12.5", "12.5"),
            ("1.0", "1"),
            ("-0.0", "0"),
            ("-3", "-3"),
            ("1e3", "1000"),
            ("1e21", "1e+21"),
            ("1.5e300", "1.5e+300"),
            ("100000000000000000000.0", "100000000000000000000"),
            ("0.000001", "0.000001"),
            ("1e-7", "1e-7"),
            ("-2.5e-9", "-2.5e-9"),
            ("0.1", "0.1"),
            ("18446744073709551615", "18446744073709551615"),
        ] {
            let value: Value = serde_json::from_str(json).unwrap();
            assert_eq!(stringify(&value), js.as_bytes(), "{json}");
            let Value::Number(number) = value else { panic!("{json} is no number") };
            assert_eq!(text(&number), js, "{json}");
        }
    }
}
