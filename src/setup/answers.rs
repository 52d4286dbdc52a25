//! The five questions, what is proposed, and what is no answer.
//!
//! Invariant: what stands in [`Answers`] was judged, whether it came from a flag, from a proposal or from the keyboard.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
};

use super::{Machine, SetupError, dialog::Dialog, found, is_free};
use crate::{
    config::{
        HostPort,
        address::{check_host, is_this_machine},
    },
    doctor::ports::{Kind, is_of_qlik},
};

/// Longest name of a user, characters.
const LONGEST_NAME: usize = 64;
/// The user Qlik Sense makes for calls from outside.
const API_USER: &str = r"INTERNAL\sa_api";
/// Port of the repository service.
const QRS_PORT: u16 = 4242;

/// What was said by flags.
#[derive(Debug, Clone, Default)]
pub struct Given {
    /// The central node, with a port if it is not 4242; `none`: there is no Qlik Sense to talk to.
    pub qlik: Option<String>,
    /// Directory with client.pem, client_key.pem and root.pem.
    pub certificates: Option<PathBuf>,
    /// `DIRECTORY\user` for whom calls are made.
    pub user: Option<String>,
    /// Other machines that may reach this one; `none`: nobody.
    pub from: Option<String>,
    /// Name of the first MQTT user.
    pub mqtt_user: Option<String>,
    /// Port for MQTT on this machine.
    pub mqtt_port: Option<u16>,
    /// Port for MQTT with TLS, for other machines.
    pub mqtts_port: Option<u16>,
    /// Port of REST.
    pub rest_port: Option<u16>,
    /// UDP port for task events.
    pub udp_port: Option<u16>,
    /// UDP port for session events.
    pub udp_sessions_port: Option<u16>,
}

/// The way to Qlik Sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qlik {
    /// The central node.
    pub at: HostPort,
    /// Directory with the three files, absolute.
    pub certificates: PathBuf,
    /// User directory and user id.
    pub user: (String, String),
}

/// Who may reach this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reach {
    /// Programs on it.
    ThisMachine,
    /// These, too: addresses or names.
    Others(Vec<String>),
}

/// Ports, all of them free and none of Qlik's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ports {
    /// MQTT on this machine.
    pub mqtt: u16,
    /// MQTT with TLS for other machines.
    pub mqtts: u16,
    /// REST.
    pub rest: u16,
    /// Task events.
    pub udp: u16,
    /// Session events.
    pub udp_sessions: u16,
}

/// Everything that is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// `None`: without Qlik Sense.
    pub qlik: Option<Qlik>,
    /// Who may reach this machine.
    pub reach: Reach,
    /// The first MQTT user.
    pub mqtt_user: String,
    /// The ports.
    pub ports: Ports,
    /// This machine's name and addresses, for its certificate.
    pub names: Vec<String>,
}

/// The ports in the order they are asked for: what for, of which kind, and the one that is proposed.
const PORTS: [(&str, Kind, u16); 5] = [
    ("MQTT on this machine", Kind::Tcp, 1883),
    ("MQTT with TLS for other machines", Kind::Tcp, 8883),
    ("the REST API", Kind::Tcp, 8080),
    ("task events of Qlik Sense", Kind::Udp, 9998),
    ("session events of Qlik Sense", Kind::Udp, 9997),
];

impl Given {
    fn ports(&self) -> [Option<u16>; 5] {
        [self.mqtt_port, self.mqtts_port, self.rest_port, self.udp_port, self.udp_sessions_port]
    }
}

/// Asks for what the flags leave open.
pub(super) fn ask(given: &Given, machine: &Machine, dialog: &mut Dialog<'_>) -> Result<Answers, SetupError> {
    dialog
        .say("sense-butler init: five questions, then two configuration files. Enter takes what stands in brackets.")?;
    let at = match &given.qlik {
        Some(text) => host(text).map_err(SetupError::Answer)?,
        None => dialog.ask(
            "1. Which machine is the central node of Qlik Sense? (its name or address; none: work without Qlik Sense)",
            &proposed_host(machine),
            host,
        )?,
    };
    let qlik = match at {
        None => None,
        Some(at) => Some(ask_qlik(given, machine, at, dialog)?),
    };
    let reach = match &given.from {
        Some(text) => reach(text).map_err(SetupError::Answer)?,
        None => dialog.ask(
            "4. Which other machines send events to this one (Sense nodes)?\n   Addresses or names, separated by blanks; MQTT is then offered to other \
             machines, too, with TLS. none: this machine only",
            "none",
            reach,
        )?,
    };
    let mqtt_user = match &given.mqtt_user {
        Some(text) => user_name(text).map_err(SetupError::Answer)?,
        None => dialog.ask("5. Name of the first MQTT user? (a password is made for it)", "butler", user_name)?,
    };
    let ports = ports(given, &reach, |what, kind, wanted| ask_port(what, kind, wanted, dialog))?;
    Ok(Answers { qlik, reach, mqtt_user, ports, names: names(machine) })
}

