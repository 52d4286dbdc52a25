//! Every TCP and UDP port the configuration opens: free, held by the program itself, or by somebody else.
//!
//! Invariant: a port is tried by opening and closing it at once; a port the running program holds is not touched.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
};

use super::{
    finding::{Finding, Section},
    running::Running,
};
use crate::{
    app::holder,
    config::{Loaded, address, settings::Settings},
    net::bind::{self, V6},
};

const HERE: Section = Section::Ports;

/// Ports Qlik Sense itself uses on a node (its help, page Ports), first and last of each range.
const OF_QLIK: [(u16, u16); 34] = [
    (80, 80),
    (443, 443),
    (2770, 2770),
    (3003, 3003),
    (4239, 4240),
    (4242, 4244),
    (4248, 4248),
    (4432, 4432),
    (4444, 4444),
    (4545, 4545),
    (4555, 4555),
    (4570, 4570),
    (4747, 4748),
    (4899, 4900),
    (4949, 4950),
    (4993, 4994),
    (5050, 5050),
    (5151, 5151),
    (5252, 5252),
    (5672, 5672),
    (5926, 5928),
    (7070, 7089),
    (8088, 8088),
    (9028, 9028),
    (9031, 9032),
    (9041, 9041),
    (9051, 9051),
    (9054, 9054),
    (9079, 9081),
    (9090, 9090),
    (9098, 9098),
    (9200, 9200),
    (50101, 50131),
    (52051, 52081),
];

/// Whether Qlik Sense uses a port itself.
pub fn is_of_qlik(port: u16) -> bool {
    OF_QLIK.iter().any(|(first, last)| (*first..=*last).contains(&port))
}

/// Of which kind a port is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        }
    }

    /// Whether an address can be had right now.
    ///
    /// # Errors
    /// What the system says.
    pub fn try_open(self, address: SocketAddr) -> io::Result<()> {
        match self {
            Self::Tcp => bind::tcp(&[address], V6::Dual).map(drop).map_err(|error| error.source),
            Self::Udp => UdpSocket::bind(address).map(drop),
        }
    }

    /// Who has a port, where the system tells.
    pub fn holder(self, port: u16) -> Option<String> {
        match self {
            Self::Tcp => holder::of_tcp(port),
            Self::Udp => holder::of_udp(port),
        }
    }

    /// The command that says who has a port.
    pub fn who_has(self, port: u16) -> String {
        match (cfg!(windows), self) {
            (true, Self::Tcp) => {
                format!("Get-Process -Id (Get-NetTCPConnection -LocalPort {port} -State Listen).OwningProcess")
            }
            (true, Self::Udp) => format!("Get-Process -Id (Get-NetUDPEndpoint -LocalPort {port}).OwningProcess"),
            (false, Self::Tcp) => format!("sudo ss -ltnp 'sport = :{port}'"),
            (false, Self::Udp) => format!("sudo ss -lunp 'sport = :{port}'"),
        }
    }
}

/// A port the configuration opens.
#[derive(Debug, Clone)]
struct Wanted {
    what: String,
    kind: Kind,
    host: String,
    addresses: Vec<SocketAddr>,
    /// What to do when somebody else has it.
    advice: &'static str,
}

/// Tries them all.
pub fn look(loaded: &Loaded, running: Option<&Running>) -> Vec<Finding> {
    wanted(loaded).iter().flat_map(|wanted| one(wanted, running)).collect()
}

fn wanted(loaded: &Loaded) -> Vec<Wanted> {
    let settings = &loaded.settings;
    let listeners = loaded.broker.listeners.iter().map(|listener| Wanted {
        what: format!("MQTT (listener `{}`)", listener.name),
        kind: Kind::Tcp,
        host: listener.written.clone(),
        addresses: listener.addresses.clone(),
        advice: "If that is your present MQTT broker, set `mqttConfig.broker: external` or stop it; else give the listener another port in broker.toml.",
    });
    listeners.chain(udp(settings)).chain(rest(settings)).chain(notifications(settings)).collect()
}

fn udp(settings: &Settings) -> impl Iterator<Item = Wanted> {
    let udp = &settings.udp;
    let ports = [("task events", Some(udp.task_port)), ("session events", udp.session_port)];
    let advice = "If that is Butler, stop it or give one of the two another port (`udpServerConfig`, and `remotePort` in the log appenders).";
    let on = udp.enable;
    let host = udp.host.clone();
    ports.into_iter().filter(move |_| on).filter_map(move |(what, port)| {
        let what = format!("UDP for {what}");
        Some(Wanted { what, kind: Kind::Udp, host: host.clone(), addresses: addresses(&host, port?), advice })
    })
}

