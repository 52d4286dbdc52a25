//! A Qlik Sense site without Qlik Sense: a repository (QRS) with mutual TLS, tasks that run and end, and the log datagrams a real site would send.
//!
//! For the demo, for tests, and for trying a configuration before the real server is touched. What it is not: a copy of the product. It knows the
//! endpoints a task starter needs and what is publicly known of their behaviour; where that is not known, the plan file says what to do.
//!
//! Rooms: [`plan`] (the YAML), [`site`] (the state machine, without clock and network), [`filter`] (the filter language), [`datagram`] and
//! [`outlet`] (what is sent), [`notifier`] (who is called), [`qrs`] and [`control`] (the two doors) over [`http`], [`reply`] and [`mod@line`],
//! [`outage`], [`fault`], [`pki`] and [`tls`], [`journal`].
//!
//! Invariants: the site is changed only under its lock, which is never held across an await; every change is noticed by the one driver task,
//! which alone sends datagrams in order.

mod clock;
mod control;
pub mod datagram;
mod fault;
pub mod filter;
mod http;
mod journal;
mod line;
mod notifier;
mod outage;
mod outlet;
mod pki;
pub mod plan;
mod qrs;
mod reply;
mod rng;
mod settings;
mod site;
mod tls;

use std::{
    net::SocketAddr,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::SystemTime,
};

use parking_lot::Mutex;
use tokio::{
    net::TcpListener,
    sync::{Notify, broadcast, watch},
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tracing::info;

use self::{
    clock::{Calendar, Clock},
    fault::Faults,
    http::Door,
    journal::Journal,
    notifier::Notifier,
    outage::Outage,
    outlet::Outlet,
    plan::{Plan, WirePlan},
    site::{Effect, Site, SiteOptions},
};
pub use self::{
    datagram::Profile,
    outlet::Targets,
    pki::PkiFiles,
    settings::{SimulatorSettings, SiteSource, Transport},
    site::{Change, status::Status},
    tls::{ServerCertificate, TlsChoices, TlsVersions},
};
use crate::{
    names::TaskId,
    net::bind::{self, V6},
};

/// Events a slow listener may fall behind.
const EVENTS_KEPT: usize = 4_096;

/// Why the simulator cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum SimulatorError {
    /// The site's description is wrong.
    #[error("the simulated site in {origin} cannot be used: {reason}")]
    Site {
        /// File, or `built in`.
        origin: String,
        /// What is wrong with it, with line and column where known.
        reason: String,
    },
    /// A file cannot be read or written.
    #[error("cannot {deed} {}: {source}", path.display())]
    File {
        /// Which file.
        path: PathBuf,
        /// `read` or `write`
        deed: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// Certificates cannot be made or used.
    #[error("the simulator's certificates cannot be made: {0}")]
    Certificates(String),
    /// A port cannot be opened.
    #[error("the simulator cannot listen on {address} ({door}): {source}; choose another port with --{door}")]
    Listen {
        /// `qrs` or `control`
        door: &'static str,
        /// Where.
        address: SocketAddr,
        /// Why.
        source: std::io::Error,
    },
    /// The control door must not be reachable from elsewhere.
    #[error("the control port must be on the loopback (127.0.0.1 or ::1), not on {0}")]
    ControlNotLocal(SocketAddr),
    /// There is nowhere to listen.
    #[error("the simulator needs at least one address for its repository")]
    NoAddress,
    /// A number is out of range.
    #[error("--{option} {value} is out of range: {range}")]
    Range {
        /// `speed` or `rate`
        option: &'static str,
        /// What was given.
        value: f64,
        /// What is possible.
        range: &'static str,
    },
    /// No socket to send datagrams from.
    #[error("cannot open a socket to send datagrams: {source}")]
    Socket {
        /// Why.
        source: std::io::Error,
    },
}

/// Where the simulator listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SimulatorAddresses {
    /// The repository, in the order of the settings.
    pub qrs: Vec<SocketAddr>,
    /// The control door.
    pub control: Option<SocketAddr>,
}

/// What can be seen of the site from outside.
#[derive(Debug, Clone)]
pub enum SimulatorEvent {
    /// An execution took a step.
    State(Box<Change>),
    /// The repository was asked something, and it was asked to be shown.
    Request(Box<Asked>),
    /// A datagram was sent.
    Datagram {
        /// Its content.
        text: String,
        /// Whether the system took it for all targets.
        sent: bool,
    },
}

