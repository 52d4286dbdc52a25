//! [`Qrs`], the handle every room holds: who may call how often at a time, what is counted, how it is doing.
//!
//! Invariants: finding and starting tasks has turns of its own, so neither a flood of events that are enriched nor thousands of executions
//! that are followed delay a start, and script logs delay nobody; a call that changes something is sent once.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use reqwest::Method;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::{
    error::QrsError,
    gate::{Entry, Gate},
    health::{HealthCell, QrsHealth},
    hosts::{HostState, Hosts},
    http::{CALL_TIMEOUT, Fault, Request, Taken},
    kinds::Kinds,
    metrics::QrsMetrics,
};
use crate::{
    config::settings::{QrsSettings, QrsVerify},
    net::certificates::Certificates,
};

/// Calls of each kind under way at a time. QRS works on far fewer at once; more would only wait there instead of here.
const CALLS: usize = 32;
/// Script logs fetched at a time: they may be large.
const LOGS: usize = 4;

/// What a call is for; each kind has its own share of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Finding tasks that are to be started.
    Start,
    /// Starting them: has a share of its own, so that no start waits for the looking of all others.
    Call,
    /// Everything that only adds to something else.
    Enrich,
    /// Following executions.
    Follow,
    /// Fetching script logs.
    Log,
}

/// The two interfaces to script logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LogInterface {
    /// `scriptlogfile?executionResultId=`, since May 2025.
    ByResult,
    /// `scriptlog?fileReferenceId=`
    ByFile,
}

/// The right to start a task now.
#[derive(Debug)]
pub struct StartTurn<'a>(#[expect(dead_code, reason = "held, and given back when it is dropped")] SemaphorePermit<'a>);

/// The client of QRS. Cheap to clone; all clones share connections, limits and health.
#[derive(Clone)]
pub struct Qrs(Arc<Inner>);

struct Inner {
    configured: bool,
    insecure: bool,
    hosts: Hosts,
    gate: Gate,
    starts: Semaphore,
    calls: Semaphore,
    enrichments: Semaphore,
    following: Semaphore,
    logs: Semaphore,
    /// Whether the older interface to script logs was the one that worked last.
    logs_by_file: AtomicBool,
    kinds: Kinds,
    /// Whether our user saw no task at all when it looked last.
    sees_nothing: AtomicBool,
    /// Where the ends of certificates are told, once somebody wants to know.
    certificates: OnceLock<Certificates>,
    health: HealthCell,
    metrics: QrsMetrics,
}

impl Qrs {
    /// A client for these settings. Touches neither disk nor network.
    pub fn new(settings: &QrsSettings) -> Self {
        let configured = settings.host.is_some();
        let health = if configured {
            QrsHealth::Untried
        } else {
            QrsHealth::Failing { since: std::time::SystemTime::now(), error: QrsError::NotConfigured }
        };
        let anybody = |verify: &QrsVerify| settings.use_tls && *verify == QrsVerify::Insecure;
        let hosts = Hosts::new(settings);
        let metrics = QrsMetrics::default();
        if configured {
            metrics.in_use(&hosts.states());
        }
        Self(Arc::new(Inner {
            configured,
            insecure: anybody(&settings.verify) || settings.further.iter().any(|further| anybody(&further.verify)),
            hosts,
            gate: Gate::new(),
            starts: Semaphore::new(CALLS),
            calls: Semaphore::new(CALLS),
            enrichments: Semaphore::new(CALLS),
            following: Semaphore::new(CALLS),
            logs: Semaphore::new(LOGS),
            logs_by_file: AtomicBool::new(false),
            kinds: Kinds::default(),
            sees_nothing: AtomicBool::new(false),
            certificates: OnceLock::new(),
            health: HealthCell::new(health),
            metrics,
        }))
    }

    /// How the connection is doing, as the last calls found it. Asks nobody.
    pub fn health(&self) -> QrsHealth {
        self.0.health.get()
    }

    /// The hosts of the site, and which of them is used.
    pub fn hosts(&self) -> Vec<HostState> {
        if self.0.configured { self.0.hosts.states() } else { Vec::new() }
    }

    /// Has the ends of certificates told in the metrics of the program's other certificates. Once.
    pub fn tell_certificates(&self, certificates: &Certificates) {
        let _ = self.0.certificates.set(certificates.clone());
    }

    /// The counters, to be hung into the registry.
    pub fn metrics(&self) -> &QrsMetrics {
        &self.0.metrics
    }

    /// Whether there is a QRS to call at all.
    pub fn is_configured(&self) -> bool {
        self.0.configured
    }

    /// What the rest of this room works with.
    pub(super) fn all_hosts(&self) -> &Hosts {
        &self.0.hosts
    }

    pub(super) fn kinds(&self) -> &Kinds {
        &self.0.kinds
    }

    pub(super) fn is_insecure(&self) -> bool {
        self.0.insecure
    }

    pub(super) fn sees_nothing(&self) -> &AtomicBool {
        &self.0.sees_nothing
    }

    pub(super) fn certificates(&self) -> Option<&Certificates> {
        self.0.certificates.get()
    }

    /// The interfaces to script logs, the one that worked last first.
    pub(super) fn log_interfaces(&self) -> [LogInterface; 2] {
        match self.0.logs_by_file.load(Ordering::Relaxed) {
            false => [LogInterface::ByResult, LogInterface::ByFile],
            true => [LogInterface::ByFile, LogInterface::ByResult],
        }
    }

    /// Remembers which interface to script logs worked.
    pub(super) fn prefer(&self, interface: LogInterface) {
        self.0.logs_by_file.store(interface == LogInterface::ByFile, Ordering::Relaxed);
    }