fn ask_qlik(given: &Given, machine: &Machine, at: HostPort, dialog: &mut Dialog<'_>) -> Result<Qlik, SetupError> {
    let certificates = match &given.certificates {
        Some(directory) => certificates(&directory.display().to_string()).map_err(SetupError::Answer)?,
        None => {
            let proposal = machine.certificates.first().map(|set| set.display().to_string()).unwrap_or_default();
            dialog.ask(
                "2. In which directory are the exported certificates client.pem, client_key.pem and root.pem?\n   (QMC, Certificates: platform \
                 independent PEM format, with the secret key)",
                &proposal,
                certificates,
            )?
        }
    };
    let user = match &given.user {
        Some(text) => user(text).map_err(SetupError::Answer)?,
        None => dialog.ask(
            "3. As which user of Qlik Sense are tasks started? (DIRECTORY\\user; one with few rights is better, see docs/security.md)",
            API_USER,
            user,
        )?,
    };
    Ok(Qlik { at, certificates, user })
}

/// Takes the proposals for what the flags leave open.
pub(super) fn take(given: &Given, machine: &Machine) -> Result<Answers, SetupError> {
    let answer = SetupError::Answer;
    let at = host(given.qlik.as_deref().unwrap_or(&proposed_host(machine))).map_err(answer)?;
    let qlik = match at {
        None => None,
        Some(at) => {
            let found = given.certificates.clone().or_else(|| machine.certificates.first().cloned());
            let directory = found.ok_or_else(|| {
                answer(
                    "no exported certificates of Qlik Sense were found; name their directory with --certificates"
                        .to_owned(),
                )
            })?;
            let certificates = certificates(&directory.display().to_string()).map_err(answer)?;
            let user = user(given.user.as_deref().unwrap_or(API_USER)).map_err(answer)?;
            Some(Qlik { at, certificates, user })
        }
    };
    let reach = reach(given.from.as_deref().unwrap_or("none")).map_err(answer)?;
    let mqtt_user = user_name(given.mqtt_user.as_deref().unwrap_or("butler")).map_err(answer)?;
    let ports = ports(given, &reach, |what, kind, wanted| {
        port_of(kind, &wanted.to_string()).map_err(|why| answer(format!("port for {what}: {why}")))
    })?;
    Ok(Answers { qlik, reach, mqtt_user, ports, names: names(machine) })
}

/// All ports by `find`, but that for other machines only where there are some.
fn ports(
    given: &Given,
    reach: &Reach,
    mut find: impl FnMut(&str, Kind, u16) -> Result<u16, SetupError>,
) -> Result<Ports, SetupError> {
    let mut ports = [0; 5];
    for (number, ((port, (what, kind, usual)), given)) in ports.iter_mut().zip(PORTS).zip(given.ports()).enumerate() {
        let wanted = given.unwrap_or(usual);
        let is_needed = number != 1 || *reach != Reach::ThisMachine;
        *port = if is_needed { find(what, kind, wanted)? } else { wanted };
    }
    let [mqtt, mqtts, rest, udp, udp_sessions] = ports;
    Ok(Ports { mqtt, mqtts, rest, udp, udp_sessions })
}

/// Only a port that cannot be had is worth a question.
fn ask_port(what: &str, kind: Kind, wanted: u16, dialog: &mut Dialog<'_>) -> Result<u16, SetupError> {
    let why = match port_of(kind, &wanted.to_string()) {
        Ok(port) => return Ok(port),
        Err(why) => why,
    };
    dialog.say(&format!("\nFor {what}: {why}"))?;
    let free = (wanted.saturating_add(1)..u16::MAX).find(|port| port_of(kind, &port.to_string()).is_ok());
    let proposal = free.map(|port| port.to_string()).unwrap_or_default();
    dialog.ask(&format!("Which other port for {what}?"), &proposal, |text| port_of(kind, text))
}

/// With Qlik Sense on this machine, it most likely is the central node.
fn proposed_host(machine: &Machine) -> String {
    match (machine.has_sense, machine.name.as_str()) {
        (true, name) if !name.is_empty() => name.to_owned(),
        _ => "none".to_owned(),
    }
}

