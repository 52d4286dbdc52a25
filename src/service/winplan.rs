//! The plan for Windows: the service, its directory, who may read what, the event log, the firewall.
//!
//! Invariants: the data directory is open to the system, its administrators and the service's own account, to nobody else; of files elsewhere
//! the account gets the right to read, and nothing is taken from anybody; the firewall gets one rule for each port that is open to other machines, for the machines
//! that were named, and none without names. Accounts of Windows are written as their numbers, because their names are translated.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{
    NAME, ServiceError,
    doors::{self, Door},
    files,
    node::Node,
    plan::{Action, Plan, Registration, Step},
};
use crate::config::Loaded;

/// The account Windows makes for the service: nobody logs in as it, and it has no password.
pub const ACCOUNT: &str = r"NT SERVICE\sense-butler";
/// SYSTEM.
const SYSTEM: &str = "*S-1-5-18";
/// Administrators.
const ADMINISTRATORS: &str = "*S-1-5-32-544";
/// Where the event log knows its sources.
const SOURCE: &str = r"HKLM\SYSTEM\CurrentControlSet\Services\EventLog\Application\sense-butler";

/// What is known of the machine and wanted of the installation.
#[derive(Debug, Clone)]
pub struct Machine {
    /// The program that is to run.
    pub program: PathBuf,
    /// `C:\Windows\System32`
    pub system: PathBuf,
    /// The arguments with which the service is started.
    pub arguments: Vec<OsString>,
    /// Who may reach the ports that are open.
    pub nodes: Vec<Node>,
}

impl Machine {
    fn call(&self, program: &str, arguments: impl IntoIterator<Item: Into<OsString>>) -> Action {
        Action::call(self.system.join(program), arguments)
    }
}

/// What `service install` does.
///
/// # Errors
/// [`ServiceError::Node`] if a node's name stands for no address.
pub fn install(machine: &Machine, loaded: &Loaded) -> Result<Plan, ServiceError> {
    let mut plan = Plan::default();
    plan.steps.push(Step::must("register the service with Windows", register(machine)));
    let data = &loaded.data_dir;
    plan.steps.push(Step::must("make the data directory", Action::Directory(data.clone())));
    plan.steps.push(Step::must(
        "close it: SYSTEM, Administrators and the service's own account, nobody else",
        machine.call("icacls.exe", closed(data)),
    ));
    rights(machine, loaded, &mut plan);
    plan.steps.push(Step::may(
        "make the program known to the event log (Application)",
        machine.call("eventcreate.exe", event(Kind::Installed, "sense-butler was installed as a service.")),
    ));
    firewall(machine, loaded, &mut plan)?;
    Ok(plan)
}

/// What `service uninstall` does when the service itself is gone.
pub fn uninstall(system: &Path) -> Plan {
    let delete = ["advfirewall", "firewall", "delete", "rule"].map(str::to_owned).into_iter();
    let rule = Action::call(system.join("netsh.exe"), delete.chain([format!("name={NAME}")]));
    let source = Action::call(system.join("reg.exe"), ["delete", SOURCE, "/f"]);
    Plan {
        steps: vec![
            Step::may("take its rules out of the firewall (Windows says no if there are none)", rule),
            Step::may("make the event log forget the program", source),
        ],
        notes: Vec::new(),
    }
}

fn register(machine: &Machine) -> Action {
    Action::Register(Registration {
        program: machine.program.clone(),
        arguments: machine.arguments.clone(),
        account: ACCOUNT.to_owned(),
    })
}

/// Arguments of icacls for a directory of the service's own: nothing inherited, three entries.
fn closed(directory: &Path) -> Vec<OsString> {
    let full = |who: &str| OsString::from(format!("{who}:(OI)(CI)F"));
    let grant = ["/inheritance:r", "/grant:r"].map(OsString::from);
    let entries = [full(SYSTEM), full(ADMINISTRATORS), OsString::from(format!("{ACCOUNT}:(OI)(CI)M"))];
    std::iter::once(directory.as_os_str().to_owned()).chain(grant).chain(entries).collect()
}

