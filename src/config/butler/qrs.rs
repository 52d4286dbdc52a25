//! `configQRS`, `cert` and `startTaskFilter`

use std::path::PathBuf;

use super::Context;
use crate::config::{
    address::check_host,
    settings::{Generation, QrsHost, QrsSettings, QrsVerify, StartTaskFilter},
    tree::Value,
    walk::{Item, Section},
};

pub(super) fn decode(butler: &Section<'_>, cx: &Context<'_>) -> Option<QrsSettings> {
    let section = butler.section("configQRS");
    if section.text("authentication").is_some_and(|how| !how.eq_ignore_ascii_case("certificates")) {
        section.report().error(&section.path_of("authentication"), "only `certificates` is built");
    }
    let host = section.text("host").map(str::to_owned);
    if let Some(Err(error)) = host.as_deref().map(check_host) {
        section.report().error(&section.path_of("host"), error.to_string());
    }
    let port = section.port("port", 4242);
    let use_tls = section.flag("useSSL", true);
    let headers = headers(&section, cx.generation);
    let verify = verify(&section, true);
    let further = further(&section, port, verify.as_ref());
    if host.is_none() && !further.is_empty() {
        section
            .report()
            .error(&section.path_of("hosts"), "these are asked when `host` does not answer; write the first one there");
    }
    section.finish();
    let (host, port, further) = match &cx.overrides.qrs {
        Some(address) => (Some(address.host.clone()), address.port, Vec::new()),
        None => (host, port, further),
    };
    let [client_cert, client_key, ca] = certificates(butler.section("cert").used(host.is_some()), cx, use_tls);
    Some(QrsSettings { host, port, use_tls, headers, client_cert, client_key, ca, verify: verify?, further })
}

/// `hosts`: names, or sections for those whose port or certificate differs.
fn further(section: &Section<'_>, port: u16, first: Option<&QrsVerify>) -> Vec<QrsHost> {
    let host = |item: &Item<'_>| {
        let entry = match item.value() {
            Value::Map(_) => {
                let section = item.section();
                let host = section.text("host").map(str::to_owned);
                if host.is_none() {
                    item.error("`host` is needed");
                }
                let port = section.port("port", port);
                let verify = verify(&section, first != Some(&QrsVerify::Insecure));
                section.finish();
                QrsHost { host: host?, port, verify: verify? }
            }
            _ => QrsHost { host: item.text()?.to_owned(), port, verify: inherited(first)? },
        };
        if matches!(first, Some(QrsVerify::Fingerprint(_))) && !matches!(entry.verify, QrsVerify::Fingerprint(_)) {
            item.error("each host has a certificate of its own, so the `fingerprint` above does not fit this one; write `host` and `fingerprint` here");
        }
        check_host(&entry.host).inspect_err(|error| item.error(error.to_string())).ok()?;
        Some(entry)
    };
    section.list("hosts").iter().filter_map(host).collect()
}

/// How a host is judged of which only the name is known: as the first, under its own name.
fn inherited(first: Option<&QrsVerify>) -> Option<QrsVerify> {
    Some(match first? {
        QrsVerify::Insecure => QrsVerify::Insecure,
        _ => QrsVerify::Ca { name: None },
    })
}

/// The certificates of QRS may come later than the start: what is missing makes the task part unhealthy, nothing else.
fn certificates(section: Section<'_>, cx: &Context<'_>, use_tls: bool) -> [Option<PathBuf>; 3] {
    let files = ["clientCert", "clientCertKey", "clientCertCA"].map(|key| {
        let file = section.path(key, &cx.base)?;
        let needed = use_tls && (cx.overrides.qrs.is_some() || section.report().wrote("Butler.configQRS.host"));
        if needed && !file.is_file() {
            let message = format!("the file {} does not exist; until it does, no task can be started", file.display());
            section.report().warn(&section.path_of(key), message);
        }
        Some(file)
    });
    section.finish();
    files
}

fn headers(section: &Section<'_>, generation: Generation) -> Vec<(String, String)> {
    let list = section.section("headers");
    let written: Vec<_> = list.list("static").iter().filter_map(pair).collect();
    list.finish();
    let key = section.text("headerKey");
    let value = section.text("headerValue");
    if !written.is_empty() {
        return written;
    }
    let default = match generation {
        Generation::V5_4 => "UserDirectory=Internal; UserId=sa_repository",
        Generation::Head => "UserDirectory=Internal;UserId=sa_repository",
    };
    vec![(key.unwrap_or("X-Qlik-User").to_owned(), value.unwrap_or(default).to_owned())]
}

/// `name` and `value`, both needed.
fn pair(item: &Item<'_>) -> Option<(String, String)> {
    let section = item.section();
    let name = section.text("name");
    let value = section.text("value");
    let pair = name.zip(value).map(|(name, value)| (name.to_owned(), value.to_owned()));
    if pair.is_none() {
        item.error("`name` and `value` are both needed");
    }
    section.finish();
    pair
}

/// `checked`: whether certificates are verified where `rejectUnauthorized` does not say so.
fn verify(section: &Section<'_>, checked: bool) -> Option<QrsVerify> {
    let name = section.text("verifyName").map(str::to_owned);
    let fingerprint = section.text("fingerprint");
    let checked = section.flag("rejectUnauthorized", checked);
    match (checked, fingerprint) {
        (false, Some(_)) => {
            let message = "`rejectUnauthorized: false` would switch this check off; remove one of the two";
            section.report().error(&section.path_of("fingerprint"), message);
            None
        }
        (false, None) => Some(QrsVerify::Insecure),
        (true, None) => Some(QrsVerify::Ca { name }),
        (true, Some(text)) => {
            let bytes = fingerprint_bytes(text);
            if bytes.is_none() {
                let message = "a SHA-256 fingerprint is 64 hexadecimal digits, with or without `:` between them";
                section.report().error(&section.path_of("fingerprint"), message);
            }
            bytes.map(QrsVerify::Fingerprint)
        }
    }
}

fn fingerprint_bytes(text: &str) -> Option<[u8; 32]> {
    let digits: Option<Vec<u8>> = text
        .chars()
        .filter(|c| !matches!(c, ':' | ' '))
        .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
        .collect();
    let bytes: Vec<u8> =
        digits?.chunks(2).map(|pair| pair.iter().fold(0u8, |byte, digit| (byte << 4) | digit)).collect();
    let exact = text.chars().filter(char::is_ascii_hexdigit).count() == 64;
    if exact { bytes.try_into().ok() } else { None }
}

/// `startTaskFilter`
pub(super) fn start_filter(section: Section<'_>) -> StartTaskFilter {
    let enable = section.flag("enable", false);
    let section = section.used(enable);
    let allow = section.section("allowTask");
    let filter = StartTaskFilter {
        enable,
        task_ids: allow.parsed_list("taskId").unwrap_or_default(),
        tags: allow.list("tag").iter().filter_map(|item| item.text().map(str::to_owned)).collect(),
        custom_properties: allow.list("customProperty").iter().filter_map(pair).collect(),
    };
    allow.finish();
    section.finish();
    filter
}