fn names(machine: &Machine) -> Vec<String> {
    let addresses = machine.addresses.iter().filter(|address| !address.is_loopback()).map(ToString::to_string);
    let name = (!machine.name.is_empty()).then(|| machine.name.to_lowercase());
    let all =
        name.into_iter().chain(["localhost".to_owned(), "127.0.0.1".to_owned(), "::1".to_owned()]).chain(addresses);
    let mut names: Vec<String> = Vec::new();
    for name in all {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    names
}

fn host(text: &str) -> Result<Option<HostPort>, String> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(None);
    }
    if text.is_empty() {
        return Err("A name or an address is needed, or none.".to_owned());
    }
    let with_port = text.parse::<HostPort>();
    let at = match with_port {
        Ok(at) if at.port > 0 => at,
        _ => {
            check_host(text).map_err(|error| format!("{error}."))?;
            HostPort { host: text.to_owned(), port: QRS_PORT }
        }
    };
    Ok(Some(at))
}

fn certificates(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("A directory is needed.".to_owned());
    }
    let directory = Path::new(text.trim_matches('"'));
    let directory = std::path::absolute(directory).unwrap_or_else(|_| directory.to_owned());
    if !directory.is_dir() {
        return Err(format!("{} is no directory, or this user may not look into it.", directory.display()));
    }
    match found::missing(&directory) {
        None => Ok(directory),
        Some(file) => Err(format!(
            "{file} is not in {}: export the certificates in the QMC (platform independent PEM format, with the secret key).",
            directory.display()
        )),
    }
}

fn user(text: &str) -> Result<(String, String), String> {
    let parts = text.split_once('\\').filter(|(directory, id)| !directory.is_empty() && !id.is_empty());
    let tame = |text: &str| text.chars().all(|c| !c.is_control() && !matches!(c, ';' | '=' | '"' | '\''));
    match parts {
        Some((directory, id)) if tame(directory) && tame(id) => Ok((directory.to_owned(), id.to_owned())),
        _ => Err(format!("`{text}` is no user of Qlik Sense: write DIRECTORY\\user, e.g. {API_USER}.")),
    }
}

fn reach(text: &str) -> Result<Reach, String> {
    if text.eq_ignore_ascii_case("none") || text.is_empty() {
        return Ok(Reach::ThisMachine);
    }
    let entries: Vec<&str> = text.split([' ', ',', ';']).filter(|entry| !entry.is_empty()).collect();
    for entry in &entries {
        check_host(entry).map_err(|error| format!("{error}."))?;
        if is_this_machine(entry, "", &[]) {
            return Err(format!("`{entry}` is this machine, which may always; name others, or none."));
        }
    }
    Ok(Reach::Others(entries.into_iter().map(str::to_owned).collect()))
}

fn user_name(text: &str) -> Result<String, String> {
    let tame = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    match text.chars().count() {
        1..=LONGEST_NAME if text.chars().all(tame) => Ok(text.to_owned()),
        _ => Err(format!("A name has 1 to {LONGEST_NAME} letters, digits, or - _ . @, and no blanks.")),
    }
}

fn port_of(kind: Kind, text: &str) -> Result<u16, String> {
    let port: u16 =
        text.parse().ok().filter(|port| *port > 0).ok_or_else(|| format!("`{text}` is no port: 1 to 65535."))?;
    if is_of_qlik(port) {
        return Err(format!("port {port} is one Qlik Sense uses itself."));
    }
    if is_free(kind, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))) {
        return Ok(port);
    }
    let by = kind.holder(port).map(|holder| format!(" by {holder}")).unwrap_or_default();
    Err(format!("port {port} is in use{by}."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_that_cannot_be_right_are_explained() {
        assert_eq!(host("none"), Ok(None));
        assert_eq!(host("sense1").unwrap().unwrap().to_string(), "sense1:4242");
        assert_eq!(host("sense1:4999").unwrap().unwrap().port, 4999);
        let wrong: Vec<String> = vec![
            host("https://sense1/qmc").unwrap_err(),
            host("").unwrap_err(),
            certificates("/no/such/directory").unwrap_err(),
            user("goran").unwrap_err(),
            user("LAB\\go;ran").unwrap_err(),
            reach("10.0.0.0/40").unwrap_err(),
            reach("sense 2 http://x").unwrap_err(),
            reach("127.0.0.1").unwrap_err(),
            user_name("two words").unwrap_err(),
            user_name("").unwrap_err(),
            port_of(Kind::Tcp, "4242").unwrap_err(),
            port_of(Kind::Tcp, "70000").unwrap_err(),
        ];
        assert_eq!(wrong.len(), 12);
        for why in wrong {
            assert!(why.ends_with('.') && why.contains(' '), "{why}");
        }
        assert_eq!(reach("10.0.0.8, sense2"), Ok(Reach::Others(vec!["10.0.0.8".into(), "sense2".into()])));
        assert_eq!(user(r"LAB\svc"), Ok(("LAB".to_owned(), "svc".to_owned())));
    }

    #[test]
    fn a_port_somebody_has_is_not_taken() {
        let held = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
        let port = held.local_addr().unwrap().port().to_string();
        assert!(port_of(Kind::Tcp, &port).unwrap_err().contains("is in use"));
    }
}
