//! [`Qrs`], the handle every room holds: who may call how often at a time, what is counted, how it is doing.
//!
//! Invariants: finding and starting tasks has turns of its own, so neither a flood of events that are enriched nor thousands of executions
//! that are followed delay a start, and script logs delay nobody; a call that changes something is sent once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use reqwest::Method;
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio_util::sync::CancellationToken;

use super::{
    error::QrsError,
    health::{HealthCell, QrsHealth},
    http::{CALL_TIMEOUT, Fault, Http, Request, Taken},
    metrics::QrsMetrics,
};
use crate::config::settings::{QrsSettings, QrsVerify};

/// Calls of each kind under way at a time. QRS works on far fewer at once; more would only wait there instead of here.
const CALLS: usize = 32;
/// Script logs fetched at a time: they may be large.
const LOGS: usize = 4;
/// Pause between two looks at a QRS that answers.
const WATCH: Duration = Duration::from_secs(60);
/// Shortest and longest pause between two looks at one that does not.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// What a call is for; each kind has its own share of connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    /// Finding and starting tasks.
    Start,
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

/// The client of QRS. Cheap to clone; all clones share connections, limits and health.
#[derive(Clone)]
pub struct Qrs(Arc<Inner>);

struct Inner {
    configured: bool,
    insecure: bool,
    http: Http,
    starts: Semaphore,
    enrichments: Semaphore,
    following: Semaphore,
    logs: Semaphore,
    /// Whether the older interface to script logs was the one that worked last.
    logs_by_file: AtomicBool,
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
        Self(Arc::new(Inner {
            configured,
            insecure: settings.use_tls && settings.verify == QrsVerify::Insecure,
            http: Http::new(settings),
            starts: Semaphore::new(CALLS),
            enrichments: Semaphore::new(CALLS),
            following: Semaphore::new(CALLS),
            logs: Semaphore::new(LOGS),
            logs_by_file: AtomicBool::new(false),
            health: HealthCell::new(health),
            metrics: QrsMetrics::default(),
        }))
    }

    /// How the connection is doing, as the last calls found it. Asks nobody.
    pub fn health(&self) -> QrsHealth {
        self.0.health.get()
    }

    /// A standing warning for health: the server's certificate is not verified. `None`: it is.
    pub fn warning(&self) -> Option<&'static str> {
        self.0.insecure.then_some(
            "The certificate of the Qlik Repository Service is not verified (`configQRS.rejectUnauthorized: false`): whoever answers at that \
             address is believed. Set it to true and let `cert.clientCertCA` name root.pem.",
        )
    }

    /// The counters, to be hung into the registry.
    pub fn metrics(&self) -> &QrsMetrics {
        &self.0.metrics
    }

    /// Whether there is a QRS to call at all.
    pub fn is_configured(&self) -> bool {
        self.0.configured
    }

    /// Looks after the connection until told to stop: calls `about` at intervals, sooner while it fails, so that health is true without
    /// anybody starting a task.
    pub async fn watch(self, stop: CancellationToken) {
        let mut pause = BACK_OFF.0;
        while self.is_configured() {
            let next = match self.about().await {
                Ok(_) => {
                    pause = BACK_OFF.0;
                    WATCH
                }
                Err(_) => {
                    let longer = (pause * 2).min(BACK_OFF.1);
                    std::mem::replace(&mut pause, longer)
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(next) => {}
            }
        }
        stop.cancelled().await;
    }

    pub(super) fn http(&self) -> &Http {
        &self.0.http
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
    pub(super) async fn read_end(
        &self,
        op: &'static str,
        path: &str,
        kept: usize,
    ) -> Result<(Bytes, bool), QrsError> {
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
        let answer = self.once(op, &Request::act(method, path, body.into())).await;
        answer.map(|taken| taken.body).map_err(|fault| fault.error)
    }

    async fn turn(&self, op: &'static str, purpose: Purpose) -> Result<SemaphorePermit<'_>, QrsError> {
        if !self.0.configured {
            return Err(QrsError::NotConfigured);
        }
        let lane = match purpose {
            Purpose::Start => &self.0.starts,
            Purpose::Enrich => &self.0.enrichments,
            Purpose::Follow => &self.0.following,
            Purpose::Log => &self.0.logs,
        };
        match tokio::time::timeout(CALL_TIMEOUT, lane.acquire()).await {
            Ok(Ok(permit)) => Ok(permit),
            _ => {
                let error = QrsError::Busy { at: self.0.http.at().to_owned(), waited: CALL_TIMEOUT };
                self.0.metrics.count(op, error.word(), CALL_TIMEOUT);
                Err(error)
            }
        }
    }

    async fn once(&self, op: &'static str, request: &Request<'_>) -> Result<Taken, Fault> {
        let begun = Instant::now();
        let answer = self.0.http.send(request).await;
        let result = answer.as_ref().map_or_else(|fault| fault.error.word(), |_| "ok");
        self.0.metrics.count(op, result, begun.elapsed());
        // Whether a success makes sense is for the caller to judge, and to note.
        if let Err(fault) = &answer {
            self.note(Err(&fault.error));
        }
        answer
    }

    /// Writes down how a call went; a change of state is one line in the log.
    pub(super) fn note(&self, outcome: Result<(), &QrsError>) {
        let outcome = match outcome {
            // An answer about one task (unknown, cannot be started) says that QRS is well.
            Err(QrsError::Status { status, .. }) if (400..500).contains(status) && !matches!(status, 401 | 403) => {
                Ok(())
            }
            outcome => outcome,
        };
        if self.0.health.note(outcome) {
            let health = self.health();
            match health.remedy() {
                None => tracing::info!("{}", health.sentence()),
                Some(remedy) => tracing::warn!("{} {remedy}", health.sentence()),
            }
        }
    }
}