fn rest(settings: &Settings) -> impl Iterator<Item = Wanted> {
    let rest = settings.rest.enable.then(|| Wanted {
        what: "REST".to_owned(),
        kind: Kind::Tcp,
        host: settings.rest.host.clone(),
        addresses: addresses(&settings.rest.host, settings.rest.port),
        advice: "If that is Butler, stop it or set another `restServerConfig.serverPort`.",
    });
    let health = settings.docker_health.enable.then(|| Wanted {
        what: "the health check for containers".to_owned(),
        kind: Kind::Tcp,
        host: "localhost".to_owned(),
        addresses: addresses("localhost", settings.docker_health.port),
        advice: "Set another `dockerHealthCheck.port`.",
    });
    rest.into_iter().chain(health)
}

fn notifications(settings: &Settings) -> impl Iterator<Item = Wanted> {
    settings
        .sources
        .notifications
        .as_ref()
        .map(|notifications| Wanted {
            what: "notifications of Qlik Sense".to_owned(),
            kind: Kind::Tcp,
            host: String::new(),
            addresses: notifications.listen.clone(),
            advice: "Give `eventSources.notifications.listen` and `callback` another port.",
        })
        .into_iter()
}

/// None: the host is no name this machine knows.
fn addresses(host: &str, port: u16) -> Vec<SocketAddr> {
    let found = address::look_up(host).unwrap_or_default();
    found.into_iter().map(|address| SocketAddr::new(address, port)).collect()
}

fn one(wanted: &Wanted, running: Option<&Running>) -> Vec<Finding> {
    let Wanted { what, kind, host, addresses, advice } = wanted;
    let Some(port) = addresses.first().map(SocketAddr::port) else {
        let what = format!("{what}: `{host}` is no address of this machine and no name it knows");
        return vec![HERE.problem(what, "Write `localhost`, `0.0.0.0` or an address of this machine.")];
    };
    if port == 0 {
        return vec![HERE.ok(format!("{what}: any free {} port", kind.word()))];
    }
    let several = addresses.len() > 1;
    let tried = addresses.iter().filter_map(|address| match kind.try_open(*address) {
        Err(error) if several && address.is_ipv6() && bind::is_absent(&error) => None,
        tried => Some((address, tried)),
    });
    let failed = tried.filter_map(|(address, tried)| Some((address, tried.err()?))).next();
    let mut findings = vec![match failed {
        None => HERE.ok(format!("{what}: {} port {port} on {} is free", kind.word(), shown(addresses))),
        Some((address, error)) if is_taken(&error) => held(what, *kind, *address, advice, running),
        Some((address, error)) => HERE.problem(
            format!("{what}: {} {address} cannot be opened: {error}", kind.word()),
            "Is that an address of this machine? Ports below 1024 need more rights; Windows also reserves ranges (`netsh int ipv4 show excludedportrange protocol=tcp`).",
        ),
    }];
    if is_of_qlik(port) {
        let what = format!("{what}: port {port} is one Qlik Sense uses itself");
        findings.push(HERE.warning(what, "Choose another where this machine is, or may become, a Sense node."));
    }
    findings
}

fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

fn shown(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(|address| address.ip().to_string()).collect::<Vec<_>>().join(" and ")
}

fn held(what: &str, kind: Kind, address: SocketAddr, advice: &str, running: Option<&Running>) -> Finding {
    let port = address.port();
    let holder = kind.holder(port);
    let by = holder.as_deref().unwrap_or("a program the system does not name");
    let line = format!("{what}: {} port {port} on {} is held by", kind.word(), address.ip());
    match running {
        Some(running) if running.process == holder => HERE.ok(format!("{line} the running sense-butler")),
        _ => {
            let ask = match &holder {
                Some(holder) if holder.starts_with("process ") => String::new(),
                _ => format!(" Who it is says: {}", kind.who_has(port)),
            };
            HERE.problem(format!("{line} {by}"), format!("{advice}{ask}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ports_of_qlik_are_known_and_ours_are_not_among_them() {
        for port in [80, 443, 4242, 4243, 4747, 5928, 9090, 9098, 50_110] {
            assert!(is_of_qlik(port), "{port}");
        }
        for port in [1883, 8080, 8081, 8083, 8084, 8883, 9996, 9997, 9998, 65_535, 1] {
            assert!(!is_of_qlik(port), "{port}");
        }
    }
}
