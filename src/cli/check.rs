//! `sense-butler check`: reads both configuration files and says in words what `run` would do with them.
//!
//! Invariant: it opens no door, writes nothing and looks no name up.

mod broker;

use std::io::{self, Write};

use time::OffsetDateTime;

use crate::config::{
    self, ConfigErrors, EXIT_CODE, LoadOptions, Loaded,
    address::is_loopback,
    settings::{Generation, QrsHost, QrsVerify, Settings, UserFilter},
    tokens::{Standing, TokenFile},
};

/// Checks the configuration, writes what it finds to `out` and answers the exit code: 0, or [`EXIT_CODE`] (64) with the problems listed.
///
/// # Errors
/// If `out` cannot be written to.
pub fn run(options: &LoadOptions, out: &mut dyn Write) -> io::Result<u8> {
    match config::load(options) {
        Ok(loaded) => {
            describe(&loaded, out)?;
            writeln!(out, "\nOK")?;
            Ok(0)
        }
        Err(errors) => {
            refuse(&errors, out)?;
            Ok(EXIT_CODE)
        }
    }
}

fn refuse(errors: &ConfigErrors, out: &mut dyn Write) -> io::Result<()> {
    for warning in &errors.warnings {
        writeln!(out, "warning: {warning}")?;
    }
    for error in &errors.errors {
        writeln!(out, "error: {error}")?;
    }
    match errors.errors.len() {
        1 => writeln!(out, "\n1 error; the program will not start"),
        number => writeln!(out, "\n{number} errors; the program will not start"),
    }
}

fn describe(loaded: &Loaded, out: &mut dyn Write) -> io::Result<()> {
    let settings = &loaded.settings;
    sources(loaded, out)?;
    broker::describe(settings, &loaded.broker, out)?;
    events(settings, out)?;
    further_events(settings, out)?;
    rest(settings, out)?;
    tokens(loaded, out)?;
    console(loaded, out)?;
    values(loaded, out)?;
    journal(loaded, out)?;
    tasks(settings, out)?;
    writeln!(out, "data        {}", loaded.data_dir.display())?;
    if !loaded.warnings.is_empty() {
        writeln!(out, "\nto know:")?;
    }
    loaded.warnings.iter().try_for_each(|warning| writeln!(out, "- {warning}"))
}

fn sources(loaded: &Loaded, out: &mut dyn Write) -> io::Result<()> {
    let name = |file: &Option<std::path::PathBuf>| {
        file.as_ref().map_or_else(|| "none found: built-in defaults".to_owned(), |file| file.display().to_string())
    };
    let generation = match loaded.settings.generation {
        Generation::V5_4 => "5.4",
        Generation::Head => "head",
    };
    writeln!(out, "butler.yaml {} (compatibility {generation})", name(&loaded.sources.butler))?;
    writeln!(out, "broker.toml {}\n", name(&loaded.sources.broker))
}

fn events(settings: &Settings, out: &mut dyn Write) -> io::Result<()> {
    let udp = &settings.udp;
    if !udp.enable {
        return writeln!(out, "events      udpServerConfig.enable is false: nothing is received from Qlik Sense");
    }
    writeln!(out, "events      opens UDP on {} port {} (tasks)", udp.host, udp.task_port)?;
    match udp.session_port {
        Some(port) => writeln!(out, "            opens UDP on {} port {port} (sessions)", udp.host)?,
        None => writeln!(out, "            sessions are not received (no portSessionConnectionEvents)")?,
    }
    match &udp.allowed_sources {
        None if is_loopback(&udp.host) => writeln!(out, "            from this machine")?,
        None => writeln!(out, "            from everybody who can reach it")?,
        Some(sources) if sources.is_empty() => writeln!(out, "            from nobody: allowedSources is empty")?,
        Some(sources) => writeln!(out, "            from {}", sources.join(", "))?,
    }
    let both = udp.session_port.is_none() || udp.forward.task == udp.forward.session;
    let (tasks, sessions) = if both { ("every datagram", "") } else { ("task datagrams", "session datagrams") };
    for (what, targets) in [(tasks, &udp.forward.task), (sessions, &udp.forward.session)] {
        if !what.is_empty() && !targets.is_empty() {
            let targets: Vec<_> = targets.iter().map(ToString::to_string).collect();
            writeln!(out, "            sends {what} on to {}", targets.join(" and "))?;
        }
    }
    Ok(())
}

/// Where events come from besides datagrams.
fn further_events(settings: &Settings, out: &mut dyn Write) -> io::Result<()> {
    let sources = &settings.sources;
    if let Some(pause) = sources.polling {
        writeln!(out, "            asks Qlik Sense every {} s what ended", pause.as_secs())?;
    }
    let Some(notifications) = &sources.notifications else { return Ok(()) };
    let listen: Vec<_> = notifications.listen.iter().map(ToString::to_string).collect();
    let from = match notifications.allowed_sources.as_slice() {
        [] => "the hosts of configQRS".to_owned(),
        named => named.join(", "),
    };
    writeln!(
        out,
        "            opens HTTP on {} for notifications from {from}, who call {}",
        listen.join(" and "),
        notifications.callback
    )
}

