//! `butler.yaml`: the root `Butler:` of Butler's own file format, both generations.
//!
//! Invariants: all keys of a section are asked for whatever their values are (so the set of known keys is the same for every file); a
//! section answers `None` only after it has reported an error; values the command line replaces are replaced before any rule looks at
//! them.

mod broker_choice;
mod event_journal;
mod event_sources;
mod key_values;
mod mqtt;
mod not_offered;
mod qrs;
pub(super) mod rest;
pub(super) mod rules;
mod start_task;
mod topics;
mod udp;

use std::path::{Path, PathBuf};

use super::{
    LoadOptions, Overrides,
    diagnostic::Report,
    settings::{DockerHealth, Generation, Settings},
    tree::{Node, Value},
    walk::Section,
};
use crate::telemetry::logging::{Format, LogSettings};

/// What the readers of the sections need to know besides the file.
pub(super) struct Context<'a> {
    pub(super) report: &'a Report,
    /// Relative paths of the file start here.
    pub(super) base: PathBuf,
    pub(super) data_dir: &'a Path,
    pub(super) overrides: &'a Overrides,
    pub(super) options: &'a LoadOptions,
    pub(super) generation: Generation,
    /// No file: what the shipped one says holds (sessions, success and distribute are on).
    pub(super) built_in: bool,
}

impl<'a> Context<'a> {
    pub(super) fn new(report: &'a Report, options: &'a LoadOptions, data_dir: &'a Path) -> Self {
        let file = report.file();
        let base = file.and_then(Path::parent).map_or_else(|| data_dir.to_path_buf(), |dir| options.cwd.join(dir));
        Self {
            report,
            base,
            data_dir,
            overrides: &options.overrides,
            options,
            generation: Generation::Head,
            built_in: file.is_none(),
        }
    }
}

/// Reads the tree of a file; `None` after errors were reported.
pub(super) fn decode(root: Option<&Node>, mut cx: Context<'_>) -> Option<Settings> {
    let top = Section::root(cx.report, root);
    let butler = top.section("Butler");
    if cx.built_in || cx.report.wrote("Butler") {
        top.finish();
    } else {
        cx.report.error("", "there is no `Butler:` at the top; this is not Butler's file format");
    }
    cx.generation = generation(&butler);
    let session_port = udp::names_session_port(&butler) || cx.built_in;
    let mqtt = mqtt::decode(butler.section("mqttConfig"), &cx, session_port);
    let udp = udp::decode(butler.section("udpServerConfig"), &cx);
    let rest = rest::decode(&butler, &cx);
    let start_filter = qrs::start_filter(butler.section("startTaskFilter"));
    let start = start_task::decode(butler.section("startTask"));
    let sources = event_sources::decode(butler.section("eventSources"));
    let qrs = qrs::decode(&butler, &cx);
    let log = log(&butler, &cx);
    let docker_health = docker_health(butler.section("dockerHealthCheck"));
    let offered = rest.as_ref().is_some_and(|(rest, _)| rest.enable && rest.endpoints.key_values);
    let values = key_values::decode(butler.section("keyValueStore"), offered);
    let journal = event_journal::decode(butler.section("eventJournal"));
    let mut not_offered = not_offered::collect(&butler, &cx);
    finish_top(&butler);
    let (rest, unbuilt) = rest?;
    not_offered.extend(unbuilt);
    let settings = Settings {
        file: cx.report.file().map(Path::to_path_buf),
        generation: cx.generation,
        mqtt: mqtt?,
        udp: udp?,
        rest,
        start_filter,
        start,
        sources: sources?,
        qrs: qrs?,
        log,
        docker_health,
        values,
        journal,
        not_offered,
    };
    rules::check(&settings, &cx);
    Some(settings)
}

/// Written, or recognised: Butler 5.4's file has the session topics and `configQRS.headerKey`.
fn generation(butler: &Section<'_>) -> Generation {
    let mqtt = butler.section("mqttConfig");
    let sessions = ["sessionStartTopic", "sessionStopTopic", "connectionOpenTopic", "connectionCloseTopic"]
        .into_iter()
        .any(|key| mqtt.has(key));
    let recognised =
        if sessions && butler.section("configQRS").has("headerKey") { Generation::V5_4 } else { Generation::Head };
    match butler.find("compatibility").map(|node| &node.value) {
        None => recognised,
        Some(Value::Text(text) | Value::Number(text)) if text == "5.4" => Generation::V5_4,
        Some(Value::Text(text)) if text.eq_ignore_ascii_case("head") => Generation::Head,
        Some(other) => {
            let message = format!("`5.4` or `head` is needed, but this is {}", other.describe());
            butler.report().error("Butler.compatibility", message);
            recognised
        }
    }
}

fn log(butler: &Section<'_>, cx: &Context<'_>) -> LogSettings {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "verbose", "debug", "silly"];
    let level = butler.choice("logLevel", &LEVELS).and_then(|position| LEVELS.get(position)).unwrap_or(&"info");
    let json = butler.choice("logFormat", &["text", "json"]) == Some(1);
    LogSettings {
        level: (*level).to_owned(),
        format: if json { Format::Json } else { Format::Text },
        to_file: butler.flag("fileLogging", false),
        directory: butler.path("logDirectory", &cx.base).unwrap_or_else(|| cx.data_dir.join("log")),
    }
}

fn docker_health(section: Section<'_>) -> DockerHealth {
    let health = DockerHealth { enable: section.flag("enable", false), port: section.port("port", 12398) };
    section.finish();
    health
}

/// A section of another Butler than the two we know is none of our business, unless it looks like one of ours misspelt.
fn finish_top(butler: &Section<'_>) {
    for entry in butler.unknown() {
        let key = butler.path_of(&entry.key);
        match super::walk::nearest(&entry.key, OWN_SECTIONS) {
            Some(near) => {
                let message = format!("there is no such section; did you mean `{near}`?");
                butler.report().error_at(Some(entry.at), &key, message);
            }
            None => {
                butler.report().found(&key, entry.at, entry.at.column);
                butler.report().warn(&key, "this section is not known to this program and has no effect here");
            }
        }
    }
}

pub(super) const OWN_SECTIONS: &[&str] = &[
    "compatibility",
    "mqttConfig",
    "udpServerConfig",
    "restServerConfig",
    "restServerEndpointsEnable",
    "startTaskFilter",
    "cert",
    "configQRS",
    "logLevel",
    "fileLogging",
    "logDirectory",
    "logFormat",
    "dockerHealthCheck",
    "keyValueStore",
    "startTask",
    "eventSources",
    "eventJournal",
];
