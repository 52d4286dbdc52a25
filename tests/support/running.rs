//! A broker in this process on a port of its own, for tests.

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use prometheus_client::registry::Registry;
use sense_butler::{
    broker::{
        Broker, BrokerHandle,
        settings::{Limits, Listener, Rights, Settings, Storage},
    },
    names::{TopicFilter, TopicName},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

pub struct Running {
    pub address: SocketAddr,
    pub handle: BrokerHandle,
    pub registry: Registry,
    pub stop: CancellationToken,
    pub task: JoinHandle<()>,
    /// Where its store lies, if it is on disk; goes with the broker.
    directory: Option<PathBuf>,
}

/// With `STORE_ON_DISK=1` every broker of a test has a store of its own on disk, otherwise one in memory.
fn store_directory() -> Option<PathBuf> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    std::env::var_os("STORE_ON_DISK")?;
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    Some(std::env::temp_dir().join(format!("sense-butler-test-{}-{number}", std::process::id())))
}

impl Running {
    /// One listener, where anybody may do everything.
    pub fn settings() -> Settings {
        Settings {
            listeners: vec![Listener {
                name: "test".into(),
                addresses: vec!["127.0.0.1:0".parse().unwrap()],
                written: "127.0.0.1:0".into(),
                tls: None,
                websocket: None,
                allow_anonymous: true,
                anonymous_rights: Rights { publish: true, subscribe: true, start: true },
            }],
            users: vec![],
            access: vec![],
            limits: Limits::default(),
            start_topics: vec![TopicFilter::new("q/start").unwrap()],
            protected_topics: vec![TopicFilter::new("q/own/#").unwrap()],
            open_topics: vec![TopicFilter::new("q/own/ping").unwrap()],
            anonymous_sys: false,
            own_prefix: TopicName::new("q/own").unwrap(),
            storage: Storage::default(),
            replaced_at_start: Vec::new(),
            engine_test_hook: true,
        }
    }

    pub fn start(change: impl FnOnce(&mut Settings)) -> Self {
        let directory = store_directory();
        let mut settings = Self::settings();
        settings.storage.directory.clone_from(&directory);
        change(&mut settings);
        let mut registry = Registry::default();
        let broker = Broker::bind(&settings, &mut registry).unwrap();
        let (address, handle, stop) = (broker.addresses()[0].1, broker.handle(), CancellationToken::new());
        let task = tokio::spawn({
            let stop = stop.clone();
            async move { broker.run(stop).await.unwrap() }
        });
        Self { address, handle, registry, stop, task, directory }
    }

    /// Value of a counter without labels.
    pub fn counter(&self, name: &str) -> u32 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name} in {text}")).parse().unwrap()
    }

    /// Value of a metric with labels, as the text shows it; `None` while nobody touched it.
    pub fn metric(&self, name: &str) -> Option<i64> {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
    }

    /// Value of a counter with its labels; 0 while there is none.
    pub fn labelled(&self, name: &str) -> u32 {
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &self.registry).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0, |value| value.parse().unwrap())
    }

    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
        if let Some(directory) = self.directory {
            std::fs::remove_dir_all(directory).unwrap();
        }
    }
}