fn rest(settings: &Settings, out: &mut dyn Write) -> io::Result<()> {
    let rest = &settings.rest;
    if !rest.enable {
        return writeln!(out, "REST        restServerConfig.enable is false: not opened");
    }
    let scheme = if rest.tls.is_some() { "HTTPS" } else { "HTTP" };
    writeln!(out, "REST        opens {scheme} on {} port {}", rest.host, rest.port)?;
    let sources: Vec<_> = rest.allowed_sources.iter().map(ToString::to_string).collect();
    let from =
        if sources.is_empty() { "this machine".to_owned() } else { format!("this machine and {}", sources.join(", ")) };
    writeln!(out, "            publishing and starting tasks: from {from}")
}

/// Who shows a token; the file is one of the data directory, which may be another user's.
fn tokens(loaded: &Loaded, out: &mut dyn Write) -> io::Result<()> {
    let rest = &loaded.settings.rest;
    if !rest.enable {
        return Ok(());
    }
    if rest.tokens == Some(false) {
        return writeln!(out, "            tokens: not let in (restServerConfig.tokens is false)");
    }
    let file = TokenFile::of(&loaded.data_dir);
    let now = OffsetDateTime::now_utc();
    match file.read() {
        Ok(tokens) if tokens.is_empty() => {
            writeln!(out, "            tokens: let in by their rights; none was made yet (sense-butler token create)")
        }
        Ok(tokens) => {
            let good = tokens.iter().filter(|token| token.standing(now) == Standing::Good).count();
            writeln!(
                out,
                "            tokens: let in by their rights, {good} good of {} in {}",
                tokens.len(),
                file.path().display()
            )
        }
        Err(error) => writeln!(out, "            tokens: let in by their rights; {error}"),
    }
}

fn console(loaded: &Loaded, out: &mut dyn Write) -> io::Result<()> {
    let (rest, users) = (&loaded.settings.rest, &loaded.broker.users);
    if !rest.enable {
        return Ok(());
    }
    if !rest.endpoints.console {
        return writeln!(out, "            console: not shown (restServerEndpointsEnable.console is false)");
    }
    let named: Vec<&str> = users.iter().filter(|user| user.console).map(|user| &*user.name).collect();
    let who = match (users.is_empty(), named.as_slice()) {
        (true, _) => "without a log-in, on this machine only (broker.toml has no users)".to_owned(),
        (false, []) => "nobody can log in: no user of broker.toml has the right `console`".to_owned(),
        (false, names) => format!("log-in by {}", names.join(", ")),
    };
    let others =
        if rest.tls.is_some() || users.is_empty() { "" } else { "; on this machine only (no restServerConfig.tls)" };
    writeln!(out, "            console: /console, {who}{others}")
}

fn values(loaded: &Loaded, out: &mut dyn Write) -> io::Result<()> {
    let values = &loaded.settings.values;
    match loaded.keep_dir() {
        _ if !values.offered => Ok(()),
        Some(directory) if values.durable => {
            writeln!(out, "            keeps key-value pairs in {}", directory.join("sense.redb").display())
        }
        _ => writeln!(out, "            key-value pairs live in memory: a restart forgets them"),
    }
}

fn journal(loaded: &Loaded, out: &mut dyn Write) -> io::Result<()> {
    let journal = &loaded.settings.journal;
    if !journal.enable {
        return writeln!(out, "            keeps no events for load scripts (eventJournal.enable is false)");
    }
    let place = loaded.keep_dir().map_or("memory".to_owned(), |place| place.join("sense.redb").display().to_string());
    let days = journal.max_age.as_secs() / (24 * 3_600);
    let whose = if journal.sessions { "events of tasks and users" } else { "events of tasks" };
    writeln!(out, "            keeps {whose} in {place}: the last {}, at most {days} days", journal.max_entries)
}

