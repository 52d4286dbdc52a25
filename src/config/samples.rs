//! Tests over whole files: the samples beside the shipped configuration, the shipped files themselves, and texts nobody would write.

use std::fs;

use proptest::prelude::*;

use super::{
    settings::{BrokerChoice, QrsVerify},
    *,
};
use crate::broker::settings::{Action, Rule};

/// The top of the source tree.
pub(super) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A directory of its own, removed at the end.
pub(super) struct Dir(pub(super) PathBuf);

impl Dir {
    pub(super) fn new() -> Self {
        let dir = env::temp_dir().join(format!("sense-butler-config-{}", uuid::Uuid::new_v4()));
        fs::create_dir_all(&dir).unwrap();
        Self(dir)
    }

    pub(super) fn options(&self) -> LoadOptions {
        LoadOptions {
            cwd: self.0.clone(),
            data_dir: self.0.join("data"),
            host_name: "sense1".to_owned(),
            ..LoadOptions::default()
        }
    }

    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let file = self.0.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(&file, text).unwrap();
        file
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

/// Loads texts as if they were files.
fn load_texts(butler: Option<&str>, broker: Option<&str>) -> Result<Loaded, ConfigErrors> {
    let dir = Dir::new();
    load(&LoadOptions {
        config: butler.map(|text| dir.write("butler.yaml", text)),
        broker_config: broker.map(|text| dir.write("broker.toml", text)),
        ..dir.options()
    })
}

/// Loads a sample where it lies.
fn load_file(file: &Path) -> Result<Loaded, ConfigErrors> {
    let dir = Dir::new();
    let yaml = file.extension().is_some_and(|extension| extension == "yaml");
    let (config, broker_config) =
        if yaml { (Some(file.to_path_buf()), None) } else { (None, Some(file.to_path_buf())) };
    load(&LoadOptions { config, broker_config, ..dir.options() })
}

fn samples(kind: &str) -> Vec<PathBuf> {
    let dir = root().join("config/samples").join(kind);
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[test]
fn valid_samples_load() {
    let files = samples("valid");
    for file in &files {
        if let Err(errors) = load_file(file) {
            panic!("{}: {errors}", file.display());
        }
    }
    assert!(files.len() >= 18, "{}", files.len());
}

/// Each begins with `# expect LINE:COLUMN fragment` (or `-` for no place).
#[test]
fn invalid_samples_are_refused_as_they_say() {
    let files = samples("invalid");
    let mut wrong = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).unwrap();
        let expected = text.lines().next().unwrap().strip_prefix("# expect ").unwrap();
        let (place, fragment) = expected.split_once(' ').unwrap();
        let Err(errors) = load_file(file) else {
            wrong.push(format!("{} was accepted", file.display()));
            continue;
        };
        let found = errors.errors.iter().any(|error| {
            let at = error.place.map_or("-".to_owned(), |at| format!("{}:{}", at.line, at.column));
            at == place && error.to_string().contains(fragment) && error.file.as_deref() == Some(file)
        });
        if !found {
            wrong.push(format!("expected {expected}, found {errors}"));
        }
        assert!(!errors.to_string().contains("hunter2"), "{errors}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(files.len() >= 64, "{}", files.len());
}

/// The one deliberate step of a move from Butler: what the refusal prints can be pasted where it says.
#[test]
fn the_lines_of_a_refusal_cure_it() {
    let samples = ["v5.4.0-open.yaml", "head-open.yaml", "rest-plaintext.yaml"];
    for name in samples {
        let file = root().join("config/samples/invalid").join(name);
        let text = fs::read_to_string(&file).unwrap();
        let errors = load_file(&file).unwrap_err().errors;
        let [error] = &errors[..] else { panic!("{name}: {errors:?}") };
        let mut lines: Vec<_> = text.lines().collect();
        let below = error.place.unwrap().line;
        lines.splice(below..below, error.lines.iter().map(String::as_str));
        let loaded = load_texts(Some(&lines.join("\n")), None).unwrap();
        assert!(loaded.settings.rest.allow_plaintext && !loaded.settings.rest.allowed_sources.is_empty(), "{name}");
    }
    let rest = Some("0.0.0.0:8080".parse().unwrap());
    let dir = Dir::new();
    let errors =
        load(&LoadOptions { overrides: Overrides { rest, ..Overrides::default() }, ..dir.options() }).unwrap_err();
    let text = format!("Butler:\n  # \n{}\n    serverHost: 0.0.0.0\n", errors.errors[0].lines.join("\n"));
    assert!(load_texts(Some(&text), None).is_ok(), "{text}");
}

#[test]
fn both_generations_are_recognised() {
    let old = load_file(&root().join("config/samples/valid/v5.4.0-full.yaml")).unwrap().settings;
    assert_eq!(old.generation, settings::Generation::V5_4);
    assert_eq!((old.udp.session_port, old.udp.deduplication), (Some(9997), None));
    assert!(old.mqtt.session.is_some() && old.mqtt.enrichment_wait.is_zero() && !old.mqtt.succeeded.send);
    assert_eq!(old.qrs.headers, [("X-Qlik-User".into(), "UserDirectory=Internal; UserId=sa_repository".into())]);
    assert_eq!(old.rest.endpoints_not_offered, ["createDir", "scheduler.getSchedule"]);
    assert!(matches!(old.mqtt.broker, BrokerChoice::Embedded { port: 1883 }));
    assert!(old.mqtt.broker_reason.contains("placeholder"));

    let new = load_file(&root().join("config/samples/valid/head-full.yaml")).unwrap().settings;
    assert_eq!(new.generation, settings::Generation::Head);
    assert_eq!((new.udp.session_port, new.udp.deduplication.map(|ttl| ttl.as_secs())), (None, Some(600)));
    assert!(new.mqtt.session.is_none() && new.mqtt.enrichment_wait.as_millis() == 300);
    assert_eq!(new.qrs.verify, QrsVerify::Insecure);
    assert_eq!((new.start_filter.task_ids.len(), new.start_filter.custom_properties.len()), (1, 1));
    let off: Vec<_> = new.not_offered.iter().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(off, ["emailNotification", "configVisualisation", "REST"], "{:?}", new.not_offered);
}

#[test]
fn further_hosts_of_the_sense_site_inherit_what_fits_them() {
    let qrs = load_file(&root().join("config/samples/valid/failover.yaml")).unwrap().settings.qrs;
    let told: Vec<_> = qrs.further.iter().map(|host| (host.host.as_str(), host.port, host.verify.clone())).collect();
    let named = |name: Option<&str>| QrsVerify::Ca { name: name.map(str::to_owned) };
    assert_eq!(told, [("sense2.example.com", 4242, named(None)), ("sense3.example.com", 4243, named(Some("sense3")))]);
    let unchecked = "Butler:\n  configQRS:\n    host: a\n    port: 5\n    rejectUnauthorized: false\n    hosts: [b, {host: c, rejectUnauthorized: true}]\n";
    let qrs = load_texts(Some(unchecked), None).unwrap().settings.qrs;
    let told: Vec<_> = qrs.further.iter().map(|host| (host.host.as_str(), host.port, host.verify.clone())).collect();
    assert_eq!(told, [("b", 5, QrsVerify::Insecure), ("c", 5, named(None))]);
}

#[test]
fn schedules_are_counted() {
    let dir = Dir::new();
    let jobs = "butlerSchedule:\n  - {id: a}\n  - {id: b}\n  - {id: c}\n";
    dir.write("config/schedule.yaml", jobs);
    dir.write("config/production.yaml", "Butler:\n  scheduler: {enable: true, configfile: config/schedule.yaml}\n");
    let loaded = load(&dir.options()).unwrap();
    assert_eq!(loaded.settings.not_offered, ["scheduler is on, but 3 schedules will not run; keep Butler for them"]);
    assert!(loaded.sources.butler.unwrap().ends_with("config/production.yaml"));
}

#[test]
fn files_are_searched_in_order() {
    let dir = Dir::new();
    let find = |node_env: Option<&str>| {
        let options = LoadOptions {
            cwd: dir.0.join("cwd"),
            exe_dir: Some(dir.0.join("exe")),
            node_env: node_env.map(str::to_owned),
            ..dir.options()
        };
        let file = load(&options).unwrap().sources.butler;
        file.map(|file| file.strip_prefix(&dir.0).unwrap().to_string_lossy().replace('\\', "/"))
    };
    assert_eq!(find(None), None);
    for (name, node_env, expected) in [
        ("data/config/production.yaml", None, "data/config/production.yaml"),
        ("exe/config/test.yaml", Some("test"), "exe/config/test.yaml"),
        ("cwd/config/production.yaml", Some("test"), "exe/config/test.yaml"),
        ("cwd/config/evil.yaml", Some("../config/evil"), "cwd/config/production.yaml"),
        ("cwd/config/butler.yaml", Some("test"), "cwd/config/butler.yaml"),
    ] {
        dir.write(name, "Butler:\n");
        assert_eq!(find(node_env).as_deref(), Some(expected), "{name}");
    }
}

#[test]
fn the_command_line_wins() {
    let address = |text: &str| Some(text.parse::<HostPort>().unwrap());
    let dir = Dir::new();
    dir.write(
        "config/butler.yaml",
        "Butler:\n  restServerConfig: {serverHost: 0.0.0.0}\n  udpServerConfig: {enable: false}\n",
    );
    let overrides = Overrides {
        mqtt: address("127.0.0.1:0"),
        rest: address("[::1]:0"),
        udp: address("localhost:0"),
        udp_sessions: address("localhost:0"),
        qrs: address("127.0.0.1:4243"),
        data: Some("elsewhere".into()),
    };
    let loaded = load(&LoadOptions { overrides, ..dir.options() }).unwrap();
    let (settings, listeners) = (&loaded.settings, &loaded.broker.listeners);
    assert_eq!(listeners.len(), 1);
    assert_eq!(listeners[0].addresses, ["127.0.0.1:0".parse().unwrap()]);
    assert_eq!((settings.rest.host.as_str(), settings.rest.port), ("::1", 0));
    assert_eq!((settings.udp.enable, settings.udp.task_port, settings.udp.session_port), (true, 0, Some(0)));
    assert_eq!((settings.qrs.host.as_deref(), settings.qrs.port), (Some("127.0.0.1"), 4243));
    assert_eq!(loaded.data_dir, dir.0.join("elsewhere"));

    let refused = |overrides| load(&LoadOptions { overrides, ..dir.options() }).unwrap_err().to_string();
    let open =
        refused(Overrides { mqtt: address("0.0.0.0:1883"), rest: address("localhost:1"), ..Overrides::default() });
    assert!(open.contains("--mqtt: other machines can reach 0.0.0.0:1883"), "{open}");
    let mixed = refused(Overrides { udp_sessions: address("10.0.0.1:1"), ..Overrides::default() });
    assert!(mixed.contains("needs the host of the task port"), "{mixed}");
}

#[test]
fn rights_follow_the_closed_doors() {
    let loaded = load_file(&root().join("config/samples/valid/plant-with-users.toml")).unwrap();
    let [local, plant] = &loaded.broker.listeners[..] else { panic!("two listeners") };
    assert!(local.allow_anonymous && local.anonymous_rights.start && local.addresses.len() == 2);
    assert!(!plant.allow_anonymous && !plant.anonymous_rights.start);
    let user = &loaded.broker.users[0];
    assert!(user.rights.start && user.rights.subscribe && !user.rights.publish && user.publish.is_none());
    assert_eq!(loaded.broker.start_topics[0].as_str(), "qliksense/start_task");
    let protects = |topic: &str| loaded.broker.protected_topics.iter().any(|filter| filter.matches(topic));
    for topic in ["qliksense/butler/state", "qliksense/task_failure", "qliksense/users/activeperserver/h/count"] {
        assert!(protects(topic), "{topic}");
    }
    assert!(!protects("qliksense/start_task") && !protects("plant/a"));

    let anybody = load_file(&root().join("config/samples/valid/anybody.toml")).unwrap();
    assert!(anybody.broker.protected_topics.is_empty());
    let rights = anybody.broker.listeners[0].anonymous_rights;
    assert!(rights.subscribe && !rights.publish && !rights.start);
    let text = "[[users]]\nname = \"x\"\npassword_hash = \"$argon2id$v=19$m=19456,t=2,p=1$c2FsdHNhbHRzYWx0$WHgXdLzGYQzM5OY8nXrwVaYqE9NQbyyHQDf6gG1+mDE\"\n";
    let users = load_texts(None, Some(text)).unwrap();
    assert!(!users.broker.listeners[0].allow_anonymous, "users close the anonymous door");
    let rights = users.broker.users[0].rights;
    assert!(rights.subscribe && rights.publish && !rights.start);
}

#[test]
fn all_errors_of_both_files_come_at_once() {
    let errors = load_texts(
        Some("Butler:\n  mqttConfig: {enabel: 1, brokerPort: x}\n  udpServerConfig: {serverHost: 'a b'}\n"),
        Some("[limits]\nclient = 1\n[[listeners]]\n"),
    )
    .unwrap_err();
    assert_eq!(errors.errors.len(), 5, "{errors}");
    let broken = load_texts(Some("Butler: ["), Some("x = 1\n")).unwrap_err();
    assert_eq!(broken.errors.len(), 2, "{broken}");
    let missing = load(&LoadOptions { config: Some("absent.yaml".into()), ..Dir::new().options() }).unwrap_err();
    assert!(missing.to_string().contains("absent.yaml: the file cannot be read"), "{missing}");
    let latin = Dir::new();
    fs::write(latin.0.join("broker.toml"), b"# a\n# \xfc\n").unwrap();
    assert!(load(&latin.options()).unwrap_err().to_string().contains("line 2 holds a character that is not UTF-8"));
}

// The fuzz target and this test ask for the same.
#[path = "../../fuzz/fuzz_targets/toml_holds.rs"]
mod toml_holds;

#[test]
fn the_seeds_of_the_fuzz_target_hold() {
    let folder = root().join("fuzz/corpus/broker_toml");
    let seeds: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    let accepted = seeds.iter().filter(|seed| toml_holds::read(&fs::read(seed).unwrap())).count();
    assert_eq!((seeds.len(), accepted), (10, 5));
}

#[test]
fn access_rules_and_groups_are_read() {
    let loaded = load_file(&root().join("config/samples/valid/access-rules.toml")).unwrap();
    let [plc, hmi] = &loaded.broker.users[..] else { panic!("two users") };
    assert_eq!((&*plc.groups[0], plc.rate.unwrap().messages, plc.rate.unwrap().bytes), ("machines", 100, 0));
    assert!(hmi.groups.is_empty() && hmi.rate.is_none());
    let [corner, others, recipes] = &loaded.broker.access[..] else { panic!("three rules") };
    assert!(corner.allow && !others.allow && !recipes.allow);
    let has = |rule: &Rule| Action::ALL.map(|action| rule.actions.contains(action));
    assert_eq!(
        [has(corner), has(others), has(recipes)],
        [[true, true, false, false], [true, false, false, false], [false, false, true, false]]
    );
    assert_eq!(recipes.clients.as_ref().unwrap()[1].as_str(), "panel");
    assert_eq!(recipes.topics[1].as_str(), "100%%/%c");
}

#[test]
fn a_newer_text_of_the_broker_file_is_read_as_at_the_start() {
    let file = root().join("config/samples/valid/access-rules.toml");
    let loaded = load_file(&file).unwrap();
    let text = loaded.broker_text().unwrap().unwrap();
    assert_eq!(format!("{:?}", loaded.broker_from(&text).unwrap()), format!("{:?}", loaded.broker));
    let errors = loaded.broker_from("[[users]]\nname = 7\n").unwrap_err().to_string();
    assert!(errors.contains("access-rules.toml:2:8: users[0].name"), "{errors}");
    let changed = text.replace("0.0.0.0:1884", "0.0.0.0:1885") + "[limits]\nclients = 3\n";
    assert_eq!(loaded.broker.needs_restart(&loaded.broker_from(&changed).unwrap()), ["listeners", "limits"]);
    assert_eq!(built_in(&Dir::new().options()).unwrap().broker_text().map(|found| found.is_ok()), None);
}

/// Every sample, with characters replaced, removed or doubled.
fn mutated() -> impl Strategy<Value = (bool, String)> {
    let texts: Vec<(bool, String)> = ["valid", "invalid"]
        .iter()
        .flat_map(|kind| samples(kind))
        .map(|file| (file.extension().is_some_and(|e| e == "yaml"), fs::read_to_string(&file).unwrap()))
        .collect();
    let edit = (any::<prop::sample::Index>(), "[ -~\\t\\n\\[\\]{}:&*'\"|>%@`#-]{0,4}|\\PC{0,2}", 0usize..6);
    (prop::sample::select(texts), prop::collection::vec(edit, 1..8)).prop_map(|((yaml, text), edits)| {
        let mut chars: Vec<char> = text.chars().collect();
        for (at, with, length) in edits {
            let at = at.index(chars.len() + 1);
            let end = (at + length).min(chars.len());
            chars.splice(at..end, with.chars());
        }
        (yaml, chars.into_iter().collect())
    })
}

fn survives(yaml: bool, text: &str) {
    let _ = if yaml { load_texts(Some(text), None) } else { load_texts(None, Some(text)) };
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_mutated_sample_panics((yaml, text) in mutated()) {
        survives(yaml, &text);
    }

    #[test]
    fn no_text_panics(text in "(\\PC|[\\t\\n\\r :{}\\[\\],&*!|>'\"%@`#?=.-]){0,200}", yaml: bool) {
        survives(yaml, &text);
        survives(yaml, &format!("Butler:\n  mqttConfig:\n    {text}"));
    }
}

#[test]
fn nothing_at_all_is_a_working_configuration() {
    let loaded = load_texts(None, None).unwrap();
    assert_eq!(loaded.settings.udp.session_port, Some(9997));
    assert!(loaded.settings.mqtt.succeeded.send && loaded.settings.mqtt.session.is_some());
    let written: Vec<_> = loaded.broker.listeners.iter().map(|listener| listener.written.as_str()).collect();
    assert_eq!(written, ["localhost:1883"]);
    assert!(loaded.broker.listeners[0].anonymous_rights.start);
}

#[test]
fn an_external_broker_has_its_login_and_no_listeners() {
    let loaded = load_file(&root().join("config/samples/valid/external.yaml")).unwrap();
    let BrokerChoice::External(broker) = &loaded.settings.mqtt.broker else { panic!("external") };
    assert_eq!((broker.host.as_str(), broker.port), ("broker.plant.example", 8883));
    assert_eq!(broker.password.as_ref().unwrap().expose(), "0123");
    assert!(broker.tls.as_ref().unwrap().verify_name.is_some() && loaded.broker.listeners.is_empty());
    assert!(!format!("{:?}", loaded.settings).contains("0123"));
    let dir = Dir::new();
    dir.write("config/secret.txt", "pass word\r\n");
    dir.write(
        "config/butler.yaml",
        "Butler:\n  mqttConfig: {broker: external, brokerHost: b, brokerUser: u, brokerPasswordFile: secret.txt}\n",
    );
    let BrokerChoice::External(broker) = load(&dir.options()).unwrap().settings.mqtt.broker else { panic!("external") };
    assert_eq!(broker.password.unwrap().expose(), "pass word");
}

#[test]
fn warnings_that_are_no_errors() {
    let broker = "[[listeners]]\naddress = \"localhost:1999\"\n";
    let butler = "Butler:\n  somethingNew: {x: 1}\n  udpServerConfig: {serverHost: 0.0.0.0}\n  \
                  configQRS: {host: sense1}\n  cert: {clientCert: absent.pem}\n";
    let loaded = load_texts(Some(butler), Some(broker)).unwrap();
    let text: Vec<_> = loaded.warnings.iter().map(ToString::to_string).collect();
    let text = text.join("\n");
    for fragment in [
        "butler.yaml:2:3: Butler.somethingNew: this section is not known",
        "everybody who can reach 0.0.0.0 can send events",
        "absent.pem does not exist",
        "no listener serves port 1883",
    ] {
        assert!(text.contains(fragment), "{fragment}: {text}");
    }
}

#[test]
fn client_certificates_and_who_may_come_in_with_them() {
    use crate::broker::settings::CertificateName;
    let dir = Dir::new();
    for file in ["c.pem", "k.pem", "ca.pem"] {
        dir.write(file, "");
    }
    let load = |clients: &str, users: &str| {
        let tls = format!("tls = {{ cert = \"c.pem\", key = \"k.pem\", client_ca = \"ca.pem\"{clients} }}");
        let file = dir.write("broker.toml", &format!("[[listeners]]\naddress = \"0.0.0.0:8883\"\n{tls}\n{users}"));
        crate::config::load(&LoadOptions { broker_config: Some(file), ..dir.options() })
    };
    let user = "[[users]]\nname = \"plc-7\"\n";
    let none = ", client_name = \"none\"";
    let cases = [
        ("", user, Some((CertificateName::CommonName, true, false))),
        (
            ", client_cert = \"optional\", client_name = \"san\"",
            user,
            Some((CertificateName::AlternativeName, false, false)),
        ),
        // Nobody has a name, so whoever has a certificate is anybody.
        (none, "", Some((CertificateName::Nobody, true, true))),
        // A certificate that only opens the door is no log-in.
        (none, user, None),
        (", client_cert = \"optional\", client_name = \"none\"", "", None),
        ("", "", None),
    ];
    for (clients, users, expected) in cases {
        let found = load(clients, users).ok().map(|loaded| {
            let listener = &loaded.broker.listeners[0];
            let certificates = listener.tls.as_ref().unwrap().clients.as_ref().unwrap();
            assert!(!listener.anonymous_rights.start);
            (certificates.name, certificates.required, listener.allow_anonymous)
        });
        assert_eq!(found, expected, "{clients} {users}");
    }
}
