//! What was asked of the simulated repository: the latest requests, and the number of all.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::site::Request;

/// Requests that are kept.
pub const KEPT: usize = 100_000;

/// A request and what became of it.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The request.
    pub request: Arc<Request>,
    /// Query parameters, decoded; without the Xrfkey.
    pub query: Vec<(String, String)>,
    /// `DIR\user`, if the call named one.
    pub user: Option<String>,
    /// Common name of the client's certificate.
    pub certificate: Option<Arc<str>>,
    /// The other end of the connection.
    pub peer: String,
    /// The fault that befell it, in short.
    pub fault: Option<&'static str>,
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
pub struct Journal {
    inner: Mutex<Inner>,
    numbers: AtomicU64,
}

impl Journal {
    /// The number of the next request, from 0. Requests are listed in the order of their ends, numbered in the order of their arrival.
    pub fn next_number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes a request.
    pub fn add(&self, entry: Entry) {
        let mut inner = self.inner.lock();
        if inner.recent.len() >= KEPT {
            inner.recent.pop_front();
        }
        inner.recent.push_back(entry);
        inner.total += 1;
    }

    /// How many there were, and the latest, from number `from` on.
    pub fn json(&self, from: u64) -> Value {
        // Rendered outside the lock: a long list must not hold up those who are asking.
        let (total, recent) = {
            let inner = self.inner.lock();
            let wanted = inner.recent.iter().filter(|entry| entry.request.number >= from);
            (inner.total, wanted.cloned().collect::<Vec<_>>())
        };
        let requests: Value = recent.iter().map(Entry::json).collect();
        json!({ "total": total, "listed": recent.len(), "requests": requests })
    }
}

impl Entry {
    fn json(&self) -> Value {
        let query: serde_json::Map<String, Value> =
            self.query.iter().map(|(name, value)| (name.clone(), value.as_str().into())).collect();
        let Request { number, micros, method, path, connection, .. } = &*self.request;
        json!({ "number": number, "micros": micros, "method": method, "path": path, "query": query,
            "user": self.user, "connection": connection, "peer": self.peer,
            "certificate": self.certificate.as_deref(), "fault": self.fault, "status": self.status })
    }
}

/// Now, microseconds since 1970.
pub fn micros_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(0))
}
