//! A newer `butler.yaml` while the program runs: what differs from what is in force, what of it can be taken at once, what waits for a restart.
//!
//! Invariants: nothing of a file with an error is used, nor of one whose `broker.toml` has an error; every key that differs and makes a difference is
//! named, once, either as taken or as waiting; what is not taken leaves the settings in force as they are.

mod difference;

use super::{
    ConfigErrors, LoadOptions, Loaded, Sources, butler,
    diagnostic::{Diagnostic, Report},
    load_from,
    settings::Settings,
    tree::Node,
    yaml,
};

/// Keys, with all below them, that are taken while the program runs. A test compares them with what [`overlay`] does.
const TAKEN: [&str; 23] = [
    "Butler.logLevel",
    "Butler.mqttConfig.taskFailureSendFull",
    "Butler.mqttConfig.taskAbortedSendFull",
    "Butler.mqttConfig.taskSuccessSend",
    "Butler.mqttConfig.taskSuccessSendFull",
    "Butler.mqttConfig.taskDistributeSend",
    "Butler.mqttConfig.taskDistributeSendFull",
    "Butler.mqttConfig.taskTypes",
    "Butler.udpServerConfig.forwardTo",
    "Butler.udpServerConfig.forwardSessionsTo",
    "Butler.startTaskFilter",
    "Butler.startTask.users",
    "Butler.startTask.limits",
    "Butler.startTask.deadlineSeconds",
    "Butler.startTask.parametersTtlSeconds",
    TOPICS,
    "Butler.keyValueStore.maxNamespaces",
    "Butler.keyValueStore.maxKeysPerNamespace",
    "Butler.keyValueStore.maxValueBytes",
    "Butler.keyValueStore.maxBytes",
    "Butler.eventJournal.maxEntries",
    "Butler.eventJournal.maxAgeDays",
    "Butler.eventJournal.maxBytes",
];
/// What the topics start and allow is taken, while they are the same topics.
const TOPICS: &str = "Butler.startTask.topics";
/// More keys than these are named without a look at whether each makes a difference.
const LOOKED_AT: usize = 200;

/// What became of a newer configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reloaded {
    /// Keys that changed and are in force now.
    pub applied: Vec<String>,
    /// Keys that are not in force as they stand in the file; they wait for a restart, some perhaps for longer than since this reload.
    pub needs_restart: Vec<String>,
    /// Keys that changed and make no difference.
    pub without_effect: Vec<String>,
    /// What is remarkable in the files.
    pub warnings: Vec<String>,
}

/// What is in force, and where newer texts are read. It holds secrets, so it cannot be printed.
pub struct Running {
    options: LoadOptions,
    sources: Sources,
    settings: Settings,
    /// The file as far as it is in force.
    tree: Option<Node>,
}

/// A newer configuration, read and compared, of which nothing is in force yet. Printed, it shows only what is told of it.
pub struct Newer {
    /// Both files as they are now.
    pub loaded: Loaded,
    /// The settings that will be in force when it is taken.
    pub settings: Settings,
    /// What to say of it.
    pub told: Reloaded,
    tree: Option<Node>,
}

impl std::fmt::Debug for Newer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(&self.told, f)
    }
}

impl Running {
    /// What holds from the start.
    pub fn new(loaded: &Loaded) -> Self {
        Self {
            options: loaded.options.clone(),
            sources: loaded.sources.clone(),
            settings: loaded.settings.clone(),
            tree: tree_of(loaded),
        }
    }

    /// Where it was read from.
    pub fn sources(&self) -> &Sources {
        &self.sources
    }

    /// Reads both files again, whole, from where they were at the start.
    ///
    /// # Errors
    /// All errors of both files.
    pub fn read(&self) -> Result<Newer, ConfigErrors> {
        let loaded = load_from(&self.options, self.sources.clone())?;
        Ok(self.compare(loaded))
    }

    /// From now on this is in force.
    pub fn take(&mut self, newer: Newer) {
        (self.settings, self.tree) = (newer.settings, newer.tree);
    }

    /// An error of a newer `butler.yaml` that shows only in the running program.
    pub fn refuse(&self, key: &str, message: String) -> ConfigErrors {
        let file = self.sources.butler.clone();
        let error = Diagnostic { file, place: None, key: key.to_owned(), message, lines: Vec::new() };
        ConfigErrors { errors: vec![error], warnings: Vec::new() }
    }