/// A request to the repository, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// Method.
    pub method: String,
    /// Path.
    pub path: String,
    /// Query, decoded, without the Xrfkey.
    pub query: String,
    /// `DIR\user`, if the call named one and was let in.
    pub user: Option<String>,
    /// The fault that befell it.
    pub fault: Option<&'static str>,
    /// Status of the answer; `None`: there was none.
    pub status: Option<u16>,
}

/// The simulator, bound and not yet running.
#[derive(Debug)]
pub struct Simulator {
    plan: Plan,
    settings: SimulatorSettings,
    qrs: Vec<TcpListener>,
    control: Option<TcpListener>,
    tls: Option<(PkiFiles, TlsAcceptorOf)>,
    outlet: Outlet,
    addresses: SimulatorAddresses,
    events: broadcast::Sender<SimulatorEvent>,
}

/// `TlsAcceptor` with a `Debug` that says nothing.
#[derive(Clone)]
struct TlsAcceptorOf(TlsAcceptor);

impl std::fmt::Debug for TlsAcceptorOf {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TlsAcceptor")
    }
}

/// What doors and driver share.
#[derive(Debug)]
struct Shared {
    plan: Plan,
    profile: Profile,
    seed: u64,
    show_requests: bool,
    tls: bool,
    site: Mutex<Site>,
    clock: Clock,
    calendar: Calendar,
    wake: Notify,
    faults: Faults,
    journal: Journal,
    outage: Outage,
    wire: Mutex<WirePlan>,
    notifier: Notifier,
    log_delays: qrs::LogDelays,
    selections: qrs::Selections,
    outlet: Outlet,
    burst: tokio::sync::Mutex<()>,
    burst_number: AtomicU64,
    events: broadcast::Sender<SimulatorEvent>,
}

impl Shared {
    /// Does something with the site at the present moment.
    fn with_site<T>(&self, deed: impl FnOnce(&mut Site) -> T) -> T {
        let mut site = self.site.lock();
        site.advance(self.clock.now());
        let result = deed(&mut site);
        drop(site);
        self.wake.notify_one();
        result
    }

    fn log_time(&self) -> String {
        self.calendar.log(self.clock.now())
    }

    fn next_burst_number(&self) -> u64 {
        self.burst_number.fetch_add(1, Ordering::Relaxed)
    }
}

impl Simulator {
    /// Reads the site, prepares certificates, opens every port and socket.
    pub async fn bind(settings: SimulatorSettings) -> Result<Self, SimulatorError> {
        settings.check()?;
        let plan = settings.site.plan()?;
        let tls = match &settings.transport {
            Transport::MutualTls { directory } => {
                let host = settings.host.clone().unwrap_or_else(pki::machine_name);
                let (files, config) = pki::prepare(directory, &host, settings.tls)?;
                Some((files, TlsAcceptorOf(TlsAcceptor::from(Arc::new(config)))))
            }
            Transport::Plain => None,
        };
        let outlet = Outlet::open(plan.nodes.len(), settings.targets.clone())?;
        let qrs = listen("qrs", &settings.qrs)?;
        let control = listen("control", settings.control.as_slice())?.pop();
        let addresses = SimulatorAddresses {
            qrs: qrs.iter().filter_map(|listener| listener.local_addr().ok()).collect(),
            control: control.as_ref().and_then(|listener| listener.local_addr().ok()),
        };
        let (events, _) = broadcast::channel(EVENTS_KEPT);
        Ok(Self { plan, settings, qrs, control, tls, outlet, addresses, events })
    }

    /// Where it listens.
    pub fn addresses(&self) -> &SimulatorAddresses {
        &self.addresses
    }

    /// The certificates a client needs; `None` without TLS.
    pub fn pki(&self) -> Option<&PkiFiles> {
        self.tls.as_ref().map(|(files, _)| files)
    }

    /// The site.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The task to show to newcomers: enabled, idle by itself, ends successfully within five seconds.
    pub fn sample_task(&self) -> TaskId {
        self.plan.sample_task
    }

