//! `sense-butler demo`: the main job on an embedded default. Appliance and simulated Sense site in one process on loopback, with sample events
//! flowing, and every event and message as a readable line.

use std::{
    io::{self, Write as _},
    net::SocketAddr,
    path::Path,
};

use time::OffsetDateTime;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use super::{Exit, complain, options, refuse};
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
};

/// Characters of a payload shown on a line.
const SHOWN: usize = 120;

/// Why the demo does not run.
#[derive(Debug, thiserror::Error)]
enum DemoError {
    #[error("{0}")]
    Configuration(ConfigErrors),
    #[error(transparent)]
    Build(#[from] BuildError),
    #[error("the simulated Qlik Sense site: {0}")]
    Simulator(#[from] SimulatorError),
    #[error(transparent)]
    Fatal(#[from] app::Fatal),
}

/// Runs until stopped.
pub fn run(addresses: &options::Addresses) -> Exit {
    super::in_runtime(async {
        match demo(addresses).await {
            Ok(()) => Exit::Done,
            Err(DemoError::Configuration(errors)) => refuse(&errors),
            Err(error) => complain(error),
        }
    })
}

async fn demo(addresses: &options::Addresses) -> Result<(), DemoError> {
    // First of all: a stop that is asked for during the start is one in order, too.
    let asked = app::signal();
    let options = LoadOptions::from_environment(addresses.overrides(), false);
    let mut loaded = config::built_in(&options).map_err(DemoError::Configuration)?;
    let mut simulator = simulator(addresses, &loaded.data_dir).await?;
    point_at(&mut loaded, &simulator);
    let app = App::build(&loaded)?;
    let bound = app.addresses();
    simulator.send_to(targets(&bound.udp))?;
    say(&banner(&bound, simulator.addresses().qrs.first(), simulator.sample_task()));
    let stop = CancellationToken::new();
    let showing = tokio::spawn(show_messages(app.bus(), stop.clone()));
    let sense = tokio::spawn(show_site(simulator.events(), stop.clone()));
    let site = tokio::spawn(run_site(simulator, app.readiness(), stop.clone()));
    let ended = app.run(asked).await;
    stop.cancel();
    // They end with the token; what they say no longer matters.
    let _ = tokio::join!(showing, sense, site);
    say("stopped");
    Ok(ended?)
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
async fn run_site(simulator: Simulator, readiness: crate::telemetry::readiness::Readiness, stop: CancellationToken) {
    let mut changes = readiness.watch();
    while !readiness.is_ready() {
        if stop.run_until_cancelled(changes.changed()).await.is_none() {
            return;
        }
    }
    if let Err(error) = simulator.run(stop).await {
        complain(error);
    }
}

fn banner(bound: &Addresses, qrs: Option<&SocketAddr>, sample: TaskId) -> String {
    let mqtt = bound.mqtt.first().map_or(1883, |(_, address)| address.port());
    let rest = bound.rest.first().map_or(8080, SocketAddr::port);
    let list = |addresses: &mut dyn Iterator<Item = String>| addresses.collect::<Vec<_>>().join(", ");
    let port = if mqtt == 1883 { String::new() } else { format!("-p {mqtt} ") };
    format!(
        "sense-butler {version}: demonstration on this machine; nothing leaves it. Ctrl-C ends it.\n\n\
         MQTT           {}\nREST           {}\nSense events   {} (UDP)\nSimulated QRS  {}\n\n\
         Try, in another terminal:\n\
         1. watch everything     mosquitto_sub {port}-v -t 'qliksense/#'\n\
         2. start a Sense task   mosquitto_pub {port}-t qliksense/start_task -m {sample}\n\
         3. publish by REST      curl -X PUT http://localhost:{rest}/v4/mqttpublishmessage -H 'Content-Type: application/json' \\\n\
         {blank:24}-d '{{\"topic\":\"hello\",\"message\":\"from REST\"}}'\n\
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
    while let Some(Some(delivery)) = stop.run_until_cancelled(messages.recv()).await {
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
            // Datagrams are shown by what becomes of them.
            Some(Ok(SimulatorEvent::Datagram { .. }) | Err(broadcast::error::RecvError::Lagged(_))) => {}
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
