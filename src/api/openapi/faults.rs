//! The errors of an operation, from the catalogue: by status, with every code that may be told under it, what it means and what to do.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::{
    api::{
        catalogue::{Line, line},
        fault::Space,
        router::Resource,
    },
    config::settings::Generation,
};

/// The codes of an operation by status.
pub(super) type ByStatus = BTreeMap<u16, Vec<Line>>;

/// What every route, or every one of its kind, may answer, whatever it is for.
pub(super) fn common(resource: Resource, method: &str) -> Vec<&'static str> {
    let mut codes = vec!["unreadable_body", "forbidden", "body_timeout", "too_large", "internal", "timeout"];
    if resource.needs_trust() {
        codes.extend(["bad_token", "token_expired", "token_revoked", "insufficient_rights"]);
    }
    if method == "POST" {
        codes.push("bad_method_override");
    }
    codes
}

/// Codes by status, each once.
///
/// # Errors
/// The first code that the catalogue does not have.
pub(super) fn by_status<'a>(codes: impl IntoIterator<Item = &'a str>, space: Space) -> Result<ByStatus, &'a str> {
    let mut all = ByStatus::new();
    for code in codes {
        let found = line(code, space).ok_or(code)?;
        let lines = all.entry(found.status).or_default();
        if !lines.iter().any(|known| known.word == found.word) {
            lines.push(found);
        }
    }
    Ok(all)
}

/// What is said of the codes of one status, in Markdown.
pub(super) fn text(lines: &[Line]) -> String {
    let one = |line: &Line| {
        let code = line.code.map(|code| format!("`{code}`: ")).unwrap_or_default();
        format!("- {code}{}. To do: {}.", line.meaning, line.remedy)
    };
    lines.iter().map(one).collect::<Vec<_>>().join("\n")
}

/// The schema of a body with one of these codes.
pub(super) fn schema(lines: &[Line], space: Space) -> Value {
    let codes: Vec<&str> = lines.iter().filter_map(|line| line.code).collect();
    let (name, of_code) = match space {
        Space::Own => ("Error", json!({"properties": {"error": {"properties": {"code": {"enum": codes}}}}})),
        Space::V4(_) => (BUTLER_ERROR, json!({"properties": {"code": {"enum": codes}}})),
    };
    let all = json!({"$ref": format!("#/components/schemas/{name}")});
    if codes.is_empty() { all } else { json!({"allOf": [all, of_code]}) }
}

/// The schema of errors under `/v4`.
pub(super) const BUTLER_ERROR: &str = "ButlerError";

/// What errors of a generation of Butler have.
pub(super) fn butler_error(generation: Generation) -> Value {
    let text = json!({"type": "string"});
    match generation {
        Generation::V5_4 => json!({
            "type": "object",
            "properties": {"code": text, "message": text},
            "required": ["code", "message"]
        }),
        Generation::Head => json!({
            "type": "object",
            "properties": {"statusCode": {"type": "integer"}, "code": text, "error": text, "message": text},
            "required": ["statusCode", "error", "message"]
        }),
    }
}

/// Headers an error of this status has.
pub(super) fn headers(status: u16) -> Option<Value> {
    let (name, text) = match status {
        401 => ("WWW-Authenticate", "what is wrong with the token (RFC 6750)"),
        429 | 503 => ("Retry-After", "seconds"),
        _ => return None,
    };
    Some(json!({name: {"description": text, "schema": {"type": "string"}}}))
}