    fn compare(&self, loaded: Loaded) -> Newer {
        let newer = tree_of(&loaded);
        let mut settings = self.settings.clone();
        overlay(&mut settings, &loaded.settings);
        let same_topics = names(&self.settings) == names(&loaded.settings);
        let is_taken = |key: &str| {
            let below =
                |taken: &&str| key.strip_prefix(*taken).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
            TAKEN.iter().any(below) && (same_topics || key != TOPICS)
        };
        let changed = difference::keys(self.tree.as_ref(), newer.as_ref());
        let mut told =
            Reloaded { warnings: loaded.warnings.iter().map(ToString::to_string).collect(), ..Reloaded::default() };
        let (look, mut tree) = (changed.len() <= LOOKED_AT, newer.clone());
        for path in changed {
            let before = difference::with(newer.as_ref(), &path, difference::find(self.tree.as_ref(), &path));
            let matters = !look || self.differs(before.as_ref(), &loaded);
            let key = path.join(".");
            if !matters {
                told.without_effect.push(key);
            } else if is_taken(&key) {
                told.applied.push(key);
            } else {
                tree = difference::with(tree.as_ref(), &path, difference::find(self.tree.as_ref(), &path));
                told.needs_restart.push(key);
            }
        }
        if told.needs_restart.is_empty() && settings.mqtt.broker != loaded.settings.mqtt.broker {
            // Nothing else of the settings is read from another file.
            told.needs_restart.push("Butler.mqttConfig.brokerPasswordFile".to_owned());
        }
        Newer { loaded, settings, told, tree }
    }

    /// Whether a tree means something else than the newer file does.
    fn differs(&self, tree: Option<&Node>, newer: &Loaded) -> bool {
        let report = Report::new(self.sources.butler.as_deref());
        let data = self.options.data();
        let other = butler::decode(tree, butler::Context::new(&report, &self.options, &data));
        let (errors, _) = report.into_parts();
        !errors.is_empty() || other.is_none_or(|other| essence(&other) != essence(&newer.settings))
    }
}

/// Puts into settings what of newer ones is taken while the program runs.
fn overlay(settings: &mut Settings, newer: &Settings) {
    settings.log.level.clone_from(&newer.log.level);
    settings.mqtt.switch(&newer.mqtt);
    settings.udp.forward.clone_from(&newer.udp.forward);
    settings.start_filter.clone_from(&newer.start_filter);
    let same_topics = names(settings) == names(newer);
    let (start, other) = (&mut settings.start, &newer.start);
    start.users.clone_from(&other.users);
    (start.limits, start.deadline, start.parameters_ttl) = (other.limits, other.deadline, other.parameters_ttl);
    if same_topics {
        start.topics.clone_from(&other.topics);
    }
    let (values, other) = (&mut settings.values, &newer.values);
    (values.max_namespaces, values.max_keys) = (other.max_namespaces, other.max_keys);
    (values.max_value, values.max_bytes) = (other.max_value, other.max_bytes);
    let (journal, other) = (&mut settings.journal, &newer.journal);
    (journal.max_entries, journal.max_age, journal.max_bytes) = (other.max_entries, other.max_age, other.max_bytes);
}

/// The further start topics, in their order.
fn names(settings: &Settings) -> Vec<&str> {
    settings.start.topics.iter().map(|topic| topic.topic.as_str()).collect()
}

/// Settings without what is only said.
fn essence(settings: &Settings) -> Settings {
    let mut essence = settings.clone();
    essence.not_offered.clear();
    essence.mqtt.broker_reason.clear();
    essence
}

