//! `sense-butler simulate`: a simulated Qlik Sense site in the foreground, and everything it does as readable lines.

use std::{
    io::{self, Write as _},
    net::{SocketAddr, ToSocketAddrs as _},
    path::PathBuf,
};

use clap::Args;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::{Exit, complain, in_runtime};
use crate::{
    app,
    config::address::{self, AddressError, HostPort},
    sense::simulator::{
        Asked, Change, Profile, ServerCertificate, Simulator, SimulatorError, SimulatorEvent, SimulatorSettings,
        SiteSource, Targets, TlsChoices, TlsVersions, Transport,
        plan::{TaskKind, TaskPlan},
    },
};

/// Tasks that are listed at the start; sites for measurements have thousands.
const TASKS_SHOWN: usize = 40;
/// A key for the commands to try: any 16 letters and digits, the same in header and query.
const XRFKEY: &str = "0123456789abcdef";

/// Options of `simulate`.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Where the simulated repository service listens; `localhost` opens both loopback addresses
    #[arg(long, value_name = "ADDR", default_value = "localhost:4242")]
    pub qrs: String,
    /// Where the control door listens (what was started, faults, bursts); loopback only
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:14242")]
    pub control: String,
    /// Directory the certificates are in, or written to, as Qlik exports them (client.pem, client_key.pem, root.pem)
    #[arg(long, value_name = "DIR", default_value = "data/simulator-certificates")]
    pub pki: PathBuf,
    /// No TLS
    #[arg(long)]
    pub plain: bool,
    /// The server's certificate: sound, expired, wrong-name, no-names or unknown-authority
    #[arg(long, value_name = "KIND", default_value = "sound")]
    pub certificate: ServerCertificate,
    /// Versions of TLS: both, 1.2 or 1.3
    #[arg(long, value_name = "VERSION", default_value = "both")]
    pub tls: TlsVersions,
    /// Answer clients without a certificate 403 instead of turning them away in the handshake
    #[arg(long)]
    pub soft: bool,
    /// Tasks, durations and outcomes [default: a built-in sample site]
    #[arg(long, value_name = "FILE")]
    pub tasks: Option<PathBuf>,
    /// Receiver of task datagrams; may be given several times
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9998")]
    pub send_to: Vec<String>,
    /// Receiver of session and connection datagrams; may be given several times
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:9997")]
    pub sessions_to: Vec<String>,
    /// Which log appenders are installed: butler-16, butler-5.4 or legacy
    #[arg(long, value_name = "NAME", default_value_t)]
    pub profile: Profile,
    /// Seed of all chance [default: another one each time]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// How fast the site's clock runs, 0.001 to 10000
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    pub speed: f64,
    /// Factor on how often things happen by themselves, 0 (never) to 1000
    #[arg(long, value_name = "N", default_value_t = 1.0)]
    pub rate: f64,
    /// Show every request to the repository, too
    #[arg(long)]
    pub requests: bool,
}

/// Runs until stopped by a signal.
pub fn main(options: &Options) -> Exit {
    let options = options.clone();
    in_runtime(async {
        let (stop, asked) = (CancellationToken::new(), app::signal());
        let asked = async {
            asked.await;
            stop.cancel();
            // Ends with the run.
            std::future::pending().await
        };
        let ended = tokio::select! {
            ended = run(options, stop.clone()) => ended,
            ended = asked => ended,
        };
        match ended {
            Ok(()) => Exit::Done,
            Err(error) => complain(error),
        }
    })
}

/// Why `simulate` ends otherwise than by being stopped.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// An address cannot be read or found.
    #[error("`{text}` is not an address like 127.0.0.1:4242: {source}")]
    Address {
        /// What was given.
        text: String,
        /// Why not.
        source: io::Error,
    },
    /// The simulator's own reasons.
    #[error(transparent)]
    Simulator(#[from] SimulatorError),
}

/// Runs until `stop`.
pub async fn run(options: Options, stop: CancellationToken) -> Result<(), SimulateError> {
    let settings = settings(&options)?;
    let targets = settings.targets.clone();
    let simulator = Simulator::bind(settings).await?;
    say(&banner(&simulator, &targets, &options));
    let mut events = simulator.events();
    let printing = async {
        loop {
            match events.recv().await {
                Ok(event) => say(&line(&event)),
                Err(RecvError::Lagged(missed)) => say(&format!("          ({missed} lines left out)")),
                Err(RecvError::Closed) => std::future::pending().await,
            }
        }
    };
    tokio::select! {
        result = simulator.run(stop) => Ok(result?),
        () = printing => Ok(()),
    }
}

