//! The plan for Linux with systemd: a user of its own, the unit, who may read the configuration.
//!
//! Why a user that is always the same and not `DynamicUser` or `LoadCredential`: the configuration holds secrets, so it must not be open to
//! everybody, and it must be read again while the program runs (users and rules of `broker.toml`, renewed certificates), where copies made at the start would grow
//! old. So the files belong to root and are readable for the group of that user. Invariants: only files beside or below `butler.yaml` change
//! their group and mode; others are named, with what to do.

use std::{
    ffi::OsString,
    path::{Path, PathBuf},
};

use super::{
    NAME, ServiceError, files,
    plan::{Action, Plan, Step},
};
use crate::config::Loaded;

/// The unit as it is shipped.
const UNIT: &str = include_str!("../../deploy/systemd/sense-butler.service");
/// The user as it is shipped.
const USER: &str = include_str!("../../deploy/systemd/sense-butler.sysusers");
/// Where the unit goes.
pub const UNIT_FILE: &str = "/etc/systemd/system/sense-butler.service";
/// Where the user is described.
pub const USER_FILE: &str = "/etc/sysusers.d/sense-butler.conf";
/// Where the configuration is expected.
pub const CONFIGURATION: &str = "/etc/sense-butler";
/// Places the unit hides from the program.
const HIDDEN: [&str; 4] = ["/home", "/root", "/run/user", "/tmp"];

/// Whether systemd manages this system (sd_booted(3)).
pub fn is_here() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// `systemctl` with these words for our unit.
pub fn systemctl(words: &[&str]) -> Action {
    Action::call("/usr/bin/systemctl", words.iter().map(OsString::from).chain([unit_name()]))
}

fn unit_name() -> OsString {
    format!("{NAME}.service").into()
}

/// What `service install` does. `arguments`: those of the program, beginning with `run`.
///
/// # Errors
/// [`ServiceError::Place`] if the program or a file lies where the service cannot see it.
pub fn install(program: &Path, arguments: &[OsString], loaded: &Loaded) -> Result<Plan, ServiceError> {
    seen(program, "/usr/local/bin")?;
    let files = files::named(loaded);
    files.iter().try_for_each(|file| seen(file, CONFIGURATION))?;
    seen(&loaded.data_dir, "/var/lib/sense-butler")?;
    let mut plan = Plan::default();
    let user = Action::Write { file: USER_FILE.into(), text: USER.to_owned() };
    plan.steps.push(Step::must("describe a user for the service", user));
    let make = Action::call("/usr/bin/systemd-sysusers", [USER_FILE]);
    plan.steps.push(Step::must("make it", make));
    rights(&files, loaded, &mut plan);
    let text = unit(program, arguments, &loaded.data_dir);
    plan.steps.push(Step::must("write the unit", Action::Write { file: UNIT_FILE.into(), text }));
    plan.steps.push(Step::must("tell systemd", Action::call("/usr/bin/systemctl", ["daemon-reload"])));
    plan.steps.push(Step::must("start it with the machine", systemctl(&["enable"])));
    plan.notes.push(
        "firewall: not touched; if there is one on this machine, open the ports `sense-butler check` lists".to_owned(),
    );
    Ok(plan)
}

/// What `service uninstall` does; the user, the configuration and the data stay.
pub fn uninstall() -> Plan {
    Plan {
        steps: vec![
            Step::may("stop it and start it no more", systemctl(&["disable", "--now"])),
            Step::must("take the unit away", Action::call("/bin/rm", ["-f", UNIT_FILE])),
            Step::must("tell systemd", Action::call("/usr/bin/systemctl", ["daemon-reload"])),
        ],
        notes: Vec::new(),
    }
}

fn seen(file: &Path, instead: &'static str) -> Result<(), ServiceError> {
    let hidden = HIDDEN.iter().any(|place| file.starts_with(place));
    let why = "the unit hides /home, /root and /tmp from it";
    if hidden { Err(ServiceError::Place { file: file.to_owned(), why, instead }) } else { Ok(()) }
}

/// Files beside and below `butler.yaml` become readable for the group of the service.
fn rights(files: &[PathBuf], loaded: &Loaded, plan: &mut Plan) {
    let own = loaded.sources.butler.as_deref().and_then(Path::parent).unwrap_or(Path::new(CONFIGURATION));
    let (ours, others): (Vec<&PathBuf>, Vec<&PathBuf>) =
        files.iter().filter(|file| file.exists()).partition(|file| file.starts_with(own));
    if !ours.is_empty() {
        let with = |first: &str| std::iter::once(OsString::from(first)).chain(ours.iter().map(OsString::from));
        let group = Action::call("/bin/chgrp", with(NAME));
        plan.steps.push(Step::must("let the service read its configuration: the group", group));
        plan.steps.push(Step::must("and nobody else", Action::call("/bin/chmod", with("0640"))));
    }
    plan.notes.extend(others.iter().map(|file| {
        let file = file.display();
        format!("{file} is left as it is; the user {NAME} must be able to read it (setfacl -m u:{NAME}:r \"{file}\")")
    }));
    let missing = files.iter().filter(|file| !file.exists());
    plan.notes.extend(missing.map(|file| {
        let file = file.display();
        format!("{file} is not there; when it is: chgrp {NAME} \"{file}\" && chmod 0640 \"{file}\"")
    }));
}

