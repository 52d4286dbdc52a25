//! Butler's routes that this program does not offer: 501 with a plain sentence when the file switches them on, else 404.
//!
//! Better than a 404 nobody understands: the load script that calls them was written for Butler, and Butler can run beside this program.

use super::fault::{Fault, Kind};

/// Key of `restServerEndpointsEnable` (the part after the last dot) and the paths it switches on; `*` stands for one segment.
const ROUTES: &[(&str, &[&str])] = &[
    ("base62ToBase16", &["/v4/base62tobase16"]),
    ("base16ToBase62", &["/v4/base16tobase62"]),
    ("createDir", &["/v4/createdir"]),
    ("createDirQVD", &["/v4/createdirqvd"]),
    ("fileDelete", &["/v4/filedelete"]),
    ("fileMove", &["/v4/filemove"]),
    ("fileCopy", &["/v4/filecopy"]),
    ("senseAppReload", &["/v4/app/*/reload"]),
    ("senseAppDump", &["/v4/app/*/dump", "/v4/senseappdump/*"]),
    ("senseListApps", &["/v4/apps/list", "/v4/senselistapps"]),
    ("slackPostMessage", &["/v4/slackpostmessage"]),
    ("createNewSchedule", &["/v4/schedules"]),
    ("getSchedule", &["/v4/schedules"]),
    ("getScheduleStatusAll", &["/v4/schedules/status"]),
    ("updateSchedule", &["/v4/schedules/*"]),
    ("deleteSchedule", &["/v4/schedules/*"]),
    ("startSchedule", &["/v4/schedules/*/start", "/v4/schedules/startall"]),
    ("stopSchedule", &["/v4/schedules/*/stop", "/v4/schedules/stopall"]),
    ("postNewRelicMetric", &["/v4/newrelic/metric"]),
    ("postNewRelicEvent", &["/v4/newrelic/event"]),
];

/// The key of a route of Butler at this path that is switched on in the file (`enabled`: such keys, with or without their section).
pub(super) fn find(path: &str, enabled: &[String]) -> Option<&'static str> {
    if enabled.is_empty() || !path.starts_with("/v4/") {
        return None;
    }
    let is_on = |key: &str| enabled.iter().any(|written| written.rsplit('.').next() == Some(key));
    let found = ROUTES.iter().find(|(key, paths)| paths.iter().any(|pattern| fits(pattern, path)) && is_on(key));
    found.map(|(key, _)| *key)
}

fn fits(pattern: &str, path: &str) -> bool {
    pattern.split('/').count() == path.split('/').count()
        && pattern.split('/').zip(path.split('/')).all(|(wanted, segment)| wanted == "*" || wanted == segment)
}

/// The answer.
pub(super) fn fault(key: &str) -> Fault {
    Fault::new(
        Kind::NotOffered,
        format!(
            "`restServerEndpointsEnable.{key}` is switched on in the configuration, but sense-butler does not offer this route; \
             keep Butler for it, or switch it off"
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_switched_on() {
        let enabled = ["senseAppDump".to_owned(), "scheduler.startSchedule".to_owned()];
        for (path, key) in [
            ("/v4/app/7/dump", Some("senseAppDump")),
            ("/v4/senseappdump/7", Some("senseAppDump")),
            ("/v4/senseappdump", None),
            ("/v4/app/7/reload", None),
            ("/v4/schedules/7/start", Some("startSchedule")),
            ("/v4/schedules/7/stop", None),
            ("/v4/createdir", None),
            ("/senseappdump/7", None),
        ] {
            assert_eq!(find(path, &enabled), key, "{path}");
        }
        assert_eq!(find("/v4/senseappdump/7", &[]), None);
    }
}
