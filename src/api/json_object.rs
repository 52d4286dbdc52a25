//! A body that is one JSON object, taken generously: load scripts write it by hand.

use serde_json::{Map, Value};

use super::{
    answer::Request,
    fault::{Fault, Kind},
    form,
};

/// Whether the body is a form: its type says so, and it does not begin like JSON.
pub(super) fn is_form(request: &Request) -> bool {
    let says = |kind: &str| kind.trim_start().to_ascii_lowercase().starts_with("application/x-www-form-urlencoded");
    let body = request.body.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&request.body);
    request.header("content-type").is_some_and(says) && !body.trim_ascii_start().starts_with(b"{")
}

/// The body as an object: a form where the content type says so and the body does not begin like JSON (curl says "form" of everything), else
/// JSON, with or without a byte order mark. `expected`: an example for whoever sent something else.
///
/// # Errors
/// 400 for what cannot be read, the fault of a missing value for what is no object.
pub(super) fn read(request: &Request, expected: &str) -> Result<Map<String, Value>, Fault> {
    let unreadable = |why: String| Fault::new(Kind::Content, why);
    let text = std::str::from_utf8(&request.body)
        .map_err(|error| unreadable(format!("the body is not UTF-8: {error}; send it encoded as UTF-8")))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if is_form(request) {
        let pairs = form::pairs(text).collect::<Result<Vec<_>, _>>();
        let pairs = pairs.map_err(|error| unreadable(format!("a value of the form is not UTF-8: {error}")))?;
        return Ok(pairs.into_iter().map(|(key, value)| (key, Value::String(value))).collect());
    }
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(Value::Null) => Err(unreadable(format!("the body is null; expected {expected}"))),
        Ok(_) => Err(Fault::new(Kind::Missing, format!("the body is no object; expected {expected}"))),
        Err(error) => Err(unreadable(format!("the body is not JSON: {error}; expected {expected}"))),
    }
}