fn settings(options: &Options) -> Result<SimulatorSettings, SimulateError> {
    let transport = match options.plain {
        true => Transport::Plain,
        false => Transport::MutualTls { directory: options.pki.clone() },
    };
    Ok(SimulatorSettings {
        qrs: listening(&options.qrs)?,
        control: listening(&options.control)?.first().copied(),
        transport,
        tls: TlsChoices { certificate: options.certificate, versions: options.tls, soft: options.soft },
        site: options.tasks.clone().map_or(SiteSource::BuiltIn, SiteSource::File),
        targets: Targets { tasks: targets(&options.send_to)?, sessions: targets(&options.sessions_to)? },
        profile: options.profile,
        seed: options.seed,
        speed: options.speed,
        rate: options.rate,
        show_requests: options.requests,
        ..SimulatorSettings::new(&options.pki)
    })
}

/// Addresses to listen on: `localhost` means both loopback addresses, whatever the system's name service says.
fn listening(text: &str) -> Result<Vec<SocketAddr>, SimulateError> {
    let wrong = |source| SimulateError::Address { text: text.to_owned(), source };
    let HostPort { host, port } = text.parse().map_err(|error: AddressError| wrong(io::Error::other(error)))?;
    let found = address::look_up(&host).map_err(wrong)?;
    Ok(found.into_iter().map(|ip| SocketAddr::new(ip, port)).collect())
}

/// Each receiver once: of several addresses of a name the first, so that nothing arrives twice.
fn targets(texts: &[String]) -> Result<Vec<SocketAddr>, SimulateError> {
    let firsts = texts.iter().map(|text| find(text).map(|found| found.first().copied()));
    firsts.filter_map(Result::transpose).collect()
}

fn find(text: &str) -> Result<Vec<SocketAddr>, SimulateError> {
    match text.to_socket_addrs() {
        Ok(found) => Ok(found.collect()),
        Err(source) => Err(SimulateError::Address { text: text.to_owned(), source }),
    }
}

/// What a person wants to know first.
fn banner(simulator: &Simulator, targets: &Targets, options: &Options) -> String {
    let addresses = simulator.addresses();
    let scheme = if options.plain { "http" } else { "https" };
    let list = |all: &[SocketAddr]| all.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(", ");
    let mut text = format!(
        "SIMULATED Qlik Sense site: {} tasks, log appenders of {}, clock x{}\n",
        simulator.plan().tasks.len(),
        options.profile,
        options.speed
    );
    let mut row = |name: &str, value: String| text.push_str(&format!("  {name:<15}{value}\n"));
    let qrs: Vec<String> = addresses.qrs.iter().map(|address| format!("{scheme}://{address}/qrs/")).collect();
    row("repository", qrs.join("  "));
    if let Some(files) = simulator.pki() {
        row("certificates", format!("{} (client.pem, client_key.pem, root.pem)", files.directory.display()));
    }
    if let Some(control) = addresses.control {
        row("control", format!("http://{control}/control"));
    }
    for (name, receivers) in [("task events", &targets.tasks), ("user events", &targets.sessions)] {
        row(name, if receivers.is_empty() { "to nobody".to_owned() } else { format!("to {}", list(receivers)) });
    }
    row("sample task", format!("id={}", simulator.sample_task()));
    text.push_str("  tasks\n");
    let tasks = &simulator.plan().tasks;
    for task in tasks.iter().take(TASKS_SHOWN) {
        text.push_str(&format!("    {}  {}{}\n", task.id, task.name, remarks(task)));
    }
    if let Some(more) = tasks.len().checked_sub(TASKS_SHOWN).filter(|more| *more > 0) {
        text.push_str(&format!("    and {more} more\n"));
    }
    text.push_str(&to_try(simulator));
    text
}

/// What is worth knowing of a task beside its name.
fn remarks(task: &TaskPlan) -> String {
    let mut remarks = Vec::new();
    let kind = match task.kind {
        TaskKind::Reload => None,
        TaskKind::ExternalProgram => Some("external program"),
        TaskKind::UserSync => Some("user synchronisation"),
        TaskKind::Distribute => Some("distribute"),
        TaskKind::Preload => Some("preload"),
    };
    remarks.extend(kind.map(str::to_owned));
    remarks.extend((!task.enabled).then(|| "disabled".to_owned()));
    remarks.extend(task.every.map(|every| format!("every {every} s")));
    remarks.extend((!task.after.is_empty()).then(|| "after other tasks".to_owned()));
    remarks.extend((task.max_retries > 0).then(|| format!("tried again up to {} times", task.max_retries)));
    if remarks.is_empty() { String::new() } else { format!("  ({})", remarks.join(", ")) }
}