/// The account may read the program and the files the configuration names, where they are not in its own directory.
fn rights(machine: &Machine, loaded: &Loaded, plan: &mut Plan) {
    let program = std::iter::once((machine.program.clone(), "RX"));
    let files = files::named(loaded).into_iter().map(|file| (file, "R"));
    for (file, right) in program.chain(files).filter(|(file, _)| !file.starts_with(&loaded.data_dir)) {
        if !file.exists() && right == "R" {
            plan.notes.push(format!(
                "{} is not there; when it is, allow the service to read it: icacls \"{}\" /grant \"{ACCOUNT}:R\"",
                file.display(),
                file.display()
            ));
            continue;
        }
        let grant = [OsString::from("/grant"), OsString::from(format!("{ACCOUNT}:{right}"))];
        let arguments = std::iter::once(file.as_os_str().to_owned()).chain(grant);
        let what = format!("let the service's account read {}", file.display());
        plan.steps.push(Step::must(what, machine.call("icacls.exe", arguments)));
    }
    if files::named(loaded).iter().any(|file| !file.starts_with(&loaded.data_dir)) {
        plan.notes.push(
            "a certificate that is exported anew loses the right to be read by the service: call `service install` again afterwards"
                .to_owned(),
        );
    }
}

fn firewall(machine: &Machine, loaded: &Loaded, plan: &mut Plan) -> Result<(), ServiceError> {
    let doors = doors::open(loaded);
    if doors.is_empty() {
        plan.notes.push("firewall: nothing to do, the configuration opens no port to other machines".to_owned());
        return Ok(());
    }
    if machine.nodes.is_empty() {
        let list: Vec<String> = doors.iter().map(|door| format!("{} {}", door.protocol.as_str(), door.port)).collect();
        plan.notes.push(format!(
            "firewall: no rule is set, so other machines may be shut out of {}; `--node ADDRESS`, once for each Sense node and MQTT client \
             (or a network, `localsubnet`, `any`), lets them in",
            list.join(", ")
        ));
        return Ok(());
    }
    let remote = remote(&machine.nodes)?;
    let delete = ["advfirewall", "firewall", "delete", "rule"].map(str::to_owned).into_iter();
    plan.steps.push(Step::may(
        "firewall: take out the rules of an installation before (Windows says no if there are none)",
        machine.call("netsh.exe", delete.chain([format!("name={NAME}")])),
    ));
    for door in &doors {
        let what = format!("firewall: let {remote} in at {} {} for {}", door.protocol.as_str(), door.port, door.what);
        plan.steps.push(Step::may(what, machine.call("netsh.exe", rule(door, &remote, &machine.program))));
    }
    Ok(())
}

/// All addresses, as netsh takes them.
fn remote(nodes: &[Node]) -> Result<String, ServiceError> {
    let mut all: Vec<String> = Vec::new();
    for node in nodes {
        let found = node.remote_ip().map_err(|source| ServiceError::Node { name: node.to_string(), source })?;
        all.extend(found);
    }
    if all.iter().any(|address| address == "any") {
        return Ok("any".to_owned());
    }
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|address| seen.insert(address.clone()));
    Ok(all.join(","))
}

/// Arguments of netsh for one door. All rules have one name, by which they are taken out again.
fn rule(door: &Door, remote: &str, program: &Path) -> Vec<OsString> {
    let words = ["advfirewall", "firewall", "add", "rule"].map(OsString::from);
    let mut of_program = OsString::from("program=");
    of_program.push(program);
    let settings = [
        format!("name={NAME}"),
        format!("description={}", door.what),
        "dir=in".to_owned(),
        "action=allow".to_owned(),
        format!("protocol={}", door.protocol.as_str()),
        format!("localport={}", door.port),
        format!("remoteip={remote}"),
    ];
    words.into_iter().chain(settings.map(OsString::from)).chain([of_program]).collect()
}

