//! `protocol = "ws"` of a listener, and what belongs to it.

use crate::{
    broker::settings::WebSocket,
    config::{
        butler::rest::{host_name, origin},
        walk::Section,
    },
};

/// Where clients look for MQTT unless told otherwise.
const PATH: &str = "/mqtt";

pub(super) fn decode(listener: &Section<'_>) -> Option<WebSocket> {
    let ws = listener.choice("protocol", &["mqtt", "ws"]) == Some(1);
    let written = listener.text("path");
    let list = |key: &'static str| listener.list_if_written(key);
    let allowed_origins = list("allowed_origins").unwrap_or_default().iter().filter_map(origin).collect();
    let allowed_hosts = list("allowed_hosts").unwrap_or_default().iter().filter_map(host_name).collect();
    if !ws {
        for key in ["path", "allowed_origins", "allowed_hosts"].into_iter().filter(|key| listener.has(key)) {
            listener.report().error(&listener.path_of(key), "it has no effect without protocol = \"ws\"");
        }
        return None;
    }
    let path = written.unwrap_or(PATH);
    if !path.starts_with('/')
        || !path.chars().all(|c| c.is_ascii_graphic() && !matches!(c, '?' | '#' | '"' | '<' | '>'))
    {
        listener.report().error(
            &listener.path_of("path"),
            "a path begins with `/` and has neither blanks nor `?` or `#`, e.g. \"/mqtt\"",
        );
    }
    Some(WebSocket { path: path.to_owned(), allowed_origins, allowed_hosts })
}
