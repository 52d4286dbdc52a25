//! The hosts of one site: any failover candidate answers on the repository's port, so whichever works is used.
//!
//! Invariants: the one that works is kept until it fails; a call goes on to the next only while it is certain that the one before did not get
//! it, or, if it only reads, when the one before is just starting; one that does not answer is left when it does not answer a short question
//! either; each host is tried once per call.

use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

use super::{
    error::QrsError,
    http::{Fault, Http, Request, Taken},
};
use crate::config::settings::QrsSettings;

/// How a host does, for health.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HostState {
    /// `host:port`.
    pub host: String,
    /// Whether calls go there.
    pub in_use: bool,
    /// Why it could not be used when it was tried last; `None`: it could, or was not tried.
    pub problem: Option<String>,
}

struct Host {
    http: Http,
    problem: Mutex<Option<String>>,
}

/// The hosts, and which of them is used.
pub struct Hosts {
    hosts: Vec<Host>,
    /// Where the next call goes.
    current: AtomicUsize,
    /// Which one answered last.
    answered: AtomicUsize,
}

/// The settings of each host of a site, as if it were the only one.
pub fn each(settings: &QrsSettings) -> impl Iterator<Item = QrsSettings> {
    let first = QrsSettings { further: Vec::new(), ..settings.clone() };
    let further = settings.further.iter().map(|further| QrsSettings {
        host: Some(further.host.clone()),
        port: further.port,
        verify: further.verify.clone(),
        further: Vec::new(),
        ..settings.clone()
    });
    std::iter::once(first).chain(further)
}

impl Hosts {
    /// The hosts of these settings, the first in use.
    pub fn new(settings: &QrsSettings) -> Self {
        let host = |settings: QrsSettings| Host { http: Http::new(&settings), problem: Mutex::default() };
        Self { hosts: each(settings).map(host).collect(), current: AtomicUsize::new(0), answered: AtomicUsize::new(0) }
    }

    /// All of them, in the order of the configuration.
    pub fn all(&self) -> impl Iterator<Item = &Http> {
        self.hosts.iter().map(|host| &host.http)
    }

    /// `host:port` of the one in use.
    pub fn at(&self) -> &str {
        self.hosts.get(self.current.load(Ordering::Relaxed)).map(|host| host.http.at()).unwrap_or_default()
    }

    /// How they do.
    pub fn states(&self) -> Vec<HostState> {
        let current = self.current.load(Ordering::Relaxed);
        let state = |(index, host): (usize, &Host)| HostState {
            host: host.http.at().to_owned(),
            in_use: index == current,
            problem: host.problem.lock().clone(),
        };
        self.hosts.iter().enumerate().map(state).collect()
    }

    /// Sends a request to the host in use, and to the others in turn while none got it. `moved` hears when another host answers than the last
    /// time: from, to, and why.
    pub async fn send(&self, request: &Request<'_>, moved: impl Fn(&str, &str, &str)) -> Result<Taken, Fault> {
        let mut tries = self.hosts.len();
        loop {
            let index = self.current.load(Ordering::Relaxed);
            // There is always a first one.
            let Some(host) = self.hosts.get(index) else { return Err(QrsError::NotConfigured.into()) };
            let fault = match host.http.send(request).await {
                Ok(taken) => {
                    self.note(index, host, &moved);
                    return Ok(taken);
                }
                Err(fault) => fault,
            };
            let error = &fault.error;
            if error.is_answer() {
                self.note(index, host, &moved);
            }
            // A slow answer to anything but the short question is no reason to leave.
            let asked_in_vain = matches!(error, QrsError::NoAnswer { .. }) && request.is_probe() && !fault.broke;
            let is_starting = matches!(error, QrsError::Status { status: 503, .. });
            if !(error.is_unsent() || is_starting || asked_in_vain) {
                return Err(fault);
            }
            *host.problem.lock() = Some(error.to_string());
            let elsewhere = self.leave(index);
            tries -= 1;
            let may_repeat = error.is_unsent() || request.only_reads();
            if !elsewhere || !may_repeat || tries == 0 {
                return Err(fault);
            }
        }
    }

    /// A host answered, whatever. If it was left meanwhile, that was an answer from before it failed.
    fn note(&self, index: usize, host: &Host, moved: &impl Fn(&str, &str, &str)) {
        if self.current.load(Ordering::Relaxed) != index {
            return;
        }
        *host.problem.lock() = None;
        let before = self.answered.swap(index, Ordering::Relaxed);
        if let Some(left) = self.hosts.get(before).filter(|_| before != index) {
            let why = left.problem.lock().clone().unwrap_or_default();
            moved(left.http.at(), host.http.at(), &why);
        }
    }

    /// Goes on from a host to the next, unless another call did already. False: there is no other.
    fn leave(&self, index: usize) -> bool {
        let next = (index + 1) % self.hosts.len().max(1);
        // Who comes second finds the place changed, and goes on from there.
        let _ = self.current.compare_exchange(index, next, Ordering::Relaxed, Ordering::Relaxed);
        next != index
    }
}