/// Three commands that work as they stand.
fn to_try(simulator: &Simulator) -> String {
    let addresses = simulator.addresses();
    let Some(qrs) = addresses.qrs.first() else { return String::new() };
    let (curl, scheme) = match simulator.pki() {
        Some(files) => {
            let [root, client, key] = [&files.root, &files.client, &files.client_key].map(|path| path.display());
            (format!("curl --cacert \"{root}\" --cert \"{client}\" --key \"{key}\""), "https")
        }
        None => ("curl".to_owned(), "http"),
    };
    let headers = format!("-H \"X-Qlik-Xrfkey: {XRFKEY}\" -H \"X-Qlik-User: UserDirectory=INTERNAL; UserId=sa_api\"");
    let call = |path: &str| format!("\"{scheme}://{qrs}/qrs/{path}xrfkey={XRFKEY}\"");
    let mut text = format!(
        "\nTo try it, in another window:\n  list tasks\n    {curl} {headers} {}\n  start one\n    {curl} {headers} -X POST -d \"\" {}\n",
        call("task?"),
        call(&format!("task/{}/start/synchronous?", simulator.sample_task())),
    );
    if let Some(control) = addresses.control {
        text.push_str(&format!("  see what was started, and by whom\n    curl http://{control}/control/starts\n"));
        text.push_str(&format!("What else can be made to happen: curl http://{control}/control\n"));
    }
    text
}

fn line(event: &SimulatorEvent) -> String {
    match event {
        SimulatorEvent::State(change) => state_line(change),
        SimulatorEvent::Request(asked) => request_line(asked),
        SimulatorEvent::Datagram { text, sent: true } => format!("          datagram  {text}"),
        SimulatorEvent::Datagram { text, sent: false } => format!("          datagram could not be sent  {text}"),
    }
}

fn request_line(asked: &Asked) -> String {
    let Asked { method, path, query, user, fault, status } = asked;
    let query = if query.is_empty() { String::new() } else { format!("?{query}") };
    let user = user.as_deref().map(|user| format!("  by {user}")).unwrap_or_default();
    let status = status.map_or("no answer".to_owned(), |status| status.to_string());
    let fault = fault.map(|fault| format!("  (fault: {fault})")).unwrap_or_default();
    format!("          request   {method} {path}{query}  {status}{user}{fault}")
}

fn state_line(change: &Change) -> String {
    let Change { at, task_id, task_name, execution_id, from, to, node, user } = change;
    let time = at.split_once(' ').map_or(at.as_str(), |(_, time)| time);
    let node = node.as_deref().map(|node| format!(" on {node}")).unwrap_or_default();
    let to = to.name();
    match from {
        None => format!("{time}  {to:<20}{task_name}  task {task_id} execution {execution_id} by {user}"),
        Some(_) => format!("{time}  {to:<20}{task_name}{node}"),
    }
}

/// Prints; a reader who has gone away is no reason to stop simulating.
fn say(text: &str) {
    let _ = writeln!(io::stdout().lock(), "{}", text.trim_end());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defaults() -> Options {
        #[derive(clap::Parser)]
        struct Shell {
            #[command(flatten)]
            options: Options,
        }
        <Shell as clap::Parser>::parse_from(["simulate"]).options
    }

    #[test]
    fn localhost_listens_on_both_and_sends_to_one() {
        let both: Vec<String> = listening("localhost:4242").unwrap().iter().map(SocketAddr::to_string).collect();
        assert_eq!(both, ["127.0.0.1:4242", "[::1]:4242"]);
        assert_eq!(listening("127.0.0.1:1").unwrap().len(), 1);
        assert_eq!(targets(&["127.0.0.1:9998".to_owned(), "[::1]:9998".to_owned()]).unwrap().len(), 2);
        let error = targets(&["nonsense".to_owned()]).unwrap_err().to_string();
        assert!(error.contains("`nonsense` is not an address"), "{error}");
    }

    #[tokio::test]
    async fn the_banner_names_what_is_needed_and_stopping_ends_it() {
        let options = Options {
            qrs: "127.0.0.1:0".to_owned(),
            control: "127.0.0.1:0".to_owned(),
            plain: true,
            send_to: Vec::new(),
            sessions_to: Vec::new(),
            ..defaults()
        };
        let simulator = Simulator::bind(settings(&options).unwrap()).await.unwrap();
        let text = banner(&simulator, &Targets::default(), &options);
        let port = simulator.addresses().qrs.first().unwrap().port();
        let start = format!("http://127.0.0.1:{port}/qrs/task/{}/start/synchronous?", simulator.sample_task());
        for part in [format!("http://127.0.0.1:{port}/qrs/"), format!("id={}", simulator.sample_task()), start] {
            assert!(text.contains(&part), "{part} is not in\n{text}");
        }
        let stop = CancellationToken::new();
        stop.cancel();
        run(options, stop).await.unwrap();
    }
}
