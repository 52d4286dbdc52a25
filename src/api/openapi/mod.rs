//! What this API is, told by itself: `GET /openapi.json` is an OpenAPI 3.1 document of every route, `GET /docs` shows it as a page.
//!
//! What there is comes from the code: paths, methods and switches from the router's table, rights and doors from its resources, errors with their
//! status, meaning and remedy from the catalogue. What it means, and which form requests and answers have, stands in the YAML files beside, one per group
//! (`source` reads them, `schema` knows their short forms, `faults` writes errors, `document` puts all together): requests are read by hand here and many answers
//! are made field by field, so that there are no structs to derive a description from that would be truer than words. Their truth is tried instead: a test walks the
//! router's table, another one sends every example to the running program and holds the answers against the schemas, `tools/openapi` lets schemathesis
//! look for answers that are not described.
//!
//! A new route is described under its resource and method in one of the files; a test says so until it is.

mod document;
mod faults;
pub(super) mod page;
mod schema;
mod source;

use bytes::Bytes;

use super::{
    answer::Answer,
    fault::{Fault, Kind},
    state::{Setup, State},
};

/// The document.
pub(super) const DOCUMENT: &str = "/api/v1/openapi.json";
/// The same, where programs look for it.
pub(super) const SHORT: &str = "/openapi.json";
/// The media type of nearly everything.
const JSON: &str = "application/json";

/// The document, made when it is asked for the first time.
///
/// # Errors
/// None that a test would let pass.
pub(super) fn handle(state: &State) -> Result<Answer, Fault> {
    let text = state.description.get_or_init(|| text(&state.setup)).clone();
    let text = text.ok_or_else(|| Fault::new(Kind::Internal, "the description of the API cannot be written"))?;
    Ok(Answer::json(200, text).with("cache-control", "no-cache"))
}

fn text(setup: &Setup) -> Option<Bytes> {
    match document::of(setup.generation, &setup.rest.endpoints) {
        Ok(document) => Some(document.to_string().into()),
        Err(error) => {
            tracing::error!(code = "openapi_unwritable", %error, "the description of the API cannot be written; report it");
            None
        }
    }
}

#[cfg(test)]
mod tests;
