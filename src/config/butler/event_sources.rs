//! `eventSources`

use std::time::Duration;

use crate::config::{
    address::{HostPort, check_host},
    settings::{EventSources, NotificationSettings},
    walk::Section,
};

pub(super) fn decode(section: Section<'_>) -> Option<EventSources> {
    let polling = polling(section.section("polling"));
    let notifications = notifications(section.section("notifications"));
    let hours: u64 = section.number("silenceAlarmHours", 0..=720, 6);
    section.finish();
    Some(EventSources { polling, notifications: notifications?, silence_alarm: Duration::from_secs(hours * 3600) })
}

fn polling(section: Section<'_>) -> Option<Duration> {
    let enable = section.flag("enable", false);
    let seconds = section.number("intervalSeconds", 1..=3_600, 10);
    section.finish();
    enable.then(|| Duration::from_secs(seconds))
}

/// `None` after an error.
fn notifications(section: Section<'_>) -> Option<Option<NotificationSettings>> {
    let enable = section.flag("enable", false);
    let section = section.used(enable);
    let (listen, callback) = (section.text("listen"), section.text("callback"));
    let sources: Vec<_> = section.list("allowedSources").iter().filter_map(source).collect();
    let minutes: u64 = section.number("renewMinutes", 1..=1_440, 30);
    let needed = |key: &'static str, example: &str| {
        let message = format!("it is needed where notifications are on, e.g. `{example}`");
        section.report().error(&section.path_of(key), message);
    };
    let read = match (enable, listen, callback) {
        (false, ..) => Some(None),
        (true, None, _) => {
            needed("listen", "0.0.0.0:8090");
            None
        }
        (true, _, None) => {
            needed("callback", "http://appliance.example.com:8090");
            None
        }
        (true, Some(listen), Some(callback)) => {
            let listen = listen.parse::<HostPort>().and_then(|address| address.bind_addresses());
            let listen =
                listen.inspect_err(|error| section.report().error(&section.path_of("listen"), error.to_string()));
            let callback = base(callback).ok_or_else(|| wrong_callback(&section));
            listen.ok().zip(callback.ok()).map(|(listen, callback)| {
                let renew = Duration::from_secs(minutes * 60);
                Some(NotificationSettings { listen, callback, allowed_sources: sources, renew })
            })
        }
    };
    section.finish();
    read
}

fn source(item: &crate::config::walk::Item<'_>) -> Option<String> {
    let text = item.text()?;
    check_host(text.trim()).inspect_err(|error| item.error(error.to_string())).ok()?;
    Some(text.trim().to_owned())
}

fn wrong_callback(section: &Section<'_>) {
    let message = "the address under which Qlik Sense reaches `listen` is needed: `http://`, a name or address, and a port; the program adds the path";
    section.report().error(&section.path_of("callback"), message);
}

/// `http://host:port`, nothing behind it but a slash.
fn base(callback: &str) -> Option<String> {
    let base = callback.trim_end_matches('/');
    let (scheme, rest) = base.split_once("://")?;
    let known = matches!(scheme, "http" | "https");
    let with_port = if rest.rsplit_once(']').map_or(rest, |(_, port)| port).contains(':') {
        rest.to_owned()
    } else {
        format!("{rest}:80")
    };
    (known && with_port.parse::<HostPort>().is_ok()).then(|| base.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        LoadOptions, load,
        samples::{Dir, root},
    };

    fn sources(text: &str) -> Result<EventSources, String> {
        let dir = Dir::new();
        let options = LoadOptions { config: Some(dir.write("butler.yaml", text)), ..dir.options() };
        load(&options).map(|loaded| loaded.settings.sources).map_err(|errors| errors.to_string())
    }

    #[test]
    fn all_is_off_but_the_alarm() {
        let off = sources("Butler:\n  logLevel: info\n").unwrap();
        assert!(off.polling.is_none() && off.notifications.is_none());
        assert_eq!(off.silence_alarm, Duration::from_secs(6 * 3600));
    }

    #[test]
    fn the_sample_is_read() {
        let sample = std::fs::read_to_string(root().join("config/samples/valid/event-sources.yaml")).unwrap();
        let on = sources(&sample).unwrap();
        assert_eq!((on.polling, on.silence_alarm), (Some(Duration::from_secs(5)), Duration::ZERO));
        let notifications = on.notifications.unwrap();
        assert_eq!(notifications.listen, ["127.0.0.1:8090".parse().unwrap()]);
        assert_eq!(notifications.callback, "http://appliance.example.com:8090");
        assert_eq!(notifications.allowed_sources, ["10.1.2.3", "sense1"]);
        assert_eq!(notifications.renew, Duration::from_secs(600));
    }

    #[test]
    fn what_cannot_work_is_refused() {
        let with = |keys: &str| {
            let text = format!(
                "Butler:\n  configQRS: {{host: sense1}}\n  eventSources:\n    notifications: {{enable: true, {keys}}}\n"
            );
            sources(&text).unwrap_err()
        };
        let mut ran = 0;
        for (keys, word) in [
            ("callback: 'http://a:1'", "notifications.listen"),
            ("listen: 'localhost:1'", "notifications.callback"),
            ("listen: 'localhost:1', callback: 'a:1'", "notifications.callback"),
            ("listen: 'localhost:1', callback: 'http://a:1/path'", "notifications.callback"),
            ("listen: 'sense:1', callback: 'http://a:1'", "notifications.listen"),
            ("listen: 'localhost:1', callback: 'http://a:1', allowedSources: ['a b']", "allowedSources[0]"),
        ] {
            let said = with(keys);
            assert!(said.contains(word), "{keys}: {said}");
            ran += 1;
        }
        assert_eq!(ran, 6);
        let lonely = sources("Butler:\n  eventSources: {polling: {enable: true}}\n").unwrap_err();
        assert!(lonely.contains("configQRS.host"), "{lonely}");
    }

    #[test]
    fn addresses_for_qrs() {
        for good in ["http://a:1", "http://a", "https://10.0.0.1:8090", "http://[fd00::1]:80", "http://[fd00::1]"] {
            assert_eq!(base(good).as_deref(), Some(good));
        }
        assert_eq!(base("http://a:1/").as_deref(), Some("http://a:1"));
        for bad in ["", "a:1", "ftp://a:1", "http://", "http://a:1/x", "http://a:x"] {
            assert_eq!(base(bad), None, "{bad}");
        }
    }
}
