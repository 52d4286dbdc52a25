//! What was asked of the simulated repository: the latest requests, and the number of all.

use std::{
    collections::VecDeque,
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use serde_json::{Value, json};

/// Requests that are kept.
const KEPT: usize = 10_000;

/// A request and what became of it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// When it had been read completely, microseconds since 1970: for measuring latencies.
    pub micros: u64,
    /// Method.
    pub method: String,
    /// Path.
    pub path: String,
    /// Query parameters, decoded; without the Xrfkey.
    pub query: Vec<(String, String)>,
    /// `DIR\user`, if the call named one.
    pub user: Option<String>,
    /// Status of the answer; 0: there was none.
    pub status: u16,
}

#[derive(Debug, Default)]
struct Inner {
    recent: VecDeque<Entry>,
    total: u64,
}

/// The latest requests.
#[derive(Debug, Default)]
pub struct Journal(Mutex<Inner>);

impl Journal {
    /// Notes a request.
    pub fn add(&self, entry: Entry) {
        let mut inner = self.0.lock();
        if inner.recent.len() >= KEPT {
            inner.recent.pop_front();
        }
        inner.recent.push_back(entry);
        inner.total += 1;
    }

    /// How many there were, and the latest.
    pub fn json(&self) -> Value {
        let inner = self.0.lock();
        let requests: Value = inner.recent.iter().map(Entry::json).collect();
        json!({ "total": inner.total, "listed": inner.recent.len(), "requests": requests })
    }
}

impl Entry {
    fn json(&self) -> Value {
        let query: serde_json::Map<String, Value> =
            self.query.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        json!({ "micros": self.micros, "method": self.method, "path": self.path, "query": query, "user": self.user,
            "status": self.status })
    }
}

/// Now, microseconds since 1970.
pub fn micros_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(0))
}
