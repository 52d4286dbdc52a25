//! `sense-butler demo`: the main job on an embedded default. Appliance and simulated Sense site in one process on loopback, with sample events
//! flowing, and every event and message as a readable line.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    path::Path,
    time::Duration,
};

use time::OffsetDateTime;
use tokio::{sync::broadcast, task::JoinSet, time::timeout};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{Exit, complain, not_built, options, refuse};
use crate::{
    app::{self, Addresses, App, BuildError},
    bus::{Bus, Delivery},
    config::{self, ConfigErrors, LoadOptions, Loaded, settings::QrsVerify},
    names::{TaskId, TopicFilter},
    sense::{
        receiver::{Listening, Port},
        simulator::{
            PkiFiles, Profile, Simulator, SimulatorError, SimulatorEvent, SimulatorSettings, Targets, Transport,
        },
    },
    telemetry::readiness::Readiness,
};

/// Characters of a payload shown on a line.
const SHOWN: usize = 120;
/// How long the simulated site may take to end behind the appliance.
const SITE_ENDS: Duration = Duration::from_millis(500);

/// Why the demo does not run.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("{0}")]
    Configuration(ConfigErrors),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("the simulated Qlik Sense site: {0}")]
    Simulator(#[from] SimulatorError),
    #[error("the simulated Qlik Sense site met a defect of sense-butler: {0}")]
    Site(tokio::task::JoinError),
    #[error(transparent)]
    Fatal(#[from] app::Fatal),
}

/// Runs until stopped.
pub fn run(addresses: &options::Addresses) -> Exit {
    super::in_runtime(async {
        match demo(addresses).await {
            Ok(()) => Exit::Done,
            Err(DemoError::Configuration(errors)) => refuse(&errors),
            Err(DemoError::Build(error)) => not_built(&error),
            Err(error) => complain(error),
        }
    })
}

async fn demo(addresses: &options::Addresses) -> Result<(), DemoError> {
    let asked = app::signal();
    let options = LoadOptions::from_environment(addresses.overrides(), false);
    let mut loaded = config::built_in(&options).map_err(DemoError::Configuration)?;
    // A demonstration leaves nothing behind.
    loaded.broker.storage.directory = None;
    let mut simulator = simulator(addresses, &loaded.data_dir).await?;
    point_at(&mut loaded, &simulator);
    let app = App::build(&loaded)?;
    let bound = app.addresses();
    simulator.send_to(targets(&bound.udp))?;
    say(&banner(&bound, simulator.addresses().qrs.first(), simulator.sample_task()));
    let (stop, gone) = (CancellationToken::new(), CancellationToken::new());
    let mut show = JoinSet::new();
    show.spawn(show_messages(app.bus(), stop.clone()));
    show.spawn(show_site(simulator.events(), stop.clone()));
    let (readiness, there) = (app.readiness(), gone.clone().drop_guard());
    let site_stop = stop.clone();
    let mut site = AbortOnDropHandle::new(tokio::spawn(async move {
        let _there = there;
        run_site(simulator, readiness, site_stop).await
    }));
    let ended = app
        .run(async {
            tokio::select! {
                why = asked => why,
                () = gone.cancelled() => "the simulated Qlik Sense site ended by itself",
            }
        })
        .await;
    stop.cancel();
    // What does not end within its time is abandoned with the runtime; what it would have said no longer matters.
    let site = timeout(SITE_ENDS, &mut site).await;
    let _ = timeout(SITE_ENDS, show.join_all()).await;
    ended?;
    match site {
        Ok(Ok(Err(error))) => return Err(error.into()),
        Ok(Err(panicked)) => return Err(DemoError::Site(panicked)),
        Ok(Ok(Ok(()))) | Err(_) => say("stopped"),
    }
    Ok(())
}

/// The site: QRS where asked, certificates in the data directory as Qlik exports them.
async fn simulator(addresses: &options::Addresses, data: &Path) -> Result<Simulator, DemoError> {
    let mut settings = SimulatorSettings::new(data.join("demo-certificates"));
    if let Some(bind) = addresses.qrs.as_ref().and_then(|qrs| qrs.bind_addresses().ok()) {
        settings.qrs = bind;
    }
    settings.control = None;
    settings.profile = Profile::Butler16;
    settings.transport = Transport::MutualTls { directory: data.join("demo-certificates") };
    Ok(Simulator::bind(settings).await?)
}

/// The appliance talks to the simulated QRS.
fn point_at(loaded: &mut Loaded, simulator: &Simulator) {
    let qrs = &mut loaded.settings.qrs;
    if let Some(address) = simulator.addresses().qrs.first() {
        qrs.host = Some(address.ip().to_string());
        qrs.port = address.port();
        qrs.further = Vec::new();
    }
    if let Some(PkiFiles { client, client_key, root, .. }) = simulator.pki() {
        qrs.client_cert = Some(client.clone());
        qrs.client_key = Some(client_key.clone());
        qrs.ca = Some(root.clone());
        qrs.verify = QrsVerify::Ca { name: None };
    }
}

/// Where Sense's log appenders send to; one address of each port is enough.
fn targets(udp: &[Listening]) -> Targets {
    let of = |port| udp.iter().find(|door| door.port == port).map(|door| door.address).into_iter().collect();
    Targets { tasks: of(Port::Task), sessions: of(Port::Session) }
}

/// The site's life begins when the appliance listens: a first event that nobody hears would be a poor demonstration.
async fn run_site(simulator: Simulator, readiness: Readiness, stop: CancellationToken) -> Result<(), SimulatorError> {
    let mut changes = readiness.watch();
    while !readiness.is_ready() {
        if stop.run_until_cancelled(changes.changed()).await.is_none() {
            return Ok(());
        }
    }
    simulator.run(stop).await
}

fn banner(bound: &Addresses, qrs: Option<&SocketAddr>, sample: TaskId) -> String {
    let mqtt = bound.mqtt.first().map_or(1883, |(_, address)| address.port());
    let rest = bound.rest.first().map_or(8080, SocketAddr::port);
    let list = |addresses: &mut dyn Iterator<Item = String>| addresses.collect::<Vec<_>>().join(", ");
    let port = if mqtt == 1883 { String::new() } else { format!("-p {mqtt} ") };
    format!(
        "sense-butler {version}: demonstration on this machine; nothing leaves it. Ctrl-C ends it.\n\n\
         MQTT           {}\nREST           {}\nSense events   {} (UDP)\nSimulated QRS  {}\nConsole        http://localhost:{rest}/console\n\n\
         Try, in another terminal:\n\
         1. watch everything     mosquitto_sub {port}-v -t 'qliksense/#'\n\
         2. start a Sense task   mosquitto_pub {port}-t qliksense/start_task -m {sample}\n\
         3. publish by REST      curl -X PUT http://localhost:{rest}/v4/mqttpublishmessage -H 'Content-Type: application/json' \\\n\
         {blank:24}-d '{{\"topic\":\"qliksense/hello\",\"message\":\"from REST\"}}'\n\
         (no mosquitto here? `sense-butler sub {port}-v -t 'qliksense/#'` and `sense-butler pub` do the same)\n\n\
         Sample task: id={sample} (enabled, runs a few seconds)\n",
        list(&mut bound.mqtt.iter().map(|(_, address)| address.to_string())),
        list(&mut bound.rest.iter().map(|address| format!("http://{address}"))),
        list(&mut bound.udp.iter().map(|door| door.address.to_string())),
        qrs.map_or_else(|| "none".to_owned(), |address| format!("https://{address}")),
        version = env!("CARGO_PKG_VERSION"),
        blank = "",
    )
}

async fn show_messages(bus: Bus, stop: CancellationToken) {
    let Ok(all) = TopicFilter::new("#") else { return };
    let Some(Ok(mut messages)) = stop.run_until_cancelled(bus.subscribe("demo", vec![all])).await else { return };
    // The broker's end is theirs: until then there may be something to show.
    while let Some(delivery) = messages.recv().await {
        say(&message(&delivery));
    }
}

fn message(delivery: &Delivery) -> String {
    let text = String::from_utf8_lossy(&delivery.payload);
    let mut shown: String = text.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.chars().nth(SHOWN).is_some() {
        shown.push('…');
    }
    format!("{}  MQTT   {}  {shown}", clock(), delivery.topic)
}

async fn show_site(mut events: broadcast::Receiver<SimulatorEvent>, stop: CancellationToken) {
    loop {
        match stop.run_until_cancelled(events.recv()).await {
            Some(Ok(SimulatorEvent::State(change))) => {
                say(&format!(
                    "{}  Sense  task \"{}\" {:?}  execution {}",
                    clock(),
                    change.task_name,
                    change.to,
                    change.execution_id
                ));
            }
            // Datagrams and requests are shown by what becomes of them.
            Some(
                Ok(SimulatorEvent::Datagram { .. } | SimulatorEvent::Request(_))
                | Err(broadcast::error::RecvError::Lagged(_)),
            ) => {}
            Some(Err(broadcast::error::RecvError::Closed)) | None => return,
        }
    }
}

fn clock() -> String {
    let now = OffsetDateTime::now_local().unwrap_or_else(|_| OffsetDateTime::now_utc());
    format!("{:02}:{:02}:{:02}", now.hour(), now.minute(), now.second())
}

/// A line for whoever watches; a closed standard output ends the showing, not the demonstration.
fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}