/// The tree of a file that was read well.
fn tree_of(loaded: &Loaded) -> Option<Node> {
    yaml::parse(loaded.butler_read.as_ref()?.expose()).ok().flatten()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::config::{load, samples::Dir};

    /// A program that was started with this file, and the file.
    struct Scene {
        dir: Dir,
        running: Running,
    }

    impl Scene {
        fn new(text: &str) -> Self {
            let dir = Dir::new();
            let options = LoadOptions { config: Some(dir.write("butler.yaml", text)), ..dir.options() };
            let running = Running::new(&load(&options).unwrap());
            Self { dir, running }
        }

        fn read(&self, text: &str) -> Result<Newer, ConfigErrors> {
            self.dir.write("butler.yaml", text);
            self.running.read()
        }

        /// Takes a newer text; what was applied, what waits, what makes no difference.
        fn takes(&mut self, text: &str) -> [String; 3] {
            let newer = self.read(text).unwrap();
            let told =
                [&newer.told.applied, &newer.told.needs_restart, &newer.told.without_effect].map(|keys| keys.join(" "));
            self.running.take(newer);
            told
        }
    }

    const BASE: &str = "Butler:\n  logLevel: info\n  startTask: {limits: {perMinute: 5}}\n";

    #[test]
    fn every_key_that_is_taken_is_taken_whole_and_no_other() {
        let topics = "startTask: {topics: [{topic: a, tag: x}], users: [{user: u, allowTask: {tag: [a]}}]}";
        let start = format!(
            "Butler:\n  logLevel: info\n  udpServerConfig: {{forwardTo: ['127.0.0.1:1']}}\n  keyValueStore: {{maxKeysPerNamespace: 7}}\n  {topics}\n"
        );
        let cases = [
            ("logLevel: info", "logLevel: debug", "Butler.logLevel"),
            (
                "logLevel: info",
                "logLevel: info\n  mqttConfig: {taskFailureSendFull: false}",
                "Butler.mqttConfig.taskFailureSendFull",
            ),
            (
                "logLevel: info",
                "logLevel: info\n  mqttConfig: {taskAbortedSendFull: false}",
                "Butler.mqttConfig.taskAbortedSendFull",
            ),
            (
                "logLevel: info",
                "logLevel: info\n  mqttConfig: {taskSuccessSend: true, taskSuccessSendFull: false}",
                "Butler.mqttConfig.taskSuccessSend Butler.mqttConfig.taskSuccessSendFull",
            ),
            (
                "logLevel: info",
                "logLevel: info\n  mqttConfig: {taskDistributeSend: true, taskDistributeSendFull: false}",
                "Butler.mqttConfig.taskDistributeSend Butler.mqttConfig.taskDistributeSendFull",
            ),
            ("logLevel: info", "logLevel: info\n  mqttConfig: {taskTypes: [reload]}", "Butler.mqttConfig.taskTypes"),
            ("forwardTo: ['127.0.0.1:1']", "forwardTo: ['127.0.0.1:2']", "Butler.udpServerConfig.forwardTo"),
            (
                "{forwardTo: ['127.0.0.1:1']}",
                "{forwardTo: ['127.0.0.1:1'], forwardSessionsTo: []}",
                "Butler.udpServerConfig.forwardSessionsTo",
            ),
            (
                "startTask:",
                "startTaskFilter: {enable: true, allowTask: {tag: [a]}}\n  startTask:",
                "Butler.startTaskFilter.allowTask.tag Butler.startTaskFilter.enable",
            ),
            ("{tag: [a]}", "{tag: [a, b]}", "Butler.startTask.users"),
            ("startTask: {", "startTask: {limits: {perMinute: 3}, ", "Butler.startTask.limits.perMinute"),
            ("startTask: {", "startTask: {deadlineSeconds: 7, ", "Butler.startTask.deadlineSeconds"),
            ("startTask: {", "startTask: {parametersTtlSeconds: 7, ", "Butler.startTask.parametersTtlSeconds"),
            ("tag: x", "tag: y", "Butler.startTask.topics"),
            ("maxKeysPerNamespace: 7", "maxKeysPerNamespace: 8", "Butler.keyValueStore.maxKeysPerNamespace"),
            (
                "maxKeysPerNamespace: 7",
                "maxKeysPerNamespace: 7, maxNamespaces: 8",
                "Butler.keyValueStore.maxNamespaces",
            ),
            (
                "maxKeysPerNamespace: 7",
                "maxKeysPerNamespace: 7, maxValueBytes: 8000",
                "Butler.keyValueStore.maxValueBytes",
            ),
            ("maxKeysPerNamespace: 7", "maxKeysPerNamespace: 7, maxBytes: 70000", "Butler.keyValueStore.maxBytes"),
            (
                "logLevel: info",
                "logLevel: info\n  eventJournal: {maxEntries: 7, maxAgeDays: 2, maxBytes: 70000}",
                "Butler.eventJournal.maxAgeDays Butler.eventJournal.maxBytes Butler.eventJournal.maxEntries",
            ),
        ];
        let mut named = std::collections::BTreeSet::<&str>::new();
        for (from, to, keys) in cases {
            let mut scene = Scene::new(&start);
            assert!(start.contains(from), "{from}");
            let newer = scene.read(&start.replace(from, to)).unwrap();
            assert_eq!(newer.told.applied.join(" "), keys, "{to}");
            assert!(
                newer.told.needs_restart.is_empty() && newer.told.without_effect.is_empty(),
                "{to}: {:?}",
                newer.told
            );
            assert_eq!(essence(&newer.settings), essence(&newer.loaded.settings), "{to}: nothing else differs");
            scene.running.take(newer);
            named.extend(TAKEN.iter().filter(|key| keys.contains(**key)));
            assert_eq!(scene.takes(&start)[0], keys, "{to}: and back");
        }
        assert_eq!(named.len(), TAKEN.len(), "{named:?}");
    }

    #[test]
    fn what_waits_is_named_until_the_program_is_restarted_or_it_is_taken_back() {
        let mut scene = Scene::new(BASE);
        let other = BASE.replace("logLevel: info", "logLevel: warn\n  restServerConfig: {serverPort: 8099}");
        let waits = "Butler.restServerConfig.serverPort";
        assert_eq!(scene.takes(&other), ["Butler.logLevel", waits, ""]);
        assert_eq!(scene.running.settings.rest.port, 8080, "it is not in force");
        assert_eq!(scene.takes(&other), ["", waits, ""], "told again");
        assert_eq!(
            scene.takes(&other.replace("perMinute: 5", "perMinute: 6")),
            ["Butler.startTask.limits.perMinute", waits, ""]
        );
        assert_eq!(scene.takes(BASE), ["Butler.logLevel Butler.startTask.limits.perMinute", "", ""]);
        assert_eq!(scene.takes(BASE), ["", "", ""]);
    }

    #[test]
    fn what_makes_no_difference_is_told_as_such() {
        let mut scene = Scene::new(BASE);
        let more = "  restServerConfig: {serverPort: 8080}\n  slackNotification: {enable: true}\n  newThing: {a: 1}\n  cert:\n";
        let told = scene.takes(&format!("# a remark\n{BASE}{more}"));
        let idle = "Butler.newThing.a Butler.restServerConfig.serverPort Butler.slackNotification.enable";
        assert_eq!(told, ["", "", idle]);
        assert_eq!(scene.takes(BASE), ["", "", idle]);
    }

    #[test]
    fn topics_are_taken_while_they_are_the_same() {
        let text = |topics: &str| format!("Butler:\n  startTask: {{topics: [{topics}]}}\n");
        let (one, two) = (text("{topic: a, tag: x}"), text("{topic: a, tag: z}, {topic: b, tag: y}"));
        let mut scene = Scene::new(&one);
        assert_eq!(scene.takes(&two), ["", TOPICS, ""]);
        assert_eq!(scene.takes(&text("{topic: a, tag: z}")), [TOPICS, "", ""]);
        assert_eq!(scene.takes(&two), ["", TOPICS, ""], "it differs from what is in force, which has one topic");
    }

    #[test]
    fn nothing_is_taken_of_files_with_errors() {
        let mut scene = Scene::new(BASE);
        let other = BASE.replace("info", "debug");
        let cases = [
            ("Butler: [", None, "butler.yaml:"),
            (
                "Butler:\n  logLevel: debug\n  startTask: {limits: {perMinute: x}}\n",
                None,
                "Butler.startTask.limits.perMinute",
            ),
            ("Butler:\n  logLevel: loud\n", None, "Butler.logLevel"),
            (other.as_str(), Some("[limits]\nclient = 1\n"), "broker.toml:"),
        ];
        scene.dir.write("broker.toml", "");
        scene.running.sources.broker = Some(scene.dir.0.join("broker.toml"));
        for (text, broker, words) in cases {
            scene.dir.write("broker.toml", broker.unwrap_or_default());
            let said = scene.read(text).unwrap_err().to_string();
            assert!(said.contains(words), "{said}");
            assert_eq!(scene.running.settings.log.level, "info");
        }
        fs::remove_file(scene.dir.0.join("butler.yaml")).unwrap();
        assert!(scene.running.read().unwrap_err().to_string().contains("cannot be read"));
        scene.dir.write("broker.toml", "");
        assert_eq!(scene.takes(&other)[0], "Butler.logLevel");
        let said = scene.running.refuse("Butler.x", "no".into()).to_string();
        assert!(said.contains("butler.yaml: Butler.x: no"), "{said}");
    }

    #[test]
    fn the_contents_of_the_password_file_count() {
        let text =
            "Butler:\n  mqttConfig: {broker: external, brokerHost: b, brokerUser: u, brokerPasswordFile: secret.txt}\n";
        let dir = Dir::new();
        dir.write("secret.txt", "one");
        let options = LoadOptions { config: Some(dir.write("butler.yaml", text)), ..dir.options() };
        let running = Running::new(&load(&options).unwrap());
        assert!(running.read().unwrap().told.needs_restart.is_empty());
        dir.write("secret.txt", "two");
        let told = running.read().unwrap().told;
        assert_eq!(told.needs_restart, ["Butler.mqttConfig.brokerPasswordFile"]);
        assert!(!format!("{told:?}").contains("two"));
    }

    #[test]
    fn without_a_file_there_is_nothing_to_compare() {
        let options = Dir::new().options();
        let running = Running::new(&crate::config::built_in(&options).unwrap());
        let told = running.read().unwrap().told;
        assert!(told.applied.is_empty() && told.needs_restart.is_empty() && told.without_effect.is_empty(), "{told:?}");
    }
}
