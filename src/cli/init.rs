//! `sense-butler init`: five questions, then `butler.yaml` and `broker.toml`.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use clap::Args;

use super::{Exit, complain, hash_password};
use crate::{
    names::Secret,
    setup::{self, Done, Given, Machine, Reach, SetupError, Target},
};

/// Options of `init`; each answers a question.
#[derive(Debug, Clone, Args)]
pub struct Options {
    /// Where the files are written
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub directory: PathBuf,
    /// Ask nothing: take these options, and what is proposed for the rest
    #[arg(short, long)]
    pub yes: bool,
    /// Replace files that are there without asking
    #[arg(long)]
    pub overwrite: bool,
    /// Central node of Qlik Sense, HOST or HOST:PORT; none: without Qlik Sense
    #[arg(long, value_name = "HOST")]
    pub qlik: Option<String>,
    /// Directory with client.pem, client_key.pem and root.pem as the QMC exports them
    #[arg(long, value_name = "DIR")]
    pub certificates: Option<PathBuf>,
    /// User of Qlik Sense for whom tasks are started
    #[arg(long, value_name = "DIRECTORY\\USER")]
    pub user: Option<String>,
    /// Sense nodes on other machines (addresses or names, separated by commas); MQTT is then offered to other machines, too; none: this machine
    /// only
    #[arg(long, value_name = "LIST")]
    pub from: Option<String>,
    /// Name of the first MQTT user
    #[arg(long, value_name = "NAME")]
    pub mqtt_user: Option<String>,
    /// Port for MQTT on this machine [default: 1883]
    #[arg(long, value_name = "PORT")]
    pub mqtt_port: Option<u16>,
    /// Port for MQTT with TLS, for other machines [default: 8883]
    #[arg(long, value_name = "PORT")]
    pub mqtts_port: Option<u16>,
    /// Port of the REST API [default: 8080]
    #[arg(long, value_name = "PORT")]
    pub rest_port: Option<u16>,
    /// UDP port for task events [default: 9998]
    #[arg(long, value_name = "PORT")]
    pub udp_port: Option<u16>,
    /// UDP port for session events [default: 9997]
    #[arg(long, value_name = "PORT")]
    pub udp_sessions_port: Option<u16>,
}

impl Options {
    fn given(&self) -> Given {
        Given {
            qlik: self.qlik.clone(),
            certificates: self.certificates.clone(),
            user: self.user.clone(),
            from: self.from.clone(),
            mqtt_user: self.mqtt_user.clone(),
            mqtt_port: self.mqtt_port,
            mqtts_port: self.mqtts_port,
            rest_port: self.rest_port,
            udp_port: self.udp_port,
            udp_sessions_port: self.udp_sessions_port,
        }
    }
}

/// Asks, writes, and says what comes next.
pub fn run(options: &Options) -> Exit {
    match done(options).and_then(|done| Ok(next(&done, &mut io::stdout())?)) {
        Ok(()) => Exit::Done,
        Err(error) => complain(error),
    }
}

fn done(options: &Options) -> Result<Done, SetupError> {
    let target = Target {
        directory: options.directory.clone(),
        overwrite: options.overwrite,
        hash: |password: &Secret| hash_password::hash(password).map_err(|error| error.to_string()),
    };
    let (given, machine) = (options.given(), Machine::this());
    if options.yes {
        return setup::by_flags(&given, &target, &machine);
    }
    setup::by_dialog(&given, &target, &machine, &mut io::stdin().lock(), &mut io::stdout())
}

/// The last words.
fn next(done: &Done, out: &mut dyn Write) -> io::Result<()> {
    let Done { written, answers, password } = done;
    let butler = written.butler.display();
    writeln!(out, "\nWritten:\n  {butler}\n  {}", written.broker.display())?;
    if let Some(ca) = &written.ca {
        writeln!(out, "  {} (what MQTT clients on other machines must trust)", ca.display())?;
    }
    writeln!(out, "\nFirst MQTT user: {}\nIts password, shown this once: {}", answers.mqtt_user, password.expose())?;
    writeln!(out, "\nNext:\n  sense-butler doctor -c \"{butler}\"\n  sense-butler run -c \"{butler}\"")?;
    let machine = match answers.reach {
        Reach::ThisMachine => "127.0.0.1",
        Reach::Others(_) => answers.names.first().map_or("this machine", String::as_str),
    };
    let ports = answers.ports;
    writeln!(
        out,
        "\nOn each Sense node: the log appenders (docs/log-appenders.md), sending to {machine},\nUDP {} (tasks) and {} (sessions).",
        ports.udp, ports.udp_sessions
    )
}