/// What the event log is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The service has come up.
    Started,
    /// It has stopped in order.
    Stopped,
    /// It could not start, or gave up.
    Failed,
    /// It was installed.
    Installed,
}

impl Kind {
    /// Number and type of the entry.
    const fn entry(self) -> (&'static str, &'static str) {
        match self {
            Self::Started => ("1", "INFORMATION"),
            Self::Stopped => ("2", "INFORMATION"),
            Self::Failed => ("3", "ERROR"),
            Self::Installed => ("4", "INFORMATION"),
        }
    }
}

/// Longest text of an entry, characters.
const LONGEST: usize = 1_000;

/// Arguments of eventcreate for one entry.
pub fn event(kind: Kind, text: &str) -> Vec<OsString> {
    let (id, entry) = kind.entry();
    let text: String = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c }).take(LONGEST).collect();
    ["/L", "APPLICATION", "/T", entry, "/SO", NAME, "/ID", id, "/D", text.as_str()].map(OsString::from).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::doors::tests::loaded;

    const BUTLER: &str = "Butler:
  mqttConfig:
    broker: embedded
  udpServerConfig:
    serverHost: 0.0.0.0
    portTaskFailure: 9998
";
    const BROKER: &str = "[[listeners]]
name = \"plant\"
address = \"0.0.0.0:8883\"
allow_anonymous = true
";

    fn machine(nodes: &[&str]) -> Machine {
        Machine {
            program: "/opt/sense-butler.exe".into(),
            system: "/system".into(),
            arguments: ["service", "run", "--config", "/a b/butler.yaml"].map(Into::into).into(),
            nodes: nodes.iter().map(|node| node.parse().unwrap()).collect(),
        }
    }

    /// The calls of one program, as they would be typed.
    fn calls(plan: &Plan, program: &str) -> Vec<String> {
        let all = plan.steps.iter().map(|step| step.action.to_string());
        all.filter(|line| line.starts_with(program)).collect()
    }

    #[test]
    fn the_catalogue_has_every_entry_of_the_event_log() {
        let kinds = [Kind::Started, Kind::Stopped, Kind::Failed, Kind::Installed].map(Kind::entry);
        assert_eq!(crate::telemetry::catalogue::EVENT_LOG.map(|(number, kind, ..)| (number, kind)), kinds);
    }

    #[test]
    fn the_directory_is_closed_and_nothing_else_is_taken_away() {
        let mut loaded = loaded(BUTLER, "");
        loaded.data_dir = "/data".into();
        let plan = install(&machine(&[]), &loaded).unwrap();
        let icacls = calls(&plan, "icacls.exe");
        assert_eq!(
            icacls,
            [
                r#"icacls.exe /data /inheritance:r /grant:r *S-1-5-18:(OI)(CI)F *S-1-5-32-544:(OI)(CI)F "NT SERVICE\sense-butler:(OI)(CI)M""#,
                r#"icacls.exe /opt/sense-butler.exe /grant "NT SERVICE\sense-butler:RX""#,
            ],
            "the configuration files of this test are gone, so they are notes"
        );
        assert_eq!(plan.notes.iter().filter(|note| note.contains("is not there; when it is")).count(), 2);
        assert!(matches!(&plan.steps[0].action, Action::Register(registered) if registered.account == ACCOUNT));
        assert_eq!(plan.steps[1].action, Action::Directory("/data".into()), "before it is closed");
        assert!(plan.steps.iter().take(3).all(|step| step.must));
    }

    #[test]
    fn files_elsewhere_can_be_read_and_files_in_the_directory_need_no_word() {
        let mut loaded = loaded(BUTLER, "");
        let here = std::env::temp_dir().join(format!("sense-butler-winplan-{}", uuid::Uuid::new_v4().simple()));
        let (data, elsewhere) = (here.join("data"), here.join("elsewhere.yaml"));
        std::fs::create_dir_all(&data).unwrap();
        std::fs::write(&elsewhere, "").unwrap();
        std::fs::write(data.join("broker.toml"), "").unwrap();
        loaded.sources.butler = Some(elsewhere.clone());
        loaded.sources.broker = Some(data.join("broker.toml"));
        loaded.data_dir = data;
        let plan = install(&machine(&[]), &loaded).unwrap();
        let read: Vec<String> = calls(&plan, "icacls.exe").into_iter().filter(|line| line.ends_with(":R\"")).collect();
        assert_eq!(read, [format!(r#"icacls.exe {} /grant "NT SERVICE\sense-butler:R""#, elsewhere.display())]);
        std::fs::remove_dir_all(here).unwrap();
    }

    #[test]
    fn exactly_the_open_ports_are_let_through_for_the_nodes_given() {
        let plan = install(&machine(&["10.0.0.5", "10.0.0.5", "fd00::/8"]), &loaded(BUTLER, BROKER)).unwrap();
        assert_eq!(
            calls(&plan, "netsh.exe"),
            [
                "netsh.exe advfirewall firewall delete rule name=sense-butler",
                "netsh.exe advfirewall firewall add rule name=sense-butler \"description=MQTT (listener plant)\" dir=in action=allow protocol=TCP \
                 localport=8883 remoteip=10.0.0.5,fd00::/8 program=/opt/sense-butler.exe",
                "netsh.exe advfirewall firewall add rule name=sense-butler \"description=task events of Qlik Sense\" dir=in action=allow \
                 protocol=UDP localport=9998 remoteip=10.0.0.5,fd00::/8 program=/opt/sense-butler.exe",
            ]
        );
        let anybody = install(&machine(&["10.0.0.5", "any"]), &loaded(BUTLER, BROKER)).unwrap();
        assert!(calls(&anybody, "netsh.exe")[1].contains(" remoteip=any "));
    }

    #[test]
    fn nobody_is_let_in_without_being_named() {
        let plan = install(&machine(&[]), &loaded(BUTLER, BROKER)).unwrap();
        assert_eq!(calls(&plan, "netsh.exe"), [""; 0]);
        assert!(
            plan.notes.iter().any(|note| note.contains("TCP 8883, UDP 9998; `--node ADDRESS`")),
            "{:?}",
            plan.notes
        );
        let local =
            install(&machine(&["10.0.0.5"]), &loaded("Butler:\n  mqttConfig:\n    broker: embedded\n", "")).unwrap();
        assert_eq!(calls(&local, "netsh.exe"), [""; 0], "nothing is open");
        let unknown = install(&machine(&["no.such.name.invalid"]), &loaded(BUTLER, BROKER)).unwrap_err().to_string();
        assert!(unknown.starts_with("--node no.such.name.invalid: the name is not known"), "{unknown}");
    }

    #[test]
    fn removal_takes_out_what_was_put_in_and_leaves_the_data() {
        let plan = uninstall(Path::new("/system"));
        assert_eq!(calls(&plan, "netsh.exe"), ["netsh.exe advfirewall firewall delete rule name=sense-butler"]);
        assert_eq!(calls(&plan, "reg.exe"), [format!("reg.exe delete {SOURCE} /f")]);
        assert!(plan.steps.iter().all(|step| !step.must) && plan.steps.len() == 2);
    }

    #[test]
    fn entries_of_the_event_log_are_one_short_line() {
        let words = event(Kind::Failed, &format!("line one\r\nline two {}", "é".repeat(2_000)));
        let words: Vec<&str> = words.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(words[..8], ["/L", "APPLICATION", "/T", "ERROR", "/SO", "sense-butler", "/ID", "3"]);
        assert!(words[9].starts_with("line one  line two é") && words[9].chars().count() == LONGEST);
        let kinds = [Kind::Started, Kind::Stopped, Kind::Failed, Kind::Installed].map(|kind| kind.entry().0);
        assert_eq!(kinds.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    }
}
