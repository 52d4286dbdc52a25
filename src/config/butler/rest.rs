//! `restServerConfig` and `restServerEndpointsEnable`

use super::{Context, udp};
use crate::config::{
    settings::{Endpoints, RestSettings, RestTls},
    walk::{Item, Section},
};

/// Butler's endpoints that are not offered here: their routes answer 501 when the file switches them on.
const NOT_OFFERED: [&str; 11] = [
    "base62ToBase16",
    "base16ToBase62",
    "createDir",
    "createDirQVD",
    "fileDelete",
    "fileMove",
    "fileCopy",
    "senseAppReload",
    "senseAppDump",
    "senseListApps",
    "slackPostMessage",
];
const SCHEDULER: [&str; 7] = [
    "createNewSchedule",
    "getSchedule",
    "getScheduleStatusAll",
    "updateSchedule",
    "deleteSchedule",
    "startSchedule",
    "stopSchedule",
];
const NEW_RELIC: [&str; 2] = ["postNewRelicMetric", "postNewRelicEvent"];

/// The settings, and in plain words what is switched on and not offered.
pub(super) fn decode(butler: &Section<'_>, cx: &Context<'_>) -> Option<(RestSettings, Vec<String>)> {
    let (endpoints, endpoints_not_offered) = endpoints(butler.section("restServerEndpointsEnable"));
    let section = butler.section("restServerConfig");
    let enable = section.flag("enable", true);
    let section = section.used(enable);
    let mut rest = RestSettings {
        enable,
        host: udp::host(&section),
        port: section.port("serverPort", 8080),
        tls: tls(section.section("tls"), cx),
        allow_plaintext: section.flag("allowPlaintext", false),
        allowed_sources: section.parsed_list("allowedSources").unwrap_or_default(),
        tokens: section.has("tokens").then(|| section.flag("tokens", true)),
        allowed_origins: section.list("allowedOrigins").iter().filter_map(origin).collect(),
        allowed_hosts: section.list("allowedHosts").iter().filter_map(host_name).collect(),
        max_body: section.number("maxBodyBytes", 1_024..=(256 << 20), 1 << 20),
        publish_per_second: section.number_if_written("publishPerSecond", 0..=1_000_000).filter(|limit| *limit > 0),
        endpoints,
        endpoints_not_offered,
    };
    section.accept(&["backgroundServerPort"]);
    section.finish();
    if let Some(address) = &cx.overrides.rest {
        rest.host.clone_from(&address.host);
        rest.port = address.port;
        rest.enable = true;
    }
    let words = unbuilt(&rest.endpoints_not_offered);
    Some((rest, words))
}

fn unbuilt(names: &[String]) -> Vec<String> {
    if names.is_empty() {
        return Vec::new();
    }
    vec![format!(
        "REST endpoints not offered, which answer 501: {} ({}); keep Butler for them",
        names.join(", "),
        names.len()
    )]
}

fn endpoints(section: Section<'_>) -> (Endpoints, Vec<String>) {
    let start_task = section.flag("senseStartTask", true);
    let mqtt_publish = section.flag("mqttPublishMessage", true);
    let endpoints = Endpoints {
        // Butler 5.4 misspelt it.
        list_endpoints: section.flag("apiListEnabledEndpoints", section.flag("apiListEnbledEndpoints", true)),
        butlerping: section.flag("butlerping", true),
        mqtt_publish,
        publish: section.flag("publish", mqtt_publish),
        start_task,
        active_user_count: section.flag("activeUserCount", true),
        active_users: section.flag("activeUsers", true),
        key_values: section.flag("keyValueStore", true),
        tasks_read: section.flag("tasksRead", start_task),
        tasks_start: section.flag("tasksStart", start_task),
        tasks_stop: section.flag("tasksStop", start_task),
        console: section.flag("console", true),
        config_reload: section.flag("configReload", false),
    };
    let on = |section: &Section<'_>, prefix: &str, keys: &[&'static str]| {
        keys.iter().filter(|key| section.flag(key, false)).map(|key| format!("{prefix}{key}")).collect::<Vec<_>>()
    };
    let scheduler = section.section("scheduler");
    let new_relic = section.section("newRelic");
    let lists = [
        on(&section, "", &NOT_OFFERED),
        on(&scheduler, "scheduler.", &SCHEDULER),
        on(&new_relic, "newRelic.", &NEW_RELIC),
    ];
    scheduler.finish();
    new_relic.finish();
    section.finish();
    (endpoints, lists.concat())
}

fn tls(section: Section<'_>, cx: &Context<'_>) -> Option<RestTls> {
    let enable = section.flag("enable", false);
    let section = section.used(enable);
    let (cert, key) = (section.path("cert", &cx.base), section.path("key", &cx.base));
    if enable && section.has("ca") {
        let message = "a chain of its own is not built; append the intermediate certificates to the file of `cert`";
        section.report().error(&section.path_of("ca"), message);
    }
    section.accept(&["ca"]);
    if enable {
        must_exist(&section, "cert", cert.as_deref());
        must_exist(&section, "key", key.as_deref());
    }
    section.finish();
    if enable { Some(RestTls { cert: cert?, key: key? }) } else { None }
}

/// A listener cannot open without its files, so a missing one is an error.
pub(in crate::config) fn must_exist(section: &Section<'_>, key: &'static str, file: Option<&std::path::Path>) {
    let path = section.path_of(key);
    match file {
        // A placeholder was reported already.
        None if section.report().wrote(&path) => {}
        None => section.report().error(&path, format!("`{key}` is needed: the path of a PEM file")),
        Some(file) if file.is_file() => {}
        Some(file) => section.report().error(&path, format!("the file {} does not exist", file.display())),
    }
}

/// An origin as browsers send it.
pub(in crate::config) fn origin(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    let host = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
    match host {
        Some(host) if !host.is_empty() && !host.contains(['/', ' ', '*', '?', '#', '@']) => Some(text.to_lowercase()),
        _ => {
            item.error(format!("\"{text}\" is no origin; write scheme and host alone, e.g. https://sense.example.com"));
            None
        }
    }
}

/// A host name or address.
pub(in crate::config) fn host_name(item: &Item<'_>) -> Option<String> {
    let text = item.text()?;
    match crate::config::address::check_host(text) {
        Ok(()) => Some(text.to_lowercase()),
        Err(error) => {
            item.error(error.to_string());
            None
        }
    }
}