    /// A call that only reads; repeated once if the connection broke before an answer came (a pooled one that had gone stale).
    pub(super) async fn read(&self, op: &'static str, purpose: Purpose, path: &str) -> Result<Bytes, QrsError> {
        self.read_as(op, purpose, &Request::get(path)).await.map(|taken| taken.body)
    }

    /// As [`Qrs::read`], but of an answer of any size only the last `kept` bytes; with whether something was cut off.
    pub(super) async fn read_end(&self, op: &'static str, path: &str, kept: usize) -> Result<(Bytes, bool), QrsError> {
        self.read_as(op, Purpose::Log, &Request::end_of(path, kept)).await.map(|taken| (taken.body, taken.is_cut))
    }

    async fn read_as(&self, op: &'static str, purpose: Purpose, request: &Request<'_>) -> Result<Taken, QrsError> {
        let _turn = self.turn(op, purpose).await?;
        match self.once(op, request).await {
            Err(Fault { broke: true, .. }) => self.once(op, request).await,
            answer => answer,
        }
        .map_err(|fault| fault.error)
    }

    /// A call that changes something: sent once, whatever happens.
    pub(super) async fn act(
        &self,
        op: &'static str,
        purpose: Purpose,
        method: Method,
        path: &str,
        body: impl Into<Bytes>,
    ) -> Result<Bytes, QrsError> {
        let _turn = self.turn(op, purpose).await?;
        self.act_now(op, method, path, body.into()).await
    }

    /// The same for who has a turn already.
    pub(super) async fn act_now(
        &self,
        op: &'static str,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Bytes, QrsError> {
        let answer = self.once(op, &Request::act(method, path, body)).await;
        answer.map(|taken| taken.body).map_err(|fault| fault.error)
    }

    /// Waits until a task can be started without waiting any more.
    ///
    /// # Errors
    /// If that does not come, or QRS is known to be down: nothing was sent.
    pub async fn turn_to_start(&self) -> Result<StartTurn<'_>, QrsError> {
        self.turn("start", Purpose::Call).await.map(StartTurn)
    }

    /// A turn for a call, as soon as QRS is not known to be down.
    async fn turn(&self, op: &'static str, purpose: Purpose) -> Result<SemaphorePermit<'_>, QrsError> {
        if !self.0.configured {
            return Err(QrsError::NotConfigured);
        }
        self.pass(op).await?;
        let lane = match purpose {
            Purpose::Start => &self.0.starts,
            Purpose::Call => &self.0.calls,
            Purpose::Enrich => &self.0.enrichments,
            Purpose::Follow => &self.0.following,
            Purpose::Log => &self.0.logs,
        };
        match tokio::time::timeout(CALL_TIMEOUT, lane.acquire()).await {
            Ok(Ok(permit)) => {
                // While this call waited, others may have found out that QRS is gone.
                self.pass(op).await?;
                Ok(permit)
            }
            _ => {
                let error = QrsError::Busy { at: self.0.hosts.at().to_owned(), waited: CALL_TIMEOUT };
                self.0.metrics.count(op, error.word(), CALL_TIMEOUT);
                Err(error)
            }
        }
    }

    /// Lets a call on if QRS is not known to be down, or answers a short question now.
    async fn pass(&self, op: &'static str) -> Result<(), QrsError> {
        let refused = match self.0.gate.enter().await {
            Entry::Open => return Ok(()),
            Entry::Ask(_asking) => match self.once("probe", &Request::probe()).await {
                Err(fault) if fault.error.means_down() => fault.error.of_another_call(),
                // Whatever it says, it is there.
                _ => return Ok(()),
            },
            Entry::Shut(error) => QrsError::Down(error),
        };
        self.0.metrics.count(op, QrsError::DOWN, Duration::ZERO);
        Err(refused)
    }

    async fn once(&self, op: &'static str, request: &Request<'_>) -> Result<Taken, Fault> {
        let begun = Instant::now();
        let answer = self.0.hosts.send(request, |from, to, why| self.moved(from, to, why)).await;
        let result = answer.as_ref().map_or_else(|fault| fault.error.word(), |_| "ok");
        self.0.metrics.count(op, result, begun.elapsed());
        match &answer {
            Ok(_) => self.0.gate.open(),
            Err(fault) if fault.error.is_answer() => self.0.gate.open(),
            // A connection that broke says nothing about the next one.
            Err(fault) if fault.error.means_down() && !fault.broke => self.0.gate.shut(&fault.error),
            Err(_) => {}
        }
        // Whether a success makes sense is for the caller to judge, and to note.
        if let Err(fault) = &answer {
            self.note(Err(&fault.error));
        }
        answer
    }

    fn moved(&self, from: &str, to: &str, why: &str) {
        self.0.metrics.moved(&self.0.hosts.states());
        tracing::warn!(
            code = "qrs_host_changed",
            "the Qlik Repository Service is asked at {to} from now on, and no longer at {from}; look whether that node is well: {why}"
        );
    }

    /// Writes down how a call went; a change of state is one line in the log.
    pub(super) fn note(&self, outcome: Result<(), &QrsError>) {
        let outcome = match outcome {
            // An answer about one task (unknown, cannot be started) says that QRS is well.
            Err(QrsError::Status { status, .. }) if (400..500).contains(status) && !matches!(status, 401 | 403) => {
                Ok(())
            }
            // That is of another call, which was noted.
            Err(QrsError::Down(_)) => return,
            outcome => outcome,
        };
        if self.0.health.note(outcome, self.0.hosts.at()) {
            let health = self.health();
            match health.remedy() {
                None => tracing::info!("{}", health.sentence()),
                Some(remedy) => tracing::warn!(code = "qrs_away", "{} {remedy}", health.sentence()),
            }
        }
    }
}
