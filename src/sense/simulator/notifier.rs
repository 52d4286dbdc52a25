//! Calls subscribers: one worker for each address, which posts what has gathered as an array, in order.
//!
//! Invariants: a subscriber that does not answer delays nobody else; what waits for it is bounded, more is dropped and counted; a call that
//! fails is not repeated, as far as is known of the real repository.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::debug;

/// Changes that may wait for one subscriber.
const WAITING: usize = 10_000;
/// For one call.
const CALL_TIME: Duration = Duration::from_secs(10);
/// Addresses that are called at once.
const MOST_WORKERS: usize = 1_000;

#[derive(Debug, Default)]
struct Counters {
    calls: AtomicU64,
    delivered: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

/// Workers by address.
type Workers = HashMap<Arc<str>, mpsc::Sender<Value>>;

/// Calls subscribers.
#[derive(Debug)]
pub struct Notifier {
    client: Option<Client>,
    batch: usize,
    workers: Mutex<Workers>,
    counters: Arc<Counters>,
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Notifier {
    /// Posts up to `batch` changes at once; workers are tasks of `tracker`.
    pub fn new(batch: usize, tracker: TaskTracker, stop: CancellationToken) -> Self {
        // Without a client calls count as failed.
        let client = client().ok();
        Self { client, batch: batch.max(1), workers: Mutex::default(), counters: Arc::default(), tracker, stop }
    }

    /// Has a subscriber told; never waits.
    pub fn tell(&self, url: &Arc<str>, entry: Value) {
        let mut workers = self.workers.lock();
        workers.retain(|_, worker| !worker.is_closed());
        if !workers.contains_key(url) && workers.len() < MOST_WORKERS {
            workers.insert(Arc::clone(url), self.hire(Arc::clone(url)));
        }
        let taken = workers.get(url).is_some_and(|worker| worker.try_send(entry).is_ok());
        if !taken {
            self.counters.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Forgets what waits: the repository was started anew.
    pub fn forget(&self) {
        self.workers.lock().clear();
    }

    fn hire(&self, url: Arc<str>) -> mpsc::Sender<Value> {
        let (sender, mut receiver) = mpsc::channel(WAITING);
        let (client, counters, batch) = (self.client.clone(), Arc::clone(&self.counters), self.batch);
        let stop = self.stop.clone();
        let work = async move {
            let mut entries = Vec::new();
            while receiver.recv_many(&mut entries, batch).await > 0 {
                let count = entries.len() as u64;
                let delivered = call(client.as_ref(), &url, Value::Array(std::mem::take(&mut entries))).await;
                counters.calls.fetch_add(1, Ordering::Relaxed);
                let counter = if delivered { &counters.delivered } else { &counters.failed };
                counter.fetch_add(count, Ordering::Relaxed);
            }
        };
        self.tracker.spawn(async move { stop.run_until_cancelled(work).await });
        sender
    }

    /// How it went.
    pub fn json(&self) -> Value {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Counters { calls, delivered, failed, dropped } = &*self.counters;
        json!({ "calls": count(calls), "delivered": count(delivered), "failed": count(failed), "dropped": count(dropped) })
    }
}

/// A client that trusts nobody: the real repository calls no https address whose certificate it does not know.
fn client() -> Result<Client, Box<dyn std::error::Error>> {
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()?
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let client = Client::builder().tls_backend_preconfigured(tls).http1_only().no_proxy().timeout(CALL_TIME);
    Ok(client.redirect(reqwest::redirect::Policy::none()).retry(reqwest::retry::never()).build()?)
}

async fn call(client: Option<&Client>, url: &str, body: Value) -> bool {
    let Some(client) = client else { return false };
    let request = client.post(url).header("content-type", "application/json").body(body.to_string());
    match request.send().await {
        Ok(response) => response.status().is_success(),
        Err(error) => {
            debug!(%url, %error, "a subscriber could not be told");
            false
        }
    }
}