/// The shipped unit with this program, these arguments and this directory.
fn unit(program: &Path, arguments: &[OsString], data: &Path) -> String {
    let words = std::iter::once(program.as_os_str()).chain(arguments.iter().map(OsString::as_os_str));
    let command: Vec<String> = words.map(|word| quoted(&word.to_string_lossy())).collect();
    let line = |line: &str| match line.split_once('=') {
        Some(("ExecStart", _)) => format!("ExecStart={}\n", command.join(" ")),
        // Elsewhere systemd makes no directory, and has to let the program write there.
        Some(("StateDirectory", _)) if data != Path::new("/var/lib/sense-butler") => {
            format!("ReadWritePaths={}\n", quoted(&data.to_string_lossy()))
        }
        _ => format!("{line}\n"),
    };
    let lines = UNIT.lines().skip_while(|line| line.starts_with('#'));
    std::iter::once("# Written by `sense-butler service install`.\n".to_owned()).chain(lines.map(line)).collect()
}

/// A word as systemd reads it (systemd.service(5), "Command lines"): quotes, and its own signs doubled.
fn quoted(word: &str) -> String {
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('%', "%%").replace('$', "$$");
    let plain = !escaped.is_empty() && !escaped.contains(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | ';'));
    if plain { escaped } else { format!("\"{escaped}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::doors::tests::loaded;

    const PROGRAM: &str = "/usr/local/bin/sense-butler";

    fn configured(butler: &str) -> Loaded {
        let mut loaded = loaded("Butler:\n  mqttConfig:\n    broker: embedded\n", "");
        loaded.sources.butler = Some(butler.into());
        loaded.sources.broker = None;
        loaded.data_dir = "/var/lib/sense-butler".into();
        loaded
    }

    #[test]
    fn the_unit_is_the_shipped_one_with_this_command() {
        let arguments = ["run", "--config", "/etc/sense butler/100%.yaml"].map(OsString::from);
        let text = unit(Path::new(PROGRAM), &arguments, Path::new("/var/lib/sense-butler"));
        assert!(
            text.contains("\nExecStart=/usr/local/bin/sense-butler run --config \"/etc/sense butler/100%%.yaml\"\n")
        );
        assert!(
            text.starts_with("# Written by ") && text.contains("\n[Unit]\n") && text.ends_with("multi-user.target\n")
        );
        for line in ["Type=notify", "WatchdogSec=60", "User=sense-butler", "StateDirectory=sense-butler"] {
            assert_eq!(text.matches(&format!("\n{line}\n")).count(), 1, "{line}");
        }
        let elsewhere = unit(Path::new(PROGRAM), &arguments, Path::new("/srv/data"));
        assert!(elsewhere.contains("\nReadWritePaths=/srv/data\n") && !elsewhere.contains("\nStateDirectory="));
    }

    #[test]
    fn the_shipped_unit_and_the_installed_one_start_the_same_command() {
        let shipped = UNIT.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap();
        let mut words = shipped.split(' ');
        let (program, arguments) = (words.next().unwrap(), words.map(OsString::from).collect::<Vec<_>>());
        let text = unit(Path::new(program), &arguments, Path::new("/var/lib/sense-butler"));
        assert!(text.contains(&format!("\nExecStart={shipped}\n")));
        assert!(USER.lines().any(|line| line.starts_with("u sense-butler - ")));
    }

    #[test]
    fn what_the_service_could_not_see_is_refused() {
        let run = [OsString::from("run")];
        for hidden in ["/home/x/sense-butler", "/root/sense-butler", "/tmp/x"] {
            let error = install(Path::new(hidden), &run, &configured("/etc/sense-butler/butler.yaml")).unwrap_err();
            assert!(error.to_string().contains("copy it to /usr/local/bin"), "{error}");
            let error = install(Path::new(PROGRAM), &run, &configured(hidden)).unwrap_err();
            assert!(error.to_string().contains("copy it to /etc/sense-butler"), "{error}");
        }
        assert!(install(Path::new(PROGRAM), &run, &configured("/etc/sense-butler/butler.yaml")).is_ok());
    }

    #[test]
    fn only_files_of_its_own_change_hands() {
        let own = std::env::current_dir().unwrap().join("config/butler.yaml");
        let other = std::env::current_dir().unwrap().join("broker.toml");
        let mut loaded = configured(own.to_str().unwrap());
        loaded.sources.broker = Some(other.clone());
        let mut plan = Plan::default();
        rights(&[own.clone(), other.clone(), "/no/such.pem".into()], &loaded, &mut plan);
        let steps: Vec<String> = plan.steps.iter().map(|step| step.action.to_string()).collect();
        let own = own.display();
        assert_eq!(steps, [format!("chgrp sense-butler {own}"), format!("chmod 0640 {own}")]);
        assert!(plan.notes[0].starts_with(&format!("{} is left as it is", other.display())), "{:?}", plan.notes);
        assert!(plan.notes[1].starts_with("/no/such.pem is not there; when it is: chgrp"));
    }
}