    /// Where datagrams go from now on; for those who know it only after binding.
    pub fn send_to(&mut self, targets: Targets) -> Result<(), SimulatorError> {
        self.outlet = Outlet::open(self.plan.nodes.len(), targets)?;
        Ok(())
    }

    /// Everything that will happen; a listener that falls behind misses the oldest.
    pub fn events(&self) -> broadcast::Receiver<SimulatorEvent> {
        self.events.subscribe()
    }

    /// Runs until `stop`.
    pub async fn run(self, stop: CancellationToken) -> Result<(), SimulatorError> {
        let Self { plan, settings, qrs, control, tls, outlet, events, .. } = self;
        let calendar = Calendar::new(SystemTime::now());
        let seed = settings.seed.unwrap_or_else(|| rng::Rng::from_system().next_u64());
        info!(seed, tasks = plan.tasks.len(), profile = %settings.profile, "simulated site starts");
        let options = SiteOptions { profile: settings.profile, seed, rate: settings.rate, calendar };
        let tracker = TaskTracker::new();
        let shared = Arc::new(Shared {
            profile: settings.profile,
            seed,
            show_requests: settings.show_requests,
            tls: tls.is_some(),
            site: Mutex::new(Site::new(&plan, options)),
            clock: Clock::start(settings.speed),
            calendar,
            wake: Notify::new(),
            faults: Faults::new(seed, &plan.faults),
            journal: Journal::default(),
            outage: Outage::default(),
            wire: Mutex::new(plan.answers),
            notifier: Notifier::new(plan.notifications.batch, tracker.clone(), stop.clone()),
            log_delays: qrs::LogDelays::default(),
            selections: qrs::Selections::default(),
            plan,
            outlet,
            burst: tokio::sync::Mutex::new(()),
            burst_number: AtomicU64::new(0),
            events,
        });
        let repository = Arc::new(qrs::Repository(Arc::clone(&shared)));
        for listener in qrs {
            let tls = tls.as_ref().map(|(_, acceptor)| acceptor.0.clone());
            let door = Door { listener, tls, handler: Arc::clone(&repository), open: shared.outage.watch() };
            tracker.spawn(door.serve(tracker.clone(), stop.clone()));
        }
        // Outages are the repository's alone.
        let always = watch::Sender::new(true);
        if let Some(listener) = control {
            let handler = Arc::new(control::Control(Arc::clone(&shared)));
            let door = Door { listener, tls: None, handler, open: always.subscribe() };
            tracker.spawn(door.serve(tracker.clone(), stop.clone()));
        }
        tokio::select! {
            () = drive(&shared, &stop) => {}
            () = shared.outage.keep() => {}
        }
        tracker.close();
        tracker.wait().await;
        Ok(())
    }
}

/// Moves the site on and sends what it has to say, until `stop`.
async fn drive(shared: &Shared, stop: &CancellationToken) {
    loop {
        let (effects, next) = {
            let mut site = shared.site.lock();
            site.advance(shared.clock.now());
            (site.take_effects(), site.next_due())
        };
        for effect in effects {
            if stop.is_cancelled() {
                return;
            }
            carry_out(shared, effect).await;
        }
        let due = async {
            match next {
                Some(moment) => tokio::time::sleep_until(shared.clock.instant(moment)).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = shared.wake.notified() => {}
            () = due => {}
        }
    }
}

async fn carry_out(shared: &Shared, effect: Effect) {
    let event = match effect {
        Effect::Changed(change) => SimulatorEvent::State(change),
        Effect::Send { node, kind, text } => {
            let sent = shared.outlet.send_and_keep(node, kind, &text).await;
            SimulatorEvent::Datagram { text, sent }
        }
        Effect::Notify { url, entry } => return shared.notifier.tell(&url, *entry),
    };
    // Nobody may be listening.
    let _ = shared.events.send(event);
}

/// Opens a door on all its addresses.
fn listen(door: &'static str, addresses: &[SocketAddr]) -> Result<Vec<TcpListener>, SimulatorError> {
    let failed = |address, source| SimulatorError::Listen { door, address, source };
    let open = bind::tcp(addresses, V6::Only).map_err(|error| failed(error.address, error.source))?;
    let listener = |listener: std::net::TcpListener| {
        let address = listener.local_addr();
        TcpListener::from_std(listener)
            .map_err(|source| failed(address.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0))), source))
    };
    open.into_iter().map(listener).collect()
}