fn tasks(settings: &Settings, out: &mut dyn Write) -> io::Result<()> {
    let qrs = &settings.qrs;
    let Some(host) = &qrs.host else {
        return writeln!(out, "tasks       cannot be started: configQRS.host is absent");
    };
    let scheme = if qrs.use_tls { "https" } else { "http" };
    let verify = |verify: &QrsVerify| match verify {
        QrsVerify::Ca { name: None } => "certificate checked".to_owned(),
        QrsVerify::Ca { name: Some(name) } => format!("certificate checked for the name {name}"),
        QrsVerify::Fingerprint(_) => "certificate compared with its fingerprint".to_owned(),
        QrsVerify::Insecure => "certificate NOT checked".to_owned(),
    };
    writeln!(out, "tasks       started through {scheme}://{host}:{} ({})", qrs.port, verify(&qrs.verify))?;
    for QrsHost { host, port, verify: how } in &qrs.further {
        writeln!(out, "            if that does not answer, through {scheme}://{host}:{port} ({})", verify(how))?;
    }
    let filter = &settings.start_filter;
    if filter.enable {
        let (ids, tags, properties) = (filter.task_ids.len(), filter.tags.len(), filter.custom_properties.len());
        writeln!(
            out,
            "            only what startTaskFilter allows: {ids} ids, {tags} tags, {properties} custom properties"
        )?;
    }
    for UserFilter { user, filter } in &settings.start.users {
        let (ids, tags, properties) = (filter.task_ids.len(), filter.tags.len(), filter.custom_properties.len());
        writeln!(
            out,
            "            by the user \"{user}\" only what his own list allows of that: {ids} ids, {tags} tags, {properties} custom properties"
        )?;
    }
    if settings.mqtt.enable {
        writeln!(out, "            by messages to {}", settings.mqtt.task_start)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(butler: &str) -> (u8, String) {
        let dir = std::env::temp_dir().join(format!("sense-butler-check-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(dir.join("config")).unwrap();
        std::fs::write(dir.join("config/butler.yaml"), butler).unwrap();
        let options = LoadOptions { cwd: dir.clone(), data_dir: dir.join("data"), ..LoadOptions::default() };
        check_with(&options, &dir)
    }

    fn check_with(options: &LoadOptions, dir: &std::path::Path) -> (u8, String) {
        let mut out = Vec::new();
        let code = run(options, &mut out).unwrap();
        std::fs::remove_dir_all(dir).unwrap();
        (code, String::from_utf8(out).unwrap())
    }

    #[test]
    fn access_rules_are_described_in_their_order() {
        let dir = std::env::temp_dir().join(format!("sense-butler-check-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir_all(&dir).unwrap();
        let sample = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/samples/valid/access-rules.toml");
        let options = LoadOptions { broker_config: Some(sample), cwd: dir.clone(), ..LoadOptions::default() };
        let (code, text) = check_with(&options, &dir);
        assert_eq!(code, 0, "{text}");
        for line in [
            "rule 1 allows group \"machines\": publish, subscribe on machines/%u/#\n",
            "rule 2 denies everybody: publish on machines/#\n",
            "rule 3 denies user \"hmi\" as client hmi-*, panel at listener \"plant\": receive on plant/recipes/#, 100%%/%c\n",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }

    #[test]
    fn a_good_file_is_described() {
        let (code, text) = check("Butler:\n  scheduler: {enable: true}\n  configQRS: {host: sense1}\n");
        assert_eq!(code, 0, "{text}");
        for fragment in [
            "embedded: `mqttConfig.brokerHost` is absent",
            "opens MQTT on 127.0.0.1:1883 and [::1]:1883",
            "without a user name: publish, subscribe, start tasks",
            "opens UDP on localhost port 9998",
            "sessions are not received",
            "opens HTTP on localhost port 8080",
            "tokens: let in by their rights; none was made yet (sense-butler token create)",
            "console: /console, without a log-in, on this machine only",
            "keeps key-value pairs in ",
            "keeps events of tasks in ",
            "the last 50000, at most 14 days",
            "https://sense1:4242",
            "keeps sessions and retained messages in ",
            "its schedules will not run; keep Butler for them",
            "\nOK\n",
        ] {
            assert!(text.contains(fragment), "{fragment}: {text}");
        }
    }

    #[test]
    fn who_comes_in_by_token_and_to_the_console_is_said() {
        let (_, text) =
            check("Butler:\n  restServerConfig: {tokens: false}\n  restServerEndpointsEnable: {console: false}\n");
        assert!(text.contains("tokens: not let in") && text.contains("console: not shown"), "{text}");
        let (_, text) = check("Butler:\n  restServerConfig: {enable: false}\n");
        assert!(!text.contains("tokens:") && !text.contains("console:"), "{text}");
        let hash = "$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$WHgXdLzGYQzM5OY8nXrwVaYqE9NQbyyHQDf6gG1+mDE";
        for (rights, expected) in [
            ("\"publish\"", "nobody can log in: no user"),
            ("\"console\"", "log-in by anna; on this machine only (no restServerConfig.tls)"),
        ] {
            let dir = std::env::temp_dir().join(format!("sense-butler-check-{}", uuid::Uuid::new_v4()));
            std::fs::create_dir_all(dir.join("data")).unwrap();
            let user = format!("[[users]]\nname = \"anna\"\npassword_hash = \"{hash}\"\nrights = [{rights}]\n");
            std::fs::write(dir.join("broker.toml"), user).unwrap();
            std::fs::write(dir.join("data/tokens.toml"), "nonsense").unwrap();
            let options = LoadOptions { cwd: dir.clone(), data_dir: dir.join("data"), ..LoadOptions::default() };
            let (code, text) = check_with(&options, &dir);
            assert!(
                code == 0 && text.contains(expected) && text.contains("tokens: let in by their rights; "),
                "{text}"
            );
        }
    }

    #[test]
    fn all_errors_are_listed() {
        let (code, text) = check("Butler:\n  mqttConfig: {enabel: true, brokerPort: x}\n");
        assert_eq!(code, EXIT_CODE);
        assert!(text.contains("did you mean `enable`?") && text.contains("a whole number from 1 to 65535"), "{text}");
        assert!(text.ends_with("2 errors; the program will not start\n"), "{text}");
    }
}
