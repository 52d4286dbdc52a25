//! A simulated Qlik Sense site in the test's own process, with what its control door tells: the truth against which claims are checked.
//!
//! Invariants: it does nothing by itself; its clock runs twenty times as fast unless a test says otherwise; one seed, one course of chance.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, missing_docs)]

use std::{collections::HashMap, fmt::Display, net::SocketAddr, time::Duration};

use sense_butler::{
    config::settings::{QrsSettings, QrsVerify},
    names::TaskId,
    sense::simulator::{Simulator, SimulatorError, SimulatorSettings, SiteSource, Transport},
};
use serde_json::{Value, json};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

/// Everything of a site but its sample task and its tasks.
const HEAD: &str = "version: 31.37.0.0
onRunning: zeroGuid
onMissingUser: admin
nodes:
  - { name: sense-1, slots: 10000 }
users:
  - { directory: INTERNAL, id: sa_api, role: admin }
apps:
  - { id: a9900000-0000-4000-8000-000000000001, name: App }
";
/// Whom the program asks as.
const USER: &str = "UserDirectory=INTERNAL; UserId=sa_api";

/// A task of the site; `more`: its other keys.
pub fn task(id: impl Display, name: &str, more: &str) -> String {
    format!("  - {{ id: {id}, name: {}, app: App, {more} }}\n", json!(name))
}

/// The site.
pub struct Site {
    pub qrs: SocketAddr,
    pub control: SocketAddr,
    http: reqwest::Client,
    stop: CancellationToken,
    running: JoinHandle<Result<(), SimulatorError>>,
}

impl Site {
    /// With tasks as [`task`] writes them.
    pub async fn start(tasks: &str) -> Self {
        Self::with(tasks, |_| {}).await
    }

    pub async fn with(tasks: &str, change: impl FnOnce(&mut SimulatorSettings)) -> Self {
        // The program's `main` does this.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let first = tasks.split_once("id: ").and_then(|(_, rest)| rest.split_once(',')).expect("a task").0;
        let mut settings = SimulatorSettings {
            qrs: vec!["127.0.0.1:0".parse().unwrap()],
            control: Some("127.0.0.1:0".parse().unwrap()),
            seed: Some(1),
            speed: 20.0,
            rate: 0.0,
            transport: Transport::Plain,
            site: SiteSource::Text(format!("{HEAD}sampleTask: {first}\ntasks:\n{tasks}")),
            ..SimulatorSettings::new(std::env::temp_dir())
        };
        change(&mut settings);
        let simulator = Simulator::bind(settings).await.unwrap_or_else(|error| panic!("{error}"));
        let (qrs, control) = (simulator.addresses().qrs[0], simulator.addresses().control.unwrap());
        let stop = CancellationToken::new();
        let running = tokio::spawn(simulator.run(stop.clone()));
        Self { qrs, control, http: reqwest::Client::new(), stop, running }
    }

    /// How to reach it, for a client in this process.
    pub fn settings(&self) -> QrsSettings {
        QrsSettings {
            host: Some(self.qrs.ip().to_string()),
            port: self.qrs.port(),
            use_tls: false,
            headers: vec![("X-Qlik-User".into(), USER.into())],
            client_cert: None,
            client_key: None,
            ca: None,
            verify: QrsVerify::Ca { name: None },
            further: Vec::new(),
        }
    }

    /// How to reach it, for the program; `more`: further lines of the section `Butler`.
    pub fn butler_yaml(&self, more: &str) -> String {
        let port = self.qrs.port();
        format!(
            "Butler:\n  configQRS:\n    host: 127.0.0.1\n    port: {port}\n    useSSL: false\n    headers:\n      static:\n        - name: \
             X-Qlik-User\n          value: {USER}\n  logDirectory: log\n{more}"
        )
    }

    /// Tells its control door to do something.
    pub async fn order(&self, path: &str, body: Value) -> Value {
        let url = format!("http://{}/control/{path}", self.control);
        let answer = self.http.post(url).body(body.to_string()).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        assert!(status.is_success(), "{path} {body}: {text}");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Asks its control door.
    pub async fn ask(&self, path: &str) -> Value {
        let url = format!("http://{}/control/{path}", self.control);
        let text = self.http.get(url).send().await.unwrap().text().await.unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text:.500}"))
    }

    /// Something goes wrong with calls to this path.
    pub async fn fault(&self, path: &str, mut fault: Value) {
        fault["path"] = json!(path);
        self.order("fault", fault).await;
    }

    /// The executions that were really started, by task.
    pub async fn executions(&self) -> HashMap<TaskId, Vec<String>> {
        let told = self.ask("starts").await;
        assert_eq!(told["complete"], json!(true), "the oracle has forgotten some");
        let mut executions: HashMap<TaskId, Vec<String>> = HashMap::new();
        for start in told["starts"].as_array().unwrap() {
            let task = start["taskId"].as_str().unwrap().parse().unwrap();
            executions.entry(task).or_default().push(start["executionId"].as_str().unwrap().to_owned());
        }
        executions
    }

    /// How often each task was really started.
    pub async fn starts(&self) -> HashMap<TaskId, usize> {
        self.executions().await.into_iter().map(|(task, executions)| (task, executions.len())).collect()
    }

    /// How often one task was really started.
    pub async fn starts_of(&self, task: impl Display) -> usize {
        self.ask(&format!("starts?task={task}")).await["starts"].as_array().unwrap().len()
    }

    /// Starts a task as its schedule would; its execution.
    pub async fn start_elsewhere(&self, task: impl Display) -> String {
        let started = self.order(&format!("task/{task}/start"), json!({})).await;
        started["executionId"].as_str().unwrap_or_else(|| panic!("{started}")).to_owned()
    }

    /// Ends what runs of a task: `finish`, `fail` or `abort`.
    pub async fn end_execution(&self, task: impl Display, how: &str) {
        self.order(&format!("task/{task}/{how}"), json!({})).await;
    }

    pub async fn finish(self) {
        self.stop.cancel();
        timeout(Duration::from_secs(5), self.running).await.expect("stops in time").unwrap().unwrap();
    }
}
